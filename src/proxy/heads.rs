//! Notices requests whose head does not come to its end.
//!
//! Half a head would hold its connection, and a descriptor, for ever. The server library can bound it with a timer for
//! each request, which would also close connections that are merely kept; so each connection leaves a mark instead, and
//! one look at all of them, now and then, finds those that were in the middle of the same head at the look before.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::Notify;

/// Time between two looks: a head may take so long at the least, and twice that at the most.
pub(super) const LOOK: Duration = Duration::from_secs(30);

/// Nothing has come since the last answer.
const QUIET: u8 = 0;
/// Bytes have come.
const CAME: u8 = 1;
/// The last look found that bytes had come.
const SEEN: u8 = 2;
/// A request is being answered; what comes is its body.
const BUSY: u8 = 3;

/// The mark of a connection.
#[derive(Debug, Default)]
pub(super) struct Line {
    state: AtomicU8,
    late: Notify,
}

impl Line {
    /// Bytes came.
    pub(super) fn came(&self) {
        if self.state.load(Ordering::Relaxed) == QUIET {
            self.state.store(CAME, Ordering::Relaxed);
        }
    }

    /// A head is whole.
    fn begin(&self) {
        self.state.store(BUSY, Ordering::Relaxed);
    }

    /// The next bytes are those of another head.
    fn end(&self) {
        self.state.store(QUIET, Ordering::Relaxed);
    }

    /// Resolves when a head takes too long.
    pub(super) async fn late(&self) {
        self.late.notified().await;
    }

    fn look(&self) -> bool {
        // A head that ends in this instant has had its time.
        let seen = self
            .state
            .compare_exchange(CAME, SEEN, Ordering::Relaxed, Ordering::Relaxed);
        let late = seen == Err(SEEN);
        if late {
            self.late.notify_one();
        }
        late
    }
}

/// A request whose answer has not come to its end: what comes meanwhile is its body, or waits for its turn.
#[derive(Debug)]
pub(super) struct Busy(Arc<Line>);

impl Busy {
    pub(super) fn new(line: Arc<Line>) -> Self {
        line.begin();
        Self(line)
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// Looks at all connections, and forgets those that are gone.
pub(super) fn look(lines: &mut Vec<Weak<Line>>) {
    lines.retain(|line| line.upgrade().is_some_and(|line| !line.look()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_the_same_head_at_two_looks_is_late() {
        let line = std::sync::Arc::new(Line::default());
        let mut lines = vec![std::sync::Arc::downgrade(&line)];
        let mut looked = |expected: bool| {
            look(&mut lines);
            assert_eq!(lines.is_empty(), expected);
        };
        // Kept open between requests.
        looked(false);
        looked(false);
        // A head that comes to its end, a body, a long answer.
        line.came();
        looked(false);
        let busy = Busy::new(line.clone());
        line.came();
        looked(false);
        looked(false);
        drop(busy);
        looked(false);
        // Another head, that does not, however often a byte of it comes.
        line.came();
        looked(false);
        line.came();
        looked(true);
        line.late().await;
    }
}
