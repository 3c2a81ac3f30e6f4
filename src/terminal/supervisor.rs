//! What a terminal is doing, told from its signals and from facts of the outside; pure.
//!
//! Sources by rank: the end of the program; what its screen asks before any traffic (a fact the caller brings); the
//! requests on their way; its progress mark and notifications. Output alone is never taken for work: a spinner and a
//! clock look alike. Which words of a notification mean what is data, so this file knows no program.
//!
//! Invariant: each decision is given once per start, and [`Verdict::wake`] is the only moment at which the answer may
//! change without a note or new facts.

use super::child::Exit;
use super::queries::Signal;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::Duration;
use tokio::time::Instant;

/// After this long the first prompt is typed even into a program that never stops writing.
const RESTLESS: Duration = Duration::from_secs(3);

/// Between two steps Kimi Code takes its progress mark back for some milliseconds (measured on 2.1.0); only a longer
/// pause is one.
const PAUSE: Duration = Duration::from_millis(50);

/// What a terminal is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum State {
    /// Spawned; the program has not shown that it takes input.
    Starting,
    /// The program asks whether the folder is trusted.
    NeedsTrust,
    /// Thinking, answering or running tools.
    Working,
    /// A request is held until the budgets have room.
    Waiting,
    /// The upstream gives no answer, and requests are tried again.
    Retrying,
    /// The program asks for leave to use a tool.
    NeedsApproval,
    /// The program asks its user a question.
    Asks,
    /// Ready for the next message.
    Idle,
    /// It works, but its requests do not arrive at the proxy.
    Bypassing,
    /// The program ended.
    Exited(Exit),
}

impl State {
    /// The name, as in JSON.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::NeedsTrust => "needs_trust",
            Self::Working => "working",
            Self::Waiting => "waiting",
            Self::Retrying => "retrying",
            Self::NeedsApproval => "needs_approval",
            Self::Asks => "asks",
            Self::Idle => "idle",
            Self::Bypassing => "bypassing",
            Self::Exited(_) => "exited",
        }
    }
}

impl fmt::Display for State {
    /// A few words for a person.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Starting => "starting",
            Self::NeedsTrust => "asks to trust the folder",
            Self::Working => "working",
            Self::Waiting => "waiting in the queue",
            Self::Retrying => "retrying",
            Self::NeedsApproval => "needs approval",
            Self::Asks => "asks a question",
            Self::Idle => "idle",
            Self::Bypassing => "bypasses the proxy",
            Self::Exited(exit) => return exit.fmt(out),
        })
    }
}

/// Words in a program's notifications that tell what it wants; an empty one matches nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Phrases {
    /// Marks a request for approval.
    pub approval: String,
    /// Marks a question.
    pub question: String,
    /// Marks the end of a task.
    pub done: String,
}

/// How long things may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// A start that shows nothing for so long lets the next one begin.
    pub start: Duration,
    /// So long without output after it takes input, and the first prompt is typed.
    pub settle: Duration,
    /// So long at work without a request, and the alarm is raised.
    pub bypass: Duration,
}

impl Default for Patience {
    /// Kimi Code shows its first frame after 1.5 s of processor time, and reaches its first request in 2.2 to 3.5 s on
    /// a quiet machine, 25 s when ten start at once on two cores (measured on 2.1.0).
    fn default() -> Self {
        Self {
            start: Duration::from_secs(4),
            settle: Duration::from_millis(400),
            bypass: Duration::from_secs(30),
        }
    }
}

/// What the outside knows about the terminal's traffic and screen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Requests that have arrived under the terminal's key since its start.
    pub requests: u64,
    /// Requests on their way now, held ones included.
    pub in_flight: u32,
    /// Of those, held by the limiter.
    pub waiting: u32,
    /// The upstream gave no answer to the last tries.
    pub troubled: bool,
    /// The last answer ended by calling tools.
    pub tools_called: bool,
    /// The screen shows a question about trust.
    pub trust_prompt: bool,
    /// When the program last wrote, from [`super::Terminal::last_output`].
    pub last_output: Option<Instant>,
}

/// What happened to the terminal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// It takes input.
    Ready,
    /// It told something.
    Signal(Signal),
    /// It ended.
    Exited(Exit),
}

/// What is to be done; each is given once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Type the first message.
    TypePrompt,
    /// The next terminal may start.
    StartNext,
    /// Say loudly that the requests of this terminal do not arrive.
    ReportBypass,
}

