//! The task of one terminal: it alone touches the PTY and the child.
//!
//! It sleeps until the kernel, the handle or a timer has something for it. Reading goes on whatever else is stuck:
//! input that the program does not take, watchers that do not look, events that nobody fetches. The end of the
//! program is its wait status; the end of the output proves nothing, since a background process may hold the PTY open.

use super::child;
use super::child::Exit;
use super::pty::Event;
use super::pty::Id;
use super::pty::Shared;
use super::pty::pixels;
use super::queries::Signal;
use super::screen::Size;
use filedescriptor::FileDescriptor;
use portable_pty::Child;
use portable_pty::MasterPty;
use std::collections::VecDeque;
use std::io;
use std::io::ErrorKind;
use std::mem;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::Interest;
use tokio::io::Ready;
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio::time::sleep_until;
use tokio::time::timeout_at;

/// Bytes read before others get their turn.
const TURN: usize = 256 * 1024;

/// The kernel hands out about 4 KiB a read, whatever is asked for (measured on Linux).
const READ: usize = 16 * 1024;

/// Bytes offered to one write; a PTY takes about 4 KiB.
const WRITE: usize = 4 * 1024;

/// A size that changes again within this time is not applied yet.
const SETTLE: Duration = Duration::from_millis(60);

/// A synchronized update that takes longer is shown as it is; the time is that of common terminals.
const UPDATE: Duration = Duration::from_millis(150);

/// After the program's end, what it wrote may still be on its way through the kernel.
const DRAIN: Duration = Duration::from_millis(100);

/// Events that wait for a slow receiver.
const BACKLOG: usize = 1024;

/// The master's own descriptor, separate from the library's whose writer types a newline and an end of file when
/// dropped.
type Master = AsyncFd<FileDescriptor>;

/// Everything the task owns.
pub(crate) struct Pump {
    shared: Arc<Shared>,
    master: Master,
    pty: Box<dyn MasterPty + Send>,
    child: Box<dyn Child + Send + Sync>,
    deaths: tokio::signal::unix::Signal,
    events: mpsc::Sender<(Id, Event)>,
    backlog: VecDeque<Event>,
    /// The output has not ended.
    open: bool,
    ready: bool,
    /// What the program believes about its focus.
    focus: Focus,
    size: Size,
    last_resize: Option<Instant>,
    resize_at: Option<Instant>,
    update_ends: Option<Instant>,
    buffer: Vec<u8>,
}

/// Focus as the program has been told it.
#[derive(Clone, Copy, Default)]
struct Focus {
    reports: bool,
    told: Option<bool>,
}

/// Why the task woke up.
enum Woken {
    Death,
    Ready(Ready),
    Handle,
    Timer,
    Room(bool),
}

/// Makes the end known even if the task panics: nobody may wait for ever.
struct Farewell(Arc<Shared>);

impl Drop for Farewell {
    fn drop(&mut self) {
        self.0.exit.send_if_modified(|exit| {
            let lost = exit.is_none();
            if lost {
                *exit = Some(Exit {
                    code: None,
                    signal: None,
                });
            }
            lost
        });
        self.0.changed();
    }
}

impl Pump {
    pub(crate) fn new(
        shared: Arc<Shared>,
        pty: Box<dyn MasterPty + Send>,
        child: Box<dyn Child + Send + Sync>,
        deaths: tokio::signal::unix::Signal,
        events: mpsc::Sender<(Id, Event)>,
    ) -> io::Result<Self> {
        let raw = pty
            .as_raw_fd()
            .ok_or_else(|| io::Error::other("the pseudo-terminal has no descriptor"))?;
        let mut descriptor = FileDescriptor::dup(&raw).map_err(io::Error::other)?;
        descriptor
            .set_non_blocking(true)
            .map_err(io::Error::other)?;
        let size = shared.screen.lock().size();
        Ok(Self {
            shared,
            master: watch(descriptor)?,
            pty,
            child,
            deaths,
            events,
            backlog: VecDeque::new(),
            open: true,
            ready: false,
            focus: Focus::default(),
            size,
            last_resize: None,
            resize_at: None,
            update_ends: None,
            buffer: vec![0; READ],
        })
    }

    pub(crate) async fn run(mut self) {
        let farewell = Farewell(Arc::clone(&self.shared));
        let exit = self.serve().await;
        self.drain().await;
        // No reader is left: what still waits to be typed is void.
        self.shared.input.lock().clear();
        self.shared.exit.send_replace(Some(exit));
        self.tell(Event::Exited(exit));
        let Self {
            shared,
            events,
            mut backlog,
            ..
        } = self;
        drop(farewell);
        while let Some(event) = backlog.pop_front() {
            if events.send((shared.id, event)).await.is_err() {
                break;
            }
        }
    }

