//! The client's configuration with our addresses in it, without them, and what a user changed in between.
//!
//! Pure: text and environment in, text and routes out. Only `models.<alias>.base_url` is written, never a provider's: the
//! alias wins in Kimi Code 2.1.0 and survives its model-list refresh, a provider's address does not (measured). The
//! managed plan's aliases are declared in advance, so that the ones which the client discovers are led to us from the start.
//!
//! Our addresses are known by their form (`http://127.0.0.1:PORT/p/...`), because the client drops comments and the
//! port differs from one start to the next.

use std::ffi::OsString;

use toml_edit::{DocumentMut, Item, Table, TableLike, TomlError, value};

use crate::kimi::home::Environment;
use crate::kimi::merge;
use crate::kimi::upstream::{self, Route, Rules, Target, Warning};

/// A configuration whose model traffic goes to the proxy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Redirected {
    /// The new text.
    pub text: String,
    /// What the proxy must serve.
    pub routes: Vec<Route>,
    /// What the user should know.
    pub warnings: Vec<Warning>,
    /// Variables for the child in place of the user's own (the synthetic model of `KIMI_MODEL_*`).
    pub env: Vec<(OsString, OsString)>,
}

/// A configuration that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    /// It is not TOML. The cause is left out of logs by design: it quotes the line, which may hold a key.
    #[error("the {which} is not valid TOML (line {line}); `kimi doctor` shows the place")]
    Syntax {
        /// Which of the texts.
        which: &'static str,
        /// Counted from 1.
        line: usize,
    },
    /// A merged text would not mean what it should; nothing was written.
    #[error(
        "the changes made inside a terminal do not fit into the configuration file; nothing was written"
    )]
    Unmergeable,
}

/// The provider that `/login` makes.
const MANAGED_PROVIDER: &str = "managed:kimi-code";

/// Models of the managed plan, as Kimi Code 2.1.0 names their aliases (`kimi-code/<model>`).
const MANAGED_MODELS: [&str; 3] = ["kimi-for-coding", "kimi-for-coding-highspeed", "k3"];

/// Context window of a pre-declared alias, in tokens; the client's refresh puts its own number in.
const MANAGED_CONTEXT: i64 = 262_144;

/// Route of the model that `KIMI_MODEL_*` variables describe; the client's own name for its provider.
const SYNTHETIC: &str = "__kimi_env__";

/// The client's own name for that model.
const SYNTHETIC_ALIAS: &str = "__kimi_env_model__";

/// Leads every model alias of a Kimi Code configuration to `proxy` (`http://127.0.0.1:PORT`).
///
/// # Errors
///
/// The text is not TOML.
pub fn redirect(text: &str, env: &Environment, proxy: &str) -> Result<Redirected, DocumentError> {
    let mut document = parse(text, "client's configuration")?;
    let mut found = Redirected::default();
    declare_managed(&mut document);
    let source = document.clone();
    let default_provider = upstream::text(source.as_table(), "default_provider");
    for (alias, model) in tables(source.as_table(), "models") {
        let id = upstream::text(model, "provider_id")
            .or_else(|| upstream::text(model, "provider"))
            .or_else(|| default_provider.filter(|_| upstream::text(model, "base_url").is_none()));
        let provider = id.and_then(|id| {
            table(source.as_table(), "providers")?
                .get(id)?
                .as_table_like()
        });
        match upstream::target(model, provider, env, Rules::KimiCode) {
            Ok(target) => {
                let name = route(&mut found.routes, id.unwrap_or_default(), alias, &target);
                if let Some(model) = alias_mut(&mut document, alias) {
                    merge::put(model, "base_url", &value(address(proxy, &name, &target)));
                }
            }
            Err(why) => found.warnings.push(Warning::Direct {
                alias: alias.to_owned(),
                why,
            }),
        }
    }
    match upstream::synthetic(env) {
        Some(Ok(target)) => {
            let name = route(&mut found.routes, SYNTHETIC, SYNTHETIC_ALIAS, &target);
            found.env.push((
                "KIMI_MODEL_BASE_URL".into(),
                address(proxy, &name, &target).into(),
            ));
        }
        Some(Err(why)) => found.warnings.push(Warning::Direct {
            alias: SYNTHETIC_ALIAS.to_owned(),
            why,
        }),
        None => {}
    }
    found.text = document.to_string();
    Ok(found)
}

