//! Where an upstream is, and which company's habits it has.

use std::net::IpAddr;
use std::sync::Arc;

use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderValue, Uri};

/// The company behind an address, as far as its habits matter. Recognised by host name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Fireworks AI: three token budgets per account and model, told in headers.
    Fireworks,
    /// Moonshot's open platform: concurrency, requests and tokens per account.
    Moonshot,
    /// The Kimi Code plan: quotas of hours and weeks, a cap on parallel requests.
    KimiCode,
    /// `OpenRouter`.
    OpenRouter,
    /// Vertex AI.
    Vertex,
    /// kimiq's own simulator, which has Fireworks' habits. No host name tells it: see [`Upstream::simulated`].
    Simulated,
    /// Any other host, and any other server on this machine.
    Other,
}

impl Kind {
    fn of_host(host: &str) -> Self {
        let is = |domain: &str| {
            host == domain
                || host
                    .strip_suffix(domain)
                    .is_some_and(|prefix| prefix.ends_with('.'))
        };
        if is("fireworks.ai") {
            Self::Fireworks
        } else if is("kimi.com") || is("kimi.ai") {
            Self::KimiCode
        } else if is("moonshot.ai") || is("moonshot.cn") {
            Self::Moonshot
        } else if is("openrouter.ai") {
            Self::OpenRouter
        } else if is("googleapis.com") {
            Self::Vertex
        } else {
            Self::Other
        }
    }

    /// Whether the published token budgets per minute apply before any header was seen.
    pub fn has_token_budgets(self) -> bool {
        matches!(self, Self::Fireworks | Self::Simulated)
    }

    /// Whether it routes to prompt caches by a member of the body and a header (Fireworks docs, prompt caching). Others
    /// may refuse what they do not know.
    pub fn takes_affinity(self) -> bool {
        matches!(self, Self::Fireworks | Self::Simulated)
    }
}

/// An address that answers model requests.
#[derive(Clone, Debug)]
pub struct Upstream {
    name: Arc<str>,
    scheme: Scheme,
    authority: Authority,
    /// Scheme and authority: what a connection leads to.
    origin: Arc<str>,
    host_header: HeaderValue,
    prefix: Arc<str>,
    kind: Kind,
    /// What its pools are called after, if not after its host.
    account: Option<Arc<str>>,
    credential: Option<Credential>,
}

/// A key, as the headers that can carry it.
#[derive(Clone, Debug)]
pub(super) struct Credential {
    /// For `authorization`.
    pub(super) bearer: HeaderValue,
    /// For `x-api-key` and its like.
    pub(super) bare: HeaderValue,
}

/// Why an address cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AddressError {
    /// It is no absolute URL.
    #[error("`{0}` is no address; write it like `https://host/path`")]
    Malformed(String),
    /// It would send prompts and keys over the network in clear.
    #[error(
        "`{0}` is not encrypted and not on this machine; use https, or set `upstream.allow_plain = true`"
    )]
    Plain(String),
    /// The credential has bytes that no header can carry.
    #[error(
        "the key for `{0}` has characters that a header cannot carry; check the file or variable it comes from"
    )]
    Credential(String),
}

impl Upstream {
    /// Reads a base address such as `https://api.fireworks.ai/inference/v1`. Request paths are appended to it.
    pub fn parse(name: &str, base: &str, allow_plain: bool) -> Result<Self, AddressError> {
        let malformed = || AddressError::Malformed(without_credentials(base));
        let parts = base
            .trim()
            .parse::<Uri>()
            .map(Uri::into_parts)
            .unwrap_or_default();
        let (Some(scheme), Some(authority)) = (parts.scheme, parts.authority) else {
            return Err(malformed());
        };
        if authority.as_str().contains('@') || (scheme != Scheme::HTTP && scheme != Scheme::HTTPS) {
            return Err(malformed());
        }
        if scheme == Scheme::HTTP && !is_loopback(authority.host()) && !allow_plain {
            return Err(AddressError::Plain(without_credentials(base)));
        }
        let path = parts.path_and_query.as_ref().map_or("", PathAndQuery::path);
        let host_header = HeaderValue::try_from(without_usual_port(&scheme, &authority));
        let Ok(host_header) = host_header else {
            return Err(malformed());
        };
        Ok(Self {
            name: name.into(),
            origin: format!("{scheme}://{authority}").into(),
            host_header,
            kind: Kind::of_host(authority.host()),
            prefix: path.trim_end_matches('/').into(),
            scheme,
            authority,
            account: None,
            credential: None,
        })
    }

    /// The same upstream with a key of its own, sent in place of the client's, in the headers that the client uses.
    pub fn with_key(mut self, key: &str) -> Result<Self, AddressError> {
        let secret = |text: String| {
            let mut value = HeaderValue::try_from(text)
                .map_err(|_unfit| AddressError::Credential(self.name.to_string()))?;
            value.set_sensitive(true);
            Ok(value)
        };
        self.credential = Some(Credential {
            bearer: secret(format!("Bearer {key}"))?,
            bare: secret(key.to_owned())?,
        });
        Ok(self)
    }

    /// The same upstream, known to be kimiq's simulator.
    #[must_use]
    pub fn simulated(mut self) -> Self {
        self.kind = Kind::Simulated;
        self
    }

    /// The same upstream with pools called after this account, where the host's name would be another at each start.
    #[must_use]
    pub fn with_account(mut self, account: &str) -> Self {
        self.account = Some(account.into());
        self
    }

    /// Whether it is on this machine.
    pub fn is_local(&self) -> bool {
        is_loopback(self.authority.host())
    }

