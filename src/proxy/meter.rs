//! What one exchange costs, from its first try to the end of its answer.
//!
//! The meter is made before the first byte goes up and travels with the exchange into the answer's body, so that
//! whatever ends it, a refusal, a cut or a client that goes away at any await, gives back its permit once and books
//! the tokens that the upstream may have counted, in the ledger as in the limiter.
//!
//! Settling takes longer than relaying a chunk, so the meter of an answer that came to its end waits in its
//! connection's [`Afterwards`] until the last byte is on its way to the client.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::limits::{Departure, Permit, Ticket};
use crate::proxy::Proxy;
use crate::proxy::board::{Entry, Outcome};
use crate::usage::{Account, Asked, Guess, Prompt, Tokens};
use crate::wire::{Ending, Tap};

/// Output is reported to the limiter in portions of about this many tokens, to spare its lock.
const PORTION: u64 = 32;

/// What one exchange is about, kept until it is settled.
#[derive(Debug)]
pub(super) struct Subject {
    pub(super) terminal: Arc<str>,
    pub(super) model: String,
    /// The conversation; a client that names none is taken to have one.
    pub(super) session: Arc<str>,
    /// What the upstream limits, and caches, as one.
    pub(super) place: Arc<str>,
    pub(super) prompt: Prompt,
    /// The request may start other agents.
    pub(super) spawns: bool,
    /// What was estimated last.
    pub(super) guess: Option<Guess>,
}

/// Counts one exchange over all its tries, and settles each permit exactly once.
#[derive(Debug)]
pub(super) struct Meter {
    proxy: Arc<Proxy>,
    pub(super) subject: Subject,
    pub(super) entry: Entry,
    permit: Option<Permit>,
    /// How the answer ended, once it has.
    outcome: Option<Outcome>,
    /// Looks at the answer, once there is one.
    tap: Option<Tap>,
    /// Output bytes that were not reported to the limiter yet.
    unreported: u64,
    /// Output bytes so far.
    answered: u64,
}

impl Subject {
    /// The request as the estimator wants it.
    pub(super) fn asked(&self) -> Asked<'_> {
        Asked {
            model: &self.model,
            place: &self.place,
            session: &self.session,
            prompt: &self.prompt,
            spawns: self.spawns,
        }
    }
}

impl Meter {
    /// Boxed, because it travels from the exchange into the answer's body.
    pub(super) fn new(proxy: Arc<Proxy>, subject: Subject, entry: Entry) -> Box<Self> {
        Box::new(Self {
            proxy,
            subject,
            entry,
            permit: None,
            outcome: None,
            tap: None,
            unreported: 0,
            answered: 0,
        })
    }

    /// The next try may go, so long after it was estimated. The returned departure says when its last byte left.
    pub(super) fn admitted(&mut self, permit: Permit, waited: Duration) -> Departure {
        if let Some(guess) = &mut self.subject.guess {
            guess.sent_after(waited);
        }
        let departure = permit.departure();
        self.permit = Some(permit);
        departure
    }

    /// The permit of the try, until it ended.
    pub(super) fn permit(&self) -> Option<&Permit> {
        self.permit.as_ref()
    }

    /// The upstream did not take the try: it cost nothing.
    pub(super) fn refused(&mut self) -> Option<Ticket> {
        self.permit.take().map(Permit::refused)
    }

    /// The upstream took the try and failed: what it may have counted stays counted.
    pub(super) fn failed(&mut self) -> Option<Ticket> {
        let permit = self.permit.take()?;
        let (ticket, spent) = permit.failed();
        self.book(Outcome::Failed, spent);
        Some(ticket)
    }

    /// An answer begins.
    pub(super) fn answer(&mut self, tap: Tap) {
        self.tap = Some(tap);
    }

    /// How the answer stands.
    pub(super) fn ending(&self) -> Ending {
        self.tap.as_ref().map_or(Ending::Open, Tap::ending)
    }

    /// The next bytes of the answer.
    pub(super) fn see(&mut self, chunk: &[u8]) {
        let more = self.tap.as_mut().map_or(0, |tap| tap.feed(chunk));
        // The head of an answer may come before the prompt was read; its content cannot.
        if more > 0 && self.answered == 0 {
            self.begun();
        }
        self.answered += more;
        self.unreported += more;
        // No token is shorter than a byte.
        if self.unreported < PORTION {
            return;
        }
        let tokens = self
            .proxy
            .estimator
            .output(&self.subject.model, self.unreported);
        if tokens >= PORTION
            && let Some(permit) = &mut self.permit
        {
            permit.streamed(tokens);
            self.unreported = 0;
        }
    }

    /// The answer ended so, or was broken off. Dropping the meter settles it.
    pub(super) fn end(&mut self, outcome: Outcome) {
        self.outcome = Some(outcome);
    }

    /// Whether the upstream told what the answer cost.
    pub(super) fn is_told(&self) -> bool {
        self.tokens().is_some()
    }

    fn tokens(&self) -> Option<Tokens> {
        self.tap.as_ref()?.tokens()
    }

    fn begun(&self) {
        let estimator = &self.proxy.estimator;
        estimator.begun(&self.subject.asked(), Instant::now());
    }

    fn learn(&self, tokens: Tokens) {
        let Subject { model, guess, .. } = &self.subject;
        let estimator = &self.proxy.estimator;
        if let Some(guess) = guess {
            estimator.learn(&self.subject.asked(), guess, tokens);
        }
        estimator.learn_output(model, self.answered, tokens.generated);
    }

    fn book(&mut self, outcome: Outcome, tokens: Tokens) {
        let (source, terminal) = self
            .subject
            .terminal
            .rsplit_once(':')
            .unwrap_or(("", &self.subject.terminal));
        let account = Account {
            model: self.subject.model.clone(),
            terminal: terminal.to_owned(),
            source: source.to_owned(),
        };
        self.proxy.ledger.add(account, tokens);
        self.entry.end(outcome, tokens);
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        let Some(mut permit) = self.permit.take() else {
            return;
        };
        // Without an outcome the client went away. An answer that had told its usage is settled with it all the same.
        let outcome = self.outcome.unwrap_or(Outcome::Cancelled);
        if let Some(tokens) = self.tokens() {
            if self.answered == 0 {
                self.begun();
            }
            self.learn(tokens);
            self.book(outcome, tokens);
            // Last, so that whoever waits for the permit finds the rest done.
            self.entry.leave();
            permit.settle(tokens);
            return;
        }
        let estimator = &self.proxy.estimator;
        permit.streamed(estimator.output(&self.subject.model, self.unreported));
        let tokens = if self.outcome.is_some() {
            permit.unmetered()
        } else {
            let spent = permit.spent();
            drop(permit);
            spent
        };
        self.book(outcome, tokens);
    }
}

/// Where the meter of a connection's last answer waits until the answer was flushed.
#[derive(Clone, Debug, Default)]
pub(super) struct Afterwards(Arc<Mutex<Option<Box<Meter>>>>);

impl Afterwards {
    /// Settles this one later.
    pub(super) fn leave(&self, meter: Box<Meter>) {
        let before = self.0.lock().replace(meter);
        drop(before);
    }

    /// The answer was flushed.
    pub(super) fn settle(&self) {
        let meter = self.0.lock().take();
        drop(meter);
    }
}
