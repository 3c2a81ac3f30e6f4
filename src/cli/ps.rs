//! `kimiq ps`: runs and their terminals, with state.

use serde::Serialize;

use crate::cli::args::Listing;
use crate::cli::block_on;
use crate::cli::context::Context;
use crate::cli::failure::Outcome;
use crate::cli::output::Look;
use crate::cli::output::Output;
use crate::control::RunInfo;
use crate::control::TerminalInfo;
use crate::instance;
use crate::usage::figures::grouped;

#[derive(Serialize)]
struct HostRuns {
    host: String,
    pid: u32,
    port: u16,
    runs: Vec<RunInfo>,
}

pub(crate) fn run(context: &Context, args: Listing) -> Outcome {
    let hosts = block_on(async {
        let mut listed = Vec::new();
        for host in context.hosts()? {
            let runs = host.runs().await?;
            let entry = host.entry();
            listed.push(HostRuns {
                host: entry.name.clone(),
                pid: entry.pid,
                port: entry.port,
                runs,
            });
        }
        Ok(listed)
    })?;
    let output = context.output;
    if args.json {
        output.json(&hosts)?;
        return Ok(());
    }
    let all = hosts.iter().flat_map(|host| &host.runs);
    let weighted = all
        .flat_map(|run| &run.terminals)
        .any(|terminal| terminal.weight != 1);
    let rows: Vec<Vec<String>> = hosts
        .iter()
        .flat_map(|host| &host.runs)
        .flat_map(|run| {
            run.terminals
                .iter()
                .map(move |terminal| row(output, run, terminal, weighted))
        })
        .collect();
    for host in hosts.iter().filter(|host| host.runs.is_empty()) {
        output.note(format!(
            "the host `{}` runs without terminals, process {}, port {}",
            host.host, host.pid, host.port
        ));
    }
    for (host, sessions) in context.lost()? {
        let lines = instance::resume_lines(&sessions).join("\n");
        output.note(format!("the host `{host}` was killed; {lines}"));
    }
    if rows.is_empty() {
        output.note("no terminals; `kimiq run` starts some");
        return Ok(());
    }
    let mut head = vec![
        "TERMINAL", "STATE", "REQUESTS", "TOKENS", "PID", "DIR", "TITLE",
    ];
    let mut numbers = vec![2, 3, 4];
    if weighted {
        head.push("WEIGHT");
        numbers.push(head.len() - 1);
    }
    output.table(&head, &numbers, &rows)?;
    for host in &hosts {
        for run in &host.runs {
            for terminal in &run.terminals {
                for notice in &terminal.notices {
                    output.warn(format!("{}:{}: {notice}", run.name, terminal.number));
                }
            }
        }
    }
    Ok(())
}

fn row(output: Output, run: &RunInfo, terminal: &TerminalInfo, weighted: bool) -> Vec<String> {
    let look = match terminal.state.as_str() {
        "working" => Look::Green,
        "waiting" | "needs_approval" | "asks" | "needs_trust" => Look::Yellow,
        "bypassing" | "retrying" => Look::Red,
        _ => Look::Dim,
    };
    let words = match &terminal.wait {
        Some(wait) if terminal.state == "waiting" => wait.clone(),
        Some(wait) => format!("{}: {wait}", terminal.words),
        None => terminal.words.clone(),
    };
    let mut cells = vec![
        format!("{}:{}", run.name, terminal.number),
        output.paint(look, &words),
        terminal.requests.to_string(),
        grouped(terminal.tokens.total()),
        terminal
            .pid
            .map_or_else(|| "-".to_owned(), |pid| pid.to_string()),
        terminal.dir.display().to_string(),
        terminal.title.chars().filter(|c| !c.is_control()).collect(),
    ];
    if weighted {
        cells.push(terminal.weight.to_string());
    }
    cells
}
