//! The terminals of one `kimiq run`.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

use parking_lot::Mutex;
use tokio::sync::broadcast;
use tokio::sync::mpsc;
use tokio::sync::oneshot;
use tokio::sync::watch;

use crate::control::HostError;
use crate::control::Program;
use crate::control::Resume;
use crate::control::StartRun;
use crate::instance::client;
use crate::instance::client::Prepared;
use crate::instance::host::Instance;
use crate::instance::keeper;
use crate::instance::report;
use crate::instance::sizes::Sizes;
use crate::instance::slot::Order;
use crate::instance::slot::Slot;
use crate::terminal::Ending;
use crate::terminal::Id;
use crate::terminal::Phrases;
use crate::terminal::Size;
use crate::terminal::Spec;
use crate::terminal::Terminal;
use crate::tui::Outer;

/// Lines kept above a screen. Nothing shows them yet beyond what a resize brings back, and each costs memory.
const SCROLLBACK: usize = 1000;

/// The terminals of one `kimiq run`.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) name: String,
    pub(crate) started: String,
    pub(crate) ask: StartRun,
    prepared: Option<Arc<Prepared>>,
    slots: Mutex<Vec<Arc<Slot>>>,
    /// The end has begun, so no terminal is added any more. Set under the lock of `slots`.
    closing: AtomicBool,
    next_number: AtomicU64,
    /// Windows that show it.
    pub(crate) attached: AtomicUsize,
    sizes: Mutex<Sizes>,
    /// What the terminals are told about the abilities of the user's terminal.
    outer: Mutex<Outer>,
    /// Texts that programs put on the user's clipboard.
    copies: broadcast::Sender<(Id, String)>,
    /// Sees a new number whenever something about the run changed.
    changes: watch::Sender<u64>,
    /// How to resume what was closed last.
    closed: Mutex<Option<Resume>>,
    /// How to resume, once the run has ended.
    ended: watch::Sender<Option<Vec<Resume>>>,
}

impl Run {
    pub(crate) fn new(
        name: String,
        started: String,
        ask: StartRun,
        prepared: Option<Arc<Prepared>>,
    ) -> Self {
        let (columns, rows) = ask.size;
        // Two lines are the window's own.
        let size = Size {
            columns,
            rows: rows.saturating_sub(2),
        }
        .clamped();
        Self {
            name,
            started,
            ask,
            prepared,
            slots: Mutex::default(),
            closing: AtomicBool::new(false),
            next_number: AtomicU64::new(1),
            attached: AtomicUsize::new(0),
            sizes: Mutex::new(Sizes::new(size)),
            outer: Mutex::default(),
            copies: broadcast::Sender::new(16),
            changes: watch::Sender::new(0),
            closed: Mutex::default(),
            ended: watch::Sender::new(None),
        }
    }

    /// Starts the terminals, the first one at once; each of the others when the one before is up. Fails when the first
    /// cannot be started.
    pub(crate) async fn start(self: &Arc<Self>, host: &Arc<Instance>) -> Result<(), HostError> {
        let mut first = None;
        let mut before = None;
        for _ in 0..self.ask.count {
            let Some((slot, launched)) = self.place(host, before.take()) else {
                return Err(self.stopped(host));
            };
            first.get_or_insert(launched);
            before = Some(slot);
        }
        match first {
            Some(launched) => match launched.await {
                Ok(Ok(())) => Ok(()),
                Ok(Err(why)) => Err(HostError::Program(why)),
                Err(_) => Err(self.stopped(host)),
            },
            None => Ok(()),
        }
    }

    fn stopped(&self, host: &Instance) -> HostError {
        if host.stopping.is_cancelled() {
            return HostError::Stopping;
        }
        HostError::Failed(format!("`{}` was stopped while it started", self.name))
    }

    /// Adds a terminal, unless the run is ending.
    pub(crate) fn add(self: &Arc<Self>, host: &Arc<Instance>) {
        // Whether its program could be started, its tab tells.
        drop(self.place(host, None));
    }

    /// Adds a terminal that starts after another one, if one is named. What is returned tells whether its program could be
    /// started; `None` when the run is ending.
    fn place(
        self: &Arc<Self>,
        host: &Arc<Instance>,
        after: Option<Arc<Slot>>,
    ) -> Option<(Arc<Slot>, keeper::Launch)> {
        let number = self.next_number.fetch_add(1, Ordering::Relaxed);
        let number = u16::try_from(number).unwrap_or(u16::MAX);
        let dirs = &self.ask.dirs;
        let dir = dirs
            .get((usize::from(number) - 1) % dirs.len().max(1))
            .cloned()
            .unwrap_or_else(|| PathBuf::from("/"));
        let (orders, to_keeper) = mpsc::channel(4);
        let slot = Arc::new(Slot::new(number, host.next_id(), &self.name, dir, orders));
        let (launched, told) = oneshot::channel();
        {
            let mut slots = self.slots.lock();
            if self.is_closing() {
                return None;
            }
            slots.push(Arc::clone(&slot));
        }
        keeper::spawn(host, self, &slot, after, to_keeper, launched);
        self.changed();
        Some((slot, told))
    }

