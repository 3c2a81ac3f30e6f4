//! Settings: built-in defaults, user file, environment and flags, resolved once, each value with its origin.
//!
//! Every setting stands once in `setting.rs` (its key, what it may hold, the first proxy's variable for it) and once
//! in `defaults.toml` (its default and its documentation); a test compares the two. A value is checked in the layer
//! that gave it, so that a mistake is reported with the place where a person can mend it.
//!
//! Invariants:
//! - `env.rs` is the only reader of the process environment in the whole program.
//! - After `resolve` nothing can fail for a bad setting: the typed getters cannot meet a wrong shape.
//! - A secret leaves this room only as a [`Secret`], which no formatter prints.
//!
//! The room writes no file. It does not know flags: the command line hands it `key=value` pairs.

mod env;
mod file;
mod paths;
mod resolve;
mod secret;
mod setting;
mod value;

pub use env::{Environment, INSIDE};
pub use file::Warning;
pub use paths::Paths;
pub use resolve::{Origin, Resolved, Row, resolve};
pub use secret::Secret;
pub use setting::{SETTINGS, Setting};
pub use value::{Shape, Value};

use std::path::PathBuf;

/// The documented defaults, as the text that `kimiq config show --defaults` prints.
pub const DEFAULTS: &str = include_str!("defaults.toml");

/// Why the settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A value does not fit its setting.
    #[error("`{key}` from {origin} is `{found}`; expected {expected}")]
    Value {
        /// The setting.
        key: String,
        /// Where the value was given.
        origin: Origin,
        /// What was given.
        found: String,
        /// What the setting takes, with an example.
        expected: String,
    },
    /// `--set` named no setting.
    #[error("there is no setting `{key}`; `kimiq config show` lists them all")]
    NoSuchSetting {
        /// What was named.
        key: String,
    },
    /// `--set` was not `key=value`.
    #[error("`{given}` is not `key=value`, such as `limits.window=60`")]
    NotAPair {
        /// What was given.
        given: String,
    },
    /// The settings file is no TOML.
    #[error("failed to parse {}", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// Line, column and reason.
        #[source]
        source: Box<toml::de::Error>,
    },
    /// The settings file or a file that a key names could not be read.
    #[error("failed to read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: std::io::Error,
    },
    /// A secret names a variable that is not set.
    #[error(
        "`{key}` names the variable `{variable}`, which is not set; export it or give `file:PATH`"
    )]
    NoVariable {
        /// The setting.
        key: String,
        /// The variable it names.
        variable: String,
    },
    /// The platform has no folder of this kind for this user.
    #[error("this user has no {kind} folder; set KIMIQ_HOME to a folder of your choice")]
    NoFolder {
        /// `configuration`, `state` or `data`.
        kind: &'static str,
    },
}
