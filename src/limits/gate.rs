//! The asynchronous handle: waiters, permits and the timer around the pure limiter.
//!
//! One mutex, never held across an await. Each waiter has a oneshot of its own; nobody is woken to look again. A permit
//! whose waiter has just gone away is dropped outside the lock and gives itself back. The timer sleeps until the next
//! instant at which something can change; its task is woken when that instant comes nearer, and finds out by itself when it
//! went away.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, NaiveDate, Utc};
use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use tokio::sync::{Notify, oneshot, watch};
use tokio::time::Instant;

use crate::limits::ask::{Ask, Refusal, RefusalKind, Ticket};
use crate::limits::limiter::{Decision, Ending, Id, Limiter, Moment};
use crate::limits::options::Options;
use crate::limits::saved::Saved;
use crate::limits::snapshot::{Snapshot, Wait};
use crate::usage::{Observation, Tokens};

/// Most that chance lengthens the rest after a 429, parts per million.
const JITTER_PPM: u64 = 500_000;

/// Runs ahead of one prediction. Seven are a little better and cost twice as much.
const RUNS: u64 = 3;

/// Handle to the limiter; clones share one.
#[derive(Clone)]
pub struct Gate {
    shared: Arc<Shared>,
}

struct Shared {
    origin: Instant,
    /// What the limiter's clock shows at `origin`: late enough for stamps of an earlier process.
    start: Duration,
    wall: fn() -> DateTime<Utc>,
    /// Time between two charges of one stream.
    slice: Duration,
    state: Mutex<State>,
    /// Held by who looks ahead.
    ahead: Mutex<()>,
    rearm: Notify,
    changes: watch::Sender<u64>,
}

struct State {
    limiter: Limiter,
    waiters: FxHashMap<Id, oneshot::Sender<Answer>>,
    /// When something can change next.
    wake: Option<Duration>,
    /// What the timer sleeps until: never later than that, often earlier.
    armed: Option<Duration>,
    closed: bool,
    chance: u64,
}

type Answer = Result<Permit, Refusal>;
/// An answer and who waits for it; nobody if the waiter has just gone.
type Delivery = (Option<oneshot::Sender<Answer>>, Answer);

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate").finish_non_exhaustive()
    }
}