    /// The end has begun: whoever waits for its turn to start gets none.
    pub(crate) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Relaxed)
    }

    /// All terminals, in the order of their tabs.
    pub(crate) fn slots(&self) -> Vec<Arc<Slot>> {
        self.slots.lock().clone()
    }

    pub(crate) fn slot(&self, number: u16) -> Option<Arc<Slot>> {
        self.slots
            .lock()
            .iter()
            .find(|slot| slot.number == number)
            .cloned()
    }

    pub(crate) fn slot_by_id(&self, id: Id) -> Option<Arc<Slot>> {
        self.slots.lock().iter().find(|slot| slot.id == id).cloned()
    }

    /// Ends a terminal and takes it away.
    pub(crate) async fn close(&self, slot: &Arc<Slot>, now: bool) {
        end(slot, now).await;
        *self.closed.lock() = self.resume_of(slot, &said_last);
        self.slots.lock().retain(|other| other.id != slot.id);
        self.changed();
    }

    /// Ends all terminals at once and tells how to resume. Idempotent.
    pub(crate) async fn end(&self, now: bool) -> Vec<Resume> {
        let slots = {
            let slots = self.slots.lock();
            self.closing.store(true, Ordering::Relaxed);
            slots.clone()
        };
        let mut ending = tokio::task::JoinSet::new();
        for slot in slots {
            ending.spawn(async move { end(&slot, now).await });
        }
        while ending.join_next().await.is_some() {}
        let resume = self.resumable();
        self.ended.send_if_modified(|told| {
            let first = told.is_none();
            if first {
                *told = Some(resume.clone());
            }
            first
        });
        self.changed();
        resume
    }

    /// How to go on with each session, now that the programs have said their farewells; with that of the last terminal,
    /// where its user has closed all.
    pub(crate) fn resumable(&self) -> Vec<Resume> {
        let slots = self.slots();
        if slots.is_empty() {
            return self.closed.lock().iter().cloned().collect();
        }
        let of = |slot: &Arc<Slot>| self.resume_of(slot, &said_last);
        slots.iter().filter_map(of).collect()
    }

    /// How to go on with each session if this process ended now.
    pub(crate) fn open_sessions(&self) -> Vec<Resume> {
        let slots = self.slots();
        let of = |slot: &Arc<Slot>| self.resume_of(slot, &|_| None);
        slots.iter().filter_map(of).collect()
    }

    fn resume_of(&self, slot: &Slot, said: &dyn Fn(&Slot) -> Option<String>) -> Option<Resume> {
        let session = said(slot).or_else(|| slot.live.lock().session.clone())?;
        let command = self.prepared.as_ref()?.resume_line(&session, &slot.dir)?;
        Some(Resume {
            terminal: slot.name.to_string(),
            session,
            dir: slot.dir.clone(),
            command,
        })
    }

    /// A program put a text on the clipboard; windows that show it pass it on.
    pub(crate) fn copy(&self, id: Id, text: String) {
        // Without a window there is no clipboard.
        self.copies.send((id, text)).unwrap_or_default();
    }

    pub(crate) fn copies(&self) -> broadcast::Receiver<(Id, String)> {
        self.copies.subscribe()
    }

    /// Sees how to resume when the run has ended.
    pub(crate) fn ended(&self) -> watch::Receiver<Option<Vec<Resume>>> {
        self.ended.subscribe()
    }

    /// Whether no program runs in any terminal.
    pub(crate) fn is_dead(&self) -> bool {
        self.slots().iter().all(|slot| slot.is_dead())
    }

    pub(crate) fn changed(&self) {
        self.changes
            .send_modify(|number| *number = number.wrapping_add(1));
    }

    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// The share of a terminal in the budgets, in relation to others.
    pub(crate) fn weight(&self, number: u16) -> u32 {
        let own = self.ask.weights.get(&number).copied();
        own.unwrap_or(self.ask.weight).max(1)
    }

    pub(crate) fn is_client(&self) -> bool {
        self.prepared.is_some()
    }

    pub(crate) fn prepared(&self) -> Option<&Arc<Prepared>> {
        self.prepared.as_ref()
    }

    pub(crate) fn phrases(&self) -> Phrases {
        self.prepared
            .as_ref()
            .map(|_| client::phrases())
            .unwrap_or_default()
    }

    pub(crate) fn ending(&self) -> Ending {
        match &self.prepared {
            Some(_) => client::ending(),
            None => client::plain_ending(),
        }
    }

    /// A window shows a terminal; see [`Sizes::shows`].
    pub(crate) fn shows(&self, window: Id, size: Size, front: Option<Id>, used: bool) {
        if self.sizes.lock().shows(window, size, front, used) {
            self.resize();
        }
    }

    /// A window is gone.
    pub(crate) fn leaves(&self, window: Id) {
        self.sizes.lock().leaves(window);
        self.resize();
    }

    fn resize(&self) {
        let sizes = self.sizes.lock().clone();
        for terminal in self.slots().iter().filter_map(|slot| slot.terminal()) {
            terminal.resize(sizes.of(terminal.id()));
        }
    }

    /// Tells all terminals what the user's terminal can do.
    pub(crate) fn learn(&self, outer: Outer) {
        *self.outer.lock() = outer;
        for terminal in self.slots().iter().filter_map(|slot| slot.terminal()) {
            self.dress(&terminal);
        }
    }

    /// Tells a terminal what the user's terminal can do.
    pub(crate) fn dress(&self, terminal: &Terminal) {
        let outer = *self.outer.lock();
        let report = {
            let mut screen = terminal.screen();
            screen.set_kitty(outer.kitty);
            outer
                .colors
                .map(|colors| screen.set_colors(colors))
                .unwrap_or_default()
        };
        if !report.is_empty()
            && let Err(error) = terminal.write(&report)
        {
            tracing::debug!(%error, "a report of colours was not taken");
        }
    }

    /// What to start in a slot.
    pub(crate) fn spec(
        &self,
        host: &Instance,
        slot: &Slot,
        key: &str,
        resume: Option<String>,
    ) -> Result<Spec, String> {
        let mut env: BTreeMap<OsString, OsString> = self
            .ask
            .env
            .iter()
            .map(|(name, value)| (name.into(), value.into()))
            .collect();
        let (program, args, cwd) = match (&self.ask.program, &self.prepared) {
            (Program::Exec { program }, _) => {
                let args = self.ask.args.iter().map(Into::into).collect();
                env.insert("TERM".into(), "xterm-256color".into());
                env.insert("COLORTERM".into(), "truecolor".into());
                for name in ["TMUX", "TMUX_PANE", "STY", "ZELLIJ"] {
                    env.remove(std::ffi::OsStr::new(name));
                }
                let url = format!("{}/t/{key}/{}", host.url(), report::DEFAULT_ROUTE);
                env.insert("KIMIQ_URL".into(), url.into());
                (program.into(), args, slot.dir.clone())
            }
            (Program::Client { .. }, Some(prepared)) => {
                let launch = prepared
                    .launch(&self.ask, slot, key, resume, &host.url())
                    .map_err(|error| keeper::chain(&*error))?;
                for name in &launch.env_remove {
                    env.remove(name);
                }
                env.extend(launch.env);
                (launch.program.into_os_string(), launch.args, launch.cwd)
            }
            (Program::Client { .. }, None) => return Err("the client was not prepared".to_owned()),
        };
        let mark = format!("{key}-{}", slot.name);
        let ours = [
            ("KIMIQ_HOST", host.mark_value()),
            ("KIMIQ_RUN", self.name.clone()),
            ("KIMIQ_TERMINAL", slot.name.to_string()),
            ("KIMIQ_MARK", mark.clone()),
            ("KIMIQ_PORT", host.port.to_string()),
            ("KIMIQ_KEY", key.to_owned()),
        ];
        env.extend(ours.map(|(name, value)| (name.into(), value.into())));
        let size = self.sizes.lock().of(slot.id);
        Ok(Spec {
            id: slot.id,
            program,
            args,
            env,
            cwd,
            size,
            scrollback: SCROLLBACK,
            marker: Some(format!("KIMIQ_MARK={mark}")),
        })
    }
}

/// What the client said last is nearer than what its requests said.
fn said_last(slot: &Slot) -> Option<String> {
    client::session_in_farewell(&slot.terminal()?.screen().text())
}

async fn end(slot: &Slot, now: bool) {
    let (done, told) = oneshot::channel();
    if slot.orders.send(Order::End { now, done }).await.is_ok() {
        // An error means that the keeper is gone, which is what was wanted.
        told.await.unwrap_or_default();
    }
}
