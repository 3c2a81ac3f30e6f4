//! The token budgets of one pool, as its gateways see them: a pure core that takes `now`.
//!
//! A pool is one model of the account. Each of its three budgets has one limit, which follows use by Fireworks' published
//! rule, and one rolling window per gateway. A gateway counts its own charges at once and those of the others after
//! a delay, so that no gateway ever knows the exact sum: this is what live `remaining` headers show.
//!
//! Times are simulated seconds since the start and never go back. The rule looks at whole windows: its minute is the
//! window, also a shorter one.

use std::collections::VecDeque;

use super::options::Admission;
use super::options::Options;
use crate::usage::Dimensions;

/// One of the three budgets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Metric {
    Prompt,
    Uncached,
    Generated,
}

impl Metric {
    pub(super) const ALL: [Self; 3] = [Self::Prompt, Self::Uncached, Self::Generated];

    pub(super) fn of<T>(self, values: &Dimensions<T>) -> &T {
        match self {
            Self::Prompt => &values.prompt,
            Self::Uncached => &values.uncached,
            Self::Generated => &values.generated,
        }
    }

    fn of_mut<T>(self, values: &mut Dimensions<T>) -> &mut T {
        match self {
            Self::Prompt => &mut values.prompt,
            Self::Uncached => &mut values.uncached,
            Self::Generated => &mut values.generated,
        }
    }
}

fn by_metric<T>(mut make: impl FnMut(Metric) -> T) -> Dimensions<T> {
    Dimensions {
        prompt: make(Metric::Prompt),
        uncached: make(Metric::Uncached),
        generated: make(Metric::Generated),
    }
}

/// What happened within the last `window` seconds; an entry counts from its own instant until just before it is
/// `window` old, or until the window of the clock ends in which it fell. The part older than `delay` is summed apart,
/// for those who see it late.
#[derive(Debug)]
pub(super) struct Rolling {
    window: f64,
    fixed: bool,
    delay: f64,
    entries: VecDeque<(f64, u64)>,
    sum: u64,
    mirrored: usize,
    mirrored_sum: u64,
}

impl Rolling {
    pub(super) fn new(window: f64, delay: f64) -> Self {
        Self {
            window,
            fixed: false,
            delay,
            entries: VecDeque::new(),
            sum: 0,
            mirrored: 0,
            mirrored_sum: 0,
        }
    }

    /// The same in windows of the clock.
    fn fixed(window: f64, delay: f64) -> Self {
        Self {
            fixed: true,
            ..Self::new(window, delay)
        }
    }

    pub(super) fn add(&mut self, now: f64, amount: u64) {
        self.entries.push_back((now, amount));
        self.sum += amount;
    }

    /// The sum as seen at once.
    pub(super) fn sum(&mut self, now: f64) -> u64 {
        self.advance(now);
        self.sum
    }

    /// The sum as seen from elsewhere.
    fn late_sum(&mut self, now: f64) -> u64 {
        self.advance(now);
        self.mirrored_sum
    }

    fn advance(&mut self, now: f64) {
        let (window, fixed) = (self.window, self.fixed);
        let begin = (now / window).floor() * window;
        let gone = |at: f64| {
            if fixed {
                at < begin
            } else {
                now - at >= window
            }
        };
        while let Some((_, amount)) = self.entries.pop_front_if(|(at, _)| gone(*at)) {
            self.sum -= amount;
            if self.mirrored > 0 {
                self.mirrored -= 1;
                self.mirrored_sum -= amount;
            }
        }
        while let Some((at, amount)) = self.entries.get(self.mirrored)
            && now - at >= self.delay
        {
            self.mirrored += 1;
            self.mirrored_sum += amount;
        }
    }
}

/// What a pool's budgets obey, in simulated seconds.
#[derive(Clone, Debug)]
pub(super) struct Rules {
    window: f64,
    delay: f64,
    start: Dimensions<u64>,
    grown: Dimensions<u64>,
    ceiling: Dimensions<u64>,
    adaptive: bool,
    rise_every: f64,
    others: f64,
    fixed: bool,
    gateways: usize,
    stale_gateway: bool,
    admission: Admission,
    burst: Option<f64>,
}

/// A burst window admits this many times its share of the limit.
const BURST_SHARE: f64 = 1.5;