/// What the user changed inside a terminal, taken into the user's own file.
///
/// `before` is the redirected text that was written, `after` what the client left of it. `None` when nothing is to be
/// written. Our addresses, and managed aliases that only we declared, stay out; a key that the user's file changed as
/// well keeps the file's value.
///
/// # Errors
///
/// One of the texts is not TOML, or the result would not be.
pub fn carry_back(
    before: &str,
    after: &str,
    user_now: &str,
) -> Result<Option<String>, DocumentError> {
    if before == after {
        return Ok(None);
    }
    let mut before = parse(before, "overlay as it was written")?;
    let mut after = parse(after, "overlay's configuration")?;
    let mut user = parse(user_now, "client's configuration")?;
    clean(&mut before, &user);
    clean(&mut after, &user);
    if !merge::merge(before.as_table(), after.as_table(), user.as_table_mut()) {
        return Ok(None);
    }
    let text = user.to_string();
    let again =
        parse(&text, "merged configuration").map_err(|_syntax| DocumentError::Unmergeable)?;
    if !merge::same(again.as_item(), user.as_item()) {
        return Err(DocumentError::Unmergeable);
    }
    Ok(Some(with_line_ends_of(user_now, text)))
}

/// A redirected text without our addresses; `user` is the text before, which tells what stood in their place.
///
/// # Errors
///
/// One of the texts is not TOML.
pub fn strip(text: &str, user: &str) -> Result<String, DocumentError> {
    let mut document = parse(text, "client's configuration")?;
    clean(
        &mut document,
        &parse(user, "client's configuration as it was")?,
    );
    Ok(with_line_ends_of(text, document.to_string()))
}

/// `text` with the line ends of a `model`; the TOML writer knows only one kind.
pub(super) fn with_line_ends_of(model: &str, text: String) -> String {
    if model.contains("\r\n") {
        text.replace("\r\n", "\n").replace('\n', "\r\n")
    } else {
        text
    }
}

/// Two texts that mean the same to the client.
pub(super) fn same_meaning(one: &str, other: &str) -> Result<bool, DocumentError> {
    let one = parse(one, "overlay's configuration")?;
    let other = parse(other, "overlay's configuration")?;
    Ok(merge::same(one.as_item(), other.as_item()))
}

/// Aliases of `text` whose model traffic does not go to a kimiq.
pub(super) fn unled(text: &str) -> Result<Vec<String>, DocumentError> {
    let document = parse(text, "overlay's configuration")?;
    Ok(tables(document.as_table(), "models")
        .filter(|(_, model)| !upstream::text(*model, "base_url").is_some_and(upstream::is_ours))
        .map(|(alias, _)| alias.to_owned())
        .collect())
}

pub(super) fn parse(text: &str, which: &'static str) -> Result<DocumentMut, DocumentError> {
    text.parse().map_err(|error: TomlError| {
        let start = error.span().map_or(0, |span| span.start);
        let line = 1 + text
            .bytes()
            .take(start)
            .filter(|byte| *byte == b'\n')
            .count();
        DocumentError::Syntax { which, line }
    })
}

fn address(proxy: &str, route: &str, target: &Target) -> String {
    format!(
        "{}/p/{}{}",
        proxy.trim_end_matches('/'),
        upstream::segment(route),
        target.tail
    )
}

