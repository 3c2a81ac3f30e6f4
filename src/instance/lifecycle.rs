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
use crate::control::Purpose;
use crate::control::Registry;
use crate::control::Server;
use crate::fsx;
use crate::instance::InstanceError;
use crate::instance::acquaint::Acquaintance;
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
use crate::instance::resume;
use crate::instance::slot;
use crate::kimi;
use crate::limits::Gate;
use crate::proxy;
use crate::proxy::AsideHandler;
use crate::proxy::Board;
use crate::proxy::Keys;
use crate::proxy::Proxy;
use crate::proxy::Routes;
use crate::proxy::Stalls;
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
    role: Role,
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
    let claim = claim(&Registry::new(paths.instances()), name, role).await?;
    let notices = put_in_order(setup, &state, role).await;
    let tracker = TaskTracker::new();
    let simulator = if *demo {
        Some(simulate(&state, &tracker).await?)
    } else {
        None
    };
    let simulated = simulator
        .as_ref()
        .map(|simulator| format!("http://{}", simulator.addr()));
    let demo_home = simulated
        .as_ref()
        .map(|url| prepare_demo(&state, url))
        .transpose()?;
    let zone = options::zone(settings);
    let proxy = Arc::new(assemble(setup, &state, zone)?);
    let plain = simulated
        .or_else(|| settings.text("proxy.upstream").map(ToOwned::to_owned))
        .unwrap_or_default();
    if role == Role::Proxy {
        let acquaintance = Acquaintance {
            settings,
            client: &proxy.client,
            simulated: None,
        };
        let upstream = acquaintance.make(report::DEFAULT_ROUTE, &plain).await?;
        proxy.routes.set_default(upstream);
    }
    let (listener, port) = listen(settings, role).await?;
    let token = token().map_err(|source| InstanceError::System {
        what: "randomness",
        source,
    })?;
    let purpose = match role {
        Role::Proxy => Purpose::Proxy,
        Role::Background | Role::Foreground if *demo => Purpose::Demo,
        Role::Background | Role::Foreground => Purpose::Runs,
    };
    let entry = Entry::of_this_process(name, purpose, port, token, report::now());
    let instance = Arc::new(Instance::new(Parts {
        name: name.clone(),
        demo: *demo,
        state: paths.state.clone(),
        started: entry.started.clone(),
        port,
        settings: settings.clone(),
        zone,
        prefix: options::prefix(settings),
        proxy,
        clients: Clients::new(paths.data.clone(), state.clone(), port, demo_home),
        plain,
        tracker,
    }));
    for notice in notices {
        instance.notice(notice);
    }
    let closed = CancellationToken::new();
    let over = CancellationToken::new();
    open(&instance, listener, &entry.token, &closed);
    tend(&instance, &state, role, &over)?;
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
        role,
    })
}

/// Ends what a killed host left running and undoes what it left edited. Returns what the user should know.
async fn put_in_order(setup: &Setup, state: &Path, role: Role) -> Vec<String> {
    if role == Role::Proxy {
        return Vec::new();
    }
    if !terminal::become_subreaper() {
        tracing::debug!("this system lets orphans go; process groups are ended instead");
    }
    let mark = slot::host_mark(&setup.paths.state, &setup.name);
    let left = terminal::end_marked(&mark, LAST_GRACE).await;
    if !left.is_empty() {
        tracing::warn!(processes = ?left, "ended what a killed host left running");
    }
    if let Err(error) = kimi::legacy::sweep(&client::generated(state)) {
        tracing::warn!(%error, "generated files of kimi-cli, which hold keys, could not be removed");
    }
    put_back(state)
}

async fn simulate(state: &Path, tracker: &TaskTracker) -> Result<Simulator, InstanceError> {
    let options = simulator::Options {
        truth: Some(state.join("truth.jsonl")),
        ..simulator::Options::default()
    };
    Simulator::start(options, tracker)
        .await
        .map_err(|source| InstanceError::Listen { port: 0, source })
}

/// Ledger, limiter and proxy, with what earlier hosts knew.
fn assemble(setup: &Setup, state: &Path, zone: chrono_tz::Tz) -> Result<Proxy, InstanceError> {
    let Setup {
        name,
        demo,
        paths,
        settings,
        ..
    } = setup;
    let ledger = Ledger::open(
        options::ledger_file(settings, paths, name, *demo),
        zone,
        clock::wall,
    )?;
    let gate = Gate::new(options::limits(settings, zone), clock::wall);
    let estimator = Estimator::new(options::chars_per_token(settings));
    keeping::restore(&gate, &estimator, state)?;
    let (day, others) = ledger.of_others();
    gate.restore_day(day, others);
    let client = upstream::Client::new(options::connections(settings)).map_err(|source| {
        InstanceError::System {
            what: "trusted certificates",
            source,
        }
    })?;
    let proxy_options = options::proxy(settings);
    Ok(Proxy {
        stalls: Stalls::new(proxy_options.stall),
        options: proxy_options,
        repairing: Arc::new(options::repairing(settings)),
        keys: Keys::default(),
        routes: Routes::default(),
        board: Board::default(),
        gate,
        estimator,
        ledger,
        client,
        wall: clock::wall,
    })
}

