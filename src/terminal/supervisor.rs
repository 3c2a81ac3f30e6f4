//! What a terminal is doing, told from its signals and from facts of the outside; pure.

use super::child::Exit;
use super::queries::Signal;
use serde::{Deserialize, Serialize};
use std::time::Duration;
use tokio::time::Instant;

/// What a terminal is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum State {
    /// Spawned; the program has not shown that it takes input.
    Starting,
    /// The program asks whether the folder is trusted.
    NeedsTrust,
    /// Thinking, answering or running tools.
    Working,
    /// A request is held until the budgets have room.
    Waiting,
    /// The program asks for leave to use a tool.
    NeedsApproval,
    /// The program asks its user a question.
    Asks,
    /// Ready for the next message.
    Idle,
    /// It works, but its requests do not arrive at the proxy.
    Bypassing,
    /// The program ended.
    Exited(Exit),
}
impl State {
    /// The snake_case name, as in JSON.
    pub fn name(&self) -> &'static str {
        ""
    }
    /// The state in a few words for a person.
    pub fn words(&self) -> String {
        String::new()
    }
}
/// Words in a program's notifications that tell what it wants.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Phrases {
    /// Marks a request for approval.
    pub approval: String,
    /// Marks a question.
    pub question: String,
    /// Marks the end of a task.
    pub done: String,
}
/// How long things may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// A start that shows nothing for so long lets the next one begin.
    pub start: Duration,
    /// So long without output after it takes input, and the first prompt is typed.
    pub settle: Duration,
    /// So long at work without a request, and the alarm is raised.
    pub bypass: Duration,
}
/// What the outside knows about the terminal's traffic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Requests that have arrived under the terminal's key, ever.
    pub requests: u64,
    /// Requests on their way now, held ones included.
    pub in_flight: u32,
    /// Of those, held by the limiter.
    pub waiting: u32,
    /// The last answer ended by calling tools.
    pub tools_called: bool,
    /// The screen shows a question about trust.
    pub trust_prompt: bool,
    /// When the program last wrote, from [`super::Terminal::last_output`].
    pub last_output: Option<Instant>,
}
/// What happened to the terminal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// The program was started (again).
    Started,
    /// It takes input.
    Ready,
    /// It told something.
    Signal(Signal),
    /// It ended.
    Exited(Exit),
}
/// What is to be done; each is given once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Type the first message.
    TypePrompt,
    /// The next terminal may start.
    StartNext,
    /// Say loudly that the requests of this terminal do not arrive.
    ReportBypass,
}
/// The state, what to do, and when to ask again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The state.
    pub state: State,
    /// What is to be done now.
    pub decisions: Vec<Decision>,
    /// When the answer may change without a note or new facts.
    pub wake: Option<Instant>,
}
/// The state machine of one terminal.
#[derive(Debug)]
pub struct Supervisor {}
impl Supervisor {
    /// A terminal that is about to start; `prompt` tells whether a first message waits to be typed.
    pub fn new(phrases: Phrases, patience: Patience, prompt: bool, now: Instant) -> Self {
        Self {}
    }
    /// Takes what happened.
    pub fn note(&mut self, note: &Note, now: Instant) {}
    /// Judges with the newest facts.
    pub fn judge(&mut self, facts: &Facts, now: Instant) -> Verdict {
        Verdict {
            state: State::Starting,
            decisions: Vec::new(),
            wake: None,
        }
    }
}
