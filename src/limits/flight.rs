//! An admitted request, from admission to its end.

use std::sync::Arc;
use std::time::Duration;

use crate::limits::ask::{Class, Ticket};
use crate::limits::habits::Away;
use crate::limits::limiter::Ending;
use crate::limits::pool::Pool;
use crate::limits::queue::Spot;
use crate::limits::reserve::Rest;
use crate::limits::window::Seq;
use crate::usage::Tokens;

/// Output entries remembered per request, for the case that more was counted than was generated.
const MANY_CHUNKS: usize = 64;

/// An admitted request.
#[derive(Clone, Debug)]
pub(crate) struct Flight {
    pub(crate) pool: Arc<str>,
    pub(crate) spot: Spot,
    pub(crate) terminal: Arc<str>,
    pub(crate) session: Arc<str>,
    pub(crate) ticket: Ticket,
    pub(crate) class: Class,
    pub(crate) weight: u32,
    pub(crate) admitted: Duration,
    /// It went ahead alone after a rest.
    pub(crate) scout: bool,
    pub(crate) estimate: [u64; 3],
    /// Tokens that the prompt cache was expected to hold.
    pub(crate) cached: u64,
    /// Those of them that were not sure.
    pub(crate) hoped: u64,
    pub(crate) max_tokens: Option<u64>,
    /// Prompt tokens that were not sent yet.
    pub(crate) held: [u64; 2],
    pub(crate) rest: Rest,
    /// What it counts for in the accounts of ended answers although it still runs.
    pub(crate) overdue: [u64; 3],
    pub(crate) is_overdue: bool,
    /// Tokens held of the day.
    pub(crate) daily: u64,
    /// Service that its terminal was charged with.
    pub(crate) cost: i64,
    pub(crate) sent: bool,
    pub(crate) prompt: [Option<Seq>; 2],
    pub(crate) streamed: u64,
    /// When the first output was counted, and how much.
    pub(crate) began: Option<(Duration, u64)>,
    pub(crate) chunks: Vec<Seq>,
}

impl Flight {
    /// Output came and was logged.
    pub(crate) fn note(&mut self, tokens: u64, seq: Seq, now: Duration) {
        self.streamed += tokens;
        self.began.get_or_insert((now, tokens));
        if self.chunks.len() == MANY_CHUNKS {
            self.chunks.drain(..MANY_CHUNKS / 2);
        }
        self.chunks.push(seq);
    }

    /// What it counts as with its prompt as estimated, and so much output.
    pub(crate) fn taken(&self, generated: u64) -> Tokens {
        Tokens {
            prompt: self.estimate[0],
            cached: self.estimate[0] - self.estimate[1],
            generated,
            reasoning: 0,
        }
    }

    /// What it counts as if it were cancelled, with output that was not told yet: who answers has taken the prompt.
    pub(crate) fn so_far(&self, untold: u64) -> Tokens {
        if self.sent || untold > 0 {
            self.taken(self.streamed + untold)
        } else {
            Tokens::default()
        }
    }

    /// What it counts as, given its end.
    pub(crate) fn cost(&self, ending: Ending) -> Tokens {
        match ending {
            Ending::Settled(tokens) => tokens,
            // An answer in one piece never streamed; what was reserved is then the best guess.
            Ending::Unmetered if self.streamed == 0 => self.taken(self.estimate[2]),
            Ending::Unmetered => self.taken(self.streamed),
            Ending::Cancelled if self.sent => self.taken(self.streamed),
            Ending::Cancelled | Ending::Refused => Tokens::default(),
        }
    }

    /// Makes the logs say that it spent this. Prompt entries keep their stamp; more output counts from now.
    pub(crate) fn charge(&self, pool: &mut Pool, spent: [u64; 3], now: Duration) {
        pool.hour.spent(&spent, now);
        for (d, amount) in spent.into_iter().enumerate().take(2) {
            match self.prompt[d] {
                Some(seq) => pool.correct(d, seq, amount),
                None if amount > 0 => {
                    pool.logs[d].push(now, amount);
                }
                None => {}
            }
        }
        if spent[2] > self.streamed {
            pool.spend(2, spent[2] - self.streamed, now);
        }
        let mut surplus = self.streamed.saturating_sub(spent[2]);
        for seq in self.chunks.iter().rev() {
            surplus -= pool.logs[2].take_back(*seq, surplus);
        }
    }

    /// Its conversation will ask again; when it began to answer tells how long others will take.
    pub(crate) fn leave(&self, pool: &mut Pool, spent: Tokens, now: Duration) {
        let away = Away {
            since: now,
            terminal: Arc::clone(&self.terminal),
            weight: self.weight,
            class: self.class,
            length: spent.prompt + spent.generated,
        };
        pool.habits.went(&self.session, away, pool.span);
        if let Some((at, _)) = self.began {
            pool.habits.began(at.saturating_sub(self.admitted));
        }
    }

    /// Tokens per thousand seconds at which it streamed; `None` if that cannot be told.
    pub(crate) fn speed(&self, generated: u64, now: Duration) -> Option<u64> {
        let (at, first) = self.began?;
        let time = now.saturating_sub(at).as_millis();
        let time = u64::try_from(time).ok().filter(|&millis| millis >= 500)?;
        let later = generated.saturating_sub(first);
        (later >= 16).then(|| later.saturating_mul(1_000_000) / time)
    }
}
