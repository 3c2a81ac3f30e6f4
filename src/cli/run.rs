//! `kimiq run`: starts terminals and attaches to them.

use std::io::IsTerminal;
use std::path::PathBuf;

use crate::cli::args;
use crate::cli::attach;
use crate::cli::block_on;
use crate::cli::client;
use crate::cli::context::Context;
use crate::cli::context::DEMO_HOST;
use crate::cli::context::bad_name;
use crate::cli::failure::Failure;
use crate::cli::failure::Kind;
use crate::cli::failure::Outcome;
use crate::cli::host;
use crate::cli::output::counted;
use crate::cli::summon::summon;
use crate::config::Resolved;
use crate::control::Client;
use crate::control::ControlError;
use crate::control::Program;
use crate::control::RunInfo;
use crate::control::Screen;
use crate::control::StartRun;
use crate::control::is_plain_name;
use crate::instance::DEFAULT_HOST;

pub(crate) fn run(context: &Context, args: args::Run) -> Outcome {
    if let Some(name) = &args.name
        && !is_plain_name(name)
    {
        return Err(bad_name(name));
    }
    let mut flags = Vec::new();
    if let Some(count) = args.terminals {
        flags.push(("--terminals", format!("terminals.count={count}")));
    }
    for (number, weight) in &args.weights {
        if number.is_none() {
            flags.push(("--weight", format!("terminals.weight={weight}")));
        }
    }
    if let Some(steps) = args.max_steps {
        flags.push(("--max-steps", format!("client.max_steps={steps}")));
    }
    if let Some(command) = &args.kimi {
        flags.push(("--kimi", format!("client.command={command}")));
    }
    if args.rewrite_config {
        flags.push(("--rewrite-config", "client.redirect=rewrite".to_owned()));
    }
    let settings = context.settings(&flags)?;
    sensible(&args.weights, small(settings.count("terminals.count"), 1))?;
    let interactive = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    if !interactive && !args.detach && !args.foreground {
        let what = "input and output are no terminal, so there is none to show the run in";
        return Err(Failure::new(Kind::Usage, what).hint("use --detach, and `kimiq attach` later"));
    }
    if interactive && !args.detach {
        attach::outside(context)?;
    }
    if args.exec.is_none() {
        client::make_sure(context, &settings, args.yes)?;
    }
    let ask = describe(context, &settings, &args)?;
    let name = host_name(context, args.demo)?;
    for (host, sessions) in context.just_lost()? {
        context.output.note(format!(
            "the host `{host}` was killed with {} open; `kimiq ps` tells how to go on",
            counted(sessions.len(), "session")
        ));
    }
    if args.foreground {
        return host::foreground(context, settings, &name, args.demo, ask, interactive);
    }
    block_on(async {
        let (client, info) = start(context, &name, args.demo, &ask).await?;
        warn(context, &info);
        if args.detach {
            let run = &info.name;
            let terminals = counted(usize::from(ask.count), "terminal");
            context.output.note(format!(
                "`{run}` runs in the background with {terminals}; `kimiq attach {run}` shows it, `kimiq stop {run}` ends it"
            ));
            return Ok(());
        }
        attach::show(context, &client, &info.name).await
    })
}

/// Starts the run on the host of this name. One that stops in this very moment is followed by another.
async fn start(
    context: &Context,
    name: &str,
    demo: bool,
    ask: &StartRun,
) -> Result<(Client, RunInfo), Failure> {
    let client = summon(context, name, demo).await?;
    match client.start(ask).await {
        Ok(info) => Ok((client, info)),
        Err(error) if never_began(&error) => {
            let client = summon(context, name, demo).await?;
            let info = client.start(ask).await?;
            Ok((client, info))
        }
        Err(error) => Err(error.into()),
    }
}

/// Whether the host surely began no run, so that asking again gives no second one: an answer may also be lost.
fn never_began(error: &ControlError) -> bool {
    match error {
        ControlError::Stopping => true,
        ControlError::Unreachable { source, .. } => {
            source.kind() == std::io::ErrorKind::ConnectionRefused
        }
        _ => false,
    }
}

fn host_name(context: &Context, demo: bool) -> Result<String, Failure> {
    match &context.common.host {
        Some(name) if name == DEMO_HOST && !demo => {
            let what = format!("the name `{DEMO_HOST}` is kept for demos");
            Err(Failure::new(Kind::Usage, what).hint("add --demo, or choose another --host"))
        }
        Some(name) => Ok(name.clone()),
        None if demo => Ok(DEMO_HOST.to_owned()),
        None => Ok(DEFAULT_HOST.to_owned()),
    }
}

fn warn(context: &Context, info: &RunInfo) {
    let mut told = Vec::new();
    for notice in info.terminals.iter().flat_map(|terminal| &terminal.notices) {
        if !told.contains(&notice) {
            context.output.warn(notice);
            told.push(notice);
        }
    }
}

fn describe(context: &Context, settings: &Resolved, args: &args::Run) -> Result<StartRun, Failure> {
    let given = match &args.dirs[..] {
        // A demo brings a folder to work in.
        [] if args.demo && args.exec.is_none() => Vec::new(),
        [] => vec![PathBuf::from(".")],
        dirs => dirs.to_vec(),
    };
    let mut dirs = Vec::new();
    for dir in given {
        let found = dir
            .canonicalize()
            .ok()
            .filter(|dir| dir.is_dir())
            .ok_or_else(|| {
                let what = format!("the folder {} does not exist", dir.display());
                Failure::new(Kind::Usage, what).hint("make it, or name another with --dir")
            })?;
        dirs.push(found);
    }
    let program = match &args.exec {
        Some(program) => Program::Exec {
            program: program.clone(),
        },
        None => Program::Client {
            command: settings.text("client.command").map(ToOwned::to_owned),
        },
    };
    Ok(StartRun {
        name: args.name.clone(),
        count: small(settings.count("terminals.count"), 1),
        weight: u32::from(small(settings.count("terminals.weight"), 1)),
        weights: args
            .weights
            .iter()
            .filter_map(|&(number, weight)| Some((number?, weight)))
            .collect(),
        dirs,
        prompt: args.prompt.clone(),
        program,
        args: args.args.clone(),
        rewrite: settings.text("client.redirect") == Some("rewrite"),
        max_steps: settings
            .count("client.max_steps")
            .and_then(|steps| u32::try_from(steps).ok()),
        quiet: args.demo || settings.switch("client.quiet"),
        status_line: settings.switch("terminals.status_line"),
        stagger: settings.amount("terminals.stagger").unwrap_or(0.0),
        env: context.env.all().clone(),
        size: Screen::size(),
    })
}

/// Each weight is for a terminal that there will be, and none is given twice.
fn sensible(weights: &[(Option<u16>, u32)], count: u16) -> Outcome {
    for (index, (number, _)) in weights.iter().enumerate() {
        let wrong = match number {
            Some(number) if *number > count => {
                format!("there is no terminal {number} to weigh: the run has {count}")
            }
            _ if weights[..index].iter().any(|(other, _)| other == number) => match number {
                Some(number) => format!("the weight of terminal {number} is given twice"),
                None => "the weight of all terminals is given twice".to_owned(),
            },
            _ => continue,
        };
        return Err(Failure::new(Kind::Usage, format!("--weight: {wrong}")));
    }
    Ok(())
}

fn small(number: Option<u64>, usual: u16) -> u16 {
    number
        .and_then(|number| u16::try_from(number).ok())
        .unwrap_or(usual)
}
