//! Finding the client program and its home.
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// An environment as a value.
pub type Environment = BTreeMap<OsString, OsString>;

/// Which of the two programs called `kimi` this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Kimi Code, the current client (Node).
    KimiCode,
    /// The archived Python kimi-cli, below 1.52.
    KimiCli,
}

/// A client program that can be started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client {
    /// Which program.
    pub kind: Kind,
    /// Its version where a file tells it.
    pub version: Option<String>,
    /// The program to start.
    pub program: PathBuf,
    /// Arguments that come before ours.
    pub args: Vec<String>,
    /// A folder that must come first in the child's `PATH` (our own client brings its own node).
    pub path_first: Option<PathBuf>,
}

/// Why no client can be started.
#[derive(Debug, thiserror::Error)]
pub enum FindError {}

/// Finds the client: `wanted` ("COMMAND ARGS"), else `kimi` on `PATH`, else our own installed one under `data`. Blocking.
pub fn find(wanted: Option<&str>, env: &Environment, data: &Path) -> Result<Client, FindError>;

impl Client {
    /// The home of the client: `KIMI_CODE_HOME` or `~/.kimi-code`; `KIMI_SHARE_DIR` or `~/.kimi`.
    pub fn home(&self, env: &Environment) -> Result<PathBuf, FindError>;
}
