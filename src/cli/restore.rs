//! `kimiq restore`: puts back a configuration that a killed host left edited.

use crate::cli::args;
use crate::cli::context::Context;
use crate::cli::failure::Failure;
use crate::cli::failure::Kind;
use crate::cli::failure::Outcome;
use crate::instance;

pub(crate) fn run(context: &Context, args: args::Restore) -> Outcome {
    let mut restored = Vec::new();
    for name in context.paths.host_names()? {
        // A host that lives undoes its own edits when it ends.
        let Some(claim) = context.registry.claim(&name)? else {
            context.output.note(format!(
                "the host `{name}` is running; `kimiq stop` puts back what it edited"
            ));
            continue;
        };
        let state = context.paths.instance_state(&name);
        let found = instance::restore(&state)
            .map_err(|error| Failure::from_error(Kind::Failed, &*error))?;
        restored.extend(found);
        claim.leave()?;
    }
    if args.json {
        context.output.json(&restored)?;
        return Ok(());
    }
    if restored.is_empty() {
        context.output.note("nothing to put back");
    }
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
