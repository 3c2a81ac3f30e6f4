//! The way of one request, from the loopback socket to the upstream and back.
//!
//! [`serve`] accepts connections; `exchange` is the spine that a model request walks, a room per step; `stream`
//! relays the answer and settles what it cost; everything that is no model request either passes straight through or
//! goes to the handler that the host brought along.
//!
//! # When the client goes away
//!
//! The connection drops the future or the body that serves it, and dropping is enough at every await: while the
//! body is read nothing was reserved; in the queue the waiter leaves it; while the request is on its way, or the
//! answer streams, the permit gives back what was not used and the upstream's connection is closed.
//!
//! # Invariants
//!
//! - No answer is buffered whole; back-pressure is the body itself.
//! - Once a byte of an answer went to the client there is no retry, and an answer that was cut upstream is cut towards
//!   the client too: a polite end would be taken for a whole answer.
//! - An error says whose it is, and a header tells that kimiq answered.
//!
//! It knows neither the client program nor terminals, only the name behind a key.

mod affinity;
mod board;
mod exchange;
mod fault;
mod heads;
mod inline;
mod interim;
mod keys;
mod listener;
mod meter;
mod patience;
mod repair;
mod route;
mod stalls;
mod stream;
mod trouble;

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};

use crate::limits::Gate;
use crate::upstream::Client;
use crate::usage::{Estimator, Ledger};

pub use board::{Activity, Board, Outcome, Phase};
pub use fault::{Fault, Side};
pub use keys::{Asker, Keys};
pub use listener::{Aside, AsideHandler, serve};
pub use repair::{Normalize, Repairing};
pub use route::Routes;
pub use stalls::Stalls;
pub use trouble::{Failing, Trouble};

/// What a proxy may be told about its work.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// How long a request may wait in the queue; `None` is as long as the asking client waits.
    pub max_wait: Option<Duration>,
    /// Largest request body that is taken, in bytes.
    pub largest_body: u64,
    /// An answer that brings no byte for so long is broken off; see [`Stalls`].
    pub stall: Duration,
    /// How often a client that takes them gets an interim `102` while it waits.
    pub sign_every: Duration,
    /// First pause before another try after shed load or a failure; doubles, and up to half of it is added at random.
    pub retry_pause: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            max_wait: None,
            largest_body: 64 * 1024 * 1024,
            // The clients give up after 300 s without a byte (measured on Kimi Code 2.1.0).
            stall: Duration::from_mins(5),
            // Several in each 300 s of the client's patience.
            sign_every: Duration::from_mins(1),
            retry_pause: Duration::from_millis(500),
        }
    }
}

/// Everything that the way of a request needs, joined.
#[derive(Debug)]
pub struct Proxy {
    /// Settings.
    pub options: Options,
    /// Who may ask, and in whose name.
    pub keys: Keys,
    /// Where requests go.
    pub routes: Routes,
    /// What each terminal is doing.
    pub board: Board,
    /// The budgets.
    pub gate: Gate,
    /// Estimates of requests to come.
    pub estimator: Estimator,
    /// Totals of the day.
    pub ledger: Ledger,
    /// Connections to upstreams.
    pub client: Client,
    /// How answers of Kimi models are repaired, and what was.
    pub repairing: Arc<Repairing>,
    /// Breaks off answers that bring no byte for too long.
    pub stalls: Arc<Stalls>,
    /// The time of day, for waits that upstreams name as dates.
    pub wall: fn() -> DateTime<Utc>,
}
