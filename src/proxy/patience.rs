//! How long the asking client waits for the first byte, and what keeps it waiting.
//!
//! Measured: Kimi Code 2.1.0 gives up 300 s after the last sign of life and 600 s after the request at the latest; an
//! interim `102` is such a sign. The Python clients wait 600 s and want no sign.

use std::time::Duration;

use http::header::USER_AGENT;
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::proxy::Options;

/// Where the official client libraries tell what they run on.
const RUNTIME: HeaderName = HeaderName::from_static("x-stainless-runtime");

/// The clients' own limit on a request without a byte of its answer is 600 s; 10 s less lets an answer still arrive.
const TOTAL: Duration = Duration::from_secs(590);

/// A client's patience.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Patience {
    /// The longest wait for the head of an answer.
    pub(super) longest: Duration,
    /// How often an interim `102` is due; `None` for clients that need none.
    pub(super) sign_every: Option<Duration>,
}

/// Reads a client's patience off its headers.
pub(super) fn of(headers: &HeaderMap, options: &Options) -> Patience {
    let text = |name: HeaderName| headers.get(name).map_or(&b""[..], HeaderValue::as_bytes);
    let runs_on_node = text(USER_AGENT).starts_with(b"kimi-code-cli/") || text(RUNTIME) == b"node";
    Patience {
        longest: options.max_wait.unwrap_or(TOTAL),
        sign_every: runs_on_node.then_some(options.sign_every),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn node_clients_get_signs_and_a_setting_wins() {
        let options = Options::default();
        let signs = Some(options.sign_every);
        let mut headers = HeaderMap::new();
        assert_eq!(of(&headers, &options).sign_every, None);
        headers.insert(USER_AGENT, "kimi-code-cli/2.1.0".parse().unwrap());
        assert_eq!(
            of(&headers, &options),
            Patience {
                longest: Duration::from_secs(590),
                sign_every: signs
            }
        );
        headers.insert(USER_AGENT, "KimiCLI/1.51.0".parse().unwrap());
        assert_eq!(of(&headers, &options).sign_every, None);
        headers.insert("x-stainless-runtime", "node".parse().unwrap());
        let hurried = Options {
            max_wait: Some(Duration::from_secs(7)),
            ..options
        };
        assert_eq!(
            of(&headers, &hurried),
            Patience {
                longest: Duration::from_secs(7),
                sign_every: signs
            }
        );
    }
}
