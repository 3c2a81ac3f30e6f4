//! Token estimates before the fact.
//!
//! A prompt that continues one whose answer has begun costs what the upstream counted for that one, plus the answer that
//! the client sends back, plus the new messages at the model's learned rates: an error touches the new part only.
//! A prompt that continues nothing costs its content at those rates. What it has in common with an earlier one is
//! expected in the prompt cache with a probability that is learned per upstream and age.
//!
//! The order of calls for a request: [`Estimator::estimate`], any number of times while it waits;
//! [`Guess::sent_after`] when it waited; [`Estimator::begun`] when the first byte of the answer's content came; [`Estimator::learn`] with the true usage.

use std::collections::BTreeMap;
use std::time::Duration;

use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use xxhash_rust::xxh3::{xxh3_64, xxh3_128, xxh3_128_with_seed};

use crate::usage::hits::Hits;
use crate::usage::prefix::{Common, Sessions};
use crate::usage::ratio::{Ratio, float, whole};
use crate::usage::{Content, Prompt, Tokens};

/// Models, and pairs of upstream and model, that are remembered.
const MODELS: usize = 256;
/// Version of the saved format; others are ignored.
const VERSION: u32 = 1;
/// Added to the expected uncached tokens beside the learned share: the cache counts in blocks.
const SAFETY_TOKENS: u64 = 200;
/// How far the counted answer may be from what its bytes say and still be taken for them: some clients leave the
/// thinking out when they send an answer back.
const SAME_ANSWER: (f64, f64) = (0.6, 1.6);
/// A shorter prefix says too little about the cache.
const LEAST_PREFIX: f64 = 256.0;

/// A request that is to be estimated.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// The model, whose vocabulary decides the tokens per byte.
    pub model: &'a str,
    /// Where it goes; upstream and model share a prompt cache.
    pub place: &'a str,
    /// The client's conversation.
    pub session: &'a str,
    /// The prompt.
    pub prompt: &'a Prompt,
    /// The request may start other agents.
    pub spawns: bool,
}

/// An estimate of what a request will cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Estimate {
    /// Input tokens, cached ones included.
    pub prompt: u64,
    /// Input tokens outside the prompt cache; errs high.
    pub uncached: u64,
    /// Input tokens expected in the prompt cache.
    pub cached: u64,
    /// When the cache will probably have dropped them.
    pub cache_expires_in: Option<Duration>,
    /// How long it will hold them for sure.
    pub cache_sure_for: Option<Duration>,
    /// The session's main agent starts others, and this request is not of that agent.
    pub aside: bool,
}

/// An estimate with what is needed to learn from its outcome.
#[derive(Clone, Copy, Debug)]
pub struct Guess {
    /// What to reserve.
    pub estimate: Estimate,
    /// The part that was new, and the true tokens before it when they were known.
    new: Content,
    before: Option<f64>,
    /// Tokens and age of the common prefix.
    prefix: Option<(f64, Duration)>,
}

impl Guess {
    /// The request was sent so long after it was estimated: its prefix was that much older then.
    pub fn sent_after(&mut self, wait: Duration) {
        if let Some((_, age)) = &mut self.prefix {
            *age += wait;
        }
    }
}

/// What survives a restart: the rates of each model and the cache of each upstream. Sessions do not: the caches
/// outlive few restarts, and their true counts come back with one answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rates {
    version: u32,
    models: BTreeMap<String, Vec<f64>>,
    caches: BTreeMap<String, Vec<f64>>,
}

/// Learns tokens per byte and cache hits; shared by all exchanges.
#[derive(Debug)]
pub struct Estimator {
    fixed: Option<u64>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    fresh: Ratio,
    models: Known<Ratio>,
    unknown: Hits,
    caches: Known<Hits>,
    sessions: Sessions,
}

/// A few things by name, the least recently used forgotten.
#[derive(Debug)]
struct Known<T> {
    /// By the hash of the name, so that no look-up makes a name.
    things: FxHashMap<u128, Thing<T>>,
    uses: u64,
}

#[derive(Debug)]
struct Thing<T> {
    name: String,
    value: T,
    used: u64,
}

impl Estimator {
    /// `thousandths` fixes the bytes per token (3500 is 3.5); `None` learns them.
    pub fn new(thousandths: Option<u64>) -> Self {
        let fixed = thousandths.map(|fixed| fixed.max(1));
        Self {
            fixed,
            state: Mutex::new(State {
                fresh: Ratio::new(fixed),
                models: Known::default(),
                unknown: Hits::default(),
                caches: Known::default(),
                sessions: Sessions::default(),
            }),
        }
    }

