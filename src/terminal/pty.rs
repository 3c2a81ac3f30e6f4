//! A terminal's handle, and how it is started.
//!
//! The handle only queues: keys, a wanted size, a change of focus. The task in `task` does the rest. Input is bounded:
//! a program that does not read makes writes fail, never the memory grow.

use super::child;
use super::child::Exit;
use super::child::Household;
use super::ending::Ending;
use super::kin::Process;
use super::queries::CELL_HEIGHT;
use super::queries::CELL_WIDTH;
use super::queries::Signal;
use super::screen::Screen;
use super::screen::Size;
use super::task::Pump;
use parking_lot::Mutex;
use parking_lot::MutexGuard;
use portable_pty::CommandBuilder;
use portable_pty::PtySize;
use portable_pty::native_pty_system;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::collections::HashSet;
use std::collections::VecDeque;
use std::error::Error;
use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio::time::sleep;
use tokio_util::task::TaskTracker;

/// Input that waits for the program, in bytes. A paste of a large file fits.
const INPUT: usize = 8 * 1024 * 1024;

/// Kimi Code takes an Enter within 120 ms of fast typing for a newline of a paste; 300 ms later it sends (measured on
/// 2.1.0).
const BEFORE_ENTER: Duration = Duration::from_millis(300);

/// What is sent around a paste.
const PASTE_BEGIN: &[u8] = b"\x1b[200~";
const PASTE_END: &[u8] = b"\x1b[201~";

/// A terminal's number for the life of the host; never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Id(pub u64);

