//! The simulation: one queue of events in simulated time, from which agents, a policy and the upstream are told.
//!
//! Same seed, same run: events at one instant keep the order in which they were made, and each generator of random
//! numbers has one user.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use fastrand::Rng;
use kimiq::limits::Budget;
use kimiq::usage::Observation;

use super::load::{Agent, Job, Shape, count, whole};
use super::policy::{Client, Move, Policy, Told};
use super::score::{BUDGETS, Backlog, Score, jain};
use super::upstream::{Course, Rules, Upstream};

/// How often the tokens of a stream are looked at.
pub(crate) const CHUNK: Duration = Duration::from_millis(600);
/// Time between two looks at the queue, in the mean.
const LOOK: Duration = Duration::from_secs(15);
/// A refusal comes back this fast; measured 0.10 to 0.26 s.
const REFUSAL: (u64, u64) = (100, 260);

/// What to simulate.
#[derive(Clone, Debug)]
pub(crate) struct Scene {
    pub(crate) rules: Rules,
    pub(crate) client: Client,
    /// For each terminal the shape of its work and the number of its agents; all after the first are subagents.
    pub(crate) terminals: Vec<(Shape, usize)>,
    pub(crate) length: Duration,
    /// Someone looks, now and then, how long requests will wait.
    pub(crate) watched: bool,
}

impl Scene {
    pub(crate) fn new(shape: Shape, terminals: usize, minutes: u64) -> Self {
        Self {
            rules: Rules::default(),
            client: Client::KimiCode,
            terminals: vec![(shape, 1); terminals],
            length: Duration::from_secs(minutes * 60),
            watched: false,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// The agent's next request.
    Ask(usize),
    /// A client tries again.
    Retry(usize),
    /// The request reaches the upstream.
    Offer(usize),
    /// Its 429 comes back.
    Denied(usize),
    Begun(usize),
    Chunk(usize),
    Ended(usize),
    /// Someone looks how long all that wait will wait still.
    Look,
    Foreign,
    Minute,
    Wake,
}

/// What became of a request.
#[derive(Debug)]
struct Fate {
    job: Job,
    tries: u32,
    waiting: bool,
    course: Option<Course>,
    admitted: Duration,
    streamed: u64,
    headers: Observation,
    eta: Option<Duration>,
    later: Vec<(Duration, Duration)>,
}

struct World<'a> {
    scene: &'a Scene,
    now: Duration,
    number: u64,
    events: BinaryHeap<Reverse<(Duration, u64, Event)>>,
    agents: Vec<Agent>,
    fates: Vec<Fate>,
    upstream: Upstream,
    policy: &'a mut dyn Policy,
    wake: Option<Duration>,
    rng: Rng,
    /// Who looks when.
    eyes: Rng,
    score: Score,
    backlog: Vec<Backlog>,
    service: Vec<f64>,
    turns: Vec<f64>,
    prompt: u64,
    cached: u64,
}

/// Runs one scene under one policy.
pub(crate) fn run(scene: &Scene, seed: u64, policy: &mut dyn Policy) -> Score {
    let agents: Vec<Agent> = scene
        .terminals
        .iter()
        .enumerate()
        .flat_map(|(terminal, &(shape, agents))| {
            (0..agents).map(move |agent| (terminal, agent, shape))
        })
        .enumerate()
        .map(|(number, (terminal, agent, shape))| {
            Agent::new(seed, number, terminal, agent > 0, shape)
        })
        .collect();
    let terminals = scene.terminals.len();
    let mut world = World {
        scene,
        now: Duration::ZERO,
        number: 0,
        events: BinaryHeap::new(),
        agents,
        fates: Vec::new(),
        upstream: Upstream::new(scene.rules),
        policy,
        wake: None,
        rng: Rng::with_seed(seed ^ 0x5eed),
        eyes: Rng::with_seed(seed ^ 0xe7e5),
        score: Score::default(),
        backlog: vec![Backlog::default(); terminals],
        service: vec![0.0; terminals],
        turns: vec![0.0; terminals],
        prompt: 0,
        cached: 0,
    };
    world.begin();
    while let Some(Reverse((at, _, event))) = world.events.pop() {
        if at >= scene.length {
            break;
        }
        world.now = at;
        world.happen(event);
    }
    world.finish()
}

impl World<'_> {
    fn begin(&mut self) {
        for agent in 0..self.agents.len() {
            let first = self.agents[agent].first();
            self.after(first, Event::Ask(agent));
        }
        self.after(Duration::from_mins(1), Event::Minute);
        if self.scene.watched {
            self.after(LOOK, Event::Look);
        }
        if self.scene.rules.foreign > 0 {
            self.after(Duration::ZERO, Event::Foreign);
        }
    }

