//! The stage of the scenarios: the simulated upstream, kimiq's proxy in front of it, and clients that hold conversations,
//! all on real sockets, in a time that passes faster than the real one.
use std::collections::HashMap;
use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::BodyExt;
use kimiq::limits::{Options as Limits, PoolView};
use kimiq::proxy::Options;
use kimiq::simulator::{Options as Upstream, Simulator, TruthRecord, declared};
use kimiq::usage::Dimensions;
use parking_lot::Mutex;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use crate::support::house::{House, ask};

/// What a fresh account starts with at Fireworks, in tokens per minute.
pub(crate) const START: Dimensions<u64> = Dimensions {
    prompt: 3_600_000,
    uncached: 900_000,
    generated: 36_000,
};

/// Longest that one request may take in real time, on a machine that is busy with other things.
const PATIENCE: Duration = Duration::from_mins(5);

/// What the machine may take from one socket to the other, in real time. Time is scaled and this is not, so the guard of
/// the windows is made of it.
const SKEW: Duration = Duration::from_millis(100);

/// English of coding agents has about so many bytes per thousand Kimi tokens.
const BYTES_PER_THOUSAND: u64 = 4_700;

/// Mean lateness of a timer up to which times are judged: a third of a simulated second where time is scaled by 20.
const CALM: Duration = Duration::from_millis(15);

/// Failures in a row after which a client gives up for good.
const GIVES_UP: u32 = 20;

const CHAT: &str = "/p/up/v1/chat/completions";

/// Upstream and proxy.
pub(crate) struct Stage {
    pub(crate) simulator: Simulator,
    pub(crate) house: House,
    scale: u32,
    begun: Instant,
    /// How much later than due clients came back from their thinking, and how often they did.
    late: Mutex<(Duration, u32)>,
    keys: Mutex<HashMap<String, String>>,
}

impl Stage {
    /// Opens both, with time `scale` times as fast as real time.
    pub(crate) async fn open(scale: u32, upstream: Upstream, limits: Limits) -> Arc<Self> {
        Self::open_at(scale, upstream, limits, kimiq::clock::wall).await
    }

    /// The same with a time of day of its own.
    pub(crate) async fn open_at(
        scale: u32,
        upstream: Upstream,
        limits: Limits,
        wall: fn() -> chrono::DateTime<chrono::Utc>,
    ) -> Arc<Self> {
        let upstream = Upstream {
            time_scale: f64::from(scale),
            event_tokens: upstream.event_tokens.max(64),
            // Nobody draws five times as slow an answer in a scenario that is about budgets.
            slow_share: 0.0,
            ..upstream
        };
        let simulator = Simulator::start(upstream, &TaskTracker::new())
            .await
            .unwrap();
        let begun = Instant::now();
        let options = Options {
            retry_pause: Options::default().retry_pause / scale,
            ..Options::default()
        };
        let limits = Limits {
            time_scale: scale,
            guard: Some(SKEW * scale),
            ..limits
        };
        let house = House::at(simulator.addr(), options, limits, wall).await;
        Arc::new(Self {
            simulator,
            house,
            scale,
            begun,
            late: Mutex::default(),
            keys: Mutex::default(),
        })
    }

    /// Simulated time since the opening.
    pub(crate) fn elapsed(&self) -> Duration {
        self.begun.elapsed() * self.scale
    }

    /// A client thinks, runs a tool, or reads for so long.
    pub(crate) async fn think(&self, time: Duration) {
        let begun = Instant::now();
        let time = time / self.scale;
        tokio::time::sleep(time).await;
        let mut late = self.late.lock();
        late.0 += begun.elapsed().saturating_sub(time);
        late.1 += 1;
    }

    /// How much later than due clients came back from their thinking, on average and in real time.
    pub(crate) fn lateness(&self) -> Duration {
        let (sum, count) = *self.late.lock();
        sum / count.max(1)
    }

    /// Whether the machine had time for this test. Where it had not, the shares of a minute that are used say nothing about
    /// kimiq, and the counts of answers and refusals are all that is judged.
    pub(crate) fn is_calm(&self) -> bool {
        let mean = self.lateness();
        let calm = mean < CALM;
        if !calm {
            println!(
                "the machine is busy: clients came back {mean:?} late, and times are not judged"
            );
        }
        calm
    }

    /// The only pool.
    pub(crate) fn pool(&self) -> PoolView {
        self.house.proxy.gate.snapshot().pools.remove(0)
    }

    /// The key of a terminal.
    fn key(&self, terminal: &str) -> String {
        let mut keys = self.keys.lock();
        keys.entry(terminal.to_owned())
            .or_insert_with(|| self.house.proxy.keys.issue(terminal, 1).unwrap())
            .clone()
    }

