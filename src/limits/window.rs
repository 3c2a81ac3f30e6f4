//! An exact rolling log of one budget: what was spent when, and when it will be free again.
//!
//! Entries carry contiguous numbers, so that a live entry is corrected, and an old one dropped, in constant time. A
//! fixed window of any alignment and any bucket that holds at least the limit are satisfied by the same log. A shorter
//! inner window over the same entries serves upstreams that dislike bursts inside the minute.

use std::collections::VecDeque;
use std::time::Duration;

/// Number of an entry inside its log.
pub(crate) type Seq = u64;

#[derive(Clone, Copy, Debug)]
struct Entry {
    at: Duration,
    amount: u64,
}

/// Tokens spent inside the window.
#[derive(Clone, Debug, Default)]
pub(crate) struct Log {
    entries: VecDeque<Entry>,
    /// Number of the front entry.
    first: Seq,
    sum: u64,
    /// What was ever pushed.
    all: u64,
    /// Number of the first entry of the inner window.
    inner: Seq,
    inner_sum: u64,
}

impl Log {
    /// Tokens that still count. Call [`Log::expire`] first.
    pub(crate) fn sum(&self) -> u64 {
        self.sum
    }

    /// All that was ever spent, as it was told at first.
    pub(crate) fn all(&self) -> u64 {
        self.all
    }

    /// Spends `amount` at `at`. Stamps never go back: a late one counts as of the newest.
    pub(crate) fn push(&mut self, at: Duration, amount: u64) -> Seq {
        let at = self.entries.back().map_or(at, |newest| newest.at.max(at));
        self.entries.push_back(Entry { at, amount });
        self.sum += amount;
        self.all += amount;
        self.inner_sum += amount;
        self.first + self.entries.len() as u64 - 1
    }

    /// Sets the amount of an entry that still counts; one that no longer does is left alone. Returns its stamp and what it
    /// was before.
    pub(crate) fn correct(&mut self, seq: Seq, amount: u64) -> Option<(Duration, u64)> {
        let entry = self.live(seq)?;
        let before = std::mem::replace(&mut entry.amount, amount);
        let at = entry.at;
        self.sum = self.sum - before + amount;
        if seq >= self.inner {
            self.inner_sum = self.inner_sum - before + amount;
        }
        Some((at, before))
    }

    /// What another account of the same window holds that is up to `transit` behind ours: what is sure, and the sum nearest
    /// to `target` if of what was just spent and of what just left any part may be in it.
    pub(crate) fn beside(
        &self,
        target: u64,
        now: Duration,
        window: Duration,
        transit: Duration,
    ) -> (u64, u64) {
        let age = |entry: &Entry| now.saturating_sub(entry.at);
        let from = self
            .entries
            .partition_point(|entry| age(entry) >= window + transit);
        let sure = self.entries.partition_point(|entry| age(entry) >= window);
        let young = self.entries.partition_point(|entry| age(entry) >= transit);
        let sum = |from: usize, to: usize| -> u64 {
            let part = self.entries.range(from..to.max(from));
            part.map(|entry| entry.amount).sum()
        };
        let certain = sum(sure, young);
        let mut nearest = certain;
        let mut left = certain;
        for first in (from..=sure).rev() {
            if first < sure {
                left += self.entries[first].amount;
            }
            let mut all = left;
            for last in young.max(sure)..=self.entries.len() {
                if last > young.max(sure) {
                    all += self.entries[last - 1].amount;
                }
                if all.abs_diff(target) < nearest.abs_diff(target) {
                    nearest = all;
                }
            }
        }
        (certain, nearest)
    }

    /// Takes up to `amount` back from a live entry; returns how much it took.
    pub(crate) fn take_back(&mut self, seq: Seq, amount: u64) -> u64 {
        let Some(entry) = self.live(seq) else {
            return 0;
        };
        let taken = entry.amount.min(amount);
        entry.amount -= taken;
        self.sum -= taken;
        if seq >= self.inner {
            self.inner_sum -= taken;
        }
        taken
    }

    fn live(&mut self, seq: Seq) -> Option<&mut Entry> {
        let index = usize::try_from(seq.checked_sub(self.first)?).ok()?;
        self.entries.get_mut(index)
    }

    /// Forgets what was spent `span` ago or earlier.
    pub(crate) fn expire(&mut self, now: Duration, span: Duration) {
        while let Some(oldest) = self.entries.front() {
            if oldest.at + span > now {
                break;
            }
            self.sum -= oldest.amount;
            if self.inner <= self.first {
                self.inner_sum -= oldest.amount;
            }
            self.entries.pop_front();
            self.first += 1;
        }
        self.inner = self.inner.max(self.first);
    }

