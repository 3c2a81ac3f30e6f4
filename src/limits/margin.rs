//! What a 429 changes: the share of the limits that is used, and the rest that a pool takes.
//!
//! The share follows additive increase and multiplicative decrease. Only a 429 that our own account cannot explain
//! lowers it, and several from one burst count once; a clean minute raises it only when the limits were really used.

use std::time::Duration;

use crate::limits::options::{PPM, Ratio};

/// Range of the automatic ratio.
const LEAST: u64 = 500_000;
const MOST: u64 = 990_000;
/// What a clean, busy window adds.
const STEP: u64 = 10_000;
/// Use of a budget from which a window counts as busy, percent.
pub(crate) const BUSY_PERCENT: u64 = 60;

/// The share of the limits that is used.
#[derive(Clone, Debug)]
pub(crate) struct Margin {
    ppm: u64,
    fixed: bool,
    window: Duration,
    last_cut: Option<Duration>,
    since: Duration,
    busy: bool,
    clean: bool,
}

impl Margin {
    pub(crate) fn new(ratio: Ratio, window: Duration, now: Duration) -> Self {
        let (ppm, fixed) = match ratio {
            Ratio::Auto { start_ppm } => (u64::from(start_ppm).clamp(LEAST, MOST), false),
            Ratio::Fixed(ppm) => (u64::from(ppm).clamp(1, PPM), true),
        };
        Self {
            ppm,
            fixed,
            window,
            last_cut: None,
            since: now,
            busy: false,
            clean: true,
        }
    }

    pub(crate) fn ppm(&self) -> u32 {
        u32::try_from(self.ppm).unwrap_or(u32::MAX)
    }

    /// Takes over a learned ratio.
    pub(crate) fn restore(&mut self, ppm: u32) {
        if !self.fixed {
            self.ppm = u64::from(ppm).clamp(LEAST, MOST);
        }
    }

    /// The share of a limit; at least one token.
    pub(crate) fn of(&self, limit: u64) -> u64 {
        // Wide divisions are slow, and only a limit that nobody named needs one.
        let part = limit.checked_mul(self.ppm).map_or_else(
            || {
                let part = u128::from(limit) * u128::from(self.ppm) / u128::from(PPM);
                u64::try_from(part).unwrap_or(u64::MAX)
            },
            |whole| whole / PPM,
        );
        part.max(1)
    }

    /// The same for counts that are no estimates: a quarter of the distance.
    pub(crate) fn of_truth(&self, limit: u64) -> u64 {
        if self.fixed {
            return self.of(limit);
        }
        limit - (limit - self.of(limit).min(limit)) / 4
    }

    /// The user set it.
    pub(crate) fn is_fixed(&self) -> bool {
        self.fixed
    }

    /// Some budget is used enough to tell that the limits hold.
    pub(crate) fn mark_busy(&mut self) {
        self.busy = true;
    }

    /// Ends windows that have passed.
    pub(crate) fn roll(&mut self, now: Duration) {
        if now < self.since + self.window {
            return;
        }
        if self.busy && self.clean && !self.fixed {
            self.ppm = (self.ppm + STEP).min(MOST).max(self.ppm);
        }
        self.since = now;
        self.busy = false;
        self.clean = true;
    }

    /// A 429 came. `unexplained`: our own account had room.
    pub(crate) fn refused(&mut self, unexplained: bool, now: Duration) {
        self.clean = false;
        if unexplained {
            self.cut(850_000, now);
        }
    }

    /// The upstream served something above its guaranteed share.
    pub(crate) fn over_limit(&mut self, now: Duration) {
        self.cut(970_000, now);
    }

    /// At most one cut in a sixth of a window, so that a burst counts once.
    fn cut(&mut self, factor: u64, now: Duration) {
        if self.fixed || self.last_cut.is_some_and(|at| now < at + self.window / 6) {
            return;
        }
        self.last_cut = Some(now);
        self.ppm = (self.ppm * factor / PPM).max(LEAST);
    }
}

