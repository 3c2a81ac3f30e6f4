//! The command line: arguments, one file per verb, the only printer, exit codes.

mod args;
mod failure;
mod output;

use std::process::ExitCode;

/// Runs the command that the process was started with.
pub fn main() -> ExitCode {
    ExitCode::SUCCESS
}
