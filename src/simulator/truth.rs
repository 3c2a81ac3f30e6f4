//! The truth about each request, to compare a proxy's books against.
//!
//! A record is written once, when its request is over. It names the headers that arrived, never their values.

use serde::Deserialize;
use serde::Serialize;

use crate::usage::Dimensions;
use crate::usage::Tokens;

/// The wire format of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Dialect {
    /// `POST …/chat/completions`.
    Chat,
    /// `POST …/messages`.
    Messages,
    /// `POST …/responses`.
    Responses,
    /// Any other path.
    Other,
}

/// What admission said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Admitted.
    Admitted,
    /// The total-prompt budget was full: 429.
    Prompt,
    /// The uncached-prompt budget was full: 429.
    Uncached,
    /// The generated budget was full: 429.
    Generated,
    /// The account's requests per window were used up: 429.
    Requests,
    /// Shed although within limits: 503 or 529.
    Shed,
    /// Refused for the request itself or the account: any other 4xx.
    Invalid,
    /// Replaced by a fault before admission.
    Fault,
    /// A path that costs no tokens.
    Free,
}

/// How an exchange ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum End {
    /// The whole answer was handed to the connection.
    Complete,
    /// The client closed the connection first.
    ClientGone,
    /// A fault ended it.
    Fault,
}

/// One request, as the upstream knows it. Times are real seconds, whatever the time scale.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TruthRecord {
    /// Number of the request in the order of arrival, from 1.
    pub number: u64,
    /// Seconds from the simulator's start to the arrival of the whole request.
    pub arrival: f64,
    /// Seconds from the simulator's start to the end of the exchange.
    pub ended: f64,
    /// Method and path with query.
    pub path: String,
    /// Wire format.
    pub dialect: Dialect,
    /// Model id as the request named it; empty where there is none.
    pub model: String,
    /// Whether the answer was streamed.
    pub stream: bool,
    /// What the request gave for affinity: cache key, user, or session header.
    pub session: Option<String>,
    /// HTTP status sent, 0 if none was.
    pub status: u16,
    /// Gateway that counted the request.
    pub gateway: usize,
    /// Replica that served it.
    pub replica: usize,
    /// What was charged: real usage of an ended request, usage so far of a broken one.
    pub tokens: Tokens,
    /// Limits per window at admission, as the gateway had them.
    pub limits: Dimensions<u64>,
    /// Use within the window before this request, as the gateway saw it.
    pub used: Dimensions<u64>,
    /// What admission said.
    pub verdict: Verdict,
    /// Seconds from arrival to the first token, if one left.
    pub ttft: Option<f64>,
    /// How it ended.
    pub end: End,
    /// The fault that happened, by name.
    pub fault: Option<String>,
    /// Names of the headers that arrived, sorted, lower case.
    pub headers: Vec<String>,
    /// Which credential came: `authorization`, `x-api-key`, both, or none.
    pub credentials: Vec<String>,
    /// A header of a proxy's own arrived, whose name starts with `x-kimiq-`.
    pub leaked: bool,
}
