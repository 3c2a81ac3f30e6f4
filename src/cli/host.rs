//! The hidden verb `host`, and `run --foreground`: this process is the host.
//!
//! A background host tells on its standard output that it is ready, or why not, in one line; then it lets go of it.

use crate::cli::args;
use crate::cli::attach;
use crate::cli::context::Context;
use crate::cli::failure::Failure;
use crate::cli::failure::Outcome;
use crate::config::Resolved;
use crate::control::Bye;
use crate::control::Screen;
use crate::control::StartRun;
use crate::control::relay;
use crate::instance;
use crate::instance::DEFAULT_HOST;
use crate::instance::Setup;

pub(crate) fn run(context: &Context, args: args::Host) -> Outcome {
    let name = context
        .common
        .host
        .clone()
        .unwrap_or_else(|| DEFAULT_HOST.to_owned());
    let settings = match context.settings(&[]) {
        Ok(settings) => settings,
        Err(failure) => return tell(context, failure),
    };
    let setup = setup(context, settings, &name, args.demo);
    instance::leave_session();
    let served = instance::run(setup, instance::Log::Background, async |host| {
        context.output.line("ready").map_err(Failure::from)?;
        instance::let_go_of_stdout()?;
        host.ended().await;
        Ok::<(), Failure>(())
    });
    match served {
        Ok(outcome) => outcome,
        Err(error) => tell(context, Failure::from(error)),
    }
}

/// The command that started us reads one line; it prints the failure and ends with its code.
fn tell(context: &Context, failure: Failure) -> Outcome {
    context.output.line(failure.as_line())?;
    Err(failure)
}

/// Host, run and window in one process.
pub(crate) fn foreground(
    context: &Context,
    settings: Resolved,
    name: &str,
    demo: bool,
    ask: StartRun,
    interactive: bool,
) -> Outcome {
    let setup = setup(context, settings, name, demo);
    let log = if interactive {
        instance::Log::File
    } else {
        instance::Log::Inherited
    };
    instance::run(setup, log, async |host| {
        let info = host.start(ask).await?;
        if !interactive {
            context.output.note(format!(
                "`{}` runs until its programs end; interrupt ends it now",
                info.name
            ));
            let report = host.ended_with(&info.name).await;
            for line in instance::resume_lines(&report.sessions) {
                context.output.line(line)?;
            }
            return Ok(());
        }
        let mut hello = attach::hello(context, &info.name);
        hello.last = true;
        let stream = host.window();
        let bye = {
            let screen = Screen::take(instance::leave_sequence())?;
            relay(stream, &hello, screen).await?
        };
        if let Bye::Detached { run } = &bye {
            context.output.note(format!(
                "`{run}` ends with its window; it runs in the foreground"
            ));
            let report = host.ended().await;
            for line in instance::resume_lines(&report.sessions) {
                context.output.line(line)?;
            }
            return Ok(());
        }
        attach::tell(context, bye)
    })?
}

fn setup(context: &Context, settings: Resolved, name: &str, demo: bool) -> Setup {
    Setup {
        name: name.to_owned(),
        demo,
        paths: context.paths.clone(),
        settings,
        env: context.env.clone(),
    }
}