impl Gate {
    /// A limiter with these settings; `wall` tells the time of day (`clock::wall`). Spawn [`Gate::drive`] once.
    pub fn new(options: Options, wall: fn() -> DateTime<Utc>) -> Self {
        let origin = Instant::now();
        let start = options.span() * 2;
        let now = Moment {
            at: start,
            wall: wall(),
        };
        let chance = now
            .wall
            .timestamp_nanos_opt()
            .unwrap_or_default()
            .unsigned_abs();
        let shared = Shared {
            origin,
            start,
            wall,
            slice: options.window / 240,
            state: Mutex::new(State {
                limiter: Limiter::new(options, now),
                waiters: FxHashMap::default(),
                wake: None,
                armed: None,
                closed: false,
                chance,
            }),
            ahead: Mutex::new(()),
            rearm: Notify::new(),
            changes: watch::Sender::new(0),
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// Takes over what an earlier process saved. Call it before the first request.
    pub fn restore(&self, saved: Saved) {
        self.shared.act(|limiter, now| limiter.restore(saved, now));
    }

    /// Counts against the day what the ledger counted of others on this local date: at the start what earlier processes
    /// used, and from then on what others use beside this one. Another date is ignored, and a count below the last one.
    pub fn restore_day(&self, date: NaiveDate, others: u64) {
        self.shared
            .act(|limiter, now| limiter.restore_day(date, others, now));
    }

    /// What to write to disk, at most once a second and at the end.
    pub fn saved(&self) -> Saved {
        self.shared.look(Limiter::saved)
    }

    /// Waits until every budget has room. Dropping the future leaves the queue.
    ///
    /// # Errors
    ///
    /// A [`Refusal`] when the wait would outlast the request's patience, when the day's cap is reached, when the
    /// queue is full, and after [`Gate::close`].
    pub async fn admit(&self, ask: Ask) -> Result<Permit, Refusal> {
        let (answer, decided) = oneshot::channel();
        let id = self.shared.enter(ask, answer);
        let mut leave = Leave {
            shared: &self.shared,
            id,
            decided: false,
        };
        let answer = decided.await;
        // From here on the permit gives itself back.
        leave.decided = true;
        answer.unwrap_or_else(|_gone| Err(Refusal::new(RefusalKind::ShuttingDown, Duration::ZERO)))
    }

    /// Learns from the headers of an answer, whatever its status.
    pub fn observe(&self, pool: &str, observation: Observation) {
        let pool = Arc::from(pool);
        self.shared
            .act(|limiter, now| limiter.observe(&pool, &observation, now));
    }

    /// The upstream answered 429 for this pool, to the request of this permit: the pool rests, and its ratio may fall.
    /// Call it after the answer's headers were observed. Not for 503 and 529, which say nothing about our budgets.
    pub fn throttled(&self, pool: &str, refused: Option<&Permit>, retry_after: Option<Duration>) {
        let pool = Arc::from(pool);
        let id = refused.map(|permit| permit.id);
        self.shared.act_with_chance(|limiter, now, jitter| {
            limiter.throttled(&pool, id, retry_after, jitter, now);
        });
    }

    /// Whether a request of this pool may be tried again after a failure that says nothing about budgets (503, 529, a
    /// broken connection). Takes one out of the pool's retries if so: they are at most a tenth of its admissions, ten at
    /// once, so that an upstream in trouble does not get a multiple of its load. Without one the failure goes to the client.
    pub fn may_retry(&self, pool: &str) -> bool {
        self.shared.look(|limiter, _| limiter.may_retry(pool))
    }

    /// Everything at this instant. While somebody waits it costs milliseconds of looking ahead, at most once a second.
    pub fn snapshot(&self) -> Snapshot {
        self.shared.look_ahead(|_| true);
        self.shared.look(Limiter::snapshot)
    }

    /// Why the oldest waiting request of a terminal waits; `None` when none waits. As dear as [`Gate::snapshot`] then.
    pub fn wait_of(&self, terminal: &str) -> Option<Wait> {
        self.shared
            .look_ahead(|limiter| limiter.has_waiting(terminal));
        self.shared
            .look(|limiter, now| limiter.wait_of(terminal, now))
    }

    /// Sees a new number whenever something changed.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.shared.changes.subscribe()
    }

    /// Refuses everything that waits and everything that comes; what is in flight ends as it would. Ends
    /// [`Gate::drive`].
    pub fn close(&self) {
        self.shared.state.lock().closed = true;
        self.shared.act(Limiter::close);
        self.shared.rearm.notify_one();
    }

    /// The timer. Spawn it once; it ends after [`Gate::close`].
    pub async fn drive(self) {
        let shared = &self.shared;
        loop {
            let armed = {
                let mut state = shared.state.lock();
                if state.closed {
                    return;
                }
                state.armed = state.wake;
                state.armed
            };
            let sleep = async {
                match armed {
                    Some(at) => tokio::time::sleep_until(shared.instant(at)).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = sleep => shared.act(Limiter::tick),
                () = shared.rearm.notified() => {}
            }
        }
    }
}

impl Shared {
    fn now(&self) -> Moment {
        Moment {
            at: self.elapsed(),
            wall: (self.wall)(),
        }
    }

    fn elapsed(&self) -> Duration {
        self.start + self.origin.elapsed()
    }

    /// The limiter's time as tokio's. A patience without end is looked at once a day.
    fn instant(&self, at: Duration) -> Instant {
        let ahead = at.saturating_sub(self.elapsed());
        Instant::now() + ahead.min(Duration::from_hours(24))
    }

    /// Reads, without consequences.
    fn look<T>(&self, read: impl FnOnce(&mut Limiter, Moment) -> T) -> T {
        let mut state = self.state.lock();
        let now = self.now();
        read(&mut state.limiter, now)
    }

    /// Foresees when requests will go, if somebody waits whom `asked` means and what was foreseen is old. Whoever admits or
    /// settles meanwhile does not wait for it; neither does a second one who asks.
    fn look_ahead(&self, asked: impl FnOnce(&Limiter) -> bool) {
        let Some(_one) = self.ahead.try_lock() else {
            return;
        };
        let copy = self.look(|limiter, now| {
            let wanted = limiter.wants_foresight(now) && asked(limiter);
            wanted.then(|| (limiter.clone(), now))
        });
        if let Some((copy, now)) = copy {
            let times = copy.foresee(now, 0..RUNS);
            self.look(|limiter, _| limiter.foretell(times, now));
        }
    }

    /// Applies an event and delivers what it decided.
    fn act<T>(self: &Arc<Self>, event: impl FnOnce(&mut Limiter, Moment) -> T) -> T {
        self.act_with_chance(|limiter, now, _| event(limiter, now))
    }

    fn act_with_chance<T>(
        self: &Arc<Self>,
        event: impl FnOnce(&mut Limiter, Moment, u32) -> T,
    ) -> T {
        let mut state = self.state.lock();
        let now = self.now();
        let jitter = next_chance(&mut state.chance) % (JITTER_PPM + 1);
        let value = event(
            &mut state.limiter,
            now,
            u32::try_from(jitter).unwrap_or_default(),
        );
        let answers = self.conclude(&mut state, now);
        drop(state);
        self.deliver(answers);
        value
    }

    fn enter(self: &Arc<Self>, ask: Ask, answer: oneshot::Sender<Answer>) -> Id {
        let mut state = self.state.lock();
        let now = self.now();
        let id = state.limiter.arrive(ask, now);
        state.waiters.insert(id, answer);
        let answers = self.conclude(&mut state, now);
        drop(state);
        self.deliver(answers);
        id
    }

    /// Pairs decisions with their waiters and moves the timer, still under the lock.
    fn conclude(self: &Arc<Self>, state: &mut State, now: Moment) -> Vec<Delivery> {
        let mut answers = Vec::new();
        for decision in state.limiter.decisions() {
            let (id, answer) = match decision {
                Decision::Admit(id) => (id, Ok(self.permit(state, id, now))),
                Decision::Refuse(id, refusal) => (id, Err(refusal)),
                Decision::WarnDaily { used, cap } => {
                    tracing::warn!(used, cap, "the day's tokens near the daily limit");
                    continue;
                }
            };
            answers.push((state.waiters.remove(&id), answer));
        }
        state.wake = state.limiter.next_wake(now);
        // A later one is found when the timer fires: waking its task for every request costs more than the request.
        if let Some(wake) = state.wake
            && state.armed.is_none_or(|armed| wake < armed)
        {
            state.armed = state.wake;
            self.rearm.notify_one();
        }
        answers
    }

    fn permit(self: &Arc<Self>, state: &State, id: Id, now: Moment) -> Permit {
        let ticket = state.limiter.ticket(id).unwrap_or(Ticket {
            order: id,
            arrived: now.at,
        });
        Permit {
            shared: Arc::clone(self),
            id,
            ticket,
            ended: false,
            uncharged: 0,
            charged_at: now.at,
        }
    }

    /// Outside the lock, because a permit that nobody takes locks it to give itself back.
    fn deliver(&self, answers: Vec<Delivery>) {
        for (waiter, answer) in answers {
            let unclaimed = match waiter {
                Some(waiter) => waiter.send(answer).err(),
                None => Some(answer),
            };
            drop(unclaimed);
        }
        self.changes.send_if_modified(|count| {
            *count += 1;
            // Waking nobody costs as much as waking somebody.
            self.changes.receiver_count() > 0
        });
    }
}

/// The next number of a splitmix sequence: chance enough to spread retries.
fn next_chance(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}

/// Takes a request out of the queue when its waiter goes away.
struct Leave<'a> {
    shared: &'a Arc<Shared>,
    id: Id,
    decided: bool,
}

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        if self.decided {
            return;
        }
        let mut state = self.shared.state.lock();
        // Without a waiter it is decided, and the answer on its way gives itself back.
        if state.waiters.remove(&self.id).is_none() {
            return;
        }
        let now = self.shared.now();
        state.limiter.cancel(self.id, now);
        let answers = self.shared.conclude(&mut state, now);
        drop(state);
        self.shared.deliver(answers);
    }
}

