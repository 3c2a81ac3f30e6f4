//! The answer on its way to the client: bytes untouched, looked at as they pass, settled when they end.
//!
//! The relay is the response's body, so the client's reading is what drives it: nothing is buffered between the two
//! sockets. It ends in one of four ways, and each settles the permit: the answer came to its end; it was cut or
//! stalled, and is broken off towards the client; the client went away and dropped it; it was an error from the start.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use crate::proxy::board::Outcome;
use crate::proxy::meter::Meter;
use crate::proxy::stalls::Watched;
use crate::upstream::AnswerBody;
use crate::wire::Ending;

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

/// The body of a relayed answer.
#[derive(Debug)]
pub(super) struct Relay {
    upstream: AnswerBody,
    meter: Box<Meter>,
    /// The answer is in a form whose end can be told, so it must show it.
    must_end: bool,
    watched: Watched,
}

impl Relay {
    pub(super) fn new(
        upstream: AnswerBody,
        meter: Box<Meter>,
        watched: Watched,
        must_end: bool,
    ) -> Self {
        watched.alive();
        Self {
            upstream,
            meter,
            must_end,
            watched,
        }
    }

    fn end_of_upstream(&mut self) -> Option<Result<Frame<Bytes>, BodyError>> {
        if self.meter.is_settled() {
            return None;
        }
        let (outcome, cut) = match self.meter.ending() {
            Ending::Whole { wants_tools: true } => (Outcome::WantsTools, false),
            Ending::Whole { wants_tools: false } => (Outcome::Finished, false),
            Ending::Open if self.must_end => (Outcome::Failed, true),
            Ending::Open => (Outcome::Finished, false),
            Ending::Failed => (Outcome::Failed, false),
        };
        self.meter.settle(outcome);
        cut.then(|| Err(Cut::Short.into()))
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
            this.meter.settle(Outcome::Failed);
            return Poll::Ready(Some(Err(Cut::Stalled.into())));
        };
        Poll::Ready(match frame {
            Some(Ok(frame)) => {
                if let Some(chunk) = frame.data_ref() {
                    this.meter.see(chunk);
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
                this.meter.settle(Outcome::Failed);
                Some(Err(error.into()))
            }
            None => this.end_of_upstream(),
        })
    }

    fn is_end_stream(&self) -> bool {
        // While something is to be settled the body must be polled to its end.
        self.meter.is_settled() && self.upstream.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.upstream.size_hint()
    }
}
