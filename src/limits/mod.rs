//! Makes requests wait until every budget of their pool has room, and says why they wait.
//!
//! A request meets [`Gate::admit`] with an estimate of its cost ([`Ask`]). It becomes a [`Permit`] when the requests
//! per second, the rolling windows of prompt, uncached prompt and generated tokens of its pool, and the day's cap all
//! have room; until then it stands in its pool's queue, where terminals take turns by what they used. A permit ends exactly once: settled
//! with real usage, left unmetered, refused by the upstream, or given back by its destructor.
//!
//! # Invariants
//!
//! - In no instant do the tokens of the last window exceed the effective limit, given true costs; the one exception is
//!   a request larger than the limit, which runs alone.
//! - What is used is the sum of the live log entries and of the holds in flight; when all requests ended and a window
//!   has passed, it is zero.
//! - A request at the head of its queue that fits is admitted in the same critical section that made it fit.
//! - A learned limit never exceeds what the user configured.
//! - A refused request changes nothing.
//!
//! # What it does not do
//!
//! It never sees HTTP or files, asks no clock and starts no task: [`Limiter`] is a state machine that takes the time
//! and returns decisions, [`Gate`] is the thin asynchronous handle around it. It does not estimate tokens; `usage`
//! does.

mod advice;
mod alarms;
mod answers;
mod ask;
mod bias;
mod charging;
mod daily;
mod explain;
mod flight;
mod foreign;
mod foresee;
mod gate;
mod habits;
mod hour;
mod learn;
mod limiter;
mod margin;
mod options;
mod pool;
mod queue;
mod requests;
mod reserve;
mod room;
mod rules;
mod saved;
mod snapshot;
mod tally;
mod window;
mod words;

pub use ask::{Ask, Budget, Class, Refusal, RefusalKind, Ticket};
pub use gate::{Departure, Gate, Permit};
pub use limiter::{Decision, Ending, Id, Limiter, Moment};
pub use options::{HeaderUnit, Options, Ratio};
pub use saved::Saved;
pub use snapshot::{
    Bound, DayView, HourView, Ladder, PoolView, QueueView, RequestsView, Snapshot, Wait,
};
