//! Processes: who belongs to a terminal, how they are signalled, and that none is left.

use serde::{Deserialize, Serialize};

/// How a program ended: one of the two is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// The exit code, if it left by itself.
    pub code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
}
/// Makes this process inherit the orphans of its descendants (Linux), so that [`end_everything`] finds them. `false`
/// where the platform cannot.
pub fn become_subreaper() -> bool {
    false
}
/// Kills every process whose environment holds `marker` (`NAME=value`), except this one: what an earlier host left.
/// Returns their ids. Linux only; elsewhere nothing is found.
pub async fn end_marked(marker: &str, grace: std::time::Duration) -> Vec<u32> {
    Vec::new()
}
/// Ends every descendant of this process: SIGHUP, `grace`, SIGKILL, until none is left. The host's last act.
pub async fn end_everything(grace: std::time::Duration) {}
/// Waits for the zombies that a subreaper inherits and nobody else waits for. Runs until dropped; spawn it once.
pub async fn reap_strangers() {}
