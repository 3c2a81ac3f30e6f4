//! The host: builds every room in a written order and tears it down in a written order.
//!
//! This is the only room that knows all others. `lifecycle` is the order: settings, state folder, claim, ledger, gate,
//! proxy, listener, control, registry; and backwards at the end. `host` is what control asks; `run` is a set of
//! terminals, `keeper` the life of one of them, `window` an attached client; `client` prepares the Kimi program.
//!
//! Invariants:
//! - Every task runs on the host's tracker, so that its end waits for all of them.
//! - Nothing of a run outlives its stop: no process, no key, no changed file of the user.
//! - Whatever killed an earlier host, the next one puts in order what it left before it serves anything.
//! - Windows never hold up terminals: a window that does not read is simply not painted.
//!
//! It knows no flags and prints nothing; remarks go to the log and into the reports.

mod acquaint;
mod background;
mod client;
mod host;
mod keeper;
mod keeping;
mod lifecycle;
mod log;
mod naming;
mod options;
mod report;
mod resume;
mod run;
mod sizes;
mod slot;
mod waiting;
mod window;

pub use background::{leave_session, let_go_of_stdout};
pub use client::{PutBack, Restored, edited_files, restore};
pub use host::Handle;
pub use lifecycle::{Setup, run, run_proxy};
pub use log::{Log, open_log};
pub use resume::{DEFAULT_HOST, forget_sessions, fresh_losses, lost_sessions, resume_lines};

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::config::Paths;
use crate::control::Entry;
use crate::control::Registry;
use crate::control::UsageBy;
use crate::control::UsageReport;
use crate::terminal;
use crate::tui;

/// Why the host could not do its work.
#[derive(Debug, thiserror::Error)]
pub enum InstanceError {
    /// Another process is the host.
    #[error(
        "another host `{name}` runs already; `kimiq ps` shows it, `kimiq stop --now --host {name}` ends it by force"
    )]
    Taken {
        /// Name of the host.
        name: String,
    },
    /// A folder or file of kimiq could not be used.
    #[error("failed to use {}; check its owner and its permissions", path.display())]
    State {
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// The port is taken or forbidden.
    #[error(
        "failed to listen on port {port} of 127.0.0.1; another program may have it, so choose another or 0"
    )]
    Listen {
        /// The port.
        port: u16,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// The ledger could not be read.
    #[error("failed to open the ledger")]
    Ledger(#[from] crate::usage::LedgerError),
    /// The system's trusted certificates could not be read, or it gives no randomness, threads or signals.
    #[error("failed to get {what} from the system")]
    System {
        /// What was missing.
        what: &'static str,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// The address of `kimiq proxy`'s upstream is none.
    #[error("the upstream cannot be used")]
    Upstream(#[from] crate::upstream::AddressError),
    /// A run could not be started.
    #[error("{0}")]
    Refused(#[from] crate::control::HostError),
}

/// The bytes that give a user's terminal back, whatever a window switched on.
pub fn leave_sequence() -> &'static [u8] {
    tui::leave()
}

/// Totals as they stand on disk, for when no host runs.
pub fn usage_at_rest(setup: &Setup, days: u16, by: UsageBy) -> Result<UsageReport, InstanceError> {
    let Setup {
        name,
        demo,
        paths,
        settings,
        ..
    } = setup;
    let zone = options::zone(settings);
    let file = options::ledger_file(settings, paths, name, *demo);
    let ledger = crate::usage::Ledger::open(file, zone, crate::clock::wall)?;
    let cap = options::limits(settings, zone).daily_cap;
    Ok(report::totals(&ledger, zone, cap, days, by))
}

/// Whether kimiq can keep files in a folder.
pub fn try_folder(folder: &std::path::Path) -> io::Result<()> {
    let probe = folder.join(".probe");
    crate::fsx::create_private_dir(folder)?;
    crate::fsx::write_atomic(&probe, b"", crate::fsx::PRIVATE)?;
    crate::fsx::remove(&probe)
}

/// Whether a pseudo-terminal can be had.
pub fn try_pty() -> io::Result<()> {
    let size = portable_pty::PtySize::default();
    portable_pty::native_pty_system()
        .openpty(size)
        .map(drop)
        .map_err(io::Error::other)
}

/// Ends a host that does not answer, and every process it started, and undoes what it left edited.
pub async fn kill_host(entry: &Entry, registry: &Registry, paths: &Paths) -> io::Result<PutBack> {
    let pid = i32::try_from(entry.pid)
        .ok()
        .and_then(rustix::process::Pid::from_raw);
    if let Some(pid) = pid
        && entry.is_alive()
    {
        rustix::process::kill_process(pid, rustix::process::Signal::KILL)?;
    }
    let (registry, name) = (registry.clone(), entry.name.clone());
    let claim = tokio::task::spawn_blocking(move || registry.claim_when_free(&name))
        .await
        .map_err(io::Error::other)??;
    terminal::end_marked(
        &slot::host_mark(&paths.state, &entry.name),
        Duration::from_secs(1),
    )
    .await;
    let folder = paths.instance_state(&entry.name);
    let done = tokio::task::spawn_blocking(move || restore(&folder))
        .await
        .map_err(io::Error::other)?;
    claim.leave()?;
    Ok(done)
}
