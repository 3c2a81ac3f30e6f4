//! The running host, and what control may ask of it.

use std::ops::Deref;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::DuplexStream;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config;
use crate::config::Resolved;
use crate::control;
use crate::control::HealthReport;
use crate::control::HostEnd;
use crate::control::HostError;
use crate::control::Pending;
use crate::control::Program;
use crate::control::RunInfo;
use crate::control::SnapshotReport;
use crate::control::StartRun;
use crate::control::StopReport;
use crate::control::StopRun;
use crate::control::UsageBy;
use crate::control::UsageReport;
use crate::control::WhyReport;
use crate::instance::acquaint::Acquaintance;
use crate::instance::client::Clients;
use crate::instance::client::Prepared;
use crate::instance::report;
use crate::instance::run::Run;
use crate::instance::slot::Slot;
use crate::instance::waiting;
use crate::instance::window;
use crate::proxy::Proxy;
use crate::terminal::Id;
use crate::terminal::State;
use crate::tui::Prefix;

/// How long a host waits for its first run, and lives on after its last.
const IDLE: Duration = Duration::from_mins(1);

/// How long a hint stands: time enough to read it twice.
const HINT: Duration = Duration::from_secs(30);

/// The running host. Its parts are read as if they were its own.
pub(crate) struct Instance {
    parts: Parts,
    /// The end has begun.
    pub(crate) stopping: CancellationToken,
    /// Without patience.
    pub(crate) hurry: CancellationToken,
    /// What the end brought, once all runs are gone.
    pub(crate) stopped: watch::Sender<Option<StopReport>>,
    pub(crate) notices: Mutex<Vec<String>>,
    /// As `notices`, for a while only.
    pub(crate) hints: Mutex<Vec<String>>,
    pub(crate) runs: Mutex<Vec<Arc<Run>>>,
    next_id: AtomicU64,
    end_begun: AtomicBool,
}

/// What a host is made of; see `build`.
pub(crate) struct Parts {
    pub(crate) name: String,
    pub(crate) demo: bool,
    pub(crate) state: PathBuf,
    pub(crate) started: String,
    pub(crate) port: u16,
    pub(crate) settings: Resolved,
    pub(crate) zone: chrono_tz::Tz,
    pub(crate) prefix: Prefix,
    pub(crate) proxy: Arc<Proxy>,
    pub(crate) clients: Clients,
    /// The upstream of programs that are no client.
    pub(crate) plain: String,
    pub(crate) tracker: TaskTracker,
}

impl Deref for Instance {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.parts
    }
}

impl std::fmt::Debug for Instance {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Instance")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl Instance {
    pub(crate) fn new(parts: Parts) -> Self {
        Self {
            parts,
            stopping: CancellationToken::new(),
            hurry: CancellationToken::new(),
            stopped: watch::Sender::new(None),
            notices: Mutex::default(),
            hints: Mutex::default(),
            runs: Mutex::default(),
            next_id: AtomicU64::new(1),
            end_begun: AtomicBool::new(false),
        }
    }

    pub(crate) fn next_id(&self) -> Id {
        Id(self.next_id.fetch_add(1, Ordering::Relaxed))
    }