    /// What the upstream knows, when all it got is over.
    pub(crate) async fn truth(&self) -> Truth {
        self.house.until_nothing_is_held().await;
        Truth {
            scale: self.scale,
            records: self.simulator.truth(),
        }
    }
}

/// What happened at the upstream.
pub(crate) struct Truth {
    scale: u32,
    pub(crate) records: Vec<TruthRecord>,
}

impl Truth {
    /// Requests that were refused with this status from this minute on.
    pub(crate) fn refused(&self, status: u16, from: f64) -> usize {
        let times = self.times(status).into_iter();
        times.filter(|at| *at >= from).count()
    }

    /// When requests were refused with this status, in minutes.
    pub(crate) fn times(&self, status: u16) -> Vec<f64> {
        let all = self.records.iter().filter(|it| it.status == status);
        all.map(|it| self.minute(it.ended)).collect()
    }

    /// Tokens of all answered requests.
    pub(crate) fn all(&self) -> Dimensions<u64> {
        self.tokens(0.0, f64::MAX)
    }

    /// Simulated minute.
    pub(crate) fn minute(&self, at: f64) -> f64 {
        at * f64::from(self.scale) / 60.0
    }

    /// Tokens of answered requests that were over in these minutes.
    pub(crate) fn tokens(&self, from: f64, until: f64) -> Dimensions<u64> {
        let inside = |it: &&TruthRecord| (from..until).contains(&self.minute(it.ended));
        let mut sum = [0; 3];
        for record in self
            .records
            .iter()
            .filter(inside)
            .filter(|it| it.status == 200)
        {
            let tokens = record.tokens.dimensions().into_array();
            (0..3).for_each(|d| sum[d] += tokens[d]);
        }
        Dimensions::from_array(sum)
    }

    /// Answers that were over in these minutes.
    pub(crate) fn answers(&self, from: f64, until: f64) -> usize {
        let inside = |it: &&TruthRecord| (from..until).contains(&self.minute(it.ended));
        let all = self.records.iter().filter(inside);
        all.filter(|it| it.status == 200).count()
    }

    /// When the last request was over, in minutes.
    pub(crate) fn end(&self) -> f64 {
        let ends = self.records.iter().map(|it| self.minute(it.ended));
        ends.fold(0.0, f64::max)
    }

    /// Most answers at once.
    pub(crate) fn most_at_once(&self) -> usize {
        let answered = || self.records.iter().filter(|it| it.status == 200);
        let at = |time: f64| {
            let running = |it: &&TruthRecord| it.arrival <= time && time < it.ended;
            answered().filter(running).count()
        };
        answered().map(|it| at(it.arrival)).max().unwrap_or(0)
    }
}

/// `part` of `whole`.
#[expect(
    clippy::cast_precision_loss,
    reason = "token counts, far below 53 bits"
)]
pub(crate) fn share(part: u64, whole: u64) -> f64 {
    part as f64 / whole as f64
}

/// A conversation of one terminal, which sends everything again with each turn, as the clients do.
pub(crate) struct Session {
    stage: Arc<Stage>,
    key: String,
    id: String,
    messages: String,
    /// Names itself to the upstream's cache.
    pub(crate) keyed: bool,
    /// Headers of its own.
    pub(crate) headers: Vec<(&'static str, String)>,
    /// The output bound that it sends.
    pub(crate) max_tokens: u64,
    /// Answers and results join the conversation; otherwise each turn asks anew about the same text.
    pub(crate) grows: bool,
}

/// Terminals that all do the same.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Crowd {
    pub(crate) terminals: u64,
    pub(crate) turns: u64,
    /// Tokens of the first prompts: of the first terminal and of the last, the others in even steps between.
    pub(crate) prompts: (u64, u64),
    /// Tokens of an answer in the middle; a few are long and more are short.
    pub(crate) output: u64,
    /// Seconds between two turns.
    pub(crate) think: u64,
    pub(crate) grows: bool,
}

impl Crowd {
    /// Plays all terminals to their ends, and counts the requests that brought no answer.
    pub(crate) async fn play(self, stage: &Arc<Stage>) -> usize {
        self.play_as(stage, |_, _| {}).await
    }

