//! The asynchronous handle: waiters, permits and the timer around the pure limiter.

use std::time::Duration;

use chrono::{DateTime, NaiveDate, Utc};
use tokio::sync::watch;

use crate::limits::ask::{Ask, Refusal, Ticket};
use crate::limits::options::Options;
use crate::limits::saved::Saved;
use crate::limits::snapshot::{Snapshot, Wait};
use crate::usage::{Observation, Tokens};

/// Handle to the limiter; clones share one.
#[derive(Clone)]
pub struct Gate {
    changes: watch::Sender<u64>,
}

impl Gate {
    /// A limiter with these settings; `wall` tells the time of day (`clock::wall`).
    pub fn new(_options: Options, _wall: fn() -> DateTime<Utc>) -> Self {
        Self {
            changes: watch::Sender::new(0),
        }
    }
    /// Takes over what an earlier process saved.
    pub fn restore(&self, _saved: Saved) {}
    /// Starts the day's count from the ledger.
    pub fn restore_day(&self, _date: NaiveDate, _used: u64) {}
    /// What to write to disk.
    pub fn saved(&self) -> Saved {
        Saved {
            version: 1,
            pools: Vec::new(),
        }
    }
    /// Waits until every budget has room. Dropping the future leaves the queue.
    pub async fn admit(&self, _ask: Ask) -> Result<Permit, Refusal> {
        std::future::ready(Ok(Permit {})).await
    }
    /// Learns from the headers of an answer, whatever its status.
    pub fn observe(&self, _pool: &str, _observation: Observation) {}
    /// The upstream answered 429 for this pool: it rests. Never call it for 503 or 529.
    pub fn throttled(&self, _pool: &str, _retry_after: Option<Duration>) {}
    /// Everything at this instant.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot::default()
    }
    /// The longest wait of a terminal.
    pub fn wait_of(&self, _terminal: &str) -> Option<Wait> {
        None
    }
    /// Sees a new number whenever something changed.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }
    /// Refuses everything that waits and everything that comes.
    pub fn close(&self) {}
    /// The timer; spawn it once. Ends after `close`.
    pub async fn drive(self) {
        std::future::ready(()).await;
    }
}

/// An admission.
pub struct Permit {}

impl Permit {
    /// The request's last byte went out: prompt tokens are charged from now.
    pub fn sent(&mut self) {}
    /// So many output tokens came (estimated).
    pub fn streamed(&mut self, _tokens: u64) {}
    /// The answer ended and told its usage.
    pub fn settle(self, _tokens: Tokens) {}
    /// The answer ended (or broke) without usage: what was estimated stays charged. Returns what was counted.
    pub fn unmetered(self) -> Tokens {
        Tokens::default()
    }
    /// The upstream did not take it (429, connect error): no charge. The ticket keeps its place.
    pub fn refused(self) -> Ticket {
        Ticket {
            order: 0,
            arrived: Duration::ZERO,
        }
    }
    /// What counts as spent so far.
    pub fn spent(&self) -> Tokens {
        Tokens::default()
    }
    /// How long it waited.
    pub fn waited(&self) -> Duration {
        Duration::ZERO
    }
}
