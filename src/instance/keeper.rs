//! The life of one terminal: start, watch, type the first message, restart, end.
//!
//! One task per slot. The judgement is the pure supervisor's; this only feeds it with what happens and does what it
//! says. A terminal that cannot be started stands as ended with its reason, and can be started again.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::instance::host::Instance;
use crate::instance::run::Run;
use crate::instance::slot::Order;
use crate::instance::slot::Slot;
use crate::proxy::Outcome;
use crate::terminal::Decision;
use crate::terminal::Ending;
use crate::terminal::Event;
use crate::terminal::Exit;
use crate::terminal::Facts;
use crate::terminal::Id;
use crate::terminal::Note;
use crate::terminal::Patience;
use crate::terminal::Signal;
use crate::terminal::State;
use crate::terminal::Supervisor;
use crate::terminal::Terminal;
use crate::terminal::Verdict;

/// What Kimi Code 2.1.0 shows once per folder (measured); nothing else tells that it waits there.
const TRUST_PROMPT: &str = "Trust this folder?";

/// What a user is told of a terminal that works while no request of it comes.
const BYPASS: &str = "its requests do not arrive at kimiq: no limits and no totals for it; type /reload in it, or start \
                      it anew";

/// Keeps a slot; a fault in the keeping itself shows in the tab and takes no other terminal with it.
pub(crate) fn spawn(
    host: &Arc<Instance>,
    run: &Arc<Run>,
    slot: &Arc<Slot>,
    after: Option<Arc<Slot>>,
    orders: mpsc::Receiver<Order>,
    launched: Launched,
) {
    let kept = host.tracker.spawn(keep(
        Arc::clone(host),
        Arc::clone(run),
        Arc::clone(slot),
        after,
        orders,
        launched,
    ));
    let (host, run, slot) = (Arc::clone(host), Arc::clone(run), Arc::clone(slot));
    host.tracker.clone().spawn(async move {
        if let Err(error) = kept.await {
            tracing::error!(terminal = %slot.name, %error, "the keeper of a terminal failed");
            slot.notice("kimiq lost hold of this terminal; close it".to_owned());
            slot.live.lock().state = State::Exited(Exit {
                code: None,
                signal: None,
            });
            finish(&host, &slot);
            run.changed();
        }
    });
}

/// Told once whether the first start worked. Who listens for a failure ends the run.
pub(crate) type Launched = oneshot::Sender<Result<(), String>>;
pub(crate) type Launch = oneshot::Receiver<Result<(), String>>;

/// Keeps a slot until it is told to end it.
async fn keep(
    host: Arc<Instance>,
    run: Arc<Run>,
    slot: Arc<Slot>,
    after: Option<Arc<Slot>>,
    mut orders: mpsc::Receiver<Order>,
    launched: Launched,
) {
    if turn(&run, after.as_deref(), &mut orders).await {
        keep_started(&host, &run, &slot, &mut orders, launched).await;
    }
    // Whoever starts after this one need not wait for it any more.
    slot.next.notify_one();
    run.changed();
}

/// Waits until the one before is up. Returns whether the slot is still wanted.
async fn turn(run: &Run, after: Option<&Slot>, orders: &mut mpsc::Receiver<Order>) -> bool {
    let Some(before) = after else {
        return true;
    };
    let turn = async {
        before.next.notified().await;
        tokio::time::sleep(Duration::try_from_secs_f64(run.ask.stagger).unwrap_or_default()).await;
        if run.is_closing() {
            std::future::pending::<()>().await;
        }
    };
    tokio::pin!(turn);
    loop {
        tokio::select! {
            () = &mut turn => return true,
            order = orders.recv() => match order {
                Some(Order::Restart) => {}
                Some(Order::End { done, .. }) => {
                    done.send(()).unwrap_or_default();
                    return false;
                }
                None => return false,
            },
        }
    }
}

