//! `kimiq health`: whether the host and what it needs are well; the exit code is for scripts.

use crate::cli::args::Listing;
use crate::cli::block_on;
use crate::cli::context::Context;
use crate::cli::failure::Failure;
use crate::cli::failure::Kind;
use crate::cli::failure::Outcome;
use crate::cli::output::Look;
use crate::cli::output::Output;
use crate::cli::output::counted;
use crate::control::HealthReport;
use crate::control::PoolInfo;
use crate::usage::figures::grouped;

pub(crate) fn run(context: &Context, args: Listing) -> Outcome {
    let health = block_on(async { Ok(context.host()?.health(true).await?) })?;
    if args.json {
        context.output.json(&health)?;
    } else {
        show(context.output, &health)?;
    }
    if health.ok {
        Ok(())
    } else {
        Err(Failure::quiet(Kind::Unwell))
    }
}

fn show(output: Output, health: &HealthReport) -> Outcome {
    let word = if health.ok {
        output.paint(Look::Green, "well")
    } else {
        output.paint(Look::Red, "not well")
    };
    output.line(format!(
        "host {} is {word}: {}, process {}, port {}, kimiq {}, since {}",
        health.host, health.state, health.pid, health.port, health.version, health.started,
    ))?;
    output.line(format!(
        "{}, {}, {} waiting{}",
        counted(health.runs, "run"),
        counted(health.terminals, "terminal"),
        health.queue,
        if health.queue > 0 {
            format!(", the longest for {:.0} s", health.longest_wait)
        } else {
            String::new()
        },
    ))?;
    for upstream in &health.upstreams {
        let word = if upstream.reachable {
            output.paint(Look::Green, "reachable")
        } else {
            output.paint(Look::Red, "not reachable")
        };
        let why = upstream
            .error
            .as_ref()
            .map(|why| format!(" ({why})"))
            .unwrap_or_default();
        output.line(format!(
            "upstream {} at {}: {word}{why}",
            upstream.name, upstream.url
        ))?;
    }
    budgets(output, &health.pools)?;
    for notice in &health.notices {
        output.warn(notice);
    }
    Ok(())
}

/// The budgets of the last minute, as a table.
pub(crate) fn budgets(output: Output, pools: &[PoolInfo]) -> Outcome {
    if pools.is_empty() {
        return Ok(());
    }
    let unknown = || "-".to_owned();
    let mut rows = Vec::new();
    for pool in pools {
        for budget in &pool.budgets {
            rows.push(vec![
                pool.name.clone(),
                budget.name.clone(),
                grouped(budget.used),
                budget.limit.map_or_else(unknown, grouped),
                budget
                    .limit
                    .map_or_else(unknown, |_| budget.percent.to_string()),
            ]);
        }
    }
    output.table(
        &["POOL", "BUDGET", "USED", "USABLE", "FULL"],
        &[2, 3, 4],
        &rows,
    )?;
    Ok(())
}
