//! `kimiq snapshot`: the screen of a terminal as text.

use crate::cli::args;
use crate::cli::block_on;
use crate::cli::context::Context;
use crate::cli::failure::Outcome;

pub(crate) fn run(context: &Context, args: args::Snapshot) -> Outcome {
    let report = block_on(async {
        let (host, terminal) = context.terminal(&args.terminal).await?;
        Ok(host.snapshot(&terminal).await?)
    })?;
    if args.json {
        context.output.json(&report)?;
        return Ok(());
    }
    let used = report
        .lines
        .iter()
        .rposition(|line| !line.is_empty())
        .map_or(0, |last| last + 1);
    for line in &report.lines[..used] {
        context.output.line(line)?;
    }
    Ok(())
}
