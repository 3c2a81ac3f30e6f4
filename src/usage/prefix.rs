//! The conversations whose answers have begun, and what a new prompt has in common with them.
//!
//! A session is what the client names one; its main agent, its subagents and the time before a compaction are chains in
//! it, told apart by their content alone. Only a prompt whose answer has begun is kept: before that the upstream's
//! cache need not have it, so two requests that are sent at once with one prefix are both cold. Memory is bounded in
//! sessions, in chains of a session, and in places of all chains.

use rustc_hash::FxHashMap;
use tokio::time::Instant;

use crate::usage::ratio::float;
use crate::usage::{Content, Prompt};

/// Chains of one session; Kimi Code starts five subagents at once, which share its session, and more one by one.
const CHAINS: usize = 16;
/// Sessions, and places of all chains together (16 bytes each); when full, the eighth that rests longest is forgotten.
const SESSIONS: usize = 4096;
const PLACES: usize = 1 << 20;

/// All sessions.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    /// By a hash of 128 bits, so that no look-up makes a name.
    known: FxHashMap<u128, Session>,
    places: usize,
}

/// What one client's session has sent to one model.
#[derive(Debug)]
pub(super) struct Session {
    chains: Vec<Chain>,
    /// Its main agent may start others; requests without that tool are not the main agent's.
    pub(super) spawns: bool,
    used: Instant,
}

/// A conversation that was sent.
#[derive(Debug)]
struct Chain {
    head: u64,
    head_tokens: f64,
    places: Box<[Place]>,
    truth: Option<Truth>,
    begun: Instant,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    upto: u32,
    /// Estimated tokens up to here; only their proportion is used once the truth is known.
    tokens: f32,
    hash: u64,
}

/// What the upstream counted, at the end of the prompt that it counted.
#[derive(Clone, Copy, Debug)]
struct Truth {
    upto: u32,
    estimated: f64,
    prompt: f64,
    generated: f64,
}

/// What a new prompt has in common with one that was sent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Common {
    /// The last place of the new prompt that is common; `None` when only the head is.
    pub(super) link: Option<usize>,
    /// Tokens up to there.
    pub(super) tokens: f64,
    /// They are a true count, not an estimate.
    pub(super) counted: bool,
    /// The model's answer to the common part, in tokens, where it was counted.
    pub(super) answer: Option<f64>,
    /// When the upstream last used that prefix.
    pub(super) begun: Instant,
}

impl Sessions {
    /// The session of this key, if it is known.
    pub(super) fn get(&self, key: u128) -> Option<&Session> {
        self.known.get(&key)
    }

    /// Takes in a prompt whose answer has begun.
    pub(super) fn begun(
        &mut self,
        key: u128,
        prompt: &Prompt,
        spawns: bool,
        tokens: impl Fn(&Content) -> f64,
        now: Instant,
    ) {
        self.make_room();
        let session = self.known.entry(key).or_insert_with(|| Session {
            chains: Vec::new(),
            spawns: false,
            used: now,
        });
        let before = session.places();
        session.used = now;
        session.spawns |= spawns;
        session.begun(Chain::new(prompt, tokens, now));
        self.places = self.places + session.places() - before;
    }

    /// Takes in what the upstream counted for a prompt that was sent.
    pub(super) fn counted(&mut self, key: u128, prompt: &Prompt, tokens: u64, generated: u64) {
        let Some(session) = self.known.get_mut(&key) else {
            return;
        };
        let end = prompt.links().last().map(|link| (link.upto, link.hash));
        let sent = session.chains.iter_mut().find(|chain| {
            chain.head == prompt.head
                && chain
                    .places
                    .last()
                    .map(|place| (u64::from(place.upto), place.hash))
                    == end
        });
        if let Some(chain) = sent {
            let (upto, estimated) = chain.end();
            chain.truth = Some(Truth {
                upto,
                estimated,
                prompt: float(tokens),
                generated: float(generated),
            });
        }
    }

    fn make_room(&mut self) {
        if self.known.len() < SESSIONS && self.places < PLACES {
            return;
        }
        let mut ages: Vec<Instant> = self.known.values().map(|session| session.used).collect();
        let middle = ages.len() / 8;
        let (_, &mut cut, _) = ages.select_nth_unstable(middle);
        self.known.retain(|_, session| session.used > cut);
        self.places = self.known.values().map(Session::places).sum();
    }
}

impl Session {
    /// The longest prefix that this prompt has in common with a chain.
    pub(super) fn common(&self, prompt: &Prompt) -> Option<Common> {
        self.chains
            .iter()
            .filter_map(|chain| chain.common(prompt))
            .max_by(|one, other| {
                (one.link, one.counted, one.begun).cmp(&(other.link, other.counted, other.begun))
            })
    }

    fn begun(&mut self, mut new: Chain) {
        // What it continues, it replaces; the truth about the older part stays useful.
        if let Some(at) = self.chains.iter().position(|old| old.continues_as(&new)) {
            let old = self.chains.swap_remove(at);
            new.truth = old.truth.map(|truth| Truth {
                estimated: new.estimated(truth.upto),
                ..truth
            });
        } else if self.chains.len() >= CHAINS
            && let Some(oldest) = (0..self.chains.len()).min_by_key(|at| self.chains[*at].begun)
        {
            self.chains.swap_remove(oldest);
        }
        self.chains.push(new);
    }

    fn places(&self) -> usize {
        self.chains.iter().map(|chain| chain.places.len() + 1).sum()
    }
}

