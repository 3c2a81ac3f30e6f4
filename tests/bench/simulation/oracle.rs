//! An oracle: it knows what each request will cost, what the upstream has counted, and which caches are about to die.
//!
//! It keeps the charges of everything that it admitted, past and to come, on a line of quarter seconds, and admits a
//! request when no minute that its charges fall into would overflow. So it is never refused, and it never exploits
//! that the upstream counts late. It comes in several kinds; a table quotes the one with the most turns:
//! by arrival or by least service of the terminal (dominant share), with or without those first whose cached prefix
//! is about to be lost, with or without pacing to a quarter of the minute's budget in ten seconds. It does not choose
//! cheap requests for their cheapness, which would raise its turns and starve long contexts.

use std::collections::HashMap;
use std::time::Duration;

use super::load::{Job, count, whole};
use super::policy::{Move, Policy, Told};
use super::upstream::{Charge, Course, Upstream, Window};
use super::world::CHUNK;

/// Slots of the line, in a second.
const SLOTS: usize = 4;
const SLOT: Duration = Duration::from_millis(250);
/// Slots of a minute, and one more for what is lost by rounding.
const MINUTE: usize = 60 * SLOTS + 1;
/// Slots of the inner window.
const INNER: usize = 10 * SLOTS + 1;
/// Requests that are looked at beyond the first.
const DEPTH: usize = 64;
/// A cache that is lost within this time is worth a rescue.
const RESCUE: Duration = Duration::from_secs(20);
/// Nobody passes a request that has waited this long.
const PATIENCE: Duration = Duration::from_mins(4);

/// How an oracle orders and spreads.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kind {
    pub(crate) name: &'static str,
    fair: bool,
    rescue: bool,
    pace: bool,
}

const fn kind(name: &'static str, fair: bool, rescue: bool, pace: bool) -> Kind {
    Kind {
        name,
        fair,
        rescue,
        pace,
    }
}

/// All kinds.
pub(crate) const KINDS: [Kind; 5] = [
    kind("oracle by arrival", false, false, false),
    kind("oracle by arrival, rescues, paces", false, true, true),
    kind("oracle, fair", true, false, false),
    kind("oracle, fair, rescues", true, true, false),
    kind("oracle, fair, rescues, paces", true, true, true),
];

/// Its state.
#[derive(Debug)]
pub(crate) struct Oracle {
    kind: Kind,
    waiting: Vec<Job>,
    line: [Vec<u64>; 3],
    service: HashMap<usize, f64>,
    /// What the upstream has counted in the minute and in the ten seconds up to a slot.
    door: (usize, [u64; 3], [u64; 3]),
}

impl Oracle {
    pub(crate) fn new(kind: Kind) -> Self {
        Self {
            kind,
            waiting: Vec::new(),
            line: Default::default(),
            service: HashMap::new(),
            door: (usize::MAX, [0; 3], [0; 3]),
        }
    }

    fn enter(&mut self, job: &Job) {
        // Idle time earns nothing.
        if !self.waiting.iter().any(|w| w.terminal == job.terminal) {
            let least = self
                .waiting
                .iter()
                .map(|w| self.service.get(&w.terminal).copied().unwrap_or(0.0))
                .fold(f64::INFINITY, f64::min);
            let own = self.service.entry(job.terminal).or_default();
            if least.is_finite() {
                *own = own.max(least);
            }
        }
        self.waiting.push(job.clone());
    }

    fn sort(&mut self, now: Duration, upstream: &Upstream) {
        let (kind, service) = (self.kind, &self.service);
        let rank = |job: &Job| {
            let late = now >= job.asked + PATIENCE;
            let dying = kind.rescue
                && upstream.cached(job).is_some_and(|(until, tokens)| {
                    until > now && until < now + RESCUE && tokens > 10_000
                });
            let first = if late { 0 } else { u8::from(!dying) + 1 };
            let served = if kind.fair && !late {
                service.get(&job.terminal).copied().unwrap_or(0.0)
            } else {
                0.0
            };
            (first, served, job.asked, job.id)
        };
        self.waiting.sort_by(|a, b| {
            let (a, b) = (rank(a), rank(b));
            a.0.cmp(&b.0)
                .then(a.1.total_cmp(&b.1))
                .then(a.2.cmp(&b.2))
                .then(a.3.cmp(&b.3))
        });
    }

