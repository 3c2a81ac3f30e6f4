//! The written order: how a host is built, and how it is torn down.
//!
//! Up: folders, log, claim, what a killed host left, ledger, limiter, simulator, proxy, port, control, tasks, registry.
//! Down (after `host` has ended the runs): port, connections, limiter and ledger to disk, every process that is left,
//! registry. The registry is last, so that whoever waits for the claim finds port, files and processes free.

use std::net::Ipv4Addr;
use std::path::Path;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use http::Request;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::clock;
use crate::config::Environment;
use crate::config::Paths;
use crate::config::Resolved;
use crate::control::Claim;
use crate::control::Entry;
use crate::control::Registry;
use crate::control::Server;
use crate::fsx;
use crate::instance::InstanceError;
use crate::instance::client;
use crate::instance::client::Clients;
use crate::instance::host::Handle;
use crate::instance::host::Instance;
use crate::instance::host::Parts;
use crate::instance::keeper::chain;
use crate::instance::keeping;
use crate::instance::log;
use crate::instance::log::Log;
use crate::instance::options;
use crate::instance::report;
use crate::instance::slot;
use crate::kimi;
use crate::limits::Gate;
use crate::proxy;
use crate::proxy::AsideHandler;
use crate::proxy::Board;
use crate::proxy::Keys;
use crate::proxy::Proxy;
use crate::proxy::Routes;
use crate::simulator;
use crate::simulator::Simulator;
use crate::terminal;
use crate::upstream;
use crate::usage::Estimator;
use crate::usage::Ledger;

/// How long a new host waits for an old one that is on its way out.
const HANDOVER: Duration = Duration::from_secs(30);
/// How long tasks get to end after everything was told to.
const WIND_DOWN: Duration = Duration::from_secs(3);
/// How long processes that no terminal accounts for get before they are killed.
const LAST_GRACE: Duration = Duration::from_secs(1);

/// What a host is to be.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Its name.
    pub name: String,
    /// It brings its own simulated upstream.
    pub demo: bool,
    /// The user's folders.
    pub paths: Paths,
    /// The settings.
    pub settings: Resolved,
    /// The environment of the command.
    pub env: Environment,
}

/// Which kind of host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    /// Runs terminals; waits for an old host of its name.
    Background,
    /// Runs terminals and a window.
    Foreground,
    /// Serves clients that the user starts alone.
    Proxy,
}

/// Builds a host, lets `work` use it, and tears it down. Blocks.
pub fn run<T>(
    setup: Setup,
    log: Log,
    work: impl AsyncFnOnce(Handle) -> T,
) -> Result<T, InstanceError> {
    let role = if log == Log::Background {
        Role::Background
    } else {
        Role::Foreground
    };
    serve(setup, log, role, work)
}

/// Builds a host that serves paths without a route from the upstream of the settings. Blocks.
pub fn run_proxy<T>(setup: Setup, work: impl AsyncFnOnce(Handle) -> T) -> Result<T, InstanceError> {
    serve(setup, Log::Inherited, Role::Proxy, work)
}

fn serve<T>(
    setup: Setup,
    log: Log,
    role: Role,
    work: impl AsyncFnOnce(Handle) -> T,
) -> Result<T, InstanceError> {
    let state = setup.paths.instance_state(&setup.name);
    fsx::create_private_dir(&state).map_err(|source| InstanceError::State {
        path: state.clone(),
        source,
    })?;
    let level = setup.settings.text("host.log").unwrap_or("info");
    log::start(log, &setup.paths, &setup.name, level).map_err(|source| InstanceError::State {
        path: state,
        source,
    })?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        // Bytes are moved and little is computed; more threads cost memory.
        .worker_threads(2)
        .thread_name("kimiq")
        .enable_all()
        .build()
        .map_err(|source| InstanceError::System {
            what: "threads",
            source,
        })?;
    let outcome = runtime.block_on(async {
        let built = Box::pin(build(&setup, role)).await?;
        let result = work(Handle(Arc::clone(&built.instance))).await;
        // Whatever ended the work ends the host.
        built.instance.begin_end(false);
        built.instance.wait_stopped().await;
        Box::pin(tear_down(built)).await;
        Ok(result)
    });
    runtime.shutdown_timeout(WIND_DOWN);
    outcome
}

struct Built {
    instance: Arc<Instance>,
    claim: Claim,
    /// Stops the listener and its idle connections.
    closed: CancellationToken,
    /// Ends the tasks that have no end of their own.
    over: CancellationToken,
    simulator: Option<Simulator>,
    state: PathBuf,
    runs_terminals: bool,
}

