//! How kimiq's processes find and talk to one another: registry, protocol, server, client, attach relay.
//!
//! A command finds the host through [`Registry`], asks it over HTTP on the host's own loopback port with [`Client`],
//! and is answered by [`Server`], which holds nothing but a [`Host`]: the room knows no proxy and no window, it is given
//! a handle. `attach` turns one such request into a two-way stream of frames (`relay`).
//!
//! Invariants:
//! - Nothing under `/kimiq/` is answered without the control token, compared in constant time; the one exception is the
//!   footer line of a terminal, which needs that terminal's key.
//! - A request whose `Host` header is no loopback name is refused, so that no web page can reach us by a name of its own.
//! - The user's terminal comes back on every way out of an attach.
//! - A host paints for a client only when the client has taken what it was sent before.

mod client;
mod frames;
mod protocol;
mod registry;
#[cfg(unix)]
mod relay;
mod server;

pub use client::{Client, status_line};
pub use frames::{Bye, Down, Hello, HostEnd, Up, accept};
pub use protocol::{
    BudgetInfo, DayInfo, HealthReport, HostError, HourInfo, Pending, PoolInfo, Program, RepairRow,
    Resume, RiseInfo, RunInfo, Send, SnapshotReport, StartRun, StopReport, StopRun, TerminalInfo,
    UpstreamInfo, UsageBy, UsageReport, UsageRow, WaitInfo, WaitedInfo, WhyReport,
};
pub use registry::{Claim, Departure, Entry, Purpose, Registry, is_plain_name};
#[cfg(unix)]
pub use relay::{Screen, relay};
pub use server::{Host, Server, is_loopback_host};

use std::io;

/// Why a host could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// No host of this name lives.
    #[error("no host `{name}` is running")]
    NotRunning {
        /// Name of the host.
        name: String,
    },
    /// The host lives and did not answer.
    #[error("the host `{name}` (process {pid}) does not answer")]
    Unreachable {
        /// Name of the host.
        name: String,
        /// Its process.
        pid: u32,
        /// What went wrong on the way.
        #[source]
        source: io::Error,
    },
    /// The host has no such run or terminal.
    #[error("{message}")]
    NotFound {
        /// The host's own words.
        message: String,
    },
    /// The host is on its way out; another one can be started.
    #[error("the host is stopping")]
    Stopping,
    /// The program of a run could not be started.
    #[error("{message}")]
    Program {
        /// The host's own words.
        message: String,
    },
    /// The host refused.
    #[error("{message}")]
    Refused {
        /// The host's own words.
        message: String,
    },
    /// The answer was not understood: another version answers.
    #[error(
        "the host's answer was not understood; it may be another version of kimiq, so stop it with `kimiq stop`"
    )]
    Answer {
        /// What was wrong with it.
        #[source]
        source: io::Error,
    },
    /// A registry file could not be read or written.
    #[error("failed to use the folder of the instance files")]
    Registry {
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// Attaching needs a person's terminal on both sides.
    #[error(
        "attaching needs a terminal; use --detach, `kimiq ps` and `kimiq snapshot` without one"
    )]
    NoTerminal,
    /// The user's terminal failed.
    #[error("failed to use this terminal")]
    Terminal {
        /// The system's reason.
        #[source]
        source: io::Error,
    },
}
