//! What can be set on the simulated upstream, with the figures Fireworks documents as defaults.
//!
//! Every duration is in simulated time: [`Options::time_scale`] divides all of them at once, so that a window of
//! 60 s passes in one real second at a scale of 60 while the limits per window stay what they are.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use super::fault::Fault;
use crate::usage::Dimensions;

/// A word that names none of the choices of an option.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown {what} `{given}`; choose one of: {choices}")]
pub struct UnknownName {
    what: &'static str,
    given: String,
    choices: String,
}

impl UnknownName {
    pub(super) fn new(what: &'static str, given: &str, choices: &[&str]) -> Self {
        Self {
            what,
            given: given.to_owned(),
            choices: choices.join(", "),
        }
    }
}

/// An enum whose variants have a word for flags, with `FromStr`, `Display` and the list of words.
macro_rules! words {
    ($(#[$meta:meta])* $name:ident, $what:literal, { $($(#[$inner:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
        #[serde(rename_all = "kebab-case")]
        pub enum $name { $($(#[$inner])* $variant,)+ }

        impl $name {
            /// The words that name the choices, in their order.
            pub const NAMES: &[&str] = &[$($word),+];
        }

        impl FromStr for $name {
            type Err = UnknownName;
            fn from_str(word: &str) -> Result<Self, UnknownName> {
                match word {
                    $($word => Ok(Self::$variant),)+
                    _ => Err(UnknownName::new($what, word, Self::NAMES)),
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str(match self { $(Self::$variant => $word,)+ })
            }
        }
    };
}

words! {
    /// When a request is refused for a token budget. Fireworks does not tell which rule it uses.
    Admission, "admission rule", {
        /// Refuse when what is used has reached the limit.
        Used = "used",
        /// Refuse when what is used and the request's own need exceed the limit.
        Need = "need",
        /// Both rules must let the request pass.
        Both = "both",
    }
}

words! {
    /// When generated tokens are charged. Live headers suggest the end of the answer.
    Charge, "charge timing", {
        /// The real count when the answer ends.
        AtEnd = "at-end",
        /// Token by token while the answer streams.
        Streaming = "streaming",
        /// The request's own `max_tokens` at admission, as Moonshot does.
        Reserved = "reserved",
    }
}

words! {
    /// Unit of the rate-limit headers. Fireworks' pages name both, at different dates; live headers were per minute.
    HeaderUnit, "header unit", {
        /// Tokens per minute.
        Minute = "minute",
        /// Tokens per second.
        Second = "second",
    }
}

impl HeaderUnit {
    pub(super) fn other(self) -> Self {
        match self {
            Self::Minute => Self::Second,
            Self::Second => Self::Minute,
        }
    }
}

words! {
    /// Where a chat stream reports its usage.
    UsagePlacement, "usage placement", {
        /// On the chunk that carries `finish_reason` (Fireworks docs).
        Finish = "finish",
        /// On a chunk of its own with `choices: []` (OpenAI's form).
        Separate = "separate",
        /// Nowhere.
        None = "none",
    }
}

words! {
    /// When the scripted agent runs commands, for which many clients want an approval.
    Commands, "commands choice", {
        /// In every turn.
        Always = "always",
        /// In sessions that say that they approve by themselves (as `kimi -p` does).
        Unattended = "unattended",
        /// Never.
        Never = "never",
    }
}

words! {
    /// State of the account that all requests use.
    Account, "account state", {
        /// In good standing.
        Active = "active",
        /// Its spending limit is passed: 402.
        Spent = "spent",
        /// Suspended: 412.
        Suspended = "suspended",
    }
}

/// What the simulated upstream does. All fields may be set; [`Options::default`] is the documented start state.
#[derive(Clone, Debug)]
pub struct Options {
    /// Loopback port; 0 takes a free one.
    pub port: u16,
    /// Seed of everything that is drawn.
    pub seed: u64,
    /// How many simulated seconds pass in a real one.
    pub time_scale: f64,
    /// Length of the rolling token and request windows.
    pub window: Duration,
    /// Tokens per window that a pool starts with, and falls back to after 72 h without traffic.
    pub start: Dimensions<u64>,
    /// What use before the simulation has raised the limits to; `None` is the start. Idle, they fall back to the start.
    pub grown: Option<Dimensions<u64>>,
    /// The most that the limits grow to (Fireworks docs: models of 600 B to 1.6 T parameters).
    pub ceiling: Dimensions<u64>,
    /// Whether limits follow use: +25 % per 15 min above half, −20 % per day after 3 quiet days.
    pub adaptive: bool,
    /// Least time between two rises of a limit (Fireworks docs: 15 min).
    pub rise_every: Duration,
    /// Share of each limit that another machine on the account spends, evenly; it asks nobody.
    pub others: f64,
    /// Token windows are whole minutes of the clock, all used tokens come back at once; otherwise they roll.
    pub fixed_windows: bool,
    /// Unit of the limit and remaining headers.
    pub header_unit: HeaderUnit,
    /// After so long the headers change to the other unit, if ever.
    pub unit_switch: Option<Duration>,
    /// Counters per pool, each with its own view of what is used.
    pub gateways: usize,
    /// After how long one gateway's charges are seen by the others.
    pub mirror_delay: Duration,
    /// A connection stays on the gateway of its first request; otherwise each request lands on a random one.
    pub sticky_gateway: bool,
    /// The first gateway keeps the start limit for generated tokens for ever, as one live run suggests.
    pub stale_gateway: bool,
    /// Serving replicas, each with its own prompt cache.
    pub replicas: usize,
    /// Tokens of one cache block; 0 turns the prompt cache off.
    pub cache_block: u64,
    /// How long an unused cache entry lives.
    pub cache_lifetime: Duration,
    /// Tokens that one replica's cache holds at most; the longest unused ones leave first.
    pub cache_capacity: u64,
    /// When a request is refused for a token budget.
    pub admission: Admission,
    /// When generated tokens are charged.
    pub charge: Charge,
    /// A second, shorter window that admits 1.5 times its share of the limit, if any.
    pub burst_window: Option<Duration>,
    /// Requests per window over the whole account (Fireworks docs: 6000 with a payment method).
    pub requests: u64,
    /// Probability of a request being shed although within limits; a quarter of it with `service_tier: "priority"`.
    pub shed: f64,
    /// When load is shed: from and until so long after the start; `None` is always.
    pub shed_span: Option<(Duration, Duration)>,
    /// Shed with 529 in the Anthropic dialect in place of 503.
    pub shed_as_529: bool,
    /// State of the account.
    pub account: Account,
    /// Refuse requests that bring no credential (any value is accepted): 401.
    pub require_key: bool,
    /// Time to first token before any prompt token is read.
    pub first_token: Duration,
    /// Uncached prompt tokens read per second until the first token leaves; 0 reads them in no time.
    pub prefill_pace: f64,
    /// Generated tokens per second and stream, ±40 % by chance and 2.5 times as many on Fast pools; 0 writes at once.
    pub decode_pace: f64,
    /// Share of requests that decode five times slower (live: 3 of 74).
    pub slow_share: f64,
    /// Generated tokens in one stream event.
    pub event_tokens: u64,
    /// How long a refusal takes at most, half of it at least (live: 0.10 to 0.26 s).
    pub refusal_delay: Duration,
    /// Where a chat stream reports its usage.
    pub usage: UsagePlacement,
    /// Comment lines between the events of a stream (ping events in the Anthropic dialect), as some gateways send them.
    pub comments: bool,
    /// Line ends of streams are CRLF.
    pub crlf: bool,
    /// Streams are cut into chunks of so many bytes, also inside lines and characters; 0 sends one chunk per event.
    pub chunk_bytes: usize,
    /// When the scripted agent runs commands through the client's tool.
    pub commands: Commands,
    /// Probability of each fault, drawn one after the other for requests that ask for none.
    pub faults: Vec<(Fault, f64)>,
    /// Model ids of `GET /models`. Requests may name any model.
    pub models: Vec<String>,
    /// File that gets one JSON line per request, appended.
    pub truth: Option<PathBuf>,
    /// Largest request body in bytes; more is answered with 413.
    pub max_body: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            port: 0,
            seed: 1,
            time_scale: 1.0,
            window: Duration::from_mins(1),
            start: Dimensions {
                prompt: 3_600_000,
                uncached: 900_000,
                generated: 36_000,
            },
            ceiling: Dimensions {
                prompt: 43_200_000,
                uncached: 10_800_000,
                generated: 432_000,
            },
            grown: None,
            adaptive: true,
            rise_every: Duration::from_mins(15),
            others: 0.0,
            fixed_windows: false,
            header_unit: HeaderUnit::Minute,
            unit_switch: None,
            gateways: 8,
            mirror_delay: Duration::from_secs(2),
            sticky_gateway: false,
            stale_gateway: false,
            replicas: 4,
            cache_block: 64,
            cache_lifetime: Duration::from_mins(10),
            cache_capacity: 64_000_000,
            admission: Admission::Both,
            charge: Charge::AtEnd,
            burst_window: None,
            requests: 6000,
            shed: 0.0,
            shed_span: None,
            shed_as_529: false,
            account: Account::Active,
            require_key: false,
            first_token: Duration::from_millis(350),
            prefill_pace: 15_000.0,
            decode_pace: 50.0,
            slow_share: 0.04,
            event_tokens: 4,
            refusal_delay: Duration::from_millis(260),
            usage: UsagePlacement::Finish,
            comments: false,
            crlf: false,
            chunk_bytes: 0,
            commands: Commands::Unattended,
            faults: Vec::new(),
            models: [
                "accounts/fireworks/models/kimi-k3",
                "accounts/fireworks/routers/kimi-k3-fast",
                "accounts/fireworks/models/kimi-k2p7-code",
                "accounts/fireworks/models/kimi-k2p6",
                "kimi-k2.6",
                "kimi-for-coding",
            ]
            .map(str::to_owned)
            .to_vec(),
            truth: None,
            max_body: 64 << 20,
        }
    }
}

impl Options {
    /// Answers without any delay and without a prompt cache: for benches, and for tests that look at bytes only.
    pub fn immediate() -> Self {
        Self {
            first_token: Duration::ZERO,
            prefill_pace: 0.0,
            decode_pace: 0.0,
            slow_share: 0.0,
            refusal_delay: Duration::ZERO,
            cache_block: 0,
            ..Self::default()
        }
    }

    /// Limits so high, and so many requests a minute, that nothing is ever refused.
    #[must_use]
    pub fn unlimited(mut self) -> Self {
        const PLENTY: u64 = 1_000_000_000_000_000;
        self.start = Dimensions {
            prompt: PLENTY,
            uncached: PLENTY,
            generated: PLENTY,
        };
        self.ceiling = self.start;
        self.grown = None;
        self.requests = PLENTY;
        self.adaptive = false;
        self
    }
}