    /// Estimates a request.
    pub fn estimate(&self, asked: &Asked<'_>, now: Instant) -> Guess {
        let state = self.state.lock();
        let ratio = state.models.get(asked.model).unwrap_or(&state.fresh);
        let session = state.sessions.get(key(asked));
        let aside = session.is_some_and(|session| session.spawns) && !asked.spawns;
        let common = session.and_then(|session| session.common(asked.prompt));
        let Some(common) = common else {
            let new = asked.prompt.content();
            let prompt = whole(ratio.tokens(&new));
            let estimate = Estimate {
                prompt,
                uncached: prompt,
                cached: 0,
                cache_expires_in: None,
                cache_sure_for: None,
                aside,
            };
            return Guess {
                estimate,
                new,
                before: Some(0.0),
                prefix: None,
            };
        };
        let (answer, new) = after(asked.prompt, &common, ratio);
        let before = common.tokens + answer;
        let prompt = whole(before + ratio.tokens(&new));

        let age = now.saturating_duration_since(common.begun);
        let hits = state.caches.get(asked.place).unwrap_or(&state.unknown);
        let cached = whole((common.tokens * hits.share(age)).floor()).min(prompt);
        let outside = prompt - cached;
        let safety = whole(float(outside) * hits.safety()) + SAFETY_TOKENS;
        let estimate = Estimate {
            prompt,
            uncached: (outside + safety).min(prompt),
            cached,
            cache_expires_in: hits.expires_in(age).filter(|_| cached > 0),
            cache_sure_for: hits.sure_for(age).filter(|_| cached > 0),
            aside,
        };
        Guess {
            estimate,
            new,
            before: common.counted.then_some(before),
            prefix: Some((common.tokens, age)),
        }
    }

    /// The answer has begun, so the upstream's cache now holds the prompt.
    pub fn begun(&self, asked: &Asked<'_>, now: Instant) {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        let ratio = state.models.get(asked.model).unwrap_or(&state.fresh);
        let tokens = |content: &Content| ratio.tokens(content);
        state
            .sessions
            .begun(key(asked), asked.prompt, asked.spawns, tokens, now);
    }

    /// Learns from the true usage of a request that was estimated so.
    pub fn learn(&self, asked: &Asked<'_>, guess: &Guess, tokens: Tokens) {
        if tokens.prompt == 0 {
            return;
        }
        let mut guard = self.state.lock();
        let state = &mut *guard;
        state
            .sessions
            .counted(key(asked), asked.prompt, tokens.prompt, tokens.generated);
        if let Some(before) = guess.before {
            let fresh = &state.fresh;
            let ratio = state.models.entry(asked.model, || fresh.clone());
            ratio.learn(&guess.new, float(tokens.prompt) - before);
        }
        let hits = state.caches.entry(asked.place, Hits::default);
        hits.answered();
        if let Some((prefix, age)) = guess.prefix
            && prefix >= LEAST_PREFIX
        {
            hits.learn(age, float(tokens.cached) / prefix);
        }
    }

    /// The upstream refused a request although there was room by our account: the cache was counted on too much.
    pub fn refused(&self, place: &str) {
        let mut state = self.state.lock();
        state.caches.entry(place, Hits::default).refused();
    }

    /// Output tokens in so many bytes of streamed text.
    pub fn output(&self, model: &str, bytes: u64) -> u64 {
        let state = self.state.lock();
        let ratio = state.models.get(model).unwrap_or(&state.fresh);
        ratio.output(bytes)
    }

    /// Learns from the true size of an answer of so many bytes.
    pub fn learn_output(&self, model: &str, bytes: u64, tokens: u64) {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        let fresh = &state.fresh;
        let ratio = state.models.entry(model, || fresh.clone());
        ratio.learn_output(bytes, tokens);
    }

    /// What was learned, to be kept over a restart.
    pub fn saved(&self) -> Rates {
        let state = self.state.lock();
        Rates {
            version: VERSION,
            models: state.models.map(Ratio::saved),
            caches: state.caches.map(Hits::saved),
        }
    }

    /// Takes over what was kept; another version's is ignored.
    pub fn restore(&self, saved: &Rates) {
        if saved.version != VERSION {
            return;
        }
        let mut guard = self.state.lock();
        let state = &mut *guard;
        for (model, rates) in &saved.models {
            let fixed = self.fixed;
            state
                .models
                .entry(model, || Ratio::new(fixed))
                .restore(rates);
        }
        for (place, shares) in &saved.caches {
            state.caches.entry(place, Hits::default).restore(shares);
        }
    }
}