/// The state, what to do, and when to ask again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The state.
    pub state: State,
    /// What is to be done now.
    pub decisions: Vec<Decision>,
    /// When the answer may change without a note or new facts.
    pub wake: Option<Instant>,
}

/// What the program last said that it wants of its user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Want {
    Nothing,
    Approval,
    Answer,
}

/// The state machine of one terminal.
#[derive(Debug)]
pub struct Supervisor {
    phrases: Phrases,
    patience: Patience,
    started: Instant,
    ready: Option<Instant>,
    prompt: bool,
    next_started: bool,
    bypass_reported: bool,
    /// Whether the progress mark is shown: `None` until the program has shown one.
    busy: Option<bool>,
    busy_since: Option<Instant>,
    /// When the mark was taken back, until that counts.
    paused: Option<Instant>,
    want: Want,
    exit: Option<Exit>,
}

impl Supervisor {
    /// A terminal that starts now; `prompt` tells whether a first message waits to be typed.
    pub fn new(phrases: Phrases, patience: Patience, prompt: bool, now: Instant) -> Self {
        Self {
            phrases,
            patience,
            started: now,
            ready: None,
            prompt,
            next_started: false,
            bypass_reported: false,
            busy: None,
            busy_since: None,
            paused: None,
            want: Want::Nothing,
            exit: None,
        }
    }

    /// Takes what happened.
    pub fn note(&mut self, note: &Note, now: Instant) {
        match note {
            Note::Ready => {
                self.ready.get_or_insert(now);
            }
            Note::Signal(Signal::Progress(mark)) => self.progress(*mark != 0, now),
            Note::Signal(Signal::Notify(text)) => self.notified(text),
            Note::Signal(_) => {}
            Note::Exited(exit) => self.exit = Some(*exit),
        }
    }

    fn progress(&mut self, busy: bool, now: Instant) {
        if busy {
            // It goes on, so whatever it asked has been answered.
            self.want = Want::Nothing;
            self.paused = None;
            self.busy = Some(true);
            self.busy_since.get_or_insert(now);
        } else if self.busy == Some(true) {
            self.paused.get_or_insert(now);
        } else {
            self.busy = Some(false);
        }
    }

    /// The mark is gone for good.
    fn rest(&mut self) {
        self.busy = self.busy.map(|_| false);
        self.busy_since = None;
        self.paused = None;
    }

    fn notified(&mut self, text: &str) {
        let says = |phrase: &str| !phrase.is_empty() && text.contains(phrase);
        if says(&self.phrases.approval) {
            self.want = Want::Approval;
        } else if says(&self.phrases.question) {
            self.want = Want::Answer;
        } else if says(&self.phrases.done) {
            self.want = Want::Nothing;
            self.rest();
        }
    }

    /// Judges with the newest facts.
    pub fn judge(&mut self, facts: &Facts, now: Instant) -> Verdict {
        if facts.in_flight > 0 {
            self.want = Want::Nothing;
        }
        if facts.trust_prompt && self.ready.is_some() {
            // Kimi Code takes input already while it asks (measured on 2.1.0); messages only afterwards.
            self.ready = Some(now);
        }
        let mut wakes = Vec::new();
        let mut decisions = Vec::new();
        if let Some(at) = self.paused.map(|paused| paused + PAUSE) {
            if now >= at {
                self.rest();
            } else {
                wakes.push(at);
            }
        }
        if !self.next_started {
            let at = self.started + self.patience.start;
            if self.ready.is_some() || self.exit.is_some() || facts.trust_prompt || now >= at {
                self.next_started = true;
                decisions.push(Decision::StartNext);
            } else {
                wakes.push(at);
            }
        }
        if let Some(at) = self.prompt_at(facts) {
            if now >= at {
                self.prompt = false;
                decisions.push(Decision::TypePrompt);
            } else {
                wakes.push(at);
            }
        }
        let bypassing = match self.bypass_at(facts) {
            Some(at) if now >= at => true,
            Some(at) => {
                wakes.push(at);
                false
            }
            None => false,
        };
        if bypassing && !self.bypass_reported {
            self.bypass_reported = true;
            decisions.push(Decision::ReportBypass);
        }
        Verdict {
            state: self.state(facts, bypassing),
            decisions,
            wake: wakes.into_iter().min(),
        }
    }

