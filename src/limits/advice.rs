//! What would shorten the waits: the last hour of a pool, read for a person.
//!
//! Four things can be changed: the number of terminals, the length of contexts, how much meets the prompt cache, and the
//! limit itself. Which of them helps follows from the budget that was waited for longest.

use crate::limits::ask::Budget;
use crate::limits::options::PPM;
use crate::limits::pool::TOKEN_BUDGETS;
use crate::limits::snapshot::{Ladder, PoolView};
use crate::usage::figures::{Share, grouped, short, time};

/// From this share of prompt tokens outside the cache on, misses are what costs, percent.
const MISSES: u8 = 30;
/// Below this share of the limits in use, the margin is worth a word, parts per million.
const NARROW_PPM: u64 = PPM * 9 / 10;

impl PoolView {
    /// What the last hour's requests waited for, what would change it and what would not; the summary comes first.
    /// Empty when there was no request.
    pub fn advice(&self) -> Vec<String> {
        if self.hour.requests == 0 && self.waiting == 0 {
            return Vec::new();
        }
        let mut advice = vec![self.summary()];
        let bound = self.hour.bound.first().filter(|_| self.waits_count());
        match bound.map(|bound| bound.budget) {
            Some(Budget::Requests) => advice.push(
                "the setting limits.requests_per_second is what binds; more of it helps if the account allows it, \
                 tokens and terminals do not matter"
                    .to_owned(),
            ),
            Some(Budget::Pause) => advice.push(format!(
                "the upstream refused {} within what it had granted: look for another user of the account, or use a \
                 smaller share (--set limits.safety_ratio=0.8); fewer terminals and the cache change little",
                counted(self.hour.throttled, "request")
            )),
            Some(budget @ (Budget::Prompt | Budget::Uncached | Budget::Generated)) => {
                advice.extend(self.levers(budget));
                advice.push(self.rise(budget));
            }
            None => {}
        }
        let others = self.foreign.into_array();
        let limits = self.limits.into_array();
        for d in (0..3).filter(|&d| others[d] > 0 && !self.unit_unsure) {
            advice.push(format!(
                "another user of the account spends about {} of the {}",
                percent(others[d], limits[d]),
                TOKEN_BUDGETS[d]
            ));
        }
        if u64::from(self.ratio_ppm) < NARROW_PPM && self.hour.throttled > 0 {
            advice.push(format!(
                "after refusals only {} of the limits is used; each clean minute raises that again",
                percent(u64::from(self.ratio_ppm), PPM)
            ));
        }
        advice
    }

    /// Somebody waited long enough to notice.
    fn waits_count(&self) -> bool {
        self.hour.waited > 0 || self.waiting > 0
    }

    fn summary(&self) -> String {
        let hour = &self.hour;
        if !self.waits_count() {
            let requests = counted(hour.requests, "request");
            return format!("none of the last hour's {requests} waited for a second");
        }
        let now = match self.waiting {
            0 => String::new(),
            1 => ", 1 waits now".to_owned(),
            waiting => format!(", {waiting} wait now"),
        };
        let all: u64 = hour.bound.iter().map(|one| one.waited_ms).sum();
        let parts: Vec<String> = hour
            .bound
            .iter()
            .filter(|one| one.percent > 0)
            .map(|one| format!("{} % for {}", one.percent, one.budget))
            .collect();
        format!(
            "in the last hour {} of {} waited{now}, {} in all: {}",
            hour.waited,
            counted(hour.requests, "request"),
            time(all),
            parts.join(", ")
        )
    }

