//! A place for a terminal in a run: its number and name last, the program in it may end and be started again.

use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::sync::mpsc;
use tokio::sync::oneshot;

use crate::terminal::Id;
use crate::terminal::State;
use crate::terminal::Terminal;

/// What a keeper is told.
#[derive(Debug)]
pub(crate) enum Order {
    /// Start the dead program again.
    Restart,
    /// End the program and go.
    End {
        /// Without patience.
        now: bool,
        /// Told when nothing is left of it.
        done: oneshot::Sender<()>,
    },
}

/// A place for a terminal.
#[derive(Debug)]
pub(crate) struct Slot {
    /// From 1.
    pub(crate) number: u16,
    /// For windows.
    pub(crate) id: Id,
    /// `RUN:N`, for the proxy and the ledger.
    pub(crate) name: Arc<str>,
    /// Working folder.
    pub(crate) dir: PathBuf,
    /// To the keeper.
    pub(crate) orders: mpsc::Sender<Order>,
    /// The next terminal may start.
    pub(crate) next: Notify,
    /// What changes.
    pub(crate) live: Mutex<Live>,
}

/// What changes in a slot.
#[derive(Debug)]
pub(crate) struct Live {
    /// The program's terminal; also after its end, until it is started again.
    pub(crate) terminal: Option<Terminal>,
    /// What it is doing.
    pub(crate) state: State,
    /// What it calls itself.
    pub(crate) title: String,
    /// The client's session.
    pub(crate) session: Option<String>,
    /// What its user should know.
    pub(crate) notices: Vec<String>,
    /// The terminal's key.
    pub(crate) key: Option<String>,
    /// Requests of earlier starts.
    pub(crate) requests_before: u64,
}

impl Slot {
    pub(crate) fn new(
        number: u16,
        id: Id,
        run: &str,
        dir: PathBuf,
        orders: mpsc::Sender<Order>,
    ) -> Self {
        Self {
            number,
            id,
            name: format!("{run}:{number}").into(),
            dir,
            orders,
            next: Notify::new(),
            live: Mutex::new(Live {
                terminal: None,
                state: State::Starting,
                title: String::new(),
                session: None,
                notices: Vec::new(),
                key: None,
                requests_before: 0,
            }),
        }
    }

    /// The terminal, if one was started.
    pub(crate) fn terminal(&self) -> Option<Terminal> {
        self.live.lock().terminal.clone()
    }

    /// Whether no program runs.
    pub(crate) fn is_dead(&self) -> bool {
        matches!(self.live.lock().state, State::Exited(_))
    }

    /// Takes back what was told, once its cause is gone.
    pub(crate) fn withdraw(&self, text: &str) {
        self.live.lock().notices.retain(|notice| notice != text);
    }

    /// Tells something once.
    pub(crate) fn notice(&self, text: String) {
        let mut live = self.live.lock();
        if !live.notices.contains(&text) {
            live.notices.push(text);
        }
    }
}

/// What marks every process of a host in its environment, by which the next host finds what a killed one left. It
/// depends on the state folder and the name only, so no file need survive.
pub(crate) fn host_mark(state: &Path, name: &str) -> String {
    format!("KIMIQ_HOST={}:{name}", state.display())
}
