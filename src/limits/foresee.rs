//! When each waiting request will go: the limiter itself, run ahead.
//!
//! A copy of the limiter is fed with what will probably happen: running answers stream at their speed to an expected
//! length, conversations ask again as they usually do, and time passes. So the prediction follows every rule of the
//! queue without knowing one of them. What is drawn is drawn from what was seen, by the request's own number, so
//! that asking twice gives one answer; of several runs with different draws the median is told.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, HashMap};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use chrono::TimeDelta;

use crate::limits::habits::{Away, Return};
use crate::limits::limiter::{Decision, Ending, Id, Limiter, Moment};
use crate::limits::reserve::Bounds;
use crate::usage::Tokens;

/// Windows that are looked ahead.
const FAR: u32 = 10;
/// Events of one run; what is later than they reach is not foreseen.
const MANY: usize = 20_000;
/// Streams are looked at once in this part of a window at first, later more and more rarely.
const STEPS: u32 = 100;
/// Speed of a stream while none was seen, tokens per thousand seconds.
const SPEED: u64 = 50_000;

/// An answer that runs.
#[derive(Clone, Copy, Debug)]
struct Course {
    /// All of its output, and how much of it was told.
    output: u64,
    told: u64,
    begins: Duration,
    ends: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Stream(Id),
    Return(usize),
}

/// One run ahead.
struct Dream {
    limiter: Limiter,
    salt: u64,
    start: Moment,
    events: BinaryHeap<Reverse<(Duration, u64, Event)>>,
    number: u64,
    courses: HashMap<Id, Course>,
    /// Conversations that return, with their pools and the manner.
    guests: Vec<(Arc<str>, Arc<str>, Away, Return)>,
    manners: HashMap<Arc<str>, Vec<Return>>,
    sought: BTreeSet<Id>,
    found: HashMap<Id, Duration>,
}

impl Limiter {
    /// When each waiting request will probably be admitted. Those that are too far away are missing. Costs milliseconds;
    /// it does not change the limiter.
    pub fn foresee(&self, now: Moment, runs: Range<u64>) -> HashMap<Id, Duration> {
        let mut all: HashMap<Id, Vec<Duration>> = HashMap::new();
        for salt in runs {
            for (id, at) in Dream::new(self.clone(), now, salt).run() {
                all.entry(id).or_default().push(at);
            }
        }
        let medians = all.into_iter().filter_map(|(id, mut times)| {
            times.sort_unstable();
            Some((id, *times.get(times.len() / 2)?))
        });
        medians.collect()
    }
}

impl Dream {
    fn new(mut limiter: Limiter, now: Moment, salt: u64) -> Self {
        limiter.deadlines.clear();
        limiter.options.capacity = usize::MAX;
        limiter.decisions.clear();
        let manners = limiter
            .pools
            .iter()
            .map(|(name, pool)| (Arc::clone(name), pool.habits.returns()))
            .collect();
        Self {
            sought: limiter.queued.keys().copied().collect(),
            limiter,
            salt,
            start: now,
            events: BinaryHeap::new(),
            number: 0,
            courses: HashMap::new(),
            guests: Vec::new(),
            manners,
            found: HashMap::new(),
        }
    }

    fn run(mut self) -> HashMap<Id, Duration> {
        let mut flying: Vec<Id> = self.limiter.flights.keys().copied().collect();
        flying.sort_unstable();
        for id in flying {
            self.set_out(id, self.start.at);
        }
        let away: Vec<_> = self
            .limiter
            .pools
            .iter()
            .flat_map(|(name, pool)| {
                let name = Arc::clone(name);
                let all = pool.habits.away().into_iter();
                all.map(move |(session, away)| (Arc::clone(&name), session, away))
            })
            .collect();
        for (pool, session, away) in away {
            self.leave(pool, session, away, self.start.at);
        }
        let horizon = self.start.at + self.limiter.options.window * FAR;
        let mut now = self.start.at;
        for _ in 0..MANY {
            if self.sought.is_empty() {
                break;
            }
            let due = self.events.peek().map(|Reverse((at, ..))| *at);
            let wake = self.limiter.next_wake(self.moment(now));
            let wake = wake.map(|at| at.max(now + Duration::from_millis(1)));
            let Some(at) = due.into_iter().chain(wake).min() else {
                break;
            };
            if at > horizon {
                break;
            }
            now = at;
            match self.events.peek() {
                Some(&Reverse((at, _, event))) if at <= now => {
                    self.events.pop();
                    self.happen(event, now);
                }
                _ => {
                    let moment = self.moment(now);
                    self.limiter.tick(moment);
                }
            }
            self.admitted(now);
        }
        self.found
    }

    fn moment(&self, at: Duration) -> Moment {
        let ahead = TimeDelta::from_std(at.saturating_sub(self.start.at)).unwrap_or_default();
        Moment {
            at,
            wall: self.start.wall + ahead,
        }
    }

    fn at(&mut self, at: Duration, event: Event) {
        self.number += 1;
        self.events.push(Reverse((at, self.number, event)));
    }

