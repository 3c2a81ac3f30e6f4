//! What happened in the last hour, in twelve parts: what requests waited for, how many there were, and what they cost.
//!
//! For advice only; nothing here admits or refuses. Memory is bounded by the parts and by the names kept of each.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::limits::ask::Budget;
use crate::limits::pool::stamp;
use crate::limits::snapshot::{Bound, HourView};
use crate::usage::Dimensions;

/// Parts of the hour.
const PARTS: u32 = 12;
/// The part of the hour that is now: ten minutes.
const NOW: u32 = 6;
/// Terminals counted in a part; beyond this they are many.
const MANY: usize = 64;
/// A shorter wait is none that anybody notices.
const NOTICED: Duration = Duration::from_secs(1);

/// All budgets that a request can wait for.
pub(crate) const BUDGETS: [Budget; 5] = [
    Budget::Requests,
    Budget::Prompt,
    Budget::Uncached,
    Budget::Generated,
    Budget::Pause,
];

/// The last hour of one pool. It is as long as sixty windows.
#[derive(Clone, Debug)]
pub(crate) struct Hour {
    length: Duration,
    parts: VecDeque<Part>,
    since: Duration,
}

/// A twelfth of it.
#[derive(Clone, Debug, Default)]
struct Part {
    /// When it is older than an hour.
    until: Duration,
    counts: Counts,
    terminals: BTreeSet<Arc<str>>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Counts {
    /// Milliseconds waited for each budget, of all requests together.
    waits: [u64; 5],
    requests: u64,
    waited: u64,
    tokens: [u64; 3],
    throttled: u64,
}

/// A part on disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SavedPart {
    /// When it is older than an hour, milliseconds since 1970.
    until: i64,
    counts: Counts,
    terminals: Vec<String>,
}

impl Hour {
    pub(crate) fn new(window: Duration) -> Self {
        Self {
            length: window * 60,
            parts: VecDeque::new(),
            since: Duration::ZERO,
        }
    }

    /// The part that this instant belongs to.
    fn part(&mut self, now: Duration) -> &mut Part {
        let until = now + self.length;
        let running = self.length / PARTS;
        self.parts.retain(|part| part.until > now);
        let fresh = self
            .parts
            .back()
            .is_none_or(|part| part.until + running <= until);
        if fresh {
            self.parts.push_back(Part {
                until,
                ..Part::default()
            });
        }
        let last = self.parts.len() - 1;
        &mut self.parts[last]
    }

    /// So many requests have waited since the last call for the same budget.
    pub(crate) fn wait(&mut self, budget: Option<(Budget, usize)>, now: Duration) {
        let time = now.saturating_sub(self.since);
        self.since = now;
        let Some((budget, waiting)) = budget else {
            return;
        };
        let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        if let Some(index) = BUDGETS.iter().position(|&one| one == budget) {
            let sum = &mut self.part(now).counts.waits[index];
            *sum = sum.saturating_add(millis.saturating_mul(waiting as u64));
        }
    }

    /// A request was admitted after a wait.
    pub(crate) fn admitted(&mut self, terminal: &Arc<str>, waited: Duration, now: Duration) {
        let part = self.part(now);
        part.counts.requests += 1;
        part.counts.waited += u64::from(waited >= NOTICED);
        if part.terminals.len() < MANY && !part.terminals.contains(terminal) {
            part.terminals.insert(Arc::clone(terminal));
        }
    }

    /// A request ended and cost this.
    pub(crate) fn spent(&mut self, tokens: &[u64; 3], now: Duration) {
        let counts = &mut self.part(now).counts;
        (0..3).for_each(|d| counts.tokens[d] = counts.tokens[d].saturating_add(tokens[d]));
    }

    /// The upstream refused one.
    pub(crate) fn throttled(&mut self, now: Duration) {
        self.part(now).counts.throttled += 1;
    }

    pub(crate) fn view(&self, now: Duration) -> HourView {
        let mut sum = Counts::default();
        let mut terminals = BTreeSet::new();
        for part in self.parts.iter().filter(|part| part.until > now) {
            let one = &part.counts;
            (0..5).for_each(|i| sum.waits[i] += one.waits[i]);
            (0..3).for_each(|d| sum.tokens[d] += one.tokens[d]);
            sum.requests += one.requests;
            sum.waited += one.waited;
            sum.throttled += one.throttled;
            // Who asked half an hour ago may be gone since.
            if part.until + self.length / NOW > now + self.length {
                terminals.extend(&part.terminals);
            }
        }
        let all: u64 = sum.waits.iter().sum();
        let mut bound: Vec<Bound> = BUDGETS
            .into_iter()
            .zip(sum.waits)
            .filter(|&(_, waited_ms)| waited_ms > 0)
            .map(|(budget, waited_ms)| Bound {
                budget,
                waited_ms,
                percent: waited_ms * 100 / all.max(1),
            })
            .collect();
        bound.sort_by_key(|one| std::cmp::Reverse(one.waited_ms));
        HourView {
            requests: sum.requests,
            waited: sum.waited,
            tokens: Dimensions::from_array(sum.tokens),
            throttled: sum.throttled,
            terminals: terminals.len(),
            bound,
        }
    }

