//! Requests per second: the generic cell rate algorithm, a token bucket kept in one time stamp.
//!
//! Right here, where each request costs one and nothing is corrected later; wrong for the token budgets, where it is.

use std::time::Duration;

/// Requests per second with a burst of the same number.
#[derive(Clone, Debug)]
pub(crate) struct Requests {
    rate: u32,
    interval: Duration,
    /// How far ahead of the clock the theoretical arrival may run.
    tolerance: Duration,
    arrival: Duration,
}

impl Requests {
    pub(crate) fn new(per_second: u32) -> Self {
        let rate = per_second.max(1);
        let interval = Duration::from_secs(1) / rate;
        Self {
            rate,
            interval,
            tolerance: interval * (rate - 1),
            arrival: Duration::ZERO,
        }
    }

    pub(crate) fn per_second(&self) -> u32 {
        self.rate
    }

    /// Time between two requests at the full rate.
    pub(crate) fn interval(&self) -> Duration {
        self.interval
    }

    /// When the next request may start.
    pub(crate) fn ready_at(&self) -> Duration {
        self.arrival.saturating_sub(self.tolerance)
    }

    /// The same after one more started now.
    pub(crate) fn ready_after_one(&self, now: Duration) -> Duration {
        (self.arrival.max(now) + self.interval).saturating_sub(self.tolerance)
    }

    /// Takes one if it may start now.
    pub(crate) fn take(&mut self, now: Duration) -> bool {
        if self.ready_at() > now {
            return false;
        }
        self.arrival = self.arrival.max(now) + self.interval;
        true
    }

    /// How many may start at once.
    pub(crate) fn free(&self, now: Duration) -> u32 {
        let Some(room) = (now + self.tolerance).checked_sub(self.arrival.max(now)) else {
            return 0;
        };
        let whole = room.as_nanos() / self.interval.as_nanos().max(1) + 1;
        u32::try_from(whole).unwrap_or(self.rate).min(self.rate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_of_the_rate_then_one_per_interval() {
        let mut requests = Requests::new(20);
        let start = Duration::from_secs(100);
        assert_eq!(requests.free(start), 20);
        assert!((0..20).all(|_| requests.take(start)));
        assert!(!requests.take(start));
        assert_eq!(requests.free(start), 0);
        assert_eq!(requests.ready_at(), start + Duration::from_millis(50));
        assert!(requests.take(start + Duration::from_millis(50)));
        assert!(!requests.take(start + Duration::from_millis(50)));
        assert_eq!(requests.free(start + Duration::from_secs(2)), 20);
    }
}
