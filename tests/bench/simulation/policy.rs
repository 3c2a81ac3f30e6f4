//! What stands between the clients and the upstream, and the clients' own patience.

use std::time::Duration;

use fastrand::Rng;
use kimiq::limits::Budget;
use kimiq::usage::{Observation, Tokens};

use super::load::Job;
use super::upstream::Upstream;

/// What a policy learns.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Told<'a> {
    /// A client asks, for the first time or again.
    Asked(&'a Job),
    /// The upstream answered 429.
    Denied(&'a Job, &'a Observation),
    /// The head of an answer came.
    Begun(&'a Job, &'a Observation),
    /// So many tokens of it came.
    Streamed(&'a Job, u64),
    /// It is whole.
    Ended(&'a Job, Tokens),
    /// The time it asked for has come.
    Woken,
}

/// What a policy does.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Move {
    /// Sends the request to the upstream.
    Send(usize),
    /// Answers the client 429.
    Refuse(usize, Option<Duration>),
}

/// One way to treat requests.
pub(crate) trait Policy {
    fn hear(&mut self, now: Duration, told: Told<'_>, upstream: &Upstream, moves: &mut Vec<Move>);

    /// When it wants to be woken.
    fn wake(&mut self, _now: Duration) -> Option<Duration> {
        None
    }

    /// What a request that waits is said to wait for.
    fn why(&self, _job: usize, _now: Duration) -> Option<Budget> {
        None
    }

    /// How long each request that waits is said to wait still, and how long by one more run ahead: as far as the two
    /// differ, nobody can know.
    fn foresee(&self, _now: Duration) -> Vec<(usize, [Duration; 2])> {
        Vec::new()
    }
}

/// Nothing between them: what the upstream says is what the client hears.
#[derive(Debug)]
pub(crate) struct Direct;

impl Policy for Direct {
    fn hear(&mut self, _now: Duration, told: Told<'_>, _: &Upstream, moves: &mut Vec<Move>) {
        match told {
            Told::Asked(job) => moves.push(Move::Send(job.id)),
            Told::Denied(job, _) => moves.push(Move::Refuse(job.id, None)),
            _ => {}
        }
    }
}

/// What a client does with a 429.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Client {
    /// Kimi Code: ten attempts, half a second doubling to 32 s and up to a quarter more; a `Retry-After` in whole seconds
    /// instead, where there is one.
    KimiCode,
    /// kimi-cli: nine requests within about ten seconds.
    KimiCli,
}

/// Gaps between the nine requests of kimi-cli, milliseconds; measured.
const CLI_GAPS: [u64; 8] = [500, 900, 800, 500, 800, 700, 400, 1000];

impl Client {
    /// The pause before the next try after so many; `None` when it gives up.
    pub(crate) fn pause(
        self,
        tries: u32,
        after: Option<Duration>,
        rng: &mut Rng,
    ) -> Option<Duration> {
        match self {
            Self::KimiCode if tries >= 10 => None,
            Self::KimiCode => Some(after.unwrap_or_else(|| {
                let base = (0.5 * f64::from(1_u32 << (tries - 1))).min(32.0);
                Duration::from_secs_f64(base * (1.0 + 0.25 * rng.f64()))
            })),
            Self::KimiCli => {
                let gap = *CLI_GAPS.get(tries as usize - 1)?;
                let gap = gap * rng.u64(900..=1100) / 1000;
                Some(Duration::from_millis(gap))
            }
        }
    }
}
