//! The limiter as others see it: plain values for status lines, `usage` and `why`.

use std::fmt::Write;

use chrono::{DateTime, NaiveDate, Utc};
use serde::{Deserialize, Serialize};

use crate::limits::ask::{Budget, Class};
use crate::usage::Dimensions;
use crate::usage::figures::Share;

/// Everything at one instant.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Each pool, by name.
    pub pools: Vec<PoolView>,
    /// Who waits, first come first; the place counts inside a pool.
    pub queue: Vec<QueueView>,
    /// Requests per second.
    pub requests: RequestsView,
    /// The calendar day.
    pub day: DayView,
}

/// One pool.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolView {
    /// Account and model.
    pub name: String,
    /// Limits believed in, tokens per window.
    pub limits: Dimensions<u64>,
    /// Limits came from headers.
    pub learned: Dimensions<bool>,
    /// Share of the limits that is used, parts per million.
    pub ratio_ppm: u32,
    /// Limits times ratio.
    pub effective: Dimensions<u64>,
    /// Tokens in the window.
    pub used: Dimensions<u64>,
    /// Tokens held for requests in flight.
    pub held: Dimensions<u64>,
    /// The tightest budget.
    pub binding: Budget,
    /// Use and holds of the tightest budget, of its effective limit.
    pub percent: Share,
    /// Requests in flight.
    pub in_flight: usize,
    /// Requests waiting.
    pub waiting: usize,
    /// The pool rests after a 429 for so long, milliseconds; 0 when it does not.
    pub paused_ms: u64,
    /// After two refusals in a row one request goes ahead alone, and all others wait for its answer.
    #[serde(default)]
    pub scouting: bool,
    /// Tokens of the window that another user of the account seems to spend.
    #[serde(default)]
    pub foreign: Dimensions<u64>,
    /// The unit of the limit headers is a guess that nothing has proven, so what they tell of others may be our own use.
    #[serde(default)]
    pub unit_unsure: bool,
    /// Bursts inside the minute are bounded for so long, after a 429 that our account cannot explain; milliseconds.
    #[serde(default)]
    pub cautious_ms: u64,
    /// The limit is the user's setting, not what the upstream grants.
    #[serde(default)]
    pub capped: Dimensions<bool>,
    /// The last hour.
    #[serde(default)]
    pub hour: HourView,
    /// How the limits will rise, where that is documented.
    #[serde(default)]
    pub ladder: Option<Dimensions<Ladder>>,
    /// Date of the documents that `ladder` follows.
    #[serde(default)]
    pub rules_of: Option<String>,
}

/// The last hour of a pool.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HourView {
    /// Requests admitted.
    pub requests: u64,
    /// Of those, how many had waited for a second or longer.
    pub waited: u64,
    /// What they cost.
    pub tokens: Dimensions<u64>,
    /// Times that the upstream answered 429.
    pub throttled: u64,
    /// Terminals that asked in its last ten minutes, at most some dozens.
    pub terminals: usize,
    /// What was waited for, the longest first.
    pub bound: Vec<Bound>,
}

/// Part of the waiting of the last hour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bound {
    /// What was waited for.
    pub budget: Budget,
    /// Milliseconds of all requests together.
    pub waited_ms: u64,
    /// Share of all waiting, percent.
    pub percent: u64,
}

/// How one limit will rise, by what the upstream documents.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ladder {
    /// Where it ends.
    pub ceiling: u64,
    /// Steps to there.
    pub steps: u32,
    /// The last minute's use was enough for a step.
    pub enough: bool,
    /// Milliseconds to the next step, if use is and stays enough.
    pub next_ms: u64,
    /// Milliseconds to the ceiling, if use stays enough.
    pub ceiling_ms: u64,
}

/// One waiting request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueView {
    /// Who waits.
    pub terminal: String,
    /// Where.
    pub pool: String,
    /// The conversation, if the asker named one.
    #[serde(default)]
    pub session: String,
    /// What it is for.
    #[serde(default)]
    pub class: Class,
    /// Why and until when.
    #[serde(flatten)]
    pub wait: Wait,
}

/// Why something waits and until when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wait {
    /// Place in the pool's queue; 1 is the head.
    pub place: usize,
    /// The budget that has no room.
    pub budget: Budget,
    /// What is missing in that budget, tokens or requests.
    pub missing: u64,
    /// Estimated rest of the wait. Exact for the head unless an answer in flight ends early.
    pub eta_ms: u64,
    /// How long it has waited.
    pub waited_ms: u64,
    /// Terminals whose requests go before it, in their order; the first three.
    #[serde(default)]
    pub behind: Vec<String>,
    /// Requests of the pool that run: their ends change what is foreseen.
    #[serde(default)]
    pub running: usize,
}

/// Requests per second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestsView {
    /// The limit.
    pub per_second: u32,
    /// Requests that may start at once.
    pub free: u32,
}

/// The calendar day.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DayView {
    /// Local date.
    pub date: NaiveDate,
    /// Tokens settled.
    pub used: u64,
    /// Tokens held for requests in flight.
    pub held: u64,
    /// The cap.
    pub cap: u64,
    /// The warning of this day was given.
    pub warned: bool,
    /// Start of the next local day.
    pub resets_at: DateTime<Utc>,
}

impl Snapshot {
    /// One line for the log: queue, waits, use and limit of each budget, tokens of the day.
    pub fn line(&self) -> String {
        let longest = self.queue.iter().map(|q| q.wait.waited_ms).max();
        let mut line = format!("queue {}", self.queue.len());
        if let Some(longest) = longest {
            append(
                &mut line,
                format_args!(" (longest wait {} s)", longest / 1000),
            );
        }
        for pool in &self.pools {
            let of = |used: u64, held: u64, cap: u64| format!("{}/{cap}", used + held);
            let (u, h, e) = (&pool.used, &pool.held, &pool.effective);
            append(
                &mut line,
                format_args!(
                    "; {}: prompt {}, uncached {}, generated {}, in flight {}",
                    pool.name,
                    of(u.prompt, h.prompt, e.prompt),
                    of(u.uncached, h.uncached, e.uncached),
                    of(u.generated, h.generated, e.generated),
                    pool.in_flight
                ),
            );
        }
        append(
            &mut line,
            format_args!("; today {}/{} tokens", self.day.used, self.day.cap),
        );
        line
    }
}

fn append(line: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    line.write_fmt(text).unwrap_or_default();
}
