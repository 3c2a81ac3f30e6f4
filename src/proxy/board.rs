//! What each terminal is doing, as its traffic tells it.
//!
//! States are counted, because subagents, titles and compaction run beside the main conversation of a terminal. Every
//! exchange stands on the board through a guard, so that none can stay behind.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use chrono::{DateTime, Utc};
use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::proxy::trouble::{Failing, Trouble};
use crate::usage::Tokens;

/// Where an exchange stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Waiting for its budgets.
    Queued,
    /// Sent; no byte of the answer yet.
    Sent,
    /// The answer flows.
    Streaming,
    /// The upstream refused; the next try is due.
    BackingOff,
}

/// How the last exchange of a terminal ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The model finished its turn.
    Finished,
    /// The model asked for tools: the client will come back.
    WantsTools,
    /// The client went away.
    Cancelled,
    /// No whole answer came.
    Failed,
    /// The day's cap refused it.
    Capped {
        /// When the day ends.
        until: DateTime<Utc>,
    },
}

/// What is known of one terminal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Activity {
    /// Exchanges that wait for their budgets.
    pub queued: u32,
    /// Exchanges that were sent and not answered yet.
    pub sent: u32,
    /// Exchanges whose answer flows.
    pub streaming: u32,
    /// Exchanges between two tries.
    pub backing_off: u32,
    /// Exchanges ever seen.
    pub requests: u64,
    /// How the last one ended.
    pub last: Option<Outcome>,
    /// The client's session, as its requests name it.
    pub session: Option<String>,
    /// Tokens of all its exchanges.
    pub tokens: Tokens,
    /// Host and port of the upstream that it asked last.
    pub host: Arc<str>,
    /// The upstream gave no answer to its last tries; nor to those of others, while one of its own waits to be sent.
    pub trouble: Option<Trouble>,
}

impl Activity {
    /// Exchanges under way.
    pub fn in_flight(&self) -> u32 {
        self.queued + self.sent + self.streaming + self.backing_off
    }

    /// The day's cap refused its last request, and would refuse it again until this instant.
    pub fn capped(&self, wall: DateTime<Utc>) -> Option<DateTime<Utc>> {
        match self.last {
            Some(Outcome::Capped { until }) if until > wall && self.in_flight() == 0 => Some(until),
            _ => None,
        }
    }

    fn count(&mut self, phase: Phase) -> &mut u32 {
        match phase {
            Phase::Queued => &mut self.queued,
            Phase::Sent => &mut self.sent,
            Phase::Streaming => &mut self.streaming,
            Phase::BackingOff => &mut self.backing_off,
        }
    }
}

/// The activities of all terminals.
#[derive(Clone, Debug)]
pub struct Board {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// Each activity is shared with the entries that stand on it, so that a change looks nothing up.
    terminals: Mutex<FxHashMap<Arc<str>, Arc<Mutex<Activity>>>>,
    /// Upstreams that do not answer anybody, by host. Locked before `terminals`.
    down: Mutex<FxHashMap<Arc<str>, Trouble>>,
    /// Somebody is in trouble, so that answers must look whose it ends. Set under the lock of `down`.
    troubled: AtomicBool,
    version: watch::Sender<u64>,
}

impl Default for Board {
    fn default() -> Self {
        Self {
            inner: Arc::new(Inner {
                terminals: Mutex::default(),
                down: Mutex::default(),
                troubled: AtomicBool::new(false),
                version: watch::Sender::new(0),
            }),
        }
    }
}

impl Board {
    /// What a terminal is doing; nothing for one that never asked.
    pub fn activity(&self, terminal: &str) -> Activity {
        let found = self.inner.terminals.lock().get(terminal).cloned();
        let mut activity = found.map_or_else(Activity::default, |found| found.lock().clone());
        if activity.trouble.is_none() && activity.queued > 0 && activity.streaming == 0 {
            activity.trouble = self.inner.down.lock().get(&activity.host).cloned();
        }
        activity
    }