    pub(crate) fn saved(&self, now: Duration, wall: DateTime<Utc>) -> Vec<SavedPart> {
        let of = |part: &Part| SavedPart {
            until: stamp(part.until, now, wall),
            counts: part.counts,
            terminals: part.terminals.iter().map(ToString::to_string).collect(),
        };
        self.parts.iter().map(of).collect()
    }

    /// Takes over what an earlier process saved and what is younger than an hour.
    pub(crate) fn restore(&mut self, saved: Vec<SavedPart>, now: Duration, wall: DateTime<Utc>) {
        let parts = saved.into_iter().filter_map(|part| {
            let left = u64::try_from(part.until - wall.timestamp_millis()).ok()?;
            Some(Part {
                // A clock that was set back makes it no younger than new.
                until: now + Duration::from_millis(left).min(self.length),
                counts: part.counts,
                terminals: part.terminals.into_iter().map(Into::into).collect(),
            })
        });
        self.parts = parts.take(PARTS as usize + 1).collect();
        self.since = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_mins(1);

    fn waited(hour: &Hour, now: Duration) -> Vec<(Budget, u64, u64)> {
        let view = hour.view(now);
        let bound = view.bound.iter();
        bound
            .map(|one| (one.budget, one.waited_ms, one.percent))
            .collect()
    }

    #[test]
    fn the_last_hour_tells_what_was_waited_for() {
        let mut hour = Hour::new(MINUTE);
        hour.wait(None, MINUTE);
        hour.wait(Some((Budget::Prompt, 2)), MINUTE * 2);
        hour.wait(Some((Budget::Pause, 3)), MINUTE * 3);
        assert_eq!(
            waited(&hour, MINUTE * 3),
            [(Budget::Pause, 180_000, 60), (Budget::Prompt, 120_000, 40)]
        );
        hour.wait(None, MINUTE * 40);
        hour.wait(Some((Budget::Prompt, 1)), MINUTE * 41);
        assert_eq!(waited(&hour, MINUTE * 63), [(Budget::Prompt, 60_000, 100)]);
        assert_eq!(hour.view(MINUTE * 200), HourView::default());
    }

    #[test]
    fn it_counts_requests_tokens_and_terminals_and_forgets_them() {
        let mut hour = Hour::new(MINUTE);
        let (one, two): (Arc<str>, Arc<str>) = ("run:1".into(), "run:2".into());
        for minute in 0..1000 {
            let now = MINUTE * minute;
            hour.admitted(&one, Duration::from_millis(999), now);
            hour.admitted(&two, Duration::from_secs(1), now);
            hour.spent(&[10, 5, 1], now);
            hour.throttled(now);
            assert!(hour.parts.len() <= PARTS as usize + 1);
        }
        let view = hour.view(MINUTE * 1000);
        assert!((50..=60).contains(&view.waited), "{view:?}");
        assert_eq!(view.requests, view.waited * 2);
        assert_eq!(
            view.tokens.into_array(),
            [10, 5, 1].map(|n| n * view.waited)
        );
        assert_eq!((view.throttled, view.terminals), (view.waited, 2));
        let later = MINUTE * 1004;
        hour.admitted(&two, MINUTE, later + MINUTE * 5);
        assert_eq!(hour.view(later + MINUTE * 10).terminals, 1, "one left");
    }

    #[test]
    fn it_survives_a_restart_with_its_age() {
        let wall = DateTime::UNIX_EPOCH + chrono::TimeDelta::hours(9);
        let mut hour = Hour::new(MINUTE);
        hour.wait(None, MINUTE * 100);
        hour.wait(Some((Budget::Prompt, 1)), MINUTE * 101);
        hour.admitted(&"run:1".into(), MINUTE, MINUTE * 101);
        let saved = hour.saved(MINUTE * 121, wall);
        let text = serde_json::to_string(&saved).unwrap();
        let saved: Vec<SavedPart> = serde_json::from_str(&text).unwrap();
        // The new process begins with a young clock, ten minutes later.
        let later = wall + chrono::TimeDelta::minutes(10);
        let mut again = Hour::new(MINUTE);
        again.restore(saved.clone(), MINUTE * 2, later);
        assert_eq!(again.view(MINUTE * 2), hour.view(MINUTE * 121));
        assert_eq!(again.view(MINUTE * 31).requests, 1);
        assert_eq!(again.view(MINUTE * 33), HourView::default());
        again.restore(saved, MINUTE * 2, wall + chrono::TimeDelta::hours(2));
        assert_eq!(again.view(MINUTE * 2), HourView::default());
    }
}