    /// The name under which it was registered.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Whose habits it has.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Host and port, for logs, pools and listings.
    pub fn host(&self) -> &str {
        self.authority.as_str()
    }

    /// The base address, for listings.
    pub fn base(&self) -> String {
        format!("{}://{}{}", self.scheme, self.authority, self.prefix)
    }

    /// What the upstream limits as one: the account and the model, or the account alone.
    pub fn pool(&self, model: &str) -> Arc<str> {
        match (self.kind, self.account.as_deref()) {
            (Kind::Moonshot | Kind::KimiCode, _) => self.host().into(),
            (_, account) => [account.unwrap_or(self.host()), "/", model].concat().into(),
        }
    }

    pub(super) fn credential(&self) -> Option<&Credential> {
        self.credential.as_ref()
    }

    /// Scheme and authority: what a connection leads to.
    pub(super) fn origin(&self) -> &Arc<str> {
        &self.origin
    }

    pub(super) fn host_header(&self) -> &HeaderValue {
        &self.host_header
    }

    /// What a connection is made to.
    pub(super) fn address(&self) -> Uri {
        let mut parts = http::uri::Parts::default();
        parts.scheme = Some(self.scheme.clone());
        parts.authority = Some(self.authority.clone());
        parts.path_and_query = Some(PathAndQuery::from_static("/"));
        // Scheme, authority and path together always make one.
        Uri::from_parts(parts).unwrap_or_default()
    }

    /// The target of a request whose path below the base is `rest` (it starts with `/`, query included).
    pub(super) fn target(&self, rest: &str) -> Result<Uri, http::Error> {
        let path = if self.prefix.is_empty() {
            rest.parse::<PathAndQuery>()
        } else {
            PathAndQuery::try_from([&self.prefix, rest].concat())
        };
        Ok(path?.into())
    }
}

/// As the header `host` wants it (RFC 9110, 7.2): a port that the scheme implies is left out.
fn without_usual_port<'a>(scheme: &Scheme, authority: &'a Authority) -> &'a str {
    let usual = if *scheme == Scheme::HTTPS { 443 } else { 80 };
    if authority.port_u16() == Some(usual) {
        authority.host()
    } else {
        authority.as_str()
    }
}

fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    bare == "localhost"
        || bare
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

/// An address as it may be shown: a user and password in it stay hidden.
fn without_credentials(address: &str) -> String {
    match address.rsplit_once('@') {
        Some((_, host)) => format!("…@{host}"),
        None => address.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_tells_the_kind() {
        for (base, expected) in [
            ("https://api.fireworks.ai/inference/v1", Kind::Fireworks),
            ("https://us.api.fireworks.ai/inference", Kind::Fireworks),
            ("https://notfireworks.ai/v1", Kind::Other),
            ("https://api.kimi.com/coding/v1", Kind::KimiCode),
            ("https://api.moonshot.cn/v1", Kind::Moonshot),
            ("https://openrouter.ai/api/v1", Kind::OpenRouter),
            (
                "https://aiplatform.googleapis.com/v1/projects/p",
                Kind::Vertex,
            ),
            ("http://127.0.0.1:9000/v1", Kind::Other),
            ("http://[::1]:9000", Kind::Other),
        ] {
            assert_eq!(
                Upstream::parse("u", base, false).unwrap().kind(),
                expected,
                "{base}"
            );
        }
    }

    #[test]
    fn paths_are_appended_to_the_base() {
        for (base, rest, expected) in [
            (
                "https://h/v1/",
                "/chat/completions?a=b",
                "h/v1/chat/completions?a=b",
            ),
            ("https://h", "/v1/messages", "h/v1/messages"),
            ("https://h:443/", "/x", "h/x"),
            ("http://localhost:443/", "/x", "localhost:443/x"),
            ("https://h:8/a/b", "/x", "h:8/a/b/x"),
        ] {
            let upstream = Upstream::parse("u", base, false).unwrap();
            let host = upstream.host_header().to_str().unwrap();
            let target = upstream.target(rest).unwrap();
            assert_eq!(format!("{host}{target}"), expected);
            assert_eq!(upstream.address().authority(), Some(&upstream.authority));
        }
    }

    #[test]
    fn what_is_unsafe_or_unclear_is_refused_without_telling_secrets() {
        for base in [
            "api.fireworks.ai",
            "ftp://h/x",
            "",
            "http://example.org/v1",
            "https://me:secret@h/v1",
        ] {
            let error = Upstream::parse("u", base, false).unwrap_err().to_string();
            assert!(!error.contains("secret"), "{error}");
        }
        assert!(Upstream::parse("u", "http://example.org/v1", true).is_ok());
        let keyed = Upstream::parse("u", "https://h", false)
            .unwrap()
            .with_key("sk-secret")
            .unwrap();
        assert!(!format!("{keyed:?}").contains("sk-secret"));
    }

    #[test]
    fn the_pool_is_what_the_upstream_limits_as_one() {
        let pool = |base: &str| {
            Upstream::parse("u", base, false)
                .unwrap()
                .pool("m")
                .to_string()
        };
        assert_eq!(
            pool("https://api.fireworks.ai/inference/v1"),
            "api.fireworks.ai/m"
        );
        assert_eq!(pool("https://api.moonshot.ai/v1"), "api.moonshot.ai");
        let demo = Upstream::parse("u", "http://127.0.0.1:9", false).unwrap();
        let demo = demo.simulated().with_account("simulated");
        assert_eq!(&*demo.pool("m"), "simulated/m");
    }
}
