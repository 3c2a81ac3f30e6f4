//! Where a request goes: from its path to an upstream and the path below that upstream's base.
//!
//! `/p/ROUTE/rest` carries the terminal's key in a header, `/t/KEY/ROUTE/rest` carries it in the path, for clients to
//! which no header can be given. Any other path goes to the default upstream, if there is one.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::RwLock;
use percent_encoding::percent_decode_str;

use crate::upstream::Upstream;

/// The upstreams that can be reached, by route name.
#[derive(Debug, Default)]
pub struct Routes {
    named: RwLock<HashMap<String, Arc<Upstream>>>,
    default: RwLock<Option<Arc<Upstream>>>,
}

/// A path, taken apart.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Path<'a> {
    /// `/p/ROUTE/rest`.
    Named { route: &'a str, rest: &'a str },
    /// `/t/KEY/ROUTE/rest`.
    Keyed {
        key: &'a str,
        route: &'a str,
        rest: &'a str,
    },
    /// Anything else.
    Plain,
}

impl Routes {
    /// Adds or replaces an upstream under its own name. Requests that run go on with the old one.
    pub fn set(&self, upstream: Upstream) {
        self.named
            .write()
            .insert(upstream.name().to_string(), Arc::new(upstream));
    }

    /// Sends paths without a route to this upstream.
    pub fn set_default(&self, upstream: Upstream) {
        *self.default.write() = Some(Arc::new(upstream));
    }

    /// All upstreams, for listings.
    pub fn all(&self) -> Vec<Arc<Upstream>> {
        let named = self.named.read();
        named
            .values()
            .cloned()
            .chain(self.default.read().clone())
            .collect()
    }

    /// The upstream of a route as it stands in a path, percent-encoded.
    pub(super) fn find(&self, route: &str) -> Option<Arc<Upstream>> {
        let name = percent_decode_str(route).decode_utf8().ok()?;
        self.named.read().get(name.as_ref()).cloned()
    }

    pub(super) fn fallback(&self) -> Option<Arc<Upstream>> {
        self.default.read().clone()
    }
}

/// Takes a path (query included) apart.
pub(super) fn split(path: &str) -> Path<'_> {
    if let Some(tail) = path.strip_prefix("/p/") {
        let (route, rest) = segment(tail);
        return Path::Named { route, rest };
    }
    if let Some(tail) = path.strip_prefix("/t/") {
        let (key, tail) = segment(tail);
        let (route, rest) = segment(tail.strip_prefix('/').unwrap_or(tail));
        return Path::Keyed { key, route, rest };
    }
    Path::Plain
}

/// The part before the next slash or query, and the rest from it on.
fn segment(path: &str) -> (&str, &str) {
    path.split_at(path.find(['/', '?']).unwrap_or(path.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_come_apart() {
        let named = |route, rest| Path::Named { route, rest };
        for (path, expected) in [
            (
                "/p/moonshot-ai/v1/chat/completions",
                named("moonshot-ai", "/v1/chat/completions"),
            ),
            (
                "/p/managed%3Akimi-code/messages?beta=true",
                named("managed%3Akimi-code", "/messages?beta=true"),
            ),
            ("/p/x", named("x", "")),
            ("/p/x?a", named("x", "?a")),
            (
                "/t/k1/x/v1/messages",
                Path::Keyed {
                    key: "k1",
                    route: "x",
                    rest: "/v1/messages",
                },
            ),
            (
                "/t/k1",
                Path::Keyed {
                    key: "k1",
                    route: "",
                    rest: "",
                },
            ),
            ("/v1/messages", Path::Plain),
            ("/", Path::Plain),
        ] {
            assert_eq!(split(path), expected, "{path}");
        }
    }

    #[test]
    fn names_are_decoded() {
        let routes = Routes::default();
        routes.set(
            Upstream::parse("managed:kimi-code", "https://api.kimi.com/coding/v1", false).unwrap(),
        );
        assert!(routes.find("managed%3Akimi-code").is_some());
        assert!(routes.find("managed:kimi-code").is_some());
        assert!(routes.find("other").is_none());
    }
}
