//! An attached window: what is typed goes to the terminals, what changes is painted.
//!
//! Painting is paced: at once if the last picture is older than a frame, else at the frame's mark. It waits, too, for
//! room in the outgoing channel, so that a window which does not read gets the newest picture when it reads again, and
//! holds up nobody.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::control::Bye;
use crate::control::Down;
use crate::control::Hello;
use crate::control::HostEnd;
use crate::control::HostError;
use crate::control::Up;
use crate::instance::host::Instance;
use crate::instance::report;
use crate::instance::resume::resume_lines;
use crate::instance::run::Run;
use crate::terminal::Id;
use crate::terminal::Size;
use crate::terminal::Terminal;
use crate::tui;
use crate::tui::Action;
use crate::tui::Session;

/// A frame at 60 Hz.
const FRAME: Duration = Duration::from_millis(16);
/// How often a wait that counts down is painted anew.
const COUNTDOWN: Duration = Duration::from_secs(1);

/// Shows a run in a window until either ends.
pub(crate) async fn show(host: &Arc<Instance>, end: HostEnd) -> Result<(), HostError> {
    let run = match host.find_run(end.hello.run.as_deref()) {
        Ok(run) => run,
        Err(error) => {
            let bye = Bye::Refused {
                message: error.to_string(),
            };
            // The window may be gone; then nobody needs to be told.
            end.down.send(Down::Bye(bye)).await.unwrap_or_default();
            return Err(error);
        }
    };
    run.attached.fetch_add(1, Ordering::AcqRel);
    run.changed();
    let Hello {
        term, colorterm, ..
    } = &end.hello;
    tracing::info!(run = %run.name, %term, %colorterm, "a window came");
    let last = end.hello.last;
    let window = Window::new(host, &run, end);
    let id = window.id;
    window.show().await;
    run.leaves(id);
    tracing::info!(run = %run.name, "a window went");
    if run.attached.fetch_sub(1, Ordering::AcqRel) == 1 {
        // Nobody looks any more; a client then calls for its user.
        for terminal in run.slots().iter().filter_map(|slot| slot.terminal()) {
            terminal.focus(false);
        }
    }
    run.changed();
    if last {
        host.begin_end(false);
    } else {
        host.tidy(&run).await;
    }
    Ok(())
}

struct Window<'a> {
    id: Id,
    host: &'a Arc<Instance>,
    run: &'a Arc<Run>,
    end: HostEnd,
    session: Session,
    /// The picture is older than what it shows.
    dirty: bool,
    painted: Option<Instant>,
    /// Of the terminal in front.
    picture: Option<watch::Receiver<u64>>,
    /// Something counts down.
    waiting: bool,
    /// Goes out before the next picture.
    ahead: Vec<u8>,
}

/// Whether the window goes on.
enum Step {
    On,
    Close(Bye),
}

impl<'a> Window<'a> {
    fn new(host: &'a Arc<Instance>, run: &'a Arc<Run>, end: HostEnd) -> Self {
        let (columns, rows) = end.hello.size;
        let mut session = Session::new(Size { columns, rows }.clamped(), host.prefix);
        session.set_plain(end.hello.no_color);
        session.set_last(end.hello.last);
        Self {
            id: host.next_id(),
            host,
            run,
            end,
            session,
            dirty: true,
            painted: None,
            picture: None,
            waiting: false,
            ahead: Vec::new(),
        }
    }

    async fn show(mut self) {
        let mut changes = self.run.changes();
        let mut traffic = self.host.proxy.board.changes();
        let mut budgets = self.host.proxy.gate.changes();
        let mut ended = self.run.ended();
        self.shows(true);
        let mut copies = self.run.copies();
        self.ahead = self.session.enter();
        let down = self.end.down.clone();
        let bye = loop {
            let due = self.painted.map_or_else(Instant::now, |at| at + FRAME);
            let step = tokio::select! {
                up = self.end.up.recv() => match up {
                    Some(up) => self.hear(up),
                    None => return,
                },
                _ = ended.wait_for(Option::is_some) => Step::Close(self.farewell()),
                room = paint_due(&down, self.dirty, due) => match room {
                    Ok(room) => {
                        if let Some(bytes) = self.paint() {
                            room.send(Down::Output(bytes));
                        }
                        Step::On
                    }
                    Err(_) => return,
                },
                Ok((id, text)) = copies.recv() => {
                    if self.session.focused() == Some(id) {
                        self.ahead.extend(tui::clipboard(&text));
                    }
                    self.stale()
                }
                Ok(()) = changes.changed() => self.stale(),
                Ok(()) = traffic.changed() => self.stale(),
                Ok(()) = budgets.changed() => self.stale(),
                () = picture_changed(&mut self.picture) => self.stale(),
                () = sleep_until(self.session.wake()) => {
                    let actions = self.session.tick(Instant::now());
                    self.act(actions)
                }
                () = tokio::time::sleep(COUNTDOWN), if self.waiting => self.stale(),
            };
            if let Step::Close(bye) = step {
                break bye;
            }
        };
        // The window may be gone; then nobody needs to be told.
        self.end.down.send(Down::Bye(bye)).await.unwrap_or_default();
    }

