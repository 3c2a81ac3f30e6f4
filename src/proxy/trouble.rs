//! What keeps the requests of a terminal from an answer when it is no budget: an upstream that cannot be reached,
//! sheds load or fails. Told until the upstream answers again.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use tokio::time::Instant;

use crate::upstream::{Refusal, SendError};
use crate::usage::figures;

/// What an upstream did in place of answering.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failing {
    /// It took no connection.
    Unreachable,
    /// It took the request and said nothing, or hung up.
    Silent,
    /// It sheds load.
    Shedding(StatusCode),
    /// It or a gateway before it failed.
    Broken(StatusCode),
}

impl Failing {
    pub(super) fn by_refusal(refusal: Refusal, status: StatusCode) -> Option<Self> {
        match refusal {
            Refusal::Shed => Some(Self::Shedding(status)),
            Refusal::Failed => Some(Self::Broken(status)),
            Refusal::Throttled { .. } | Refusal::Exhausted | Refusal::Caller => None,
        }
    }

    pub(super) fn by_error(error: &SendError) -> Option<Self> {
        match error {
            SendError::Connect { .. } => Some(Self::Unreachable),
            SendError::Broken { .. } | SendError::Silent { .. } => Some(Self::Silent),
            SendError::Address(_) => None,
        }
    }
}

/// Tries of a terminal that brought no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// Host and port of the upstream.
    pub host: Arc<str>,
    /// What it did last.
    pub failing: Failing,
    /// Tries without an answer in a row, over all requests of the terminal, or of all terminals where nobody gets any.
    pub tries: u32,
    /// When the next one is due, while that is kimiq's own to decide.
    pub next: Option<Instant>,
}

impl Trouble {
    /// What is wrong and how often it was tried: `no connection to HOST, tried 3 times`.
    pub fn what(&self) -> String {
        let host = &self.host;
        let what = match self.failing {
            Failing::Unreachable => format!("the upstream {host} does not answer"),
            Failing::Silent => format!("the upstream {host} breaks off without an answer"),
            Failing::Shedding(status) => {
                format!(
                    "the upstream {host} turns requests away ({})",
                    status.as_u16()
                )
            }
            Failing::Broken(status) => format!("the upstream {host} fails ({})", status.as_u16()),
        };
        match self.tries {
            0 | 1 => format!("{what}, tried once"),
            tries => format!("{what}, tried {tries} times"),
        }
    }

    /// Time until the next try, if it is known.
    pub fn next_in(&self, now: Instant) -> Option<Duration> {
        self.next.map(|at| at.saturating_duration_since(now))
    }

    /// The same with what comes next. `trying`: a request is on its way now.
    pub fn sentence(&self, trying: bool, now: Instant) -> String {
        let what = self.what();
        match self.next_in(now) {
            Some(left) if !left.is_zero() => {
                let left = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
                format!("{what}; next try in {}", figures::time(left))
            }
            _ if trying || self.next.is_some() => format!("{what}; trying again now"),
            _ => format!("{what}; its client tries again by itself"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trouble_is_told_in_one_sentence() {
        let now = Instant::now();
        let check = |failing, tries, next: Option<u64>, trying, expected: &str| {
            let trouble = Trouble {
                host: "h:1".into(),
                failing,
                tries,
                next: next.map(|millis| now + Duration::from_millis(millis)),
            };
            assert_eq!(trouble.sentence(trying, now), expected);
        };
        check(
            Failing::Unreachable,
            4,
            Some(1500),
            true,
            "the upstream h:1 does not answer, tried 4 times; next try in 2 s",
        );
        check(
            Failing::Silent,
            1,
            None,
            true,
            "the upstream h:1 breaks off without an answer, tried once; trying again now",
        );
        check(
            Failing::Shedding(StatusCode::SERVICE_UNAVAILABLE),
            2,
            None,
            false,
            "the upstream h:1 turns requests away (503), tried 2 times; its client tries again by itself",
        );
        check(
            Failing::Broken(StatusCode::BAD_GATEWAY),
            2,
            Some(0),
            false,
            "the upstream h:1 fails (502), tried 2 times; trying again now",
        );
    }
}
