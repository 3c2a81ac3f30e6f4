//! `kimiq stop`: ends a run or every host, and tells how to go on with each session.

use std::time::Duration;

use crate::cli::args;
use crate::cli::block_on;
use crate::cli::context::Context;
use crate::cli::failure::Failure;
use crate::cli::failure::Kind;
use crate::cli::failure::Outcome;
use crate::cli::restore;
use crate::control::Client;
use crate::control::ControlError;
use crate::control::Departure;
use crate::control::StopReport;
use crate::control::StopRun;
use crate::instance;

pub(crate) fn run(context: &Context, args: args::Stop) -> Outcome {
    block_on(async {
        if let Some(run) = &args.run {
            let (host, _) = context.host_of_run(Some(run)).await?;
            let ask = StopRun {
                run: Some(run.clone()),
                now: args.now,
            };
            let departure = host.entry().departure();
            let report = host.stop(&ask).await?;
            if report.host_ends {
                gone(context, &host, departure).await?;
            }
            return tell(context, &report);
        }
        let hosts = context.hosts()?;
        if hosts.is_empty() {
            context.output.note("no host is running");
        }
        let mut failed = Vec::new();
        for host in hosts {
            let ask = StopRun {
                run: None,
                now: args.now,
            };
            let departure = host.entry().departure();
            match host.stop(&ask).await {
                Ok(report) => {
                    gone(context, &host, departure).await?;
                    tell(context, &report)?;
                }
                Err(ControlError::Unreachable { .. }) if args.now => {
                    let pid = host.entry().pid;
                    let done = instance::kill_host(host.entry(), &context.registry, &context.paths)
                        .await?;
                    context.output.warn(format!(
                        "the host (process {pid}) did not answer and was killed"
                    ));
                    restore::tell(context, &done.restored)?;
                    let state = context.paths.instance_state(&host.entry().name);
                    for line in instance::resume_lines(&instance::lost_sessions(&state, false)?) {
                        context.output.line(line)?;
                    }
                    instance::forget_sessions(&state)?;
                    failed.extend(done.failed);
                }
                Err(error) => {
                    let name = &host.entry().name;
                    return Err(Failure::from(error)
                        .hint(format!("`kimiq stop --now --host {name}` ends it by force")));
                }
            }
        }
        restore::complain(&failed)
    })
}

/// Waits until the host's process has left, and with it its port and files.
async fn gone(context: &Context, host: &Client, departure: Departure) -> Outcome {
    let waited =
        tokio::time::timeout(Duration::from_mins(1), departure.wait(&context.registry)).await;
    if let Ok(gone) = waited {
        return Ok(gone?);
    }
    let what = format!(
        "the host (process {}) is still busy with its end",
        host.entry().pid
    );
    Err(Failure::new(Kind::Failed, what).hint("`kimiq stop --now` shortens it"))
}

fn tell(context: &Context, report: &StopReport) -> Outcome {
    for run in &report.runs {
        context.output.note(format!("`{run}` has ended"));
    }
    for line in instance::resume_lines(&report.sessions) {
        context.output.line(line)?;
    }
    if report.host_ends {
        context.output.note("the host has ended");
    }
    Ok(())
}
