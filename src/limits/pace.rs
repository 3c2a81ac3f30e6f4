//! Pacing inside the minute: a queue longer than the room is served evenly, not in one burst at the start of a window.
//!
//! With bursts, prompts that miss the cache fill the budget of uncached tokens at once, and short warm requests wait for
//! a window to pass while their caches expire. Paced, each budget is handed out a little faster than it renews, so the
//! rolling windows still decide how much and pacing only when.

use std::time::Duration;

/// Pace in relation to the renewal of the window, percent: less is faster.
const PERCENT: u64 = 93;
/// Part of a window that may be handed out at once.
const SLICES: u32 = 6;

/// When the next tokens of the prompt budgets may go.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pace {
    due: [Duration; 2],
}

impl Pace {
    /// When a request may go that needs something in this budget.
    pub(crate) fn ready_at(&self, d: usize, span: Duration) -> Duration {
        self.due
            .get(d)
            .map_or(Duration::ZERO, |due| due.saturating_sub(span / SLICES))
    }

    /// The same after `tokens` more went at `now`.
    pub(crate) fn ready_after(
        &self,
        d: usize,
        tokens: u64,
        cap: u64,
        now: Duration,
        span: Duration,
    ) -> Duration {
        self.due.get(d).map_or(Duration::ZERO, |due| {
            ((*due).max(now) + time_of(tokens, cap, span)).saturating_sub(span / SLICES)
        })
    }

    /// A request that went out spent nothing.
    pub(crate) fn refund(&mut self, tokens: &[u64; 3], caps: &[u64; 3], span: Duration) {
        for (d, due) in self.due.iter_mut().enumerate() {
            *due = due.saturating_sub(time_of(tokens[d], caps[d], span));
        }
    }

    /// Tokens went out.
    pub(crate) fn spend(
        &mut self,
        tokens: &[u64; 3],
        caps: &[u64; 3],
        now: Duration,
        span: Duration,
    ) {
        for (d, due) in self.due.iter_mut().enumerate() {
            *due = ((*due).max(now) + time_of(tokens[d], caps[d], span)).min(now + span);
        }
    }
}

/// How long so many tokens take at the pace.
pub(crate) fn time_of(tokens: u64, cap: u64, span: Duration) -> Duration {
    let nanos = u128::from(tokens.min(cap)) * span.as_nanos() * u128::from(PERCENT);
    let nanos = nanos / (u128::from(cap.max(1)) * 100);
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sixth_of_the_window_at_once_then_evenly() {
        let span = Duration::from_mins(1);
        let caps = [600, 600, 600];
        let mut pace = Pace::default();
        let start = Duration::from_secs(100);
        let mut now = start;
        let mut spent = 0;
        while now < start + span {
            if pace.ready_at(0, span) <= now {
                let after = pace.ready_after(0, 50, 600, now, span);
                pace.spend(&[50, 0, 0], &caps, now, span);
                assert_eq!(pace.ready_at(0, span), after);
                spent += 50;
            } else {
                now += Duration::from_millis(100);
            }
            // 600 in 55.8 s, and what 10 s are worth, and one more.
            let upto = now.saturating_sub(start).as_millis() * 600 / 55_800 + 108 + 50;
            assert!(spent <= upto, "{spent} of {upto} at {now:?}");
        }
        assert_eq!(spent, 800);
        assert_eq!(pace.ready_at(2, span), Duration::ZERO);
        let before = pace.ready_at(0, span);
        pace.spend(&[50, 0, 0], &caps, now, span);
        pace.refund(&[50, 0, 0], &caps, span);
        assert_eq!(pace.ready_at(0, span), before);
    }
}