async fn keep_started(
    host: &Arc<Instance>,
    run: &Arc<Run>,
    slot: &Arc<Slot>,
    orders: &mut mpsc::Receiver<Order>,
    launched: Launched,
) {
    let mut launched = Some(launched);
    let mut prompt = run.ask.prompt.is_some();
    loop {
        let started = start(host, run, slot);
        let told = launched.take();
        let told = told.map(|told| told.send(started.as_ref().map(|_| ()).map_err(Clone::clone)));
        let run_ends = started.is_err() && told.is_some_and(|told| told.is_ok());
        match started {
            Ok((terminal, events)) => {
                let keeper = Keeper {
                    host,
                    run,
                    slot,
                    terminal,
                    looked: Mutex::default(),
                };
                let now = Instant::now();
                let supervisor = Supervisor::new(run.phrases(), Patience::default(), prompt, now);
                match keeper.watch(supervisor, events, orders).await {
                    ControlFlow::Break(()) => return,
                    // A resumed session has its own past.
                    ControlFlow::Continue(taken) => prompt &= !taken,
                }
            }
            Err(why) => {
                tracing::warn!(terminal = %slot.name, %why, "a terminal could not be started");
                slot.notice(why);
                slot.live.lock().state = State::Exited(Exit {
                    code: None,
                    signal: None,
                });
                if !run_ends {
                    slot.next.notify_one();
                }
                run.changed();
                match orders.recv().await {
                    Some(Order::Restart) => {}
                    Some(Order::End { done, .. }) => {
                        finish(host, slot);
                        done.send(()).unwrap_or_default();
                        return;
                    }
                    None => return,
                }
            }
        }
    }
}

fn finish(host: &Instance, slot: &Slot) {
    host.proxy.keys.revoke(&slot.name);
    host.proxy.board.forget(&slot.name);
    slot.live.lock().key = None;
}

fn start(
    host: &Arc<Instance>,
    run: &Run,
    slot: &Slot,
) -> Result<(Terminal, mpsc::Receiver<(Id, Event)>), String> {
    host.proxy.keys.revoke(&slot.name);
    let key = host
        .proxy
        .keys
        .issue(&slot.name, run.weight(slot.number))
        .map_err(|error| format!("the system gives no randomness: {error}"))?;
    let resume = slot.live.lock().session.clone();
    let spec = run.spec(host, slot, &key, resume)?;
    let (told, events) = mpsc::channel(256);
    let terminal = Terminal::spawn(spec, &host.tracker, told).map_err(|error| chain(&error))?;
    run.dress(&terminal);
    tracing::info!(terminal = %slot.name, pid = terminal.pid(), "started");
    let requests_before = host.proxy.board.activity(&slot.name).requests;
    {
        let mut live = slot.live.lock();
        live.terminal = Some(terminal.clone());
        live.state = State::Starting;
        live.key = Some(key);
        live.requests_before = requests_before;
        live.notices.clear();
    }
    run.changed();
    Ok((terminal, events))
}

/// An error with its causes, on one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}

struct Keeper<'a> {
    host: &'a Arc<Instance>,
    run: &'a Arc<Run>,
    slot: &'a Arc<Slot>,
    terminal: Terminal,
    /// When the program had last written when we looked for the trust question, and whether it was there.
    looked: Mutex<(Option<Instant>, bool)>,
}

