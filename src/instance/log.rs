//! The log of a host: a file, never the user's terminal.

use std::fs::File;
use std::fs::OpenOptions;
use std::io;
use std::sync::Arc;

use tracing_subscriber::EnvFilter;

use crate::config::Paths;
use crate::fsx;

/// A log longer than this is put aside when the next host starts.
const LONGEST: u64 = 8 << 20;

/// Where the log of a host goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Log {
    /// To standard error, which the command that started this host made the log file.
    Background,
    /// To standard error: the user watches a server.
    Inherited,
    /// To the host's log file: the terminal shows something else.
    File,
}

/// Opens the log of a host for appending; a long one is put aside as `log.old`.
pub fn open_log(paths: &Paths, name: &str) -> io::Result<File> {
    let path = paths.log(name);
    fsx::create_private_dir(&paths.instance_state(name))?;
    if std::fs::metadata(&path).is_ok_and(|found| found.len() > LONGEST) {
        std::fs::rename(&path, path.with_extension("old"))?;
    }
    let mut options = OpenOptions::new();
    options.create(true).append(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, fsx::PRIVATE);
    options.open(path)
}

/// Starts logging. A second call in one process changes nothing.
pub(crate) fn start(log: Log, paths: &Paths, name: &str, level: &str) -> io::Result<()> {
    // Only our own words: a library's debug lines may hold headers.
    let filter = EnvFilter::new(format!("off,kimiq={level}"));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_target(false)
        .with_ansi(false);
    let started = match log {
        Log::Background | Log::Inherited => builder.with_writer(io::stderr).try_init(),
        Log::File => builder
            .with_writer(Arc::new(open_log(paths, name)?))
            .try_init(),
    };
    if started.is_err() {
        tracing::debug!("logging was started before");
    }
    Ok(())
}
