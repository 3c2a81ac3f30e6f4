//! What is shown around the screens, as plain data.

use crate::terminal::Id;
use crate::terminal::State;

/// Everything around the screens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ViewModel {
    /// The run's name.
    pub run: String,
    /// In the order of the tabs.
    pub terminals: Vec<Tab>,
    /// The last line.
    pub status: Status,
}
/// One terminal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tab {
    /// What the user types to reach it, from 1.
    pub number: u16,
    /// Its id.
    pub id: Id,
    /// Its title; control characters are dropped when painted.
    pub title: String,
    /// What it is doing; also tells how it ended.
    pub state: State,
    /// Why and how long it waits, in a few words, as `2nd, generated tokens, 4 s`.
    pub wait: Option<String>,
}
/// The status line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// Requests held by the limiter.
    pub queue: usize,
    /// The tightest budget: its name and how much of it is used, in percent.
    pub budget: Option<(String, u8)>,
    /// Tokens of the day.
    pub tokens_today: u64,
    /// The cap of the day.
    pub daily_cap: Option<u64>,
    /// Warnings, most important first; the first that fits is shown.
    pub notices: Vec<String>,
}
