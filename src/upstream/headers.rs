//! Which headers cross, and what the limit headers say.
//!
//! Everything crosses that is not about one connection: the managed endpoints refuse clients whose identity headers
//! are missing. The upstream is asked for identity encoding, because usage is read from the bytes as they pass.

use http::header::{
    ACCEPT_ENCODING, AUTHORIZATION, CONNECTION, HeaderMap, HeaderName, HeaderValue,
};

use crate::upstream::Upstream;
use crate::usage::{Dimensions, Observation};

/// Whether a header belongs to one connection (RFC 9110, 7.6.1, and the older `keep-alive`). The names are compared by
/// length and bytes, which costs less than a look-up each.
fn is_hop_by_hop(name: &str) -> bool {
    matches!(
        name,
        "connection"
            | "keep-alive"
            | "proxy-connection"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "te"
            | "trailer"
            | "transfer-encoding"
            | "upgrade"
    )
}

/// Headers that carry a bare key: Anthropic's, Azure's, Google's.
const KEYS: [&str; 3] = ["x-api-key", "api-key", "x-goog-api-key"];

/// Every header of kimiq's own begins so and stops here.
const OURS: &str = "x-kimiq-";

/// The client's headers as the upstream is to see them. The sender of the message sets `host` and the body's length.
pub fn request_headers(headers: &HeaderMap, upstream: &Upstream) -> HeaderMap {
    let own_credential = upstream.credential();
    let mut sent = crossing(headers, |name| {
        !(name.starts_with(OURS)
            || matches!(
                name,
                "host" | "content-length" | "expect" | "accept-encoding"
            )
            || own_credential.is_some() && (name == "authorization" || KEYS.contains(&name)))
    });
    sent.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    if let Some(own) = own_credential {
        // The client was set up for this upstream, so it knows where a key belongs.
        for name in KEYS.into_iter().filter(|name| headers.contains_key(*name)) {
            sent.insert(HeaderName::from_static(name), own.bare.clone());
        }
        if headers.contains_key(AUTHORIZATION) || KEYS.iter().all(|name| !sent.contains_key(*name))
        {
            sent.insert(AUTHORIZATION, own.bearer.clone());
        }
    }
    sent
}

/// The upstream's headers as the client is to see them.
pub fn response_headers(headers: HeaderMap) -> HeaderMap {
    if headers.keys().any(|name| is_hop_by_hop(name.as_str())) {
        crossing(&headers, |_| true)
    } else {
        headers
    }
}

/// Headers that are not about the connection they came over, and that `wanted` takes.
fn crossing(headers: &HeaderMap, wanted: impl Fn(&str) -> bool) -> HeaderMap {
    // What the connection header lists, usually `keep-alive` or `close`, concerns the connection as well.
    let lists = headers.get_all(CONNECTION);
    let is_listed = |name: &str| {
        let mut listed = lists
            .iter()
            .flat_map(|value| value.to_str().unwrap_or_default().split(','));
        listed.any(|it| it.trim().eq_ignore_ascii_case(name))
    };
    let mut crossed = HeaderMap::with_capacity(headers.len() + 2);
    for (name, value) in headers {
        let text = name.as_str();
        if !is_hop_by_hop(text) && !is_listed(text) && wanted(text) {
            crossed.append(name, value.clone());
        }
    }
    crossed
}

/// Reads the limit headers of an answer; `None` when there are none. Names and units as Fireworks sends them (observed
/// 2026-08; its documents disagree about the unit over time, so the numbers are taken as they are).
pub fn observe(headers: &HeaderMap) -> Option<Observation> {
    if !headers
        .keys()
        .any(|name| name.as_str().starts_with("x-ratelimit-"))
    {
        return None;
    }
    let number = |name: &str| headers.get(name)?.to_str().ok()?.trim().parse::<u64>().ok();
    let seen = Observation {
        limits: Dimensions {
            prompt: number("x-ratelimit-limit-tokens-prompt"),
            uncached: number("x-ratelimit-limit-tokens-cache-adjusted-prompt"),
            generated: number("x-ratelimit-limit-tokens-generated"),
        },
        remaining: Dimensions {
            prompt: number("x-ratelimit-remaining-tokens-prompt"),
            uncached: number("x-ratelimit-remaining-tokens-cache-adjusted-prompt"),
            generated: number("x-ratelimit-remaining-tokens-generated"),
        },
        over_limit: headers
            .get("x-ratelimit-over-limit")
            .is_some_and(|value| value == "yes"),
    };
    (seen != Observation::default()).then_some(seen)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| {
                (
                    name.parse::<HeaderName>().unwrap(),
                    value.parse::<HeaderValue>().unwrap(),
                )
            })
            .collect()
    }

    #[test]
    fn identity_crosses_and_the_connection_stays() {
        let upstream = Upstream::parse("u", "https://h", false).unwrap();
        let sent = request_headers(
            &map(&[
                ("user-agent", "kimi-code-cli/2.1.0"),
                ("x-msh-device-id", "d"),
                ("authorization", "Bearer theirs"),
                ("connection", "keep-alive, x-private"),
                ("x-private", "1"),
                ("keep-alive", "timeout=5"),
                ("host", "127.0.0.1:1"),
                ("accept-encoding", "gzip, deflate"),
                ("x-kimiq-key", "k"),
                ("content-length", "3"),
                ("x-unknown", "stays"),
            ]),
            &upstream,
        );
        let expected = map(&[
            ("user-agent", "kimi-code-cli/2.1.0"),
            ("x-msh-device-id", "d"),
            ("authorization", "Bearer theirs"),
            ("accept-encoding", "identity"),
            ("x-unknown", "stays"),
        ]);
        assert_eq!(sent, expected);
    }

    #[test]
    fn a_key_of_our_own_replaces_theirs_in_the_same_form() {
        let upstream = Upstream::parse("u", "https://h", false).unwrap();
        let upstream = upstream.with_key("ours").unwrap();
        for (theirs, expected) in [
            (&[][..], &[("authorization", "Bearer ours")][..]),
            (&[("x-api-key", "theirs")], &[("x-api-key", "ours")]),
            (
                &[("api-key", "theirs"), ("authorization", "Bearer theirs")],
                &[("api-key", "ours"), ("authorization", "Bearer ours")],
            ),
        ] {
            let mut sent = request_headers(&map(theirs), &upstream);
            sent.remove(ACCEPT_ENCODING);
            assert_eq!(sent, map(expected));
        }
    }

    #[test]
    fn the_three_budgets_are_read_and_absence_is_not_zero() {
        let seen = observe(&map(&[
            ("x-ratelimit-limit-tokens-prompt", "11250000"),
            ("x-ratelimit-remaining-tokens-prompt", "11247531"),
            ("x-ratelimit-limit-tokens-generated", "36000"),
            ("x-ratelimit-over-limit", "no"),
        ]))
        .unwrap();
        assert_eq!(seen.limits.prompt, Some(11_250_000));
        assert_eq!(seen.limits.uncached, None);
        assert_eq!(seen.limits.generated, Some(36_000));
        assert_eq!(seen.remaining.prompt, Some(11_247_531));
        assert!(!seen.over_limit);
        assert!(observe(&map(&[("content-type", "text/plain")])).is_none());
    }
}
