//! The command line: arguments, one file per verb, the only printer, exit codes.
//!
//! A verb resolves what it needs, asks the host over [`control`](crate::control), and prints. Nothing else in the
//! program prints. Verbs that only ask run on a small runtime of their own; `host`, `proxy` and `--foreground` hand
//! over to [`instance`](crate::instance).
//!
//! It speaks no HTTP and opens no PTY itself.

mod args;
mod attach;
mod client;
mod completions;
mod config;
mod context;
mod doctor;
mod failure;
mod health;
mod host;
mod man;
mod output;
mod proxy;
mod ps;
mod restore;
mod run;
mod send;
mod simulate;
mod snapshot;
mod status_line;
mod stop;
mod summon;
mod usage;
mod why;

use std::process::ExitCode;

use clap::CommandFactory;
use clap::Parser;

use crate::cli::args::Cli;
use crate::cli::args::Verb;
use crate::cli::context::Context;
use crate::cli::failure::Failure;
use crate::cli::failure::Outcome;
use crate::cli::output::Output;
use crate::config::Environment;

/// The definition of the command line, from which help, completions and man pages are made.
pub fn command() -> clap::Command {
    Cli::command()
}

/// The same without the verbs that kimiq itself types, for completions: their generators do not know that a verb is hidden.
pub fn shown_command() -> clap::Command {
    let whole = command();
    let shown = whole.get_subcommands().filter(|verb| !verb.is_hide_set());
    clap::Command::new("kimiq")
        .version(env!("CARGO_PKG_VERSION"))
        .propagate_version(true)
        .disable_help_subcommand(true)
        .args(whole.get_arguments().cloned())
        .subcommands(shown.cloned())
}

/// Runs the command that the process was started with.
pub fn main() -> ExitCode {
    let env = Environment::capture();
    let output = Output::new(&env);
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version come here, too; who closed the pipe has what it wanted.
            if error.print().is_err() {
                return ExitCode::SUCCESS;
            }
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    match perform(cli, env, output) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.end(output),
    }
}

fn perform(cli: Cli, env: Environment, output: Output) -> Outcome {
    if matches!(cli.verb, Verb::StatusLine) {
        return status_line::run(&env, output);
    }
    let context = Context::new(cli.common, env, output)?;
    match cli.verb {
        Verb::Run(args) => run::run(&context, *args),
        Verb::Attach(args) => attach::run(&context, args),
        Verb::Ps(args) => ps::run(&context, args),
        Verb::Send(args) => send::run(&context, args),
        Verb::Snapshot(args) => snapshot::run(&context, args),
        Verb::Usage(args) => usage::run(&context, args),
        Verb::Health(args) => health::run(&context, args),
        Verb::Why(args) => why::run(&context, args),
        Verb::Stop(args) => stop::run(&context, args),
        Verb::Restore(args) => restore::run(&context, args),
        Verb::Proxy(args) => proxy::run(&context, args),
        Verb::Simulate(args) => simulate::run(&context, args),
        Verb::Config(args) => config::run(&context, args),
        Verb::Doctor(args) => doctor::run(&context, args),
        Verb::Client(args) => client::run(&context, args),
        Verb::Completions(args) => completions::run(args),
        Verb::Host(args) => host::run(&context, args),
        Verb::Man(args) => man::run(args),
        Verb::StatusLine => Ok(()),
    }
}

/// A runtime for a verb that asks and prints.
fn block_on<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let outcome = runtime.block_on(work);
    // A write to a terminal that takes no more must not hold the command.
    runtime.shutdown_background();
    outcome
}