    /// Terminals, contexts and cache.
    fn levers(&self, budget: Budget) -> Vec<String> {
        let hour = &self.hour;
        let mean = |tokens: u64| short(tokens / hour.requests.max(1));
        let (prompt, uncached) = (hour.tokens.prompt, hour.tokens.uncached);
        let missed = Share::of(uncached, prompt.max(1));
        let mut levers = Vec::new();
        match budget {
            Budget::Prompt => {
                levers.push(format!(
                    "shorter contexts help: {} prompt tokens a request; at half of it (/compact) twice as many fit",
                    mean(prompt)
                ));
                levers.push(
                    "the prompt cache does not help: cached tokens count here, too".to_owned(),
                );
            }
            Budget::Uncached if missed.percent() >= MISSES => {
                levers.push(format!(
                    "cache hits help: {missed} of the prompt tokens missed the prompt cache; go on with a session \
                     rather than start a new one (where the upstream knows affinity, kimiq sends it)"
                ));
                levers.push(
                    "compaction does not help: it makes a conversation new to the cache".to_owned(),
                );
            }
            Budget::Uncached => {
                levers.push(format!(
                    "the prompt cache is used well, only {missed} of the prompt tokens missed it: affinity and \
                     compaction change little"
                ));
            }
            _ => {
                levers.push(format!(
                    "shorter answers help (less thinking): {} generated tokens a request",
                    mean(hour.tokens.generated)
                ));
                levers.push("compaction and the prompt cache do not help".to_owned());
            }
        }
        levers.push(match hour.terminals {
            0 | 1 => "one terminal alone fills this budget: fewer of its subagents help".to_owned(),
            count if budget == Budget::Uncached && missed.percent() >= MISSES => format!(
                "fewer terminals help ({count} now): each then returns before its cache expires"
            ),
            count => format!(
                "fewer terminals ({count} now) wait less each, and together get as much done"
            ),
        });
        levers
    }

    /// What raises the limit.
    fn rise(&self, budget: Budget) -> String {
        let Some(d) = TOKEN_BUDGETS.iter().position(|&one| one == budget) else {
            return String::new();
        };
        let limit = grouped(self.limits.into_array()[d]);
        if self.capped.into_array()[d] {
            return format!(
                "the limit of {limit} a minute is your own setting; more of it helps if the account has more"
            );
        }
        let source = self
            .rules_of
            .as_deref()
            .unwrap_or("the upstream's documents");
        match self.ladder.map(|ladder| ladder.into_array()[d]) {
            None => format!(
                "a higher limit than {limit} a minute helps in proportion; no steps to one are documented"
            ),
            Some(Ladder { steps: 0, .. }) => format!(
                "the limit of {limit} a minute is at its documented ceiling ({source}): only a higher tier raises it"
            ),
            Some(ladder) if ladder.enough => format!(
                "the limit of {limit} a minute rises by 25 % {}, and reaches its ceiling of {} in about {} while more \
                 than half of it is used ({source}); a higher tier helps at once",
                match ladder.next_ms {
                    0 => "any moment now".to_owned(),
                    next => format!("in about {}", time(next)),
                },
                grouped(ladder.ceiling),
                time(ladder.ceiling_ms)
            ),
            Some(ladder) => format!(
                "the limit of {limit} a minute rises by 25 % after a minute that uses more than half of it; {} to its \
                 ceiling of {} ({source}); a higher tier helps at once",
                counted(u64::from(ladder.steps), "step"),
                grouped(ladder.ceiling)
            ),
        }
    }
}

/// A share in percent, where nothing is full.
fn percent(part: u64, whole: u64) -> String {
    format!("{} %", Share::of(part, whole).percent())
}

