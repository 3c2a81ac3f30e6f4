//! Notices answers that bring no byte for too long.
//!
//! A timer of its own for every stream would be armed and disarmed with every request. Instead each stream leaves a
//! mark of its last byte, and one sweep, due four times within the bound, looks at all of them; it rests while no
//! stream runs. So a stall is noticed between one and one and a quarter times the bound, and a byte costs one store.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::task::AtomicWaker;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

/// Sweeps within the bound.
const SWEEPS: u32 = 4;

/// All streams that run.
#[derive(Debug)]
pub struct Stalls {
    bound: Duration,
    origin: Instant,
    marks: Mutex<Vec<Arc<Mark>>>,
    sweeping: AtomicBool,
    begin: Notify,
}

#[derive(Debug)]
struct Mark {
    /// Milliseconds after the origin at which the last byte came.
    last: AtomicU64,
    stalled: AtomicBool,
    waker: AtomicWaker,
}

/// A stream under watch; it leaves when dropped.
#[derive(Debug)]
pub(super) struct Watched {
    stalls: Arc<Stalls>,
    mark: Arc<Mark>,
}

impl Stalls {
    /// Streams may be silent for so long.
    pub fn new(bound: Duration) -> Arc<Self> {
        Arc::new(Self {
            bound,
            origin: Instant::now(),
            marks: Mutex::default(),
            sweeping: AtomicBool::new(false),
            begin: Notify::new(),
        })
    }

    pub(super) fn watch(self: &Arc<Self>) -> Watched {
        let mark = Arc::new(Mark {
            last: AtomicU64::new(self.now()),
            stalled: AtomicBool::new(false),
            waker: AtomicWaker::new(),
        });
        self.marks.lock().push(mark.clone());
        if !self.sweeping.swap(true, Ordering::AcqRel) {
            self.begin.notify_one();
        }
        Watched {
            stalls: self.clone(),
            mark,
        }
    }

    /// Sweeps for ever; somebody must poll it while streams run.
    pub(super) async fn sweep(&self) -> Infallible {
        loop {
            self.begin.notified().await;
            while self.sweeping.load(Ordering::Acquire) {
                tokio::time::sleep(self.bound / SWEEPS).await;
                self.look();
            }
        }
    }

    fn look(&self) {
        let marks = self.marks.lock();
        if marks.is_empty() {
            // Under the lock, so that a stream that comes now begins the sweep anew.
            self.sweeping.store(false, Ordering::Release);
        }
        let now = self.now();
        let bound = u64::try_from(self.bound.as_millis()).unwrap_or(u64::MAX);
        for mark in marks.iter() {
            if now.saturating_sub(mark.last.load(Ordering::Relaxed)) >= bound {
                mark.stalled.store(true, Ordering::Release);
                mark.waker.wake();
            }
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.origin.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

impl Watched {
    /// A byte came.
    pub(super) fn alive(&self) {
        self.mark.last.store(self.stalls.now(), Ordering::Relaxed);
        self.mark.stalled.store(false, Ordering::Release);
    }

    /// Waits until nothing came for too long.
    pub(super) async fn stalled(&self) {
        std::future::poll_fn(|context| {
            if self.is_stalled(context) {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        })
        .await;
    }

    /// Whether nothing came for too long; the task is woken when that becomes true.
    pub(super) fn is_stalled(&self, context: &Context<'_>) -> bool {
        self.mark.waker.register(context.waker());
        self.mark.stalled.load(Ordering::Acquire)
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        let mut marks = self.stalls.marks.lock();
        if let Some(at) = marks.iter().position(|mark| Arc::ptr_eq(mark, &self.mark)) {
            marks.swap_remove(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn only_a_silent_stream_is_told_and_the_sweep_rests_without_streams() {
        let stalls = Stalls::new(Duration::from_secs(40));
        let sweeper = stalls.clone();
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(async move { sweeper.sweep().await });
        let silent = stalls.watch();
        let alive = stalls.watch();
        let start = Instant::now();
        tokio::select! {
            () = silent.stalled() => {}
            () = async {
                loop {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    alive.alive();
                }
            } => {}
        }
        let took = start.elapsed();
        assert!(
            took >= stalls.bound && took <= stalls.bound * 5 / 4,
            "{took:?}"
        );
        assert!(!alive.is_stalled(&Context::from_waker(std::task::Waker::noop())));
        drop((silent, alive));
        tokio::time::sleep(stalls.bound).await;
        assert!(!stalls.sweeping.load(Ordering::Acquire));
        assert!(stalls.marks.lock().is_empty());
    }
}
