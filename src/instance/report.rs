//! What the host knows, as the plain values that windows, commands and footers show.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::clock;
use crate::control::BudgetInfo;
use crate::control::DayInfo;
use crate::control::HealthReport;
use crate::control::HourInfo;
use crate::control::PoolInfo;
use crate::control::RepairRow;
use crate::control::RiseInfo;
use crate::control::RunInfo;
use crate::control::TerminalInfo;
use crate::control::UpstreamInfo;
use crate::control::UsageBy;
use crate::control::UsageReport;
use crate::control::UsageRow;
use crate::control::WaitedInfo;
use crate::instance::host::Instance;
use crate::instance::run::Run;
use crate::instance::slot::Slot;
use crate::instance::waiting;
use crate::limits::PoolView;
use crate::limits::Snapshot;
use crate::terminal::State;
use crate::tui::Status;
use crate::tui::Tab;
use crate::tui::ViewModel;
use crate::upstream::Upstream;
use crate::usage::By;
use crate::usage::Dimensions;
use crate::usage::Ledger;
use crate::usage::Total;
use crate::usage::figures;
use crate::usage::figures::Share;

/// Name of the upstream that paths without a route go to.
pub(crate) const DEFAULT_ROUTE: &str = "default";

/// How long an upstream may take to take a connection.
const PROBE: Duration = Duration::from_secs(5);

/// The time of day, as reports write it.
pub(crate) fn now() -> String {
    clock::wall().to_rfc3339_opts(chrono::SecondsFormat::Millis, true)
}

/// A run.
pub(crate) fn run(host: &Instance, run: &Run) -> RunInfo {
    RunInfo {
        name: run.name.clone(),
        started: run.started.clone(),
        attached: run.attached.load(Ordering::Acquire),
        terminals: run
            .slots()
            .iter()
            .map(|slot| terminal(host, run, slot))
            .collect(),
    }
}

fn terminal(host: &Instance, run: &Run, slot: &Slot) -> TerminalInfo {
    let activity = host.proxy.board.activity(&slot.name);
    let told = waiting::of(host, slot);
    let live = slot.live.lock();
    let exit = match live.state {
        State::Exited(exit) => Some(exit),
        _ => None,
    };
    let running = live.terminal.as_ref().filter(|_| exit.is_none());
    TerminalInfo {
        number: slot.number,
        weight: run.weight(slot.number),
        title: live.title.clone(),
        state: live.state.name().to_owned(),
        words: live.state.to_string(),
        wait: told.as_ref().map(|told| told.sentence.clone()),
        waits: told.and_then(|told| told.wait).as_ref().map(waiting::info),
        session: live.session.clone(),
        pid: running.and_then(|terminal| u32::try_from(terminal.pid()).ok()),
        exit_code: exit.and_then(|exit| exit.code),
        exit_signal: exit.and_then(|exit| exit.signal),
        dir: slot.dir.clone(),
        requests: activity.requests,
        in_flight: activity.in_flight(),
        tokens: activity.tokens,
        notices: live.notices.clone(),
    }
}

/// What a window shows around the screens.
pub(crate) fn view(host: &Instance, run: &Run) -> ViewModel {
    let slots = run.slots();
    // A window shows the first only, and nothing weighs more than what a terminal itself has.
    let mut notices = Vec::new();
    let terminals = slots
        .iter()
        .map(|slot| {
            let told = waiting::of(host, slot);
            let live = slot.live.lock();
            notices.extend(
                live.notices
                    .iter()
                    .map(|notice| format!("{}: {notice}", slot.number)),
            );
            Tab {
                number: slot.number,
                id: slot.id,
                title: live.title.clone(),
                state: live.state,
                wait: told.as_ref().map(|told| told.sentence.clone()),
                clock: told.and_then(|told| told.clock),
            }
        })
        .collect();
    notices.extend(warnings(host));
    let snapshot = host.proxy.gate.snapshot();
    let tightest = tightest(&snapshot);
    ViewModel {
        run: run.name.clone(),
        terminals,
        status: Status {
            queue: snapshot.queue.len(),
            budget: tightest.map(|pool| (pool.binding.to_string(), pool.percent)),
            tokens_today: snapshot.day.used,
            daily_cap: Some(snapshot.day.cap),
            notices,
        },
    }
}

fn tightest(snapshot: &Snapshot) -> Option<&PoolView> {
    let limited = |pool: &&PoolView| pool.usable().iter().any(Option::is_some);
    let pools = snapshot.pools.iter().filter(limited);
    pools.max_by_key(|pool| pool.percent)
}

