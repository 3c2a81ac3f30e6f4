//! The client program: where it lives, what its configuration says, and how its traffic is led to the proxy.
//!
//! Two programs are called `kimi`: Kimi Code (current, Node) and the archived Python kimi-cli. [`find`] tells them apart by
//! reading files, [`Overlay`] gives Kimi Code a private home whose model aliases point at the proxy, [`Rewrite`] edits the
//! real file under an undo journal where a user asks for that, [`legacy`] generates a configuration file for kimi-cli, and
//! [`launch`] turns all of it into a program, arguments and an environment.
//!
//! # Invariants
//!
//! - The user's own configuration is never left changed by us, whatever kills the program: the overlay does not touch it, the
//!   rewrite can be undone from its synced journal, and what a user changed inside a terminal is carried back without our
//!   addresses.
//! - Where both the terminal and the user's file changed the same key, the user's file wins.
//! - kimi-cli 1.52, which installs software when it is run without arguments, is never started in a terminal; a program whose
//!   files do not tell what it is gets one `--version` and nothing else.
//! - A provider's own `base_url` is never edited: Kimi Code 2.1.0 undoes that for its open platforms and loses the login of
//!   its managed plan (measured).
//!
//! # What it does not do
//!
//! It knows no proxy: it is given an address such as `http://127.0.0.1:4711` and returns the [`Route`]s that must be
//! served there under `/p/<route>` and `/t/<key>/<route>`. It starts no terminal and reads no environment: both come in as
//! values.

mod demo;
mod document;
pub mod ending;
mod entries;
mod home;
mod identify;
mod install;
#[cfg(unix)]
#[cfg(test)]
mod kill_tests;
pub mod launch;
mod leftovers;
pub mod legacy;
mod made;
mod merge;
mod overlay;
mod rewrite;
#[cfg(unix)]
#[cfg(test)]
mod scratch;
mod tui_file;
mod upstream;
mod watch;

pub use demo::{Demo, prepare_demo};
pub use document::{DocumentError, Redirected, carry_back, redirect, strip};
pub use home::{Client, Environment, FindError, Kind, find};
pub use install::{InstallError, KIMI_CODE_VERSION, NODE_VERSION, install, installed};
pub use launch::{LaunchSpec, Options};
pub use overlay::{Overlay, OverlayError, Setup, Synced, user_status_command};
pub use rewrite::{Rewrite, RewriteError, Undone};
pub use upstream::{Route, Warning, Wire};
pub use watch::Watch;