    fn pump(&mut self, now: Duration, upstream: &Upstream, moves: &mut Vec<Move>) {
        self.sort(now, upstream);
        let mut looked = 0;
        let mut index = 0;
        while index < self.waiting.len() && looked <= DEPTH {
            let job = self.waiting[index].clone();
            let at = now + job.way;
            let course = upstream.course(&job, at);
            let need = [job.prompt, job.prompt - course.cached, 0];
            let fitting = self
                .is_open(need, at, upstream)
                .then(|| charges(&job, &course, at, upstream))
                .filter(|charges| self.fits(charges, upstream));
            if let Some(charges) = fitting {
                let job = self.waiting.remove(index);
                let limits = upstream.limits();
                let costs = [job.prompt, job.prompt - course.cached, job.output];
                let share = (0..3).map(|d| count(costs[d]) / count(limits[d]));
                *self.service.entry(job.terminal).or_default() += share.fold(0.0, f64::max);
                self.charge(&charges);
                moves.push(Move::Send(job.id));
                if self.kind.fair {
                    self.sort(now, upstream);
                    index = 0;
                }
            } else {
                if now >= job.asked + PATIENCE {
                    break;
                }
                index += 1;
                looked += 1;
            }
        }
    }

    /// The budgets that this account's terminals have for themselves.
    fn limits(upstream: &Upstream) -> [u64; 3] {
        std::array::from_fn(|d| {
            let full = upstream.limits()[d];
            let elsewhere = upstream
                .foreign(d)
                .max(full * upstream.rules().foreign / 100);
            full.saturating_sub(elsewhere + elsewhere / 20)
        })
    }

    /// At the door the upstream looks at what it has counted so far.
    fn is_open(&mut self, need: [u64; 3], at: Duration, upstream: &Upstream) -> bool {
        let rules = upstream.rules();
        let limits = Self::limits(upstream);
        let begin = slot(at);
        let length = match rules.window {
            Window::Rolling => MINUTE,
            Window::Fixed => begin % (MINUTE - 1) + 1,
        };
        if self.door.0 != begin {
            let sum = |d, length: usize| self.sum(d, (begin + 1).saturating_sub(length), begin);
            self.door = (
                begin,
                std::array::from_fn(|d| sum(d, length)),
                std::array::from_fn(|d| sum(d, INNER)),
            );
        }
        let (_, counted, recent) = self.door;
        let spread = rules.inner || self.kind.pace;
        (0..3).all(|d| {
            let paced = !spread || recent[d] == 0 || recent[d] + need[d] < limits[d] / 4;
            paced && counted[d] < limits[d] && counted[d] + need[d] <= limits[d]
        })
    }

    fn fits(&self, charges: &[(usize, usize, u64)], upstream: &Upstream) -> bool {
        let limits = Self::limits(upstream);
        (0..3).all(|d| {
            let new = charges.iter().filter(|c| c.0 == d);
            let new: Vec<(usize, u64)> = new.map(|c| (c.1, c.2)).collect();
            match upstream.rules().window {
                Window::Rolling => self.rolls(d, &new, limits[d]),
                Window::Fixed => self.stays(d, &new, limits[d]),
            }
        })
    }

    fn sum(&self, d: usize, from: usize, to: usize) -> u64 {
        let line = &self.line[d];
        let end = (to + 1).min(line.len());
        line.get(from.min(end)..end)
            .map_or(0, |part| part.iter().sum())
    }

