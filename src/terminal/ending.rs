//! How a program is asked to leave, as data: stages of rising force, each with its time.
//!
//! A stage is skipped when the program has gone. Whatever the stages were, what is left of the terminal's processes
//! after the last one is killed, so a list of stages only decides how politely it begins.

use std::time::Duration;

/// What one stage does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Types these bytes, as a user would.
    Write(Vec<u8>),
    /// SIGHUP: what a program gets when its terminal's window closes.
    Hangup(Target),
    /// SIGTERM.
    Terminate(Target),
    /// SIGKILL.
    Kill(Target),
}

/// Who gets a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// The process group of the program itself.
    Group,
    /// Every process that the terminal started, wherever it has moved to.
    Everyone,
}

/// One stage: a step, and how long its effect is awaited.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stage {
    /// What is done.
    pub step: Step,
    /// How long the program may take to go before the next stage.
    pub grace: Duration,
}

/// The stages, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ending {
    /// Milder first.
    pub stages: Vec<Stage>,
}

impl Ending {
    /// Types each farewell and waits its time; then SIGHUP with two seconds, then SIGKILL to everyone. A program that
    /// needs a pause between two keys gets them as two farewells.
    pub fn polite(farewells: &[(&[u8], Duration)]) -> Self {
        let mut stages: Vec<Stage> = farewells
            .iter()
            .map(|(bytes, grace)| Stage {
                step: Step::Write(bytes.to_vec()),
                grace: *grace,
            })
            .collect();
        stages.push(Stage {
            step: Step::Hangup(Target::Everyone),
            grace: Duration::from_secs(2),
        });
        stages.push(Stage {
            step: Step::Kill(Target::Everyone),
            grace: Duration::from_secs(2),
        });
        Self { stages }
    }

    /// Whether it begins with SIGKILL, so that nobody gets time to leave.
    pub(crate) fn is_rude(&self) -> bool {
        matches!(self.stages.first(), Some(stage) if matches!(stage.step, Step::Kill(_)))
    }

    /// SIGKILL to everyone at once.
    pub fn now() -> Self {
        Self {
            stages: vec![Stage {
                step: Step::Kill(Target::Everyone),
                grace: Duration::from_secs(2),
            }],
        }
    }
}
