//! `kimiq client install`, and the question before a run on a machine without a client.

use std::ffi::OsString;

use crate::cli::args;
use crate::cli::args::ClientVerb;
use crate::cli::block_on;
use crate::cli::context::Context;
use crate::cli::failure::Failure;
use crate::cli::failure::Kind;
use crate::cli::failure::Outcome;
use crate::cli::output;
use crate::config::Resolved;
use crate::kimi;
use crate::kimi::FindError;

pub(crate) fn run(context: &Context, args: args::Client) -> Outcome {
    let ClientVerb::Install { yes } = args.what;
    if kimi::installed(&context.paths.data).is_some() {
        context.output.note(format!(
            "Kimi Code {} is installed already",
            kimi::KIMI_CODE_VERSION
        ));
        return Ok(());
    }
    if !yes && !output::ask(&question(context)) {
        return Err(Failure::new(Kind::Client, "nothing was installed")
            .hint("--yes installs without a question"));
    }
    install(context)
}

/// Finds the client, or offers to install it.
pub(crate) fn make_sure(context: &Context, settings: &Resolved, yes: bool) -> Outcome {
    let wanted = settings.text("client.command").map(ToOwned::to_owned);
    let env = environment(context);
    let found =
        block_on(async { Ok(kimi::find(wanted.as_deref(), &env, &context.paths.data).await) })?;
    match found {
        Ok(_) => Ok(()),
        Err(error @ (FindError::None | FindError::Refused { .. })) => {
            if yes || output::ask(&format!("{error}. {}", question(context))) {
                return install(context);
            }
            Err(Failure::from_error(Kind::Client, &error).hint(error.hint()))
        }
        Err(error) => Err(Failure::from_error(Kind::Client, &error).hint(error.hint())),
    }
}

fn install(context: &Context) -> Outcome {
    let env = environment(context);
    let client = block_on(async {
        let mut progress = |line: &str| context.output.note(line);
        kimi::install(&context.paths.data, &env, &mut progress)
            .await
            .map_err(|error| Failure::from_error(Kind::Client, &error))
    })?;
    context
        .output
        .note(format!("installed {}", client.program.display()));
    Ok(())
}

fn question(context: &Context) -> String {
    format!(
        "Install Kimi Code {} with npm into {}, for kimiq alone?",
        kimi::KIMI_CODE_VERSION,
        context.paths.data.display(),
    )
}

/// The environment as the client's room takes it.
pub(crate) fn environment(context: &Context) -> kimi::Environment {
    context
        .env
        .all()
        .iter()
        .map(|(name, value)| (OsString::from(name), OsString::from(value)))
        .collect()
}
