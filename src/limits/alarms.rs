//! Instants at which something is due, of things that may be over long before.
//!
//! Nothing is taken out when its thing is over: that would cost a search for each request, and few live to their alarm.
//! What is over is passed over when it comes first, and swept out when most of what is kept is over; so the memory is in
//! proportion to what lives, and each alarm is looked at a few times in all.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

/// Alarms that are kept without a sweep, beside four for each living thing.
const FEW: usize = 64;

/// Alarms for things of one kind.
#[derive(Clone, Debug)]
pub(crate) struct Alarms<T> {
    heap: BinaryHeap<Reverse<(Duration, T)>>,
}

impl<T: Ord> Default for Alarms<T> {
    fn default() -> Self {
        Self {
            heap: BinaryHeap::new(),
        }
    }
}

impl<T: Ord + Copy> Alarms<T> {
    pub(crate) fn set(&mut self, at: Duration, what: T) {
        self.heap.push(Reverse((at, what)));
    }

    pub(crate) fn clear(&mut self) {
        self.heap.clear();
    }

    /// The next one that is due, whether its thing is over or not.
    pub(crate) fn due(&mut self, now: Duration) -> Option<T> {
        self.heap.peek().filter(|it| it.0.0 <= now)?;
        self.heap.pop().map(|Reverse((_, what))| what)
    }

    /// When the first is due whose thing is not over. So many `live` in all.
    pub(crate) fn next(&mut self, live: usize, is_live: impl Fn(T) -> bool) -> Option<Duration> {
        if self.heap.len() > live * 4 + FEW {
            self.heap.retain(|Reverse((_, what))| is_live(*what));
        }
        loop {
            let Reverse((at, what)) = *self.heap.peek()?;
            if is_live(what) {
                return Some(at);
            }
            self.heap.pop();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secs(s: u64) -> Duration {
        Duration::from_secs(s)
    }

    #[test]
    fn what_is_over_is_passed_over() {
        let mut alarms = Alarms::default();
        for (at, what) in [(3, 'c'), (1, 'a'), (2, 'b')] {
            alarms.set(secs(at), what);
        }
        assert_eq!(alarms.next(3, |_| true), Some(secs(1)));
        assert_eq!(alarms.next(1, |what| what == 'c'), Some(secs(3)));
        assert_eq!(alarms.due(secs(2)), None);
        assert_eq!(alarms.due(secs(3)), Some('c'));
        assert_eq!(alarms.next(0, |_| true), None);
    }

    #[test]
    fn what_is_kept_is_in_proportion_to_what_lives() {
        let mut alarms = Alarms::default();
        for n in 0..100_000 {
            alarms.set(Duration::MAX, n);
            // The first lives for ever, the others not at all.
            assert!(alarms.next(1, |what| what == 0).is_some());
            assert!(alarms.heap.len() <= FEW + 5);
        }
    }
}