/// What the user of this host should know, the weightiest first.
fn warnings(host: &Instance) -> Vec<String> {
    let mut told = Vec::new();
    let day = host.proxy.gate.snapshot().day;
    if day.warned || day.is_full() {
        told.push(if day.is_full() {
            format!("every request is {}", day.refusal())
        } else {
            let used = Share::of(day.used, day.cap);
            let ends = day.resets_at.format("%H:%M UTC");
            format!("{used} of the day's tokens are used; the day ends {ends}")
        });
    }
    told.extend(host.notices.lock().iter().cloned());
    told.extend(host.hints.lock().iter().cloned());
    told
}

/// The line in the footer of a terminal.
pub(crate) fn status_line(host: &Instance, terminal: &str) -> String {
    let snapshot = host.proxy.gate.snapshot();
    let mut parts = vec![format!("kimiq {terminal}")];
    let slot = host.find_slot(terminal).ok();
    if let Some(told) = slot.and_then(|(_, slot)| waiting::of(host, &slot)) {
        parts.push(told.sentence);
    } else if !snapshot.queue.is_empty() {
        parts.push(format!("queue {}", snapshot.queue.len()));
    }
    if let Some(pool) = tightest(&snapshot) {
        parts.push(format!("{} {}", pool.binding, pool.percent));
    }
    let day = &snapshot.day;
    parts.push(format!(
        "today {} tokens ({})",
        figures::short(day.used),
        Share::of(day.used, day.cap)
    ));
    parts.join(" · ")
}

/// Totals.
pub(crate) fn usage(host: &Instance, days: u16, by: UsageBy) -> UsageReport {
    let snapshot = host.proxy.gate.snapshot();
    UsageReport {
        pools: pools(&snapshot),
        repairs: repairs(host),
        ..totals(&host.proxy.ledger, host.zone, snapshot.day.cap, days, by)
    }
}

/// Totals of the ledger alone; no budget is known.
pub(crate) fn totals(
    ledger: &Ledger,
    zone: chrono_tz::Tz,
    cap: u64,
    days: u16,
    by: UsageBy,
) -> UsageReport {
    let (date, today) = ledger.today();
    let columns: &[By] = match by {
        UsageBy::Terminal => &[By::Day, By::Source, By::Terminal],
        UsageBy::Model => &[By::Day, By::Model],
        UsageBy::Day => &[By::Day],
    };
    let row = |total: Total| {
        let day = total.day.map(|day| day.to_string()).unwrap_or_default();
        let terminal = total.terminal.unwrap_or_default();
        let key = match (by, total.source.as_deref()) {
            (UsageBy::Model, _) => total.model.unwrap_or_default(),
            (UsageBy::Day, _) => day.clone(),
            (UsageBy::Terminal, None | Some("")) => terminal,
            (UsageBy::Terminal, Some(run)) if terminal.is_empty() => run.to_owned(),
            (UsageBy::Terminal, Some(run)) => format!("{run}:{terminal}"),
        };
        UsageRow {
            day,
            key,
            requests: total.requests,
            tokens: total.tokens,
        }
    };
    let rows = ledger
        .totals(u32::from(days), columns)
        .into_iter()
        .map(row)
        .collect();
    let total = today.tokens.total();
    UsageReport {
        today: DayInfo {
            date: date.to_string(),
            time_zone: zone.name().to_owned(),
            requests: today.requests,
            tokens: today.tokens,
            total,
            cap,
            left: cap.saturating_sub(total),
        },
        by,
        rows,
        pools: Vec::new(),
        repairs: Vec::new(),
    }
}

fn repairs(host: &Instance) -> Vec<RepairRow> {
    let row = |(model, kind, count): (String, &str, u32)| RepairRow {
        model,
        kind: kind.to_owned(),
        count,
    };
    host.proxy.repairing.counts().into_iter().map(row).collect()
}

fn pools(snapshot: &Snapshot) -> Vec<PoolInfo> {
    let of = |pool: &PoolView| {
        let budget = |name: &str, used: u64, held: u64, limit: Option<u64>| BudgetInfo {
            name: name.to_owned(),
            used: used + held,
            limit,
            percent: limit.map_or_else(Share::default, |limit| Share::of(used + held, limit)),
        };
        let (used, held, [prompt, uncached, generated]) = (&pool.used, &pool.held, pool.usable());
        PoolInfo {
            name: pool.name.clone(),
            budgets: vec![
                budget("prompt", used.prompt, held.prompt, prompt),
                budget("uncached", used.uncached, held.uncached, uncached),
                budget("generated", used.generated, held.generated, generated),
            ],
            queue: pool.waiting,
            in_flight: pool.in_flight,
            paused: pool.paused_ms > 0,
            hour: hour(pool),
            advice: pool.advice(),
        }
    };
    snapshot.pools.iter().map(of).collect()
}

