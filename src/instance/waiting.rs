//! Why a terminal does not go on: one judgement for windows, footers and commands.
//!
//! In this order: a request of it is held by a budget; the upstream gives no answer; the day's cap refused it; it wants
//! its user. The words of the first and the third are the limiter's, those of the second the proxy's.

use std::time::Duration;

use tokio::time::Instant;

use crate::clock;
use crate::control::HostError;
use crate::control::WaitInfo;
use crate::control::WhyReport;
use crate::instance::host::Instance;
use crate::instance::slot::Slot;
use crate::limits::Snapshot;
use crate::limits::Wait;
use crate::proxy::Activity;
use crate::proxy::Trouble;
use crate::terminal::State;
use crate::usage::figures;

/// States of requests that are none of a terminal: the day's cap refuses all of them, or refused this one.
const CAPPED: &str = "capped";
const REFUSED: &str = "refused";

/// Why something waits.
#[derive(Clone, Debug)]
pub(crate) struct Told {
    /// One sentence.
    pub(crate) sentence: String,
    /// The time until it goes on, if that can be told, in few characters.
    pub(crate) clock: Option<String>,
    /// The same for programs.
    pub(crate) eta: Option<Duration>,
    /// The wait for a budget.
    pub(crate) wait: Option<Wait>,
}

/// Why this terminal waits; `None` when nothing of it does.
pub(crate) fn of(host: &Instance, slot: &Slot) -> Option<Told> {
    let state = slot.live.lock().state;
    let activity = host.proxy.board.activity(&slot.name);
    match host.proxy.gate.wait_of(&slot.name) {
        Some(wait) => Some(held(wait, &activity)),
        None => hindered(host, &activity, Some(state)),
    }
}

fn held(wait: Wait, activity: &Activity) -> Told {
    // Where the upstream is down, room in a budget is no promise.
    let told = match &activity.trouble {
        Some(trouble) => Told {
            sentence: down(trouble, &wait.sentence()),
            ..next_try(trouble)
        },
        None => Told {
            sentence: wait.sentence(),
            clock: Some(wait.clock()),
            eta: Some(Duration::from_millis(wait.eta_ms)),
            wait: None,
        },
    };
    Told {
        wait: Some(wait),
        ..told
    }
}

/// What is wrong with the upstream, and what a request waits for besides.
fn down(trouble: &Trouble, wait: &str) -> String {
    let now = Instant::now();
    match trouble.next_in(now) {
        Some(left) if !left.is_zero() => format!("{}; {wait}", trouble.sentence(true, now)),
        _ => format!("{}; {wait}", trouble.what()),
    }
}

fn next_try(trouble: &Trouble) -> Told {
    let left = trouble.next_in(Instant::now());
    let left = left.filter(|left| !left.is_zero());
    Told {
        sentence: String::new(),
        clock: left.map(|left| figures::time(whole(left))),
        eta: left,
        wait: None,
    }
}

/// What is no budget's wait: the upstream gives no answer, or the day's cap refused the last request.
fn hindered(host: &Instance, activity: &Activity, state: Option<State>) -> Option<Told> {
    unanswered(activity, state).or_else(|| {
        activity.capped(clock::wall())?;
        Some(Told {
            sentence: host.proxy.gate.snapshot().day.refusal(),
            clock: None,
            eta: None,
            wait: None,
        })
    })
}

/// `state`: of the terminal. Its client may be about to ask again although nothing is under way.
fn unanswered(activity: &Activity, state: Option<State>) -> Option<Told> {
    let trouble = activity.trouble.as_ref()?;
    let under_way = activity.in_flight() > 0;
    if !under_way && state != Some(State::Retrying) {
        return None;
    }
    Some(Told {
        sentence: trouble.sentence(under_way, Instant::now()),
        ..next_try(trouble)
    })
}

