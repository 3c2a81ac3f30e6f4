//! The answer on its way to the client: bytes untouched, looked at as they pass, settled when they end.
//!
//! The relay is the response's body, so the client's reading is what drives it: nothing is buffered between the two
//! sockets. It ends in one of four ways, and each settles the permit: the answer came to its end, and is settled when it
//! was flushed; it was cut or stalled, and is broken off towards the client; the client went away and dropped it; it was
//! an error from the start.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use crate::proxy::board::Outcome;
use crate::proxy::meter::{Afterwards, Meter};
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
    meter: Option<Box<Meter>>,
    /// Takes the meter when the answer came to its end.
    afterwards: Afterwards,
    /// The answer is in a form whose end can be told, so it must show it.
    must_end: bool,
    watched: Watched,
    /// The upstream was asked for the next bytes; while the client does not read, it is not.
    asked: bool,
}

impl Relay {
    pub(super) fn new(
        upstream: AnswerBody,
        meter: Box<Meter>,
        afterwards: Afterwards,
        watched: Watched,
        must_end: bool,
    ) -> Self {
        watched.alive();
        Self {
            upstream,
            meter: Some(meter),
            afterwards,
            must_end,
            watched,
            asked: false,
        }
    }

    /// The answer is broken off; the client learns it after the permit came back.
    fn cut(&mut self) {
        if let Some(mut meter) = self.meter.take() {
            meter.end(Outcome::Failed);
        }
    }

    fn end_of_upstream(&mut self) -> Option<Result<Frame<Bytes>, BodyError>> {
        let mut meter = self.meter.take()?;
        let outcome = match meter.ending() {
            Ending::Whole { wants_tools: true } => Outcome::WantsTools,
            Ending::Whole { wants_tools: false } => Outcome::Finished,
            Ending::Open if self.must_end => {
                meter.end(Outcome::Failed);
                return Some(Err(Cut::Short.into()));
            }
            Ending::Open => Outcome::Finished,
            Ending::Failed => Outcome::Failed,
        };
        meter.end(outcome);
        if meter.is_told() {
            self.afterwards.leave(meter);
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
            if !std::mem::replace(&mut this.asked, true) {
                this.watched.alive();
            }
            if !this.watched.is_stalled(context) {
                return Poll::Pending;
            }
            this.cut();
            return Poll::Ready(Some(Err(Cut::Stalled.into())));
        };
        this.asked = false;
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
                this.cut();
                Some(Err(error.into()))
            }
            None => this.end_of_upstream(),
        })
    }

    fn is_end_stream(&self) -> bool {
        // While something is to be settled the body must be polled to its end.
        self.meter.is_none() && self.upstream.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.upstream.size_hint()
    }
}