impl Rules {
    pub(super) fn new(options: &Options) -> Self {
        Self {
            window: options.window.as_secs_f64(),
            delay: options.mirror_delay.as_secs_f64(),
            start: options.start,
            grown: options.grown.unwrap_or(options.start),
            ceiling: options.ceiling,
            adaptive: options.adaptive,
            rise_every: options.rise_every.as_secs_f64(),
            others: options.others.max(0.0),
            fixed: options.fixed_windows,
            gateways: options.gateways.max(1),
            stale_gateway: options.stale_gateway,
            admission: options.admission,
            burst: options.burst_window.map(|window| window.as_secs_f64()),
        }
    }
}

/// What a gateway believes at one instant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct View {
    pub(super) limits: Dimensions<u64>,
    pub(super) used: Dimensions<u64>,
    /// The gateway has seen an answer end within the window; only then does it report all three budgets.
    pub(super) completions: bool,
}

#[derive(Debug)]
struct Gateway {
    windows: Dimensions<Rolling>,
    bursts: Option<Dimensions<Rolling>>,
    last_completion: f64,
}

/// One pool.
#[derive(Debug)]
pub(super) struct Pool {
    rules: Rules,
    gateways: Vec<Gateway>,
    limits: Dimensions<Adaptive>,
    next_tick: f64,
    last_traffic: f64,
    /// When the other machine spends next, and how often it did.
    others_at: f64,
    others_turn: usize,
}

/// Seconds between two requests of another machine.
const OTHERS_EVERY: f64 = 1.0;

/// Windows without traffic after which the limits fall back to their start (Fireworks docs: 72 h).
const IDLE_RESET: f64 = 72.0 * 60.0;

impl Pool {
    pub(super) fn new(rules: Rules, now: f64) -> Self {
        let gateway = || Gateway {
            windows: by_metric(|_| {
                if rules.fixed {
                    Rolling::fixed(rules.window, rules.delay)
                } else {
                    Rolling::new(rules.window, rules.delay)
                }
            }),
            bursts: rules
                .burst
                .map(|window| by_metric(|_| Rolling::new(window, rules.delay))),
            last_completion: f64::NEG_INFINITY,
        };
        Self {
            gateways: (0..rules.gateways).map(|_| gateway()).collect(),
            limits: by_metric(|metric| Adaptive::new(*metric.of(&rules.grown), now)),
            next_tick: now + rules.window,
            last_traffic: now,
            others_at: now,
            others_turn: 0,
            rules,
        }
    }

    /// What `gateway` believes now.
    pub(super) fn view(&mut self, now: f64, gateway: usize) -> View {
        self.advance(now);
        View {
            limits: by_metric(|metric| self.limit(metric, gateway)),
            used: by_metric(|metric| {
                seen(&mut self.gateways, gateway, now, |from| {
                    metric.of_mut(&mut from.windows)
                })
            }),
            completions: self
                .gateways
                .get(gateway)
                .is_some_and(|own| now - own.last_completion < self.rules.window),
        }
    }

    /// Admits or refuses a request that needs `need`, and says what the gateway believed before it. Nothing is charged.
    pub(super) fn admit(
        &mut self,
        now: f64,
        gateway: usize,
        need: Dimensions<u64>,
    ) -> (View, Option<Metric>) {
        let view = self.view(now, gateway);
        let full = |used: u64, need: u64, limit: u64| match self.rules.admission {
            Admission::Used => used >= limit,
            Admission::Need => used + need > limit,
            Admission::Both => used >= limit || used + need > limit,
        };
        let mut refused = Metric::ALL
            .into_iter()
            .find(|m| full(*m.of(&view.used), *m.of(&need), *m.of(&view.limits)));
        if let (None, Some(burst)) = (refused, self.rules.burst) {
            refused = Metric::ALL.into_iter().find(|metric| {
                let share = share(
                    *metric.of(&view.limits),
                    burst / self.rules.window * BURST_SHARE,
                );
                let used = seen(&mut self.gateways, gateway, now, |from| {
                    // Gateways have burst windows exactly when the rules do.
                    metric.of_mut(from.bursts.as_mut().unwrap_or(&mut from.windows))
                });
                used >= share
            });
        }
        (view, refused)
    }

    /// Books tokens on a gateway.
    pub(super) fn charge(&mut self, now: f64, gateway: usize, tokens: Dimensions<u64>) {
        self.advance(now);
        self.book(now, gateway, tokens);
    }

    fn book(&mut self, now: f64, gateway: usize, tokens: Dimensions<u64>) {
        self.last_traffic = now;
        let Some(own) = self.gateways.get_mut(gateway) else {
            return;
        };
        for metric in Metric::ALL {
            let amount = *metric.of(&tokens);
            if amount == 0 {
                continue;
            }
            metric.of_mut(&mut own.windows).add(now, amount);
            if let Some(bursts) = &mut own.bursts {
                metric.of_mut(bursts).add(now, amount);
            }
            metric.of_mut(&mut self.limits).minute += amount;
        }
    }

