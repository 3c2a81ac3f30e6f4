//! The stage of the scenarios: the simulated upstream, kimiq's proxy in front of it, and clients that hold conversations,
//! all on real sockets.
use std::collections::HashMap;
use std::fmt;
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
use tokio_util::task::TaskTracker;

use crate::support::house::{House, ask};

/// What a fresh account starts with at Fireworks, in tokens per minute.
pub(crate) const START: Dimensions<u64> = Dimensions {
    prompt: 3_600_000,
    uncached: 900_000,
    generated: 36_000,
};

/// Longest that one request may take.
const PATIENCE: Duration = Duration::from_mins(5);

/// English of coding agents has about so many bytes per thousand Kimi tokens.
const BYTES_PER_THOUSAND: u64 = 4_700;

/// Failures in a row after which a client gives up for good.
const GIVES_UP: u32 = 20;

const CHAT: &str = "/p/up/v1/chat/completions";

/// An upstream whose answers come so fast that they are not what anybody waits for, in tokens per second.
pub(crate) fn fast() -> Upstream {
    Upstream {
        decode_pace: 100.0,
        ..Upstream::default()
    }
}

/// Upstream and proxy.
pub(crate) struct Stage {
    pub(crate) simulator: Simulator,
    pub(crate) house: House,
    keys: Mutex<HashMap<String, String>>,
}

impl Stage {
    /// Opens both.
    pub(crate) async fn open(upstream: Upstream) -> Arc<Self> {
        Self::with(upstream, Limits::default(), kimiq::clock::wall).await
    }

    /// The same with settings of the limiter, and a time of day of its own.
    pub(crate) async fn with(
        upstream: Upstream,
        limits: Limits,
        wall: fn() -> chrono::DateTime<chrono::Utc>,
    ) -> Arc<Self> {
        let upstream = Upstream {
            event_tokens: upstream.event_tokens.max(64),
            // Nobody draws five times as slow an answer in a scenario that is about budgets.
            slow_share: 0.0,
            ..upstream
        };
        let simulator = Simulator::start(upstream, &TaskTracker::new())
            .await
            .unwrap();
        let house = House::at(simulator.addr(), Options::default(), limits, wall).await;
        Arc::new(Self {
            simulator,
            house,
            keys: Mutex::default(),
        })
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
            records: self.simulator.truth(),
        }
    }
}

/// What happened at the upstream.
pub(crate) struct Truth {
    pub(crate) records: Vec<TruthRecord>,
}

impl Truth {
    /// Requests that were refused with this status.
    pub(crate) fn refused(&self, status: u16) -> usize {
        self.times(status).len()
    }

    /// When requests were refused with this status, in minutes.
    pub(crate) fn times(&self, status: u16) -> Vec<f64> {
        let all = self.records.iter().filter(|it| it.status == status);
        all.map(|it| minute(it.ended)).collect()
    }

    /// Tokens of all answered requests.
    pub(crate) fn all(&self) -> Dimensions<u64> {
        self.tokens(0.0, f64::MAX)
    }

    /// Tokens of answered requests that were over in these minutes.
    pub(crate) fn tokens(&self, from: f64, until: f64) -> Dimensions<u64> {
        let inside = |it: &&TruthRecord| (from..until).contains(&minute(it.ended));
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

    /// Answers.
    pub(crate) fn answers(&self) -> usize {
        self.answers_in(0.0, f64::MAX)
    }

    /// Answers that were over in these minutes.
    pub(crate) fn answers_in(&self, from: f64, until: f64) -> usize {
        let inside = |it: &&TruthRecord| (from..until).contains(&minute(it.ended));
        let all = self.records.iter().filter(inside);
        all.filter(|it| it.status == 200).count()
    }

    /// When the last request was over, in minutes.
    pub(crate) fn end(&self) -> f64 {
        let ends = self.records.iter().map(|it| minute(it.ended));
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

/// Somebody thinks, runs a tool, or reads for so many seconds.
pub(crate) async fn think(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

/// The minute of a second.
pub(crate) fn minute(second: f64) -> f64 {
    second / 60.0
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

/// What became of a crowd.
pub(crate) struct Played {
    pub(crate) stage: Arc<Stage>,
    pub(crate) truth: Truth,
    /// Requests that brought no answer.
    pub(crate) failures: usize,
    /// Answers of the upstream with 429.
    pub(crate) throttled: usize,
    /// When all was over, in minutes.
    pub(crate) end: f64,
}

impl fmt::Display for Played {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (answers, end) = (self.truth.answers(), self.end);
        let (failures, throttled) = (self.failures, self.throttled);
        write!(
            f,
            "{answers} answers in {end:.2} min, {failures} failures, {throttled} 429"
        )
    }
}

impl Crowd {
    /// Plays all terminals to their ends before this upstream.
    pub(crate) async fn before(self, upstream: Upstream) -> Played {
        self.before_as(upstream, |_, _| {}).await
    }

    /// The same with sessions made different by their number.
    pub(crate) async fn before_as(
        self,
        upstream: Upstream,
        change: impl Fn(u64, &mut Session),
    ) -> Played {
        let stage = Stage::open(upstream).await;
        let failures = self.play_as(&stage, change).await;
        let truth = stage.truth().await;
        Played {
            throttled: truth.refused(429),
            end: truth.end(),
            stage,
            truth,
            failures,
        }
    }

    /// Plays all terminals to their ends, and counts the requests that brought no answer.
    pub(crate) async fn play(self, stage: &Arc<Stage>) -> usize {
        self.play_as(stage, |_, _| {}).await
    }

    /// The same with sessions made different by their number.
    async fn play_as(self, stage: &Arc<Stage>, change: impl Fn(u64, &mut Session)) -> usize {
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
                    think(self.think).await;
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
            tokio::time::sleep(pause).await;
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