    /// Makes upstreams of addresses.
    pub(crate) fn acquaintance(&self) -> Acquaintance<'_> {
        Acquaintance {
            settings: &self.settings,
            client: &self.proxy.client,
            simulated: self.demo.then_some(&*self.plain),
        }
    }

    /// The proxy's address.
    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The value of the variable that marks every process of this host.
    pub(crate) fn mark_value(&self) -> String {
        format!("{}:{}", self.state.display(), self.name)
    }

    /// Tells the user something, once.
    pub(crate) fn notice(&self, text: String) {
        let mut notices = self.notices.lock();
        if !notices.contains(&text) {
            tracing::warn!("{text}");
            notices.push(text);
        }
        drop(notices);
        self.changed();
    }

    /// Tells the user something that need not stand for long.
    pub(crate) fn hint(self: &Arc<Self>, text: String) {
        {
            let mut hints = self.hints.lock();
            if hints.contains(&text) {
                return;
            }
            tracing::info!("{text}");
            hints.push(text.clone());
        }
        let host = Arc::clone(self);
        let withdraw = async move {
            tokio::time::sleep(HINT).await;
            host.hints.lock().retain(|hint| *hint != text);
            host.changed();
        };
        let withdraw = self.stopping.clone().run_until_cancelled_owned(withdraw);
        self.tracker.spawn(withdraw);
        self.changed();
    }

    fn changed(&self) {
        for run in self.runs() {
            run.changed();
        }
    }

    pub(crate) fn runs(&self) -> Vec<Arc<Run>> {
        self.runs.lock().clone()
    }

    /// The named run; without a name the newest.
    pub(crate) fn find_run(&self, name: Option<&str>) -> Result<Arc<Run>, HostError> {
        let runs = self.runs.lock();
        let found = match name {
            Some(name) => runs.iter().find(|run| run.name == name),
            None => runs.last(),
        };
        found.cloned().ok_or_else(|| {
            HostError::NotFound(name.map_or_else(
                || "there is no run".to_owned(),
                |name| format!("there is no run `{name}`"),
            ))
        })
    }

    /// `RUN:N`, or `N` of the newest run.
    pub(crate) fn find_slot(&self, given: &str) -> Result<(Arc<Run>, Arc<Slot>), HostError> {
        let (run, number) = match given.rsplit_once(':') {
            Some((run, number)) => (Some(run), number),
            None => (None, given),
        };
        let number: u16 = number.parse().map_err(|_no_number| {
            HostError::Invalid(format!("`{given}` names no terminal; write it as work:2"))
        })?;
        let run = self.find_run(run)?;
        let slot = run.slot(number).ok_or_else(|| {
            HostError::NotFound(format!("`{}` has no terminal {number}", run.name))
        })?;
        Ok((run, slot))
    }

    /// Takes a run away that has ended.
    fn remove(&self, run: &Arc<Run>) {
        self.runs.lock().retain(|other| !Arc::ptr_eq(other, run));
    }

    /// Ends one run: its programs, its keys, what was changed for it.
    pub(crate) async fn end_run(&self, run: &Arc<Run>, now: bool) -> Vec<control::Resume> {
        let resume = run.end(now).await;
        self.remove(run);
        if let Some(prepared) = run.prepared() {
            self.clients.release(prepared).await;
        }
        resume
    }

    /// A window closed or a terminal went: a run that nobody sees and in which nothing runs has ended.
    pub(crate) async fn tidy(self: &Arc<Self>, run: &Arc<Run>) {
        let gone =
            run.slots().is_empty() || (run.attached.load(Ordering::Acquire) == 0 && run.is_dead());
        if gone && !self.stopping.is_cancelled() {
            self.end_run(run, false).await;
            if self.runs.lock().is_empty() {
                self.begin_end(false);
            }
        }
    }

    /// Begins the end, once. `now` takes the patience out of an end that has begun, too.
    pub(crate) fn begin_end(self: &Arc<Self>, now: bool) {
        if now {
            self.hurry.cancel();
        }
        if self.end_begun.swap(true, Ordering::AcqRel) {
            return;
        }
        tracing::info!(now, "stopping");
        let host = Arc::clone(self);
        self.tracker.spawn(async move { host.end().await });
    }

    /// The written order up to the point where no run is left. The rest is `lifecycle`'s.
    async fn end(self: Arc<Self>) {
        // 1. Nothing new: no runs, no admissions.
        self.stopping.cancel();
        self.proxy.gate.close();
        // 2. What runs may finish.
        let grace = self.settings.span("host.grace").unwrap_or_default();
        tokio::select! {
            () = self.drained() => {}
            () = tokio::time::sleep(grace) => tracing::info!("requests were cut at the end of the grace period"),
            () = self.hurry.cancelled() => {}
        }
        // 3. Programs: asked, awaited, killed; and what was changed for them is put back.
        let mut report = StopReport {
            host_ends: true,
            ..StopReport::default()
        };
        let mut ending = tokio::task::JoinSet::new();
        for run in self.runs() {
            let host = Arc::clone(&self);
            ending.spawn(async move {
                let resume = host.end_run(&run, host.hurry.is_cancelled()).await;
                (run.name.clone(), resume)
            });
        }
        while let Some(ended) = ending.join_next().await {
            match ended {
                Ok((run, sessions)) => {
                    report.runs.push(run);
                    report.sessions.extend(sessions);
                }
                Err(error) => tracing::error!(%error, "a run could not be ended in order"),
            }
        }
        report.runs.sort();
        report.sessions.sort_by(|a, b| a.terminal.cmp(&b.terminal));
        self.stopped.send_replace(Some(report));
    }

    async fn drained(&self) {
        let mut changes = self.proxy.gate.changes();
        loop {
            let busy: usize = self
                .proxy
                .gate
                .snapshot()
                .pools
                .iter()
                .map(|pool| pool.in_flight)
                .sum();
            if busy == 0 || changes.changed().await.is_err() {
                return;
            }
        }
    }

    /// Resolves when no run is left and the end has begun.
    pub(crate) async fn wait_stopped(&self) -> StopReport {
        let mut stopped = self.stopped.subscribe();
        match stopped.wait_for(Option::is_some).await {
            Ok(report) => report.clone().unwrap_or_default(),
            Err(_) => StopReport::default(),
        }
    }

    /// Ends a host that nobody gave a run.
    pub(crate) async fn end_when_unused(self: Arc<Self>) {
        tokio::time::sleep(IDLE).await;
        if self.runs.lock().is_empty() {
            tracing::info!("no run came");
            self.begin_end(false);
        }
    }

    /// Puts a run on the list, from where the end of the host takes it.
    fn enlist(
        &self,
        ask: StartRun,
        prepared: Option<Arc<Prepared>>,
    ) -> Result<Arc<Run>, HostError> {
        let mut runs = self.runs.lock();
        // Asked under the lock: an end that begins after this finds the run in the list.
        if self.stopping.is_cancelled() {
            return Err(HostError::Stopping);
        }
        let name = match &ask.name {
            Some(name) if runs.iter().any(|run| run.name == *name) => {
                let text =
                    format!("there is a run `{name}` already; `kimiq attach {name}` shows it");
                return Err(HostError::Invalid(text));
            }
            Some(name) if !control::is_plain_name(name) => {
                return Err(HostError::Invalid(format!("`{name}` is no name for a run")));
            }
            Some(name) => name.clone(),
            None => free_name(if self.demo { "demo" } else { "run" }, |name| {
                runs.iter().any(|run| run.name == name)
            }),
        };
        let run = Arc::new(Run::new(name, report::now(), ask, prepared));
        runs.push(Arc::clone(&run));
        Ok(run)
    }

    async fn start_run(self: Arc<Self>, mut ask: StartRun) -> Result<RunInfo, HostError> {
        if self.stopping.is_cancelled() {
            return Err(HostError::Stopping);
        }
        for name in config::INSIDE {
            // The command was typed in one of our own terminals.
            ask.env.remove(name);
        }
        if ask.count == 0 {
            return Err(HostError::Invalid("a run needs a terminal".to_owned()));
        }
        let prepared = match &ask.program {
            Program::Client { .. } => Some(self.clients.prepare(&self, &mut ask).await?),
            Program::Exec { .. } if ask.dirs.is_empty() => {
                return Err(HostError::Invalid("a run needs a folder".to_owned()));
            }
            Program::Exec { .. } => {
                let acquaintance = self.acquaintance();
                let upstream = acquaintance.make(report::DEFAULT_ROUTE, &self.plain).await;
                self.proxy
                    .routes
                    .set(upstream.map_err(|error| HostError::Invalid(error.to_string()))?);
                None
            }
        };
        let run = match self.enlist(ask, prepared.clone()) {
            Ok(run) => run,
            Err(error) => {
                if let Some(prepared) = &prepared {
                    self.clients.release(prepared).await;
                }
                return Err(error);
            }
        };
        if let Err(error) = run.start(&self).await {
            self.end_run(&run, true).await;
            return Err(error);
        }
        Ok(report::run(&self, &run))
    }
}

