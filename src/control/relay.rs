//! The attached side: a thin relay between the user's terminal and the host.
//!
//! Raw mode, keys and sizes up, bytes down; no emulation and no state of its own. The terminal comes back on every
//! way out: return, error, panic, SIGTERM, SIGHUP, SIGINT, SIGQUIT, and for the time of a SIGTSTP. To give it back
//! means: the sequences that undo what the host may have switched on, then what was typed ahead is thrown away (a
//! terminal in kitty mode sends releases of keys that a shell would print), then the old line discipline.
//!
//! Keys are read by a thread that waits for the terminal and for a wake-up pipe at once, so that it can be ended
//! without a key; tokio's own standard input would hold the process until the next one.

use std::io;
use std::io::IsTerminal;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::fd::OwnedFd;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use crossterm::terminal;
use rustix::event::PollFd;
use rustix::event::PollFlags;
use rustix::event::Timespec;
use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tokio::io::AsyncWriteExt;
use tokio::signal::unix::SignalKind;
use tokio::signal::unix::signal;
use tokio::sync::mpsc;

use crate::control::ControlError;
use crate::control::frames;
use crate::control::frames::Bye;
use crate::control::frames::Down;
use crate::control::frames::Hello;
use crate::control::frames::Up;

/// How long typed-ahead bytes may trickle in after the terminal was given back.
const DRAIN: Duration = Duration::from_millis(50);

/// The user's terminal is ours.
static TAKEN: AtomicBool = AtomicBool::new(false);

/// The user's terminal, taken; dropping it gives it back.
#[derive(Debug)]
pub struct Screen {
    restore: &'static [u8],
}

impl Screen {
    /// Takes the terminal. `restore` are the bytes that undo everything the host may switch on.
    pub fn take(restore: &'static [u8]) -> Result<Self, ControlError> {
        if !io::stdin().is_terminal() || !io::stdout().is_terminal() {
            return Err(ControlError::NoTerminal);
        }
        let screen = Self { restore };
        take_over()?;
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            give_back(restore);
            before(panic);
        }));
        Ok(screen)
    }

    /// Columns and rows.
    pub fn size() -> (u16, u16) {
        terminal::size().unwrap_or((80, 24))
    }

    fn leave(&self) {
        give_back(self.restore);
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.leave();
    }
}

fn take_over() -> Result<(), ControlError> {
    terminal::enable_raw_mode().map_err(|source| ControlError::Terminal { source })?;
    TAKEN.store(true, Ordering::Release);
    Ok(())
}

/// Gives the terminal back once; further calls do nothing.
fn give_back(restore: &[u8]) {
    if !TAKEN.swap(false, Ordering::AcqRel) {
        return;
    }
    let mut out = io::stdout().lock();
    if let Err(error) = out.write_all(restore).and_then(|()| out.flush()) {
        tracing::debug!(%error, "the terminal is gone");
    }
    drain();
    if let Err(error) = terminal::disable_raw_mode() {
        tracing::debug!(%error, "the terminal is gone");
    }
}

/// Throws away what was typed ahead, until the terminal is quiet.
fn drain() {
    let stdin = io::stdin();
    let wait = Timespec::try_from(DRAIN).ok();
    let mut waste = [0; 1024];
    // A person who holds a key down must not hold us.
    for _ in 0..64 {
        let mut fds = [PollFd::new(&stdin, PollFlags::IN)];
        match rustix::event::poll(&mut fds, wait.as_ref()) {
            Ok(ready) if ready > 0 && fds[0].revents().contains(PollFlags::IN) => {
                if !matches!(rustix::io::read(&stdin, &mut waste), Ok(count) if count > 0) {
                    return;
                }
            }
            _ => return,
        }
    }
}