impl Keeper<'_> {
    /// Watches a program. Breaks when the slot is to go, continues when the program shall be started again, and tells then
    /// whether it took the first message: a client that ended before it asked anything did not.
    async fn watch(
        &self,
        mut supervisor: Supervisor,
        mut events: mpsc::Receiver<(Id, Event)>,
        orders: &mut mpsc::Receiver<Order>,
    ) -> ControlFlow<(), bool> {
        use std::ops::ControlFlow::Break;
        use std::ops::ControlFlow::Continue;
        let mut typed = false;
        let mut traffic = self.host.proxy.board.changes();
        let mut picture = self.terminal.changes();
        let mut ended = false;
        let mut bypassed = None;
        loop {
            let facts = self.facts();
            let verdict = supervisor.judge(&facts, Instant::now());
            self.obey(&verdict);
            typed |= verdict.decisions.contains(&Decision::TypePrompt);
            if verdict.decisions.contains(&Decision::ReportBypass) {
                bypassed = Some(facts.requests);
            } else if bypassed.is_some_and(|before| facts.requests > before) {
                bypassed = None;
                self.slot.withdraw(BYPASS);
                self.run.changed();
            }
            // The trust question comes and goes on the screen alone, before any request.
            let looking = !ended && facts.requests == 0 && self.run.is_client();
            tokio::select! {
                event = events.recv(), if !ended => {
                    // Without a last event the terminal's own task has failed, so nobody else tells of the exit.
                    let lost = Event::Exited(Exit { code: None, signal: None });
                    let event = event.map_or(lost, |(_, event)| event);
                    self.take(&mut supervisor, event, &mut ended);
                },
                order = orders.recv() => match order {
                    Some(Order::Restart) if ended => {
                        return Continue(typed && (facts.requests > 0 || !self.run.is_client()));
                    }
                    Some(Order::Restart) => {}
                    Some(Order::End { now, done }) => {
                        self.end(now, events).await;
                        finish(self.host, self.slot);
                        done.send(()).unwrap_or_default();
                        return Break(());
                    }
                    None => return Break(()),
                },
                changed = traffic.changed(), if !ended => if changed.is_err() { return Break(()) },
                Ok(()) = picture.changed(), if looking => {}
                () = until(verdict.wake) => {}
            }
        }
    }

    fn take(&self, supervisor: &mut Supervisor, event: Event, ended: &mut bool) {
        let now = Instant::now();
        match event {
            Event::Ready => supervisor.note(&Note::Ready, now),
            Event::Signal(signal) => {
                match &signal {
                    Signal::Title(title) => {
                        self.slot.live.lock().title.clone_from(title);
                        self.run.changed();
                    }
                    Signal::Clipboard(text) => self.run.copy(self.slot.id, text.clone()),
                    _ => {}
                }
                supervisor.note(&Note::Signal(signal), now);
            }
            Event::Exited(exit) => {
                tracing::info!(terminal = %self.slot.name, %exit, "ended");
                supervisor.note(&Note::Exited(exit), now);
                *ended = true;
            }
        }
    }

    fn facts(&self) -> Facts {
        let activity = self.host.proxy.board.activity(&self.slot.name);
        let requests = {
            let mut live = self.slot.live.lock();
            if activity.session.is_some() {
                live.session.clone_from(&activity.session);
            }
            activity.requests.saturating_sub(live.requests_before)
        };
        Facts {
            requests,
            in_flight: activity.in_flight(),
            waiting: activity.queued,
            troubled: activity.trouble.is_some(),
            tools_called: activity.last == Some(Outcome::WantsTools),
            trust_prompt: self.run.is_client() && requests == 0 && self.asks_for_trust(),
            last_output: self.terminal.last_output(),
        }
    }

    fn asks_for_trust(&self) -> bool {
        let written = self.terminal.last_output();
        let mut looked = self.looked.lock();
        if looked.0 != written {
            *looked = (
                written,
                self.terminal.screen().text().contains(TRUST_PROMPT),
            );
        }
        looked.1
    }

    fn obey(&self, verdict: &Verdict) {
        let changed = {
            let mut live = self.slot.live.lock();
            let changed = live.state != verdict.state;
            live.state = verdict.state;
            changed
        };
        if changed {
            tracing::debug!(terminal = %self.slot.name, state = %verdict.state, "state");
            self.run.changed();
        }
        for decision in &verdict.decisions {
            match decision {
                Decision::StartNext => self.slot.next.notify_one(),
                Decision::TypePrompt => self.type_prompt(),
                Decision::ReportBypass if self.run.is_client() => {
                    tracing::error!(terminal = %self.slot.name, "{BYPASS}");
                    self.slot.notice(BYPASS.to_owned());
                    self.run.changed();
                }
                Decision::ReportBypass => {}
            }
        }
    }

    fn type_prompt(&self) {
        let Some(text) = self.run.ask.prompt.clone() else {
            return;
        };
        let (terminal, slot) = (self.terminal.clone(), Arc::clone(self.slot));
        self.host.tracker.spawn(async move {
            if let Err(error) = terminal.type_message(&text).await {
                slot.notice(format!("the first message could not be typed: {error}"));
            }
        });
    }

    /// Ends the program; a hurry of the host shortens it.
    async fn end(&self, now: bool, mut events: mpsc::Receiver<(Id, Event)>) {
        let ending = if now {
            Ending::now()
        } else {
            self.run.ending()
        };
        let end = async {
            tokio::select! {
                exit = self.terminal.end(&ending) => exit,
                () = self.host.hurry.clone().cancelled_owned() => self.terminal.end(&Ending::now()).await,
            }
        };
        // Its last words must not fill the channel.
        let drain = async {
            while events.recv().await.is_some() {}
            std::future::pending::<()>().await;
        };
        let exit = tokio::select! {
            exit = end => exit,
            () = drain => return,
        };
        self.slot.live.lock().state = State::Exited(exit);
    }
}

async fn until(wake: Option<Instant>) {
    match wake {
        // A wake in the past would spin; the supervisor's own steps are far coarser.
        Some(at) => {
            tokio::time::sleep_until(at.max(Instant::now() + Duration::from_millis(1))).await;
        }
        None => std::future::pending().await,
    }
}
