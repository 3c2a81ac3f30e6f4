//! The answer on its way to the client: bytes untouched, looked at as they pass, settled when they end.
//!
//! The relay is the response's body, so the client's reading is what drives it: nothing is buffered between the two
//! sockets. It ends in one of four ways, and each settles the permit: the answer came to its end; it was cut or
//! stalled, and is broken off towards the client; the client went away and dropped it; it was an error from the start.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::Instant;

use crate::limits::Permit;
use crate::proxy::Proxy;
use crate::proxy::board::{Entry, Outcome};
use crate::proxy::stalls::Watched;
use crate::usage::{Account, Asked, Guess, Prompt, Tokens};
use crate::wire::{Ending, Tap};

/// Output is reported to the limiter in portions of about this many tokens, to spare its lock.
const PORTION: u64 = 32;

/// An answer that was broken off on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Cut {
    #[error("the upstream ended its answer before the end")]
    Short,
    #[error("the upstream sent nothing for too long")]
    Stalled,
}

/// The error type of bodies towards the client.
pub(super) type BodyError = Box<dyn std::error::Error + Send + Sync>;

/// What one exchange is about, kept until it is settled.
#[derive(Debug)]
pub(super) struct Subject {
    pub(super) terminal: Arc<str>,
    pub(super) model: String,
    pub(super) session: Option<String>,
    /// What the upstream limits, and caches, as one.
    pub(super) place: Arc<str>,
    pub(super) prompt: Prompt,
    /// The request may start other agents.
    pub(super) spawns: bool,
    /// What was estimated last.
    pub(super) guess: Option<Guess>,
}

/// Counts an answer and settles it exactly once.
#[derive(Debug)]
pub(super) struct Meter {
    proxy: Arc<Proxy>,
    subject: Subject,
    permit: Option<Permit>,
    entry: Entry,
    tap: Tap,
    /// Output bytes that were not reported to the limiter yet.
    unreported: u64,
    /// Output bytes so far.
    answered: u64,
}

impl Subject {
    /// The conversation; a client that names none is taken to have one.
    pub(super) fn session(&self) -> &str {
        self.session.as_deref().unwrap_or(&self.terminal)
    }

    /// The request as the estimator wants it.
    pub(super) fn asked(&self) -> Asked<'_> {
        Asked {
            model: &self.model,
            place: &self.place,
            session: self.session(),
            prompt: &self.prompt,
            spawns: self.spawns,
        }
    }
}

impl Meter {
    pub(super) fn new(
        proxy: Arc<Proxy>,
        subject: Subject,
        permit: Permit,
        entry: Entry,
        tap: Tap,
    ) -> Self {
        Self {
            proxy,
            subject,
            permit: Some(permit),
            entry,
            tap,
            unreported: 0,
            answered: 0,
        }
    }

    fn see(&mut self, chunk: &[u8]) {
        let more = self.tap.feed(chunk);
        // The head of an answer may come before the prompt was read; its content cannot.
        if more > 0 && self.answered == 0 {
            self.begun();
        }
        self.answered += more;
        self.unreported += more;
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

    fn settle(&mut self, outcome: Outcome) {
        let Some(mut permit) = self.permit.take() else {
            return;
        };
        let tokens = if let Some(tokens) = self.tap.tokens() {
            permit.settle(tokens);
            if self.answered == 0 {
                self.begun();
            }
            self.learn(tokens);
            tokens
        } else {
            permit.streamed(
                self.proxy
                    .estimator
                    .output(&self.subject.model, self.unreported),
            );
            permit.unmetered()
        };
        self.book(outcome, tokens);
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
        // The client went away. An answer that had told its usage is settled with it all the same.
        if self.tap.tokens().is_some() {
            self.settle(Outcome::Cancelled);
        } else if let Some(permit) = self.permit.take() {
            let spent = permit.spent();
            drop(permit);
            self.book(Outcome::Cancelled, spent);
        }
    }
}

/// The body of a relayed answer.
#[derive(Debug)]
pub(super) struct Relay {
    upstream: Incoming,
    meter: Option<Meter>,
    /// An event stream must show its end; a plain answer's end is the connection's business.
    must_end: bool,
    watched: Watched,
}

impl Relay {
    pub(super) fn new(upstream: Incoming, meter: Meter, must_end: bool) -> Self {
        Self {
            upstream,
            watched: meter.proxy.stalls.watch(),
            meter: Some(meter),
            must_end,
        }
    }

    fn finish(&mut self, outcome: Outcome) {
        if let Some(mut meter) = self.meter.take() {
            meter.settle(outcome);
        }
    }

    fn end_of_upstream(&mut self) -> Option<Result<Frame<Bytes>, BodyError>> {
        let ending = self.meter.as_ref().map(|meter| meter.tap.ending());
        match ending {
            Some(Ending::Whole { wants_tools: true }) => self.finish(Outcome::WantsTools),
            Some(Ending::Whole { wants_tools: false }) => self.finish(Outcome::Finished),
            Some(Ending::Open) if self.must_end => {
                self.finish(Outcome::Failed);
                return Some(Err(Cut::Short.into()));
            }
            Some(Ending::Open) => self.finish(Outcome::Finished),
            Some(Ending::Failed) => self.finish(Outcome::Failed),
            None => {}
        }
        None
    }
}

impl Body for Relay {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        let Poll::Ready(frame) = Pin::new(&mut this.upstream).poll_frame(context) else {
            if !this.watched.is_stalled(context) {
                return Poll::Pending;
            }
            this.finish(Outcome::Failed);
            return Poll::Ready(Some(Err(Cut::Stalled.into())));
        };
        Poll::Ready(match frame {
            Some(Ok(frame)) => {
                if let (Some(meter), Some(chunk)) = (&mut this.meter, frame.data_ref()) {
                    meter.see(chunk);
                }
                this.watched.alive();
                if this.upstream.is_end_stream() {
                    // The server does not ask again after the last frame.
                    match this.end_of_upstream() {
                        None => Some(Ok(frame)),
                        cut => cut,
                    }
                } else {
                    Some(Ok(frame))
                }
            }
            Some(Err(error)) => {
                this.finish(Outcome::Failed);
                Some(Err(error.into()))
            }
            None => this.end_of_upstream(),
        })
    }

    fn is_end_stream(&self) -> bool {
        self.upstream.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.upstream.size_hint()
    }
}
