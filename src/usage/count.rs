//! Token estimates before the fact.
//!
//! A session that is known continues where its last answer ended: its last true prompt plus the bytes that are new,
//! divided by its own ratio, so that an error touches the new part only. The answer is part of the new bytes, because
//! the client sends it back. A session that is not known costs its bytes divided by what its model taught. Whole
//! numbers throughout: ratios are thousandths of a byte per token, probabilities parts per million.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::usage::Tokens;

/// Bytes per token until something is learned, thousandths.
const START: u64 = 3500;
/// Range of what is learned.
const RANGE: (u64, u64) = (1500, 6000);
/// A tenth of each new sample enters the average.
const WEIGHT: u64 = 10;
/// How long a prompt cache is counted on after the last answer. Fireworks publishes no lifetime.
const CACHED_FOR: Duration = Duration::from_mins(5);
/// Share of the last prompt expected in the cache until something is learned, parts per million, and its range.
const HIT: u64 = 900_000;
const HIT_RANGE: (u64, u64) = (0, 980_000);
/// Sessions remembered; when full, the least recently used eighth is forgotten.
const SESSIONS: usize = 4096;
/// Models remembered.
const MODELS: usize = 256;

const MILLION: u64 = 1_000_000;

/// An estimate of what a request will cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Estimate {
    /// Input tokens, cached ones included.
    pub prompt: u64,
    /// Input tokens outside the prompt cache; errs high.
    pub uncached: u64,
}

/// Learns bytes per token and cache hits; shared by all exchanges.
#[derive(Debug)]
pub struct Estimator {
    fixed: Option<u64>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    models: HashMap<String, Model>,
    sessions: HashMap<String, Session>,
}

#[derive(Clone, Copy, Debug)]
struct Model {
    ratio: u64,
    hit: u64,
    used: Instant,
}

/// What the last answer of a session taught.
#[derive(Clone, Copy, Debug)]
struct Session {
    bytes: u64,
    prompt: u64,
    ratio: u64,
    answered: Instant,
}

impl Estimator {
    /// `thousandths` fixes the bytes per token (3500 is 3.5); `None` learns them, starting there.
    pub fn new(thousandths: Option<u64>) -> Self {
        Self {
            fixed: thousandths.map(|fixed| fixed.max(1)),
            state: Mutex::default(),
        }
    }

    /// Estimates a request whose text has so many bytes. Images and other binary parts are not text.
    pub fn estimate(&self, model: &str, session: &str, bytes: u64, now: Instant) -> Estimate {
        let state = self.state.lock();
        let known = state.models.get(model).copied();
        let key = key(model, session);
        // Fewer bytes than before: the client compacted or edited its history, and the cache does not help.
        let last = state
            .sessions
            .get(&key)
            .filter(|last| bytes >= last.bytes)
            .copied();
        drop(state);

        let learned = known.map_or(START, |model| model.ratio);
        let Some(last) = last else {
            let prompt = divide(bytes, self.fixed.unwrap_or(learned));
            return Estimate {
                prompt,
                uncached: prompt,
            };
        };
        let ratio = self.fixed.unwrap_or(last.ratio);
        let prompt = last.prompt + divide(bytes - last.bytes, ratio);
        let warm = now.saturating_duration_since(last.answered) < CACHED_FOR;
        let hit = if warm {
            known.map_or(HIT, |model| model.hit)
        } else {
            0
        };
        let uncached = prompt - share(last.prompt, hit);
        Estimate {
            prompt,
            uncached: (uncached + uncached / 20 + 200).min(prompt),
        }
    }

    /// Learns from the true usage of a request that had so many bytes of text.
    pub fn learn(&self, model: &str, session: &str, bytes: u64, tokens: Tokens, now: Instant) {
        if tokens.prompt == 0 || bytes == 0 {
            return;
        }
        let sample = (bytes.saturating_mul(1000) / tokens.prompt).clamp(RANGE.0, RANGE.1);
        let key = key(model, session);
        let mut guard = self.state.lock();
        let state = &mut *guard;
        let hit = state
            .sessions
            .get(&key)
            .filter(|last| {
                bytes >= last.bytes
                    && last.prompt > 0
                    && now.saturating_duration_since(last.answered) < CACHED_FOR
            })
            .map(|last| (tokens.cached.min(last.prompt) * MILLION) / last.prompt);
        make_room(&mut state.models, MODELS, |model| model.used);
        let known = state.models.entry(model.to_owned()).or_insert(Model {
            ratio: sample,
            hit: HIT,
            used: now,
        });
        known.used = now;
        known.ratio = blend(known.ratio, sample).clamp(RANGE.0, RANGE.1);
        if let Some(hit) = hit {
            known.hit = blend(known.hit, hit).clamp(HIT_RANGE.0, HIT_RANGE.1);
        }
        make_room(&mut state.sessions, SESSIONS, |session| session.answered);
        state.sessions.insert(
            key,
            Session {
                bytes,
                prompt: tokens.prompt,
                ratio: sample,
                answered: now,
            },
        );
    }