    fn state(&self, facts: &Facts, bypassing: bool) -> State {
        if let Some(exit) = self.exit {
            State::Exited(exit)
        } else if facts.trust_prompt && facts.requests == 0 {
            State::NeedsTrust
        } else if facts.in_flight > 0 && facts.troubled {
            // Each try passes through the queue; that is no wait of its own.
            State::Retrying
        } else if facts.waiting > 0 {
            State::Waiting
        } else if facts.in_flight > 0 {
            State::Working
        } else if bypassing {
            State::Bypassing
        } else if self.ready.is_none() && facts.requests == 0 && self.busy.is_none() {
            State::Starting
        } else {
            match (self.want, self.busy) {
                (Want::Approval, _) => State::NeedsApproval,
                (Want::Answer, _) => State::Asks,
                // The client got the failure and makes its own pause before it asks again.
                (Want::Nothing, Some(true)) if facts.troubled => State::Retrying,
                (Want::Nothing, Some(true)) => State::Working,
                // It called tools and then stopped showing progress: it waits for leave to run them.
                (Want::Nothing, Some(false)) if facts.tools_called => State::NeedsApproval,
                // Without a progress mark, tools that were called are taken to run.
                (Want::Nothing, None) if facts.tools_called => State::Working,
                (Want::Nothing, _) => State::Idle,
            }
        }
    }

    /// When the first prompt may be typed: some quiet after the program takes input, and nothing asked before.
    fn prompt_at(&self, facts: &Facts) -> Option<Instant> {
        let ready = self.ready?;
        if !self.prompt || self.exit.is_some() || facts.trust_prompt {
            return None;
        }
        let quiet = facts.last_output.unwrap_or(ready).max(ready) + self.patience.settle;
        Some(quiet.min(ready + RESTLESS))
    }