    /// An answer that the gateway passed on has ended.
    pub(super) fn completed(&mut self, now: f64, gateway: usize) {
        if let Some(own) = self.gateways.get_mut(gateway) {
            own.last_completion = now;
        }
    }

    fn limit(&self, metric: Metric, gateway: usize) -> u64 {
        if self.rules.stale_gateway && gateway == 0 && metric == Metric::Generated {
            self.rules.start.generated
        } else {
            metric.of(&self.limits).limit
        }
    }

    fn advance(&mut self, now: f64) {
        self.let_others_spend(now);
        self.adapt(now);
    }

    /// Another machine sends a request each second, to one gateway after the other.
    fn let_others_spend(&mut self, now: f64) {
        if self.rules.others <= 0.0 {
            return;
        }
        while self.others_at <= now {
            let part = self.rules.others * OTHERS_EVERY / self.rules.window;
            let tokens = by_metric(|metric| share(metric.of(&self.limits).limit, part));
            self.book(self.others_at, self.others_turn, tokens);
            self.others_turn = (self.others_turn + 1) % self.gateways.len();
            self.others_at += OTHERS_EVERY;
        }
    }

    fn adapt(&mut self, now: f64) {
        if !self.rules.adaptive {
            return;
        }
        let minute = self.rules.window;
        if now - self.last_traffic > IDLE_RESET * minute {
            self.limits = by_metric(|metric| Adaptive::new(*metric.of(&self.rules.start), now));
            self.next_tick = now + minute;
            self.last_traffic = now;
        }
        while self.next_tick <= now {
            for metric in Metric::ALL {
                let bounds = (
                    *metric.of(&self.rules.start),
                    *metric.of(&self.rules.ceiling),
                );
                metric.of_mut(&mut self.limits).tick(
                    self.next_tick,
                    minute,
                    self.rules.rise_every,
                    bounds,
                );
            }
            self.next_tick += minute;
        }
    }
}

/// Sum of a gateway's own charges and of what it has heard of the others'.
fn seen(
    gateways: &mut [Gateway],
    own: usize,
    now: f64,
    pick: impl Fn(&mut Gateway) -> &mut Rolling,
) -> u64 {
    gateways
        .iter_mut()
        .enumerate()
        .map(|(index, gateway)| {
            let log = pick(gateway);
            if index == own {
                log.sum(now)
            } else {
                log.late_sum(now)
            }
        })
        .sum()
}

/// A limit that follows use.
#[derive(Debug)]
struct Adaptive {
    limit: u64,
    born: f64,
    last_up: f64,
    last_change: f64,
    /// Charged since the last tick.
    minute: u64,
    /// Charges of past minutes, three days of them.
    past: VecDeque<u64>,
}

const DAY: f64 = 24.0 * 60.0;
const QUARTER_MINUTES: usize = 15;
const PAST_MINUTES: usize = 3 * 24 * 60;

impl Adaptive {
    fn new(limit: u64, now: f64) -> Self {
        Self {
            limit,
            born: now,
            last_up: f64::NEG_INFINITY,
            last_change: f64::NEG_INFINITY,
            minute: 0,
            past: VecDeque::new(),
        }
    }

    /// One minute has passed. Up: the last minute above half the limit, at most once per `rise_every`, by a quarter. Down: the
    /// busiest 15 min of three days below a third, at most daily, by a fifth, unless the last minute would be half of
    /// the lowered limit (Fireworks docs).
    fn tick(&mut self, now: f64, minute: f64, rise_every: f64, (floor, ceiling): (u64, u64)) {
        let recent = std::mem::take(&mut self.minute);
        self.past.push_back(recent);
        if self.past.len() > PAST_MINUTES {
            self.past.pop_front();
        }
        let raised = self.limit.saturating_mul(5).div_ceil(4).min(ceiling);
        let lowered = (self.limit / 5 * 4 + self.limit % 5 * 4 / 5).max(floor);
        if recent > self.limit / 2 && now - self.last_up >= rise_every && raised > self.limit {
            self.limit = raised;
            self.last_up = now;
            self.last_change = now;
        } else if lowered < self.limit
            && now - self.born >= 3.0 * DAY * minute
            && now - self.last_change >= DAY * minute
            && recent < lowered / 2
            && self.busiest_quarter().saturating_mul(100) < self.limit.saturating_mul(33)
        {
            self.limit = lowered;
            self.last_change = now;
        }
    }

