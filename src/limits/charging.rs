//! Whether an upstream charges a budget while tokens flow or when the answer ends: learned from what it says is left.
//!
//! Both accounts are kept and both bind until many answers agree with the one that counts what flows; then the other
//! binds no more. A 429 that nothing explains makes all that void.

/// Answers, for less against, that must agree.
const ENOUGH: i32 = 12;
const MOST: i32 = 24;
/// Accounts that differ by less than this part of the limit tell nothing.
const DISTINCT: u64 = 25;

/// What was learned of one budget: above zero for tokens that flow, below for answers that end.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Charging {
    score: i32,
}

impl Charging {
    /// An answer told what was counted, while these were our accounts.
    pub(crate) fn observe(&mut self, limit: u64, counted: u64, flowed: u64, ended: u64) {
        if flowed.abs_diff(ended) < limit / DISTINCT {
            return;
        }
        let (flow, end) = (counted.abs_diff(flowed), counted.abs_diff(ended));
        if flow * 2 < end {
            self.score = (self.score + 1).min(MOST);
        } else if end * 2 < flow {
            self.score = (self.score - 1).max(-MOST);
        }
    }

    /// The upstream counts what flows.
    pub(crate) fn flows(self) -> bool {
        self.score >= ENOUGH
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_answers_decide_and_mixed_ones_do_not() {
        let check = |counted: &[u64], expected: bool| {
            let mut charging = Charging::default();
            for &one in counted.iter().cycle().take(40) {
                charging.observe(1000, one, 500, 300);
            }
            assert_eq!(charging.flows(), expected, "{counted:?}");
        };
        check(&[500, 480, 520], true);
        check(&[300], false);
        check(&[400], false);
        check(&[500, 300], false);
        let mut close = Charging::default();
        for _ in 0..40 {
            close.observe(1000, 500, 500, 480);
        }
        assert!(!close.flows(), "too close to tell");
    }
}