/// What follows the common part: the model's own answer in tokens, as it was counted, and everything else.
fn after(prompt: &Prompt, common: &Common, ratio: &Ratio) -> (f64, Content) {
    let shared = prompt.content_upto(common.link);
    let new = prompt.content() - shared;
    let next = common.link.map_or(0, |link| link + 1);
    let said = prompt.links()[next..]
        .iter()
        .take_while(|link| link.by_model)
        .count();
    let (Some(answer), true) = (common.answer, said > 0) else {
        return (0.0, new);
    };
    let sent_back = prompt.content_upto(Some(next + said - 1)) - shared;
    let by_bytes = ratio.tokens(&sent_back);
    if answer < by_bytes * SAME_ANSWER.0 || answer > by_bytes * SAME_ANSWER.1 {
        return (0.0, new);
    }
    (answer, new - sent_back)
}

/// One session may ask several upstreams, whose caches have nothing in common.
fn key(asked: &Asked<'_>) -> u128 {
    xxh3_128_with_seed(asked.session.as_bytes(), xxh3_64(asked.place.as_bytes()))
}

impl<T> Default for Known<T> {
    fn default() -> Self {
        Self {
            things: FxHashMap::default(),
            uses: 0,
        }
    }
}

impl<T> Known<T> {
    fn get(&self, name: &str) -> Option<&T> {
        let thing = self.things.get(&xxh3_128(name.as_bytes()))?;
        Some(&thing.value)
    }

    fn entry(&mut self, name: &str, new: impl FnOnce() -> T) -> &mut T {
        let key = xxh3_128(name.as_bytes());
        self.uses += 1;
        if self.things.len() >= MODELS && !self.things.contains_key(&key) {
            let oldest = self.things.values().map(|thing| thing.used).min();
            self.things.retain(|_, thing| Some(thing.used) != oldest);
        }
        let thing = self.things.entry(key).or_insert_with(|| Thing {
            name: name.to_owned(),
            value: new(),
            used: 0,
        });
        thing.used = self.uses;
        &mut thing.value
    }

    fn map<U>(&self, with: impl Fn(&T) -> U) -> BTreeMap<String, U> {
        self.things
            .values()
            .map(|thing| (thing.name.clone(), with(&thing.value)))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::usage::Class;

    const MINUTE: Duration = Duration::from_mins(1);

    /// A prompt of tools and of messages given as kilobytes of code; negative ones are the model's.
    fn prompt(kilobytes: &[i64]) -> Prompt {
        let mut prompt = Prompt::new(1, Content::of(Class::Tools, 66_000));
        for (number, kilobyte) in (0..).zip(kilobytes) {
            let content = Content::of(Class::Code, kilobyte.unsigned_abs() * 1000);
            prompt.push(
                number * 100 + kilobyte.unsigned_abs(),
                content,
                *kilobyte < 0,
            );
        }
        prompt
    }

    fn asked(prompt: &Prompt) -> Asked<'_> {
        Asked {
            model: "m",
            place: "host/m",
            session: "s",
            prompt,
            spawns: true,
        }
    }

    fn tokens(prompt: u64, cached: u64) -> Tokens {
        Tokens {
            prompt,
            cached,
            generated: 600,
            reasoning: 0,
        }
    }

    /// Sends a prompt and learns its usage.
    fn send(estimator: &Estimator, prompt: &Prompt, usage: Tokens, now: Instant) -> Estimate {
        let guess = estimator.estimate(&asked(prompt), now);
        estimator.begun(&asked(prompt), now);
        estimator.learn(&asked(prompt), &guess, usage);
        guess.estimate
    }

    #[test]
    fn a_turn_continues_from_the_true_count() {
        let now = Instant::now();
        let estimator = Estimator::new(Some(3000));
        let cold = send(&estimator, &prompt(&[3]), tokens(30_000, 0), now);
        assert_eq!(
            (cold.prompt, cold.uncached, cold.cached),
            (23_000, 23_000, 0)
        );
        let later = now + Duration::from_secs(10);
        // 30,000 as counted; the answer of 2 kB is near its counted 600, and is taken as counted; 1000 are new.
        let next = estimator
            .estimate(&asked(&prompt(&[3, -2, 3])), later)
            .estimate;
        assert_eq!(next.prompt, 31_600);
        assert_eq!(next.cached, 28_500);
        assert_eq!(next.uncached, 3100 + 62 + 200);
        assert_eq!(next.cache_expires_in, Some(Duration::from_secs(290)));
        assert_eq!(next.cache_sure_for, Some(Duration::from_secs(50)));
        // An answer of 30 kB cannot be what was counted as 600.
        let other = estimator
            .estimate(&asked(&prompt(&[3, -30, 3])), later)
            .estimate;
        assert_eq!(other.prompt, 41_000);
    }

