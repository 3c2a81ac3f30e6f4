//! `kimiq stop`: ends a run or the host, and tells how to go on with each session.

use std::time::Duration;

use crate::cli::args;
use crate::cli::block_on;
use crate::cli::context::Context;
use crate::cli::failure::Failure;
use crate::cli::failure::Kind;
use crate::cli::failure::Outcome;
use crate::control::Client;
use crate::control::ControlError;
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
            let report = host.stop(&ask).await?;
            if report.host_ends {
                gone(context, &host).await?;
            }
            return tell(context, &report);
        }
        let hosts = context.hosts()?;
        if hosts.is_empty() {
            context.output.note("no host is running");
        }
        for host in hosts {
            let ask = StopRun {
                run: None,
                now: args.now,
            };
            match host.stop(&ask).await {
                Ok(report) => {
                    gone(context, &host).await?;
                    tell(context, &report)?;
                }
                Err(ControlError::Unreachable { .. }) if args.now => {
                    let pid = host.entry().pid;
                    instance::kill_host(host.entry(), &context.registry, &context.paths.state)
                        .await?;
                    context.output.warn(format!(
                        "the host (process {pid}) did not answer and was killed"
                    ));
                }
                Err(error) => {
                    let name = &host.entry().name;
                    return Err(Failure::from(error)
                        .hint(format!("`kimiq stop --now --host {name}` ends it by force")));
                }
            }
        }
        Ok(())
    })
}

/// Waits until the host's process has left: its lock is free then, and so are its port and files.
async fn gone(context: &Context, host: &Client) -> Outcome {
    let (registry, name) = (context.registry.clone(), host.entry().name.clone());
    let waiting = tokio::task::spawn_blocking(move || registry.claim_when_free(&name).map(drop));
    match tokio::time::timeout(Duration::from_mins(1), waiting).await {
        Ok(Ok(Ok(()))) => Ok(()),
        Ok(Ok(Err(error))) => Err(error.into()),
        Ok(Err(_)) | Err(_) => {
            let what = format!(
                "the host (process {}) is still busy with its end",
                host.entry().pid
            );
            Err(Failure::new(Kind::Failed, what).hint("`kimiq stop --now` shortens it"))
        }
    }
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
