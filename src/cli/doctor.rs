//! `kimiq doctor`: what is missing or wrong on this machine, and the fix.

use serde::Serialize;

use crate::cli::args::Listing;
use crate::cli::block_on;
use crate::cli::client;
use crate::cli::context::Context;
use crate::cli::failure::Failure;
use crate::cli::failure::Kind;
use crate::cli::failure::Outcome;
use crate::cli::output::Look;
use crate::cli::output::counted;
use crate::config;
use crate::instance;
use crate::kimi;

#[derive(Serialize)]
struct Finding {
    what: &'static str,
    ok: bool,
    found: String,
    fix: Option<String>,
}

impl Finding {
    fn good(what: &'static str, found: impl Into<String>) -> Self {
        Self {
            what,
            ok: true,
            found: found.into(),
            fix: None,
        }
    }

    fn bad(what: &'static str, found: impl Into<String>, fix: impl Into<String>) -> Self {
        Self {
            what,
            ok: false,
            found: found.into(),
            fix: Some(fix.into()),
        }
    }
}

pub(crate) fn run(context: &Context, args: Listing) -> Outcome {
    let mut findings = vec![settings(context), folders(context), port(), terminals()];
    findings.extend(the_client(context));
    findings.push(host(context));
    findings.extend(killed(context)?);
    let well = findings.iter().all(|finding| finding.ok);
    if args.json {
        context.output.json(&findings)?;
    } else {
        for finding in &findings {
            let mark = if finding.ok {
                context.output.paint(Look::Green, "ok ")
            } else {
                context.output.paint(Look::Red, "bad")
            };
            context
                .output
                .line(format!("{mark} {}: {}", finding.what, finding.found))?;
            if let Some(fix) = &finding.fix {
                context.output.line(format!("      {fix}"))?;
            }
        }
    }
    if well {
        Ok(())
    } else {
        Err(Failure::quiet(Kind::Unwell))
    }
}

fn settings(context: &Context) -> Finding {
    let what = "settings";
    match config::resolve(&context.paths, &context.env, &context.layers(&[])) {
        Ok(settings) if settings.warnings().is_empty() => {
            let file = &context.paths.config_file;
            let found = if file.exists() {
                file.display().to_string()
            } else {
                format!("the defaults; {} does not exist", file.display())
            };
            Finding::good(what, found)
        }
        Ok(settings) => {
            let told: Vec<_> = settings
                .warnings()
                .iter()
                .map(ToString::to_string)
                .collect();
            Finding::bad(what, told.join("; "), "correct or remove them")
        }
        Err(error) => Finding::bad(
            what,
            Failure::from(error).to_string(),
            "correct it; `kimiq config check` looks again",
        ),
    }
}

fn folders(context: &Context) -> Finding {
    let what = "state folder";
    let path = context.paths.state.display().to_string();
    match instance::try_folder(&context.paths.state) {
        Ok(()) => Finding::good(what, path),
        Err(error) => Finding::bad(
            what,
            format!("{path}: {error}"),
            "make it writable, or set KIMIQ_HOME to another folder",
        ),
    }
}

fn port() -> Finding {
    let what = "loopback";
    match std::net::TcpListener::bind(("127.0.0.1", 0)) {
        Ok(_) => Finding::good(what, "a port on 127.0.0.1 can be had"),
        Err(error) => Finding::bad(
            what,
            error.to_string(),
            "allow programs to listen on 127.0.0.1",
        ),
    }
}

fn terminals() -> Finding {
    let what = "pseudo-terminals";
    match instance::try_pty() {
        Ok(()) => Finding::good(what, "one can be opened"),
        Err(error) => Finding::bad(
            what,
            error.to_string(),
            "mount /dev/pts, or raise the limit of pseudo-terminals",
        ),
    }
}