    /// Terminals to whose last tries the upstream gave no answer, and those that the day's cap refuses.
    pub fn hindered(&self) -> Vec<(Arc<str>, Activity)> {
        let names: Vec<_> = self.inner.terminals.lock().keys().cloned().collect();
        let mut found: Vec<_> = names
            .into_iter()
            .map(|name| (self.activity(&name), name))
            .filter(|(it, _)| {
                it.trouble.is_some() || matches!(it.last, Some(Outcome::Capped { .. }))
            })
            .map(|(activity, name)| (name, activity))
            .collect();
        found.sort_by(|a, b| a.0.cmp(&b.0));
        found
    }

    /// Somebody else found that this host takes connections again: who gave up on it need not be told so any more.
    pub fn reached(&self, host: &str) {
        self.relieve(host, |it| {
            it.failing == Failing::Unreachable && it.next.is_none()
        });
    }

    /// Takes back the troubles with a host that are `over`.
    fn relieve(&self, host: &str, over: impl Fn(&Trouble) -> bool) {
        if !self.inner.troubled.load(Ordering::Relaxed) {
            return;
        }
        {
            let mut down = self.inner.down.lock();
            down.retain(|name, trouble| **name != *host || !over(trouble));
            let mut left = !down.is_empty();
            for activity in self.inner.terminals.lock().values() {
                let trouble = &mut activity.lock().trouble;
                *trouble = trouble.take().filter(|it| *it.host != *host || !over(it));
                left |= trouble.is_some();
            }
            self.inner.troubled.store(left, Ordering::Relaxed);
        }
        self.changed();
    }

    /// Sees a new number whenever any activity changed.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.inner.version.subscribe()
    }

    /// Forgets a terminal that is gone.
    pub fn forget(&self, terminal: &str) {
        self.inner.terminals.lock().remove(terminal);
        self.changed();
    }

    /// An exchange of this terminal begins.
    pub(super) fn enter(&self, terminal: &Arc<str>, session: Option<&str>, host: &str) -> Entry {
        let activity = {
            let mut terminals = self.inner.terminals.lock();
            match terminals.get(terminal) {
                Some(activity) => activity.clone(),
                None => terminals.entry(terminal.clone()).or_default().clone(),
            }
        };
        {
            let mut activity = activity.lock();
            activity.requests += 1;
            activity.queued += 1;
            if *activity.host != *host {
                activity.host = host.into();
            }
            if let Some(session) = session
                && activity.session.as_deref() != Some(session)
            {
                activity.session = Some(session.to_owned());
            }
        }
        self.changed();
        Entry {
            board: self.clone(),
            activity,
            phase: Phase::Queued,
            ended: None,
            left: false,
        }
    }

    fn changed(&self) {
        self.inner.version.send_if_modified(|version| {
            *version += 1;
            // Waking nobody costs as much as waking somebody.
            self.inner.version.receiver_count() > 0
        });
    }
}

/// An exchange on the board; dropping it takes it off.
#[derive(Debug)]
pub(super) struct Entry {
    board: Board,
    activity: Arc<Mutex<Activity>>,
    phase: Phase,
    ended: Option<(Outcome, Tokens)>,
    left: bool,
}

impl Entry {
    pub(super) fn phase(&mut self, phase: Phase) {
        if self.phase == phase {
            return;
        }
        {
            let mut activity = self.activity.lock();
            *activity.count(self.phase) -= 1;
            *activity.count(phase) += 1;
        }
        self.phase = phase;
        self.board.changed();
    }

    /// A try ended without success: the upstream refused, or failed in a way that is told. The next one, if it is ours
    /// to make, comes after `pause`.
    pub(super) fn tried(&mut self, host: &str, failing: Option<Failing>, pause: Option<Duration>) {
        let Some(failing) = failing else {
            self.answered(host);
            return;
        };
        {
            let inner = &self.board.inner;
            let mut down = inner.down.lock();
            let before = {
                let activity = self.activity.lock();
                let own = activity.trouble.as_ref().map(|before| before.tries);
                down.get(host).map(|before| before.tries).or(own)
            };
            let trouble = Trouble {
                host: host.into(),
                failing,
                tries: before.unwrap_or(0).saturating_add(1),
                next: pause.map(|pause| Instant::now() + pause),
            };
            // Load is shed and gateways fail for single requests; who takes no connection takes nobody's.
            if matches!(failing, Failing::Unreachable | Failing::Silent) {
                down.insert(host.into(), trouble.clone());
            }
            self.activity.lock().trouble = Some(trouble);
            inner.troubled.store(true, Ordering::Relaxed);
        }
        self.board.changed();
    }

