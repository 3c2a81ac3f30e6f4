//! `kimiq usage`: what was consumed and what is left.

use std::time::Duration;

use crate::cli::args;
use crate::cli::args::By;
use crate::cli::block_on;
use crate::cli::context::Context;
use crate::cli::failure::Outcome;
use crate::cli::health::budgets;
use crate::cli::output::Look;
use crate::cli::output::Output;
use crate::cli::output::grouped;
use crate::control::UsageBy;
use crate::control::UsageReport;
use crate::instance;

/// How often `--watch` looks. A person reads no faster.
const PACE: Duration = Duration::from_secs(1);

pub(crate) fn run(context: &Context, args: args::Usage) -> Outcome {
    let by = match args.by {
        By::Terminal => UsageBy::Terminal,
        By::Model => UsageBy::Model,
        By::Day => UsageBy::Day,
    };
    if context.hosts_or_none()?.is_empty() {
        let setup = context.setup(context.settings(&[])?);
        let report = instance::usage_at_rest(&setup, args.days, by)?;
        return show(context.output, &report, args.json);
    }
    block_on(async {
        let host = context.host()?;
        let mut last = host.usage(args.days, by).await?;
        show(context.output, &last, args.json)?;
        if !args.watch {
            return Ok(());
        }
        loop {
            tokio::time::sleep(PACE).await;
            let next = host.usage(args.days, by).await?;
            if next != last {
                context.output.line("")?;
                show(context.output, &next, args.json)?;
                last = next;
            }
        }
    })
}

fn show(output: Output, report: &UsageReport, json: bool) -> Outcome {
    if json {
        output.json(report)?;
        return Ok(());
    }
    let today = &report.today;
    output.line(format!(
        "{} ({}): {} of {} tokens, {} left",
        output.paint(Look::Bold, &today.date),
        today.time_zone,
        grouped(today.total),
        grouped(today.cap),
        grouped(today.left),
    ))?;
    if !report.rows.is_empty() {
        let kind = match report.by {
            UsageBy::Terminal => "TERMINAL",
            UsageBy::Model => "MODEL",
            UsageBy::Day => "DAY",
        };
        let rows: Vec<_> = report
            .rows
            .iter()
            .map(|row| {
                vec![
                    row.day.clone(),
                    row.key.clone(),
                    grouped(row.requests),
                    grouped(row.tokens.prompt),
                    grouped(row.tokens.cached),
                    grouped(row.tokens.generated),
                    grouped(row.tokens.total()),
                ]
            })
            .collect();
        let head = [
            "DATE",
            kind,
            "REQUESTS",
            "PROMPT",
            "CACHED",
            "GENERATED",
            "TOTAL",
        ];
        output.table(&head, &[2, 3, 4, 5, 6], &rows)?;
    }
    budgets(output, &report.pools)
}