    /// Output tokens in so many bytes of streamed text.
    pub fn output(&self, model: &str, bytes: u64) -> u64 {
        let learned = self.state.lock().models.get(model).map(|model| model.ratio);
        divide(bytes, self.fixed.or(learned).unwrap_or(START))
    }
}

/// One session may ask several models; their counts have nothing in common.
fn key(model: &str, session: &str) -> String {
    format!("{model}\n{session}")
}

fn divide(bytes: u64, thousandths: u64) -> u64 {
    bytes.saturating_mul(1000).div_ceil(thousandths)
}

fn share(tokens: u64, ppm: u64) -> u64 {
    u64::try_from(u128::from(tokens) * u128::from(ppm) / u128::from(MILLION)).unwrap_or(tokens)
}

fn blend(old: u64, sample: u64) -> u64 {
    (old * (WEIGHT - 1) + sample) / WEIGHT
}

/// Forgets the oldest eighth when full, so that the search for it is rare.
fn make_room<V>(map: &mut HashMap<String, V>, most: usize, age: impl Fn(&V) -> Instant) {
    if map.len() < most {
        return;
    }
    let mut ages: Vec<Instant> = map.values().map(&age).collect();
    let (_, &mut cut, _) = ages.select_nth_unstable(most / 8);
    map.retain(|_, value| age(value) > cut);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(prompt: u64, cached: u64) -> Tokens {
        Tokens {
            prompt,
            cached,
            generated: 100,
            reasoning: 0,
        }
    }

    #[test]
    fn a_cold_session_costs_its_bytes() {
        let now = Instant::now();
        let estimator = Estimator::new(None);
        let cold = estimator.estimate("m", "s", 7000, now);
        assert_eq!((cold.prompt, cold.uncached), (2000, 2000));
        // Another session of the same model uses what the first taught.
        estimator.learn("m", "s", 8000, tokens(2000, 0), now);
        assert_eq!(estimator.estimate("m", "other", 8000, now).prompt, 2000);
        assert_eq!(estimator.estimate("another", "s", 7000, now).prompt, 2000);
        assert_eq!(estimator.output("m", 400), 100);
        assert_eq!(estimator.output("another", 350), 100);
    }

    #[test]
    fn a_known_session_grows_by_its_new_bytes() {
        let now = Instant::now();
        let estimator = Estimator::new(None);
        estimator.learn("m", "s", 400_000, tokens(100_000, 0), now);
        let next = estimator.estimate("m", "s", 404_000, now + Duration::from_secs(10));
        assert_eq!(next.prompt, 101_000);
        // 101,000 less nine tenths of 100,000, five percent and 200 more.
        assert_eq!(next.uncached, 11_750);
        let late = estimator.estimate("m", "s", 404_000, now + Duration::from_mins(6));
        assert_eq!(late.uncached, 101_000, "the cache has expired");
        let compacted = estimator.estimate("m", "s", 40_000, now);
        assert_eq!((compacted.prompt, compacted.uncached), (10_000, 10_000));
    }

    #[test]
    fn cache_hits_are_learned_both_ways() {
        let now = Instant::now();
        let estimator = Estimator::new(None);
        estimator.learn("m", "s", 400_000, tokens(100_000, 0), now);
        for _ in 0..50 {
            estimator.learn("m", "s", 400_000, tokens(100_000, 100_000), now);
        }
        assert_eq!(estimator.estimate("m", "s", 400_000, now).uncached, 2300);
        for _ in 0..60 {
            estimator.learn("m", "s", 400_000, tokens(100_000, 0), now);
        }
        assert!(estimator.estimate("m", "s", 400_000, now).uncached > 99_000);
    }

    #[test]
    fn the_ratio_is_bounded_or_fixed() {
        let now = Instant::now();
        let estimator = Estimator::new(None);
        estimator.learn("m", "s", 1_000_000, tokens(10, 0), now);
        assert_eq!(estimator.estimate("m", "t", 6000, now).prompt, 1000);
        let fixed = Estimator::new(Some(2000));
        fixed.learn("m", "s", 4000, tokens(1000, 0), now);
        assert_eq!(fixed.estimate("m", "t", 4000, now).prompt, 2000);
        assert_eq!(fixed.estimate("m", "s", 4400, now).prompt, 1200);
    }

    #[test]
    fn sessions_are_bounded() {
        let start = Instant::now();
        let estimator = Estimator::new(None);
        for number in 0..10_000_u64 {
            let now = start + Duration::from_millis(number);
            estimator.learn("m", &number.to_string(), 4000, tokens(1000, 0), now);
        }
        let state = estimator.state.lock();
        assert!(state.sessions.len() <= SESSIONS);
        assert!(state.sessions.contains_key("m\n9999"));
    }
}
