//! Whether an upstream charges a budget while tokens flow or when the answer ends: learned from what it says is left.
//!
//! Both accounts are kept and both bind until many answers agree with one of them; then the other binds no more. Where
//! the upstream's window is not a rolling one its count is neither of ours; then what it grew by from one answer to the
//! next tells. A 429 that nothing explains makes all that void.

/// Answers, for less against, that must agree.
const ENOUGH: i32 = 12;
const MOST: i32 = 24;
/// Accounts that differ by less than this part of the limit tell nothing; nor does what they grew by, if that differs by
/// less than the second.
const DISTINCT: u64 = 25;
const GROWN: u64 = 100;
/// A count within this part of the limit is taken for the same.
const NEAR: u64 = 50;

/// What was learned of one budget: above zero for tokens that flow, below for answers that end.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Charging {
    score: i32,
    last: Option<Counts>,
}

/// What was counted at one instant.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Counts {
    /// By the upstream.
    pub(crate) theirs: u64,
    /// By us, in the window: what flowed, and what ended.
    pub(crate) flowed: u64,
    pub(crate) ended: u64,
    /// The same of all time.
    pub(crate) all_flowed: u64,
    pub(crate) all_ended: u64,
}

impl Charging {
    /// An answer told what the upstream counts.
    pub(crate) fn observe(&mut self, limit: u64, now: Counts) {
        let last = self.last.replace(now);
        let near = |a: u64, b: u64| a.abs_diff(b) <= limit / NEAR;
        let whole = [now.flowed, now.ended];
        let [flow, end] = whole.map(|ours| near(now.theirs, ours));
        if whole[0].abs_diff(whole[1]) >= limit / DISTINCT && flow != end {
            return self.vote(flow);
        }
        let Some(last) = last else { return };
        // What left their window cannot be told from what did not come.
        let Some(grown) = now.theirs.checked_sub(last.theirs) else {
            return;
        };
        let ours = [
            now.all_flowed - last.all_flowed,
            now.all_ended - last.all_ended,
        ];
        if ours[0].abs_diff(ours[1]) >= limit / GROWN {
            let [flow, end] = ours.map(|ours| ours.abs_diff(grown));
            if flow * 3 < end || end * 3 < flow {
                self.vote(flow < end);
            }
        }
    }

    fn vote(&mut self, flows: bool) {
        self.score = (self.score + if flows { 1 } else { -1 }).clamp(-MOST, MOST);
    }

    /// The upstream counts what flows.
    pub(crate) fn flows(self) -> bool {
        self.score >= ENOUGH
    }

    /// It counts what ended.
    pub(crate) fn ends(self) -> bool {
        self.score <= -ENOUGH
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(theirs: u64, all: [u64; 2]) -> Counts {
        Counts {
            theirs,
            flowed: 500,
            ended: 300,
            all_flowed: all[0],
            all_ended: all[1],
        }
    }

    #[test]
    fn many_answers_decide_and_mixed_ones_do_not() {
        let check = |theirs: &[u64], flows: bool, ends: bool| {
            let mut charging = Charging::default();
            for &one in theirs.iter().cycle().take(40) {
                charging.observe(1000, counts(one, [0; 2]));
            }
            assert_eq!(
                (charging.flows(), charging.ends()),
                (flows, ends),
                "{theirs:?}"
            );
        };
        check(&[500, 485, 515], true, false);
        check(&[300], false, true);
        check(&[400], false, false);
        check(&[500, 300], false, false);
    }

    #[test]
    fn in_another_window_its_growth_decides() {
        let check = |index: usize| {
            let mut charging = Charging::default();
            let mut all = [0; 2];
            let mut theirs = 0;
            for answer in 0..60_u64 {
                // A prompt flows, and another answer ends later.
                let grown = if answer % 2 == 0 { [20, 0] } else { [0, 20] };
                (0..2).for_each(|one| all[one] += grown[one]);
                theirs = if answer % 15 == 14 {
                    0
                } else {
                    theirs + grown[index]
                };
                charging.observe(1000, counts(theirs, all));
            }
            charging
        };
        assert!(check(0).flows());
        assert!(check(1).ends());
    }
}
