//! Lets a task that wakes itself go on at once.
//!
//! The HTTP server and the exchange that it serves are one task, and they hand the request's body to each other. Each
//! chunk that is taken wakes the task that is running. The runtime would put it behind all others and rouse a sleeping
//! thread to look for work, which costs several times what kimiq does with a request. Polled through here, such a task
//! is just polled again.
//!
//! What such a task waits for beside its work, and what comes once in its life if ever, is asked only when it has called:
//! [`Dormant`].
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

/// A future that is polled once, and then only when it has called.
#[derive(Debug)]
pub(super) struct Dormant<F> {
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
        let signal = Signal::new(RESTING);
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
            // A wake from before is answered by this very poll, which therefore has to see what its waker did.
            this.signal.state.swap(RUNNING, Ordering::AcqRel);
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

impl<F: Future> Dormant<F> {
    pub(super) fn new(future: F) -> Self {
        let signal = Signal::new(WOKEN);
        Self {
            future: Box::pin(future),
            waker: signal.clone().into(),
            signal,
        }
    }
}

impl<F: Future> Future for Dormant<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let this = &mut *self;
        this.signal.task.register(context.waker());
        if this.signal.state.swap(RESTING, Ordering::AcqRel) != WOKEN {
            return Poll::Pending;
        }
        this.future
            .as_mut()
            .poll(&mut Context::from_waker(&this.waker))
    }
}

impl Signal {
    fn new(state: u8) -> Arc<Self> {
        Arc::new(Self {
            state: AtomicU8::new(state),
            task: AtomicWaker::new(),
        })
    }
}

impl Wake for Signal {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // Who runs looks again before it rests; who rests must be called.
        if self.state.swap(WOKEN, Ordering::AcqRel) == RESTING {
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

    #[test]
    fn a_dormant_future_is_polled_when_it_has_called() {
        let count = Arc::new(Count::default());
        let waker = Waker::from(count.clone());
        let mut context = Context::from_waker(&waker);
        let (call, called) = tokio::sync::oneshot::channel::<()>();
        let mut polls = 0;
        let mut called = std::pin::pin!(called);
        let mut dormant = Dormant::new(std::future::poll_fn(|context| {
            polls += 1;
            called.as_mut().poll(context)
        }));
        for _ in 0..3 {
            assert!(Pin::new(&mut dormant).poll(&mut context).is_pending());
        }
        call.send(()).unwrap();
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
        assert!(Pin::new(&mut dormant).poll(&mut context).is_ready());
        drop(dormant);
        assert_eq!(polls, 2);
    }
}