/// Shortest and longest rest after a 429; both zero milliseconds and ten minutes occur in the wild.
const SHORTEST: Duration = Duration::from_millis(250);
const LONGEST: Duration = Duration::from_mins(1);
/// First rest when the upstream names none; doubles with each 429 in a row.
const FIRST: Duration = Duration::from_millis(500);

/// The rest of a pool after a 429.
#[derive(Clone, Debug, Default)]
pub(crate) struct Brake {
    until: Duration,
    strikes: u32,
    /// After two rests in a row one request goes ahead alone; whether one has.
    scout: bool,
}

impl Brake {
    /// Until when nothing is admitted.
    pub(crate) fn until(&self) -> Duration {
        self.until
    }

    /// A single request may go ahead, and has gone.
    pub(crate) fn waits_for_scout(&self) -> bool {
        self.strikes > 1 && self.scout
    }

    /// A request was admitted. Returns whether it goes ahead alone.
    pub(crate) fn admitted(&mut self) -> bool {
        self.scout = self.strikes > 1;
        self.scout
    }

    /// The request that went ahead came back without an answer.
    pub(crate) fn scout_ended(&mut self) {
        self.scout = false;
    }

    /// A replica complained that knows less than the others: a short rest, and nothing else.
    pub(crate) fn stray(&mut self, now: Duration) {
        self.until = self.until.max(now + SHORTEST);
        self.scout = false;
    }

    /// A 429 came. `jitter_ppm` lengthens the rest by that share.
    pub(crate) fn refused(&mut self, asked: Option<Duration>, jitter_ppm: u32, now: Duration) {
        // Those that come while the pool rests belong to the same burst.
        if now >= self.until {
            self.strikes = (self.strikes + 1).min(8);
        }
        let grown = FIRST * 2_u32.pow(self.strikes.saturating_sub(1));
        let rest = asked
            .unwrap_or_default()
            .clamp(SHORTEST, LONGEST)
            .max(grown.min(LONGEST));
        let jitter = rest / 1000 * (jitter_ppm / 1000);
        self.until = self.until.max(now + rest + jitter);
        self.scout = false;
    }

    /// An answer came to a request that was admitted after the rest. Returns whether that changes something.
    pub(crate) fn passed(&mut self, now: Duration) -> bool {
        let changes = now >= self.until && self.strikes > 0;
        if changes {
            self.strikes = 0;
            self.scout = false;
        }
        changes
    }
}

/// Windows for which an unexplained 429 makes cautious.
const CAUTIOUS_WINDOWS: u32 = 30;

/// After 429s that our own account cannot explain: bursts inside the minute are bounded, and so is the ramp.
#[derive(Clone, Debug, Default)]
pub(crate) struct Caution {
    until: Duration,
    last: Option<Duration>,
    level: u32,
}

impl Caution {
    /// An unexplained 429 came. Those of one burst count once.
    pub(crate) fn raise(&mut self, now: Duration, window: Duration) {
        if self.last.is_some_and(|at| now < at + window / 6) {
            return;
        }
        self.level = if self.until > now { self.level + 1 } else { 1 };
        self.last = Some(now);
        self.until = now + window * CAUTIOUS_WINDOWS;
    }

    pub(crate) fn restore(&mut self, until: Duration) {
        self.until = until;
        self.level = 1;
    }

    pub(crate) fn until(&self) -> Duration {
        self.until
    }

    pub(crate) fn is_on(&self, now: Duration) -> bool {
        self.until > now
    }

