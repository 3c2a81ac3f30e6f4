//! How likely a prompt cache still holds a prefix, by the time since it was last used.
//!
//! No upstream publishes a lifetime, so the share that was found in the cache is learned for four ages. What a
//! prediction promises too much shows as a refusal; then the safety that is added to it widens, and shrinks again with
//! every answer.

use std::time::Duration;

/// Ends of the ages, but for the last, which has none.
const ENDS: [Duration; 3] = [
    Duration::from_mins(1),
    Duration::from_mins(5),
    Duration::from_mins(15),
];
const AGES: usize = ENDS.len() + 1;
/// Share expected at the start. Fireworks says: several minutes at least, hours at best.
const START: [f64; AGES] = [0.9, 0.8, 0.3, 0.0];
/// No cache holds all of it: the last block is never full.
const MOST: f64 = 0.998;
/// What a new sample weighs.
const STEP: f64 = 0.1;
/// Added to what is expected outside the cache: the least, the most, and the factors by which it moves.
const SAFETY: f64 = 0.02;
const WIDEST: f64 = 0.4;
const WIDEN: f64 = 1.5;
const CALM: f64 = 0.98;

/// What is learned about the cache of one upstream and model.
#[derive(Clone, Debug)]
pub(super) struct Hits {
    share: [f64; AGES],
    safety: f64,
}

impl Default for Hits {
    fn default() -> Self {
        Self {
            share: START,
            safety: SAFETY,
        }
    }
}

impl Hits {
    /// Expected share of a prefix of this age.
    pub(super) fn share(&self, age: Duration) -> f64 {
        self.share[of(age)]
    }

    /// When the expected share will have fallen by more than half; `None` when it never will, or nothing is expected.
    pub(super) fn expires_in(&self, age: Duration) -> Option<Duration> {
        let now = of(age);
        let share = self.share[now];
        let next = (now + 1..AGES).find(|later| self.share[*later] < share / 2.0)?;
        Some(ENDS[next - 1].saturating_sub(age))
    }

    /// Learns from the share that was found.
    pub(super) fn learn(&mut self, age: Duration, found: f64) {
        let share = &mut self.share[of(age)];
        *share += STEP * (found.clamp(0.0, 1.0) - *share);
        *share = share.clamp(0.0, MOST);
    }

    /// Share to add to what is expected outside the cache.
    pub(super) fn safety(&self) -> f64 {
        self.safety
    }

    /// The upstream refused a request although there was room by our account.
    pub(super) fn refused(&mut self) {
        self.safety = (self.safety * WIDEN).min(WIDEST);
    }

    /// An answer came.
    pub(super) fn answered(&mut self) {
        self.safety = (self.safety * CALM).max(SAFETY);
    }

    /// The shares, to be kept over a restart.
    pub(super) fn saved(&self) -> Vec<f64> {
        self.share.to_vec()
    }

    /// Takes over kept shares; what does not fit is ignored.
    pub(super) fn restore(&mut self, saved: &[f64]) {
        if saved.len() == AGES && saved.iter().all(|share| share.is_finite()) {
            self.share.copy_from_slice(saved);
            for share in &mut self.share {
                *share = share.clamp(0.0, MOST);
            }
        }
    }
}

fn of(age: Duration) -> usize {
    ENDS.iter().take_while(|end| age >= **end).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_learn_for_themselves() {
        let mut hits = Hits::default();
        for _ in 0..60 {
            hits.learn(Duration::from_secs(400), 1.0);
            hits.learn(Duration::from_secs(10), 0.0);
        }
        assert!(hits.share(Duration::from_secs(500)) > 0.97);
        assert!(hits.share(Duration::from_secs(59)) < 0.01);
        assert!((hits.share(Duration::from_mins(1)) - 0.8).abs() < 1e-9);
        let mut fresh = Hits::default();
        fresh.restore(&hits.saved());
        assert_eq!(fresh.saved(), hits.saved());
        fresh.restore(&[f64::INFINITY; AGES]);
        assert_eq!(fresh.saved(), hits.saved());
    }

    #[test]
    fn the_end_of_a_cache_is_where_the_share_halves() {
        let hits = Hits::default();
        let seconds = Duration::from_secs;
        for (age, expected) in [
            (0, Some(300)),
            (100, Some(200)),
            (300, Some(600)),
            (900, None),
        ] {
            assert_eq!(
                hits.expires_in(seconds(age)),
                expected.map(seconds),
                "{age}"
            );
        }
    }

    #[test]
    fn refusals_widen_the_safety_for_a_while() {
        let mut hits = Hits::default();
        for _ in 0..20 {
            hits.refused();
        }
        assert!((hits.safety() - WIDEST).abs() < 1e-9);
        for _ in 0..200 {
            hits.answered();
        }
        assert!((hits.safety() - SAFETY).abs() < 1e-9);
    }
}
