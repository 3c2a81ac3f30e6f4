//! Who is next: a fair queue between terminals, classes inside each.
//!
//! Each terminal has a counter of the service that it got, in shares of the budget that its requests strain most (dominant
//! share), divided by its weight; the terminal with the least is next. Estimates are charged at admission and corrected
//! when the answer ends. Two terminals that always wait thus never differ by more than a few requests, whatever the
//! number of subagents of one of them. A terminal that comes back after a pause starts where the others are, but for a
//! small credit, so that one which waits now and then goes before one that always waits.
//!
//! Inside a terminal what was refused and returns goes first, then what a person typed, then tool loops, then background
//! work; first come, first served inside each; and a class that was passed over four times goes next.
//!
//! Background work leaves room for a terminal that had far less and will be back in a moment: without it, the subagents of
//! one terminal take each token that comes free, and all others wait for the next ones whenever they return.
//!
//! A request whose prompt is in the upstream's cache may go before its turn by what the cache saves, and by twice that
//! when it is about to expire; that is less than one cold request, so it moves the bound of fairness by no more. Whoever
//! has waited eight windows is next.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use rustc_hash::FxHashMap;

use crate::limits::alarms::Alarms;
use crate::limits::ask::Class;

/// Place inside a lane: order of first arrival, then number of the request.
pub(crate) type Place = (u64, u64);

/// One whole limit, in the unit of service.
pub(crate) const WHOLE: i64 = 1_000_000_000;

/// Lanes of a terminal: returned ones, then the classes.
const LANES: usize = 4;
/// Picks that may pass a lane over before it is next.
const PASSES: u8 = 4;
/// Terminals that are looked at for one that may pass the head.
const DEPTH: usize = 64;
/// Half windows after which a request is next, whatever the order.
const LATE: u32 = 16;
/// Service by which it then goes first: far more than any.
pub(crate) const LATE_BONUS: i64 = 1 << 60;
/// Largest costs by which a terminal is far ahead of another.
const FAR_AHEAD: i64 = 3;
/// Requests of the other for which background work then leaves room.
const COURTESY: u64 = 2;
/// Terminals remembered before idle ones are forgotten.
const MANY: usize = 256;

/// A request in the queue.
#[derive(Clone, Debug)]
pub(crate) struct Waiting {
    pub(crate) terminal: Arc<str>,
    pub(crate) session: Arc<str>,
    pub(crate) class: Class,
    pub(crate) weight: u32,
    /// It was admitted before, and the upstream refused it.
    pub(crate) again: bool,
    /// What must be free.
    pub(crate) need: [u64; 3],
    /// What it will probably cost: the same but for the output.
    pub(crate) expected: [u64; 3],
    /// Tokens in the prompt cache, for sure until the first instant, perhaps until the second.
    pub(crate) cached: u64,
    pub(crate) sure: Option<Duration>,
    pub(crate) expires: Option<Duration>,
    pub(crate) max_tokens: Option<u64>,
    pub(crate) arrived: Duration,
    pub(crate) deadline: Duration,
    /// Service that it will be charged with.
    pub(crate) cost: i64,
    /// Service by which it may go before its turn.
    pub(crate) bonus: i64,
}

impl Waiting {
    /// When it is priced anew: before its prompt cache is lost, when it is, and when it has waited long.
    fn clocks(&self, rescue: Duration) -> impl Iterator<Item = Duration> {
        let soon = self.sure.map(|at| at.saturating_sub(rescue));
        let cache = [soon, self.sure, self.expires];
        let late = self.arrived.saturating_add(rescue.saturating_mul(LATE));
        cache.into_iter().flatten().chain([late])
    }

    /// It has waited so long that it is next, whatever the order.
    pub(crate) fn is_late(&self, now: Duration, rescue: Duration) -> bool {
        self.arrived.saturating_add(rescue.saturating_mul(LATE)) <= now
    }
}

/// Where a request stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Spot {
    pub(crate) place: Place,
    tenant: usize,
    lane: usize,
}

/// A terminal.
#[derive(Clone, Debug)]
struct Tenant {
    name: Arc<str>,
    served: i64,
    /// Boxed, because requests are moved in and out of the maps more often than they are made.
    lanes: [BTreeMap<Place, Box<Waiting>>; LANES],
    passed: [u8; LANES],
    /// Its entry in the order; `None` when nothing waits.
    listed: Option<Key>,
    /// Its entry among those for which nothing waits.
    absent: Option<(i64, usize)>,
    flights: u32,
    /// What its last request needed, and when its last answer ended.
    last_need: [u64; 3],
    left: Duration,
}