    /// When work without any request becomes suspicious.
    fn bypass_at(&self, facts: &Facts) -> Option<Instant> {
        if facts.requests > 0 || self.exit.is_some() {
            return None;
        }
        Some(self.busy_since? + self.patience.bypass)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn phrases() -> Phrases {
        Phrases {
            approval: "approval required".to_owned(),
            question: "needs your answer".to_owned(),
            done: "task complete".to_owned(),
        }
    }

    fn busy(mark: u8) -> Note {
        Note::Signal(Signal::Progress(mark))
    }

    fn says(text: &str) -> Note {
        Note::Signal(Signal::Notify(text.to_owned()))
    }

    /// Each step: notes, facts, the state that follows.
    #[test]
    fn a_turn_with_an_approval_goes_through_its_states() {
        let now = Instant::now();
        let mut it = Supervisor::new(phrases(), Patience::default(), false, now);
        let quiet = Facts::default();
        let flying = Facts {
            requests: 1,
            in_flight: 1,
            ..quiet
        };
        let held = Facts {
            waiting: 1,
            ..flying
        };
        let lost = Facts {
            troubled: true,
            ..quiet
        };
        let lost_flying = Facts {
            troubled: true,
            ..held
        };
        let called = Facts {
            requests: 1,
            tools_called: true,
            ..quiet
        };
        let done = Facts {
            requests: 2,
            ..quiet
        };
        let steps: &[(&[Note], Facts, State)] = &[
            (&[], quiet, State::Starting),
            (&[Note::Ready], quiet, State::Idle),
            (&[busy(3)], quiet, State::Working),
            (&[], held, State::Waiting),
            (&[], flying, State::Working),
            (&[], lost_flying, State::Retrying),
            (&[], lost, State::Retrying),
            (&[], flying, State::Working),
            (&[busy(3)], called, State::Working),
            (&[busy(0)], called, State::NeedsApproval),
            (
                &[says("Client needs your answer: which?")],
                called,
                State::Asks,
            ),
            (
                &[says("Client approval required: Bash")],
                called,
                State::NeedsApproval,
            ),
            (&[busy(3)], called, State::Working),
            (
                &[busy(0), says("Client task complete: x")],
                done,
                State::Idle,
            ),
            (&[], lost, State::Idle),
        ];
        for (index, (notes, facts, expected)) in steps.iter().enumerate() {
            for note in *notes {
                it.note(note, now);
            }
            let settled = it.judge(facts, now).wake.filter(|at| *at <= now + PAUSE);
            let state = it.judge(facts, settled.unwrap_or(now)).state;
            assert_eq!(state, *expected, "step {index}");
        }
        let exit = Exit {
            code: Some(0),
            signal: None,
        };
        it.note(&Note::Exited(exit), now);
        assert_eq!(it.judge(&held, now).state, State::Exited(exit));
    }

    #[test]
    fn a_short_gap_in_the_progress_mark_is_no_pause() {
        let now = Instant::now();
        let mut it = Supervisor::new(phrases(), Patience::default(), false, now);
        let called = Facts {
            requests: 1,
            tools_called: true,
            ..Facts::default()
        };
        it.note(&busy(3), now);
        it.note(&busy(0), now);
        let verdict = it.judge(&called, now);
        assert_eq!(
            (verdict.state, verdict.wake.map(|at| at - now)),
            (State::Working, Some(PAUSE))
        );
        it.note(&busy(3), now);
        assert_eq!(it.judge(&called, now + PAUSE).state, State::Working);
        it.note(&busy(0), now);
        assert_eq!(it.judge(&called, now + PAUSE).state, State::NeedsApproval);
    }

    #[test]
    fn the_prompt_is_typed_once_into_a_quiet_program() {
        let now = Instant::now();
        let after = |ms| now + Duration::from_millis(ms);
        let mut it = Supervisor::new(phrases(), Patience::default(), true, now);
        let wrote = |ms| Facts {
            last_output: Some(after(ms)),
            ..Facts::default()
        };
        assert_eq!(it.judge(&wrote(0), now).decisions, []);
        it.note(&Note::Ready, after(1000));
        let first = it.judge(&wrote(1000), after(1000));
        assert_eq!(first.decisions, [Decision::StartNext]);
        assert_eq!(first.wake, Some(after(1400)));
        // It wrote again: the wait begins anew.
        assert_eq!(it.judge(&wrote(1300), after(1400)).decisions, []);
        let trust = Facts {
            trust_prompt: true,
            ..wrote(1300)
        };
        assert_eq!(it.judge(&trust, after(9000)).decisions, []);
        // The question is answered: some quiet must follow once more.
        assert_eq!(it.judge(&wrote(9000), after(9100)).decisions, []);
        assert_eq!(
            it.judge(&wrote(9000), after(9400)).decisions,
            [Decision::TypePrompt]
        );
        assert_eq!(it.judge(&wrote(9000), after(9900)).decisions, []);
    }

    #[test]
    fn a_silent_start_lets_the_next_one_begin_after_its_time() {
        let now = Instant::now();
        let mut it = Supervisor::new(phrases(), Patience::default(), false, now);
        let wake = it.judge(&Facts::default(), now).wake.unwrap();
        assert_eq!(wake, now + Patience::default().start);
        let later = it.judge(&Facts::default(), wake);
        assert_eq!(later.decisions, [Decision::StartNext]);
        assert_eq!(later.wake, None);
    }

    #[test]
    fn work_without_a_request_is_reported_once_and_a_request_ends_the_alarm() {
        let now = Instant::now();
        let mut it = Supervisor::new(phrases(), Patience::default(), false, now);
        it.note(&Note::Ready, now);
        it.note(&busy(3), now);
        it.judge(&Facts::default(), now);
        let late = now + Patience::default().bypass;
        let alarm = it.judge(&Facts::default(), late);
        assert_eq!(
            (alarm.state, alarm.decisions),
            (State::Bypassing, vec![Decision::ReportBypass])
        );
        assert_eq!(it.judge(&Facts::default(), late).decisions, []);
        let arrived = Facts {
            requests: 1,
            ..Facts::default()
        };
        assert_eq!(it.judge(&arrived, late).state, State::Working);
    }

    #[test]
    fn states_are_named_alike_in_json_and_in_text() {
        let exit = Exit {
            code: None,
            signal: Some(9),
        };
        for state in [
            State::Starting,
            State::NeedsTrust,
            State::Working,
            State::Waiting,
            State::Retrying,
            State::NeedsApproval,
            State::Asks,
            State::Idle,
            State::Bypassing,
            State::Exited(exit),
        ] {
            let json = serde_json::to_value(state).unwrap();
            assert_eq!(json["state"], state.name());
            assert_eq!(serde_json::from_value::<State>(json).unwrap(), state);
        }
    }
}
