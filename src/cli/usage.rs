//! `kimiq usage`: what was consumed and what is left.

use std::time::Duration;

use crate::cli::args;
use crate::cli::args::By;
use crate::cli::block_on;
use crate::cli::context::Context;
use crate::cli::failure::Failure;
use crate::cli::failure::Kind;
use crate::cli::failure::Outcome;
use crate::cli::health::budgets;
use crate::cli::output::Look;
use crate::cli::output::Output;
use crate::config::Resolved;
use crate::control::Client;
use crate::control::ControlError;
use crate::control::RepairRow;
use crate::control::UsageBy;
use crate::control::UsageReport;
use crate::instance;
use crate::usage::figures::grouped;

/// How often `--watch` looks. A person reads no faster.
const PACE: Duration = Duration::from_secs(1);

pub(crate) fn run(context: &Context, args: args::Usage) -> Outcome {
    let by = match args.by {
        By::Terminal => UsageBy::Terminal,
        By::Model => UsageBy::Model,
        By::Day => UsageBy::Day,
    };
    let mut source = Source {
        context,
        days: args.days,
        by,
        host: None,
        settings: None,
    };
    block_on(async {
        let mut last = source.look(false).await?;
        show(context.output, &last, args.json)?;
        if !args.watch {
            return Ok(());
        }
        loop {
            tokio::time::sleep(PACE).await;
            let next = source.look(true).await?;
            if next != last {
                context.output.line("")?;
                show(context.output, &next, args.json)?;
                last = next;
            }
        }
    })
}

/// Where the totals come from: the host while one runs, else the file. Choosing a host and reading the settings may
/// tell the user something, so that each is kept.
struct Source<'a> {
    context: &'a Context,
    days: u16,
    by: UsageBy,
    host: Option<Client>,
    settings: Option<Resolved>,
}

impl Source<'_> {
    /// `again`: a host that has ended since the last look is no failure.
    async fn look(&mut self, again: bool) -> Result<UsageReport, Failure> {
        let found = match self.host.take() {
            Some(host) => Some(host),
            None => match self.context.host() {
                Err(failure) if failure.kind() == Kind::NotRunning => None,
                other => Some(other?),
            },
        };
        if let Some(host) = found {
            match host.usage(self.days, self.by).await {
                Err(ControlError::Unreachable { .. }) if again => {}
                other => {
                    self.host = Some(host);
                    return Ok(other?);
                }
            }
        }
        let settings = match &self.settings {
            Some(settings) => settings.clone(),
            None => self.settings.insert(self.context.settings(&[])?).clone(),
        };
        let setup = self.context.setup(settings);
        Ok(instance::usage_at_rest(&setup, self.days, self.by)?)
    }
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
    repairs(output, report)?;
    budgets(output, &report.pools)?;
    for pool in report.pools.iter().filter(|pool| !pool.advice.is_empty()) {
        let about = format!("what would help {}", pool.name);
        output.line(output.paint(Look::Bold, &about))?;
        for line in &pool.advice {
            output.line(format!("  {line}"))?;
        }
    }
    Ok(())
}

/// What the models' providers garbled, if they did.
fn repairs(output: Output, report: &UsageReport) -> Outcome {
    if report.repairs.is_empty() {
        return Ok(());
    }
    let row = |row: &RepairRow| {
        vec![
            row.model.clone(),
            row.kind.clone(),
            grouped(row.count.into()),
        ]
    };
    let rows: Vec<_> = report.repairs.iter().map(row).collect();
    output.table(&["MODEL", "REPAIRED", "TIMES"], &[2], &rows)?;
    Ok(())
}
