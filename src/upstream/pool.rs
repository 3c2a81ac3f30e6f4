//! Connections that rest between two requests.
//!
//! A connection goes back when its answer was read to the end, and only then: one whose answer was dropped is closed,
//! which is how the upstream learns to stop. Whoever takes one finds the newest first, for the oldest is the likeliest
//! to have been closed by the other side. Connections that rested too long are closed when the next one comes.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use tokio::time::Instant;

use crate::upstream::client::SendBody;

/// How long a connection rests before it is closed.
const IDLE: Duration = Duration::from_mins(1);

/// The resting connections, by scheme, host and port.
#[derive(Debug, Default)]
pub(super) struct Pool {
    resting: Mutex<FxHashMap<Arc<str>, Vec<Resting>>>,
}

#[derive(Debug)]
struct Resting {
    sender: SendRequest<SendBody>,
    since: Instant,
}

impl Pool {
    /// The newest connection to this origin. It may have been closed by the other side.
    pub(super) fn take(&self, origin: &str) -> Option<SendRequest<SendBody>> {
        let mut resting = self.resting.lock();
        let connections = resting.get_mut(origin)?;
        let newest = connections.pop()?;
        if newest.since.elapsed() < IDLE {
            return Some(newest.sender);
        }
        connections.clear();
        None
    }

    fn put(&self, origin: Arc<str>, sender: SendRequest<SendBody>) {
        if sender.is_closed() {
            return;
        }
        let since = Instant::now();
        let mut resting = self.resting.lock();
        resting.retain(|_, connections| {
            connections
                .retain(|it| since.duration_since(it.since) < IDLE && !it.sender.is_closed());
            !connections.is_empty()
        });
        let connections = resting.entry(origin).or_default();
        connections.push(Resting { sender, since });
    }
}

/// An answer's body. When it was read to its end, its connection rests for the next request.
#[derive(Debug)]
pub struct AnswerBody {
    incoming: Incoming,
    lease: Option<Lease>,
}

/// A connection in use, and where it goes afterwards.
#[derive(Debug)]
pub(super) struct Lease {
    pub(super) pool: Arc<Pool>,
    pub(super) origin: Arc<str>,
    pub(super) sender: SendRequest<SendBody>,
}

impl AnswerBody {
    /// Without a lease the connection is closed afterwards.
    pub(super) fn new(incoming: Incoming, lease: Option<Lease>) -> Self {
        let mut body = Self { incoming, lease };
        if body.incoming.is_end_stream() {
            body.rest();
        }
        body
    }

    fn rest(&mut self) {
        if let Some(lease) = self.lease.take() {
            lease.pool.put(lease.origin, lease.sender);
        }
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let polled = Pin::new(&mut self.incoming).poll_frame(context);
        // A body of known length tells its end with its last frame, any other only after it.
        if matches!(polled, Poll::Ready(None)) || polled.is_ready() && self.incoming.is_end_stream()
        {
            self.rest();
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}
