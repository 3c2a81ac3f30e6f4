//! `kimiq man`: one page per verb, made from the definition.

use crate::cli::args;
use crate::cli::command;
use crate::cli::failure::Outcome;

pub(crate) fn run(args: args::Man) -> Outcome {
    std::fs::create_dir_all(&args.folder)?;
    Ok(clap_mangen::generate_to(command(), &args.folder)?)
}
