//! How a command fails: a kind with a documented exit code, the chain of causes, and hints.
//!
//! Errors describe their own level only; the chain is printed once, here, as `caused by:` lines. A broken pipe is no
//! failure.

use std::error::Error;
use std::fmt;
use std::io;
use std::process::ExitCode;

use serde::Deserialize;
use serde::Serialize;

use crate::cli::output::Output;
use crate::config::ConfigError;
use crate::control::ControlError;
use crate::control::HostError;
use crate::instance::InstanceError;

/// What kind of failure, and so which exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The reader of the result went away: it has what it wanted.
    ReaderGone,
    Failed,
    Usage,
    Settings,
    NotRunning,
    Unwell,
    Client,
}

impl Kind {
    /// The code that `--help` documents.
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::ReaderGone => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Settings => 3,
            Self::NotRunning => 4,
            Self::Unwell => 5,
            Self::Client => 6,
        }
    }
}

/// A failed command.
#[derive(Debug)]
pub(crate) struct Failure {
    kind: Kind,
    what: String,
    causes: Vec<String>,
    hints: Vec<String>,
    /// Everything was told already; only the exit code is left to say.
    silent: bool,
}

#[derive(Serialize, Deserialize)]
struct Told {
    code: u8,
    text: String,
}

/// What a verb returns.
pub(crate) type Outcome = Result<(), Failure>;

impl Failure {
    pub(crate) fn new(kind: Kind, what: impl fmt::Display) -> Self {
        Self {
            kind,
            what: what.to_string(),
            causes: Vec::new(),
            hints: Vec::new(),
            silent: false,
        }
    }

    /// A failure with the whole chain of an error below it.
    pub(crate) fn from_error(kind: Kind, error: &dyn Error) -> Self {
        let mut failure = Self::new(kind, error);
        let mut next = error.source();
        while let Some(cause) = next {
            failure.causes.push(cause.to_string());
            next = cause.source();
        }
        failure
    }

    /// Only an exit code: the result on standard output says what is wrong.
    pub(crate) fn quiet(kind: Kind) -> Self {
        Self {
            silent: true,
            ..Self::new(kind, "")
        }
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    /// The failure as one line, for the command that started a host.
    pub(crate) fn as_line(&self) -> String {
        let told = Told {
            code: self.kind.code(),
            text: self.to_string(),
        };
        serde_json::to_string(&told).unwrap_or_else(|_| "failed".to_owned())
    }

    /// What [`Self::as_line`] said.
    pub(crate) fn told(line: &str) -> Self {
        let Ok(told) = serde_json::from_str::<Told>(line) else {
            return Self::new(Kind::Failed, format!("the host said `{line}`"));
        };
        let kinds = [
            Kind::Usage,
            Kind::Settings,
            Kind::NotRunning,
            Kind::Unwell,
            Kind::Client,
        ];
        let kind = kinds.into_iter().find(|kind| kind.code() == told.code);
        Self::new(kind.unwrap_or(Kind::Failed), told.text)
    }

    /// Tells the failure and gives the exit code.
    pub(crate) fn end(self, output: Output) -> ExitCode {
        if !self.silent {
            output.error(self.to_string());
        }
        ExitCode::from(self.kind.code())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        for cause in &self.causes {
            write!(f, "\n  caused by: {cause}")?;
        }
        if !self.hints.is_empty() {
            f.write_str("\n")?;
        }
        for hint in &self.hints {
            write!(f, "\n  {hint}")?;
        }
        Ok(())
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::from_error(Kind::Settings, &error)
    }
}

impl From<ControlError> for Failure {
    fn from(error: ControlError) -> Self {
        match &error {
            ControlError::NotRunning { .. } => {
                Self::from_error(Kind::NotRunning, &error).hint("start one with `kimiq run`")
            }
            ControlError::NotFound { .. } => {
                Self::from_error(Kind::NotRunning, &error).hint("`kimiq ps` lists what there is")
            }
            ControlError::Program { .. } => Self::from_error(Kind::Client, &error),
            _ => Self::from_error(Kind::Failed, &error),
        }
    }
}

impl From<InstanceError> for Failure {
    fn from(error: InstanceError) -> Self {
        let kind = match &error {
            InstanceError::Refused(HostError::Program(_)) => Kind::Client,
            _ => Kind::Failed,
        };
        Self::from_error(kind, &error)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self::quiet(Kind::ReaderGone);
        }
        Self::from_error(Kind::Failed, &error)
    }
}