async fn build(setup: &Setup, role: Role) -> Result<Built, InstanceError> {
    let Setup {
        name,
        demo,
        paths,
        settings,
        ..
    } = setup;
    let state = paths.instance_state(name);
    let system = |what| move |source| InstanceError::System { what, source };
    let runs_terminals = role != Role::Proxy;

    let registry = Registry::new(paths.instances());
    let claim = claim(&registry, name, role).await?;
    if runs_terminals && !terminal::become_subreaper() {
        tracing::debug!("this system lets orphans go; process groups are ended instead");
    }
    let left = terminal::end_marked(&slot::host_mark(&paths.state, name), LAST_GRACE).await;
    if !left.is_empty() {
        tracing::warn!(processes = ?left, "ended what a killed host left running");
    }
    let notices = put_back(&state);

    let zone = options::zone(settings);
    let ledger_file = options::ledger_file(settings, paths, name, *demo);
    let ledger = Ledger::open(ledger_file, zone, clock::wall)?;
    let gate = Gate::new(options::limits(settings, zone), clock::wall);
    keeping::restore(&gate, &state)?;
    let (day, today) = ledger.today();
    gate.restore_day(day, today.tokens.total());

    let tracker = TaskTracker::new();
    let simulator = if *demo {
        let started = Simulator::start(demo_options(&state), &tracker).await;
        Some(started.map_err(|source| InstanceError::Listen { port: 0, source })?)
    } else {
        None
    };
    let demo_home = match &simulator {
        Some(simulator) => Some(prepare_demo(&state, &simulator.base_url())?),
        None => None,
    };

    let proxy = Arc::new(Proxy {
        options: options::proxy(settings),
        keys: Keys::default(),
        routes: Routes::default(),
        board: Board::default(),
        gate: gate.clone(),
        estimator: Estimator::new(options::chars_per_token(settings)),
        ledger: ledger.clone(),
        client: upstream::Client::new(options::connections(settings))
            .map_err(system("trusted certificates"))?,
        wall: clock::wall,
    });
    let plain = match &simulator {
        Some(simulator) => simulator.base_url(),
        None => settings
            .text("proxy.upstream")
            .unwrap_or_default()
            .to_owned(),
    };
    if role == Role::Proxy {
        proxy
            .routes
            .set_default(options::upstream(settings, report::DEFAULT_ROUTE, &plain)?);
    }

    let wanted = settings.count(if runs_terminals {
        "host.port"
    } else {
        "proxy.port"
    });
    let wanted = wanted
        .and_then(|port| u16::try_from(port).ok())
        .unwrap_or(0);
    let listen = |source| InstanceError::Listen {
        port: wanted,
        source,
    };
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, wanted))
        .await
        .map_err(listen)?;
    let port = listener.local_addr().map_err(listen)?.port();

    let token = token().map_err(system("randomness"))?;
    let started = report::now();
    let instance = Arc::new(Instance::new(Parts {
        name: name.clone(),
        demo: *demo,
        state: paths.state.clone(),
        started: started.clone(),
        port,
        settings: settings.clone(),
        zone,
        prefix: options::prefix(settings),
        proxy: Arc::clone(&proxy),
        clients: Clients::new(paths.data.clone(), state.clone(), port, demo_home),
        plain,
        tracker: tracker.clone(),
    }));
    for notice in notices {
        instance.notice(notice);
    }

    let closed = CancellationToken::new();
    let over = CancellationToken::new();
    let aside = aside(Server::new(
        Arc::new(Handle(Arc::clone(&instance))),
        &token,
        tracker.clone(),
    ));
    tracker.spawn(proxy::serve(
        listener,
        proxy,
        aside,
        tracker.clone(),
        closed.clone(),
    ));
    tracker.spawn(gate.clone().drive());
    tracker.spawn(ledger.drive());
    tracker.spawn(
        over.clone()
            .run_until_cancelled_owned(keeping::keep(gate.clone(), state.clone())),
    );
    tracker.spawn(
        over.clone()
            .run_until_cancelled_owned(keeping::log_stats(gate)),
    );
    tracker.spawn(
        over.clone()
            .run_until_cancelled_owned(signals(Arc::clone(&instance))?),
    );
    if runs_terminals {
        tracker.spawn(
            over.clone()
                .run_until_cancelled_owned(terminal::reap_strangers()),
        );
    }
    if role == Role::Background {
        tracker.spawn(
            over.clone()
                .run_until_cancelled_owned(Arc::clone(&instance).end_when_unused()),
        );
    }

    let entry = Entry::of_this_process(name, port, token, started);
    claim
        .publish(&entry)
        .map_err(|source| InstanceError::State {
            path: paths.instances(),
            source,
        })?;
    tracing::info!(host = %name, port, version = env!("CARGO_PKG_VERSION"), "up");
    Ok(Built {
        instance,
        claim,
        closed,
        over,
        simulator,
        state,
        runs_terminals,
    })
}

