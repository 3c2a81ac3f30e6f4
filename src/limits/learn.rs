//! Limits learned from the headers of answers.
//!
//! Fireworks raises and lowers limits with use, documented the headers per second and per minute within one year, and
//! was measured (August 2026) to answer from a replica that still held the start values. So the unit is decided by
//! magnitude and majority, a rise is believed at once, and a fall only when every recent answer agrees on it: several for
//! a step as documented, many for a steeper one, and none while more than that was spent without a complaint.

use std::collections::VecDeque;
use std::time::Duration;

use crate::limits::options::HeaderUnit;
use crate::usage::Observation;

/// Answers remembered, and for how many windows.
const KEPT: usize = 20;
const KEPT_WINDOWS: u32 = 2;
/// Answers in a row that must agree on a fall as it is documented, and on a steeper one.
const AGREE: usize = 5;
const AGREE_ON_STEEP: usize = 15;
/// A step down leaves this share of a limit (Fireworks docs), percent.
const STEP_DOWN_PERCENT: u64 = 80;
/// Below these a value is per second. Documented ranges of Fireworks for Kimi models: 3.6-43.2 M, 0.9-10.8 M and
/// 36-432 k per minute against 60-720 k, 15-180 k and 600-7,200 per second; they do not overlap.
const PER_MINUTE_FROM: [u64; 3] = [1_600_000, 400_000, 16_000];

/// What the headers of one pool taught.
#[derive(Clone, Debug, Default)]
pub(crate) struct Learned {
    limits: [Option<u64>; 3],
    recent: [VecDeque<(Duration, u64)>; 3],
    per_second: Option<bool>,
    /// A refusal contradicted the reading per second, so it is not tried again.
    minute_proven: bool,
    /// The last answer told of a limit that others contradict.
    stray: bool,
    /// When each limit rose last.
    rose: [Option<Duration>; 3],
}

impl Learned {
    /// The limits believed in, tokens per window.
    pub(crate) fn limits(&self) -> [Option<u64>; 3] {
        self.limits
    }

    pub(crate) fn restore(&mut self, limits: [Option<u64>; 3], rose: [Option<Duration>; 3]) {
        self.limits = limits;
        self.rose = rose;
    }

    /// The last answer came from a replica that knows less than the others.
    pub(crate) fn stray(&self) -> bool {
        self.stray
    }

    /// When each limit was seen to rise last.
    pub(crate) fn rose(&self) -> [Option<Duration>; 3] {
        self.rose
    }

    /// What a header's value means per window.
    pub(crate) fn per_window(&self, value: u64) -> u64 {
        value.saturating_mul(if self.per_second == Some(true) { 60 } else { 1 })
    }

    /// A refusal came that our own use does not explain, to a request of this need. A limit that was read as sixty times its
    /// number is the likelier reason than any other, where less than that number was spent and this request would have
    /// passed it: from now on the numbers are taken as they stand. Returns whether they are.
    pub(crate) fn doubt(&mut self, spent: [u64; 3], need: [u64; 3]) -> bool {
        let numbers = self.limits.map(|limit| limit.map(|limit| limit / 60));
        let any = |test: &dyn Fn(usize, u64) -> bool| {
            (0..3).any(|d| numbers[d].is_some_and(|number| test(d, number)))
        };
        let small =
            any(&|d, number| spent[d] + need[d] >= number) && !any(&|d, number| spent[d] > number);
        if self.per_second != Some(true) || !small {
            return false;
        }
        tracing::warn!(
            "the upstream refuses: limit headers are read as tokens per minute from now on"
        );
        *self = Self {
            per_second: Some(false),
            minute_proven: true,
            limits: numbers,
            ..Self::default()
        };
        true
    }

    /// Learns from one answer, given what was spent in the last window. The first one is believed, because what holds
    /// before it is a guess.
    pub(crate) fn observe(
        &mut self,
        seen: &Observation,
        unit: HeaderUnit,
        spent: [u64; 3],
        window: Duration,
        now: Duration,
    ) {
        let values = seen.limits.into_array();
        self.stray = false;
        if values.iter().all(Option::is_none) {
            return;
        }
        let per_second = match unit {
            HeaderUnit::Second => true,
            HeaderUnit::Minute => false,
            HeaderUnit::Auto => !self.minute_proven && looks_per_second(values),
        };
        if self.per_second != Some(per_second) {
            let unit = if per_second { "second" } else { "minute" };
            tracing::info!(unit, ?values, "limit headers are read as tokens per {unit}");
            self.per_second = Some(per_second);
        }
        for (d, value) in values.into_iter().enumerate() {
            if let Some(value) = value.filter(|&value| value > 0) {
                self.believe(d, self.per_window(value), spent[d], window, now);
            }
        }
    }

    fn believe(&mut self, d: usize, value: u64, spent: u64, window: Duration, now: Duration) {
        let recent = &mut self.recent[d];
        recent.push_back((now, value));
        while recent.len() > KEPT
            || recent
                .front()
                .is_some_and(|&(at, _)| at + window * KEPT_WINDOWS < now)
        {
            recent.pop_front();
        }
        let highest = recent
            .iter()
            .map(|&(_, value)| value)
            .max()
            .unwrap_or(value);
        let current = self.limits[d].unwrap_or_default();
        let lowest = current * STEP_DOWN_PERCENT / 100;
        self.stray |= value < lowest;
        let enough = if highest < lowest {
            AGREE_ON_STEEP
        } else {
            AGREE
        };
        if highest < current && (recent.len() < enough || highest < spent) {
            return;
        }
        if highest > current && self.limits[d].is_some() {
            self.rose[d] = Some(now);
        }
        self.limits[d] = Some(highest);
    }
}

