//! `kimiq send`: types into a terminal.

use crate::cli::args;
use crate::cli::block_on;
use crate::cli::context::Context;
use crate::cli::failure::Outcome;
use crate::control::Send;

pub(crate) fn run(context: &Context, args: args::Send) -> Outcome {
    block_on(async {
        let (host, terminal) = context.terminal(&args.terminal).await?;
        let ask = Send {
            terminal,
            text: args.text.join(" "),
            enter: !args.no_enter,
        };
        Ok(host.send(&ask).await?)
    })
}
