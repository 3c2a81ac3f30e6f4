//! `kimiq attach`: a window on a run.

use crate::cli::args;
use crate::cli::block_on;
use crate::cli::context::Context;
use crate::cli::failure::Failure;
use crate::cli::failure::Kind;
use crate::cli::failure::Outcome;
use crate::control::Bye;
use crate::control::Client;
use crate::control::Hello;
use crate::control::Screen;
use crate::control::relay;
use crate::instance;

pub(crate) fn run(context: &Context, args: args::Attach) -> Outcome {
    block_on(async {
        let (host, run) = context.host_of_run(args.run.as_deref()).await?;
        show(context, &host, &run.name).await
    })
}

/// Shows a run until it ends or the user lets go.
pub(crate) async fn show(context: &Context, host: &Client, run: &str) -> Outcome {
    outside(context)?;
    let hello = hello(context, run);
    let stream = host.attach().await?;
    let bye = {
        let screen = Screen::take(instance::leave_sequence())?;
        relay(stream, &hello, screen).await?
    };
    tell(context, bye)
}

/// A window inside a terminal that it shows would show itself.
pub(crate) fn outside(context: &Context) -> Outcome {
    match context.env.get("KIMIQ_TERMINAL") {
        None => Ok(()),
        Some(terminal) => {
            let what = format!("this is the terminal {terminal} of kimiq itself");
            Err(Failure::new(Kind::Usage, what)
                .hint("open another window of your terminal program, or use --detach"))
        }
    }
}

pub(crate) fn hello(context: &Context, run: &str) -> Hello {
    let text = |name: &str| context.env.get(name).unwrap_or_default().to_owned();
    Hello {
        run: Some(run.to_owned()),
        size: Screen::size(),
        term: text("TERM"),
        colorterm: text("COLORTERM"),
        no_color: context.env.get("NO_COLOR").is_some(),
        last: false,
    }
}

/// Says why the window closed.
pub(crate) fn tell(context: &Context, bye: Bye) -> Outcome {
    match bye {
        Bye::Detached { run } => {
            context
                .output
                .note(format!("`{run}` goes on; `kimiq attach {run}` comes back"));
            Ok(())
        }
        Bye::Ended { run, lines } => {
            context.output.note(format!("`{run}` has ended"));
            for line in lines {
                context.output.line(line)?;
            }
            Ok(())
        }
        Bye::Refused { message } => Err(Failure::new(Kind::Failed, message)),
    }
}
