//! `kimiq completions`: the script of a shell, made from the definition.

use clap_complete::Shell;

use crate::cli::args;
use crate::cli::failure::Outcome;
use crate::cli::output;
use crate::cli::shown_command;

pub(crate) fn run(args: args::Completions) -> Outcome {
    let shell = match args.shell {
        args::Shell::Bash => Shell::Bash,
        args::Shell::Zsh => Shell::Zsh,
        args::Shell::Fish => Shell::Fish,
        args::Shell::Powershell => Shell::PowerShell,
        args::Shell::Elvish => Shell::Elvish,
    };
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut shown_command(), "kimiq", &mut script);
    Ok(output::raw(&script)?)
}
