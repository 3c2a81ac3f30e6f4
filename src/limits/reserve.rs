//! How many output tokens to hold for a request: learned from the outputs that its pool has seen.
//!
//! The client's `max_tokens` is never the reserve: Kimi Code sends up to 128,000, more than a new account may generate
//! in three minutes. It only bounds it. While an answer streams, the hold shrinks by what has come.

use std::collections::VecDeque;

/// Outputs remembered.
const KEPT: usize = 400;
/// Fewer outputs than this teach nothing.
const ENOUGH: usize = 20;
/// Reserve until enough is known.
const UNKNOWN: u64 = 1024;
/// Least reserve.
const LEAST: u64 = 256;
/// Least rest to hold while an answer streams.
const LEAST_REST: u64 = 200;

/// The last outputs of a pool.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outputs {
    recent: VecDeque<u64>,
    sorted: Vec<u64>,
}

impl Outputs {
    pub(crate) fn learn(&mut self, generated: u64) {
        if self.recent.len() == KEPT
            && let Some(oldest) = self.recent.pop_front()
            && let Ok(index) = self.sorted.binary_search(&oldest)
        {
            self.sorted.remove(index);
        }
        self.recent.push_back(generated);
        let index = self.sorted.partition_point(|&one| one < generated);
        self.sorted.insert(index, generated);
    }

    /// The samples, oldest first.
    pub(crate) fn samples(&self) -> impl Iterator<Item = u64> {
        self.recent.iter().copied()
    }

    /// Tokens to hold at admission, given the client's bound and the effective limit.
    pub(crate) fn reserve(&self, fixed: Option<u64>, max_tokens: Option<u64>, cap: u64) -> u64 {
        let most = max_tokens.unwrap_or(u64::MAX);
        if let Some(fixed) = fixed {
            return fixed.min(most);
        }
        let expected = match self.sorted.len() {
            0..ENOUGH => UNKNOWN,
            count => self.sorted[(count * 95).div_ceil(100) - 1].max(LEAST),
        };
        expected.min(most).min(cap / 4)
    }
}

/// Tokens to hold for the rest of an answer of which `streamed` tokens came. An answer longer than its reserve is one
/// of the long tail: it is expected to grow by half again.
pub(crate) fn rest(
    reserve: u64,
    fixed: bool,
    streamed: u64,
    max_tokens: Option<u64>,
    cap: u64,
) -> u64 {
    let most = max_tokens.map_or(u64::MAX, |most| most.saturating_sub(streamed));
    let left = reserve.saturating_sub(streamed);
    if fixed {
        return left.min(most);
    }
    let expected = if left > 0 { left } else { streamed / 2 };
    expected.max(LEAST_REST).min(most).min(cap / 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reserve_is_learned_and_bounded() {
        let mut outputs = Outputs::default();
        assert_eq!(outputs.reserve(None, Some(128_000), 36_000), 1024);
        assert_eq!(outputs.reserve(None, Some(100), 36_000), 100);
        assert_eq!(outputs.reserve(Some(2048), None, 36_000), 2048);
        for output in 1..=100 {
            outputs.learn(output * 10);
        }
        assert_eq!(outputs.reserve(None, Some(128_000), 36_000), 950);
        assert_eq!(outputs.reserve(None, None, 2000), 500);
        for _ in 0..500 {
            outputs.learn(3);
        }
        assert_eq!(outputs.reserve(None, None, 36_000), 256);
        assert_eq!(outputs.samples().count(), KEPT);
        assert_eq!(outputs.sorted.len(), KEPT);
    }

    #[test]
    fn the_hold_shrinks_as_output_streams() {
        for (streamed, expected) in [(0, 1000), (600, 400), (900, 200), (1000, 500), (4000, 2000)] {
            assert_eq!(
                rest(1000, false, streamed, None, 36_000),
                expected,
                "{streamed}"
            );
        }
        assert_eq!(rest(1000, false, 900, Some(950), 36_000), 50);
        assert_eq!(rest(1000, true, 1200, None, 36_000), 0);
    }
}