    #[test]
    fn what_is_not_continued_is_cold() {
        let now = Instant::now();
        let estimator = Estimator::new(Some(3000));
        let first = prompt(&[3]);
        let guess = estimator.estimate(&asked(&first), now);
        // Sent, but its answer has not begun: another one with this prefix finds no cache.
        assert_eq!(estimator.estimate(&asked(&first), now).estimate.cached, 0);
        estimator.begun(&asked(&first), now);
        assert!(estimator.estimate(&asked(&first), now).estimate.cached > 0);
        estimator.learn(&asked(&first), &guess, tokens(30_000, 0));
        // A compaction leaves the head, which is 22,000 of the 23,000 that were estimated and 30,000 that were counted.
        let compacted = estimator.estimate(&asked(&prompt(&[6])), now).estimate;
        assert_eq!(compacted.prompt, 28_696 + 2000);
        assert_eq!(compacted.cached, 27_260);
        for (session, place) in [("other", "host/m"), ("s", "other/m")] {
            let elsewhere = Asked {
                place,
                session,
                ..asked(&first)
            };
            assert_eq!(estimator.estimate(&elsewhere, now).estimate.cached, 0);
        }
        let expired = estimator
            .estimate(&asked(&first), now + 20 * MINUTE)
            .estimate;
        assert_eq!((expired.prompt, expired.cached), (30_000, 0));
        assert_eq!(expired.uncached, 30_000);
    }

    #[test]
    fn an_agent_beside_the_main_one_is_told() {
        let now = Instant::now();
        let estimator = Estimator::new(None);
        let first = prompt(&[3]);
        let helper = Asked {
            spawns: false,
            ..asked(&first)
        };
        assert!(!estimator.estimate(&helper, now).estimate.aside);
        estimator.begun(&asked(&first), now);
        assert!(estimator.estimate(&helper, now).estimate.aside);
        assert!(!estimator.estimate(&asked(&first), now).estimate.aside);
    }

    #[test]
    fn hits_are_learned_and_refusals_make_careful() {
        let now = Instant::now();
        let estimator = Estimator::new(Some(3000));
        let first = prompt(&[3]);
        send(&estimator, &first, tokens(30_000, 0), now);
        for _ in 0..300 {
            send(&estimator, &first, tokens(30_000, 0), now);
        }
        assert!(estimator.estimate(&asked(&first), now).estimate.cached < 7500);
        for _ in 0..300 {
            send(&estimator, &first, tokens(30_000, 30_000), now);
        }
        // It waited for half an hour, and that is the age at which nothing was found.
        let mut late = estimator.estimate(&asked(&first), now);
        late.sent_after(30 * MINUTE);
        estimator.learn(&asked(&first), &late, tokens(30_000, 0));
        let warm = estimator.estimate(&asked(&first), now).estimate;
        assert!(warm.cached > 29_000 && warm.uncached < 1300);
        estimator.refused("host/m");
        assert!(estimator.estimate(&asked(&first), now).estimate.uncached > warm.uncached);
    }

    #[test]
    fn what_was_learned_survives_a_restart() {
        let now = Instant::now();
        let estimator = Estimator::new(None);
        for size in 0..40 {
            send(
                &estimator,
                &prompt(&[size]),
                tokens(30_000 + 500 * u64::try_from(size).unwrap(), 0),
                now,
            );
        }
        estimator.learn_output("m", 8000, 1000);
        let text = serde_json::to_string(&estimator.saved()).unwrap();
        let next = Estimator::new(None);
        next.restore(&serde_json::from_str(&text).unwrap());
        assert_eq!(next.saved(), estimator.saved());
        let cold = |estimator: &Estimator| estimator.estimate(&asked(&prompt(&[1])), now).estimate;
        assert!(cold(&next).prompt > cold(&Estimator::new(None)).prompt * 5 / 4);
        assert_eq!(next.output("m", 4500), estimator.output("m", 4500));
        assert_ne!(next.output("m", 4500), next.output("unknown", 4500));
        let other = Estimator::new(None);
        other.restore(&Rates {
            version: 2,
            ..estimator.saved()
        });
        assert!(other.saved().models.is_empty());
    }

    #[test]
    fn models_are_bounded() {
        let estimator = Estimator::new(None);
        for number in 0..1000 {
            estimator.learn_output(&number.to_string(), 100, 30);
        }
        let saved = estimator.saved();
        assert_eq!(saved.models.len(), MODELS);
        assert!(saved.models.contains_key("999") && !saved.models.contains_key("1"));
    }
}
