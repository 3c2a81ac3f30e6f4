//! Lets a task that wakes itself go on at once.
//!
//! The HTTP server and the exchange that it serves are one task, and they hand the request's body to each other. Each
//! chunk that is taken wakes the task that is running. The runtime would put it behind all others and rouse a sleeping
//! thread to look for work, which costs several times what kimiq does with a request. Polled through here, such a task
//! is just polled again.
//!
//! Invariant: a wake is never lost. One that comes while the future runs is kept until it returns; any other goes to the
//! task.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use futures_util::task::AtomicWaker;

/// Polls in a row, after which the task waits for its turn like any other.
const ROUNDS: u32 = 32;

const RESTING: u8 = 0;
const RUNNING: u8 = 1;
/// Running, and woken meanwhile.
const WOKEN: u8 = 2;

/// A future whose wakes of itself cost nothing.
#[derive(Debug)]
pub(super) struct Inline<F> {
    future: Pin<Box<F>>,
    signal: Arc<Signal>,
    waker: Waker,
}

#[derive(Debug)]
struct Signal {
    state: AtomicU8,
    task: AtomicWaker,
}

impl<F: Future> Inline<F> {
    pub(super) fn new(future: F) -> Self {
        let signal = Arc::new(Signal {
            state: AtomicU8::new(RESTING),
            task: AtomicWaker::new(),
        });
        Self {
            future: Box::pin(future),
            waker: signal.clone().into(),
            signal,
        }
    }

    /// The future, to be told something between two polls.
    pub(super) fn as_mut(&mut self) -> Pin<&mut F> {
        self.future.as_mut()
    }
}

impl<F: Future> Future for Inline<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let this = &mut *self;
        this.signal.task.register(context.waker());
        let mut own = Context::from_waker(&this.waker);
        for _ in 0..ROUNDS {
            this.signal.state.store(RUNNING, Ordering::Release);
            let polled = this.future.as_mut().poll(&mut own);
            let state = this.signal.state.swap(RESTING, Ordering::AcqRel);
            if polled.is_ready() || state != WOKEN {
                return polled;
            }
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }
}

impl Wake for Signal {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let noted = self
            .state
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |state| {
                (state != RESTING).then_some(WOKEN)
            });
        if noted.is_err() {
            self.task.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;

    use super::*;

    /// Counts the wakes that reach the task.
    #[derive(Default)]
    struct Count(AtomicU32);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Wakes itself so often, then waits for ever, and gives its waker away.
    fn restless(
        times: u32,
        kept: Arc<parking_lot::Mutex<Option<Waker>>>,
    ) -> impl Future<Output = ()> {
        let mut left = times;
        std::future::poll_fn(move |context| {
            *kept.lock() = Some(context.waker().clone());
            if left > 0 {
                left -= 1;
                context.waker().wake_by_ref();
            }
            Poll::Pending
        })
    }

    #[test]
    fn wakes_of_itself_stay_inside_and_others_reach_the_task() {
        for (times, expected) in [(0, 0), (1, 0), (ROUNDS - 1, 0), (ROUNDS + 5, 1)] {
            let count = Arc::new(Count::default());
            let waker = Waker::from(count.clone());
            let mut context = Context::from_waker(&waker);
            let kept = Arc::default();
            let mut inline = Inline::new(restless(times, Arc::clone(&kept)));
            assert!(Pin::new(&mut inline).poll(&mut context).is_pending());
            assert_eq!(count.0.load(Ordering::Relaxed), expected, "{times}");
            kept.lock().take().unwrap().wake();
            assert_eq!(count.0.load(Ordering::Relaxed), expected + 1, "{times}");
        }
    }
}
