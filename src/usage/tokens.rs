//! Token counts of one exchange, and what an upstream says about its budgets.

use serde::{Deserialize, Serialize};

/// Tokens that one exchange consumed, as the upstream reported them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tokens {
    /// All input tokens, cached ones included.
    pub prompt: u64,
    /// The part of `prompt` that the upstream's prompt cache held.
    pub cached: u64,
    /// All output tokens, thinking included.
    pub generated: u64,
    /// The part of `generated` that was thinking, where the upstream tells it.
    pub reasoning: u64,
}

impl Tokens {
    /// Input tokens that were not in the prompt cache.
    pub fn uncached(&self) -> u64 {
        self.prompt.saturating_sub(self.cached)
    }

    /// Input and output together: what the daily cap counts.
    pub fn total(&self) -> u64 {
        self.prompt.saturating_add(self.generated)
    }

    /// The same tokens in the three dimensions that Fireworks limits.
    pub fn dimensions(&self) -> Dimensions<u64> {
        Dimensions {
            prompt: self.prompt,
            uncached: self.uncached(),
            generated: self.generated,
        }
    }
}

impl std::ops::AddAssign for Tokens {
    fn add_assign(&mut self, more: Self) {
        self.prompt += more.prompt;
        self.cached += more.cached;
        self.generated += more.generated;
        self.reasoning += more.reasoning;
    }
}

/// One value for each token budget: total prompt, uncached prompt, generated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dimensions<T> {
    /// All input tokens, cached ones included.
    pub prompt: T,
    /// Input tokens outside the prompt cache.
    pub uncached: T,
    /// Output tokens.
    pub generated: T,
}

impl<T> Dimensions<T> {
    /// Prompt, uncached, generated.
    pub fn into_array(self) -> [T; 3] {
        [self.prompt, self.uncached, self.generated]
    }

    /// The three values in the order of [`Dimensions::into_array`].
    pub fn from_array([prompt, uncached, generated]: [T; 3]) -> Self {
        Self {
            prompt,
            uncached,
            generated,
        }
    }
}

/// What the headers of one answer said about the budgets of its pool. Units are as sent: per minute or per second is
/// decided by who learns from it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Observation {
    /// The limit per window, where a header named one.
    pub limits: Dimensions<Option<u64>>,
    /// What the answering replica believes is left.
    pub remaining: Dimensions<Option<u64>>,
    /// The upstream served this above its guaranteed share.
    pub over_limit: bool,
}
