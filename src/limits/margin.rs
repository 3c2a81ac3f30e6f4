//! What a 429 changes: the share of the limits that is used, and the rest that a pool takes.
//!
//! The share follows additive increase and multiplicative decrease. Only a 429 that our own account cannot explain
//! lowers it, and several from one burst count once; a clean minute raises it only when the limits were really used.

use std::time::Duration;

use crate::limits::options::{PPM, Ratio};

/// Range of the automatic ratio.
const LEAST: u64 = 500_000;
const MOST: u64 = 990_000;
/// What is left after a 429 that nothing explains, and after one that the upstream's count explains.
pub(crate) const UNEXPLAINED: u64 = 970_000;
pub(crate) const COUNTED: u64 = 990_000;
/// What a clean, busy window adds.
const STEP: u64 = 10_000;
/// The same from where a 429 came before.
const CAREFUL_STEP: u64 = 1_000;
/// Use of a budget from which a window counts as busy, percent.
pub(crate) const BUSY_PERCENT: u64 = 60;

/// The share of the limits that is used.
#[derive(Clone, Debug)]
pub(crate) struct Margin {
    ppm: u64,
    fixed: bool,
    window: Duration,
    last_cut: Option<Duration>,
    /// Up to here no 429 came.
    proven: u64,
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
            proven: MOST,
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
            let raised = if self.ppm < self.proven {
                (self.ppm + STEP).min(self.proven)
            } else {
                self.ppm + CAREFUL_STEP
            };
            self.ppm = raised.min(MOST).max(self.ppm);
        }
        self.since = now;
        self.busy = false;
        self.clean = true;
    }

    /// A 429 came. This share is left of the ratio, if any is taken.
    pub(crate) fn refused(&mut self, left: Option<u64>, now: Duration) {
        self.clean = false;
        if let Some(left) = left {
            self.cut(left, now);
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
        self.proven = self.ppm;
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

/// What may be spent in a sixth of a window at first, and at the least: more than the even share.
const START_PERCENT: u64 = 40;
const BURST_PERCENT: u64 = 25;
const LEAST_PERCENT: u64 = 21;

/// After 429s that our own account cannot explain: bursts inside the minute are bounded, and so is the ramp.
#[derive(Clone, Debug, Default)]
pub(crate) struct Caution {
    until: Duration,
    last: Option<Duration>,
    /// Most of a limit that may be spent in a sixth of the window, percent.
    percent: u64,
}

impl Caution {
    /// So much came in a sixth of a window that this alone may be why.
    pub(crate) fn is_burst(recent: u64, limit: u64) -> bool {
        recent > limit / 100 * LEAST_PERCENT
    }

    /// An unexplained 429 came. Those of one burst count once. `recent`: what came in the last sixth of the window, if that
    /// is why.
    pub(crate) fn raise(
        &mut self,
        recent: Option<&[u64; 3]>,
        limits: &[u64; 3],
        now: Duration,
        window: Duration,
    ) {
        if self.last.is_some_and(|at| now < at + window / 6) {
            return;
        }
        if self.until <= now {
            self.percent = START_PERCENT;
        }
        // The budget that was spent fastest is the likeliest.
        self.percent = match recent {
            Some(recent) => {
                let share = |d: usize| recent[d] * 95 / limits[d].max(1);
                let fastest = share(0).max(share(1)).max(share(2));
                self.percent.min(BURST_PERCENT).min(fastest)
            }
            None => self.percent * 4 / 5,
        };
        self.percent = self.percent.max(LEAST_PERCENT);
        self.last = Some(now);
        self.until = now + window * CAUTIOUS_WINDOWS;
    }

    pub(crate) fn restore(&mut self, until: Duration) {
        self.until = until;
        self.percent = START_PERCENT;
    }

    pub(crate) fn until(&self) -> Duration {
        self.until
    }

    pub(crate) fn is_on(&self, now: Duration) -> bool {
        self.until > now
    }

    /// Most that may be spent in a sixth of the window.
    pub(crate) fn inner(&self, caps: &[u64; 3]) -> [u64; 3] {
        caps.map(|cap| (cap / 100 * self.percent).max(1))
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
            margin.refused(Some(UNEXPLAINED), secs(100 + second));
        }
        assert_eq!(margin.ppm(), 921_500);
        margin.refused(Some(COUNTED), secs(110));
        assert_eq!(margin.ppm(), 912_285);
        margin.refused(None, secs(200));
        assert_eq!(margin.ppm(), 912_285);
        for second in 0..40 {
            margin.refused(Some(UNEXPLAINED), secs(300 + second * 10));
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
        margin.refused(None, secs(130));
        margin.roll(secs(180));
        assert_eq!(margin.ppm(), 960_000, "not clean");
        let busy = |margin: &mut Margin, minutes: std::ops::Range<u64>| {
            for minute in minutes {
                margin.mark_busy();
                margin.roll(secs(minute * 60));
            }
        };
        busy(&mut margin, 4..14);
        assert_eq!(margin.ppm(), 990_000);
        margin.refused(Some(COUNTED), secs(14 * 60));
        margin.refused(Some(UNEXPLAINED), secs(15 * 60));
        margin.restore(900_000);
        busy(&mut margin, 17..25);
        // Fast up to where it was quiet, carefully beyond.
        assert_eq!(margin.ppm(), 950_697 + 1000);
    }

    #[test]
    fn a_fixed_ratio_stays() {
        let mut margin = Margin::new(Ratio::Fixed(800_000), secs(60), secs(0));
        margin.refused(Some(UNEXPLAINED), secs(1));
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
        let limits = [1_000_000; 3];
        let mut caution = Caution::default();
        assert!(!caution.is_on(secs(1)));
        caution.raise(None, &limits, secs(100), minute);
        caution.raise(None, &limits, secs(105), minute);
        assert_eq!(caution.inner(&limits)[0], 320_000);
        caution.raise(Some(&[300_000, 0, 900]), &limits, secs(120), minute);
        assert_eq!(caution.inner(&limits)[0], 250_000);
        caution.raise(Some(&[250_000, 0, 900]), &limits, secs(140), minute);
        assert_eq!(caution.inner(&limits)[0], 230_000);
        caution.raise(Some(&[10_000, 0, 900]), &limits, secs(160), minute);
        assert_eq!(caution.inner(&limits)[0], 210_000);
        assert!(caution.is_on(secs(160 + 29 * 60)));
        assert!(!caution.is_on(secs(160 + 30 * 60)));
        caution.raise(None, &limits, secs(3000), minute);
        assert_eq!(caution.inner(&limits)[0], 320_000);
        assert!(Caution::is_burst(220_000, 1_000_000));
        assert!(!Caution::is_burst(200_000, 1_000_000));
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
