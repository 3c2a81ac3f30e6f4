//! `kimiq config`: settings with their origin, folders, and what is wrong.

use serde::Serialize;

use crate::cli::args;
use crate::cli::args::ConfigVerb;
use crate::cli::context::Context;
use crate::cli::failure::Failure;
use crate::cli::failure::Kind;
use crate::cli::failure::Outcome;
use crate::cli::output;
use crate::cli::output::Look;
use crate::config;

#[derive(Serialize)]
struct Shown<'a> {
    key: &'a str,
    value: String,
    origin: String,
    variable: String,
}

#[derive(Serialize)]
struct Places {
    config: String,
    state: String,
    data: String,
}

#[derive(Serialize)]
struct Checked {
    ok: bool,
    warnings: Vec<String>,
    error: Option<String>,
}

pub(crate) fn run(context: &Context, args: args::Config) -> Outcome {
    match args.what.unwrap_or(ConfigVerb::Show {
        json: false,
        defaults: false,
    }) {
        ConfigVerb::Show { defaults: true, .. } => Ok(output::raw(config::DEFAULTS.as_bytes())?),
        ConfigVerb::Show { json, .. } => show(context, json),
        ConfigVerb::Path { json } => path(context, json),
        ConfigVerb::Check { json } => check(context, json),
    }
}

fn show(context: &Context, json: bool) -> Outcome {
    let settings = context.settings(&[])?;
    let shown: Vec<_> = settings
        .rows()
        .map(|row| Shown {
            key: row.setting.key,
            value: row.value.to_string(),
            origin: row.origin.to_string(),
            variable: row.setting.variable(),
        })
        .collect();
    if json {
        context.output.json(&shown)?;
        return Ok(());
    }
    let rows: Vec<_> = shown
        .into_iter()
        .map(|row| {
            let origin = if row.origin == "default" {
                context.output.paint(Look::Dim, &row.origin)
            } else {
                row.origin
            };
            vec![row.key.to_owned(), row.value, origin]
        })
        .collect();
    context
        .output
        .table(&["SETTING", "VALUE", "FROM"], &[], &rows)?;
    for host in settings.keys().keys() {
        context.output.line(format!("a key is set for {host}"))?;
    }
    Ok(())
}

fn path(context: &Context, json: bool) -> Outcome {
    let places = Places {
        config: context.paths.config_file.display().to_string(),
        state: context.paths.state.display().to_string(),
        data: context.paths.data.display().to_string(),
    };
    if json {
        context.output.json(&places)?;
    } else {
        context
            .output
            .line(format!("settings  {}", places.config))?;
        context.output.line(format!("state     {}", places.state))?;
        context.output.line(format!("data      {}", places.data))?;
    }
    Ok(())
}

fn check(context: &Context, json: bool) -> Outcome {
    let resolved = config::resolve(&context.paths, &context.env, &context.layers(&[]));
    if json {
        let (warnings, error) = match resolved {
            Ok(settings) => (told(&settings), None),
            Err(error) => (Vec::new(), Some(Failure::from(error).to_string())),
        };
        let ok = error.is_none() && warnings.is_empty();
        context.output.json(&Checked {
            ok,
            warnings,
            error,
        })?;
        return if ok {
            Ok(())
        } else {
            Err(Failure::quiet(Kind::Settings))
        };
    }
    let warnings = told(&resolved?);
    if warnings.is_empty() {
        return Ok(context.output.line("the settings are sound")?);
    }
    let what = format!("what is not known is ignored: {}", warnings.join("; "));
    Err(Failure::new(Kind::Settings, what).hint("correct or remove it"))
}

fn told(settings: &config::Resolved) -> Vec<String> {
    settings
        .warnings()
        .iter()
        .map(ToString::to_string)
        .collect()
}
