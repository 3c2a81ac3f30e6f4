//! Who asks: terminals with one or more agents, each a closed loop of model requests.
//!
//! A session's context grows with each tool result and each answer, and is compacted when it is full. A tool runs for
//! four seconds in the mean; about one request in fifteen is typed by a person, who takes fifteen. Everything random about an agent
//! comes from its own generator, in the order of its requests, so that every policy meets the same requests.

use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use kimiq::limits::Class;

/// Tokens of the system prompt and the tools: the prefix that survives a compaction.
const SYSTEM: u64 = 12_000;
/// Tokens that one answer may have.
const LONGEST_OUTPUT: u64 = 8_000;
/// What Kimi Code asks for with a model that it does not know.
pub(crate) const MAX_TOKENS: u64 = 128_000;

/// What one kind of work costs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) name: &'static str,
    /// Context of a session at the start of the simulation.
    pub(crate) begin: (u64, u64),
    /// Context after a compaction.
    pub(crate) fresh: (u64, u64),
    /// Context at which it is compacted.
    pub(crate) full: u64,
    /// Mean tokens that a tool result adds.
    pub(crate) growth: f64,
}

/// Large contexts, small steps: the sum of all prompts binds.
pub(crate) const PROMPT: Shape = Shape {
    name: "total-prompt-bound",
    begin: (40_000, 120_000),
    fresh: (36_000, 44_000),
    full: 200_000,
    growth: 2_000.0,
};

/// Whole files read into short contexts: what is not cached binds.
pub(crate) const UNCACHED: Shape = Shape {
    name: "uncached-bound",
    begin: (16_000, 40_000),
    fresh: (16_000, 20_000),
    full: 100_000,
    growth: 24_000.0,
};

/// Short contexts, small steps: the answers bind.
pub(crate) const GENERATED: Shape = Shape {
    name: "generated-bound",
    begin: (14_000, 30_000),
    fresh: (14_000, 16_000),
    full: 40_000,
    growth: 800.0,
};

/// Contexts that are long from the start, so that eight terminals want more than there is.
pub(crate) const LONG: Shape = Shape {
    name: "long contexts",
    begin: (130_000, 200_000),
    fresh: (120_000, 140_000),
    full: 240_000,
    growth: 2_000.0,
};

/// A message of a conversation.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Message {
    /// Its name: no two messages are equal.
    pub(crate) hash: u64,
    pub(crate) bytes: u64,
    pub(crate) by_model: bool,
}

/// One model request, with everything that will be true about it.
#[derive(Clone, Debug)]
pub(crate) struct Job {
    pub(crate) id: usize,
    pub(crate) agent: usize,
    pub(crate) terminal: usize,
    pub(crate) class: Class,
    pub(crate) prompt: u64,
    /// Tokens in common with what the session sent before.
    pub(crate) shared: u64,
    pub(crate) output: u64,
    /// Bytes of the prompt's text: system text and tools, then the messages.
    pub(crate) bytes: u64,
    pub(crate) head: u64,
    pub(crate) messages: Arc<[Message]>,
    /// Bytes of the answer.
    pub(crate) output_bytes: u64,
    /// Tokens a second while the answer streams.
    pub(crate) pace: f64,
    /// From the limiter to the upstream.
    pub(crate) way: Duration,
    /// How long the upstream will keep this prompt's prefix.
    pub(crate) kept: Duration,
    /// Picks the upstream's replica and gateway.
    pub(crate) dice: u64,
    /// When the client asked first.
    pub(crate) asked: Duration,
}

/// One conversation.
#[derive(Debug)]
pub(crate) struct Agent {
    pub(crate) terminal: usize,
    shape: Shape,
    background: bool,
    rng: Rng,
    /// Tokens of the conversation so far, and its bytes.
    context: u64,
    head: u64,
    messages: Arc<[Message]>,
    /// Tokens of it that the upstream saw before.
    shared: u64,
    compacting: bool,
    typed: bool,
}

impl Agent {
    pub(crate) fn new(
        seed: u64,
        number: usize,
        terminal: usize,
        background: bool,
        shape: Shape,
    ) -> Self {
        let mut rng = Rng::with_seed(seed.wrapping_mul(1_000_003) + number as u64);
        let context = rng.u64(shape.begin.0..=shape.begin.1);
        // All agents have one system prompt and the same tools.
        let head = SYSTEM * 4;
        let messages = Arc::new([message(&mut rng, context - SYSTEM)]);
        Self {
            terminal,
            shape,
            background,
            rng,
            context,
            head,
            messages,
            shared: 0,
            compacting: false,
            typed: true,
        }
    }

