//! How many output tokens to hold for a request: learned from the outputs that its pool has seen, per class.
//!
//! The client's `max_tokens` is never the reserve: Kimi Code sends up to 128,000, more than a new account may generate
//! in three minutes. It only bounds it. A request needs a high quantile of all outputs to be admitted; from then on it
//! holds the expected rest for its class, given what has streamed, and all in flight together hold one standard deviation
//! more: long answers and short ones outweigh each other.

use std::collections::VecDeque;

use crate::limits::ask::Class;

/// Outputs remembered for each class, and for all.
const KEPT: usize = 400;
/// Fewer outputs than this teach nothing.
const ENOUGH: usize = 20;
/// Fewer outputs longer than what streamed tell nothing of the rest.
const ENOUGH_LONGER: usize = 5;
/// Reserve until enough is known.
const UNKNOWN: u64 = 1024;
/// Part of the outputs that must be free at admission, percent. The tail is long: three quarters cover the mean, and what is
/// longer shows itself while it streams.
const QUANTILE: usize = 75;
/// Least reserve.
const LEAST: u64 = 256;
/// Least rest to hold while an answer streams, if nothing better is known.
const LEAST_REST: u64 = 200;

/// What an answer in flight is expected to bring still.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rest {
    pub(crate) mean: u64,
    pub(crate) variance: u64,
}

/// What bounds a reserve.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// Set by the user.
    pub(crate) fixed: Option<u64>,
    /// The client's own bound.
    pub(crate) max_tokens: Option<u64>,
    /// The effective limit.
    pub(crate) cap: u64,
}

/// The last outputs of a pool.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outputs {
    classes: [Samples; 3],
    all: Samples,
}

impl Outputs {
    pub(crate) fn learn(&mut self, class: Class, generated: u64) {
        self.classes[class as usize].learn(generated);
        self.all.learn(generated);
    }

    /// The samples of each class, oldest first.
    pub(crate) fn saved(&self) -> [Vec<u64>; 3] {
        self.classes
            .each_ref()
            .map(|samples| samples.recent.iter().copied().collect())
    }

    pub(crate) fn restore(&mut self, saved: [Vec<u64>; 3]) {
        for (class, outputs) in [Class::Interactive, Class::Loop, Class::Background]
            .into_iter()
            .zip(saved)
        {
            for output in outputs {
                self.learn(class, output);
            }
        }
    }

    /// Tokens that must be free to admit a request: the same for all classes, because its own output comes later, and this is the
    /// room for what all that run bring meanwhile.
    pub(crate) fn need(&self, bounds: Bounds) -> u64 {
        let most = bounds.max_tokens.unwrap_or(u64::MAX);
        if let Some(fixed) = bounds.fixed {
            return fixed.min(most);
        }
        let expected = if self.all.sorted.len() < ENOUGH {
            UNKNOWN
        } else {
            self.all.quantile(QUANTILE).max(LEAST)
        };
        expected.min(most).min(bounds.cap / 4)
    }

    /// What an answer of which `streamed` tokens came still brings. `need` was reserved for it at first.
    pub(crate) fn rest(&self, class: Class, need: u64, streamed: u64, bounds: Bounds) -> Rest {
        let most = bounds
            .max_tokens
            .map_or(u64::MAX, |most| most.saturating_sub(streamed));
        if bounds.fixed.is_some() {
            let mean = need.saturating_sub(streamed).min(most);
            return Rest { mean, variance: 0 };
        }
        let known = self.of(class).and_then(|samples| samples.beyond(streamed));
        let rest = known.unwrap_or_else(|| Rest {
            mean: guess(need, streamed),
            variance: 0,
        });
        let mean = rest.mean.min(most).min(bounds.cap / 4);
        Rest {
            mean,
            variance: if mean < rest.mean { 0 } else { rest.variance },
        }
    }

    /// One of the outputs of late that are longer than what streamed; `chance` picks it.
    pub(crate) fn draw(
        &self,
        class: Class,
        need: u64,
        streamed: u64,
        bounds: Bounds,
        chance: u64,
    ) -> u64 {
        let longer = self.of(class).map(|samples| samples.longer(streamed));
        let drawn = longer.filter(|all| !all.is_empty()).and_then(|all| {
            let index = usize::try_from(chance % all.len() as u64).ok()?;
            all.get(index).copied()
        });
        let output =
            drawn.unwrap_or_else(|| streamed + self.rest(class, need, streamed, bounds).mean);
        output.min(bounds.max_tokens.unwrap_or(u64::MAX))
    }

    fn of(&self, class: Class) -> Option<&Samples> {
        [&self.classes[class as usize], &self.all]
            .into_iter()
            .find(|samples| samples.sorted.len() >= ENOUGH)
    }
}

/// Nothing is known: the rest of the reserve; an answer longer than that is one of the long tail and is expected to
/// grow by half again.
fn guess(need: u64, streamed: u64) -> u64 {
    let left = need.saturating_sub(streamed);
    let expected = if left > 0 { left } else { streamed / 2 };
    if streamed == 0 {
        left
    } else {
        expected.max(LEAST_REST)
    }
}

#[derive(Clone, Debug, Default)]
struct Samples {
    recent: VecDeque<u64>,
    sorted: Vec<u64>,
    /// Each sample with sum and sum of squares of the samples from it on, as of the last count.
    table: Vec<(u64, u64, u128)>,
    /// Samples that came since the table was made.
    behind: usize,
}

/// The table is made anew when this part of the samples is new: one of hundreds moves it little, and making it costs most.
const TABLE_PART: usize = 16;