    fn admitted(&mut self, now: Duration) {
        let moment = self.moment(now);
        loop {
            let decisions = self.limiter.decisions();
            if decisions.is_empty() {
                return;
            }
            for decision in decisions {
                if let Decision::Admit(id) = decision {
                    if self.sought.remove(&id) {
                        self.found.insert(id, now);
                    }
                    self.limiter.sent(id, moment);
                    self.set_out(id, now);
                }
            }
        }
    }

    /// Foresees the answer to an admitted request.
    fn set_out(&mut self, id: Id, now: Duration) {
        let Some(flight) = self.limiter.flights.get(&id) else {
            return;
        };
        let Some(pool) = self.limiter.pools.get(&flight.pool) else {
            return;
        };
        let bounds = Bounds {
            fixed: None,
            max_tokens: flight.max_tokens,
            cap: u64::MAX,
        };
        let chance = chance(id, self.salt);
        let output = pool
            .outputs
            .draw(flight.class, flight.estimate[2], flight.streamed, bounds, chance);
        let speed = flight
            .speed(flight.streamed, now)
            .unwrap_or(if pool.speed > 0 { pool.speed } else { SPEED })
            .max(1000);
        let first = pool.habits.first().unwrap_or(pool.span / 60);
        let begins = flight.began.map_or_else(
            || (flight.admitted + first).max(now),
            |(at, _)| at.max(now),
        );
        let rest = output - flight.streamed.min(output);
        let ends = begins + Duration::from_millis(rest.saturating_mul(1_000_000) / speed);
        let course = Course {
            output,
            told: flight.streamed,
            begins,
            ends,
        };
        self.courses.insert(id, course);
        let next = (begins + self.step(now)).min(ends);
        self.at(next, Event::Stream(id));
    }

    /// Time between two looks at a stream.
    fn step(&self, now: Duration) -> Duration {
        self.limiter.options.window / STEPS + now.saturating_sub(self.start.at) / 16
    }

    /// Foresees how a conversation returns.
    fn leave(&mut self, pool: Arc<str>, session: Arc<str>, away: Away, now: Duration) {
        let manners = self.manners.get(&pool).map_or(&[][..], Vec::as_slice);
        let absent = now.saturating_sub(away.since);
        let passed = manners.partition_point(|one| one.after.is_some_and(|after| after <= absent));
        let left = &manners[passed..];
        if left.is_empty() {
            return;
        }
        let index = chance(self.guests.len() as u64, self.salt ^ 0xa5a5) % left.len() as u64;
        let Some(manner) = usize::try_from(index).ok().and_then(|index| left.get(index)) else {
            return;
        };
        if let Some(after) = manner.after {
            let at = away.since + after;
            let guest = self.guests.len();
            self.guests.push((pool, session, away, *manner));
            self.at(at, Event::Return(guest));
        }
    }

    fn happen(&mut self, event: Event, now: Duration) {
        let moment = self.moment(now);
        match event {
            Event::Return(guest) => {
                if let Some((pool, session, away, manner)) = self.guests.get(guest) {
                    let mut ask = manner.of(pool, Arc::clone(session), away);
                    if let Some(pool) = self.limiter.pools.get(pool) {
                        ask.budgeted = pool.budgeted;
                    }
                    self.limiter.arrive(ask, moment);
                }
            }
            Event::Stream(id) => {
                let Some(course) = self.courses.get_mut(&id) else {
                    return;
                };
                if now >= course.ends {
                    let output = course.output;
                    self.courses.remove(&id);
                    self.end(id, output, moment);
                    return;
                }
                let (all, gone) = (course.ends - course.begins, now.saturating_sub(course.begins));
                let rest = course.output - course.told;
                // In thousandths of the time that is left.
                let share = gone.as_millis() * 1000 / all.as_millis().max(1);
                let more = rest * u64::try_from(share).unwrap_or(1000).min(1000) / 1000;
                course.told += more;
                course.begins = now;
                let ends = course.ends;
                if more > 0 {
                    self.limiter.streamed(id, more, moment);
                }
                let next = (now + self.step(now)).min(ends);
                self.at(next, Event::Stream(id));
            }
        }
    }

    fn end(&mut self, id: Id, output: u64, moment: Moment) {
        let Some(flight) = self.limiter.flights.get(&id) else {
            return;
        };
        let (pool, session) = (Arc::clone(&flight.pool), Arc::clone(&flight.session));
        let tokens = Tokens {
            generated: output,
            ..flight.taken(0)
        };
        self.limiter.end(id, Ending::Settled(tokens), moment);
        let away = self
            .limiter
            .pools
            .get(&pool)
            .and_then(|pool| pool.habits.of(&session));
        if let Some(away) = away {
            self.leave(pool, session, away, moment.at);
        }
    }
}

/// A number that looks like chance and is always the same.
fn chance(id: u64, salt: u64) -> u64 {
    let mut mixed = (id ^ salt.wrapping_mul(0xD1B5_4A32_D192_ED03)).wrapping_add(0x9E37_79B9_7F4A_7C15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}
