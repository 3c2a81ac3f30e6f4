//! What is said between a command and the host: JSON of plain types. Times are seconds, tokens are whole.
//!
//! Fields may be added; readers ignore what they do not know. A changed meaning needs a new path in place of `v1`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::pin::Pin;

use serde::Deserialize;
use serde::Serialize;

use crate::usage::Tokens;
use crate::usage::figures::Share;

/// An answer that the host is still working on.
pub type Pending<'a, T> =
    Pin<Box<dyn Future<Output = Result<T, HostError>> + std::marker::Send + 'a>>;

/// Why the host did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[serde(tag = "kind", content = "message", rename_all = "snake_case")]
pub enum HostError {
    /// There is no such run or terminal.
    #[error("{0}")]
    NotFound(String),
    /// What was asked makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// It did not work.
    #[error("{0}")]
    Failed(String),
    /// The program of a run could not be started.
    #[error("{0}")]
    Program(String),
    /// The host is on its way out.
    #[error("the host is stopping")]
    Stopping,
}

/// What runs in the terminals.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Program {
    /// The Kimi client.
    Client {
        /// Its command line, if the user named one.
        command: Option<String>,
    },
    /// Any other program.
    Exec {
        /// The program.
        program: String,
    },
}

/// A run to be started.
#[derive(Clone, Serialize, Deserialize)]
pub struct StartRun {
    /// Its name, or none to let the host choose.
    pub name: Option<String>,
    /// How many terminals.
    pub count: u16,
    /// Share of each terminal in the budgets, in relation to others; at least 1.
    #[serde(default = "one")]
    pub weight: u32,
    /// The same for single terminals, by number.
    #[serde(default)]
    pub weights: BTreeMap<u16, u32>,
    /// Working folders, absolute, taken in turn; at least one.
    pub dirs: Vec<PathBuf>,
    /// First message of each terminal.
    pub prompt: Option<String>,
    /// What runs.
    pub program: Program,
    /// Its arguments.
    pub args: Vec<String>,
    /// Edit the client's own configuration.
    pub rewrite: bool,
    /// Steps per turn.
    pub max_steps: Option<u32>,
    /// Switch the client's self-update and telemetry off.
    pub quiet: bool,
    /// Show our state in the client's footer.
    pub status_line: bool,
    /// Seconds between two starts.
    pub stagger: f64,
    /// The environment that the terminals inherit.
    pub env: BTreeMap<String, String>,
    /// Size of the terminals, columns and rows, until somebody attaches.
    pub size: (u16, u16),
}

impl std::fmt::Debug for StartRun {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The environment may hold the user's keys.
        f.debug_struct("StartRun")
            .field("name", &self.name)
            .field("count", &self.count)
            .field("program", &self.program)
            .finish_non_exhaustive()
    }
}

fn one() -> u32 {
    1
}

/// A run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RunInfo {
    /// Its name.
    pub name: String,
    /// When it was started (RFC 3339).
    pub started: String,
    /// Windows that show it.
    pub attached: usize,
    /// Its terminals.
    pub terminals: Vec<TerminalInfo>,
}

/// A terminal.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TerminalInfo {
    /// Its number in the run, from 1.
    pub number: u16,
    /// Its share of the budgets in relation to others.
    #[serde(default = "one")]
    pub weight: u32,
    /// What it calls itself.
    pub title: String,
    /// What it is doing: `starting`, `needs_trust`, `working`, `waiting`, `retrying`, `needs_approval`, `asks`, `idle`, `bypassing`,
    /// `exited`.
    pub state: String,
    /// The same for a person.
    pub words: String,
    /// Why and until when it waits, in one sentence.
    pub wait: Option<String>,
    /// What its oldest waiting request waits for.
    #[serde(default)]
    pub waits: Option<WaitInfo>,
    /// The client's session, once a request has named it.
    pub session: Option<String>,
    /// Its process, while it runs.
    pub pid: Option<u32>,
    /// How it ended.
    pub exit_code: Option<i32>,
    /// The signal that ended it.
    pub exit_signal: Option<i32>,
    /// Working folder.
    pub dir: PathBuf,
    /// Requests that arrived under its key.
    pub requests: u64,
    /// Of those, on their way now.
    pub in_flight: u32,
    /// What it consumed.
    pub tokens: Tokens,
    /// What its user should know.
    pub notices: Vec<String>,
}

/// How totals are split.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UsageBy {
    /// By terminal.
    Terminal,
    /// By model.
    #[default]
    Model,
    /// By day.
    Day,
}

/// Totals.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct UsageReport {
    /// The calendar day.
    pub today: DayInfo,
    /// How the rows are split.
    pub by: UsageBy,
    /// The totals.
    pub rows: Vec<UsageRow>,
    /// What is left of each budget now.
    pub pools: Vec<PoolInfo>,
    /// What was repaired in requests and answers since the host started.
    #[serde(default)]
    pub repairs: Vec<RepairRow>,
}

/// One kind of repair in one model's traffic.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepairRow {
    /// The upstream's id of the model.
    pub model: String,
    /// What was garbled.
    pub kind: String,
    /// How often.
    pub count: u32,
}

/// The calendar day and its cap.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DayInfo {
    /// The date, as `2026-11-20`.
    pub date: String,
    /// Its IANA zone.
    pub time_zone: String,
    /// Exchanges of the day.
    pub requests: u64,
    /// Tokens of the day.
    pub tokens: Tokens,
    /// Input and output together: what the cap counts.
    pub total: u64,
    /// The cap.
    pub cap: u64,
    /// What is left of it.
    pub left: u64,
}

