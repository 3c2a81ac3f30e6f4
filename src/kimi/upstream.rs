//! Which address a model alias of the client really talks to, and which address it is given instead.
//!
//! The rules are those of the clients, measured on Kimi Code 2.1.0 and kimi-cli 1.51.0: an alias's own `base_url`, else its
//! provider's, else the provider's `env` table, else a process variable, else the type's default.
//!
//! A trailing `/v1` is moved from the upstream's side to the client's: the upstream `https://host/v1` becomes the route
//! `https://host` and the client is given `PROXY/p/name/v1`. Clients of the anthropic type cut one `/v1` off their address
//! and append `/v1/messages`, the others append their path as it is; with the tail on the client's side both arrive at the
//! right place over one route, also when the client changes an alias's protocol while it runs.

use std::ffi::OsStr;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};
use toml_edit::{Item, TableLike};

use crate::kimi::home::Environment;

/// What a client speaks to an upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wire {
    /// OpenAI chat completions (types `kimi`, `openai`, `openai_legacy`).
    Chat,
    /// Anthropic messages.
    Messages,
    /// OpenAI responses.
    Responses,
    /// Google generative language.
    Google,
}

/// A place that the proxy must serve under `/p/<name>` (Kimi Code) or `/t/<key>/<name>` (kimi-cli), the name
/// percent-encoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Decoded route name: the provider's id, or `provider~alias` where an alias has an address of its own.
    pub name: String,
    /// The true upstream. The upstream URL is this and then the rest of the request's path, as it stands.
    pub base_url: String,
    /// What the client speaks there by its provider's type; a hint, since an alias may choose another protocol.
    pub wire: Wire,
    /// Id of the provider in the client's configuration; empty for an alias without one.
    pub provider: String,
    /// Aliases that use this route, in the file's order.
    pub aliases: Vec<String>,
}

/// Something the user should be told once.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Warning {
    /// The alias talks to its upstream directly: no limits and no accounting for it.
    #[error("model {alias} is not led through kimiq: {why}")]
    Direct {
        /// The alias.
        alias: String,
        /// Why.
        why: String,
    },
}

/// Which client's rules hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rules {
    KimiCode,
    KimiCli,
}

/// The upstream of one alias.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) base: String,
    /// What stays on the client's side: `/v1` or nothing.
    pub(super) tail: &'static str,
    pub(super) wire: Wire,
    /// The address is the alias's own, not its provider's.
    pub(super) own: bool,
}

/// Why Google's types stay direct: the proxy can neither limit nor count requests that it cannot read.
const GOOGLE: &str = "kimiq cannot limit the Google dialect";

/// What a provider type speaks, which variable gives its address, and its default.
struct Type {
    wire: Wire,
    variable: &'static str,
    /// The variable counts when it is set for the whole process, not only in the provider's `env` table.
    process: bool,
    default: &'static str,
}

/// Characters that stay readable in a route's path segment.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~');

/// One path segment for a route name.
pub(super) fn segment(name: &str) -> String {
    match name {
        // A dot segment would be folded away by the client's URL parser.
        "." => "%2E".to_owned(),
        ".." => "%2E%2E".to_owned(),
        _ => percent_encode(name.as_bytes(), SEGMENT).to_string(),
    }
}

/// True for an address that some kimiq wrote, at whatever port: plain HTTP on loopback under `/p/`.
pub(super) fn is_ours(address: &str) -> bool {
    let Some(rest) = address.strip_prefix("http://") else {
        return false;
    };
    let Some((host, path)) = rest.split_once('/') else {
        return false;
    };
    let Some((name, port)) = host.rsplit_once(':') else {
        return false;
    };
    matches!(name, "127.0.0.1" | "[::1]" | "localhost")
        && !port.is_empty()
        && port.bytes().all(|byte| byte.is_ascii_digit())
        && path.starts_with("p/")
}

/// The upstream of `alias`, or why it stays direct.
pub(super) fn target(
    alias: &dyn TableLike,
    provider: Option<&dyn TableLike>,
    env: &Environment,
    rules: Rules,
) -> Result<Target, String> {
    let protocol = text(alias, "protocol").filter(|_| rules == Rules::KimiCode);
    let provider_type = provider.and_then(|table| text(table, "type"));
    let speaks = protocol
        .or(provider_type)
        .ok_or("neither the model nor its provider says what it speaks")?;
    let spoken = kind(speaks, rules)
        .ok_or_else(|| format!("kimiq does not know the provider type {speaks}"))?;
    if is_vertex(provider, provider_type, speaks) {
        return Err("Vertex addresses are made from project and region".to_owned());
    }
    if spoken.wire == Wire::Google {
        return Err(GOOGLE.to_owned());
    }
    let own = text(alias, "base_url").filter(|found| rules == Rules::KimiCode && !is_ours(found));
    if let Some(base) = own {
        return Ok(split(base, spoken.wire, rules).into_target(spoken.wire, true));
    }
    let by_type = provider_type
        .and_then(|name| kind(name, rules))
        .unwrap_or(spoken);
    let Some(found) = provider_address(provider, &by_type, env, rules) else {
        return Err("its provider has no address".to_owned());
    };
    let split = match found {
        Found::Written(base) => split(&base, by_type.wire, rules),
        Found::Unstripped(base) => Split { base, tail: "" },
    };
    Ok(split.into_target(by_type.wire, false))
}