fn free_name(base: &str, taken: impl Fn(&str) -> bool) -> String {
    let mut name = base.to_owned();
    let mut number = 2;
    while taken(&name) {
        name = format!("{base}-{number}");
        number += 1;
    }
    name
}

/// A way to a host in this process.
#[derive(Clone, Debug)]
pub struct Handle(pub(crate) Arc<Instance>);

impl Handle {
    /// Resolves when the host has begun its end and no run is left.
    pub async fn ended(&self) -> StopReport {
        self.0.wait_stopped().await
    }

    /// Ends the host when no program of the run is left, or waits until something else ends it.
    pub async fn ended_with(&self, run: &str) -> StopReport {
        if let Ok(run) = self.0.find_run(Some(run)) {
            let mut changes = run.changes();
            let over = async { while !run.is_dead() && changes.changed().await.is_ok() {} };
            tokio::select! {
                () = over => self.0.begin_end(false),
                () = self.0.stopping.cancelled() => {}
            }
        }
        self.ended().await
    }

    /// The port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.0.port
    }

    /// Where paths without a route go.
    pub fn default_upstream(&self) -> String {
        let all = self.0.proxy.routes.all();
        all.iter()
            .find(|upstream| &**upstream.name() == report::DEFAULT_ROUTE)
            .map(|upstream| upstream.base())
            .unwrap_or_default()
    }

    /// Starts a run.
    pub async fn start(&self, ask: StartRun) -> Result<RunInfo, super::InstanceError> {
        Ok(Arc::clone(&self.0).start_run(ask).await?)
    }

    /// Opens a window in this process.
    pub fn window(&self) -> DuplexStream {
        let (near, far) = tokio::io::duplex(64 << 10);
        let host = Arc::clone(&self.0);
        self.0.tracker.spawn(async move {
            match control::accept(far, &host.tracker).await {
                Ok(end) => {
                    if let Err(error) = window::show(&host, end).await {
                        tracing::debug!(%error, "the window was turned away");
                    }
                }
                Err(error) => tracing::debug!(%error, "the window said no hello"),
            }
        });
        near
    }
}

