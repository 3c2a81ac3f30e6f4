//! The words for a wait. Windows, footers, commands and refusals all take them from here, so that a user meets one
//! wording everywhere.

use crate::limits::ask::Budget;
use crate::limits::pool::TOKEN_BUDGETS;
use crate::limits::snapshot::{DayView, PoolView, Wait};
use crate::usage::figures;

/// No window of a minute makes anybody wait this long: something else is wrong, and a number would be a promise.
const HOPELESS_MS: u64 = 3_600_000;

/// A budget has collapsed when this many times what is usable is less than the limit.
const COLLAPSED: u64 = 4;

impl Wait {
    /// One sentence: what it waits for, how much is missing, its place, until when.
    pub fn sentence(&self) -> String {
        let (budget, place, until) = (self.budget, self.place, self.until());
        match budget {
            Budget::Pause if self.eta_ms == 0 => {
                format!(
                    "waits for one request that goes ahead after the upstream's 429, place {place}"
                )
            }
            // Each refusal that follows makes the pause longer: its end is that of the next try, and no more is promised.
            Budget::Pause if self.eta_ms < HOPELESS_MS => {
                let next = figures::time(self.eta_ms);
                format!("pauses after the upstream's 429, place {place}, next try in {next}")
            }
            Budget::Pause => format!("pauses after the upstream's 429, place {place}, {until}"),
            Budget::Requests => format!("waits for {budget}, place {place}, {until}"),
            Budget::Prompt | Budget::Uncached | Budget::Generated => {
                let missing = figures::grouped(self.missing);
                format!("waits for {missing} {budget}, place {place}, {until}")
            }
        }
    }

    /// The sentence, and what goes before it.
    pub fn in_full(&self) -> String {
        let running = match self.running {
            0 => String::new(),
            1 => ", 1 answer runs".to_owned(),
            count => format!(", {count} answers run"),
        };
        let before = match &self.behind[..] {
            [] => "nothing waits before it".to_owned(),
            names if names.len() + 1 < self.place => {
                format!("behind {} and others", names.join(", "))
            }
            names => format!("behind {}", names.join(", ")),
        };
        format!("{}; {before}{running}", self.sentence())
    }

    /// The time alone, for where there is little room: `12 s`.
    pub fn clock(&self) -> String {
        match self.eta_ms {
            HOPELESS_MS.. => "?".to_owned(),
            _ => figures::time(self.eta_ms),
        }
    }

    fn until(&self) -> String {
        match self.eta_ms {
            0 => "any moment now".to_owned(),
            HOPELESS_MS.. => "not before the limits recover".to_owned(),
            _ => format!("about {}", figures::time(self.eta_ms)),
        }
    }
}

impl DayView {
    /// Every request is refused until the day ends.
    pub fn is_full(&self) -> bool {
        self.left() == 0
    }

    /// Why a request is refused, and until when.
    pub fn refusal(&self) -> String {
        let (until, cap) = (
            self.resets_at.format("%Y-%m-%d %H:%M UTC"),
            figures::grouped(self.cap),
        );
        match self.left() {
            0 => format!("refused until {until}: the day's {cap} tokens are used up"),
            left => format!(
                "refused until {until}: {} of the day's {cap} tokens are left, too few for it",
                figures::grouped(left)
            ),
        }
    }

    fn left(&self) -> u64 {
        self.cap.saturating_sub(self.used + self.held)
    }
}

impl PoolView {
    /// Budgets of which far less can be used than the upstream grants, each in one sentence.
    pub fn collapsed(&self) -> Vec<String> {
        let (usable, limits) = (self.effective.into_array(), self.limits.into_array());
        let others = self.foreign.into_array();
        (0..3)
            .filter(|&d| usable[d].saturating_mul(COLLAPSED) < limits[d])
            .map(|d| {
                let why = if others[d] > limits[d] / 2 && self.unit_unsure {
                    "its headers say that more is gone than was used; their unit is not certain yet"
                } else if others[d] > limits[d] / 2 {
                    "another user of the account takes the rest"
                } else {
                    "the upstream refused more"
                };
                let (usable, limit) = (figures::grouped(usable[d]), figures::grouped(limits[d]));
                let budget = TOKEN_BUDGETS[d];
                format!(
                    "{}: only {usable} of {limit} {budget} a minute can be used: {why}",
                    self.name
                )
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_told_alike_everywhere() {
        let check = |budget, missing, place, eta_ms, expected: &str| {
            let wait = Wait {
                place,
                budget,
                missing,
                eta_ms,
                waited_ms: 0,
                behind: Vec::new(),
                running: 0,
            };
            assert_eq!(wait.sentence(), expected);
        };
        check(
            Budget::Prompt,
            131_184,
            2,
            11_200,
            "waits for 131,184 prompt tokens, place 2, about 12 s",
        );
        check(
            Budget::Generated,
            5,
            1,
            300_000,
            "waits for 5 generated tokens, place 1, about 5 min",
        );
        check(
            Budget::Uncached,
            131_184,
            2,
            2_249_391_000,
            "waits for 131,184 uncached prompt tokens, place 2, not before the limits recover",
        );
        check(
            Budget::Requests,
            3,
            3,
            0,
            "waits for requests per second, place 3, any moment now",
        );
        check(
            Budget::Pause,
            0,
            1,
            4_000,
            "pauses after the upstream's 429, place 1, next try in 4 s",
        );
        check(
            Budget::Pause,
            0,
            2,
            0,
            "waits for one request that goes ahead after the upstream's 429, place 2",
        );
    }

    #[test]
    fn the_days_refusal_tells_until_when_and_what_is_left() {
        let check = |used, held, full, expected: &str| {
            let day = DayView {
                used,
                held,
                cap: 5000,
                resets_at: "2026-11-21T00:00:00Z".parse().unwrap(),
                ..DayView::default()
            };
            assert_eq!((day.is_full(), &*day.refusal()), (full, expected));
        };
        let spent = "refused until 2026-11-21 00:00 UTC: the day's 5,000 tokens are used up";
        check(5000, 0, true, spent);
        check(4000, 2000, true, spent);
        check(
            3000,
            500,
            false,
            "refused until 2026-11-21 00:00 UTC: 1,500 of the day's 5,000 tokens are left, too few for it",
        );
    }

    #[test]
    fn what_goes_before_is_named() {
        let check = |place, behind: &[&str], running, expected: &str| {
            let wait = Wait {
                place,
                budget: Budget::Prompt,
                missing: 1,
                eta_ms: 1,
                waited_ms: 0,
                behind: behind.iter().map(|&name| name.to_owned()).collect(),
                running,
            };
            let (_, tail) = wait
                .in_full()
                .split_once("; ")
                .map_or_else(Default::default, |(a, b)| (a.to_owned(), b.to_owned()));
            assert_eq!(tail, expected);
            assert!(wait.in_full().starts_with(&wait.sentence()));
        };
        check(1, &[], 0, "nothing waits before it");
        check(1, &[], 1, "nothing waits before it, 1 answer runs");
        check(2, &["run:2"], 3, "behind run:2, 3 answers run");
        check(9, &["a:1", "a:2"], 0, "behind a:1, a:2 and others");
    }
}