impl Samples {
    fn learn(&mut self, generated: u64) {
        if self.recent.len() == KEPT
            && let Some(oldest) = self.recent.pop_front()
            && let Ok(index) = self.sorted.binary_search(&oldest)
        {
            self.sorted.remove(index);
        }
        self.recent.push_back(generated);
        let index = self.sorted.partition_point(|&one| one < generated);
        self.sorted.insert(index, generated);
        self.behind += 1;
        if self.behind * TABLE_PART >= self.sorted.len() {
            self.count();
        }
    }

    fn count(&mut self) {
        self.behind = 0;
        self.table.clear();
        self.table
            .extend(self.sorted.iter().map(|&one| (one, 0, 0)));
        let (mut sum, mut squares) = (0, 0);
        for (one, from_here, squares_from_here) in self.table.iter_mut().rev() {
            sum += *one;
            squares += u128::from(*one) * u128::from(*one);
            (*from_here, *squares_from_here) = (sum, squares);
        }
    }

    fn quantile(&self, percent: usize) -> u64 {
        let index = (self.sorted.len() * percent).div_ceil(100).max(1) - 1;
        self.sorted.get(index).copied().unwrap_or(UNKNOWN)
    }

    fn longer(&self, streamed: u64) -> &[u64] {
        &self.sorted[self.sorted.partition_point(|&one| one <= streamed)..]
    }

    /// Mean and variance of what samples longer than `streamed` had left.
    fn beyond(&self, streamed: u64) -> Option<Rest> {
        let index = if streamed == 0 {
            0
        } else {
            self.table.partition_point(|&(one, ..)| one <= streamed)
        };
        let count = self.table.len() - index;
        if count < ENOUGH_LONGER {
            return None;
        }
        let (_, sum, squares) = self.table[index];
        let count = count as u64;
        let mean = sum / count;
        let square = squares / u128::from(count);
        let variance = square.saturating_sub(u128::from(mean) * u128::from(mean));
        Some(Rest {
            mean: mean - streamed.min(mean),
            variance: u64::try_from(variance)
                .unwrap_or(u64::MAX >> 16)
                .min(u64::MAX >> 16),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bounds(fixed: Option<u64>, max_tokens: Option<u64>, cap: u64) -> Bounds {
        Bounds {
            fixed,
            max_tokens,
            cap,
        }
    }

    #[test]
    fn the_need_is_learned_and_bounded() {
        let mut outputs = Outputs::default();
        let need = |outputs: &Outputs, fixed, max, cap| outputs.need(bounds(fixed, max, cap));
        assert_eq!(need(&outputs, None, Some(128_000), 36_000), 1024);
        assert_eq!(need(&outputs, None, Some(100), 36_000), 100);
        assert_eq!(need(&outputs, Some(2048), None, 36_000), 2048);
        for output in 1..=100 {
            outputs.learn(Class::Loop, output * 10);
        }
        assert_eq!(need(&outputs, None, Some(128_000), 36_000), 750);
        assert_eq!(need(&outputs, None, None, 2000), 500);
        for _ in 0..500 {
            outputs.learn(Class::Loop, 3);
        }
        assert_eq!(need(&outputs, None, None, 36_000), 256);
        assert_eq!(outputs.saved()[1].len(), KEPT);
        assert_eq!(outputs.all.sorted.len(), KEPT);
    }

    #[test]
    fn each_class_has_its_own_outputs_once_it_has_enough() {
        let mut outputs = Outputs::default();
        for _ in 0..ENOUGH {
            outputs.learn(Class::Loop, 300);
        }
        let any = bounds(None, None, 36_000);
        let mean = |outputs: &Outputs, class| outputs.rest(class, 0, 0, any).mean;
        assert_eq!(mean(&outputs, Class::Background), 300, "of all");
        for _ in 0..ENOUGH {
            outputs.learn(Class::Background, 4000);
        }
        assert_eq!(mean(&outputs, Class::Background), 4000);
        assert_eq!(mean(&outputs, Class::Loop), 300);
        assert_eq!(outputs.need(any), 4000, "a quantile of all");
        let mut again = Outputs::default();
        again.restore(outputs.saved());
        assert_eq!(mean(&again, Class::Background), 4000);
    }

    #[test]
    fn the_rest_is_what_longer_answers_had_left() {
        let mut outputs = Outputs::default();
        let any = bounds(None, None, 36_000);
        let rest =
            |outputs: &Outputs, streamed, bounds| outputs.rest(Class::Loop, 1000, streamed, bounds);
        for (streamed, expected) in [(0, 1000), (600, 400), (900, 200), (1000, 500), (4000, 2000)] {
            assert_eq!(
                rest(&outputs, streamed, any).mean,
                expected,
                "unknown, {streamed}"
            );
        }
        for output in [100, 200, 300, 400, 500] {
            for _ in 0..TABLE_PART {
                outputs.learn(Class::Loop, output);
            }
        }
        // A few of the last ones are not in the table yet.
        outputs.classes[Class::Loop as usize].count();
        assert_eq!(
            rest(&outputs, 0, any),
            Rest {
                mean: 300,
                variance: 20_000
            }
        );
        assert_eq!(
            rest(&outputs, 350, any),
            Rest {
                mean: 100,
                variance: 2_500
            }
        );
        assert_eq!(
            rest(&outputs, 450, any),
            Rest {
                mean: 50,
                variance: 0
            }
        );
        assert_eq!(rest(&outputs, 800, any).mean, 200, "longer than any");
        assert_eq!(
            rest(&outputs, 350, bounds(None, Some(400), 36_000)).mean,
            50
        );
        assert_eq!(
            rest(&outputs, 1200, bounds(Some(1000), None, 36_000)).mean,
            0
        );
    }
}