/// Counter less bonus, first arrival, terminal.
type Key = (i64, Place, usize);

/// The requests that wait in one pool.
#[derive(Clone, Debug, Default)]
pub(crate) struct Queue {
    tenants: Vec<Option<Tenant>>,
    names: FxHashMap<Arc<str>, usize>,
    order: BTreeSet<Key>,
    /// Terminals for which nothing waits, by their counters.
    absent: BTreeSet<(i64, usize)>,
    /// When requests are priced anew.
    clocks: Alarms<Spot>,
    len: usize,
    expected: [u64; 3],
    /// Counter of who was served last: where newcomers start if nobody waits.
    reached: i64,
    /// Largest cost of late, falling slowly.
    largest: i64,
}

impl Queue {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Sum of what will probably be spent by all that wait.
    pub(crate) fn expected(&self) -> [u64; 3] {
        self.expected
    }

    /// No terminal has anything here.
    pub(crate) fn is_idle(&self) -> bool {
        self.is_empty()
            && self
                .tenants
                .iter()
                .flatten()
                .all(|tenant| tenant.flights == 0)
    }

    pub(crate) fn push(&mut self, place: Place, waiting: Waiting, rescue: Duration) -> Spot {
        let index = self.tenant(&waiting.terminal);
        let lane = if waiting.again {
            0
        } else {
            1 + waiting.class as usize
        };
        let spot = Spot {
            tenant: index,
            lane,
            place,
        };
        self.largest = (self.largest - self.largest / 64).max(waiting.cost);
        let floor = self
            .order
            .iter()
            .map(|&(key, ..)| key)
            .find(|&key| key > -LATE_BONUS / 2)
            .unwrap_or(self.reached)
            .saturating_sub(self.largest);
        self.len += 1;
        (0..3).for_each(|d| self.expected[d] += waiting.expected[d]);
        for at in waiting.clocks(rescue) {
            self.clocks.set(at, spot);
        }
        if let Some(tenant) = self.tenants[index].as_mut() {
            if tenant.listed.is_none() {
                tenant.served = tenant.served.max(floor);
            }
            tenant.lanes[lane].insert(place, Box::new(waiting));
        }
        self.list(index);
        spot
    }

    pub(crate) fn get(&self, spot: Spot) -> Option<&Waiting> {
        let tenant = self.tenants.get(spot.tenant)?.as_ref()?;
        tenant.lanes[spot.lane].get(&spot.place).map(Box::as_ref)
    }

    pub(crate) fn remove(&mut self, spot: Spot) -> Option<Box<Waiting>> {
        let waiting = self.take(spot)?;
        self.list(spot.tenant);
        Some(waiting)
    }

    /// Takes a request out; the terminal must be listed anew.
    fn take(&mut self, spot: Spot) -> Option<Box<Waiting>> {
        let tenant = self.tenants.get_mut(spot.tenant)?.as_mut()?;
        let waiting = tenant.lanes[spot.lane].remove(&spot.place)?;
        self.len -= 1;
        (0..3).for_each(|d| self.expected[d] -= waiting.expected[d]);
        Some(waiting)
    }

    /// Takes a request out to be served, and charges its terminal with its cost.
    pub(crate) fn serve(&mut self, spot: Spot) -> Option<Box<Waiting>> {
        let waiting = self.take(spot)?;
        let tenant = self.tenants.get_mut(spot.tenant)?.as_mut()?;
        for lane in 0..LANES {
            let passed = lane > spot.lane && !tenant.lanes[lane].is_empty();
            tenant.passed[lane] = if passed {
                tenant.passed[lane].saturating_add(1)
            } else {
                0
            };
        }
        self.reached = self.reached.max(tenant.served);
        tenant.served = tenant.served.saturating_add(waiting.cost);
        tenant.flights += 1;
        tenant.last_need = waiting.need;
        self.list(spot.tenant);
        Some(waiting)
    }

    /// A served request ended; its cost is corrected by `more`.
    pub(crate) fn settle(&mut self, spot: Spot, more: i64, now: Duration) {
        if let Some(Some(tenant)) = self.tenants.get_mut(spot.tenant) {
            tenant.flights = tenant.flights.saturating_sub(1);
            tenant.served = tenant.served.saturating_add(more);
            tenant.left = now;
            self.list(spot.tenant);
        }
    }