    /// The upstream answered, be it with a refusal.
    pub(super) fn answered(&mut self, host: &str) {
        // What it had with another host is over, too.
        let before = self.activity.lock().trouble.take();
        if before.is_some() {
            self.board.changed();
        }
        self.board.relieve(host, |_| true);
    }

    /// How it ended, so far, and what that cost more; without this it counts as cancelled.
    pub(super) fn end(&mut self, outcome: Outcome, tokens: Tokens) {
        let mut all = self
            .ended
            .map_or_else(Tokens::default, |(_, before)| before);
        all += tokens;
        self.ended = Some((outcome, all));
    }

    /// Takes it off the board, once.
    pub(super) fn leave(&mut self) {
        if std::mem::replace(&mut self.left, true) {
            return;
        }
        let (outcome, tokens) = self
            .ended
            .unwrap_or((Outcome::Cancelled, Tokens::default()));
        {
            let mut activity = self.activity.lock();
            *activity.count(self.phase) -= 1;
            activity.last = Some(outcome);
            activity.tokens += tokens;
        }
        self.board.changed();
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.leave();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exchanges_are_counted_by_phase_and_leave_however_they_end() {
        let board = Board::default();
        let terminal: Arc<str> = "run:1".into();
        let mut one = board.enter(&terminal, Some("session_1"), "h:1");
        let two = board.enter(&terminal, None, "h:1");
        one.phase(Phase::Sent);
        one.phase(Phase::Streaming);
        let seen = board.activity("run:1");
        assert_eq!(
            (seen.queued, seen.sent, seen.streaming, seen.in_flight()),
            (1, 0, 1, 2)
        );

        let tokens = Tokens {
            prompt: 5,
            ..Tokens::default()
        };
        one.end(Outcome::WantsTools, tokens);
        drop(one);
        assert_eq!(board.activity("run:1").last, Some(Outcome::WantsTools));
        drop(two);
        let seen = board.activity("run:1");
        assert_eq!(
            (seen.in_flight(), seen.requests, seen.last),
            (0, 2, Some(Outcome::Cancelled))
        );
        assert_eq!(
            (seen.tokens, seen.session.as_deref()),
            (tokens, Some("session_1"))
        );

        let mut lost = board.enter(&terminal, None, "h:1");
        lost.tried("h:1", Some(Failing::Unreachable), Some(Duration::ZERO));
        lost.tried("h:1", Some(Failing::Silent), None);
        drop(lost);
        let [(name, told)] = &board.hindered()[..] else {
            panic!("{:?}", board.hindered());
        };
        let trouble = told.trouble.as_ref().unwrap();
        assert_eq!((&**name, trouble.tries, trouble.next), ("run:1", 2, None));
        board.enter(&terminal, None, "h:1").answered("h:1");
        assert_eq!(board.hindered(), []);

        let other: Arc<str> = "run:2".into();
        let waits = board.enter(&other, None, "h:1");
        let elsewhere = board.enter(&"run:3".into(), None, "h:2");
        let mut lost = board.enter(&terminal, None, "h:1");
        lost.tried("h:1", Some(Failing::Unreachable), None);
        let tries = |name: &str| board.activity(name).trouble.map(|trouble| trouble.tries);
        assert_eq!(
            ["run:1", "run:2", "run:3"].map(tries),
            [Some(1), Some(1), None]
        );
        drop(waits);
        assert_eq!(tries("run:2"), None, "it asks nobody");
        board.reached("h:2");
        assert_eq!(tries("run:1"), Some(1));
        board.reached("h:1");
        assert_eq!(board.hindered(), []);
        lost.tried("h:1", Some(Failing::Unreachable), Some(Duration::ZERO));
        board.reached("h:1");
        assert_eq!(tries("run:1"), Some(1), "the next try tells");
        drop((lost, elsewhere));

        let late = board.enter(&terminal, None, "h:1");
        board.forget("run:1");
        drop(late);
        assert_eq!(board.activity("run:1"), Activity::default());
    }
}
