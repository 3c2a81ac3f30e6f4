//! `kimiq why`: why terminals wait, and until when.

use crate::cli::args;
use crate::cli::block_on;
use crate::cli::context::Context;
use crate::cli::failure::Outcome;

pub(crate) fn run(context: &Context, args: args::Why) -> Outcome {
    let reports = block_on(async {
        if let Some(given) = &args.terminal {
            let (host, terminal) = context.terminal(given).await?;
            return Ok(host.why(Some(&terminal)).await?);
        }
        Ok(context.host()?.why(None).await?)
    })?;
    if args.json {
        context.output.json(&reports)?;
        return Ok(());
    }
    if reports.is_empty() {
        context.output.line("nothing waits")?;
    }
    for report in reports {
        let who = match &report.terminal {
            Some(terminal) => terminal,
            None if report.state == "capped" => "every request",
            None => "a request from outside",
        };
        context.output.line(format!("{who}: {}", report.why))?;
    }
    Ok(())
}
