//! `kimiq man`: one page per verb, made from the definition.

use std::fs;
use std::io;
use std::io::Write;
use std::path::Path;

use crate::cli::args;
use crate::cli::command;
use crate::cli::failure::Outcome;

pub(crate) fn run(args: args::Man) -> Outcome {
    fs::create_dir_all(&args.folder)?;
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
    let page =
        clap_mangen::Man::new(command.clone()).source(concat!("kimiq ", env!("CARGO_PKG_VERSION")));
    let mut text = Vec::new();
    page.render(&mut text)?;
    let text = with_usage(&String::from_utf8_lossy(&text), command);
    fs::File::create(folder.join(page.get_filename()))?.write_all(text.as_bytes())
}

/// The synopsis as `--help` has it: the generator's own lists every option and leaves its value away.
fn with_usage(page: &str, command: &clap::Command) -> String {
    let usage = command.clone().render_usage().to_string();
    let usage = usage
        .trim_start_matches("Usage:")
        .trim()
        .replace('-', r"\-");
    let mut lines: Vec<&str> = page.lines().collect();
    let heading = lines.iter().position(|line| *line == ".SH SYNOPSIS");
    if let Some(line) = heading.and_then(|at| lines.get_mut(at + 1)) {
        *line = &usage;
    }
    lines.join("\n") + "\n"
}