fn whole(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// A wait for a budget, as commands get it.
pub(crate) fn info(wait: &Wait) -> WaitInfo {
    let seconds = |millis| Duration::from_millis(millis).as_secs_f64();
    WaitInfo {
        budget: wait.budget.to_string(),
        missing: wait.missing,
        place: wait.place,
        eta: seconds(wait.eta_ms),
        waited: seconds(wait.waited_ms),
        behind: wait.behind.clone(),
    }
}

/// Why a terminal waits, or everything that waits.
pub(crate) fn why(host: &Instance, terminal: Option<&str>) -> Result<Vec<WhyReport>, HostError> {
    let Snapshot { queue, day, .. } = host.proxy.gate.snapshot();
    let held = |name: Option<&str>| {
        queue
            .iter()
            .filter(|one| name.is_none_or(|name| one.terminal == name))
            .map(|one| {
                let trouble = host.proxy.board.activity(&one.terminal).trouble;
                let (state, why, eta) = if let Some(trouble) = &trouble {
                    let why = down(trouble, &one.wait.in_full());
                    (State::Retrying, why, next_try(trouble).eta)
                } else {
                    let eta = Duration::from_millis(one.wait.eta_ms);
                    (State::Waiting, one.wait.in_full(), Some(eta))
                };
                WhyReport {
                    terminal: inside(&one.terminal),
                    state: state.name().to_owned(),
                    why,
                    eta: eta.map(|eta| eta.as_secs_f64()),
                    wait: Some(info(&one.wait)),
                }
            })
            .collect::<Vec<_>>()
    };
    if let Some(given) = terminal {
        let (run, slot) = host.find_slot(given)?;
        let reports = held(Some(&slot.name));
        if !reports.is_empty() {
            return Ok(reports);
        }
        return Ok(vec![
            stuck(host, &run.name, &slot).unwrap_or_else(|| at_ease(host, &slot)),
        ]);
    }
    let mut reports = held(None);
    if day.is_full() {
        reports.push(WhyReport {
            state: CAPPED.to_owned(),
            why: day.refusal(),
            ..WhyReport::default()
        });
    }
    let waits = |name: &str| queue.iter().any(|one| one.terminal == name);
    for run in host.runs() {
        let slots = run.slots().into_iter().filter(|slot| !waits(&slot.name));
        reports.extend(slots.filter_map(|slot| stuck(host, &run.name, &slot)));
    }
    let outside = host
        .proxy
        .board
        .hindered()
        .into_iter()
        .filter(|(name, _)| inside(name).is_none() && !waits(name));
    reports.extend(outside.filter_map(|(_, activity)| {
        let told = hindered(host, &activity, None)?;
        let retries = activity.trouble.is_some();
        Some(WhyReport {
            state: if retries {
                State::Retrying.name()
            } else {
                REFUSED
            }
            .to_owned(),
            why: told.sentence,
            eta: told.eta.map(|left| left.as_secs_f64()),
            ..WhyReport::default()
        })
    }));
    Ok(reports)
}

/// The name of a terminal; requests from outside have none.
fn inside(name: &str) -> Option<String> {
    name.contains(':').then(|| name.to_owned())
}

/// Why a terminal that no budget holds does not go on, if it does not.
fn stuck(host: &Instance, run: &str, slot: &Slot) -> Option<WhyReport> {
    let state = slot.live.lock().state;
    let report = |why, eta: Option<Duration>| {
        Some(WhyReport {
            terminal: Some(slot.name.to_string()),
            state: state.name().to_owned(),
            why,
            eta: eta.map(|left| left.as_secs_f64()),
            wait: None,
        })
    };
    if let Some(told) = hindered(host, &host.proxy.board.activity(&slot.name), Some(state)) {
        return report(told.sentence, told.eta);
    }
    match state {
        State::NeedsTrust | State::NeedsApproval | State::Asks => report(
            format!("waits for you: {state}; `kimiq attach {run}`"),
            None,
        ),
        State::Bypassing => report(
            "works, but its requests do not arrive here".to_owned(),
            None,
        ),
        _ => None,
    }
}

/// What keeps requests from an answer, by those who ask; empty when all is well.
pub(crate) fn troubles(host: &Instance) -> Vec<String> {
    let runs = host.runs();
    let slots = || runs.iter().flat_map(|run| run.slots());
    let state_of = |name: &str| {
        let slot = slots().find(|slot| *slot.name == *name)?;
        let state = slot.live.lock().state;
        Some(state)
    };
    let troubled = host.proxy.board.hindered().into_iter();
    troubled
        .filter_map(|(name, activity)| {
            let told = hindered(host, &activity, state_of(&name))?;
            let who = inside(&name).unwrap_or_else(|| "a request from outside".to_owned());
            Some(format!("{who}: {}", told.sentence))
        })
        .collect()
}

/// Why a terminal needs nothing.
fn at_ease(host: &Instance, slot: &Slot) -> WhyReport {
    let state = slot.live.lock().state;
    let activity = host.proxy.board.activity(&slot.name);
    let why = if activity.streaming > 0 {
        "does not wait: its answer flows".to_owned()
    } else if activity.sent > 0 {
        "waits for the upstream's first words; no budget holds it".to_owned()
    } else if let (Some(trouble), State::Idle) = (&activity.trouble, state) {
        format!(
            "nothing of it waits here: {state}, and its last request failed: {}",
            trouble.what()
        )
    } else if let State::Exited(_) = state {
        format!("does not wait: {state}")
    } else {
        format!("nothing of it waits here: {state}")
    };
    WhyReport {
        terminal: Some(slot.name.to_string()),
        state: state.name().to_owned(),
        why,
        eta: None,
        wait: None,
    }
}
