//! What makes a host a background process: a session of its own, and no hold on the terminal that started it.

use std::io;

/// Leaves the session of the command that started us, so that the end of its terminal is none of ours.
pub fn leave_session() {
    #[cfg(unix)]
    if let Err(error) = rustix::process::setsid() {
        // We lead a session already.
        tracing::debug!(%error, "no new session");
    }
}

/// Lets go of standard output: the command that started us waits for its end. What would be printed goes to the log.
pub fn let_go_of_stdout() -> io::Result<()> {
    #[cfg(unix)]
    rustix::stdio::dup2_stdout(io::stderr())?;
    Ok(())
}