fn hour(pool: &PoolView) -> HourInfo {
    let seconds = |millis| Duration::from_millis(millis).as_secs_f64();
    let limits = pool.limits.into_array();
    let rises = pool
        .ladder
        .map(Dimensions::into_array)
        .into_iter()
        .flatten();
    let of = pool.hour.clone();
    HourInfo {
        requests: of.requests,
        waited: of.waited,
        throttled: of.throttled,
        terminals: of.terminals,
        waits: of
            .bound
            .iter()
            .map(|one| WaitedInfo {
                budget: one.budget.to_string(),
                seconds: seconds(one.waited_ms),
                percent: one.percent,
            })
            .collect(),
        rises: rises
            .zip(limits)
            .zip(["prompt", "uncached", "generated"])
            .map(|((ladder, limit), budget)| RiseInfo {
                budget: budget.to_owned(),
                limit,
                ceiling: ladder.ceiling,
                steps: ladder.steps,
                enough: ladder.enough,
                next: seconds(ladder.next_ms),
                to_ceiling: seconds(ladder.ceiling_ms),
            })
            .collect(),
    }
}

/// How the host is; `probe` opens a connection to each upstream.
pub(crate) async fn health(host: &Arc<Instance>, probe: bool) -> HealthReport {
    let snapshot = host.proxy.gate.snapshot();
    let runs = host.runs();
    let upstreams = if probe { reach(host).await } else { Vec::new() };
    let stopping = host.stopping.is_cancelled();
    let longest = snapshot
        .queue
        .iter()
        .map(|one| one.wait.waited_ms)
        .max()
        .unwrap_or(0);
    let troubles = waiting::troubles(host);
    let collapsed: Vec<String> = snapshot
        .pools
        .iter()
        .flat_map(PoolView::collapsed)
        .collect();
    let troubled = !troubles.is_empty() || !collapsed.is_empty() || snapshot.day.is_full();
    let mut notices = troubles;
    notices.extend(collapsed);
    notices.extend(warnings(host));
    for slot in runs.iter().flat_map(|run| run.slots()) {
        let live = slot.live.lock();
        notices.extend(
            live.notices
                .iter()
                .map(|notice| format!("{}: {notice}", slot.name)),
        );
    }
    let bypassing = runs
        .iter()
        .flat_map(|run| run.slots())
        .any(|slot| slot.live.lock().state == State::Bypassing);
    HealthReport {
        ok: !stopping
            && !bypassing
            && !troubled
            && upstreams.iter().all(|upstream| upstream.reachable),
        state: if stopping { "stopping" } else { "running" }.to_owned(),
        host: host.name.clone(),
        pid: std::process::id(),
        port: host.port,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        started: host.started.clone(),
        terminals: runs
            .iter()
            .flat_map(|run| run.slots())
            .filter(|slot| slot.terminal().is_some() && !slot.is_dead())
            .count(),
        runs: runs.len(),
        queue: snapshot.queue.len(),
        longest_wait: Duration::from_millis(longest).as_secs_f64(),
        upstreams,
        pools: pools(&snapshot),
        notices,
    }
}

async fn reach(host: &Arc<Instance>) -> Vec<UpstreamInfo> {
    let mut probes = tokio::task::JoinSet::new();
    for upstream in host.proxy.routes.all() {
        let board = host.proxy.board.clone();
        probes.spawn(async move {
            let found = reach_one(&upstream).await;
            if found.reachable {
                board.reached(upstream.host());
            }
            found
        });
    }
    let mut found = Vec::new();
    while let Some(probed) = probes.join_next().await {
        found.extend(probed);
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    found
}

async fn reach_one(upstream: &Upstream) -> UpstreamInfo {
    let host = upstream.host();
    let named = host
        .rsplit_once(':')
        .is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    let usual = if upstream.base().starts_with("https:") {
        443
    } else {
        80
    };
    let address = if named {
        host.to_owned()
    } else {
        format!("{host}:{usual}")
    };
    let error = match tokio::time::timeout(PROBE, tokio::net::TcpStream::connect(address)).await {
        Ok(Ok(_)) => None,
        Ok(Err(error)) => Some(error.to_string()),
        Err(_) => Some(format!("no connection within {} s", PROBE.as_secs())),
    };
    UpstreamInfo {
        name: upstream.name().to_string(),
        url: upstream.base(),
        reachable: error.is_none(),
        error,
    }
}
