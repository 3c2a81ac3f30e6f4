//! `kimiq man`: one page per verb, made from the definition.

use std::io;
use std::path::Path;

use crate::cli::args;
use crate::cli::command;
use crate::cli::failure::Outcome;

pub(crate) fn run(args: args::Man) -> Outcome {
    std::fs::create_dir_all(&args.folder)?;
    let mut whole = command();
    whole.build();
    Ok(write(&whole, &args.folder)?)
}

fn write(command: &clap::Command, folder: &Path) -> io::Result<()> {
    for inner in command
        .get_subcommands()
        .filter(|inner| !inner.is_hide_set())
    {
        write(inner, folder)?;
    }
    // Left to itself, the footer of a verb's page names the verb as the program.
    clap_mangen::Man::new(command.clone())
        .source(concat!("kimiq ", env!("CARGO_PKG_VERSION")))
        .generate_to(folder)?;
    Ok(())
}
