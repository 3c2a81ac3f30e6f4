//! Limits learned from the headers of answers.
//!
//! Fireworks raises and lowers limits with use, documented the headers per second and per minute within one year, and
//! was measured (August 2026) to answer from a replica that still held the start values. So the unit is decided by
//! what is left after our own use where that tells, else by magnitude and majority; a rise is believed at once, and a fall only when every recent answer agrees on it: several for
//! a step as documented, many for a steeper one, and none while more than that was spent without a complaint.

use std::collections::VecDeque;
use std::time::Duration;

use crate::limits::options::{HeaderUnit, Options};
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

/// Own use below this many tokens says nothing about the unit; a count within these shares of it does, percent.
const TELLING: u64 = 200;
const ALIKE_PERCENT: std::ops::RangeInclusive<u64> = 80..=130;
/// So much must our use have grown between two answers that tell the same unit: somebody else's use, sixty times ours, may
/// look like ours in the wrong unit once, and does not grow along.
const GROWN: u64 = 2;

/// What the headers of one pool taught.
#[derive(Clone, Debug, Default)]
pub(crate) struct Learned {
    limits: [Option<u64>; 3],
    recent: [VecDeque<(Duration, u64)>; 3],
    per_second: Option<bool>,
    /// Whether the unit was proven; and what tells it, whether it is per second, with our use at that time.
    proven: bool,
    clue: Option<(bool, u64)>,
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
            proven: true,
            limits: numbers,
            ..Self::default()
        };
        true
    }

    /// Learns from one answer, given what was spent in the last window and the user's own limits. The first one is
    /// believed, because what holds before it is a guess. Returns whether what was learned before was read wrongly.
    pub(crate) fn observe(
        &mut self,
        seen: &Observation,
        options: &Options,
        spent: [u64; 3],
        now: Duration,
    ) -> bool {
        let values = seen.limits.into_array();
        self.stray = false;
        if values.iter().all(Option::is_none) {
            return false;
        }
        let told = self.weigh(seen, spent[0]);
        let per_second = match options.header_unit {
            HeaderUnit::Second => true,
            HeaderUnit::Minute => false,
            HeaderUnit::Auto => told.unwrap_or_else(|| {
                let own = options.ceilings.into_array();
                let known = std::array::from_fn(|d| own[d].or(self.limits[d]));
                looks_per_second(values, known)
            }),
        };
        let before = self.per_second.replace(per_second);
        let corrected = told.is_some() && before.is_some_and(|unit| unit != per_second);
        if before != Some(per_second) {
            let unit = if per_second { "second" } else { "minute" };
            tracing::info!(unit, ?values, "limit headers are read as tokens per {unit}");
            self.proven = told.is_some();
            self.clue = self.clue.filter(|_| before.is_none());
        }
        if corrected {
            *self = Self {
                per_second: self.per_second,
                proven: self.proven,
                ..Self::default()
            };
        }
        for (d, value) in values.into_iter().enumerate() {
            if let Some(value) = value.filter(|&value| value > 0) {
                self.believe(d, self.per_window(value), spent[d], options.window, now);
            }
        }
        corrected
    }

    /// What an answer says is gone of the prompt tokens tells the unit, where it is just what we spent: taken in the wrong
    /// one it would be a sixtieth of that, or leave somebody else sixty times our use. Prompts are counted when they come.
    /// Returns whether it is per second, once that is proven.
    fn weigh(&mut self, seen: &Observation, spent: u64) -> Option<bool> {
        let gone = seen.limits.prompt?.saturating_sub(seen.remaining.prompt?);
        if spent < TELLING {
            return None;
        }
        let alike = |gone: u64| ALIKE_PERCENT.contains(&(gone.saturating_mul(100) / spent));
        let told = match (alike(gone), alike(gone.saturating_mul(60))) {
            (true, _) => false,
            (_, true) => true,
            _ => return None,
        };
        match self.clue {
            Some((unit, before)) if unit == told => {
                let proves = spent >= before * GROWN;
                self.proven |= proves && self.per_second == Some(told);
                proves.then_some(told)
            }
            _ => {
                self.clue = Some((told, spent));
                None
            }
        }
    }

    /// The unit is a guess, and by it the numbers are sixty times what they say. What they tell of others' use may be ours.
    pub(crate) fn is_guess(&self) -> bool {
        self.per_second == Some(true) && !self.proven
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

/// The majority of the budgets named; a tie is per minute, as the newest documents say. `known`: limits that the user or
/// earlier answers named, which a value is near in one unit only.
fn looks_per_second(values: [Option<u64>; 3], known: [Option<u64>; 3]) -> bool {
    let named = values.iter().flatten().count();
    let near = |value: u64, known: u64| value <= known * 2 && known <= value * 2;
    let small = |d: usize, value: u64| match known[d] {
        Some(known) if near(value, known) => false,
        Some(known) if near(value.saturating_mul(60), known) => true,
        _ => value < PER_MINUTE_FROM[d],
    };
    let small = (0..3).filter(|&d| values[d].is_some_and(|value| small(d, value)));
    small.count() * 2 > named
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
            self.hear(&seen(limits));
            self.learned.limits()
        }

        fn hear(&mut self, seen: &Observation) -> bool {
            self.now += Duration::from_secs(1);
            self.learned
                .observe(seen, &Options::default(), self.spent, self.now)
        }
    }

    #[test]
    fn the_unit_is_decided_by_majority() {
        let check = |given: [Option<u64>; 3], expected: bool| {
            assert_eq!(looks_per_second(given, [None; 3]), expected, "{given:?}");
        };
        check([Some(4_500_000), Some(900_000), Some(36_000)], false);
        check([Some(75_000), Some(15_000), Some(600)], true);
        check([Some(43_200_000), Some(10_800_000), Some(7_200)], false);
        check([Some(720_000), Some(180_000), Some(36_000)], true);
        check([None, None, Some(600)], true);
        check([Some(3_600_000), None, Some(600)], false);
        let small = [Some(60_000), Some(20_000), Some(4000)];
        check(small, true);
        let own = [Some(50_000), Some(20_000), None];
        assert!(!looks_per_second(small, own), "near the user's own");
        let grown = [Some(3_600_000), Some(1_200_000), Some(240_000)];
        assert!(looks_per_second(small, grown), "near what was learned");
        assert!(!looks_per_second(grown, grown));
    }

    /// Answers after requests of 4,000 prompt tokens each, of which half is cached.
    fn spends(limit: [u64; 3], divisor: u64, others: u64) -> (Pool, Vec<bool>) {
        let mut pool = Pool::new();
        let answers = 1..=4_u64;
        let corrected = answers.map(|n| {
            pool.spent = [4000 * n, 2000 * n, 0];
            let left = |d: usize| limit[d].saturating_sub(pool.spent[d] + others) / divisor;
            let told = Observation {
                remaining: Dimensions::from_array([Some(left(0)), Some(left(1)), None]),
                ..seen(limit.map(|limit| Some(limit / divisor)))
            };
            pool.hear(&told)
        });
        let corrected = corrected.collect();
        (pool, corrected)
    }

    #[test]
    fn what_is_left_after_our_own_use_tells_the_unit() {
        let (pool, corrected) = spends([60_000, 20_000, 4000], 1, 0);
        assert_eq!(pool.learned.limits(), [60_000, 20_000, 4000].map(Some));
        assert_eq!(corrected, [false, true, false, false]);
        assert!(!pool.learned.is_guess());
        // Per second indeed, although the numbers are as large as those per minute.
        let large = [216_000_000, 54_000_000, 2_160_000];
        let (pool, corrected) = spends(large, 60, 0);
        assert_eq!(pool.learned.limits(), large.map(Some));
        assert_eq!(corrected, [false, true, false, false]);
        // Somebody else spends, too: the numbers are what they seem.
        let (pool, corrected) = spends([4_500_000, 900_000, 36_000], 60, 300_000);
        assert_eq!(
            pool.learned.limits(),
            [4_500_000, 900_000, 36_000].map(Some)
        );
        assert_eq!(corrected, [false; 4]);
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
        let options = Options::default();
        learned.observe(&small, &options, [0; 3], WINDOW);
        assert_eq!(learned.limits()[0], Some(2_400_000));
        // More than those numbers was spent, or nothing that came near them.
        assert!(!learned.doubt([41_000, 0, 0], [1000, 0, 0]));
        assert!(!learned.doubt([0; 3], [30_000, 2000, 0]));
        assert!(learned.doubt([20_000, 10_000, 0], [21_000, 2000, 0]));
        assert_eq!(learned.limits(), [Some(40_000), Some(25_000), Some(500)]);
        learned.observe(&small, &options, [0; 3], WINDOW * 2);
        assert_eq!(learned.limits()[0], Some(40_000));
    }
}