/// Shows a run in the user's terminal until the host says bye.
pub async fn relay<S>(stream: S, hello: &Hello, screen: Screen) -> Result<Bye, ControlError>
where
    S: AsyncRead + AsyncWrite + Send + 'static,
{
    let broken = |source| ControlError::Terminal { source };
    let (mut reader, mut writer) = tokio::io::split(stream);
    frames::greet(&mut writer, hello).await.map_err(broken)?;
    let (mut keys, _wake) = read_keys().map_err(broken)?;
    let mut resized = signal(SignalKind::window_change()).map_err(broken)?;
    let mut stopped =
        signal(SignalKind::from_raw(rustix::process::Signal::TSTP.as_raw())).map_err(broken)?;
    let mut continued =
        signal(SignalKind::from_raw(rustix::process::Signal::CONT.as_raw())).map_err(broken)?;
    let mut quit = [
        (signal(SignalKind::terminate()).map_err(broken)?),
        (signal(SignalKind::hangup()).map_err(broken)?),
        (signal(SignalKind::interrupt()).map_err(broken)?),
        (signal(SignalKind::quit()).map_err(broken)?),
    ];
    let mut out = tokio::io::stdout();
    let detached = || Bye::Detached {
        run: hello.run.clone().unwrap_or_default(),
    };

    let lost = || Bye::Refused {
        message: "the host went away; `kimiq ps` tells what was open".to_owned(),
    };

    // Reading is not cancel safe in the middle of a frame, so it has a future of its own that lives through the loop.
    let (down_in, mut down) = mpsc::channel(1);
    let read = async {
        loop {
            let frame = frames::read_down(&mut reader).await;
            let last = !matches!(frame, Ok(Some(Down::Output(_))));
            if down_in.send(frame).await.is_err() || last {
                break;
            }
        }
        // The channel stays open, so that the loop sees the frame and not its end.
        std::future::pending::<()>().await;
    };
    let work = async {
        loop {
            let [term, hangup, interrupt, quit] = &mut quit;
            let up = tokio::select! {
                frame = down.recv() => match frame {
                    Some(Ok(Some(Down::Output(bytes)))) => {
                        out.write_all(&bytes).await.map_err(broken)?;
                        out.flush().await.map_err(broken)?;
                        continue;
                    }
                    Some(Ok(Some(Down::Bye(bye)))) => return Ok(bye),
                    // The host was killed; how the connection tells it depends on what was under way.
                    Some(Ok(None) | Err(_)) | None => return Ok(lost()),
                },
                key = keys.recv() => match key {
                    Some(bytes) => Up::Input(bytes),
                    // The terminal hung up.
                    None => return Ok(detached()),
                },
                _ = resized.recv() => {
                    let (columns, rows) = Screen::size();
                    Up::Resize(columns, rows)
                }
                _ = stopped.recv() => {
                    screen.leave();
                    suspend();
                    // The stop takes a moment to reach every thread; only this tells that it is over.
                    continued.recv().await;
                    take_over()?;
                    let (columns, rows) = Screen::size();
                    frames::write_up(&mut writer, &Up::Resize(columns, rows)).await.map_err(broken)?;
                    Up::Afresh
                }
                _ = term.recv() => return Ok(detached()),
                _ = hangup.recv() => return Ok(detached()),
                _ = interrupt.recv() => return Ok(detached()),
                _ = quit.recv() => return Ok(detached()),
            };
            if frames::write_up(&mut writer, &up).await.is_err() {
                return Ok(lost());
            }
        }
    };
    tokio::select! {
        ended = work => ended,
        () = read => Err(broken(io::ErrorKind::UnexpectedEof.into())),
    }
}

/// Stops this process as the terminal's own suspend would.
fn suspend() {
    if let Err(error) =
        rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::STOP)
    {
        tracing::debug!(%error, "could not suspend");
    }
}

/// Keys as they come. The thread ends when the returned descriptor is closed.
fn read_keys() -> io::Result<(mpsc::Receiver<Bytes>, OwnedFd)> {
    let (asleep, wake) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    let keyboard = io::stdin().as_fd().try_clone_to_owned()?;
    let (keys_in, keys) = mpsc::channel(64);
    std::thread::Builder::new()
        .name("kimiq-keys".to_owned())
        .spawn(move || {
            let mut buffer = vec![0; 16 << 10];
            loop {
                let mut fds = [
                    PollFd::new(&keyboard, PollFlags::IN),
                    PollFd::new(&asleep, PollFlags::IN),
                ];
                match rustix::event::poll(&mut fds, None) {
                    Ok(_) => {}
                    Err(rustix::io::Errno::INTR) => continue,
                    Err(_) => return,
                }
                if !fds[1].revents().is_empty() {
                    return;
                }
                match rustix::io::read(&keyboard, &mut buffer) {
                    Ok(0) => return,
                    Ok(count) => {
                        if keys_in
                            .blocking_send(Bytes::copy_from_slice(&buffer[..count]))
                            .is_err()
                        {
                            return;
                        }
                    }
                    Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => {}
                    Err(_) => return,
                }
            }
        })?;
    Ok((keys, wake))
}