/// The client, and what it needs to work.
fn the_client(context: &Context) -> Vec<Finding> {
    let what = "client";
    let Ok(settings) = config::resolve(&context.paths, &context.env, &context.layers(&[])) else {
        let bad = Finding::bad(what, "not looked for", "correct the settings first");
        return vec![bad];
    };
    let env = client::environment(context);
    let wanted = settings.text("client.command");
    let found = block_on(async { Ok(kimi::find(wanted, &env, &context.paths.data).await) });
    match found {
        Ok(Ok(client)) => {
            let version = client.version.as_deref().unwrap_or("of unknown version");
            let name = match client.kind {
                kimi::Kind::KimiCode => "Kimi Code",
                kimi::Kind::KimiCli => "kimi-cli",
            };
            let found = format!("{name} {version} at {}", client.program.display());
            vec![Finding::good(what, found), models(&client, &env)]
        }
        Ok(Err(error)) => vec![Finding::bad(what, error.to_string(), error.hint())],
        Err(failure) => vec![Finding::bad(
            what,
            failure.to_string(),
            "look at the reason",
        )],
    }
}

/// Whether the client has a model to ask.
fn models(client: &kimi::Client, env: &kimi::Environment) -> Finding {
    let what = "models";
    let file = match client.home(env) {
        Ok(home) => home.join("config.toml"),
        Err(error) => return Finding::bad(what, error.to_string(), error.hint()),
    };
    let shown = file.display();
    let text = match std::fs::read_to_string(&file) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(error) => {
            let fix = "make the file readable";
            return Finding::bad(what, format!("{shown}: {error}"), fix);
        }
    };
    match kimi::redirect(&text, env, "http://127.0.0.1:1") {
        Ok(found) if found.routes.is_empty() && found.warnings.is_empty() => Finding::bad(
            what,
            format!("{shown} names no provider with a model"),
            "type /login in a terminal of `kimiq run`, or write a provider into the file; `kimiq run --demo` needs none",
        ),
        Ok(_) => Finding::good(what, format!("{shown} names some")),
        Err(error) => Finding::bad(what, format!("{shown}: {error}"), "correct the file"),
    }
}

/// What killed hosts left.
fn killed(context: &Context) -> Result<Vec<Finding>, Failure> {
    let mut findings = Vec::new();
    for name in context.paths.host_names()? {
        let alive = context.registry.find(&name)?.is_some();
        for file in instance::edited_files(&context.paths.instance_state(&name))? {
            let (what, file) = ("edited file", file.display());
            findings.push(if alive {
                let text = format!("{file} is led to the host `{name}`, whose end puts it back");
                Finding::good(what, text)
            } else {
                let text = format!("{file} is led to the host `{name}`, which was killed");
                Finding::bad(what, text, "`kimiq restore` puts it back")
            });
        }
    }
    for (host, sessions) in context.lost()? {
        let open = counted(sessions.len(), "session");
        let text =
            format!("the host `{host}` was killed with {open} open; `kimiq ps` tells how to go on");
        findings.push(Finding::good("sessions", text));
    }
    Ok(findings)
}

fn host(context: &Context) -> Finding {
    let what = "host";
    let asked = block_on(async {
        let mut told = Vec::new();
        for host in context.hosts()? {
            let health = host.health(true).await?;
            if !health.ok {
                let why: Vec<_> = health
                    .upstreams
                    .iter()
                    .filter_map(|upstream| upstream.error.clone())
                    .collect();
                let text = format!(
                    "`{}` is not well: {} {}",
                    health.host,
                    why.join("; "),
                    health.notices.join("; ")
                );
                return Err(Failure::new(Kind::Unwell, text));
            }
            told.push(format!(
                "`{}` is well, {}",
                health.host,
                counted(health.terminals, "terminal")
            ));
        }
        Ok(told)
    });
    match asked {
        Ok(told) if told.is_empty() => Finding::good(what, "none is running"),
        Ok(told) => Finding::good(what, told.join("; ")),
        Err(failure) => Finding::bad(
            what,
            failure.to_string(),
            "`kimiq health` tells more; `kimiq stop --now` ends it",
        ),
    }
}