impl fmt::Display for Id {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(out)
    }
}

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
    /// Lines kept above the screen; 10,000 filled ones of 120 columns take 28 MB.
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
    #[error("the folder {} does not exist; make it, or name another", .0.display())]
    NoFolder(PathBuf),
    /// No pseudo-terminal.
    #[error(
        "no pseudo-terminal could be opened; close some terminals, or raise the system's limit"
    )]
    Open(#[source] Box<dyn Error + Send + Sync>),
    /// The program did not start.
    #[error("{program} could not be started; check that it is installed and executable")]
    Start {
        /// The program as asked for.
        program: String,
        /// What the system said.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// The descriptors could not be watched.
    #[error("the terminal cannot be watched; the system may be out of descriptors")]
    Watch(#[source] std::io::Error),
    /// The program does not read its input.
    #[error("the program does not take its input; wait, or restart the terminal")]
    Clogged,
    /// The program has ended.
    #[error("the program has ended; restart the terminal to type into it")]
    Ended,
}

/// A running (or ended) terminal. Clones are handles to the same one.
#[derive(Clone)]
pub struct Terminal {
    shared: Arc<Shared>,
}

/// What handle and task share.
pub(crate) struct Shared {
    pub(crate) id: Id,
    pub(crate) pid: i32,
    pub(crate) marker: Option<String>,
    pub(crate) screen: Mutex<Screen>,
    pub(crate) input: Mutex<VecDeque<u8>>,
    pub(crate) wanted: Mutex<Option<Size>>,
    pub(crate) focused: Mutex<Option<bool>>,
    /// Tells the task that one of the three above has changed.
    pub(crate) woken: Notify,
    pub(crate) changes: watch::Sender<u64>,
    pub(crate) exit: watch::Sender<Option<Exit>>,
    pub(crate) survivors: Mutex<Option<HashSet<Process>>>,
    pub(crate) last_output: Mutex<Option<Instant>>,
}

impl Shared {
    /// Queues bytes for the program, all or none.
    pub(crate) fn push(&self, parts: &[&[u8]]) -> Result<(), Fault> {
        if self.exit.borrow().is_some() {
            return Err(Fault::Ended);
        }
        let length: usize = parts.iter().map(|part| part.len()).sum();
        let mut input = self.input.lock();
        if input.len() + length > INPUT {
            return Err(Fault::Clogged);
        }
        for part in parts {
            input.extend(*part);
        }
        drop(input);
        self.woken.notify_one();
        Ok(())
    }

    /// Tells the watchers that the picture has changed.
    pub(crate) fn changed(&self) {
        self.changes
            .send_modify(|count| *count = count.wrapping_add(1));
    }
}

impl fmt::Debug for Terminal {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Terminal")
            .field("id", &self.shared.id)
            .field("pid", &self.shared.pid)
            .finish_non_exhaustive()
    }
}

impl Terminal {
    /// Starts the program in a new PTY. `events` gets what it tells; a full channel makes only the events wait, never
    /// the reading, and drops the oldest signals when it stays full. Must be called inside a tokio runtime.
    pub fn spawn(
        spec: Spec,
        tracker: &TaskTracker,
        events: mpsc::Sender<(Id, Event)>,
    ) -> Result<Self, Fault> {
        // The library would silently use the home folder instead.
        if !spec.cwd.is_dir() {
            return Err(Fault::NoFolder(spec.cwd));
        }
        let size = spec.size.clamped();
        let pair = native_pty_system()
            .openpty(pixels(size))
            .map_err(|error| Fault::Open(error.into()))?;
        // Before the program exists, so that its death cannot be missed.
        let deaths = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::child())
            .map_err(Fault::Watch)?;
        let mut command = CommandBuilder::new(&spec.program);
        command.args(&spec.args);
        command.env_clear();
        for (name, value) in &spec.env {
            command.env(name, value);
        }
        command.cwd(&spec.cwd);
        let child = pair
            .slave
            .spawn_command(command)
            .map_err(|error| Fault::Start {
                program: spec.program.to_string_lossy().into_owned(),
                source: error.into(),
            })?;
        // As long as we held it, the end of the output would never come.
        drop(pair.slave);
        let shared = Arc::new(Shared {
            id: spec.id,
            pid: child
                .process_id()
                .and_then(|pid| i32::try_from(pid).ok())
                .unwrap_or(0),
            marker: spec.marker,
            screen: Mutex::new(Screen::new(size, spec.scrollback)),
            input: Mutex::default(),
            wanted: Mutex::default(),
            focused: Mutex::default(),
            woken: Notify::new(),
            changes: watch::Sender::new(0),
            exit: watch::Sender::new(None),
            survivors: Mutex::default(),
            last_output: Mutex::default(),
        });
        let pump = Pump::new(Arc::clone(&shared), pair.master, child, deaths, events)
            .map_err(Fault::Watch)?;
        tracker.spawn(pump.run());
        Ok(Self { shared })
    }

    /// Its id.
    pub fn id(&self) -> Id {
        self.shared.id
    }

    /// The process id of the program; 0 if the system did not tell.
    pub fn pid(&self) -> i32 {
        self.shared.pid
    }

    /// Queues keys. Whole or not at all: [`Fault::Clogged`] when 8 MiB wait already.
    pub fn write(&self, bytes: &[u8]) -> Result<(), Fault> {
        self.shared.push(&[bytes])
    }

    /// Queues a paste, bracketed if the program asked for that. Line ends become carriage returns, as every terminal
    /// sends them, and an end bracket inside is removed, so that a text cannot break out.
    pub fn paste(&self, text: &[u8]) -> Result<(), Fault> {
        let text = as_typed(text);
        if self.screen().modes().bracketed_paste {
            self.shared.push(&[PASTE_BEGIN, &text, PASTE_END])
        } else {
            self.shared.push(&[&text])
        }
    }

    /// Types a message as a person would paste it, then sends it with Enter 300 ms later: Kimi Code takes an Enter
    /// right behind a paste for a part of it.
    pub async fn type_message(&self, text: &str) -> Result<(), Fault> {
        self.paste(text.as_bytes())?;
        sleep(BEFORE_ENTER).await;
        self.write(b"\r")
    }

    /// Changes the size; at once after a quiet time, else 60 ms after the last of several changes, since Kimi Code
    /// repaints its whole transcript each time.
    pub fn resize(&self, size: Size) {
        *self.shared.wanted.lock() = Some(size.clamped());
        self.shared.woken.notify_one();
    }

    /// Tells the program that it is (not) looked at, if it asked to be told; also later, when it asks.
    pub fn focus(&self, on: bool) {
        *self.shared.focused.lock() = Some(on);
        self.shared.woken.notify_one();
    }

    /// The screen, locked: look and let go, the terminal's output waits meanwhile.
    pub fn screen(&self) -> MutexGuard<'_, Screen> {
        self.shared.screen.lock()
    }

    /// A number that changes whenever the picture has changed; many changes may be one.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.shared.changes.subscribe()
    }

    /// When the program last wrote.
    pub fn last_output(&self) -> Option<Instant> {
        *self.shared.last_output.lock()
    }

    /// How it ended, if it has.
    pub fn exit(&self) -> Option<Exit> {
        *self.shared.exit.borrow()
    }

    /// Waits for the end of the program.
    pub async fn ended(&self) -> Exit {
        let mut exit = self.shared.exit.subscribe();
        // The sender lives in `self`, so the wait cannot fail.
        exit.wait_for(Option::is_some)
            .await
            .ok()
            .and_then(|found| *found)
            .unwrap_or(Exit {
                code: None,
                signal: None,
            })
    }

    /// Ends the program in the given stages, then whatever is left of all it started. A program that has ended
    /// already may have left processes; they are ended too.
    pub async fn end(&self, ending: &Ending) -> Exit {
        let household = Household {
            leader: self.shared.pid,
            marker: self.shared.marker.clone(),
            survivors: self.shared.survivors.lock().clone(),
        };
        child::end_terminal(self, ending, household).await;
        self.ended().await
    }
}

/// The size as the system wants it, with pixels that agree with the answers to size questions.
pub(crate) fn pixels(size: Size) -> PtySize {
    PtySize {
        rows: size.rows,
        cols: size.columns,
        pixel_width: size.columns * CELL_WIDTH,
        pixel_height: size.rows * CELL_HEIGHT,
    }
}

/// A text as a terminal types it: `\r` for each line end, no end bracket.
fn as_typed(text: &[u8]) -> Vec<u8> {
    let mut typed = Vec::with_capacity(text.len());
    let mut previous = 0;
    for byte in text {
        match byte {
            b'\n' if previous == b'\r' => {}
            b'\n' => typed.push(b'\r'),
            _ => typed.push(*byte),
        }
        previous = *byte;
        // What remains after a removal may form another one.
        while typed.ends_with(PASTE_END) {
            typed.truncate(typed.len() - PASTE_END.len());
        }
    }
    typed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pasted_text_cannot_break_out() {
        let cases: &[(&[u8], &[u8])] = &[
            (b"a\nb\r\nc\r", b"a\rb\rc\r"),
            (b"x\x1b[201~y", b"xy"),
            (b"\x1b[20\x1b[201~1~y", b"y"),
            (b"\n\n", b"\r\r"),
        ];
        for (text, typed) in cases {
            assert_eq!(as_typed(text), *typed);
        }
    }
}
