//! Places that answer: their addresses, their headers, their connections.
//!
//! An [`Upstream`] is an address and what is known of the company behind it. [`Client`] sends a request there; it
//! never retries and never waits for a budget, because only the exchange may decide that. [`observe`] turns limit
//! headers into plain facts, [`Refusal::of`] tells what an answer that is no success means.
//!
//! Invariants: a credential is never part of an error, a log line or a `Debug` text; a plain `http` address is taken on
//! loopback only, unless it was allowed; the hop-by-hop headers of one side never reach the other.
//!
//! It knows neither limits nor the listener nor terminals.

mod address;
mod client;
mod headers;
mod pool;
mod refusal;

pub use address::{AddressError, Kind, Upstream};
pub use client::{Client, ClientOptions, Connection, SendBody, SendError};
pub use headers::{observe, request_headers, response_headers};
pub use pool::AnswerBody;
pub use refusal::Refusal;
