//! Finds the host, or starts it: this program again, in a session of its own, with its log as standard error.
//!
//! The new host says on its standard output, in one line, that it is ready or why not; nothing is polled. Only one
//! command at a time looks and starts (`Registry::starting`), so two starts at once give one host.

use std::fs;
use std::io;
use std::io::BufRead;
use std::io::BufReader;
use std::process::Command;
use std::process::Stdio;

use crate::cli::context::Context;
use crate::cli::failure::Failure;
use crate::cli::failure::Kind;
use crate::control::Client;
use crate::control::ControlError;
use crate::control::Entry;
use crate::control::HealthReport;
use crate::control::Purpose;
use crate::instance;

/// A way to the host of this name, started if need be.
pub(crate) async fn summon(context: &Context, name: &str, demo: bool) -> Result<Client, Failure> {
    let registry = |source| ControlError::Registry { source };
    let starting = context.registry.starting(name).map_err(registry)?;
    if let Some(entry) = context.registry.find(name).map_err(registry)? {
        fits(&entry, demo)?;
        let client = Client::new(entry);
        match client.health(false).await {
            Ok(health) if health.state == "running" => {
                greet(context, &health);
                return Ok(client);
            }
            // It stops, or its port is closed already; the new host waits for its lock.
            Ok(_) | Err(ControlError::Unreachable { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        context
            .output
            .note("the old host is stopping; waiting for it");
    }
    start(context, name, demo)?;
    drop(starting);
    Ok(Client::find(&context.registry, name)?)
}

/// Whether a run, or a demo, may be given to this host.
fn fits(entry: &Entry, demo: bool) -> Result<(), Failure> {
    let wanted = if demo { Purpose::Demo } else { Purpose::Runs };
    let is = match entry.purpose {
        purpose if purpose == wanted => return Ok(()),
        Purpose::Runs => "is no demo: a run there would cost real tokens",
        Purpose::Demo => "is a demo: a run there would never reach your upstream",
        Purpose::Proxy => "is a `kimiq proxy`, which runs no terminals",
    };
    let what = format!("the host `{}` {is}", entry.name);
    Err(Failure::new(Kind::Usage, what).hint("choose another --host, or leave it out"))
}

/// What the user of a host that runs already should know.
fn greet(context: &Context, health: &HealthReport) {
    let ours = env!("CARGO_PKG_VERSION");
    if health.version != ours {
        context.output.warn(format!(
            "the host is kimiq {}, this is {ours}; `kimiq stop` and start anew to use this one",
            health.version,
        ));
    }
    if !context.common.settings.is_empty() {
        context
            .output
            .warn("the host runs already; --set takes effect when it is started anew");
    }
}

fn start(context: &Context, name: &str, demo: bool) -> Result<(), Failure> {
    if let Some(terminal) = context.env.get("KIMIQ_TERMINAL") {
        // Whatever was started inside is ended with it, however far it went away.
        let what = format!("a host started inside the terminal {terminal} of kimiq ends with it");
        return Err(Failure::new(Kind::Usage, what)
            .hint("start it from a terminal outside, then this command works here, too"));
    }
    let failed = |source: io::Error| {
        Failure::from_error(Kind::Failed, &source).hint("`kimiq doctor` looks for what is wrong")
    };
    let log = instance::open_log(&context.paths, name).map_err(failed)?;
    let mut command = Command::new(std::env::current_exe().map_err(failed)?);
    command.args(["host", "--host", name]);
    if demo {
        command.arg("--demo");
    }
    for pair in &context.common.settings {
        command.args(["--set", pair]);
    }
    // The host must not keep a folder of the user busy.
    let root = fs::canonicalize("/").unwrap_or_else(|_| context.paths.state.clone());
    let mut child = command
        .current_dir(root)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
        .map_err(failed)?;
    let mut line = String::new();
    if let Some(out) = child.stdout.take() {
        BufReader::new(out).read_line(&mut line).map_err(failed)?;
    }
    match line.trim_end() {
        "ready" => Ok(()),
        "" => {
            let status = child.wait().map_err(failed)?;
            let log = context.paths.log(name);
            let what = format!("the host ended before it was ready ({status})");
            Err(Failure::new(Kind::Failed, what).hint(format!("its log is {}", log.display())))
        }
        told => {
            child.wait().map_err(failed)?;
            Err(Failure::told(told))
        }
    }
}