    /// The same with sessions made different by their number.
    pub(crate) async fn play_as(
        self,
        stage: &Arc<Stage>,
        change: impl Fn(u64, &mut Session),
    ) -> usize {
        let mut terminals = JoinSet::new();
        let (least, most) = self.prompts;
        for number in 0..self.terminals {
            let prompt = least + (most - least) * number / (self.terminals - 1).max(1);
            let (name, id) = (format!("run:{number}"), format!("session {number}"));
            let mut session = Session::new(stage, &name, &id, prompt);
            session.grows = self.grows;
            change(number, &mut session);
            terminals.spawn(async move {
                let mut failures = 0;
                for turn in 0..self.turns {
                    failures += session.insist(self.answer(number, turn), 700).await;
                    session.stage.think(Duration::from_secs(self.think)).await;
                }
                failures
            });
        }
        terminals.join_all().await.into_iter().sum()
    }

    /// Outputs of agents are far from even; the mean of these is that of the middle one.
    fn answer(&self, number: u64, turn: u64) -> u64 {
        const PERCENT: [u64; 7] = [45, 100, 60, 210, 80, 35, 170];
        let index = usize::try_from(number * 3 + turn).unwrap() % PERCENT.len();
        self.output * PERCENT[index] / 100
    }
}

impl Session {
    /// A conversation that begins with a prompt of about so many tokens.
    pub(crate) fn new(stage: &Arc<Stage>, terminal: &str, id: &str, tokens: u64) -> Self {
        let mut messages = String::new();
        let text = text(id, tokens);
        write!(messages, r#"{{"role":"user","content":"{text}"}}"#).unwrap();
        Self {
            key: stage.key(terminal),
            stage: stage.clone(),
            id: id.to_owned(),
            messages,
            keyed: true,
            headers: Vec::new(),
            max_tokens: 32_000,
            grows: true,
        }
    }

    /// Prompt tokens of its next turn.
    pub(crate) fn tokens(&self) -> u64 {
        self.messages.len() as u64 * 1000 / BYTES_PER_THOUSAND
    }

    /// Asks once for an answer of so many tokens; after a whole one the result of a tool, of so many more, joins the
    /// conversation. Returns the status; 0 for an answer that broke off.
    pub(crate) async fn turn(&mut self, output: u64, more: u64) -> u16 {
        let name = if self.keyed {
            format!(r#""prompt_cache_key":"{}","#, self.id)
        } else {
            String::new()
        };
        let body = format!(
            r#"{{"model":"kimi-k2.6","stream":true,{name}"max_tokens":{},"messages":[{}]}}"#,
            self.max_tokens, self.messages
        );
        let mut request = self.stage.house.request(CHAT, &body);
        let headers = request.headers_mut();
        headers.insert("x-kimiq-key", self.key.parse().unwrap());
        headers.insert(declared::OUTPUT_TOKENS, output.into());
        headers.insert(declared::PROMPT_TOKENS, self.tokens().into());
        for (name, value) in &self.headers {
            headers.insert(*name, value.parse().unwrap());
        }
        let answered = async {
            let answer = ask(self.stage.house.address, request).await;
            let status = answer.status().as_u16();
            let whole = answer.into_body().collect().await.is_ok();
            if whole { status } else { 0 }
        };
        let Ok(status) = tokio::time::timeout(PATIENCE, answered).await else {
            panic!(
                "{} gets no answer: {:?}",
                self.id,
                self.stage.house.proxy.gate.snapshot()
            );
        };
        if status == 200 && self.grows {
            let said = text("answer", output);
            let result = text("result", more);
            write!(
                self.messages,
                r#",{{"role":"assistant","content":"{said}"}},{{"role":"tool","content":"{result}"}}"#
            )
            .unwrap();
        }
        status
    }

    /// The same until there is an answer, with the pauses that Kimi Code makes; counts the failures.
    pub(crate) async fn insist(&mut self, output: u64, more: u64) -> usize {
        let mut failures = 0;
        while self.turn(output, more).await != 200 {
            let pause = Duration::from_millis(500) * 2_u32.pow(failures.min(6));
            self.stage.think(pause).await;
            failures += 1;
            assert!(failures < GIVES_UP, "{} gets no answer", self.id);
        }
        usize::try_from(failures).unwrap()
    }
}

/// English of about so many tokens that begins like no other of another name.
fn text(name: &str, tokens: u64) -> String {
    const WORDS: &str = "the next window opens when the oldest tokens leave it, and nobody has to ask twice for an answer. ";
    let bytes = usize::try_from(tokens * BYTES_PER_THOUSAND / 1000).unwrap();
    let mut text = format!("{name}: ");
    text.extend(WORDS.chars().cycle().take(bytes.saturating_sub(text.len())));
    text
}

/// Whether so many 429 are what the stack's own lateness brings where time passes 20 to 60 times as fast: the guard of 250 ms
/// is then a few real milliseconds. A limiter that is wrong gets tens of percent.
pub(crate) fn few(refused: usize, answers: usize) -> bool {
    refused * 20 <= answers
}
