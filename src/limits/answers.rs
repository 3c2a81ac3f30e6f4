//! What the upstream's answers say about a pool: what it counts, and what a 429 was about.
//!
//! The upstream tells what is left of each budget. That corrects our own account at once, both ways: what it counts
//! beyond ours is taken off the limit, and what it has counted needs no doubt about estimates any more. A 429 is read
//! the same way. Where the headers show which budget is short, we now count what the upstream counts, and next to
//! nothing is cut; where they show room in all, too much came at once, and bursts are bounded; only what nothing explains
//! lowers the ratio.

use std::time::Duration;

use crate::limits::charging::Counts;
use crate::limits::foreign::Foreign;
use crate::limits::margin::{COUNTED, Caution, UNEXPLAINED};
use crate::limits::options::{HeaderUnit, Options};
use crate::limits::pool::Pool;
use crate::limits::window::Seq;
use crate::usage::Observation;

/// Part of a window in which a request that was sent surely reaches the upstream's account: a quarter of a second of a
/// minute.
const TRANSIT: u32 = 240;

/// Time for which what an answer told still explains a refusal: its headers are read before its text.
const FRESH: Duration = Duration::from_secs(1);

/// What a 429 was about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// Our own account was overdrawn.
    Explained,
    /// The upstream says that this budget is used up, and from now on we count what it counts.
    Counted(usize),
    /// It says that all budgets have room: too much came at once.
    Burst,
    /// It says nothing.
    Unknown,
}

/// A request that the upstream refused.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Refused {
    /// What it was expected to cost.
    pub(crate) need: [u64; 3],
    /// What the prompt cache was expected to hold of it.
    pub(crate) cached: u64,
}

impl Pool {
    /// Tokens of each budget that the upstream counts beyond our account. Outputs are counted by their bytes while they
    /// stream, so that small differences say nothing.
    pub(crate) fn uncounted(&self, limits: &[u64; 3], window: Duration, now: Duration) -> [u64; 3] {
        std::array::from_fn(|d| {
            let more = self.foreign[d].tokens(limits[d], window, now);
            let more = if d == 2 {
                Foreign::told(more, limits[d])
            } else {
                more
            };
            // What the user keeps us from using is theirs anyway.
            let spare = self.learned.limits()[d].map_or(0, |whole| whole - limits[d].min(whole));
            more.saturating_sub(spare)
        })
    }

    /// Room for what estimates may be wrong by, in what no answer told of yet.
    pub(crate) fn doubt(&self, window: Duration, now: Duration) -> [u64; 3] {
        if self.margin.is_fixed() {
            return [0; 3];
        }
        std::array::from_fn(|d| {
            if d == 2 {
                return 0;
            }
            let (estimates, hoped, requests) = match self.foreign[d].knows_until(window, now) {
                Some(until) => {
                    let untold = self.untold.iter().rev();
                    let untold = untold.take_while(|sent| sent.at + window / TRANSIT > until);
                    untold.fold((self.held[d], self.hoped_held, 0), |sum, sent| {
                        (sum.0 + sent.estimate[d], sum.1 + sent.hoped, sum.2 + 1)
                    })
                }
                None => (self.flying[d], self.hoped, self.in_flight as u64),
            };
            self.bias[d].allowance(estimates, requests) + if d == 1 { hoped } else { 0 }
        })
    }

    /// Learns from the headers of an answer.
    pub(crate) fn observe(&mut self, seen: &Observation, options: &Options, now: Duration) {
        let spent = std::array::from_fn(|d| self.logs[d].sum());
        if self.learned.observe(seen, options, spent, now) {
            // Nobody else spent what only a wrong unit made of our own use.
            self.foreign = Default::default();
            self.charging = Default::default();
        }
        let limits = seen.limits.into_array();
        let left = seen.remaining.into_array();
        let believed = self.limits(options);
        let mut told = [None; 3];
        let transit = options.window / TRANSIT;
        for d in 0..3 {
            let (Some(limit), Some(left)) = (limits[d], left[d]) else {
                continue;
            };
            let (limit, left) = (
                self.learned.per_window(limit),
                self.learned.per_window(left),
            );
            // Who holds another limit holds another account.
            if limit < believed[d] / 100 * 95 {
                continue;
            }
            told[d] = Some(left);
            let ended = self.ended[d].sum();
            let own = self.logs[d].sum();
            let counted = limit.saturating_sub(left);
            let foreign = &mut self.foreign[d];
            // Outputs come in small parts, of which none is worth a guess.
            let transit = if d == 2 { Duration::ZERO } else { transit };
            let (sure, live) =
                self.logs[d].beside(foreign.expected(counted), now, options.window, transit);
            let fuller = if self.at_end[d] && !self.charging[d].flows() {
                live.max(ended + self.overdue[d])
            } else {
                live
            };
            // Of what is in flight the estimate may have been too high.
            foreign.observe(
                limit,
                counted,
                fuller,
                sure.saturating_sub(self.flying[d]),
                now,
            );
            let counts = Counts {
                theirs: counted,
                flowed: own,
                ended,
                all_flowed: self.logs[d].all(),
                all_ended: self.ended[d].all(),
            };
            // What the prompt cache holds of what is in flight would be taken for the one or the other.
            if d != 1 || self.hoped <= limit / 50 {
                self.charging[d].observe(limit, counts);
            }
        }
        self.told = Some((now, told));
        if seen.over_limit {
            self.margin.over_limit(now);
        }
        self.refresh(options, now);
    }