    /// Most of a limit that may be spent in a sixth of the window, percent: two fifths at first; one and a half times the
    /// even share if that was not enough.
    pub(crate) fn inner_percent(&self) -> u64 {
        if self.level > 1 { 25 } else { 40 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secs(s: u64) -> Duration {
        Duration::from_secs(s)
    }

    fn margin() -> Margin {
        Margin::new(Ratio::Auto { start_ppm: 950_000 }, secs(60), secs(0))
    }

    #[test]
    fn one_burst_of_429s_cuts_once() {
        let mut margin = margin();
        for second in 0..10 {
            margin.refused(true, secs(100 + second));
        }
        assert_eq!(margin.ppm(), 807_500);
        margin.refused(true, secs(110));
        assert_eq!(margin.ppm(), 686_375);
        margin.refused(false, secs(200));
        assert_eq!(margin.ppm(), 686_375);
        for second in 0..20 {
            margin.refused(true, secs(300 + second * 10));
        }
        assert_eq!(margin.ppm(), 500_000);
    }

    #[test]
    fn only_clean_busy_minutes_raise_it() {
        let mut margin = margin();
        margin.roll(secs(60));
        assert_eq!(margin.ppm(), 950_000, "idle");
        margin.mark_busy();
        margin.roll(secs(119));
        assert_eq!(margin.ppm(), 950_000, "not over yet");
        margin.roll(secs(120));
        assert_eq!(margin.ppm(), 960_000);
        margin.mark_busy();
        margin.refused(false, secs(130));
        margin.roll(secs(180));
        assert_eq!(margin.ppm(), 960_000, "not clean");
        for minute in 4..14 {
            margin.mark_busy();
            margin.roll(secs(minute * 60));
        }
        assert_eq!(margin.ppm(), 990_000);
    }

    #[test]
    fn a_fixed_ratio_stays() {
        let mut margin = Margin::new(Ratio::Fixed(800_000), secs(60), secs(0));
        margin.refused(true, secs(1));
        margin.mark_busy();
        margin.roll(secs(90));
        assert_eq!(margin.of(1000), 800);
    }

    #[test]
    fn after_two_rests_one_request_goes_ahead() {
        let mut brake = Brake::default();
        brake.refused(None, 0, secs(1));
        assert!(!brake.admitted());
        assert!(!brake.waits_for_scout());
        brake.refused(None, 0, secs(2));
        assert!(brake.admitted());
        assert!(brake.waits_for_scout());
        brake.scout_ended();
        assert!(!brake.waits_for_scout());
        assert!(brake.admitted());
        assert!(brake.passed(secs(10)));
        assert!(!brake.waits_for_scout());
        assert!(!brake.passed(secs(11)));
    }

    #[test]
    fn caution_grows_with_each_burst_and_ends() {
        let minute = secs(60);
        let mut caution = Caution::default();
        assert!(!caution.is_on(secs(1)));
        caution.raise(secs(100), minute);
        caution.raise(secs(105), minute);
        assert_eq!(caution.inner_percent(), 40);
        caution.raise(secs(120), minute);
        assert_eq!(caution.inner_percent(), 25);
        assert!(caution.is_on(secs(120 + 29 * 60)));
        assert!(!caution.is_on(secs(120 + 30 * 60)));
        caution.raise(secs(3000), minute);
        assert_eq!(caution.inner_percent(), 40);
    }

    #[test]
    fn the_rest_is_clamped_and_doubles() {
        let mut brake = Brake::default();
        brake.refused(Some(Duration::ZERO), 0, secs(10));
        assert_eq!(brake.until(), Duration::from_millis(10_500));
        brake.refused(None, 0, Duration::from_millis(10_100));
        assert_eq!(brake.until(), Duration::from_millis(10_600), "same burst");
        brake.refused(None, 500_000, secs(11));
        assert_eq!(brake.until(), Duration::from_millis(12_500));
        brake.refused(Some(secs(600)), 0, secs(13));
        assert_eq!(brake.until(), secs(73));
        assert!(brake.passed(secs(80)));
        brake.refused(None, 0, secs(81));
        assert_eq!(brake.until(), Duration::from_millis(81_500));
    }
}
