//! The body of an answer: hands out prepared events at the pace of the model.
//!
//! There is no task behind it. The connection asks for the next event, a timer holds it back until it is due, and a
//! client that leaves drops the body and with it the exchange.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::task::Context;
use std::task::Poll;
use std::task::ready;
use std::time::Duration;
use std::vec;

use bytes::Bytes;
use http_body::Body;
use http_body::Frame;
use http_body::SizeHint;
use tokio::time::Instant;
use tokio::time::Sleep;

use super::engine::Exchange;
use super::reply::Ending;
use super::reply::Event;
use super::truth::End;

pub(super) struct Reply {
    events: vec::IntoIter<Event>,
    ending: Ending,
    /// Length told in advance, if the answer is no stream.
    length: Option<u64>,
    /// Bytes of one chunk, 0 for whole events, and what is left of the event on its way.
    chunk: usize,
    rest: Bytes,
    /// Time per token, and until when the next event is held back.
    pace: Duration,
    due: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
    /// One poll has given way, so that what was written before a break is on the wire.
    gave_way: bool,
    reset: Arc<AtomicBool>,
    exchange: Exchange,
}

impl Reply {
    /// A stream at `pace` per token.
    pub(super) fn stream(
        events: Vec<Event>,
        ending: Ending,
        pace: Duration,
        reset: Arc<AtomicBool>,
        exchange: Exchange,
    ) -> Self {
        Self {
            events: events.into_iter(),
            ending,
            length: None,
            chunk: 0,
            rest: Bytes::new(),
            pace,
            due: None,
            timer: None,
            gave_way: false,
            reset,
            exchange,
        }
    }

    /// A body of known length, of which only the first `sent` bytes are sent if the ending is not clean.
    pub(super) fn whole(
        body: String,
        tokens: u64,
        ending: Ending,
        reset: Arc<AtomicBool>,
        exchange: Exchange,
    ) -> Self {
        let length = body.len() as u64;
        let mut events = vec![Event::new(body, tokens)];
        if ending != Ending::Clean
            && let Some(event) = events.first_mut()
        {
            let half = event.bytes.floor_char_boundary(event.bytes.len() / 2);
            event.bytes.truncate(half);
            event.tokens = tokens / 2;
        }
        Self {
            length: Some(length),
            ..Self::stream(events, ending, Duration::ZERO, reset, exchange)
        }
    }

    /// Cuts the events into chunks of so many bytes; 0 leaves them whole.
    pub(super) fn in_chunks(self, chunk: usize) -> Self {
        Self { chunk, ..self }
    }

    /// The next chunk of the event on its way.
    fn next_chunk(&mut self) -> Option<Bytes> {
        let length = match self.chunk {
            0 => self.rest.len(),
            chunk => chunk.min(self.rest.len()),
        };
        (length > 0).then(|| self.rest.split_to(length))
    }

    /// The next event of a stream may leave when its tokens have been generated.
    fn hold_back(&mut self) {
        let tokens = self
            .events
            .as_slice()
            .first()
            .map_or(0, |event| event.tokens);
        if self.pace.is_zero() || tokens == 0 {
            return;
        }
        let from = self.due.unwrap_or_else(Instant::now);
        let due = from
            + self
                .pace
                .saturating_mul(u32::try_from(tokens).unwrap_or(u32::MAX));
        self.due = Some(due);
        self.timer = Some(Box::pin(tokio::time::sleep_until(due)));
    }
}

impl Body for Reply {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let this = self.get_mut();
        if let Some(chunk) = this.next_chunk() {
            return Poll::Ready(Some(Ok(Frame::data(chunk))));
        }
        if let Some(timer) = &mut this.timer {
            ready!(timer.as_mut().poll(cx));
            this.timer = None;
        }
        if let Some(event) = this.events.next() {
            this.exchange.streamed(event.tokens);
            if this.events.as_slice().is_empty() && this.ending == Ending::Clean {
                let end = if this.exchange.record.fault.is_some() {
                    End::Fault
                } else {
                    End::Complete
                };
                this.exchange.finish(end);
            }
            this.hold_back();
            this.rest = Bytes::from(event.bytes);
            let chunk = this.next_chunk().unwrap_or_default();
            return Poll::Ready(Some(Ok(Frame::data(chunk))));
        }
        match this.ending {
            Ending::Clean => Poll::Ready(None),
            Ending::Hang => Poll::Pending,
            Ending::Break | Ending::Reset => {
                if !std::mem::replace(&mut this.gave_way, true) {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                this.reset
                    .store(this.ending == Ending::Reset, Ordering::Release);
                this.exchange.finish(End::Fault);
                Poll::Ready(Some(Err(io::Error::new(
                    io::ErrorKind::ConnectionAborted,
                    "fault on demand",
                ))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.ending == Ending::Clean && self.rest.is_empty() && self.events.as_slice().is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        self.length
            .map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
