//! The day's cap: tokens of one local calendar day, over all pools.
//!
//! Days have 23, 24 or 25 hours, and in some zones a day does not begin at midnight; so the end of a day is looked up,
//! never computed. If the wall clock goes back over midnight, the later date keeps its count.

use chrono::{DateTime, Days, NaiveDate, NaiveDateTime, NaiveTime, TimeDelta, TimeZone, Utc};
use chrono_tz::Tz;

use crate::limits::limiter::Decision;
use crate::limits::options::PPM;
use crate::limits::snapshot::DayView;

/// Tokens of the current day.
#[derive(Clone, Debug)]
pub(crate) struct Daily {
    zone: Tz,
    cap: u64,
    warn_at: u64,
    date: NaiveDate,
    /// Settled here, and what others counted.
    own: u64,
    others: u64,
    held: u64,
    warned: bool,
    /// Before this instant no day ends: zones are asked once a day, not at each event.
    ends: DateTime<Utc>,
}

impl Daily {
    pub(crate) fn new(zone: Tz, cap: u64, warn_ppm: u32, wall: DateTime<Utc>) -> Self {
        let warn_at = u128::from(cap) * u128::from(warn_ppm) / u128::from(PPM);
        let mut daily = Self {
            zone,
            cap,
            warn_at: u64::try_from(warn_at).unwrap_or(u64::MAX),
            date: local_date(zone, wall),
            own: 0,
            others: 0,
            held: 0,
            warned: false,
            ends: wall,
        };
        daily.ends = daily.resets_at();
        daily
    }

    /// Begins a new day if one has come. What is held goes along: it will be spent today.
    pub(crate) fn roll(&mut self, wall: DateTime<Utc>) {
        if wall < self.ends {
            return;
        }
        let date = local_date(self.zone, wall);
        if date > self.date {
            self.date = date;
            (self.own, self.others) = (0, 0);
            self.warned = false;
            self.ends = self.resets_at();
        }
    }

    /// Takes over what the ledger counted of others: earlier processes, and those beside this one. It never falls.
    pub(crate) fn restore(&mut self, date: NaiveDate, others: u64) {
        if date == self.date {
            self.others = self.others.max(others);
        }
    }

    fn used(&self) -> u64 {
        self.own.saturating_add(self.others)
    }

    /// So many more tokens stay within the cap.
    pub(crate) fn fits(&self, tokens: u64) -> bool {
        self.used().saturating_add(self.held).saturating_add(tokens) <= self.cap
    }

    pub(crate) fn hold(&mut self, tokens: u64) {
        self.held += tokens;
    }

    /// Ends a hold; `spent` of it counts.
    pub(crate) fn settle(&mut self, held: u64, spent: u64) {
        self.held -= held;
        self.own += spent;
    }

    /// Once a day, when it is due.
    pub(crate) fn warning(&mut self) -> Option<Decision> {
        let due = !self.warned && self.used() >= self.warn_at;
        self.warned |= due;
        due.then_some(Decision::WarnDaily {
            used: self.used(),
            cap: self.cap,
        })
    }

    /// The first instant of the next local day.
    pub(crate) fn resets_at(&self) -> DateTime<Utc> {
        let next = self
            .date
            .checked_add_days(Days::new(1))
            .unwrap_or(NaiveDate::MAX);
        day_start(self.zone, next)
    }

    pub(crate) fn view(&self) -> DayView {
        DayView {
            date: self.date,
            used: self.used(),
            held: self.held,
            cap: self.cap,
            warned: self.warned,
            resets_at: self.resets_at(),
        }
    }
}

fn local_date(zone: Tz, wall: DateTime<Utc>) -> NaiveDate {
    wall.with_timezone(&zone).date_naive()
}

/// The earlier instant where the clock shows midnight twice; the first one after it where it never does.
fn day_start(zone: Tz, date: NaiveDate) -> DateTime<Utc> {
    let midnight = NaiveDateTime::new(date, NaiveTime::MIN);
    // A gap is an hour in most zones, and a whole day where a zone moved over the date line.
    (0..=26 * 60)
        .filter_map(|minutes| midnight.checked_add_signed(TimeDelta::minutes(minutes)))
        .find_map(|local| zone.from_local_datetime(&local).earliest())
        .map_or_else(|| midnight.and_utc(), |start| start.with_timezone(&Utc))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn utc(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    #[test]
    fn days_end_where_the_zone_says() {
        let check = |zone: Tz, inside: &str, end: &str| {
            let daily = Daily::new(zone, 1, 0, utc(inside));
            assert_eq!(daily.resets_at(), utc(end), "{zone} {inside}");
        };
        check(Tz::UTC, "2026-11-20T10:00:00Z", "2026-11-21T00:00:00Z");
        // 23 hours: 2026-03-28T23:00Z to 2026-03-29T22:00Z.
        check(
            Tz::Europe__Berlin,
            "2026-03-28T23:00:00Z",
            "2026-03-29T22:00:00Z",
        );
        // 25 hours: 2026-10-24T22:00Z to 2026-10-25T23:00Z.
        check(
            Tz::Europe__Berlin,
            "2026-10-24T22:00:00Z",
            "2026-10-25T23:00:00Z",
        );
        // Summer time starts at midnight: the day begins at 01:00.
        check(
            Tz::Africa__Cairo,
            "2026-04-23T12:00:00Z",
            "2026-04-23T22:00:00Z",
        );
        // Midnight twice: the earlier one.
        check(
            Tz::America__Havana,
            "2026-10-31T12:00:00Z",
            "2026-11-01T04:00:00Z",
        );
        // A day that never was.
        check(
            Tz::Pacific__Apia,
            "2011-12-30T00:00:00Z",
            "2011-12-30T10:00:00Z",
        );
    }

    #[test]
    fn a_long_and_a_short_day_count_to_their_last_second() {
        for (start, last) in [
            ("2026-10-24T22:00:00Z", "2026-10-25T22:59:59Z"),
            ("2026-03-28T23:00:00Z", "2026-03-29T21:59:59Z"),
        ] {
            let mut daily = Daily::new(Tz::Europe__Berlin, 100, 800_000, utc(start));
            daily.hold(60);
            daily.settle(60, 60);
            daily.roll(utc(last));
            assert!(!daily.fits(41));
            daily.roll(utc(last) + TimeDelta::seconds(1));
            assert!(daily.fits(100));
        }
    }

    #[test]
    fn the_cap_counts_what_is_settled_and_held_and_warns_once_a_day() {
        let mut daily = Daily::new(Tz::UTC, 100, 800_000, utc("2026-01-01T10:00:00Z"));
        daily.restore("2025-12-31".parse().unwrap(), 90);
        daily.restore("2026-01-01".parse().unwrap(), 50);
        daily.hold(30);
        assert!(daily.fits(20));
        assert!(!daily.fits(21));
        assert!(daily.warning().is_none());
        daily.settle(30, 30);
        assert!(daily.warning().is_some());
        assert!(daily.warning().is_none());
        // What others use comes on top, whether or not the ledger has heard of the last request.
        daily.restore("2026-01-01".parse().unwrap(), 50);
        assert!(daily.fits(20));
        daily.restore("2026-01-01".parse().unwrap(), 55);
        assert!(daily.fits(15) && !daily.fits(16));
        // Back over midnight: the later date keeps its count.
        daily.roll(utc("2025-12-31T23:59:00Z"));
        assert!(!daily.fits(21));
        daily.roll(utc("2026-01-02T00:00:00Z"));
        assert!(daily.fits(100));
        assert!(daily.warning().is_none());
    }
}
