//! Which headers cross, and what the limit headers say.
//!
//! Everything crosses that is not about one connection: the managed endpoints refuse clients whose identity headers
//! are missing. The upstream is asked for identity encoding, because usage is read from the bytes as they pass.

use http::header::{
    ACCEPT_ENCODING, CONNECTION, CONTENT_LENGTH, HOST, HeaderMap, HeaderName, HeaderValue,
    PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};

use crate::upstream::Upstream;
use crate::usage::{Dimensions, Observation};

/// Headers that belong to one connection (RFC 9110, 7.6.1) or that the sender of a message sets itself.
const HOP_BY_HOP: [HeaderName; 8] = [
    CONNECTION,
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
    HOST,
];

/// Every header of kimiq's own begins so and stops here.
const OURS: &str = "x-kimiq-";

/// The client's headers as the upstream is to see them.
pub fn request_headers(mut headers: HeaderMap, upstream: &Upstream) -> HeaderMap {
    remove_hop_by_hop(&mut headers);
    remove_ours(&mut headers);
    headers.remove("keep-alive");
    headers.remove(http::header::EXPECT);
    // The body's own size sets it again.
    headers.remove(CONTENT_LENGTH);
    headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    if let Some((name, value)) = upstream.credential() {
        headers.remove("x-api-key");
        headers.insert(name, value.clone());
    }
    headers
}

/// The upstream's headers as the client is to see them.
pub fn response_headers(mut headers: HeaderMap) -> HeaderMap {
    remove_hop_by_hop(&mut headers);
    headers.remove("keep-alive");
    headers
}

fn remove_hop_by_hop(headers: &mut HeaderMap) {
    if let Some(listed) = headers
        .get(CONNECTION)
        .and_then(|value| value.to_str().ok())
    {
        // Usually `keep-alive` or `close`; anything else that is listed concerns this connection only.
        let names: Vec<HeaderName> = listed
            .split(',')
            .filter_map(|name| name.trim().parse().ok())
            .collect();
        for name in names {
            headers.remove(name);
        }
    }
    for name in HOP_BY_HOP {
        headers.remove(name);
    }
}

fn remove_ours(headers: &mut HeaderMap) {
    let ours: Vec<HeaderName> = headers
        .keys()
        .filter(|name| name.as_str().starts_with(OURS))
        .cloned()
        .collect();
    for name in ours {
        headers.remove(name);
    }
}

/// Reads the limit headers of an answer; `None` when there are none. Names and units as Fireworks sends them (observed
/// 2026-08; its documents disagree about the unit over time, so the numbers are taken as they are).
pub fn observe(headers: &HeaderMap) -> Option<Observation> {
    let number = |name: &str| headers.get(name)?.to_str().ok()?.trim().parse::<u64>().ok();
    let dimensions = |kind: &str| Dimensions {
        prompt: number(&format!("x-ratelimit-{kind}-tokens-prompt")),
        uncached: number(&format!("x-ratelimit-{kind}-tokens-cache-adjusted-prompt")),
        generated: number(&format!("x-ratelimit-{kind}-tokens-generated")),
    };
    let over_limit = headers
        .get("x-ratelimit-over-limit")
        .is_some_and(|value| value == "yes");
    let seen = Observation {
        limits: dimensions("limit"),
        remaining: dimensions("remaining"),
        over_limit,
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
            map(&[
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
    fn a_key_of_our_own_replaces_both_forms_of_theirs() {
        let upstream = Upstream::parse("u", "https://h", false)
            .unwrap()
            .with_bearer("ours")
            .unwrap();
        let sent = request_headers(
            map(&[("x-api-key", "theirs"), ("authorization", "Bearer theirs")]),
            &upstream,
        );
        assert_eq!(sent.get("authorization").unwrap(), "Bearer ours");
        assert!(sent.get("x-api-key").is_none());
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
