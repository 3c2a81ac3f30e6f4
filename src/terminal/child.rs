//! Processes: how they end, how they are signalled, and that none is left.
//!
//! On Linux the host inherits the orphans of its descendants, so that `nohup`, `setsid` and double forks lead nowhere
//! out; elsewhere only the process group is reached. Signals go to processes that are checked to be the same ones that
//! were found. Waiting for a stranger's death uses its process descriptor where there is one.

use super::ending::Ending;
use super::ending::Step;
use super::ending::Target;
use super::kin;
use super::kin::Process;
use super::kin::Roots;
use super::pty::Terminal;
use rustix::process::Pid;
use rustix::process::Signal as Number;
use rustix::process::kill_process;
use rustix::process::kill_process_group;
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::fmt;
use std::time::Duration;
use tokio::time::Instant;
use tokio::time::sleep;
use tokio::time::timeout;

/// How long a killed process may take to vanish before it is reported; the kernel needs milliseconds.
const VANISH: Duration = Duration::from_secs(2);

/// Rounds of killing; each finds what was forked during the one before.
const ROUNDS: usize = 20;

/// A stranger's zombie that is older than this has nobody to wait for it; a terminal's own program is waited for within
/// milliseconds.
const MOURNING: Duration = Duration::from_secs(1);

/// How a program ended: at most one of the two is set; none if its status was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// The exit code, if it left by itself.
    pub code: Option<i32>,
    /// The number of the signal that ended it.
    pub signal: Option<i32>,
}

impl Exit {
    /// Whether it left by itself and content.
    pub fn is_success(&self) -> bool {
        self.code == Some(0)
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.code, self.signal) {
            (Some(code), _) => write!(out, "exited with code {code}"),
            (None, Some(signal)) => match signal {
                1 => write!(out, "ended by SIGHUP"),
                2 => write!(out, "ended by SIGINT"),
                6 => write!(out, "crashed (SIGABRT)"),
                9 => write!(out, "killed (SIGKILL)"),
                11 => write!(out, "crashed (SIGSEGV)"),
                15 => write!(out, "ended by SIGTERM"),
                _ => write!(out, "ended by signal {signal}"),
            },
            (None, None) => write!(out, "ended"),
        }
    }
}

impl From<std::process::ExitStatus> for Exit {
    fn from(status: std::process::ExitStatus) -> Self {
        Self {
            code: status.code(),
            signal: std::os::unix::process::ExitStatusExt::signal(&status),
        }
    }
}

/// Makes this process inherit the orphans of its descendants (Linux), so that [`end_everything`] finds them. `false`
/// where the platform cannot.
#[cfg(target_os = "linux")]
pub fn become_subreaper() -> bool {
    rustix::process::set_child_subreaper(Some(rustix::process::getpid())).is_ok()
}

/// Makes this process inherit the orphans of its descendants (Linux), so that [`end_everything`] finds them. `false`
/// where the platform cannot.
#[cfg(not(target_os = "linux"))]
pub fn become_subreaper() -> bool {
    false
}

/// Ends every process whose environment holds `marker` (`NAME=value`), except this one: what an earlier host left
/// behind. SIGHUP first, SIGKILL after `grace`. Returns their ids. Linux only; elsewhere nothing is found.
pub async fn end_marked(marker: &str, grace: Duration) -> Vec<i32> {
    let roots = Roots {
        marker: Some(marker.to_owned()),
        ..Roots::default()
    };
    let found = kin::family(&roots);
    end_family(roots, found.clone(), grace).await;
    let mut ids: Vec<i32> = found.into_iter().map(|process| process.pid).collect();
    ids.sort_unstable();
    ids
}

/// Ends every descendant of this process: SIGHUP, `grace`, SIGKILL, until none is left. The host's last act.
pub async fn end_everything(grace: Duration) {
    let found = kin::descendants();
    signal_all(&found, Number::HUP);
    gone(&found, grace).await;
    for _ in 0..ROUNDS {
        let left = kin::descendants();
        if left.is_empty() {
            return;
        }
        signal_all(&left, Number::KILL);
        gone(&left, VANISH).await;
    }
}

/// Waits for the zombies that a subreaper inherits and nobody else waits for. Runs until dropped; spawn it once.
/// Children that this process runs for itself, in its own session, are never touched.
pub async fn reap_strangers() {
    use tokio::signal::unix::SignalKind;
    use tokio::signal::unix::signal;
    let Ok(mut deaths) = signal(SignalKind::child()) else {
        tracing::warn!("child signals cannot be received; inherited zombies stay");
        return;
    };
    let mut seen: HashSet<Process> = HashSet::new();
    loop {
        if seen.is_empty() && deaths.recv().await.is_none() {
            return;
        }
        sleep(MOURNING).await;
        let now = kin::strange_zombies();
        for process in now.intersection(&seen) {
            if let Some(pid) = Pid::from_raw(process.pid) {
                // Somebody may have waited for it in this instant; then there is nothing left to do.
                let status =
                    rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::NOHANG);
                tracing::debug!(
                    pid = process.pid,
                    reaped = status.is_ok(),
                    "inherited zombie"
                );
            }
        }
        seen = now.difference(&seen).copied().collect();
    }
}

/// What is known of a terminal's processes when it is to end.
#[derive(Clone, Debug)]
pub(crate) struct Household {
    /// The process id of its program.
    pub(crate) leader: i32,
    /// `NAME=value` that only its processes have.
    pub(crate) marker: Option<String>,
    /// What was alive when the program ended by itself; `None` while it lives.
    pub(crate) survivors: Option<HashSet<Process>>,
}

