//! An upstream to try and to test against: it limits as Fireworks documents, streams as Fireworks streams, and
//! breaks on demand.
//!
//! [`Simulator::start`] binds a loopback port and answers chat completions, messages and responses under any path
//! prefix. What it answers comes from a small scripted agent that calls the client's own tools for a few turns,
//! so that a real client in front of it looks alive. Every request leaves one [`TruthRecord`]: what was charged,
//! against which limits, and how it ended.
//!
//! # Invariants
//!
//! - Every request that was read, but for `HEAD`, leaves exactly one record, also when its client went away in the middle.
//! - Every number drawn comes from [`Options::seed`] and the request's arrival number: the same requests in the same order
//!   meet the same gateways, replicas, paces and faults.
//! - The state of the scripted agent is the conversation that the client sends; the server remembers none.
//! - Credentials are looked at and dropped: no record and no log line holds one.
//!
//! # What it is not
//!
//! It counts no true Kimi tokens: four bytes of message text make one token, and each request adds 8 for the
//! template (that constant is measured on Fireworks). Where exact numbers matter a request declares its own counts
//! in the headers of [`declared`]. Block size, lifetime of the cache, the admission rule at the edge and the delay
//! between gateways are not published by Fireworks; they are options here, with guesses as defaults.
//!
//! # Faults
//!
//! A fault of [`Fault`] happens when the request's header `x-simulate-fault` names it, when the newest user text
//! holds `[[fault:NAME]]`, or by chance after [`Options::faults`]. `NAME*2` happens to the first two requests that ask for
//! it with the same session and text, so that a retry can succeed. The faults `K01` to `K30` garble what the model says,
//! as providers do with Kimi models.

mod agent;
mod ask;
mod body;
mod budgets;
mod cache;
mod chat;
mod engine;
mod exchange;
mod fault;
mod garble;
mod garbled;
mod messages;
mod options;
mod refusal;
mod reply;
mod responses;
mod server;
mod truth;

pub use fault::Fault;
pub use garble::Garble;
pub use options::Account;
pub use options::Admission;
pub use options::Charge;
pub use options::Commands;
pub use options::HeaderUnit;
pub use options::Options;
pub use options::UnknownName;
pub use options::UsagePlacement;
pub use server::Simulator;
pub use truth::Dialect;
pub use truth::End;
pub use truth::TruthRecord;
pub use truth::Verdict;

/// What a `HEAD` of any path answers in the header `server`, so that kimiq knows whom it has before it.
pub const SERVER: &str = "kimiq-simulator";

/// Request headers by which a test or a bench says what the simulated model has to do.
pub mod declared {
    /// Prompt tokens of this request, in place of the stand-in count.
    pub const PROMPT_TOKENS: &str = "x-simulate-prompt-tokens";
    /// How many of them the prompt cache held, in place of what the replica's cache says.
    pub const CACHED_TOKENS: &str = "x-simulate-cached-tokens";
    /// Length of the answer: plain text of exactly so many tokens, no tool call.
    pub const OUTPUT_TOKENS: &str = "x-simulate-output-tokens";
    /// A fault by its name, see [`Fault`](super::Fault); `NAME*N` for the first N requests that ask alike.
    pub const FAULT: &str = "x-simulate-fault";
}