    /// Room that background work leaves to another terminal: one that had far less, and that is being answered or was
    /// within `recent`.
    pub(crate) fn courtesy(&self, spot: Spot, now: Duration, recent: Duration) -> [u64; 3] {
        let Some(Some(tenant)) = self.tenants.get(spot.tenant) else {
            return [0; 3];
        };
        let far = tenant.served - self.largest.saturating_mul(FAR_AHEAD);
        let others = self.absent.iter().take_while(|(served, _)| *served < far);
        others
            .take(DEPTH)
            .filter_map(|&(_, index)| self.tenants[index].as_ref())
            .find(|other| other.flights > 0 || other.left + recent > now)
            .map_or([0; 3], |other| other.last_need.map(|need| need * COURTESY))
    }

    /// The requests that may be next, in order: of each terminal the first of its next lane, then of its others. Of more than
    /// 64 terminals that wait the later ones do not pass the head: a look at all would cost more than it brings.
    pub(crate) fn candidates(&self) -> impl Iterator<Item = (Spot, &Waiting)> {
        self.order.iter().take(DEPTH).flat_map(|&(.., index)| {
            self.tenants[index]
                .iter()
                .flat_map(move |tenant| tenant.fronts(index))
        })
    }

    /// Every request in the order in which it will probably be served, with the service that goes before it.
    pub(crate) fn all(&self) -> Vec<(i64, Spot, &Waiting)> {
        let mut all = Vec::with_capacity(self.len);
        for (index, tenant) in self.tenants.iter().enumerate() {
            let Some(tenant) = tenant else { continue };
            let (mut before, mut last) = (tenant.served, i64::MIN);
            let lanes = tenant.next_lane().into_iter();
            for (lane, queue) in lanes.flat_map(|next| tenant.lanes_from(next)) {
                for (&place, waiting) in queue {
                    let spot = Spot {
                        tenant: index,
                        lane,
                        place,
                    };
                    // A bonus moves the terminal, not the order inside it.
                    last = before
                        .saturating_sub(waiting.bonus)
                        .max(last.saturating_add(1));
                    all.push((last, spot, waiting.as_ref()));
                    before = before.saturating_add(waiting.cost);
                }
            }
        }
        all.sort_by_key(|&(before, spot, _)| (before, spot.place));
        all
    }

    /// The request of a terminal that came first.
    pub(crate) fn oldest_of(&self, terminal: &str) -> Option<Spot> {
        let &tenant = self.names.get(terminal)?;
        let fronts = self.tenants[tenant].as_ref()?.fronts(tenant);
        fronts.map(|(spot, _)| spot).min_by_key(|spot| spot.place)
    }

    /// When the next request is priced anew.
    pub(crate) fn next_clock(&mut self) -> Option<Duration> {
        let tenants = &self.tenants;
        self.clocks.next(self.len, |spot| {
            let tenant = tenants.get(spot.tenant).and_then(Option::as_ref);
            tenant.is_some_and(|tenant| tenant.lanes[spot.lane].contains_key(&spot.place))
        })
    }

    /// Prices requests anew whose time came.
    pub(crate) fn advance(&mut self, now: Duration, mut change: impl FnMut(&mut Waiting)) -> bool {
        let mut any = false;
        while let Some(spot) = self.clocks.due(now) {
            let Some(Some(tenant)) = self.tenants.get_mut(spot.tenant) else {
                continue;
            };
            if let Some(waiting) = tenant.lanes[spot.lane].get_mut(&spot.place) {
                any = true;
                (0..3).for_each(|d| self.expected[d] -= waiting.expected[d]);
                change(waiting);
                (0..3).for_each(|d| self.expected[d] += waiting.expected[d]);
                self.list(spot.tenant);
            }
        }
        any
    }

    fn tenant(&mut self, name: &Arc<str>) -> usize {
        if let Some(&index) = self.names.get(name) {
            return index;
        }
        if self.names.len() >= MANY {
            self.forget();
        }
        let tenant = Some(Tenant {
            name: Arc::clone(name),
            served: 0,
            lanes: Default::default(),
            passed: [0; LANES],
            listed: None,
            absent: None,
            flights: 0,
            last_need: [0; 3],
            left: Duration::ZERO,
        });
        let index = match self.tenants.iter().position(Option::is_none) {
            Some(free) if self.names.len() < self.tenants.len() => {
                self.tenants[free] = tenant;
                free
            }
            _ => {
                self.tenants.push(tenant);
                self.tenants.len() - 1
            }
        };
        self.names.insert(Arc::clone(name), index);
        index
    }

