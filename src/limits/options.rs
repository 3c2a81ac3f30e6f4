//! What a user may set about the budgets, with the documented defaults.

use std::time::Duration;

use chrono_tz::Tz;

use crate::usage::Dimensions;

/// One million: ratios are whole parts per million, so that no float meets a budget.
pub(crate) const PPM: u64 = 1_000_000;

/// Settings of the limiter. `Default` gives the documented defaults.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Requests per second over all pools; the burst is the same number.
    pub requests_per_second: u32,
    /// Length of the rolling window that token limits count in. The limits are per window: with a shorter window
    /// they are not scaled.
    pub window: Duration,
    /// Added to the window for clock and network skew; `None` is a 240th of the window (250 ms for 60 s).
    pub guard: Option<Duration>,
    /// Limits in tokens per window until headers tell others. The defaults are what new Fireworks accounts showed in
    /// May 2026.
    pub start: Dimensions<u64>,
    /// Limits set by the user: nothing learned exceeds them, and without headers they replace `start`.
    pub ceilings: Dimensions<Option<u64>>,
    /// Share of the limits that is used.
    pub ratio: Ratio,
    /// Output tokens to reserve for each request; `None` learns it from the outputs seen.
    pub output_reserve: Option<u64>,
    /// Prompt and generated tokens of one local calendar day over all pools.
    pub daily_cap: u64,
    /// Share of `daily_cap` at which a warning is due, in parts per million.
    pub daily_warn_ppm: u32,
    /// Zone whose calendar days the daily cap counts.
    pub zone: Tz,
    /// Most requests that may wait at once, over all pools.
    pub capacity: usize,
    /// Unit of the upstream's limit headers.
    pub header_unit: HeaderUnit,
    /// Budgets that the upstream may charge when an answer ends rather than when its tokens flow; they are counted both
    /// ways, and a request waits until both counts have room. Live headers of Fireworks (August 2026) suggest it for
    /// uncached and generated tokens; the documents are silent.
    pub charged_at_end: Dimensions<bool>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            requests_per_second: 20,
            window: Duration::from_mins(1),
            guard: None,
            start: Dimensions {
                prompt: 4_500_000,
                uncached: 900_000,
                generated: 36_000,
            },
            ceilings: Dimensions::default(),
            ratio: Ratio::Auto { start_ppm: 950_000 },
            output_reserve: None,
            daily_cap: 200_000_000,
            daily_warn_ppm: 800_000,
            zone: Tz::UTC,
            capacity: 1000,
            header_unit: HeaderUnit::Auto,
            charged_at_end: Dimensions {
                prompt: false,
                uncached: true,
                generated: true,
            },
        }
    }
}

impl Options {
    /// How long an entry counts: window and guard together.
    pub fn span(&self) -> Duration {
        self.window + self.guard.unwrap_or(self.window / 240)
    }
}

/// Share of the limits that is used, in parts per million.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ratio {
    /// Starts here, falls after 429s that our own account cannot explain, rises in clean busy minutes.
    Auto {
        /// Where it starts.
        start_ppm: u32,
    },
    /// Never changes.
    Fixed(u32),
}

/// Unit of the limit headers. Fireworks documented both within one year.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HeaderUnit {
    /// Decided by magnitude, by the majority of the three budgets.
    #[default]
    Auto,
    /// Tokens per second.
    Second,
    /// Tokens per minute.
    Minute,
}