/// The name of the route to `target`; a new one is added where none leads there.
fn route(routes: &mut Vec<Route>, provider: &str, alias: &str, target: &Target) -> String {
    let known = routes
        .iter_mut()
        .find(|known| known.provider == provider && known.base_url == target.base);
    if let Some(known) = known {
        known.aliases.push(alias.to_owned());
        return known.name.clone();
    }
    let plain = if target.own {
        format!("{provider}~{alias}")
    } else {
        provider.to_owned()
    };
    let mut name = plain.clone();
    let mut number = 2;
    while routes.iter().any(|known| known.name == name) {
        name = format!("{plain}~{number}");
        number += 1;
    }
    let mut new = new_route(&name, target);
    provider.clone_into(&mut new.provider);
    new.aliases.push(alias.to_owned());
    routes.push(new);
    name
}

pub(super) fn new_route(name: &str, target: &Target) -> Route {
    Route {
        name: name.to_owned(),
        base_url: target.base.clone(),
        wire: target.wire,
        provider: String::new(),
        aliases: Vec::new(),
    }
}

pub(super) fn table<'a>(parent: &'a dyn TableLike, key: &str) -> Option<&'a dyn TableLike> {
    parent.get(key)?.as_table_like()
}

/// The tables below `parent.key`, with their names.
pub(super) fn tables<'a>(
    parent: &'a dyn TableLike,
    key: &str,
) -> impl Iterator<Item = (&'a str, &'a dyn TableLike)> {
    table(parent, key)
        .into_iter()
        .flat_map(TableLike::iter)
        .filter_map(|(name, item)| Some((name, item.as_table_like()?)))
}

fn alias_mut<'a>(document: &'a mut DocumentMut, alias: &str) -> Option<&'a mut dyn TableLike> {
    document
        .get_mut("models")?
        .as_table_like_mut()?
        .get_mut(alias)?
        .as_table_like_mut()
}

fn declare_managed(document: &mut DocumentMut) {
    if !table(document.as_table(), "providers")
        .is_some_and(|all| all.contains_key(MANAGED_PROVIDER))
    {
        return;
    }
    let models = document.entry("models").or_insert_with(|| {
        let mut table = Table::new();
        table.set_implicit(true);
        Item::Table(table)
    });
    let Some(models) = models.as_table_like_mut() else {
        return;
    };
    for model in MANAGED_MODELS {
        let alias = managed_alias(model);
        if !models.contains_key(&alias) {
            merge::put(models, &alias, &Item::Table(managed_table(model)));
        }
    }
}

fn managed_alias(model: &str) -> String {
    format!("kimi-code/{model}")
}

fn managed_table(model: &str) -> Table {
    let mut table = Table::new();
    table.insert("provider", value(MANAGED_PROVIDER));
    table.insert("model", value(model));
    table.insert("max_context_size", value(MANAGED_CONTEXT));
    table
}

/// Takes our part out of `document`: addresses go back to what `user` holds, and aliases that only we declared vanish.
fn clean(document: &mut DocumentMut, user: &DocumentMut) {
    let chosen = upstream::text(document.as_table(), "default_model").map(str::to_owned);
    let users = table(user.as_table(), "models");
    let Some(models) = document.get_mut("models").and_then(Item::as_table_like_mut) else {
        return;
    };
    for (alias, item) in models.iter_mut() {
        let Some(model) = item.as_table_like_mut() else {
            continue;
        };
        if !upstream::text(model, "base_url").is_some_and(upstream::is_ours) {
            continue;
        }
        let before = users
            .and_then(|users| users.get(alias.get())?.as_table_like()?.get("base_url"))
            .filter(|item| !item.as_str().is_some_and(upstream::is_ours));
        match before {
            Some(before) => merge::put(model, "base_url", before),
            None => drop(model.remove("base_url")),
        }
    }
    for name in MANAGED_MODELS {
        let alias = managed_alias(name);
        let ours = models
            .get(&alias)
            .is_some_and(|item| merge::same(item, &Item::Table(managed_table(name))));
        let users_own = users.is_some_and(|users| users.contains_key(&alias));
        if ours && !users_own && chosen.as_deref() != Some(&alias) {
            drop(models.remove(&alias));
        }
    }
    if models.is_empty() && users.is_none() {
        drop(document.remove("models"));
    }
}

#[cfg(test)]
#[path = "document_tests.rs"]
mod tests;
