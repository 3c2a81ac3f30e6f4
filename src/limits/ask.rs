//! What a request asks for, and how it is told no.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::limits::snapshot::Wait;

/// What a request is for; it orders the requests of one terminal among each other.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// A person typed something and waits.
    Interactive,
    /// The client carries on by itself, with the results of tools.
    #[default]
    Loop,
    /// Nobody looks at it: subagents, compaction, titles.
    Background,
}

/// A request for admission. `Default` gives a free request that waits two minutes.
#[derive(Clone, Debug)]
pub struct Ask {
    /// What the upstream limits as one: account and model.
    pub pool: Arc<str>,
    /// Who asks. Budgets are shared fairly between terminals.
    pub terminal: Arc<str>,
    /// Share of the terminal in relation to others; at least 1.
    pub weight: u32,
    /// The conversation that the request belongs to, for the queue's display.
    pub session: Arc<str>,
    /// What the request is for.
    pub class: Class,
    /// Estimated input tokens, cached ones included.
    pub prompt: u64,
    /// Estimated input tokens outside the prompt cache.
    pub uncached: u64,
    /// Input tokens that the prompt cache is expected to hold, of `prompt`. If they are lost while the request waits, they
    /// become uncached ones.
    pub cached: u64,
    /// How long the prompt cache is expected to hold them from now; `None` if nobody knows.
    pub cache_expires_in: Option<Duration>,
    /// The client's own bound for the output, if it sent one. An upper bound for the reserve, never the reserve.
    pub max_tokens: Option<u64>,
    /// The upstream is known for token budgets. For others only what the user set or a header named is a limit.
    pub budgeted: bool,
    /// How long it may wait, counted from its first arrival.
    pub patience: Duration,
    /// The place of a request that was admitted before and that the upstream refused; see `Permit::refused`.
    pub again: Option<Ticket>,
}

impl Default for Ask {
    fn default() -> Self {
        Self {
            pool: Arc::default(),
            terminal: Arc::default(),
            weight: 1,
            session: Arc::default(),
            class: Class::default(),
            prompt: 0,
            uncached: 0,
            cached: 0,
            cache_expires_in: None,
            max_tokens: None,
            budgeted: true,
            patience: Duration::from_mins(2),
            again: None,
        }
    }
}

/// A place in the queue that a refused request keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    pub(crate) order: u64,
    pub(crate) arrived: Duration,
}

/// The budget that a request waits for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Budget {
    /// Requests per second.
    Requests,
    /// All input tokens.
    #[default]
    Prompt,
    /// Input tokens outside the cache.
    Uncached,
    /// Output tokens.
    Generated,
    /// The upstream answered 429 and its pool rests.
    Pause,
}

impl fmt::Display for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Requests => "requests per second",
            Self::Prompt => "prompt tokens",
            Self::Uncached => "uncached prompt tokens",
            Self::Generated => "generated tokens",
            Self::Pause => "a pause after the upstream's 429",
        })
    }
}

/// Why a request was not admitted. Its text is one short line that no client mistakes for another kind of error.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.message())]
pub struct Refusal {
    /// The reason.
    pub kind: RefusalKind,
    /// When to try again: whole seconds, at least one, as `Retry-After` wants them.
    pub retry_after: u64,
}

/// The reason of a refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RefusalKind {
    /// The wait would be, or was, longer than the request's patience.
    Queue {
        /// What it waits for and how long it would still have to.
        wait: Wait,
    },
    /// The day's cap is reached.
    Daily {
        /// Start of the next calendar day.
        resets_at: DateTime<Utc>,
    },
    /// The queue has no place.
    Full,
    /// kimiq is ending.
    ShuttingDown,
}

impl Refusal {
    pub(crate) fn new(kind: RefusalKind, wait: Duration) -> Self {
        let whole = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        Self {
            kind,
            retry_after: whole.max(1),
        }
    }

    /// One line for the user.
    pub fn message(&self) -> String {
        match &self.kind {
            RefusalKind::Queue { wait } => {
                format!("kimiq: no room yet; the request {}", wait.sentence())
            }
            RefusalKind::Daily { resets_at } => format!(
                "kimiq: daily_token_limit reached; resets at {}",
                resets_at.format("%Y-%m-%d %H:%M UTC")
            ),
            RefusalKind::Full => "kimiq: the queue is full".to_owned(),
            RefusalKind::ShuttingDown => "kimiq is shutting down".to_owned(),
        }
    }

    /// The `type` of the error body. `daily_token_limit` is final; the client must not retry it.
    pub fn error_type(&self) -> &'static str {
        match self.kind {
            RefusalKind::Queue { .. } | RefusalKind::Full => "rate_limit_error",
            RefusalKind::Daily { .. } => "daily_token_limit",
            RefusalKind::ShuttingDown => "api_error",
        }
    }
}
