//! What an answer means that is no success.
//!
//! The status alone does not tell: Moonshot sends 429 for a spent balance, the Kimi Code plan sends 403 for too many
//! parallel requests, a shedding replica sends an overload text inside a 500. Texts and types as collected from the
//! vendors' pages and from public reports.

use std::time::Duration;

use chrono::{DateTime, Utc};
use http::{HeaderMap, StatusCode};
use memchr::memmem;

/// A throttle that asks for more than this is no throttle but a spent quota.
const LONGEST_THROTTLE: Duration = Duration::from_mins(1);

/// What 429 says when waiting a minute does not help (Moonshot's and the Kimi Code plan's texts, `OpenAI`'s type).
const SPENT: [&str; 5] = [
    "exceeded_current_quota",
    "insufficient_quota",
    "tpd rate limit",
    "insufficient balance",
    "usage limit",
];

/// How an upstream refused, and what can be done about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Over a rate: the same request fits later.
    Throttled {
        /// The wait that the upstream asked for.
        after: Option<Duration>,
    },
    /// The upstream sheds load although the account is within its limits.
    Shed,
    /// A gateway or the server failed; the next try may land elsewhere.
    Failed,
    /// A balance, plan or daily quota is spent: waiting for it is not for a proxy to do.
    Exhausted,
    /// The request itself is at fault, or its credential.
    Caller,
}

impl Refusal {
    /// Reads an answer that is no success. `body` may be its beginning only; `now` resolves dates in headers.
    pub fn of(status: StatusCode, headers: &HeaderMap, body: &[u8], now: DateTime<Utc>) -> Self {
        let told = told(body);
        let says = |text: &str| told.contains(text);
        let after = retry_after(headers, body, now);
        match status.as_u16() {
            429 if after.is_some_and(|wait| wait > LONGEST_THROTTLE) => Self::Exhausted,
            429 if SPENT.iter().any(|text| says(text)) => Self::Exhausted,
            429 if says("overloaded") => Self::Shed,
            429 => Self::Throttled { after },
            403 if says("concurrency") || says("concurrent") => Self::Throttled { after },
            503 | 529 => Self::Shed,
            500 if says("overload") => Self::Shed,
            500 | 502 | 504 | 520..=524 => Self::Failed,
            402 => Self::Exhausted,
            _ => Self::Caller,
        }
    }
}

/// The wait that an upstream asks for: `retry-after-ms`, `retry-after` as seconds or date, or Moonshot's sentence
/// `after N seconds`.
fn retry_after(headers: &HeaderMap, body: &[u8], now: DateTime<Utc>) -> Option<Duration> {
    let text = |name: &str| {
        headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .map(str::trim)
    };
    let positive = |seconds: f64| Duration::try_from_secs_f64(seconds).ok();
    if let Some(ms) = text("retry-after-ms").and_then(|value| value.parse::<f64>().ok()) {
        return positive(ms / 1000.0);
    }
    if let Some(value) = text("retry-after") {
        if let Ok(seconds) = value.parse::<f64>() {
            return positive(seconds);
        }
        let date = DateTime::parse_from_rfc2822(value).ok()?;
        return Some(
            (date.with_timezone(&Utc) - now)
                .to_std()
                .unwrap_or_default(),
        );
    }
    let rest = &body[memmem::find(body, b"try again after ")? + 16..];
    let digits = rest.split(|byte| !byte.is_ascii_digit()).next()?;
    std::str::from_utf8(digits)
        .ok()?
        .parse()
        .ok()
        .map(Duration::from_secs)
}

/// What an error says to a person or a program, in lower case: its message, type and code, not a request id beside
/// them. A body in another form says what it says.
fn told(body: &[u8]) -> String {
    let Ok(body) = serde_json::from_slice::<serde_json::Value>(body) else {
        return String::from_utf8_lossy(body).to_lowercase();
    };
    let error = &body["error"];
    let places = [
        &body["message"],
        &body["type"],
        &body["code"],
        error,
        &error["message"],
        &error["type"],
        &error["code"],
    ];
    let texts: Vec<&str> = places.iter().filter_map(|place| place.as_str()).collect();
    texts.join("\n").to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_and_text_together_tell_the_meaning() {
        let throttled = |seconds: Option<u64>| Refusal::Throttled {
            after: seconds.map(Duration::from_secs),
        };
        for (status, header, body, expected) in [
            (
                429,
                None,
                r#"{"error":{"message":"rate limit exceeded, please try again later"}}"#,
                throttled(None),
            ),
            (429, Some("7"), "", throttled(Some(7))),
            (429, Some("1152"), "", Refusal::Exhausted),
            (
                429,
                Some("Fri, 20 Nov 2026 10:00:05 GMT"),
                "",
                throttled(Some(5)),
            ),
            (
                429,
                Some("Fri, 20 Nov 2026 09:00:00 GMT"),
                "",
                throttled(Some(0)),
            ),
            (
                429,
                None,
                "request reached max organization concurrency: 1, please try again after 3 seconds",
                throttled(Some(3)),
            ),
            (
                429,
                None,
                r#"{"error":{"type":"exceeded_current_quota_error"}}"#,
                Refusal::Exhausted,
            ),
            (
                429,
                None,
                "request reached organization TPD rate limit, current: 1, limit: 2",
                Refusal::Exhausted,
            ),
            (
                429,
                None,
                "The engine is currently overloaded",
                Refusal::Shed,
            ),
            (
                403,
                None,
                "you have too many concurrent requests",
                throttled(None),
            ),
            (
                429,
                None,
                r#"{"error":{"message":"too many requests"},"request_id":"req_9tpd rate limit"}"#,
                throttled(None),
            ),
            (
                429,
                None,
                "<html>the load balancer is busy</html>",
                throttled(None),
            ),
            (403, None, "access_terminated_error", Refusal::Caller),
            (503, None, "", Refusal::Shed),
            (529, None, "", Refusal::Shed),
            (
                502,
                None,
                "<html><title>502 Bad Gateway</title></html>",
                Refusal::Failed,
            ),
            (522, None, "", Refusal::Failed),
            (402, None, "", Refusal::Exhausted),
            (400, None, "", Refusal::Caller),
            (401, None, "", Refusal::Caller),
        ] {
            let mut headers = HeaderMap::new();
            if let Some(value) = header {
                headers.insert("retry-after", value.parse().unwrap());
            }
            let now = "2026-11-20T10:00:00Z".parse().unwrap();
            let found = Refusal::of(
                StatusCode::from_u16(status).unwrap(),
                &headers,
                body.as_bytes(),
                now,
            );
            assert_eq!(found, expected, "{status} {header:?} {body}");
        }
    }
}