async fn claim(registry: &Registry, name: &str, role: Role) -> Result<Claim, InstanceError> {
    let failed = |source| InstanceError::State {
        path: PathBuf::from(format!("{name}.lock")),
        source,
    };
    let taken = || InstanceError::Taken {
        name: name.to_owned(),
    };
    if let Some(claim) = registry.claim(name).map_err(failed)? {
        return Ok(claim);
    }
    if role != Role::Background {
        return Err(taken());
    }
    // The command that started us saw the other one stopping.
    let (registry, wanted) = (registry.clone(), name.to_owned());
    let waiting = tokio::task::spawn_blocking(move || registry.claim_when_free(&wanted));
    match tokio::time::timeout(HANDOVER, waiting).await {
        Ok(Ok(claim)) => claim.map_err(failed),
        Ok(Err(_)) | Err(_) => Err(taken()),
    }
}

/// Undoes edits that a killed host left open. A failure is told and does not keep the host from serving.
fn put_back(state: &Path) -> Vec<String> {
    match client::restore(state) {
        Ok(restored) => {
            for one in restored {
                tracing::warn!(file = %one.file.display(), identical = one.identical, "put back a configuration");
            }
            Vec::new()
        }
        Err(error) => {
            let text = format!("a configuration could not be put back: {}", chain(&*error));
            tracing::error!("{text}");
            vec![text]
        }
    }
}

fn demo_options(state: &Path) -> simulator::Options {
    simulator::Options {
        truth: Some(state.join("truth.jsonl")),
        ..simulator::Options::default()
    }
}

fn prepare_demo(state: &Path, base_url: &str) -> Result<kimi::Demo, InstanceError> {
    let folder = state.join("demo");
    let now = clock::wall().timestamp_millis();
    kimi::prepare_demo(&folder, base_url, now).map_err(|source| InstanceError::State {
        path: folder,
        source,
    })
}

/// 192 random bits.
fn token() -> std::io::Result<String> {
    let mut bytes = [0; 24];
    getrandom::fill(&mut bytes).map_err(std::io::Error::other)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn aside(server: Server) -> AsideHandler {
    Arc::new(
        move |request: Request<Incoming>| -> Pin<Box<dyn Future<Output = _> + Send>> {
            let server = server.clone();
            Box::pin(async move {
                let path = request.uri().path();
                let ours = path == "/health" || path == "/usage" || path.starts_with("/kimiq/");
                if !ours {
                    return Err(request);
                }
                Ok(server.answer(request).await.map(BodyExt::boxed))
            })
        },
    )
}

/// A first signal ends the host, a second takes its patience away. The end of a terminal's session is none of ours.
#[cfg(unix)]
fn signals(host: Arc<Instance>) -> Result<impl Future<Output = ()> + Send, InstanceError> {
    use tokio::signal::unix::SignalKind;
    use tokio::signal::unix::signal;
    let listen = |kind| {
        signal(kind).map_err(|source| InstanceError::System {
            what: "signals",
            source,
        })
    };
    let mut terminate = listen(SignalKind::terminate())?;
    let mut interrupt = listen(SignalKind::interrupt())?;
    let mut hangup = listen(SignalKind::hangup())?;
    Ok(async move {
        let mut now = false;
        loop {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
                _ = hangup.recv() => continue,
            }
            host.begin_end(now);
            now = true;
        }
    })
}

#[cfg(not(unix))]
fn signals(host: Arc<Instance>) -> Result<impl Future<Output = ()> + Send, InstanceError> {
    Ok(async move {
        let mut now = false;
        while tokio::signal::ctrl_c().await.is_ok() {
            host.begin_end(now);
            now = true;
        }
    })
}

async fn tear_down(built: Built) {
    let Built {
        instance,
        claim,
        closed,
        over,
        simulator,
        state,
        runs_terminals,
    } = built;
    // 4. The port, and connections once their answer is out.
    closed.cancel();
    if let Some(simulator) = &simulator {
        simulator.shutdown();
    }
    instance.proxy.ledger.close();
    over.cancel();
    instance.tracker.close();
    tokio::select! {
        () = instance.tracker.wait() => {}
        () = tokio::time::sleep(WIND_DOWN) => tracing::warn!("some tasks did not end in time"),
    }
    // 5. To disk.
    let (gate, ledger) = (
        instance.proxy.gate.clone(),
        instance.proxy.ledger.clone(),
    );
    let saved = tokio::task::spawn_blocking(move || {
        if let Err(error) = keeping::write(&gate, &state) {
            tracing::error!(%error, "the limits could not be saved");
        }
        if let Err(error) = ledger.flush() {
            tracing::error!(error = %chain(&error), "the ledger could not be saved");
        }
    });
    if saved.await.is_err() {
        tracing::error!("the last write failed");
    }
    // 6. Whatever process is left.
    if runs_terminals {
        terminal::end_everything(LAST_GRACE).await;
    }
    // 7. The registry.
    if let Err(error) = claim.leave() {
        tracing::error!(%error, "the instance file could not be removed");
    }
    tracing::info!("down");
}
