//! What usually happens in a pool: how long a first token takes, how soon a conversation asks again after an answer,
//! and with what.
//!
//! Clients run tools and ask again within seconds, most often with a little more of the same prompt. So who will join
//! the queue soon is known rather well: the conversations whose answers are running or have just ended. The last returns
//! are kept as they were; what is expected is drawn from them.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use rustc_hash::FxHashMap;

use crate::limits::ask::{Ask, Class};

/// Returns remembered.
const KEPT: usize = 128;
/// Conversations remembered before those that did not return are forgotten.
const MANY: usize = 256;
/// Windows after which a conversation does not return.
const GONE: u32 = 5;

/// A conversation whose answer ended.
#[derive(Clone, Debug)]
pub(crate) struct Away {
    pub(crate) since: Duration,
    pub(crate) terminal: Arc<str>,
    pub(crate) weight: u32,
    pub(crate) class: Class,
    /// Its tokens: the prompt and the answer.
    pub(crate) length: u64,
}

/// How a conversation came back.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Return {
    /// How long it was away; `None`: it did not come back.
    pub(crate) after: Option<Duration>,
    /// Its tokens before.
    length: u64,
    class: Class,
    prompt: u64,
    uncached: u64,
    cached: u64,
    kept: Option<Duration>,
    max_tokens: Option<u64>,
}

/// What usually happens.
#[derive(Clone, Debug, Default)]
pub(crate) struct Habits {
    away: FxHashMap<Arc<str>, Away>,
    returns: VecDeque<Return>,
    /// Milliseconds from admission to the first token, on average.
    first: Option<u64>,
}

impl Habits {
    /// A request comes; if its conversation was away, that is a return.
    pub(crate) fn came(&mut self, ask: &Ask, now: Duration) {
        if self.away.is_empty() {
            return;
        }
        let Some(away) = self.away.remove(&ask.session) else {
            return;
        };
        if ask.again.is_none() {
            self.note(Return {
                after: Some(now.saturating_sub(away.since)),
                length: away.length,
                class: ask.class,
                prompt: ask.prompt,
                uncached: ask.uncached,
                cached: ask.cached,
                kept: ask.cache_expires_in,
                max_tokens: ask.max_tokens,
            });
        }
    }

    /// An answer of this conversation ended.
    pub(crate) fn went(&mut self, session: &Arc<str>, away: Away, span: Duration) {
        if self.away.len() >= MANY {
            let gone = away.since.saturating_sub(span * GONE);
            let before = self.away.len();
            self.away.retain(|_, one| one.since > gone);
            for _ in self.away.len()..before {
                self.note(Return {
                    after: None,
                    length: 0,
                    class: Class::default(),
                    prompt: 0,
                    uncached: 0,
                    cached: 0,
                    kept: None,
                    max_tokens: None,
                });
            }
        }
        self.away.insert(Arc::clone(session), away);
    }

    fn note(&mut self, one: Return) {
        if self.returns.len() == KEPT {
            self.returns.pop_front();
        }
        self.returns.push_back(one);
    }

    /// A first token came so long after the admission.
    pub(crate) fn began(&mut self, after: Duration) {
        let millis = u64::try_from(after.as_millis()).unwrap_or(u64::MAX >> 8);
        self.first = Some(
            self.first
                .map_or(millis, |mean| (mean * 7 + millis.min(mean * 8 + 1000)) / 8),
        );
    }

    /// Time from admission to the first token.
    pub(crate) fn first(&self) -> Option<Duration> {
        self.first.map(Duration::from_millis)
    }

    /// The conversation, if it is away.
    pub(crate) fn of(&self, session: &Arc<str>) -> Option<Away> {
        self.away.get(session).cloned()
    }

    /// Conversations that may ask again, in an order that depends on nothing but them.
    pub(crate) fn away(&self) -> Vec<(Arc<str>, Away)> {
        let mut all: Vec<_> = self.away.clone().into_iter().collect();
        all.sort_by(|a, b| (a.1.since, &a.0).cmp(&(b.1.since, &b.0)));
        all
    }

    /// The returns of late, those of the shortest absence first.
    pub(crate) fn returns(&self) -> Vec<Return> {
        let mut all: Vec<_> = self.returns.iter().copied().collect();
        all.sort_by_key(|one| one.after.unwrap_or(Duration::MAX));
        all
    }
}

impl Return {
    /// The request with which another conversation returns in the same way.
    pub(crate) fn of(&self, pool: &Arc<str>, session: Arc<str>, away: &Away) -> Ask {
        let grown = self.prompt.checked_sub(self.length);
        let prompt = grown.map_or(self.prompt, |more| away.length + more);
        let uncached = if self.cached == 0 {
            prompt
        } else {
            self.uncached.min(prompt)
        };
        // Subagents stay what they are; what a person types is typed now and then.
        let class = match (away.class, self.class) {
            (Class::Background, _) => Class::Background,
            (_, Class::Interactive) => Class::Interactive,
            _ => Class::Loop,
        };
        Ask {
            pool: Arc::clone(pool),
            terminal: Arc::clone(&away.terminal),
            weight: away.weight,
            session,
            class,
            prompt,
            uncached,
            cached: prompt - uncached,
            cache_expires_in: self.kept,
            max_tokens: self.max_tokens,
            patience: Duration::MAX,
            ..Ask::default()
        }
    }
}