    /// No minute that holds one of the new charges holds more than `limit`.
    fn rolls(&self, d: usize, new: &[(usize, u64)], limit: u64) -> bool {
        let length = MINUTE;
        let (Some(first), Some(last)) = (new.first(), new.last()) else {
            return true;
        };
        let line = |slot: usize| self.line[d].get(slot).copied().unwrap_or(0);
        let from = first.0;
        let mut sum = from.checked_sub(1).map_or(0, |before| {
            self.sum(d, (from + 1).saturating_sub(length), before)
        });
        let (mut next, mut gone) = (0, 0);
        for end in from..last.0 + length {
            sum += line(end);
            while next < new.len() && new[next].0 == end {
                sum += new[next].1;
                next += 1;
            }
            if end >= length && end > from {
                sum -= line(end - length);
            }
            while gone < new.len() && new[gone].0 + length == end {
                sum -= new[gone].1;
                gone += 1;
            }
            if sum > limit {
                return false;
            }
        }
        true
    }

    /// No minute of the clock overflows.
    fn stays(&self, d: usize, new: &[(usize, u64)], limit: u64) -> bool {
        let length = MINUTE - 1;
        let minutes: Vec<usize> = new.iter().map(|c| c.0 / length).collect();
        minutes.iter().all(|&minute| {
            let begin = minute * length;
            let own: u64 = new
                .iter()
                .filter(|c| c.0 / length == minute)
                .map(|c| c.1)
                .sum();
            self.sum(d, begin, begin + length - 1) + own <= limit
        })
    }

    fn charge(&mut self, charges: &[(usize, usize, u64)]) {
        self.door.0 = usize::MAX;
        for &(d, slot, amount) in charges {
            let line = &mut self.line[d];
            if line.len() <= slot {
                line.resize(slot + 1, 0);
            }
            line[slot] += amount;
        }
    }
}

impl Policy for Oracle {
    fn hear(&mut self, now: Duration, told: Told<'_>, upstream: &Upstream, moves: &mut Vec<Move>) {
        match told {
            // Only a gateway that is wrong about its limits refuses it; another will know better.
            Told::Asked(job) => self.enter(job),
            Told::Denied(job, _) => {
                moves.push(Move::Send(job.id));
                return;
            }
            Told::Ended(..) | Told::Woken => {}
            Told::Begun(..) | Told::Streamed(..) => return,
        }
        self.pump(now, upstream, moves);
    }

    fn wake(&mut self, now: Duration) -> Option<Duration> {
        let slot = u32::try_from(slot(now) + 1).unwrap_or(u32::MAX);
        (!self.waiting.is_empty()).then(|| SLOT * slot + Duration::from_millis(1))
    }
}

fn slot(at: Duration) -> usize {
    usize::try_from(at.as_millis() / SLOT.as_millis()).unwrap_or(usize::MAX)
}

/// Budget, slot and tokens of all that a request will be charged.
fn charges(
    job: &Job,
    course: &Course,
    at: Duration,
    upstream: &Upstream,
) -> Vec<(usize, usize, u64)> {
    let uncached = job.prompt - course.cached;
    let last = slot(at + course.whole);
    let mut all = vec![(0, slot(at), job.prompt)];
    match upstream.rules().charge {
        Charge::AtEnd => all.extend([(1, last, uncached), (2, last, job.output)]),
        Charge::Streaming => {
            all.push((1, slot(at), uncached));
            let mut streamed = 0;
            for step in 1.. {
                let since = CHUNK * step;
                let over = course.first + since >= course.whole;
                let so_far = whole(since.as_secs_f64() * job.pace);
                let so_far = if over {
                    job.output
                } else {
                    so_far.min(job.output)
                };
                let then = if over {
                    last
                } else {
                    slot(at + course.first + since)
                };
                all.push((2, then, so_far - streamed));
                streamed = so_far;
                if over {
                    break;
                }
            }
        }
    }
    all
}