    /// Until the program ends.
    async fn serve(&mut self) -> Exit {
        // It may have ended before the first signal was awaited.
        let mut look = true;
        loop {
            if look && let Some(exit) = self.look() {
                return exit;
            }
            look = false;
            let interest = if self.shared.input.lock().is_empty() {
                Interest::READABLE
            } else {
                Interest::READABLE | Interest::WRITABLE
            };
            let timer = [self.resize_at, self.update_ends]
                .into_iter()
                .flatten()
                .min();
            let woken = tokio::select! {
                _ = self.deaths.recv() => Woken::Death,
                ready = ready(&self.master, interest), if self.open => Woken::Ready(ready),
                () = self.shared.woken.notified() => Woken::Handle,
                () = sleep_until(timer.unwrap_or_else(Instant::now)), if timer.is_some() => Woken::Timer,
                // The room is taken again at once by what waits.
                permit = self.events.reserve(), if !self.backlog.is_empty() => Woken::Room(permit.is_ok()),
            };
            match woken {
                Woken::Death => look = true,
                Woken::Ready(ready) => {
                    if ready.is_readable() || ready.is_read_closed() {
                        self.read().await;
                    }
                    if ready.is_writable() {
                        self.write();
                    }
                }
                Woken::Handle => self.attend(),
                Woken::Timer => self.tick(),
                Woken::Room(true) => self.send_waiting(),
                Woken::Room(false) => self.backlog.clear(),
            }
        }
    }

    /// Sends what waits, until the receiver is full again.
    fn send_waiting(&mut self) {
        while let Some(event) = self.backlog.pop_front() {
            if let Err(mpsc::error::TrySendError::Full((_, event))) =
                self.events.try_send((self.shared.id, event))
            {
                self.backlog.push_front(event);
                return;
            }
        }
    }

    /// The wait status, if there is one. What survives the program is noted before its number may be reused.
    fn look(&mut self) -> Option<Exit> {
        let ended = self.pid_has_ended();
        if ended {
            let marker = self.shared.marker.clone();
            *self.shared.survivors.lock() = Some(child::survivors(self.shared.pid, marker));
        }
        let child: &mut dyn Child = &mut *self.child;
        match child.downcast_mut::<std::process::Child>()?.try_wait() {
            Ok(status) => status.map(Exit::from),
            Err(error) => {
                tracing::warn!(id = %self.shared.id, %error, "the status of a program was lost");
                Some(Exit {
                    code: None,
                    signal: None,
                })
            }
        }
    }

    /// Looks without waiting for it, so that its number stays taken.
    fn pid_has_ended(&self) -> bool {
        use rustix::process::Pid;
        use rustix::process::WaitId;
        use rustix::process::WaitIdOptions;
        use rustix::process::waitid;
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        Pid::from_raw(self.shared.pid)
            .is_some_and(|pid| matches!(waitid(WaitId::Pid(pid), options), Ok(Some(_))))
    }