/// The address of the synthetic model that `KIMI_MODEL_*` variables describe, if they do, or why it stays direct.
pub(super) fn synthetic(env: &Environment) -> Option<Result<Target, String>> {
    variable(env, "KIMI_MODEL_NAME")?;
    variable(env, "KIMI_MODEL_API_KEY")?;
    let name = variable(env, "KIMI_MODEL_PROVIDER_TYPE").unwrap_or_else(|| "kimi".to_owned());
    let found = kind(&name.to_lowercase(), Rules::KimiCode)?;
    if found.wire == Wire::Google {
        return Some(Err(GOOGLE.to_owned()));
    }
    let base = variable(env, "KIMI_MODEL_BASE_URL")
        .filter(|found| !is_ours(found))
        .or_else(|| variable(env, found.variable))
        .unwrap_or_else(|| found.default.to_owned());
    Some(Ok(
        split(&base, found.wire, Rules::KimiCode).into_target(found.wire, false)
    ))
}

enum Found {
    Written(String),
    /// From a process variable of the anthropic library, which appends its path without cutting a `/v1`.
    Unstripped(String),
}

fn provider_address(
    provider: Option<&dyn TableLike>,
    by_type: &Type,
    env: &Environment,
    rules: Rules,
) -> Option<Found> {
    let process = variable(env, by_type.variable).filter(|_| by_type.process);
    if rules == Rules::KimiCli
        && let Some(found) = process
    {
        return Some(Found::Written(found));
    }
    let provider = provider?;
    if let Some(written) = text(provider, "base_url").filter(|found| !is_ours(found)) {
        return Some(Found::Written(written.to_owned()));
    }
    let table = provider.get("env").and_then(Item::as_table_like);
    if let Some(named) = table.and_then(|table| text(table, by_type.variable)) {
        return Some(Found::Written(named.to_owned()));
    }
    match process {
        Some(found) if by_type.wire == Wire::Messages => {
            Some(Found::Unstripped(found.trim_end_matches('/').to_owned()))
        }
        Some(found) => Some(Found::Written(found)),
        None => Some(Found::Written(by_type.default.to_owned())),
    }
}

struct Split {
    base: String,
    tail: &'static str,
}

impl Split {
    fn into_target(self, wire: Wire, own: bool) -> Target {
        Target {
            base: self.base,
            tail: self.tail,
            wire,
            own,
        }
    }
}

fn split(address: &str, wire: Wire, rules: Rules) -> Split {
    let whole = address.trim().trim_end_matches('/');
    match whole.strip_suffix("/v1") {
        // kimi-cli's anthropic type appends `/v1/messages` to whatever it is given.
        Some(base) if rules == Rules::KimiCli && wire == Wire::Messages => Split {
            base: base.to_owned(),
            tail: "",
        },
        Some(base) => Split {
            base: base.to_owned(),
            tail: "/v1",
        },
        None => Split {
            base: whole.to_owned(),
            tail: "",
        },
    }
}

fn kind(name: &str, rules: Rules) -> Option<Type> {
    let cli = rules == Rules::KimiCli;
    let found = match name {
        "kimi" => Type {
            wire: Wire::Chat,
            variable: "KIMI_BASE_URL",
            process: cli,
            default: "https://api.moonshot.ai/v1",
        },
        "openai" | "openai_legacy" => Type {
            wire: Wire::Chat,
            variable: "OPENAI_BASE_URL",
            process: true,
            default: "https://api.openai.com/v1",
        },
        "openai_responses" => Type {
            wire: Wire::Responses,
            variable: "OPENAI_BASE_URL",
            process: true,
            default: "https://api.openai.com/v1",
        },
        "anthropic" => Type {
            wire: Wire::Messages,
            variable: "ANTHROPIC_BASE_URL",
            process: !cli,
            default: "https://api.anthropic.com",
        },
        "google-genai" | "google_genai" | "gemini" | "vertexai" => Type {
            wire: Wire::Google,
            variable: "GOOGLE_GEMINI_BASE_URL",
            process: !cli,
            default: "https://generativelanguage.googleapis.com",
        },
        _ => return None,
    };
    Some(found)
}

/// With a project, Kimi Code lets the Google library make the address from the region's name.
fn is_vertex(provider: Option<&dyn TableLike>, provider_type: Option<&str>, speaks: &str) -> bool {
    let project = provider
        .and_then(|table| table.get("env"))
        .and_then(Item::as_table_like)
        .is_some_and(|table| text(table, "GOOGLE_CLOUD_PROJECT").is_some());
    speaks == "vertexai"
        || provider_type == Some("vertexai")
        || (speaks == "google-genai" && project)
}

