//! `kimiq proxy`: only the proxy, in the foreground, for clients that the user starts alone.

use crate::cli::args;
use crate::cli::context::Context;
use crate::cli::failure::Failure;
use crate::cli::failure::Outcome;
use crate::config::Resolved;
use crate::instance;
use crate::instance::Setup;

pub(crate) fn run(context: &Context, args: args::Proxy) -> Outcome {
    let mut flags = Vec::new();
    if let Some(port) = args.port {
        flags.push(("--port", format!("proxy.port={port}")));
    }
    if let Some(upstream) = &args.upstream {
        flags.push(("--upstream", format!("proxy.upstream={upstream}")));
    }
    let settings = context.settings(&flags)?;
    let name = context
        .common
        .host
        .clone()
        .unwrap_or_else(|| "proxy".to_owned());
    if let Some(host) = spends_own_key(&settings) {
        context.output.warn(format!(
            "requests to {host} get the key of [keys], and the port asks for none: every user of this machine can spend it"
        ));
    }
    if let Some(other) = context
        .registry
        .all()?
        .iter()
        .find(|other| other.name != name)
    {
        context.output.note(format!(
            "the host `{}` runs, too; each counts its own requests against the account",
            other.name
        ));
    }
    let setup = Setup {
        name,
        demo: false,
        paths: context.paths.clone(),
        settings,
        env: context.env.clone(),
    };
    instance::run_proxy(setup, async |host| {
        context.output.line(format!(
            "kimiq proxy at http://127.0.0.1:{} for {}; Ctrl-C ends it",
            host.port(),
            host.default_upstream(),
        ))?;
        host.ended().await;
        Ok::<(), Failure>(())
    })?
}

/// The host of the upstream, if the settings name a key for it.
fn spends_own_key(settings: &Resolved) -> Option<String> {
    let address: http::Uri = settings.text("proxy.upstream")?.parse().ok()?;
    let host = address.authority()?.as_str();
    settings.key_for(host).map(|_| host.to_owned())
}