    /// Forgets terminals that have nothing here; one that returns starts where the others are.
    fn forget(&mut self) {
        for (index, slot) in self.tenants.iter_mut().enumerate() {
            if let Some(tenant) = slot
                && tenant.flights == 0
                && tenant.listed.is_none()
            {
                self.names.remove(&tenant.name);
                self.absent
                    .extract_if(.., |&(_, other)| other == index)
                    .count();
                *slot = None;
            }
        }
    }

    /// Puts a terminal where it belongs in the order.
    fn list(&mut self, index: usize) {
        let Some(Some(tenant)) = self.tenants.get_mut(index) else {
            return;
        };
        let idle = tenant.next_lane().is_none();
        let absent = idle.then_some((tenant.served, index));
        if absent != tenant.absent {
            if let Some(old) = std::mem::replace(&mut tenant.absent, absent) {
                self.absent.remove(&old);
            }
            self.absent.extend(absent);
        }
        let key = tenant.fronts(index).next().map(|(spot, waiting)| {
            (
                tenant.served.saturating_sub(waiting.bonus),
                spot.place,
                index,
            )
        });
        if key == tenant.listed {
            return;
        }
        if let Some(old) = std::mem::replace(&mut tenant.listed, key) {
            self.order.remove(&old);
        }
        if let Some(key) = key {
            self.order.insert(key);
        }
    }
}

impl Tenant {
    /// The lane whose turn it is.
    fn next_lane(&self) -> Option<usize> {
        let due = (0..LANES)
            .rev()
            .find(|&lane| self.passed[lane] >= PASSES && !self.lanes[lane].is_empty());
        let due = due.filter(|_| self.lanes[0].is_empty());
        due.or_else(|| (0..LANES).find(|&lane| !self.lanes[lane].is_empty()))
    }

    /// The lanes, beginning with that one.
    fn lanes_from(
        &self,
        next: usize,
    ) -> impl Iterator<Item = (usize, &BTreeMap<Place, Box<Waiting>>)> {
        std::iter::once(next)
            .chain((0..LANES).filter(move |&lane| lane != next))
            .map(|lane| (lane, &self.lanes[lane]))
    }