/// What is alive of a terminal at the moment its program has ended and has not been waited for.
pub(crate) fn survivors(leader: i32, marker: Option<String>) -> HashSet<Process> {
    kin::family(&Roots {
        ancestors: vec![leader],
        session: Some(leader),
        marker,
        known: HashSet::new(),
    })
}

/// Ends one terminal.
pub(crate) async fn end_terminal(terminal: &Terminal, ending: &Ending, household: Household) {
    let leader = household.leader;
    let mut alive = household.survivors.is_none() && !left(terminal, Duration::ZERO).await;
    let mut roots = Roots {
        marker: household.marker,
        known: household.survivors.unwrap_or_default(),
        ..Roots::default()
    };
    if alive {
        // After its death these numbers may belong to somebody else, so they count only while it lives.
        roots.ancestors = vec![leader];
        roots.session = Some(leader);
    }
    for stage in &ending.stages {
        // The tree must be walked while the program lives: its death hands its children to others.
        roots.known.extend(kin::family(&roots));
        if !alive {
            break;
        }
        match &stage.step {
            Step::Write(bytes) => {
                if let Err(error) = terminal.write(bytes) {
                    tracing::debug!(leader, %error, "the farewell was not typed");
                }
            }
            Step::Hangup(target) => signal_target(*target, leader, &roots, Number::HUP),
            Step::Terminate(target) => signal_target(*target, leader, &roots, Number::TERM),
            Step::Kill(target) => signal_target(*target, leader, &roots, Number::KILL),
        }
        alive = !left(terminal, stage.grace).await;
    }
    if alive {
        signal_target(Target::Everyone, leader, &roots, Number::KILL);
        left(terminal, VANISH).await;
    }
    roots.ancestors.clear();
    let found = kin::family(&roots);
    roots.session = None;
    let grace = if ending.is_rude() {
        Duration::ZERO
    } else {
        Duration::from_secs(1)
    };
    end_family(roots, found, grace).await;
}

/// Whether the program ends within `grace`.
async fn left(terminal: &Terminal, grace: Duration) -> bool {
    timeout(grace, terminal.ended()).await.is_ok()
}

/// SIGHUP to the members, `grace`, then SIGKILL until none is left.
async fn end_family(mut roots: Roots, found: HashSet<Process>, grace: Duration) {
    if !grace.is_zero() && !found.is_empty() {
        signal_all(&found, Number::HUP);
        gone(&found, grace).await;
    }
    roots.known.extend(found);
    for _ in 0..ROUNDS {
        let left = kin::family(&roots);
        if left.is_empty() {
            return;
        }
        signal_all(&left, Number::KILL);
        roots.known.extend(&left);
        gone(&left, VANISH).await;
    }
    tracing::warn!("processes of a terminal could not be ended");
}

fn signal_target(target: Target, leader: i32, roots: &Roots, number: Number) {
    if let Some(group) = Pid::from_raw(leader)
        && let Err(error) = kill_process_group(group, number)
    {
        // The group is gone, or has never been one of its own.
        tracing::debug!(leader, %error, "the process group took no signal");
    }
    if target == Target::Everyone {
        signal_all(&kin::family(roots), number);
    }
}

fn signal_all(processes: &HashSet<Process>, number: Number) {
    for process in processes {
        let Some(pid) = Pid::from_raw(process.pid) else {
            continue;
        };
        if !kin::lives(*process) {
            continue;
        }
        // One that ends meanwhile is what we want; a stopped one must run to hear anything but SIGKILL.
        let sent = kill_process(pid, number);
        if number != Number::KILL && sent.is_ok() && kill_process(pid, Number::CONT).is_err() {
            tracing::debug!(pid = process.pid, "ended while being signalled");
        }
    }
}

/// Waits until all have ended, at most `grace`.
async fn gone(processes: &HashSet<Process>, grace: Duration) {
    let all = async {
        for process in processes {
            one_gone(*process, grace).await;
        }
    };
    if timeout(grace, all).await.is_err() {
        tracing::debug!("processes outlived the grace period");
    }
}

#[cfg(target_os = "linux")]
#[expect(
    deprecated,
    reason = "its successor is unsafe for types that may change their descriptor; an owned one never does"
)]
async fn one_gone(process: Process, grace: Duration) {
    use rustix::process::PidfdFlags;
    use rustix::process::pidfd_open;
    use tokio::io::Interest;
    use tokio::io::unix::AsyncFd;
    let descriptor = Pid::from_raw(process.pid)
        .and_then(|pid| pidfd_open(pid, PidfdFlags::NONBLOCK).ok())
        .and_then(|fd| AsyncFd::with_interest(fd, Interest::READABLE).ok());
    match descriptor {
        // The number may have been given to somebody else before it was opened.
        Some(descriptor) if kin::lives(process) => {
            if let Err(error) = descriptor.readable().await {
                tracing::debug!(%error, "a process descriptor cannot be watched");
            }
        }
        Some(_) => {}
        None => outlived(process, grace).await,
    }
}

#[cfg(not(target_os = "linux"))]
async fn one_gone(process: Process, grace: Duration) {
    outlived(process, grace).await;
}

/// For kernels without process descriptors: look now and then until the grace is over.
async fn outlived(process: Process, grace: Duration) {
    let end = Instant::now() + grace;
    while kin::lives(process) && Instant::now() < end {
        sleep(Duration::from_millis(20)).await;
    }
}
