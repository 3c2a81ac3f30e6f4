//! How likely a prompt cache still holds a prefix, by the time since it was last used.
//!
//! No upstream publishes a lifetime, so what was found in the cache is counted by age. A single prefix is there or it is
//! not, and what lives for one age has lived for all before, so the shares never rise with age: neighbours that say
//! otherwise are taken together. What a prediction promises too much shows as a refusal; then the safety that is added to
//! it widens, and shrinks again with every answer.

use std::time::Duration;

/// Ends of the ages in seconds, but for the last, which has none. A prefix in use is seldom older than some minutes, and
/// there it matters when exactly its cache ends.
const ENDS: [u64; 20] = [
    15, 30, 45, 60, 75, 90, 105, 120, 150, 180, 210, 240, 270, 300, 360, 420, 480, 600, 900, 1800,
];
const AGES: usize = ENDS.len() + 1;
/// Share expected at the start below one, five and fifteen minutes, and above. Fireworks says: several minutes at least,
/// hours at best.
const START: [(u64, f64); 3] = [(60, 0.95), (300, 0.9), (900, 0.4)];
/// What the start counts for, in answers; and what was kept over a restart.
const START_WEIGHT: f64 = 1.0;
const KEPT_WEIGHT: f64 = 10.0;
/// What an older answer still counts for when a new one comes.
const FADE: f64 = 0.98;
/// No cache holds all of it: the last block is never full.
const MOST: f64 = 0.998;
/// A prefix is sure to be found where this share was.
const SURE: f64 = 0.95;
/// Added to what is expected outside the cache: the least, the most, and the factors by which it moves.
const SAFETY: f64 = 0.02;
const WIDEST: f64 = 0.4;
const WIDEN: f64 = 1.5;
const CALM: f64 = 0.98;

/// What is learned about the cache of one upstream and model.
#[derive(Clone, Debug)]
pub(super) struct Hits {
    /// Found, of so many answers.
    counts: [(f64, f64); AGES],
    /// The shares that these mean, never rising.
    share: [f64; AGES],
    safety: f64,
}

impl Default for Hits {
    fn default() -> Self {
        let share = |age: usize| {
            let known = ENDS
                .get(age)
                .and_then(|end| START.iter().find(|(upto, _)| end <= upto));
            known.map_or(0.0, |(_, share)| *share)
        };
        Self::new(std::array::from_fn(share), START_WEIGHT)
    }
}

impl Hits {
    fn new(share: [f64; AGES], weight: f64) -> Self {
        let mut hits = Self {
            counts: share.map(|share| (share * weight, weight)),
            share,
            safety: SAFETY,
        };
        hits.weigh();
        hits
    }

    /// Expected share of a prefix of this age.
    pub(super) fn share(&self, age: Duration) -> f64 {
        self.share[of(age)]
    }

    /// When the expected share will have fallen by more than half; `None` when it never will, or nothing is expected.
    pub(super) fn expires_in(&self, age: Duration) -> Option<Duration> {
        self.falls_in(age, self.share(age) / 2.0)
    }

    /// How long a prefix is sure to be found still.
    pub(super) fn sure_for(&self, age: Duration) -> Option<Duration> {
        if self.share(age) < SURE {
            return Some(Duration::ZERO);
        }
        self.falls_in(age, SURE)
    }

    /// When the share will be below `least`.
    fn falls_in(&self, age: Duration, least: f64) -> Option<Duration> {
        let next = (of(age) + 1..AGES).find(|later| self.share[*later] < least)?;
        Some(Duration::from_secs(ENDS[next - 1]).saturating_sub(age))
    }

    /// Learns from the share that was found.
    pub(super) fn learn(&mut self, age: Duration, found: f64) {
        let (sum, weight) = &mut self.counts[of(age)];
        *sum = *sum * FADE + found.clamp(0.0, 1.0);
        *weight = *weight * FADE + 1.0;
        self.weigh();
    }

    /// Takes neighbours together until no share is above that of a younger age.
    fn weigh(&mut self) {
        // Found, of how many, in how many ages.
        let mut blocks = [(0.0, 0.0, 0); AGES];
        let mut count = 0;
        for &(sum, weight) in &self.counts {
            let mut block = (sum, weight, 1);
            while let Some(&(before, of, ages)) = blocks[..count].last()
                && block.0 * of > before * block.1
            {
                count -= 1;
                block = (block.0 + before, block.1 + of, block.2 + ages);
            }
            blocks[count] = block;
            count += 1;
        }
        let mut shares = self.share.iter_mut();
        for &(sum, weight, ages) in &blocks[..count] {
            let weighed = (sum / weight).clamp(0.0, MOST);
            shares
                .by_ref()
                .take(ages)
                .for_each(|share| *share = weighed);
        }
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
        if let Ok(share) = <[f64; AGES]>::try_from(saved)
            && share.iter().all(|share| share.is_finite())
        {
            let share = share.map(|share| share.clamp(0.0, MOST));
            *self = Self {
                safety: self.safety,
                ..Self::new(share, KEPT_WEIGHT)
            };
        }
    }
}

fn of(age: Duration) -> usize {
    ENDS.iter().take_while(|end| age.as_secs() >= **end).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_lifetime_is_learned_from_few_answers() {
        let mut hits = Hits::default();
        // Two minutes live, three do not, whatever was expected.
        for round in 0..12 {
            hits.learn(secs(20 + round), 1.0);
            hits.learn(secs(110 + round / 2), 1.0);
            hits.learn(secs(160 + round), 0.0);
        }
        assert!(hits.share(secs(70)) > 0.95, "{hits:?}");
        assert!(hits.share(secs(119)) > 0.95);
        assert!(hits.share(secs(170)) < 0.35, "{hits:?}");
        assert!(hits.share(secs(290)) < 0.35, "older ones neither");
        assert_eq!(hits.sure_for(secs(20)), Some(secs(100)));
        assert_eq!(hits.expires_in(secs(20)), Some(secs(130)));
        assert_eq!(hits.sure_for(secs(170)), Some(Duration::ZERO));
    }

    #[test]
    fn shares_never_rise_with_age_and_survive() {
        let mut hits = Hits::default();
        for round in 0..200_u64 {
            let age = secs(round * 37 % 1000);
            hits.learn(age, if round % 3 == 0 { 1.0 } else { 0.0 });
            assert!(hits.share.is_sorted_by(|a, b| a >= b), "{hits:?}");
        }
        // A third is found, and the youngest are hardly known.
        assert!((0.3..0.6).contains(&hits.share(secs(60))), "{hits:?}");
        let mut fresh = Hits::default();
        fresh.restore(&hits.saved());
        let near = |(a, b): (&f64, &f64)| (a - b).abs() < 1e-9;
        assert!(fresh.saved().iter().zip(&hits.saved()).all(near));
        fresh.restore(&[f64::INFINITY; AGES]);
        assert!(fresh.saved().iter().zip(&hits.saved()).all(near));
    }

    #[test]
    fn what_is_expected_at_the_start() {
        let hits = Hits::default();
        for (age, sure, expires) in [
            (0, Some(60), Some(300)),
            (100, Some(0), Some(200)),
            (300, Some(0), Some(600)),
            (1000, Some(0), None),
        ] {
            assert_eq!(hits.sure_for(secs(age)), sure.map(secs), "{age}");
            assert_eq!(hits.expires_in(secs(age)), expires.map(secs), "{age}");
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