    /// Moves the inner window on. Call after [`Log::expire`].
    pub(crate) fn expire_inner(&mut self, now: Duration, span: Duration) {
        while let Some(entry) = self.entries.get(self.inner_index()) {
            if entry.at + span > now {
                break;
            }
            self.inner_sum -= entry.amount;
            self.inner += 1;
        }
    }

    /// Tokens of the inner window.
    pub(crate) fn inner_sum(&self) -> u64 {
        self.inner_sum
    }

    /// When `amount` of the inner window will be free.
    pub(crate) fn inner_free_at(&self, amount: u64, span: Duration) -> Option<Duration> {
        let mut freed = 0;
        self.entries.range(self.inner_index()..).find_map(|entry| {
            freed += entry.amount;
            (freed >= amount).then(|| entry.at + span)
        })
    }

    /// Tokens of the inner window that will have left it by `at`.
    pub(crate) fn inner_freed_by(&self, at: Duration, span: Duration) -> u64 {
        let entries = self.entries.range(self.inner_index()..);
        let gone = entries.take_while(|entry| entry.at + span <= at);
        gone.map(|entry| entry.amount).sum()
    }

    fn inner_index(&self) -> usize {
        usize::try_from(self.inner.saturating_sub(self.first))
            .unwrap_or(usize::MAX)
            .min(self.entries.len())
    }

    /// Tokens that will have been freed by `at`.
    pub(crate) fn freed_by(&self, at: Duration, span: Duration) -> u64 {
        let gone = self
            .entries
            .iter()
            .take_while(|entry| entry.at + span <= at);
        gone.map(|entry| entry.amount).sum()
    }

    /// When `amount` of what is spent now will be free; `None` if more is asked than is spent.
    pub(crate) fn free_at(&self, amount: u64, span: Duration) -> Option<Duration> {
        let mut freed = 0;
        self.entries.iter().find_map(|entry| {
            freed += entry.amount;
            (freed >= amount).then(|| entry.at + span)
        })
    }

    /// The same with fewer entries: what was spent within so much time is one, with the latest stamp. Its entries have
    /// other numbers.
    pub(crate) fn coarse(&self, grain: Duration) -> Self {
        let mut coarse = Self::default();
        let mut begun = Duration::ZERO;
        for entry in &self.entries {
            match coarse.entries.back_mut() {
                Some(last) if entry.at < begun + grain => {
                    last.at = entry.at;
                    last.amount += entry.amount;
                }
                _ => {
                    begun = entry.at;
                    coarse.entries.push_back(*entry);
                }
            }
        }
        coarse.sum = self.sum;
        coarse.inner_sum = self.sum;
        coarse
    }

    /// Stamps and amounts, oldest first.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (Duration, u64)> {
        self.entries.iter().map(|entry| (entry.at, entry.amount))
    }
}

/// Looks ahead along one log for a queue: how much room will have come by when, if every hold in flight is spent and
/// what is admitted fills the limit again and again.
pub(crate) struct Outlook<'a> {
    entries: std::collections::vec_deque::Iter<'a, Entry>,
    now: Duration,
    span: Duration,
    cap: u64,
    held: u64,
    /// Room at `now`; what is used or held above the limit is `debt` instead.
    room: u64,
    debt: u64,
    freed: u64,
    at: Duration,
}

impl<'a> Outlook<'a> {
    pub(crate) fn new(log: &'a Log, held: u64, cap: u64, now: Duration, span: Duration) -> Self {
        let taken = log.sum + held;
        Self {
            entries: log.entries.iter(),
            now,
            span,
            cap: cap.max(1),
            held,
            room: cap.saturating_sub(taken),
            debt: taken.saturating_sub(cap),
            freed: 0,
            at: now,
        }
    }

    /// Tokens missing now for a total demand.
    pub(crate) fn missing(&self, demand: u64) -> u64 {
        if demand == 0 {
            return 0;
        }
        (demand + self.debt).saturating_sub(self.room)
    }

    /// When a total demand fits. Demands must not fall from call to call.
    pub(crate) fn at(&mut self, demand: u64) -> Duration {
        let missing = self.missing(demand);
        while self.freed < missing {
            let Some(entry) = self.entries.next() else {
                return self.beyond(missing - self.freed);
            };
            self.freed += entry.amount;
            self.at = entry.at + self.span;
        }
        self.at.max(self.now)
    }