impl control::Host for Handle {
    fn health(&self, probe: bool) -> Pending<'_, HealthReport> {
        Box::pin(async move { Ok(report::health(&self.0, probe).await) })
    }

    fn usage(&self, days: u16, by: UsageBy) -> Result<UsageReport, HostError> {
        Ok(report::usage(&self.0, days, by))
    }

    fn runs(&self) -> Vec<RunInfo> {
        self.0
            .runs()
            .iter()
            .map(|run| report::run(&self.0, run))
            .collect()
    }

    fn why(&self, terminal: Option<&str>) -> Result<Vec<WhyReport>, HostError> {
        waiting::why(&self.0, terminal)
    }

    fn start(&self, ask: StartRun) -> Pending<'_, RunInfo> {
        let host = Arc::clone(&self.0);
        // The run is finished also if the command that asked goes away.
        let started = self.0.tracker.spawn(async move {
            let started = Arc::clone(&host).start_run(ask).await;
            // As after the last run: nothing is left to do. A run that comes now gets another host.
            if started.is_err() && host.runs.lock().is_empty() {
                host.begin_end(false);
            }
            started
        });
        Box::pin(async move {
            started
                .await
                .unwrap_or_else(|error| Err(HostError::Failed(error.to_string())))
        })
    }

    fn stop(&self, ask: StopRun) -> Pending<'_, StopReport> {
        let host = Arc::clone(&self.0);
        let Some(name) = ask.run else {
            host.begin_end(ask.now);
            return Box::pin(async move { Ok(host.wait_stopped().await) });
        };
        let stopped = self.0.tracker.spawn(async move {
            let run = host.find_run(Some(&name))?;
            let sessions = host.end_run(&run, ask.now).await;
            let host_ends = host.runs.lock().is_empty();
            if host_ends {
                host.begin_end(ask.now);
            }
            Ok(StopReport {
                runs: vec![name],
                sessions,
                host_ends,
            })
        });
        Box::pin(async move {
            stopped
                .await
                .unwrap_or_else(|error| Err(HostError::Failed(error.to_string())))
        })
    }

    fn send(&self, ask: control::Send) -> Pending<'_, ()> {
        Box::pin(async move {
            let (run, slot) = self.0.find_slot(&ask.terminal)?;
            // An empty one is a key pressed on purpose.
            if run.is_client() && ask.enter && !ask.text.is_empty() {
                takes_messages(&slot)?;
            }
            let failed = |error: crate::terminal::Fault| HostError::Failed(error.to_string());
            let terminal = slot
                .terminal()
                .ok_or_else(|| HostError::Failed("the terminal has not started".to_owned()))?;
            if ask.enter {
                terminal.type_message(&ask.text).await.map_err(failed)
            } else {
                terminal.paste(ask.text.as_bytes()).map_err(failed)
            }
        })
    }

    fn snapshot(&self, terminal: &str) -> Result<SnapshotReport, HostError> {
        let (_, slot) = self.0.find_slot(terminal)?;
        let Some(terminal) = slot.terminal() else {
            return Err(HostError::Failed("the terminal has not started".to_owned()));
        };
        let (size, text) = {
            let screen = terminal.screen();
            (screen.size(), screen.text())
        };
        Ok(SnapshotReport {
            terminal: slot.name.to_string(),
            state: slot.live.lock().state.name().to_owned(),
            columns: size.columns,
            rows: size.rows,
            lines: text
                .lines()
                .map(|line| line.trim_end().to_owned())
                .collect(),
        })
    }

    fn status_line(&self, key: &str) -> Option<String> {
        let asker = self.0.proxy.keys.asker(key.as_bytes())?;
        Some(report::status_line(&self.0, &asker.terminal))
    }

    fn attach(&self, window: HostEnd) -> Pending<'_, ()> {
        Box::pin(async move { window::show(&self.0, window).await })
    }
}

/// A message that is typed and sent would be lost in a program that starts, and would answer one that asks for leave.
fn takes_messages(slot: &Slot) -> Result<(), HostError> {
    let state = slot.live.lock().state;
    let refused = |why: &str| Err(HostError::Failed(format!("{} {why}", slot.name)));
    match state {
        State::Starting => refused("is starting; send the message when `kimiq ps` says idle"),
        State::NeedsTrust | State::NeedsApproval => refused(&format!(
            "{state}, and a message would answer that; `kimiq attach` shows the question"
        )),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_get_names_of_their_own() {
        assert_eq!(free_name("run", |_| false), "run");
        assert_eq!(
            free_name("run", |name| ["run", "run-2"].contains(&name)),
            "run-3"
        );
    }
}
