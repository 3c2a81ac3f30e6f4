//! How far estimates were from the truth, and how much room that asks for.
//!
//! What was sent and not yet counted by the upstream is known by its estimate only. Two things are learned from settled
//! requests: by how much estimates are too low on the whole, and by how much one of them misses beyond that. While
//! little is settled the doubt is large, and it passes with the first answers. Exact estimates cost no room at all.

/// Settled requests that an average reaches back.
const MEMORY: u64 = 32;
/// Doubt about estimates of which none was settled, per mille of them.
const UNKNOWN: u64 = 250;
/// Settled requests after which nothing of that doubt is left.
const KNOWN: u64 = 48;
/// Single misses that are provided for, in tenths of the mean one: nearly one and a half standard deviations of a bell curve. The
/// ratio's margin covers the rest where misses are small, and where they are large, more room costs more than the few 429.
const PROVIDED_TENTHS: u64 = 18;

/// What settled requests tell of the estimates of one budget.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Bias {
    settled: u64,
    /// Sums that forget: estimates, truths, and misses of one from the other.
    estimated: u64,
    truth: u64,
    missed: u64,
}

impl Bias {
    /// A request was estimated so, and cost so much.
    pub(crate) fn learn(&mut self, estimate: u64, truth: u64) {
        if estimate == 0 {
            return;
        }
        let miss = truth.abs_diff(self.scaled(estimate));
        let keep = |sum: u64| sum - sum / MEMORY;
        // The first misses are told from a bias that is hardly known.
        let known = self.settled.min(MEMORY);
        self.missed = keep(self.missed) + miss * known / MEMORY;
        self.estimated = keep(self.estimated) + estimate;
        self.truth = keep(self.truth) + truth;
        self.settled += 1;
    }

    /// What so many tokens of estimates will cost on the whole.
    pub(crate) fn scaled(&self, estimates: u64) -> u64 {
        if self.estimated == 0 {
            return estimates;
        }
        // Wide divisions are slow, and estimates of this size are rare.
        estimates.checked_mul(self.truth).map_or_else(
            || {
                let whole = u128::from(estimates) * u128::from(self.truth);
                u64::try_from(whole / u128::from(self.estimated)).unwrap_or(u64::MAX)
            },
            |whole| whole / self.estimated,
        )
    }

    /// Room to keep for these estimates, of so many requests that nobody counted yet, and for one more.
    pub(crate) fn allowance(&self, estimates: u64, requests: u64) -> u64 {
        let count = self.settled.clamp(1, MEMORY);
        let estimates = estimates + self.estimated / count;
        let whole = self.scaled(estimates).max(estimates);
        let doubt = estimates / 1000 * (UNKNOWN / (1 + self.settled / 2));
        let doubt = if self.settled < KNOWN { doubt } else { 0 };
        // Misses outweigh each other, so many cost the root of their number.
        let miss = self.missed / count;
        let many = ((requests + 1) * 100).isqrt();
        let misses = miss * PROVIDED_TENTHS * many / 100;
        (whole + doubt + misses).saturating_sub(estimates)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_asked_for_by_what_was_missed() {
        let check = |truths: &[u64], requests: u64, expected: std::ops::RangeInclusive<u64>| {
            let mut bias = Bias::default();
            for &truth in truths.iter().cycle().take(200) {
                bias.learn(1000, truth);
            }
            let room = bias.allowance(1000 * requests, requests);
            assert!(expected.contains(&room), "{truths:?}, {requests}: {room}");
        };
        check(&[1000], 10, 0..=0);
        // A fifth too low: a quarter more, for those and for the next one.
        check(&[1250], 0, 249..=252);
        check(&[1250], 9, 2490..=2510);
        // Off in both directions by 100: a little more for one, the root of their number for many.
        check(&[900, 1100], 0, 150..=200);
        check(&[900, 1100], 8, 480..=600);
        // Estimates that are too high on the whole make none of the others better.
        check(&[500], 3, 0..=0);
    }

    #[test]
    fn doubt_passes_with_the_first_answers() {
        let mut bias = Bias::default();
        assert_eq!(bias.allowance(100_000, 1), 25_000);
        let mut before = 25_000;
        for settled in 1..=KNOWN {
            bias.learn(1000, 1000);
            let room = bias.allowance(99_000, 1);
            assert!(room <= before, "{settled}: {room}");
            before = room;
        }
        assert_eq!(before, 0);
        bias.learn(0, 100);
        assert_eq!(bias.allowance(1000, 1), 0, "nothing was estimated");
    }
}