    fn after(&mut self, pause: Duration, event: Event) {
        self.number += 1;
        let entry = (self.now + pause, self.number, event);
        self.events.push(Reverse(entry));
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Ask(agent) => self.ask(agent),
            Event::Retry(job) => self.tell(job, Event::Retry(job)),
            Event::Offer(job) => self.offer(job),
            Event::Denied(job) => self.tell(job, event),
            Event::Begun(job) => self.begun(job),
            Event::Chunk(job) => self.chunk(job),
            Event::Ended(job) => self.ended(job),
            Event::Look => self.look(),
            Event::Foreign => self.foreign(),
            Event::Minute => {
                self.upstream.minute(self.now);
                self.after(Duration::from_mins(1), Event::Minute);
            }
            Event::Wake => {
                if self.wake == Some(self.now) {
                    self.wake = None;
                    let mut moves = Vec::new();
                    self.policy
                        .hear(self.now, Told::Woken, &self.upstream, &mut moves);
                    self.obey(moves);
                }
            }
        }
    }

    fn ask(&mut self, agent: usize) {
        let id = self.fates.len();
        let job = self.agents[agent].next(id, agent, self.now, self.scene.rules.kept);
        self.backlog[job.terminal].enter(self.now);
        self.fates.push(Fate {
            job,
            tries: 1,
            waiting: true,
            course: None,
            admitted: Duration::ZERO,
            streamed: 0,
            headers: Observation::default(),
            eta: None,
            later: Vec::new(),
        });
        self.tell(id, Event::Retry(id));
        if self.fates[id].waiting
            && let Some(budget) = self.policy.why(id, self.now)
        {
            self.score.waited_for[slot(budget)] += 1.0;
            if self.scene.watched && self.eyes.u32(..4) == 0 {
                let all = self.policy.foresee(self.now);
                let own = all.into_iter().find(|&(job, _)| job == id);
                self.fates[id].eta = own.map(|(_, [eta, _])| eta);
            }
        }
    }

    /// At some moment someone looks at everything that waits.
    fn look(&mut self) {
        for (job, [eta, again]) in self.policy.foresee(self.now) {
            self.fates[job].later.push((self.now, eta));
            let pair = [eta, again].map(|time| time.as_secs_f64());
            self.score.twice.push(pair.into());
        }
        let pause = LOOK.mul_f64(-(1.0 - self.eyes.f64()).ln());
        self.after(pause, Event::Look);
    }

    /// Tells the policy that a client asks or that the upstream refused.
    fn tell(&mut self, job: usize, event: Event) {
        let mut moves = Vec::new();
        let fate = &self.fates[job];
        let told = match event {
            Event::Denied(_) => Told::Denied(&fate.job, &fate.headers),
            _ => Told::Asked(&fate.job),
        };
        self.policy.hear(self.now, told, &self.upstream, &mut moves);
        self.obey(moves);
    }

    fn obey(&mut self, moves: Vec<Move>) {
        for one in moves {
            match one {
                Move::Send(job) => {
                    let way = self.fates[job].job.way;
                    self.after(way, Event::Offer(job));
                    self.predicted(job);
                }
                Move::Refuse(job, after) => self.refused(job, after),
            }
        }
        if let Some(at) = self.policy.wake(self.now) {
            let at = at.max(self.now + Duration::from_millis(1));
            if self.wake != Some(at) {
                self.wake = Some(at);
                self.after(at.saturating_sub(self.now), Event::Wake);
            }
        } else {
            self.wake = None;
        }
    }

    /// The wait that was predicted is over.
    fn predicted(&mut self, job: usize) {
        let fate = &mut self.fates[job];
        if let Some(eta) = fate.eta.take() {
            let took = self.now.saturating_sub(fate.job.asked);
            self.score
                .etas
                .push((eta.as_secs_f64(), took.as_secs_f64()));
        }
        for (at, eta) in fate.later.drain(..) {
            let took = self.now.saturating_sub(at);
            self.score
                .later
                .push((eta.as_secs_f64(), took.as_secs_f64()));
        }
    }

    fn refused(&mut self, job: usize, after: Option<Duration>) {
        self.score.seen += 1.0;
        let fate = &mut self.fates[job];
        fate.eta = None;
        fate.later.clear();
        let pause = self.scene.client.pause(fate.tries, after, &mut self.rng);
        fate.tries += 1;
        if let Some(pause) = pause {
            self.after(pause, Event::Retry(job));
        } else {
            self.score.failed += 1.0;
            let (terminal, agent) = (fate.job.terminal, fate.job.agent);
            fate.waiting = false;
            self.backlog[terminal].leave(self.now);
            let pause = self.agents[agent].failed();
            self.after(pause, Event::Ask(agent));
        }
    }

    fn offer(&mut self, job: usize) {
        self.score.sent += 1.0;
        let fate = &mut self.fates[job];
        let course = match self.upstream.offer(&fate.job, self.now) {
            Ok(course) => course,
            Err(budget) => {
                self.score.denied += 1.0;
                self.score.denied_for[budget] += 1.0;
                fate.headers = self.upstream.headers(&fate.job, self.now);
                // Another try meets another gateway.
                fate.job.dice = self.rng.u64(..);
                let back = Duration::from_millis(self.rng.u64(REFUSAL.0..REFUSAL.1));
                self.after(back, Event::Denied(job));
                return;
            }
        };
        fate.course = Some(course);
        fate.admitted = self.now;
        fate.waiting = false;
        let terminal = fate.job.terminal;
        let wait = self.now.saturating_sub(fate.job.asked + fate.job.way);
        self.backlog[terminal].leave(self.now);
        self.score.waits.push((terminal, wait.as_secs_f64()));
        self.after(course.first, Event::Begun(job));
        self.after(course.first + CHUNK, Event::Chunk(job));
        self.after(course.whole, Event::Ended(job));
    }

    fn begun(&mut self, job: usize) {
        let fate = &mut self.fates[job];
        self.upstream.begun(&fate.job, self.now);
        fate.headers = self.upstream.headers(&fate.job, self.now);
        let mut moves = Vec::new();
        let told = Told::Begun(&fate.job, &fate.headers);
        self.policy.hear(self.now, told, &self.upstream, &mut moves);
        self.obey(moves);
    }

    fn chunk(&mut self, job: usize) {
        let fate = &mut self.fates[job];
        let Some(course) = fate.course else { return };
        let since = self.now.saturating_sub(fate.admitted + course.first);
        let so_far = whole(since.as_secs_f64() * fate.job.pace).min(fate.job.output);
        let new = so_far - fate.streamed;
        if so_far == fate.job.output {
            return;
        }
        self.stream(job, new);
        self.after(CHUNK, Event::Chunk(job));
    }

    fn stream(&mut self, job: usize, tokens: u64) {
        let fate = &mut self.fates[job];
        fate.streamed += tokens;
        self.upstream.streamed(tokens, self.now);
        let mut moves = Vec::new();
        let told = Told::Streamed(&fate.job, tokens);
        self.policy.hear(self.now, told, &self.upstream, &mut moves);
        self.obey(moves);
    }

    fn ended(&mut self, job: usize) {
        let rest = self.fates[job].job.output - self.fates[job].streamed;
        if rest > 0 {
            self.stream(job, rest);
        }
        let fate = &mut self.fates[job];
        let Some(course) = fate.course else { return };
        let tokens = self.upstream.ended(&fate.job, &course, self.now);
        self.prompt += tokens.prompt;
        self.cached += tokens.cached;
        let limits = self.upstream.limits();
        let costs = tokens.dimensions().into_array();
        let share = (0..3)
            .map(|d| count(costs[d]) / count(limits[d]))
            .fold(0.0, f64::max);
        let (terminal, agent) = (fate.job.terminal, fate.job.agent);
        self.service[terminal] += share;
        self.turns[terminal] += 1.0;
        self.score.turns += 1.0;
        let pause = self.agents[agent].answered(&fate.job);
        let mut moves = Vec::new();
        let told = Told::Ended(&fate.job, tokens);
        self.policy.hear(self.now, told, &self.upstream, &mut moves);
        self.obey(moves);
        self.after(pause, Event::Ask(agent));
    }

    /// Another machine on the account: a request every two seconds in the mean.
    fn foreign(&mut self) {
        let share = self.scene.rules.foreign;
        let pause = -2.0 * (1.0 - self.rng.f64()).ln();
        let size = self.rng.f64() * 2.0;
        let limits = self.upstream.limits();
        let tokens = limits.map(|limit| whole(count(limit * share) / 100.0 / 30.0 * size));
        self.upstream.use_elsewhere(tokens, self.now);
        self.after(Duration::from_secs_f64(pause), Event::Foreign);
    }

    fn finish(mut self) -> Score {
        let end = self.scene.length;
        self.upstream.minute(end);
        let busy: Vec<f64> = (0..self.service.len())
            .filter(|&t| self.backlog[t].total(end) * 20 >= end)
            .map(|t| self.service[t])
            .collect();
        self.score.jain = if busy.is_empty() { 1.0 } else { jain(&busy) };
        self.score.most = self.turns.iter().copied().fold(0.0, f64::max);
        self.score.least = self.turns.iter().copied().fold(f64::INFINITY, f64::min);
        self.score.hits = count(self.cached) / count(self.prompt.max(1));
        let totals = self.upstream.totals();
        self.score.used =
            std::array::from_fn(|d| count(totals[d]) / self.upstream.offered[d].max(1.0));
        self.score.runs = 1.0;
        self.score
    }
}

/// The order of [`BUDGETS`].
fn slot(budget: Budget) -> usize {
    BUDGETS.iter().position(|one| *one == budget).unwrap_or(0)
}