/// A string that is there and not empty, as the clients see it.
pub(super) fn text<'a>(table: &'a dyn TableLike, key: &str) -> Option<&'a str> {
    table
        .get(key)?
        .as_str()
        .map(str::trim)
        .filter(|found| !found.is_empty())
}

fn variable(env: &Environment, name: &str) -> Option<String> {
    let value = env.get(OsStr::new(name))?.to_str()?.trim();
    (!value.is_empty()).then(|| value.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(provider: &str, alias: &str, env: &[(&str, &str)], expected: &str) {
        let provider: toml_edit::DocumentMut = provider.parse().unwrap();
        let alias: toml_edit::DocumentMut = alias.parse().unwrap();
        let env = env
            .iter()
            .map(|(name, value)| (name.into(), value.into()))
            .collect();
        let found = target(
            alias.as_table(),
            Some(provider.as_table()),
            &env,
            Rules::KimiCode,
        )
        .map_or_else(
            |why| format!("direct: {why}"),
            |found| format!("{} + {} {:?}", found.base, found.tail, found.wire),
        );
        assert_eq!(found, expected, "{provider} {alias}");
    }

    #[test]
    fn the_true_upstream_follows_the_client_s_own_rules() {
        check(
            "type = 'kimi'",
            "",
            &[],
            "https://api.moonshot.ai + /v1 Chat",
        );
        check(
            "type = 'kimi'",
            "",
            &[("KIMI_BASE_URL", "http://ignored")],
            "https://api.moonshot.ai + /v1 Chat",
        );
        check(
            "type = 'kimi'\nenv.KIMI_BASE_URL = 'https://e/v1'",
            "",
            &[],
            "https://e + /v1 Chat",
        );
        check(
            "type = 'kimi'\nbase_url = 'https://a/b/v1/'",
            "",
            &[],
            "https://a/b + /v1 Chat",
        );
        check(
            "type = 'kimi'\nbase_url = 'https://a/b'",
            "",
            &[],
            "https://a/b +  Chat",
        );
        check(
            "type = 'kimi'\nbase_url = 'https://a/v1'",
            "protocol = 'anthropic'",
            &[],
            "https://a + /v1 Chat",
        );
        check(
            "type = 'openai'",
            "",
            &[("OPENAI_BASE_URL", "https://o/v1")],
            "https://o + /v1 Chat",
        );
        check(
            "type = 'openai'\nbase_url = 'https://p'",
            "",
            &[("OPENAI_BASE_URL", "https://o/v1")],
            "https://p +  Chat",
        );
        check(
            "type = 'openai_responses'",
            "",
            &[],
            "https://api.openai.com + /v1 Responses",
        );
        check(
            "type = 'anthropic'\nbase_url = 'https://a/v1'",
            "",
            &[],
            "https://a + /v1 Messages",
        );
        check(
            "type = 'anthropic'",
            "",
            &[("ANTHROPIC_BASE_URL", "https://a/v1")],
            "https://a/v1 +  Messages",
        );
        check(
            "type = 'anthropic'",
            "base_url = 'https://own/v1'",
            &[],
            "https://own + /v1 Messages",
        );
        check(
            "type = 'anthropic'",
            "base_url = 'http://127.0.0.1:9/p/x/v1'",
            &[],
            "https://api.anthropic.com +  Messages",
        );
        check(
            "type = 'google-genai'",
            "",
            &[],
            "direct: kimiq cannot limit the Google dialect",
        );
        check(
            "type = 'kimi'",
            "protocol = 'google-genai'\nbase_url = 'https://own/v1'",
            &[],
            "direct: kimiq cannot limit the Google dialect",
        );
        check(
            "type = 'vertexai'",
            "",
            &[],
            "direct: Vertex addresses are made from project and region",
        );
        check(
            "type = 'cohere'",
            "",
            &[],
            "direct: kimiq does not know the provider type cohere",
        );
    }

    #[test]
    fn only_loopback_addresses_under_p_are_ours() {
        for (address, ours) in [
            ("http://127.0.0.1:4711/p/x", true),
            ("http://localhost:1/p/x/v1", true),
            ("http://127.0.0.1:4711/v1", false),
            ("http://127.0.0.1/p/x", false),
            ("https://127.0.0.1:4711/p/x", false),
            ("http://127.0.0.1.example.com:1/p/x", false),
            ("http://localhost:8787", false),
        ] {
            assert_eq!(is_ours(address), ours, "{address}");
        }
    }

    #[test]
    fn a_route_name_is_one_segment() {
        assert_eq!(segment("managed:kimi-code"), "managed%3Akimi-code");
        assert_eq!(segment("a/b c"), "a%2Fb%20c");
        assert_eq!(segment(".."), "%2E%2E");
    }
}