/// The majority of the budgets named; a tie is per minute, as the newest documents say.
fn looks_per_second(values: [Option<u64>; 3]) -> bool {
    let named = values.iter().flatten().count();
    let small = values
        .iter()
        .zip(PER_MINUTE_FROM)
        .filter(|(value, from)| value.is_some_and(|value| value < *from))
        .count();
    small * 2 > named
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::usage::Dimensions;

    const WINDOW: Duration = Duration::from_mins(1);

    fn seen(limits: [Option<u64>; 3]) -> Observation {
        Observation {
            limits: Dimensions::from_array(limits),
            ..Observation::default()
        }
    }

    struct Pool {
        learned: Learned,
        now: Duration,
        spent: [u64; 3],
    }

    impl Pool {
        fn new() -> Self {
            Self {
                learned: Learned::default(),
                now: Duration::ZERO,
                spent: [0; 3],
            }
        }

        fn see(&mut self, limits: [Option<u64>; 3]) -> [Option<u64>; 3] {
            self.now += Duration::from_secs(1);
            self.learned.observe(
                &seen(limits),
                HeaderUnit::Auto,
                self.spent,
                WINDOW,
                self.now,
            );
            self.learned.limits()
        }
    }

    #[test]
    fn the_unit_is_decided_by_majority() {
        let check = |given: [Option<u64>; 3], expected: bool| {
            assert_eq!(looks_per_second(given), expected, "{given:?}");
        };
        check([Some(4_500_000), Some(900_000), Some(36_000)], false);
        check([Some(75_000), Some(15_000), Some(600)], true);
        check([Some(43_200_000), Some(10_800_000), Some(7_200)], false);
        check([Some(720_000), Some(180_000), Some(36_000)], true);
        check([None, None, Some(600)], true);
        check([Some(3_600_000), None, Some(600)], false);
    }

    #[test]
    fn per_second_values_are_scaled() {
        let mut pool = Pool::new();
        let limits = pool.see([Some(187_500), Some(90_000), Some(3_600)]);
        assert_eq!(limits, [Some(11_250_000), Some(5_400_000), Some(216_000)]);
        // The upstream switches the unit in the middle of a run: the same limits.
        let limits = pool.see([Some(11_250_000), Some(5_400_000), Some(216_000)]);
        assert_eq!(limits, [Some(11_250_000), Some(5_400_000), Some(216_000)]);
    }

    #[test]
    fn a_stale_replica_does_not_collapse_the_budget() {
        let mut pool = Pool::new();
        for turn in 0..200 {
            let generated = if turn % 8 == 3 { 36_000 } else { 216_000 };
            let limits = pool.see([Some(11_250_000), Some(5_400_000), Some(generated)]);
            if turn > 0 {
                assert_eq!(limits[2], Some(216_000), "turn {turn}");
            }
        }
    }

    #[test]
    fn a_real_fall_is_believed_in_the_end() {
        let mut pool = Pool::new();
        pool.see([None, None, Some(216_000)]);
        for _ in 0..19 {
            assert_eq!(pool.see([None, None, Some(172_800)])[2], Some(216_000));
        }
        assert_eq!(pool.see([None, None, Some(172_800)])[2], Some(172_800));
    }

    #[test]
    fn few_low_answers_after_a_pause_are_not_enough() {
        let mut pool = Pool::new();
        let after = |low: u64, agree: usize| {
            let mut pool = Pool::new();
            pool.see([None, None, Some(216_000)]);
            pool.now += WINDOW * 3;
            for _ in 1..agree {
                assert_eq!(pool.see([None, None, Some(low)])[2], Some(216_000));
            }
            assert_eq!(pool.learned.stray(), low < 172_800);
            assert_eq!(pool.see([None, None, Some(low)])[2], Some(low));
        };
        after(172_800, AGREE);
        after(100_000, AGREE_ON_STEEP);
        // Nor are many while more than that is spent.
        pool.see([None, None, Some(216_000)]);
        pool.spent = [0, 0, 150_000];
        for _ in 0..100 {
            assert_eq!(pool.see([None, None, Some(100_000)])[2], Some(216_000));
        }
        pool.spent = [0, 0, 90_000];
        assert_eq!(pool.see([None, None, Some(100_000)])[2], Some(100_000));
        assert_eq!(pool.learned.rose(), [None; 3]);
        pool.see([None, None, Some(125_000)]);
        assert_eq!(pool.learned.rose()[2], Some(pool.now));
    }

    #[test]
    fn a_refusal_that_nothing_explains_ends_the_reading_per_second() {
        let mut learned = Learned::default();
        let small = seen([Some(40_000), Some(25_000), Some(500)]);
        learned.observe(&small, HeaderUnit::Auto, [0; 3], WINDOW, WINDOW);
        assert_eq!(learned.limits()[0], Some(2_400_000));
        // More than those numbers was spent, or nothing that came near them.
        assert!(!learned.doubt([41_000, 0, 0], [1000, 0, 0]));
        assert!(!learned.doubt([0; 3], [30_000, 2000, 0]));
        assert!(learned.doubt([20_000, 10_000, 0], [21_000, 2000, 0]));
        assert_eq!(learned.limits(), [Some(40_000), Some(25_000), Some(500)]);
        learned.observe(&small, HeaderUnit::Auto, [0; 3], WINDOW, WINDOW * 2);
        assert_eq!(learned.limits()[0], Some(40_000));
    }
}
