//! The task of one terminal: PTY, child and screen.

use super::child::Exit;
use super::ending::Ending;
use super::queries::Signal;
use super::screen::{Screen, Size};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

/// A terminal's number for the life of the host; never reused.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(transparent)]
pub struct Id(pub u64);

/// What to run.
#[derive(Clone, Debug)]
pub struct Spec {
    /// The terminal's id, which comes back with each event.
    pub id: Id,
    /// The program; looked up in the `PATH` of `env` when it is no path.
    pub program: OsString,
    /// Its arguments.
    pub args: Vec<OsString>,
    /// The complete environment; nothing is inherited.
    pub env: BTreeMap<OsString, OsString>,
    /// The working folder; it must exist.
    pub cwd: PathBuf,
    /// The first size.
    pub size: Size,
    /// Lines kept above the screen.
    pub scrollback: usize,
    /// A `NAME=value` of `env` that only this terminal's processes have, by which strays are found.
    pub marker: Option<String>,
}
/// What a terminal reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The program takes input: it has switched bracketed paste on for the first time.
    Ready,
    /// Something it told beside its picture.
    Signal(Signal),
    /// It ended, and all it wrote is on the screen. The last event.
    Exited(Exit),
}
/// Why a terminal could not be started or written to.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// The working folder is missing.
    #[error("the folder {0} does not exist; make it, or name another with --dir")]
    NoFolder(PathBuf),
}
/// A running (or ended) terminal. Clones are handles to the same one.
#[derive(Clone, Debug)]
pub struct Terminal {}
impl Terminal {
    /// Starts the program in a new PTY. `events` gets what it tells; a full channel makes only the events wait, never
    /// the reading.
    pub fn spawn(
        spec: Spec,
        tracker: &TaskTracker,
        events: mpsc::Sender<(Id, Event)>,
    ) -> Result<Self, Fault> {
        Err(Fault::NoFolder(spec.cwd))
    }
    /// Its id.
    pub fn id(&self) -> Id {
        Id(0)
    }
    /// The process id of the program.
    pub fn pid(&self) -> u32 {
        0
    }
    /// Queues keys. Whole or not at all: a queue that is full refuses.
    pub fn write(&self, bytes: &[u8]) -> Result<(), Fault> {
        Ok(())
    }
    /// Queues a paste, bracketed if the program asked for that.
    pub fn paste(&self, text: &[u8]) -> Result<(), Fault> {
        Ok(())
    }
    /// Types a message as a person would paste it, then sends it with Enter.
    pub async fn type_message(&self, text: &str) -> Result<(), Fault> {
        Ok(())
    }
    /// Changes the size; several changes within 60 ms become one.
    pub fn resize(&self, size: Size) {}
    /// Tells the program that it is (not) looked at, if it asked to be told.
    pub fn focus(&self, on: bool) {}
    /// The screen, locked: look and let go.
    pub fn screen(&self) -> parking_lot::MutexGuard<'_, Screen> {
        loop {}
    }
    /// A number that changes whenever the picture has changed; many changes may be one.
    pub fn changes(&self) -> watch::Receiver<u64> {
        watch::channel(0).1
    }
    /// When the program last wrote.
    pub fn last_output(&self) -> Option<Instant> {
        None
    }
    /// How it ended, if it has.
    pub fn exit(&self) -> Option<Exit> {
        None
    }
    /// Waits for the end of the program.
    pub async fn ended(&self) -> Exit {
        Exit {
            code: None,
            signal: None,
        }
    }
    /// Ends the program and everything it started.
    pub async fn end(&self, ending: &Ending) -> Exit {
        self.ended().await
    }
}