    /// The highest use of any 15 minutes on record, per minute.
    fn busiest_quarter(&self) -> u64 {
        let mut sum = 0;
        let mut highest = 0;
        for (index, amount) in self.past.iter().enumerate() {
            sum += amount;
            if let Some(left) = index.checked_sub(QUARTER_MINUTES) {
                sum -= self.past.get(left).copied().unwrap_or(0);
            }
            highest = highest.max(sum);
        }
        highest / QUARTER_MINUTES as u64
    }
}

/// `part` of `whole`, rounded down.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "shares of token counts need no more than 53 bits, and both factors are positive"
)]
fn share(whole: u64, part: f64) -> u64 {
    (whole as f64 * part) as u64
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn all(n: u64) -> Dimensions<u64> {
        by_metric(|_| n)
    }

    fn pool(change: impl FnOnce(&mut Options)) -> Pool {
        let mut options = Options {
            start: all(1000),
            ceiling: all(10_000),
            ..Options::default()
        };
        change(&mut options);
        Pool::new(Rules::new(&options), 0.0)
    }

    fn prompt(n: u64) -> Dimensions<u64> {
        Dimensions {
            prompt: n,
            ..Dimensions::default()
        }
    }

    #[test]
    fn a_charge_leaves_the_window_exactly_when_it_is_one_window_old() {
        let mut log = Rolling::new(60.0, 2.0);
        log.add(10.0, 5);
        log.add(20.0, 7);
        let mut check =
            |now, own, late| assert_eq!((log.sum(now), log.late_sum(now)), (own, late), "at {now}");
        check(20.0, 12, 5);
        check(21.9, 12, 5);
        check(22.0, 12, 12);
        check(69.9, 12, 12);
        check(70.0, 7, 7);
        check(80.0, 0, 0);
    }

    #[test]
    fn an_entry_that_expires_before_anybody_saw_it_is_forgotten() {
        let mut log = Rolling::new(1.0, 2.0);
        log.add(0.0, 5);
        assert_eq!((log.sum(0.5), log.late_sum(0.5)), (5, 0));
        assert_eq!((log.sum(3.0), log.late_sum(3.0)), (0, 0));
    }

    #[test]
    fn the_other_gateways_hear_of_a_charge_late() {
        let mut pool = pool(|o| o.gateways = 2);
        pool.charge(0.0, 0, prompt(600));
        assert_eq!(pool.view(0.0, 0).used, prompt(600));
        assert_eq!(pool.view(1.9, 1).used, prompt(0));
        assert_eq!(pool.view(2.0, 1).used, prompt(600));
    }

    #[test]
    fn admission_rules_differ_at_the_edge() {
        let check = |admission, used, need, expected| {
            let mut pool = pool(|o| o.admission = admission);
            pool.charge(0.0, 0, prompt(used));
            let (view, refused) = pool.admit(0.0, 0, prompt(need));
            assert_eq!(refused, expected, "{admission} {used}+{need}");
            assert_eq!(view.used.prompt, used);
        };
        let full = Some(Metric::Prompt);
        check(Admission::Used, 999, 500, None);
        check(Admission::Used, 1000, 0, full);
        check(Admission::Need, 999, 1, None);
        check(Admission::Need, 999, 2, full);
        check(Admission::Need, 1000, 0, None);
        check(Admission::Both, 1000, 0, full);
        check(Admission::Both, 500, 501, full);
        check(Admission::Both, 500, 500, None);
    }

    #[test]
    fn each_budget_refuses_for_itself() {
        let mut pool = pool(|_| ());
        pool.charge(
            0.0,
            0,
            Dimensions {
                prompt: 10,
                uncached: 10,
                generated: 1000,
            },
        );
        assert_eq!(pool.admit(1.0, 0, all(0)).1, Some(Metric::Generated));
        assert_eq!(pool.admit(60.0, 0, all(0)).1, None);
    }

    #[test]
    fn a_burst_window_refuses_what_the_minute_would_admit() {
        let mut pool = pool(|o| o.burst_window = Some(Duration::from_secs(10)));
        pool.charge(0.0, 0, prompt(250));
        assert_eq!(pool.admit(9.0, 0, prompt(1)).1, Some(Metric::Prompt));
        assert_eq!(pool.admit(10.0, 0, prompt(1)).1, None);
    }

    #[test]
    fn only_a_gateway_that_saw_an_answer_end_reports_everything() {
        let mut pool = pool(|o| o.gateways = 2);
        pool.completed(5.0, 1);
        assert!(!pool.view(6.0, 0).completions);
        assert!(pool.view(6.0, 1).completions);
        assert!(!pool.view(65.0, 1).completions);
    }

    #[test]
    fn a_busy_limit_grows_by_a_quarter_every_fifteen_minutes_up_to_the_ceiling() {
        let mut pool = pool(|o| o.ceiling = all(1900));
        let mut seen = Vec::new();
        for minute in 0..50 {
            let now = f64::from(minute) * 60.0;
            let limit = pool.view(now, 0).limits.prompt;
            if seen.last().is_none_or(|(_, last)| *last != limit) {
                seen.push((minute, limit));
            }
            pool.charge(now, 0, prompt(limit / 2 + 1));
        }
        assert_eq!(seen, [(0, 1000), (1, 1250), (16, 1563), (31, 1900)]);
        assert_eq!(
            pool.view(3000.0, 0).limits.generated,
            1000,
            "budgets move alone"
        );
    }

    #[test]
    fn half_the_limit_is_not_enough_to_grow() {
        let mut pool = pool(|_| ());
        pool.charge(0.0, 0, prompt(500));
        assert_eq!(pool.view(60.0, 0).limits.prompt, 1000);
    }

    /// The worked example of Fireworks' page: 10 M limit, 1 M of steady traffic, days 3 to 8.
    #[test]
    fn a_quiet_limit_falls_by_a_fifth_a_day_after_three_days() {
        let mut pool = pool(|o| {
            o.start = all(2_000_000);
            o.ceiling = all(20_000_000);
        });
        pool.limits.prompt.limit = 10_000_000;
        let mut days = Vec::new();
        for minute in 0..=10 * 24 * 60 {
            let now = f64::from(minute) * 60.0;
            pool.charge(now, 0, prompt(1_000_000));
            if minute % (24 * 60) == 1 {
                days.push(pool.view(now, 0).limits.prompt / 1000);
            }
        }
        assert_eq!(
            days,
            [
                10_000, 10_000, 10_000, 8000, 6400, 5120, 4096, 3276, 2621, 2621
            ]
        );
    }

    #[test]
    fn three_idle_days_bring_the_start_back() {
        let mut pool = pool(|_| ());
        pool.limits.prompt.limit = 5000;
        pool.charge(0.0, 0, prompt(900));
        assert_eq!(pool.view(71.0 * 3600.0, 0).limits.prompt, 5000);
        assert_eq!(pool.view(73.0 * 3600.0, 0).limits.prompt, 1000);
    }

    #[test]
    fn windows_of_the_clock_end_all_at_once() {
        let mut pool = pool(|o| o.fixed_windows = true);
        pool.charge(10.0, 0, prompt(400));
        pool.charge(59.0, 0, prompt(400));
        assert_eq!(pool.view(59.9, 0).used, prompt(800));
        assert_eq!(pool.view(60.0, 0).used, prompt(0));
        pool.charge(61.0, 0, prompt(300));
        assert_eq!(pool.view(119.9, 0).used, prompt(300));
        assert_eq!(pool.view(120.0, 0).used, prompt(0));
    }

    #[test]
    fn another_machine_spends_its_share_evenly() {
        let mut pool = pool(|o| {
            o.others = 0.6;
            o.gateways = 2;
            o.adaptive = false;
        });
        // Ten each second, of which the gateway that did not see them itself misses the last two seconds'.
        assert_eq!(pool.view(0.0, 0).used, all(10));
        assert_eq!(pool.view(30.0, 0).used, all(300));
        assert_eq!(pool.view(300.0, 0).used, all(590));
    }

    #[test]
    fn limits_that_had_grown_are_forgotten_when_idle() {
        let mut pool = pool(|o| {
            o.grown = Some(all(6000));
            o.rise_every = Duration::from_mins(2);
        });
        assert_eq!(pool.view(0.0, 0).limits, all(6000));
        for minute in 0..3 {
            pool.charge(f64::from(minute) * 60.0, 0, all(4000));
        }
        assert_eq!(pool.view(180.0, 0).limits, all(9375));
        assert_eq!(pool.view(180.0 + 73.0 * 3600.0, 0).limits, all(1000));
    }

    #[test]
    fn a_stale_gateway_keeps_the_start_for_generated_only() {
        let mut pool = pool(|o| {
            o.gateways = 2;
            o.stale_gateway = true;
        });
        pool.charge(0.0, 1, all(900));
        let stale = pool.view(60.0, 0).limits;
        assert_eq!((stale.prompt, stale.generated), (1250, 1000));
        assert_eq!(pool.view(60.0, 1).limits.generated, 1250);
    }
}