    fn fronts(&self, tenant: usize) -> impl Iterator<Item = (Spot, &Waiting)> {
        self.next_lane()
            .into_iter()
            .flat_map(|next| self.lanes_from(next))
            .filter_map(move |(lane, queue)| {
                let (&place, waiting) = queue.first_key_value()?;
                let spot = Spot {
                    place,
                    tenant,
                    lane,
                };
                Some((spot, waiting.as_ref()))
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RESCUE: Duration = Duration::from_secs(30);

    fn waiting(terminal: &str, class: Class, cost: i64) -> Waiting {
        Waiting {
            terminal: terminal.into(),
            session: "".into(),
            class,
            weight: 1,
            again: false,
            need: [1; 3],
            expected: [1; 3],
            cached: 0,
            sure: None,
            expires: None,
            max_tokens: None,
            arrived: Duration::ZERO,
            deadline: Duration::MAX,
            cost,
            bonus: 0,
        }
    }

    fn first(queue: &Queue) -> Spot {
        queue.candidates().next().unwrap().0
    }

    /// Serves until nothing waits; the terminals or classes in the order of service.
    fn drain(mut queue: Queue, what: impl Fn(&Waiting) -> String) -> String {
        let mut order = String::new();
        while !queue.is_empty() {
            let spot = first(&queue);
            order += &what(&queue.serve(spot).unwrap());
        }
        order
    }

    #[test]
    fn terminals_get_equal_service_whatever_the_number_of_their_requests() {
        let mut queue = Queue::default();
        for n in 0..6 {
            queue.push((n, n), waiting("a", Class::Loop, 10), RESCUE);
        }
        for n in 6..8 {
            queue.push((n, n), waiting("b", Class::Loop, 10), RESCUE);
        }
        // Twice as dear: half as often.
        for n in 8..10 {
            queue.push((n, n), waiting("c", Class::Loop, 20), RESCUE);
        }
        assert_eq!(queue.expected(), [10; 3]);
        assert_eq!(drain(queue, |one| one.terminal.to_string()), "abcabacaaa");
    }

    #[test]
    fn classes_go_in_order_and_none_is_passed_over_for_ever() {
        let mut queue = Queue::default();
        for n in 0..8 {
            queue.push((n, n), waiting("a", Class::Background, 1), RESCUE);
            queue.push((n + 100, n + 100), waiting("a", Class::Loop, 1), RESCUE);
        }
        queue.push((200, 200), waiting("a", Class::Interactive, 1), RESCUE);
        let mut returned = waiting("a", Class::Background, 1);
        returned.again = true;
        queue.push((1, 300), returned, RESCUE);
        let name = |one: &Waiting| match one.class {
            Class::Interactive => "i".into(),
            Class::Loop => "l".into(),
            Class::Background => "b".into(),
        };
        assert_eq!(drain(queue, name), "billbllllbllbbbbbb");
    }

    #[test]
    fn a_warm_prompt_goes_first_within_bounds_and_idle_time_earns_little() {
        let mut queue = Queue::default();
        let cold = |n: u64, name: &str, queue: &mut Queue| {
            queue.push((n, n), waiting(name, Class::Loop, 10), RESCUE);
        };
        for n in 0..4 {
            cold(n, "cold", &mut queue);
        }
        let mut warm = waiting("warm", Class::Loop, 2);
        warm.bonus = 8;
        for n in 10..20 {
            queue.push((n, n), warm.clone(), RESCUE);
        }
        let order = drain(queue.clone(), |one| one.terminal[..1].to_owned());
        // Four warm ones before the first cold one, and five before each further one.
        assert_eq!(order, "wwwwcwwwwwcwcc");
        for _ in 0..3 {
            let spot = queue
                .candidates()
                .find(|(_, one)| &*one.terminal == "cold")
                .unwrap()
                .0;
            queue.serve(spot).unwrap();
        }
        cold(30, "late", &mut queue);
        let late = queue
            .all()
            .iter()
            .find(|(.., one)| &*one.terminal == "late")
            .unwrap()
            .0;
        assert!(late >= -20, "{late}");
    }

    #[test]
    fn a_cache_that_expires_changes_the_price_twice() {
        let mut queue = Queue::default();
        let mut warm = waiting("warm", Class::Loop, 2);
        warm.sure = Some(Duration::from_secs(100));
        warm.expires = warm.sure;
        let spot = queue.push((1, 1), warm, RESCUE);
        assert_eq!(queue.next_clock(), Some(Duration::from_secs(70)));
        assert!(queue.advance(Duration::from_secs(70), |one| one.bonus = 5));
        assert!(queue.advance(Duration::from_secs(100), |one| one.expected[1] = 9));
        assert_eq!(queue.expected(), [1, 9, 1]);
        assert_eq!(queue.next_clock(), Some(RESCUE * LATE));
        queue.remove(spot).unwrap();
        assert_eq!(queue.next_clock(), None);
        assert_eq!(queue.expected(), [0; 3]);
        assert!(queue.is_idle());
    }

    #[test]
    fn background_work_leaves_room_for_who_had_far_less_and_comes_back() {
        let mut queue = Queue::default();
        let mut light = waiting("light", Class::Loop, 10);
        light.need = [7; 3];
        let spot = queue.push((0, 0), light, RESCUE);
        queue.serve(spot).unwrap();
        let mut greedy = Vec::new();
        for n in 1..9 {
            greedy.push(queue.push((n, n), waiting("greedy", Class::Background, 10), RESCUE));
        }
        let now = Duration::from_secs(100);
        let ten = Duration::from_secs(10);
        for spot in &greedy[..4] {
            assert_eq!(queue.courtesy(greedy[7], now, ten), [0; 3]);
            queue.serve(*spot).unwrap();
        }
        queue.serve(greedy[4]).unwrap();
        assert_eq!(
            queue.courtesy(greedy[7], now, ten),
            [14; 3],
            "answered still"
        );
        queue.settle(spot, 0, now);
        assert_eq!(queue.courtesy(greedy[7], now, ten), [14; 3], "just now");
        assert_eq!(queue.courtesy(greedy[7], now + ten, ten), [0; 3], "gone");
        queue.push((20, 20), waiting("light", Class::Loop, 10), RESCUE);
        assert_eq!(
            queue.courtesy(greedy[7], now, ten),
            [0; 3],
            "it waits itself"
        );
    }

    #[test]
    fn idle_terminals_are_forgotten() {
        let mut queue = Queue::default();
        for n in 0..10_000_u64 {
            let spot = queue.push((n, n), waiting(&format!("t{n}"), Class::Loop, 1), RESCUE);
            queue.serve(spot).unwrap();
            queue.settle(spot, 0, Duration::ZERO);
        }
        assert!(queue.names.len() <= MANY && queue.tenants.len() <= MANY);
    }
}
