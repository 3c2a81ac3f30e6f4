//! `kimiq restore`: puts back a configuration that a killed host left edited.
//!
//! One that cannot be put back keeps no other from it; all are told at the end.

use crate::cli::args;
use crate::cli::context::Context;
use crate::cli::failure::Failure;
use crate::cli::failure::Kind;
use crate::cli::failure::Outcome;
use crate::instance;
use crate::instance::PutBack;
use crate::instance::Restored;

pub(crate) fn run(context: &Context, args: args::Restore) -> Outcome {
    let mut all = PutBack::default();
    for name in context.paths.host_names()? {
        // A host that lives undoes its own edits when it ends.
        let Some(claim) = context.registry.claim(&name)? else {
            context.output.note(format!(
                "the host `{name}` is running; `kimiq stop` puts back what it edited"
            ));
            continue;
        };
        let done = instance::restore(&context.paths.instance_state(&name));
        all.restored.extend(done.restored);
        all.failed.extend(done.failed);
        if let Err(error) = claim.leave() {
            all.failed
                .push(format!("the instance file of `{name}`: {error}"));
        }
    }
    if args.json {
        context.output.json(&all.restored)?;
    } else {
        if all.restored.is_empty() && all.failed.is_empty() {
            context.output.note("nothing to put back");
        }
        tell(context, &all.restored)?;
    }
    complain(&all.failed)
}

/// Tells what was put back.
pub(crate) fn tell(context: &Context, restored: &[Restored]) -> Outcome {
    for one in restored {
        let how = if one.identical {
            "as it was, byte for byte"
        } else {
            "without kimiq's addresses; it was changed since"
        };
        context
            .output
            .line(format!("{}: {how}", one.file.display()))?;
    }
    Ok(())
}

/// Fails when something could not be put back, with each reason.
pub(crate) fn complain(failed: &[String]) -> Outcome {
    if failed.is_empty() {
        return Ok(());
    }
    let what = format!("failed to put back {}", failed.join("; "));
    Err(Failure::new(Kind::Failed, what).hint("mend what is named, then type `kimiq restore`"))
}