/// An admission: the reservation in every budget. It ends exactly once, by one of the methods that consume it or, when
/// it is dropped, as a request whose client went away: prompt tokens stay charged if the request was sent, streamed
/// output stays charged, the rest of the hold comes back.
#[must_use = "dropping a permit gives the admission back"]
pub struct Permit {
    shared: Arc<Shared>,
    id: Id,
    ticket: Ticket,
    ended: bool,
    uncharged: u64,
    charged_at: Duration,
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

impl Permit {
    /// The request's last byte went out: prompt tokens are charged from now. More calls change nothing.
    pub fn sent(&mut self) {
        let id = self.id;
        self.shared.act(|limiter, now| limiter.sent(id, now));
    }

    /// Something that can say [`Permit::sent`] from another task, so that the moment is exact and nobody is woken.
    pub fn departure(&self) -> Departure {
        Departure {
            shared: Arc::clone(&self.shared),
            id: self.id,
        }
    }

    /// So many output tokens came, by estimate. Cheap: charges are collected for 250 ms (of a 60 s window).
    pub fn streamed(&mut self, tokens: u64) {
        self.uncharged += tokens;
        let now = self.shared.elapsed();
        if now >= self.charged_at + self.shared.slice {
            self.charged_at = now;
            self.charge();
        }
    }