impl Chain {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "proportions of estimates need no more than a f32 holds"
    )]
    fn new(prompt: &Prompt, tokens: impl Fn(&Content) -> f64, now: Instant) -> Self {
        let head_tokens = tokens(&prompt.head_content);
        let places = prompt.links().iter().map(|link| Place {
            upto: u32::try_from(link.upto).unwrap_or(u32::MAX),
            tokens: (head_tokens + tokens(&link.content)) as f32,
            hash: link.hash,
        });
        Self {
            head: prompt.head,
            head_tokens,
            places: places.collect(),
            truth: None,
            begun: now,
        }
    }

    /// Messages, and estimated tokens, of all of it.
    fn end(&self) -> (u32, f64) {
        self.places.last().map_or((0, self.head_tokens), |place| {
            (place.upto, f64::from(place.tokens))
        })
    }

    fn estimated(&self, upto: u32) -> f64 {
        let after = self.places.partition_point(|place| place.upto <= upto);
        after
            .checked_sub(1)
            .map_or(self.head_tokens, |at| f64::from(self.places[at].tokens))
    }

    fn continues_as(&self, new: &Self) -> bool {
        let Some(end) = self.places.last() else {
            return self.head == new.head;
        };
        self.head == new.head
            && new
                .places
                .binary_search_by_key(&end.upto, |place| place.upto)
                .is_ok_and(|at| new.places[at].hash == end.hash)
    }

    fn common(&self, prompt: &Prompt) -> Option<Common> {
        if self.head != prompt.head {
            return None;
        }
        let links = prompt.links();
        // Later places are equal only if all earlier ones are.
        let shared = |place: &Place| {
            links
                .binary_search_by_key(&u64::from(place.upto), |link| link.upto)
                .ok()
                .filter(|at| links[*at].hash == place.hash)
        };
        let (place, link) = self
            .places
            .iter()
            .rev()
            .find_map(|place| Some((Some(place), Some(shared(place)?))))
            .unwrap_or((None, None));
        let upto = place.map_or(0, |place| place.upto);
        let estimated = place.map_or(self.head_tokens, |place| f64::from(place.tokens));
        let exact = self.truth.filter(|truth| truth.upto == upto);
        let tokens = match self.truth {
            None => estimated,
            Some(truth) if upto >= truth.upto => truth.prompt + estimated - truth.estimated,
            Some(truth) => truth.prompt * estimated / truth.estimated.max(1.0),
        };
        Some(Common {
            link,
            tokens,
            counted: exact.is_some(),
            answer: exact.map(|truth| truth.generated),
            begun: self.begun,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::usage::Class;
    use crate::usage::ratio::whole;

    fn prompt(head: u64, messages: &[u64]) -> Prompt {
        let mut prompt = Prompt::new(head, Content::of(Class::Tools, 1000));
        for message in messages {
            prompt.push(*message, Content::of(Class::Prose, 100), false);
        }
        prompt
    }

    fn bytes(content: &Content) -> f64 {
        float(content.text())
    }

    #[test]
    fn the_longest_common_prefix_is_found_and_scaled_to_the_truth() {
        let now = Instant::now();
        let mut sessions = Sessions::default();
        let begin = |sessions: &mut Sessions, prompt: &Prompt, at| {
            sessions.begun(0, prompt, false, bytes, now + Duration::from_secs(at));
        };
        let main = prompt(1, &[1, 2, 3, 4]);
        begin(&mut sessions, &main, 1);
        begin(&mut sessions, &prompt(2, &[1, 2]), 2);
        let look = |sessions: &Sessions, prompt: &Prompt| {
            let found = sessions.get(0).unwrap().common(prompt);
            found.map(|common| (common.link, whole(common.tokens)))
        };
        assert_eq!(
            look(&sessions, &prompt(1, &[1, 2, 3, 4, 5])),
            Some((Some(3), 1400))
        );
        assert_eq!(
            look(&sessions, &prompt(1, &[1, 2, 9])),
            Some((Some(1), 1200))
        );
        assert_eq!(look(&sessions, &prompt(1, &[7])), Some((None, 1000)));
        assert_eq!(look(&sessions, &prompt(3, &[1, 2])), None);
        sessions.counted(0, &main, 2800, 50);
        assert_eq!(
            look(&sessions, &prompt(1, &[1, 2, 9])),
            Some((Some(1), 2400))
        );
        // The longer one took the place of what it continues, and knows its count.
        begin(&mut sessions, &prompt(1, &[1, 2, 3, 4, 5]), 3);
        assert_eq!(sessions.get(0).unwrap().chains.len(), 2);
        assert_eq!(
            look(&sessions, &prompt(1, &[1, 2, 3, 4, 5])),
            Some((Some(4), 2900))
        );
        assert_eq!(look(&sessions, &main), Some((Some(3), 2800)));
    }

    #[test]
    fn memory_is_bounded() {
        const BUSY: u128 = u128::MAX;
        const LONG: u128 = 1 << 64;
        let start = Instant::now();
        let mut sessions = Sessions::default();
        for number in 0..10_000u64 {
            let now = start + Duration::from_millis(number);
            sessions.begun(u128::from(number), &prompt(1, &[number]), false, bytes, now);
            sessions.begun(BUSY, &prompt(number, &[1]), false, bytes, now);
        }
        assert!(sessions.known.len() <= SESSIONS);
        assert!(sessions.get(9999).is_some() && sessions.get(0).is_none());
        assert_eq!(sessions.get(BUSY).unwrap().chains.len(), CHAINS);
        let long: Vec<u64> = (0..4000).collect();
        for number in 0..400u64 {
            let now = start + Duration::from_secs(60 + number);
            sessions.begun(
                LONG + u128::from(number),
                &prompt(1, &long),
                false,
                bytes,
                now,
            );
        }
        let held: usize = sessions.known.values().map(Session::places).sum();
        assert_eq!(held, sessions.places);
        assert!(held <= PLACES + 5000);
        assert!(sessions.get(LONG + 399).is_some());
    }
}