async fn listen(settings: &Resolved, role: Role) -> Result<(TcpListener, u16), InstanceError> {
    let key = if role == Role::Proxy {
        "proxy.port"
    } else {
        "host.port"
    };
    let port = settings
        .count(key)
        .and_then(|port| u16::try_from(port).ok())
        .unwrap_or(0);
    let failed = |source| InstanceError::Listen { port, source };
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))
        .await
        .map_err(failed)?;
    let port = listener.local_addr().map_err(failed)?.port();
    Ok((listener, port))
}

/// Serves the port.
fn open(instance: &Arc<Instance>, listener: TcpListener, token: &str, closed: &CancellationToken) {
    let tracker = &instance.tracker;
    let server = Server::new(
        Arc::new(Handle(Arc::clone(instance))),
        token,
        tracker.clone(),
    );
    let proxy = Arc::clone(&instance.proxy);
    tracker.spawn(proxy::serve(
        listener,
        proxy,
        aside(server),
        tracker.clone(),
        closed.clone(),
    ));
    tracker.spawn(instance.proxy.gate.clone().drive());
}

/// Starts what goes on beside the requests until `over`.
fn tend(
    instance: &Arc<Instance>,
    state: &Path,
    role: Role,
    over: &CancellationToken,
) -> Result<(), InstanceError> {
    let gate = &instance.proxy.gate;
    let mut tasks: Vec<Pin<Box<dyn Future<Output = ()> + Send>>> = vec![
        Box::pin(keeping::keep(
            Arc::clone(&instance.proxy),
            state.to_path_buf(),
        )),
        Box::pin(keeping::share_day(Arc::clone(&instance.proxy))),
        Box::pin(keeping::log_stats(gate.clone())),
        // Its last write is the teardown's.
        Box::pin(instance.proxy.ledger.clone().drive()),
        Box::pin(signals(Arc::clone(instance))?),
    ];
    if role != Role::Proxy {
        tasks.push(Box::pin(terminal::reap_strangers()));
        tasks.push(Box::pin(resume::keep(
            Arc::clone(instance),
            state.to_path_buf(),
        )));
    }
    if role == Role::Background {
        tasks.push(Box::pin(Arc::clone(instance).end_when_unused()));
    }
    for task in tasks {
        let task = over.clone().run_until_cancelled_owned(task);
        instance.tracker.spawn(task);
    }
    Ok(())
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
    let done = client::restore(state);
    for one in done.restored {
        tracing::warn!(file = %one.file.display(), identical = one.identical, "put back a configuration");
    }
    done.failed
        .into_iter()
        .map(|why| format!("a configuration could not be put back: {why}"))
        .inspect(|text| tracing::error!("{text}"))
        .collect()
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
    let digit = |half: u8| char::from(b"0123456789abcdef"[usize::from(half)]);
    Ok(bytes
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 15])
        .map(digit)
        .collect())
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
        role,
    } = built;
    // 4. The port, and connections once their answer is out.
    closed.cancel();
    if let Some(simulator) = &simulator {
        simulator.shutdown();
    }
    over.cancel();
    instance.tracker.close();
    tokio::select! {
        () = instance.tracker.wait() => {}
        () = tokio::time::sleep(WIND_DOWN) => tracing::warn!("some tasks did not end in time"),
    }
    // 5. To disk.
    let proxy = Arc::clone(&instance.proxy);
    let saved = tokio::task::spawn_blocking(move || {
        if let Err(error) = keeping::write(&proxy, &state) {
            tracing::error!(%error, "what was learned could not be saved");
        }
        if let Err(error) = resume::close_sessions(&state) {
            tracing::error!(%error, "the list of open sessions could not be removed");
        }
        if let Err(error) = proxy.ledger.flush() {
            tracing::error!(error = %chain(&error), "the ledger could not be saved");
        }
    });
    if saved.await.is_err() {
        tracing::error!("the last write failed");
    }
    // 6. Whatever process is left.
    if role != Role::Proxy {
        terminal::end_everything(LAST_GRACE).await;
    }
    // 7. The registry.
    if let Err(error) = claim.leave() {
        tracing::error!(%error, "the instance file could not be removed");
    }
    tracing::info!("down");
}
