//! What upstreams document about how their limits move, from a dated data file.
//!
//! The documents changed four times between May and November 2026, so nothing of this admits or refuses a request:
//! headers and 429s do. The rules tell how far a fall can be believed, when idle limits are void, and when the next
//! step up may come.

use std::sync::LazyLock;
use std::time::Duration;

use serde::Deserialize;

use crate::usage::Dimensions;

/// The rules of one upstream.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Rules {
    pub(crate) name: String,
    /// When the documents said so.
    pub(crate) as_of: String,
    /// Limits of a new account.
    pub(crate) start: Dimensions<u64>,
    pub(crate) rise: Rise,
    pub(crate) fall: Fall,
    reset_hours: u64,
    #[serde(default)]
    ceiling: Vec<Ceiling>,
}

/// How a limit rises.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Rise {
    pub(crate) above_percent: u64,
    pub(crate) to_percent: u64,
    every_minutes: u64,
}

/// How a limit falls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Fall {
    pub(crate) below_percent: u64,
    pub(crate) to_percent: u64,
    pub(crate) every_hours: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Ceiling {
    model: String,
    limits: Dimensions<u64>,
}

#[derive(Debug, Deserialize)]
struct File {
    upstream: Vec<Rules>,
}

static FILE: LazyLock<Vec<Rules>> = LazyLock::new(|| {
    toml::from_str::<File>(include_str!("rules.toml")).map_or_else(
        |error| {
            tracing::error!(%error, "the built-in rules of upstreams cannot be read");
            Vec::new()
        },
        |file| file.upstream,
    )
});

/// The rules for upstreams that limit tokens as Fireworks does: the only ones that are documented.
pub(crate) fn budgeted() -> Option<&'static Rules> {
    FILE.first()
}

impl Rules {
    /// Limits that steps never exceed, for a pool whose name ends with the model's.
    pub(crate) fn ceiling(&self, pool: &str) -> Option<[u64; 3]> {
        let found = self.ceiling.iter().find(|one| pool.contains(&one.model));
        found.map(|one| one.limits.into_array())
    }

    /// Idle time after which learned limits are void.
    pub(crate) fn reset(&self) -> Duration {
        Duration::from_hours(self.reset_hours)
    }
}

impl Rise {
    /// Least time between two steps.
    pub(crate) fn every(&self) -> Duration {
        Duration::from_mins(self.every_minutes)
    }

    /// Steps from a limit to a ceiling.
    pub(crate) fn steps(&self, from: u64, to: u64) -> u32 {
        let (mut limit, mut steps) = (from.max(1), 0);
        while limit < to && steps < 100 {
            limit = (limit * self.to_percent).div_ceil(100).max(limit + 1);
            steps += 1;
        }
        steps
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_can_be_read_and_says_what_the_documents_say() {
        let rules = budgeted().unwrap();
        assert_eq!(rules.name, "fireworks");
        assert_eq!(rules.as_of.len(), 10);
        assert_eq!(rules.reset(), Duration::from_hours(72));
        assert_eq!(rules.rise.every(), Duration::from_mins(15));
        // Three hours to the ceiling of the middle models, two and a quarter to that of the large ones.
        assert_eq!(rules.rise.steps(36_000, 432_000), 12);
        assert_eq!(rules.rise.steps(3_600_000, 21_600_000), 9);
        assert_eq!(rules.rise.steps(5, 5), 0);
        let of = |pool: &str| rules.ceiling(pool).unwrap()[2];
        assert_eq!(
            of("api.fireworks.ai/accounts/fireworks/models/kimi-k2p6"),
            432_000
        );
        assert_eq!(
            of("api.fireworks.ai/accounts/fireworks/models/kimi-k3"),
            216_000
        );
        assert_eq!(
            (
                rules.fall.below_percent,
                rules.fall.to_percent,
                rules.fall.every_hours
            ),
            (33, 80, 24)
        );
    }
}