    async fn read(&mut self) {
        let mut left = TURN;
        let mut seen = false;
        while left > 0 {
            let buffer = &mut self.buffer;
            let count = self.master.try_io(Interest::READABLE, |master| {
                Ok(rustix::io::read(master, &mut *buffer)?)
            });
            match count {
                Ok(0) => self.open = false,
                Ok(count) => {
                    seen = true;
                    left = left.saturating_sub(count);
                    self.feed(count);
                    continue;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                // Linux says EIO when the last holder of the other side has closed it.
                Err(_hung_up) => self.open = false,
            }
            break;
        }
        if seen {
            self.after_output();
        }
        if left == 0 {
            tokio::task::yield_now().await;
        }
    }

    fn feed(&mut self, count: usize) {
        let (fed, modes) = {
            let mut screen = self.shared.screen.lock();
            let fed = screen.feed(&self.buffer[..count]);
            (fed, screen.modes())
        };
        if !fed.replies.is_empty() && self.shared.push(&[&fed.replies]).is_err() {
            tracing::debug!(id = %self.shared.id, "a program asks without reading; answers were dropped");
        }
        if modes.bracketed_paste && !self.ready {
            self.ready = true;
            self.tell(Event::Ready);
        }
        for signal in fed.signals {
            self.tell(Event::Signal(signal));
        }
        if modes.focus_reports != self.focus.reports {
            self.focus = Focus {
                reports: modes.focus_reports,
                // A program that asks takes itself to be in front.
                told: modes.focus_reports.then_some(true),
            };
            self.tell_focus();
        }
    }

    fn after_output(&mut self) {
        *self.shared.last_output.lock() = Some(Instant::now());
        if self.shared.screen.lock().updating() {
            self.update_ends
                .get_or_insert_with(|| Instant::now() + UPDATE);
        } else {
            self.update_ends = None;
            self.shared.changed();
        }
    }

    fn write(&mut self) {
        let mut input = self.shared.input.lock();
        while !input.is_empty() {
            let (first, _) = input.as_slices();
            let piece = &first[..first.len().min(WRITE)];
            let count = self.master.try_io(Interest::WRITABLE, |master| {
                Ok(rustix::io::write(master, piece)?)
            });
            match count {
                Ok(count) => drop(input.drain(..count)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => {
                    tracing::debug!(id = %self.shared.id, %error, "a terminal takes no input");
                    input.clear();
                }
            }
        }
        // A large paste leaves a large buffer; an idle terminal needs none.
        if input.capacity() > READ {
            *input = VecDeque::new();
        }
    }

    /// Something changed at the handle.
    fn attend(&mut self) {
        self.tell_focus();
        if self.shared.wanted.lock().is_some() {
            let now = Instant::now();
            let quiet = self.last_resize.is_none_or(|last| now >= last + SETTLE);
            if quiet {
                self.last_resize = Some(now);
                self.resize();
            } else {
                self.resize_at = Some(now + SETTLE);
            }
        }
    }

    fn tick(&mut self) {
        let now = Instant::now();
        if self.resize_at.is_some_and(|at| at <= now) {
            self.resize_at = None;
            self.last_resize = Some(now);
            self.resize();
        }
        if self.update_ends.is_some_and(|at| at <= now) {
            self.update_ends = None;
            self.shared.screen.lock().stop_updating();
            self.shared.changed();
        }
    }

    /// Emulator first, then the kernel, and no read in between: the program repaints for the new size only.
    fn resize(&mut self) {
        let Some(size) = self.shared.wanted.lock().take() else {
            return;
        };
        if size == self.size {
            return;
        }
        self.size = size;
        self.shared.screen.lock().resize(size);
        if let Err(error) = self.pty.resize(pixels(size)) {
            tracing::debug!(id = %self.shared.id, %error, "the kernel took no size");
        }
        self.shared.changed();
    }

    fn tell_focus(&mut self) {
        let wanted = *self.shared.focused.lock();
        if self.focus.reports && wanted.is_some() && wanted != self.focus.told {
            self.focus.told = wanted;
            let report: &[u8] = if wanted == Some(true) {
                b"\x1b[I"
            } else {
                b"\x1b[O"
            };
            if let Err(error) = self.shared.push(&[report]) {
                tracing::debug!(id = %self.shared.id, %error, "focus was not reported");
            }
        }
    }

    fn tell(&mut self, event: Event) {
        if self.backlog.is_empty() {
            match self.events.try_send((self.shared.id, event)) {
                Err(mpsc::error::TrySendError::Full((_, event))) => self.backlog.push_back(event),
                Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => {}
            }
            return;
        }
        if self.backlog.len() >= BACKLOG {
            let waiting = mem::take(&mut self.backlog);
            // Old prompt marks and bells tell nothing any more; states that count are told again.
            self.backlog = waiting
                .into_iter()
                .enumerate()
                .filter(|(index, event)| *index > BACKLOG / 2 || !is_signal(event))
                .map(|(_, event)| event)
                .collect();
        }
        self.backlog.push_back(event);
    }

    /// Reads what is on its way after the program's end.
    async fn drain(&mut self) {
        let end = Instant::now() + DRAIN;
        while self.open {
            let Ok(ready) = timeout_at(end, ready(&self.master, Interest::READABLE)).await else {
                break;
            };
            if ready.is_readable() || ready.is_read_closed() {
                self.read().await;
            }
        }
        self.shared.screen.lock().stop_updating();
    }
}

#[expect(
    deprecated,
    reason = "its successor is unsafe for types that may change their descriptor; an owned one never does"
)]
fn watch(descriptor: FileDescriptor) -> io::Result<Master> {
    AsyncFd::new(descriptor)
}

fn is_signal(event: &Event) -> bool {
    matches!(
        event,
        Event::Signal(Signal::Bell | Signal::PromptMark(_) | Signal::Progress(_))
    )
}

/// Waits until the descriptor is ready; the state stays until an attempt finds that it is not.
async fn ready(master: &Master, interest: Interest) -> Ready {
    match master.ready(interest).await {
        Ok(mut guard) => {
            guard.retain_ready();
            guard.ready()
        }
        // Only a runtime that shuts down answers so; whoever waits is cancelled next.
        Err(_shutdown) => std::future::pending().await,
    }
}