    /// What a request really cost is known.
    pub(crate) fn correct(&mut self, d: usize, seq: Seq, amount: u64) {
        if let Some((at, before)) = self.logs[d].correct(seq, amount) {
            let more = i64::try_from(amount).unwrap_or(i64::MAX)
                - i64::try_from(before).unwrap_or(i64::MAX);
            self.foreign[d].corrected(at + self.span / TRANSIT, more);
        }
    }

    /// The upstream answered 429.
    pub(crate) fn throttled(
        &mut self,
        retry_after: Option<Duration>,
        jitter_ppm: u32,
        refused: &Refused,
        options: &Options,
        now: Duration,
    ) {
        self.hour.throttled(now);
        if self.learned.stray() && retry_after.is_none() {
            self.brake.stray(now);
            return;
        }
        self.brake.refused(retry_after, jitter_ppm, now);
        let limits = self.limits(options);
        let told = self.told.filter(|&(at, _)| now < at + FRESH);
        let told = told.map(|(_, told)| told);
        // What it asked for was not taken.
        let all: [u64; 3] =
            std::array::from_fn(|d| self.logs[d].sum().saturating_sub(refused.need[d]));
        // What the upstream counts beyond our account may have come just now.
        let recent: [u64; 3] = std::array::from_fn(|d| {
            let counted = told.and_then(|told| told[d]);
            let counted = counted.map_or(0, |left| limits[d].saturating_sub(left));
            let recent = self.logs[d].inner_sum().saturating_sub(refused.need[d]);
            recent + counted.saturating_sub(all[d])
        });
        let bursts = (0..3).any(|d| Caution::is_burst(recent[d], limits[d]));
        let verdict = self.verdict(refused, told, bursts);
        let left = match verdict {
            Verdict::Explained | Verdict::Burst => None,
            Verdict::Counted(_) => Some(COUNTED),
            Verdict::Unknown => Some(UNEXPLAINED),
        };
        self.margin.refused(left, now);
        if let Verdict::Counted(d) = verdict {
            self.foreign[d].confirm();
        }
        if matches!(verdict, Verdict::Burst | Verdict::Unknown) && !self.margin.is_fixed() {
            let recent = (verdict == Verdict::Burst).then_some(&recent);
            self.caution.raise(recent, &limits, now, options.window);
            self.charging = Default::default();
        }
        if verdict != Verdict::Explained
            && options.header_unit == HeaderUnit::Auto
            && self.learned.doubt(all, refused.need)
        {
            self.foreign = Default::default();
        }
        self.refresh(options, now);
    }

    /// What a 429 was about. `bursts`: much came in the last part of the window.
    fn verdict(&self, refused: &Refused, told: Option<[Option<u64>; 3]>, bursts: bool) -> Verdict {
        let Some(told) = told else {
            return if self.is_overdrawn(refused.cached) {
                Verdict::Explained
            } else {
                Verdict::Unknown
            };
        };
        let short = |d: usize, need: u64| told[d].is_some_and(|left| left < need);
        let need = refused.need.map(|need| need + need / 4);
        let own = self.is_overdrawn(0);
        if let Some(d) = (0..3).find(|&d| short(d, if d == 2 { 1 } else { need[d] })) {
            Verdict::Counted(d)
        } else if own || (refused.cached > 0 && short(1, need[1] + refused.cached)) {
            // Or it missed the prompt cache.
            Verdict::Explained
        } else if bursts {
            Verdict::Burst
        } else if self.is_overdrawn(refused.cached) {
            Verdict::Explained
        } else {
            Verdict::Unknown
        }
    }

    /// Some budget is used beyond its cap, or would be without the prompt cache: a 429 is no surprise.
    fn is_overdrawn(&self, hoped: u64) -> bool {
        (0..3).any(|d| {
            let hoped = if d == 1 { hoped } else { 0 };
            self.logs[d].sum() + hoped > self.caps.flow[d]
                || (self.binds_at_end(d)
                    && self.ended[d].sum() + self.overdue[d] > self.caps.end[d])
        })
    }
}