    fn charge(&mut self) {
        let id = self.id;
        let tokens = std::mem::take(&mut self.uncharged);
        if tokens > 0 {
            self.shared
                .act(|limiter, now| limiter.streamed(id, tokens, now));
        }
    }

    /// The answer ended and told its usage.
    pub fn settle(self, tokens: Tokens) {
        self.end(Ending::Settled(tokens));
    }

    /// The answer ended, or broke, without usage: what was estimated stays charged. Returns what it counts as.
    pub fn unmetered(self) -> Tokens {
        self.end(Ending::Unmetered)
    }

    /// The upstream did not take it (429, other 4xx, no connection): nothing is charged. The ticket keeps its place
    /// for another [`Ask`].
    pub fn refused(self) -> Ticket {
        let ticket = self.ticket;
        self.end(Ending::Refused);
        ticket
    }

    /// The upstream took it and failed: a sent prompt stays charged, as it may have been counted there. The ticket
    /// keeps its place for another [`Ask`]; the tokens are what it counts as, for the ledger.
    pub fn failed(self) -> (Ticket, Tokens) {
        let ticket = self.ticket;
        let spent = self.end(Ending::Cancelled);
        (ticket, spent)
    }

    /// What it would count as if it were dropped now, or failed.
    pub fn spent(&self) -> Tokens {
        let (id, uncharged) = (self.id, self.uncharged);
        self.shared.look(|limiter, _| limiter.spent(id, uncharged))
    }

    fn end(mut self, ending: Ending) -> Tokens {
        self.finish(ending)
    }

    fn finish(&mut self, ending: Ending) -> Tokens {
        self.ended = true;
        if matches!(ending, Ending::Unmetered | Ending::Cancelled) {
            self.charge();
        }
        let id = self.id;
        self.shared.act(|limiter, now| limiter.end(id, ending, now))
    }
}

/// Says that a request's last byte went out. It keeps nothing alive: after the permit ended it says nothing.
pub struct Departure {
    shared: Arc<Shared>,
    id: Id,
}

impl Departure {
    /// The last byte went out now.
    pub fn sent(self) {
        let id = self.id;
        self.shared.act(|limiter, now| limiter.sent(id, now));
    }
}

impl fmt::Debug for Departure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Departure")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if !self.ended {
            self.finish(Ending::Cancelled);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Waker};

    use super::*;

    fn wall() -> DateTime<Utc> {
        DateTime::UNIX_EPOCH
    }

    /// Whether the timer's task was woken since the last look.
    fn woken(gate: &Gate) -> bool {
        let mut notified = pin!(gate.shared.rearm.notified());
        notified
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()))
            .is_ready()
    }

    #[tokio::test(start_paused = true)]
    async fn the_timer_is_woken_only_for_something_nearer() {
        let mut options = Options {
            output_reserve: Some(0),
            ..Options::default()
        };
        options.start.prompt = 1000;
        let gate = Gate::new(options, wall);
        let ask = |prompt: u64, patience| Ask {
            pool: "pool".into(),
            terminal: prompt.to_string().into(),
            prompt,
            patience: Duration::from_secs(patience),
            ..Ask::default()
        };
        let mut running = gate.admit(ask(600, 300)).await.unwrap();
        running.sent();
        gate.admit(ask(1, 300)).await.unwrap().settle(Tokens {
            prompt: 1,
            ..Tokens::default()
        });
        assert!(!woken(&gate), "nothing waits");

        let mut tasks = tokio::task::JoinSet::new();
        let mut start = |ask| {
            let gate = gate.clone();
            tasks.spawn(async move { gate.admit(ask).await.map(drop) })
        };
        start(ask(900, 300));
        tokio::task::yield_now().await;
        assert!(woken(&gate), "somebody waits");
        gate.admit(ask(2, 300)).await.unwrap().settle(Tokens {
            prompt: 2,
            ..Tokens::default()
        });
        assert!(!woken(&gate), "nothing comes nearer");
        let hasty = start(ask(901, 200));
        tokio::task::yield_now().await;
        assert!(!woken(&gate), "a deadline behind the window");
        hasty.abort();
        running.settle(Tokens::default());
        while let Some(ended) = tasks.join_next().await {
            assert!(ended.is_err() || ended.is_ok_and(|answer| answer.is_ok()));
        }
        assert!(!woken(&gate), "nobody is left to wait for");
    }
}