fn counted(number: u64, what: &str) -> String {
    let ending = if number == 1 { "" } else { "s" };
    format!("{} {what}{ending}", grouped(number))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::snapshot::{Bound, HourView};
    use crate::usage::Dimensions;

    /// Six terminals with 120 requests of 100,000 prompt tokens each, of which 5,000 missed the cache.
    fn pool(bound: &[(Budget, u64)]) -> PoolView {
        let all: u64 = bound.iter().map(|one| one.1).sum();
        PoolView {
            name: "pool".to_owned(),
            limits: Dimensions::from_array([3_600_000, 900_000, 36_000]),
            ratio_ppm: 950_000,
            hour: HourView {
                requests: 120,
                waited: 80,
                tokens: Dimensions::from_array([12_000_000, 600_000, 60_000]),
                throttled: 0,
                terminals: 6,
                bound: bound
                    .iter()
                    .map(|&(budget, minutes)| Bound {
                        budget,
                        waited_ms: minutes * 60_000,
                        percent: minutes * 100 / all,
                    })
                    .collect(),
            },
            ..PoolView::default()
        }
    }

    fn ladder(of: Ladder) -> Dimensions<Ladder> {
        Dimensions::from_array([of; 3])
    }

    #[track_caller]
    fn check(view: &PoolView, expected: &[&str]) {
        let advice = view.advice();
        assert_eq!(advice.len(), expected.len(), "{advice:#?}");
        for (line, words) in advice.iter().zip(expected) {
            assert!(line.contains(words), "`{words}` is not in `{line}`");
        }
    }

    #[test]
    fn nothing_is_advised_where_nothing_waits() {
        check(&PoolView::default(), &[]);
        let mut quiet = pool(&[]);
        quiet.hour.waited = 0;
        check(
            &quiet,
            &["none of the last hour's 120 requests waited for a second"],
        );
    }

    #[test]
    fn each_budget_has_its_levers() {
        check(
            &pool(&[(Budget::Prompt, 9), (Budget::Generated, 1)]),
            &[
                "in the last hour 80 of 120 requests waited, 10 min in all: 90 % for prompt tokens, 10 % for generated tokens",
                "shorter contexts help: 100k prompt tokens a request",
                "the prompt cache does not help",
                "fewer terminals (6 now) wait less each, and together get as much done",
                "a higher limit than 3,600,000 a minute helps in proportion",
            ],
        );
        check(
            &pool(&[(Budget::Uncached, 10)]),
            &[
                "100 % for uncached prompt tokens",
                "used well, only 5 % of the prompt tokens missed it",
                "fewer terminals (6 now)",
                "than 900,000 a minute",
            ],
        );
        let mut cold = pool(&[(Budget::Uncached, 10)]);
        cold.hour.tokens.uncached = 6_000_000;
        cold.waiting = 2;
        check(
            &cold,
            &[
                "80 of 120 requests waited, 2 wait now, 10 min in all",
                "cache hits help: 50 % of the prompt tokens missed",
                "compaction does not help",
                "fewer terminals help (6 now): each then returns before its cache expires",
                "than 900,000 a minute",
            ],
        );
        let mut alone = pool(&[(Budget::Generated, 10)]);
        alone.hour.terminals = 1;
        check(
            &alone,
            &[
                "100 % for generated tokens",
                "shorter answers help (less thinking): 500 generated tokens",
                "compaction and the prompt cache do not help",
                "one terminal alone fills this budget",
                "than 36,000 a minute",
            ],
        );
        check(
            &pool(&[(Budget::Requests, 10)]),
            &[
                "100 % for requests per second",
                "limits.requests_per_second",
            ],
        );
    }

    #[test]
    fn refusals_and_others_on_the_account_are_named() {
        let mut refused = pool(&[(Budget::Pause, 10)]);
        refused.hour.throttled = 7;
        refused.ratio_ppm = 600_000;
        refused.foreign.prompt = 1_440_000;
        check(
            &refused,
            &[
                "100 % for a pause after the upstream's 429",
                "the upstream refused 7 requests within what it had granted",
                "another user of the account spends about 40 % of the prompt tokens",
                "only 60 % of the limits is used",
            ],
        );
        refused.unit_unsure = true;
        let advice = refused.advice().concat();
        assert!(
            !advice.contains("another user of the account spends"),
            "{advice}"
        );
    }

    #[test]
    fn the_way_up_is_told_with_its_times() {
        let says = |view: &PoolView, words: &str| {
            let last = view.advice().pop().unwrap();
            assert!(last.contains(words), "`{words}` is not in `{last}`");
        };
        let mut view = pool(&[(Budget::Prompt, 10)]);
        view.rules_of = Some("fireworks 2026-11-20".to_owned());
        let up = Ladder {
            ceiling: 43_200_000,
            steps: 12,
            enough: true,
            next_ms: 12 * 60_000,
            ceiling_ms: 177 * 60_000,
        };
        view.ladder = Some(ladder(up));
        says(
            &view,
            "of 3,600,000 a minute rises by 25 % in about 12 min, and reaches its ceiling of 43,200,000 in about 3 h",
        );
        says(&view, "(fireworks 2026-11-20)");
        view.ladder = Some(ladder(Ladder { next_ms: 0, ..up }));
        says(&view, "rises by 25 % any moment now");
        view.ladder = Some(ladder(Ladder {
            enough: false,
            ..up
        }));
        says(
            &view,
            "after a minute that uses more than half of it; 12 steps to its ceiling",
        );
        view.ladder = Some(ladder(Ladder { steps: 0, ..up }));
        says(&view, "only a higher tier raises it");
        view.capped.prompt = true;
        says(&view, "the limit of 3,600,000 a minute is your own setting");
    }
}
