//! When each waiting request will go: the limiter itself, run ahead.
//!
//! A copy of the limiter is fed with what will probably happen: running answers stream at their speed to an expected
//! length, conversations ask again as they usually do, and time passes. So the prediction follows every rule of the
//! queue without knowing one of them. What is drawn is drawn from what was seen, by the request's own number, so
//! that asking twice gives one answer; of several runs with different draws the median is told.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use chrono::TimeDelta;
use rustc_hash::FxHashMap;

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
    /// All of its output.
    output: u64,
    /// Output that came before it was foreseen, and what was told.
    streamed: u64,
    told: u64,
    begins: Duration,
    ends: Duration,
}

impl Course {
    /// Tokens that stream until then and were not told yet.
    fn until(&self, now: Duration) -> u64 {
        let all = self.ends.saturating_sub(self.begins).as_millis().max(1);
        let gone = now.saturating_sub(self.begins).as_millis().min(all);
        let come = u128::from(self.output - self.streamed) * gone / all;
        let come = self.streamed + u64::try_from(come).unwrap_or_default();
        come.saturating_sub(self.told)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// What streamed since is told, of all answers.
    Streams,
    End(Id),
    Return(usize),
}

/// What was foretold, and when.
#[derive(Clone, Debug, Default)]
pub(crate) struct Foretold {
    made: Duration,
    times: FxHashMap<Id, Duration>,
}

impl Foretold {
    /// When a request will probably go; `None` if that was not foreseen.
    pub(crate) fn of(&self, id: Id) -> Option<Duration> {
        self.times.get(&id).copied()
    }
}

/// One run ahead.
struct Dream {
    limiter: Limiter,
    salt: u64,
    start: Moment,
    events: BinaryHeap<Reverse<(Duration, u64, Event)>>,
    number: u64,
    courses: BTreeMap<Id, Course>,
    /// Conversations that return, with their pools and the manner.
    guests: Vec<(Arc<str>, Arc<str>, Away, Return)>,
    manners: FxHashMap<Arc<str>, Vec<Return>>,
    sought: BTreeSet<Id>,
    found: FxHashMap<Id, Duration>,
}

impl Limiter {
    /// Whether what was foretold is older than a sixtieth of a window, or somebody joined and it is not quite new.
    pub fn wants_foresight(&self, now: Moment) -> bool {
        let age = now.at.saturating_sub(self.foretold.made);
        let joined = || self.queued.keys().any(|id| self.foretold.of(*id).is_none());
        let second = self.options.window / 60;
        !self.queued.is_empty() && (age >= second || (age >= second / 4 && joined()))
    }

    /// From now on requests are told these times.
    pub fn foretell(&mut self, times: FxHashMap<Id, Duration>, now: Moment) {
        self.foretold = Foretold {
            made: now.at,
            times,
        };
    }

    /// When each waiting request will probably be admitted. Those that are too far away are missing. Costs milliseconds;
    /// it does not change the limiter.
    pub fn foresee(&self, now: Moment, runs: Range<u64>) -> FxHashMap<Id, Duration> {
        let mut all: FxHashMap<Id, Vec<Duration>> = FxHashMap::default();
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
        limiter.foretold = Foretold::default();
        // Outputs are logged in many small pieces; nothing foreseen needs to find one of them.
        for pool in limiter.pools.values_mut() {
            pool.logs[2] = pool.logs[2].coarse(limiter.options.window / 240);
        }
        for flight in limiter.flights.values_mut() {
            flight.chunks.clear();
        }
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
            courses: BTreeMap::new(),
            guests: Vec::new(),
            manners,
            found: FxHashMap::default(),
        }
    }

    fn run(mut self) -> FxHashMap<Id, Duration> {
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
        self.at(self.start.at + self.step(self.start.at), Event::Streams);
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
        let output = pool.outputs.draw(
            flight.class,
            flight.estimate[2],
            flight.streamed,
            bounds,
            chance,
        );
        let speed = flight
            .speed(flight.streamed, now)
            .unwrap_or(if pool.speed > 0 { pool.speed } else { SPEED })
            .max(1000);
        let first = pool.habits.first().unwrap_or(pool.span / 60);
        let begins = flight
            .began
            .map_or_else(|| (flight.admitted + first).max(now), |(at, _)| at.max(now));
        let rest = output - flight.streamed.min(output);
        let ends = begins + Duration::from_millis(rest.saturating_mul(1_000_000) / speed);
        let course = Course {
            output: output.max(flight.streamed),
            streamed: flight.streamed,
            told: flight.streamed,
            begins,
            ends,
        };
        self.courses.insert(id, course);
        self.at(ends, Event::End(id));
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
        let Some(manner) = usize::try_from(index)
            .ok()
            .and_then(|index| left.get(index))
        else {
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
            Event::Streams => {
                for (&id, course) in &mut self.courses {
                    let more = course.until(now);
                    if more > 0 {
                        course.told += more;
                        self.limiter.stream(id, more, moment);
                    }
                }
                self.limiter.tick(moment);
                self.at(now + self.step(now), Event::Streams);
            }
            Event::End(id) => {
                if let Some(course) = self.courses.remove(&id) {
                    self.end(id, course.output, moment);
                }
            }
        }
    }

    fn end(&mut self, id: Id, output: u64, moment: Moment) {
        let Some(flight) = self.limiter.flights.get(&id) else {
            return;
        };
        let (pool, session) = (Arc::clone(&flight.pool), Arc::clone(&flight.session));
        let guessed = flight.taken(output);
        // Estimates that were wrong on the whole will be corrected.
        let tokens = self.limiter.pools.get(&pool).map_or(guessed, |pool| {
            let prompt = pool.bias[0].scaled(guessed.prompt);
            let uncached = pool.bias[1].scaled(guessed.uncached());
            Tokens {
                prompt,
                cached: prompt.saturating_sub(uncached),
                ..guessed
            }
        });
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
    let mut mixed =
        (id ^ salt.wrapping_mul(0xD1B5_4A32_D192_ED03)).wrapping_add(0x9E37_79B9_7F4A_7C15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}