    /// Tells the run what is in front here, and in which size.
    fn shows(&self, used: bool) {
        let (size, front) = (self.session.terminal_size(), self.session.focused());
        self.run.shows(self.id, size, front, used);
    }

    fn stale(&mut self) -> Step {
        self.dirty = true;
        Step::On
    }

    fn hear(&mut self, up: Up) -> Step {
        match up {
            Up::Input(bytes) => {
                let actions = self.session.input(&bytes, Instant::now());
                self.shows(true);
                self.act(actions)
            }
            Up::Resize(columns, rows) => {
                self.session.resize(Size { columns, rows }.clamped());
                self.shows(true);
                self.stale()
            }
            Up::Afresh => {
                self.ahead = self.session.enter();
                self.stale()
            }
        }
    }

    fn act(&mut self, actions: Vec<Action>) -> Step {
        for action in actions {
            match action {
                Action::Write(id, bytes) => self.with(id, |terminal| terminal.write(&bytes)),
                Action::Paste(id, bytes) => self.with(id, |terminal| terminal.paste(&bytes)),
                Action::Focus(id, on) => self.with(id, |terminal| {
                    terminal.focus(on);
                    Ok(())
                }),
                Action::New => self.run.add(self.host),
                Action::Close(id) => self.close(id),
                Action::Restart(id) => self.restart(id),
                Action::Detach => return Step::Close(self.letting_go()),
                Action::Repaint => self.dirty = true,
                Action::Learned(outer) => self.run.learn(outer),
            }
        }
        Step::On
    }

    fn with(&mut self, id: Id, work: impl FnOnce(&Terminal) -> Result<(), crate::terminal::Fault>) {
        let Some(slot) = self.run.slot_by_id(id) else {
            return;
        };
        if let Some(terminal) = slot.terminal()
            && let Err(error) = work(&terminal)
        {
            tracing::debug!(terminal = %slot.name, %error, "input was not taken");
        }
    }

    fn close(&self, id: Id) {
        let Some(slot) = self.run.slot_by_id(id) else {
            return;
        };
        let (host, run) = (Arc::clone(self.host), Arc::clone(self.run));
        self.host.tracker.spawn(async move {
            run.close(&slot, false).await;
            host.tidy(&run).await;
        });
    }

    fn restart(&self, id: Id) {
        if let Some(slot) = self.run.slot_by_id(id)
            && slot
                .orders
                .try_send(crate::instance::slot::Order::Restart)
                .is_err()
        {
            tracing::debug!(terminal = %slot.name, "a restart is under way");
        }
    }

    fn paint(&mut self) -> Option<Bytes> {
        let view = report::view(self.host, self.run);
        self.waiting = view.terminals.iter().any(|tab| tab.wait.is_some());
        let actions = self.session.update(&view);
        self.shows(false);
        self.act(actions);
        let front = self
            .session
            .focused()
            .and_then(|id| self.run.slot_by_id(id)?.terminal());
        // Subscribed before the look, so that no change falls between.
        self.picture = front.as_ref().map(Terminal::changes);
        self.dirty = false;
        let mut bytes = std::mem::take(&mut self.ahead);
        // In the middle of an update there is half a picture; the rest of it will report a change.
        if !front
            .as_ref()
            .is_some_and(|terminal| terminal.screen().updating())
        {
            bytes.extend(self.session.paint(&view, |id| {
                front
                    .as_ref()
                    .filter(|terminal| terminal.id() == id)
                    .map(Terminal::screen)
            }));
            self.painted = Some(Instant::now());
        }
        (!bytes.is_empty()).then(|| bytes.into())
    }

    /// Nothing goes on when the last window of a dead run closes: `tidy` ends it.
    fn letting_go(&self) -> Bye {
        let run = self.run.name.clone();
        if self.run.is_dead() && self.run.attached.load(Ordering::Acquire) == 1 {
            return Bye::Ended {
                run,
                lines: resume_lines(&self.run.resumable()),
            };
        }
        Bye::Detached { run }
    }

    fn farewell(&self) -> Bye {
        let sessions = self.run.ended().borrow().clone().unwrap_or_default();
        Bye::Ended {
            run: self.run.name.clone(),
            lines: resume_lines(&sessions),
        }
    }
}

/// Resolves when a picture is due and the window has room for it.
async fn paint_due(
    down: &tokio::sync::mpsc::Sender<Down>,
    dirty: bool,
    due: Instant,
) -> Result<tokio::sync::mpsc::Permit<'_, Down>, tokio::sync::mpsc::error::SendError<()>> {
    if !dirty {
        return std::future::pending().await;
    }
    tokio::time::sleep_until(due).await;
    down.reserve().await
}

async fn picture_changed(picture: &mut Option<watch::Receiver<u64>>) {
    if let Some(changes) = picture
        && changes.changed().await.is_ok()
    {
        return;
    }
    std::future::pending::<()>().await;
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