/// One line of totals.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsageRow {
    /// The day.
    pub day: String,
    /// The terminal, model or day that it is about.
    pub key: String,
    /// Exchanges.
    pub requests: u64,
    /// Tokens.
    pub tokens: Tokens,
}

/// What an upstream limits as one.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PoolInfo {
    /// Its name: host and model.
    pub name: String,
    /// Its budgets.
    pub budgets: Vec<BudgetInfo>,
    /// Requests that wait.
    pub queue: usize,
    /// Requests that run.
    pub in_flight: usize,
    /// It rests after the upstream's 429.
    pub paused: bool,
    /// The last hour.
    #[serde(default)]
    pub hour: HourInfo,
    /// What would shorten the waits, and what would not, in sentences; empty without requests in the last hour.
    #[serde(default)]
    pub advice: Vec<String>,
}

/// The last hour of a pool.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct HourInfo {
    /// Requests admitted.
    pub requests: u64,
    /// Of those, how many had waited for a second or longer.
    pub waited: u64,
    /// Times that the upstream answered 429.
    pub throttled: u64,
    /// Terminals that asked in the last ten minutes of it.
    pub terminals: usize,
    /// What they waited for, the longest first.
    pub waits: Vec<WaitedInfo>,
    /// How the limits rise, where that is documented.
    pub rises: Vec<RiseInfo>,
}

/// Waiting for one budget.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct WaitedInfo {
    /// The budget.
    pub budget: String,
    /// Seconds of all requests together.
    pub seconds: f64,
    /// Share of all waiting.
    pub percent: u64,
}

/// How a limit rises by what the upstream documents.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RiseInfo {
    /// `prompt`, `uncached` or `generated`.
    pub budget: String,
    /// The limit, tokens per minute.
    pub limit: u64,
    /// Where it ends.
    pub ceiling: u64,
    /// Steps to there.
    pub steps: u32,
    /// The last minute's use was enough for a step.
    pub enough: bool,
    /// Seconds to the next step, if use is and stays enough.
    pub next: f64,
    /// Seconds to the ceiling, if use stays enough.
    pub to_ceiling: f64,
}

/// One budget of a pool.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct BudgetInfo {
    /// `prompt`, `uncached` or `generated`.
    pub name: String,
    /// In the window, reservations included.
    pub used: u64,
    /// What may be used: limit times ratio. Nothing where no limit is known.
    pub limit: Option<u64>,
    /// `used` of `limit`, in percent.
    pub percent: Share,
}

/// A place that answers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpstreamInfo {
    /// Route name.
    pub name: String,
    /// Address, without credentials.
    pub url: String,
    /// Whether a connection could be opened just now.
    pub reachable: bool,
    /// Why not.
    pub error: Option<String>,
}

/// How the host is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct HealthReport {
    /// Nothing is wrong.
    pub ok: bool,
    /// `running` or `stopping`.
    pub state: String,
    /// Name of the host.
    pub host: String,
    /// Its process.
    pub pid: u32,
    /// Its port.
    pub port: u16,
    /// Version of kimiq.
    pub version: String,
    /// When it came up (RFC 3339).
    pub started: String,
    /// Runs.
    pub runs: usize,
    /// Terminals whose program runs.
    pub terminals: usize,
    /// Requests that wait.
    pub queue: usize,
    /// Seconds that the longest of them has waited.
    pub longest_wait: f64,
    /// Places that answer.
    pub upstreams: Vec<UpstreamInfo>,
    /// Budgets.
    pub pools: Vec<PoolInfo>,
    /// What the user should know.
    pub notices: Vec<String>,
}

/// Why something waits.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct WhyReport {
    /// `RUN:N`, or nothing for what is not about one terminal.
    pub terminal: Option<String>,
    /// What the terminal is doing. Without one: `waiting`, `retrying` or `refused` for a request from outside, `capped`
    /// where the day's cap refuses all.
    pub state: String,
    /// One sentence.
    pub why: String,
    /// Seconds until it goes on, as far as can be told.
    pub eta: Option<f64>,
    /// The budget that holds it, if one does.
    #[serde(default)]
    pub wait: Option<WaitInfo>,
}

/// What a request waits for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct WaitInfo {
    /// The budget.
    pub budget: String,
    /// What is missing in it.
    pub missing: u64,
    /// Place in the queue of its pool, from 1.
    pub place: usize,
    /// Seconds until it goes, by estimate.
    pub eta: f64,
    /// Seconds that it has waited.
    pub waited: f64,
    /// The first three terminals whose requests go before it.
    pub behind: Vec<String>,
}

/// Text for a terminal.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Send {
    /// `N` or `RUN:N`.
    pub terminal: String,
    /// The text.
    pub text: String,
    /// Press Enter after it.
    pub enter: bool,
}

/// A screen as text.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotReport {
    /// `RUN:N`.
    pub terminal: String,
    /// Its state.
    pub state: String,
    /// Columns.
    pub columns: u16,
    /// Rows.
    pub rows: u16,
    /// Lines without trailing blanks.
    pub lines: Vec<String>,
}

/// A stop.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct StopRun {
    /// The run; all of them and the host if there is none.
    pub run: Option<String>,
    /// Without patience.
    pub now: bool,
}

/// How to go on with a session later.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resume {
    /// `RUN:N`.
    pub terminal: String,
    /// The client's session.
    pub session: String,
    /// Where to type it.
    pub dir: PathBuf,
    /// What to type.
    pub command: String,
}

/// What a stop did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StopReport {
    /// Runs that ended.
    pub runs: Vec<String>,
    /// Sessions that can be resumed.
    pub sessions: Vec<Resume>,
    /// The host ends, too.
    pub host_ends: bool,
}