    /// When it asks for the first time.
    pub(crate) fn first(&mut self) -> Duration {
        Duration::from_secs_f64(self.rng.f64() * 10.0)
    }

    /// Its next request.
    pub(crate) fn next(&mut self, id: usize, agent: usize, now: Duration, kept: (u64, u64)) -> Job {
        let rng = &mut self.rng;
        let median = if self.compacting { 1_500.0 } else { 260.0 };
        let output = whole(log_normal(rng, median, 1.2)).clamp(1, LONGEST_OUTPUT);
        let output_bytes = in_bytes(rng, output);
        let slow = if rng.u32(..25) == 0 { 5.5 } else { 1.0 };
        let class = if self.background || self.compacting {
            Class::Background
        } else if self.typed {
            Class::Interactive
        } else {
            Class::Loop
        };
        Job {
            id,
            agent,
            terminal: self.terminal,
            class,
            prompt: self.context,
            shared: self.shared,
            output,
            bytes: self.head + self.messages.iter().map(|m| m.bytes).sum::<u64>(),
            head: self.head,
            messages: self.messages.clone(),
            output_bytes,
            pace: (30.0 + 40.0 * rng.f64()) / slow,
            way: Duration::from_micros(rng.u64(10_000..60_000)),
            kept: Duration::from_millis(rng.u64(kept.0 * 1000..=kept.1 * 1000)),
            dice: rng.u64(..),
            asked: now,
        }
    }

    /// The answer came. Returns how long the tool or the person takes until the next request.
    pub(crate) fn answered(&mut self, job: &Job) -> Duration {
        let rng = &mut self.rng;
        if self.compacting {
            self.compacting = false;
            self.context = rng.u64(self.shape.fresh.0..=self.shape.fresh.1);
            self.messages = Arc::new([message(rng, self.context - SYSTEM)]);
            self.shared = SYSTEM;
        } else {
            let sigma = 1.0;
            let median = self.shape.growth / f64::exp(sigma * sigma / 2.0);
            let new = whole(log_normal(rng, median, sigma)).clamp(50, 60_000);
            self.shared = job.prompt + job.output;
            self.context = self.shared + new;
            let answer = Message {
                hash: rng.u64(..),
                bytes: job.output_bytes,
                by_model: true,
            };
            let more = [answer, message(rng, new)];
            self.messages = [&*self.messages, &more].concat().into();
            self.compacting = self.context > self.shape.full;
        }
        self.typed = !self.background && !self.compacting && rng.u32(..15) == 0;
        let mean = if self.typed { 15.0 } else { 4.0 };
        Duration::from_secs_f64(-mean * (1.0 - rng.f64()).ln())
    }

    /// The client gave up. A person notices and asks again.
    pub(crate) fn failed(&mut self) -> Duration {
        self.typed = !self.background;
        Duration::from_secs(30)
    }
}

/// A message of so many tokens, not said by the model.
fn message(rng: &mut Rng, tokens: u64) -> Message {
    Message {
        hash: rng.u64(..),
        bytes: in_bytes(rng, tokens),
        by_model: false,
    }
}

/// Bytes of so many tokens; some text is denser than other.
fn in_bytes(rng: &mut Rng, tokens: u64) -> u64 {
    let each = (4.2 + 0.4 * normal(rng)).clamp(2.8, 5.8);
    whole(count(tokens) * each)
}

/// A draw from the standard normal distribution.
pub(crate) fn normal(rng: &mut Rng) -> f64 {
    let radius = (-2.0 * (1.0 - rng.f64()).ln()).sqrt();
    radius * (std::f64::consts::TAU * rng.f64()).cos()
}

fn log_normal(rng: &mut Rng, median: f64, sigma: f64) -> f64 {
    median * (sigma * normal(rng)).exp()
}

/// Tokens as a number to reckon with.
#[expect(
    clippy::cast_precision_loss,
    reason = "token counts are far below 2^52"
)]
pub(crate) fn count(tokens: u64) -> f64 {
    tokens as f64
}

/// A whole number of tokens.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "token counts are small and positive"
)]
pub(crate) fn whole(tokens: f64) -> u64 {
    tokens.max(0.0) as u64
}