    /// After the log is empty: the holds come free one window from now, then one limit in each further window.
    fn beyond(&self, rest: u64) -> Duration {
        let start = self.now + self.span;
        let further = rest.saturating_sub(self.held);
        let nanos = self.span.as_nanos() * u128::from(further) / u128::from(self.cap);
        start + Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX / 4))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPAN: Duration = Duration::from_mins(1);

    fn secs(s: u64) -> Duration {
        Duration::from_secs(s)
    }

    #[test]
    fn an_entry_counts_for_exactly_one_span() {
        let mut log = Log::default();
        log.push(secs(1), 10);
        log.push(secs(2), 5);
        log.expire(Duration::from_millis(60_999), SPAN);
        assert_eq!(log.sum(), 15);
        log.expire(secs(61), SPAN);
        assert_eq!(log.sum(), 5);
    }

    #[test]
    fn corrections_reach_live_entries_only() {
        let mut log = Log::default();
        let old = log.push(secs(1), 10);
        let new = log.push(secs(5), 10);
        assert_eq!(log.correct(new, 30), Some((secs(5), 10)));
        assert_eq!(log.sum(), 40);
        log.expire(secs(61), SPAN);
        assert_eq!(log.correct(old, 1000), None);
        assert_eq!(log.sum(), 30);
        assert_eq!(log.take_back(new, 50), 30);
        assert_eq!(log.take_back(old, 50), 0);
        assert_eq!(log.sum(), 0);
    }

    #[test]
    fn the_inner_window_is_a_part_of_the_log() {
        let ten = secs(10);
        let mut log = Log::default();
        let old = log.push(secs(1), 10);
        let new = log.push(secs(8), 20);
        log.expire_inner(secs(11), ten);
        assert_eq!((log.sum(), log.inner_sum()), (30, 20));
        assert_eq!(log.inner_free_at(20, ten), Some(secs(18)));
        assert_eq!(log.inner_free_at(21, ten), None);
        log.correct(old, 15);
        log.correct(new, 25);
        assert_eq!((log.sum(), log.inner_sum()), (40, 25));
        assert_eq!(log.take_back(new, 5), 5);
        assert_eq!(log.inner_sum(), 20);
        log.expire(secs(100), SPAN);
        log.expire_inner(secs(100), ten);
        assert_eq!((log.sum(), log.inner_sum()), (0, 0));
        // A log whose inner window was never moved loses its entries all the same.
        log.push(secs(101), 7);
        log.expire(secs(161), SPAN);
        assert_eq!(log.inner_sum(), 0);
    }

    #[test]
    fn a_coarse_log_counts_the_same_a_little_longer() {
        let mut log = Log::default();
        for millis in 0..100 {
            log.push(Duration::from_millis(millis * 100), 1);
        }
        log.expire_inner(secs(19), secs(10));
        let mut coarse = log.coarse(secs(1));
        assert_eq!((coarse.entries.len(), coarse.sum()), (10, 100));
        coarse.expire(Duration::from_millis(60_900), SPAN);
        assert_eq!(coarse.sum(), 90);
        coarse.expire_inner(secs(19), secs(10));
        assert_eq!(coarse.inner_sum(), 10);
    }

    #[test]
    fn another_account_may_be_behind() {
        let mut log = Log::default();
        let quarter = Duration::from_millis(250);
        for (millis, amount) in [(0, 5), (100, 7), (300, 100), (50_000, 20), (60_200, 30)] {
            log.push(Duration::from_millis(millis), amount);
        }
        let at = |target: u64, millis: u64| {
            log.beside(target, Duration::from_millis(millis), SPAN, quarter)
        };
        // Five and seven are leaving, thirty is arriving.
        for (target, expected) in [
            (0, 120),
            (125, 127),
            (131, 132),
            (149, 150),
            (158, 157),
            (999, 162),
        ] {
            assert_eq!(at(target, 60_210), (120, expected), "{target}");
        }
        assert_eq!(at(0, 60_600), (50, 50));
        assert_eq!(at(0, 130_000), (0, 0));
        assert_eq!(Log::default().beside(9, SPAN, SPAN, quarter), (0, 0));
    }

    #[test]
    fn room_is_foretold() {
        let mut log = Log::default();
        log.push(secs(1), 40);
        log.push(secs(11), 40);
        assert_eq!(log.free_at(40, SPAN), Some(secs(61)));
        assert_eq!(log.free_at(41, SPAN), Some(secs(71)));
        assert_eq!(log.free_at(81, SPAN), None);

        let mut ahead = Outlook::new(&log, 10, 100, secs(20), SPAN);
        for (demand, expected) in [
            (10, 20),
            (11, 61),
            (50, 61),
            (90, 71),
            (100, 80),
            (200, 140),
        ] {
            assert_eq!(ahead.at(demand), secs(expected), "demand {demand}");
        }
    }
}
