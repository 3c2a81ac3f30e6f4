//! Token estimates before the fact: bytes of text divided by a learned ratio, anchored on a session's last true usage.

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::usage::Tokens;

/// An estimate of what a request will cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Estimate {
    /// Input tokens, cached ones included.
    pub prompt: u64,
    /// Input tokens outside the prompt cache; errs high.
    pub uncached: u64,
}

/// Learns bytes per token; shared by all exchanges.
#[derive(Debug, Default)]
pub struct Estimator {
    _state: Mutex<()>,
}

impl Estimator {
    /// `chars_per_token` fixes the ratio (a user's setting, thousandths); `None` learns it, starting at 3.5.
    pub fn new(_thousandths_per_token: Option<u64>) -> Self {
        Self::default()
    }

    /// Estimates a request whose text has so many bytes.
    pub fn estimate(&self, _model: &str, _session: &str, bytes: u64, _now: Instant) -> Estimate {
        Estimate {
            prompt: bytes / 3,
            uncached: bytes / 3,
        }
    }

    /// Learns from the true usage of a request that had so many bytes of text.
    pub fn learn(&self, _model: &str, _session: &str, _bytes: u64, _tokens: Tokens, _now: Instant) {
    }
}
