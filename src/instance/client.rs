//! Prepares the Kimi program for a run, and puts back what was prepared.
//!
//! Runs with the same real home share one overlay, and its last look is taken when the last of them ends. A rewrite is
//! undone then, too. Its journal lies in the host's state folder under a name of its own and tells which file it is about, so
//! that the next host, or `kimiq restore`, finds it whatever happened.

use std::collections::BTreeMap;
use std::error::Error;
use std::ffi::OsString;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::control::HostError;
use crate::control::Program;
use crate::control::StartRun;
use crate::fsx;
use crate::instance::host::Instance;
use crate::instance::keeper::chain;
use crate::instance::naming::encode;
use crate::instance::resume::Again;
use crate::instance::slot::Slot;
use crate::kimi;
use crate::kimi::Client;
use crate::kimi::Demo;
use crate::kimi::Environment;
use crate::kimi::Kind;
use crate::kimi::LaunchSpec;
use crate::kimi::Overlay;
use crate::kimi::Rewrite;
use crate::kimi::Synced;
use crate::kimi::Undone;
use crate::kimi::ending;
use crate::kimi::legacy;
use crate::terminal::Ending;
use crate::terminal::Phrases;

/// What Kimi Code 2.1.0 writes into its notifications (OSC 9; measured).
const APPROVAL: &str = "approval required";
const QUESTION: &str = "needs your answer";
const DONE: &str = "task complete";

/// The clients of a host.
#[derive(Debug)]
pub(crate) struct Clients {
    data: PathBuf,
    state: PathBuf,
    proxy: String,
    demo: Option<Demo>,
    /// Uses of each home, by the way in which it is used.
    uses: Mutex<BTreeMap<(PathBuf, Manner), usize>>,
    /// Homes that this host overlays together with others, or rewrites alone.
    held: Mutex<BTreeMap<PathBuf, fsx::Lock>>,
    /// One preparation or release at a time.
    turn: tokio::sync::Mutex<()>,
}

/// A client that can be launched.
#[derive(Debug)]
pub(crate) struct Prepared {
    client: Client,
    way: Way,
    home: PathBuf,
    env: Environment,
    /// How its sessions are gone on with. Those of a demo end with its upstream.
    again: Option<Again>,
    /// Variables for new children, as the newest look at the configuration has them.
    extra: Mutex<Vec<(OsString, OsString)>>,
    released: CancellationToken,
}

#[derive(Clone, Debug)]
enum Way {
    Overlay(Arc<Overlay>),
    Rewrite(Arc<Rewrite>),
    Legacy { folder: PathBuf },
}

/// How a home is used. A rewritten configuration is no source for an overlay: the addresses in it are kimiq's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Manner {
    Overlay,
    Rewrite,
    Legacy,
}

impl Way {
    fn manner(&self) -> Manner {
        match self {
            Self::Overlay(_) => Manner::Overlay,
            Self::Rewrite(_) => Manner::Rewrite,
            Self::Legacy { .. } => Manner::Legacy,
        }
    }
}

impl Clients {
    pub(crate) fn new(data: PathBuf, state: PathBuf, port: u16, demo: Option<Demo>) -> Self {
        Self {
            data,
            state,
            proxy: format!("http://127.0.0.1:{port}"),
            demo,
            uses: Mutex::default(),
            held: Mutex::default(),
            turn: tokio::sync::Mutex::default(),
        }
    }

    /// Finds the client and leads its traffic here.
    pub(crate) async fn prepare(
        &self,
        host: &Arc<Instance>,
        ask: &mut StartRun,
    ) -> Result<Arc<Prepared>, HostError> {
        let _turn = self.turn.lock().await;
        if let Some(demo) = &self.demo {
            // Nothing of the user's own set-up belongs into a demo.
            ask.env.retain(|name, _| !name.starts_with("KIMI_"));
            ask.env
                .insert("KIMI_CODE_HOME".to_owned(), demo.home.display().to_string());
            if ask.dirs.is_empty() {
                ask.dirs.push(demo.work.clone());
            }
        }
        if ask.dirs.is_empty() {
            return Err(HostError::Invalid("a run needs a folder".to_owned()));
        }
        let Program::Client { command } = &ask.program else {
            return Err(HostError::Invalid("this run has no client".to_owned()));
        };
        let env: Environment = ask
            .env
            .iter()
            .map(|(name, value)| (name.into(), value.into()))
            .collect();
        let failed = |error: &dyn Error| HostError::Failed(chain(error));
        // Looking may take long; a host that ends does not wait for it.
        let found = tokio::select! {
            found = kimi::find(command.as_deref(), &env, &self.data) => found,
            () = host.stopping.cancelled() => return Err(HostError::Stopping),
        };
        let client = found
            .map_err(|error| HostError::Program(format!("{}; {}", chain(&error), error.hint())))?;
        let home = client.home(&env).map_err(|error| failed(&error))?;
        let way = self.way(&client, &home, ask, &env);
        self.admit(&home, way.manner())?;
        self.reserve(&home, way.manner())
            .map_err(|error| failed(&*error))?;
        let again = self.demo.is_none().then(|| {
            let command = command.as_deref();
            Again::new(&client, &home, command, &env, &host.name, &host.settings)
        });
        let prepared = Arc::new(Prepared {
            again,
            client,
            way,
            home: home.clone(),
            env,
            extra: Mutex::default(),
            released: CancellationToken::new(),
        });
        let usage = (home, prepared.way.manner());
        *self.uses.lock().entry(usage).or_default() += 1;
        let done = match self.apply(&prepared).await {
            Ok(synced) => {
                adopt(host, &prepared, synced).await;
                prepared.watch(host)
            }
            Err(error) => Err(error),
        };
        if let Err(error) = done {
            self.release_in_turn(&prepared).await;
            return Err(failed(&*error));
        }
        Ok(prepared)
    }

    fn way(&self, client: &Client, home: &Path, ask: &StartRun, env: &Environment) -> Way {
        let name = encode(home);
        match client.kind {
            Kind::KimiCli => Way::Legacy {
                folder: generated(&self.state).join(name),
            },
            Kind::KimiCode if ask.rewrite => {
                let config = home.join("config.toml");
                let journal = journals(&self.state).join(encode(&config));
                Way::Rewrite(Arc::new(Rewrite::new(config, journal)))
            }
            Kind::KimiCode => Way::Overlay(Arc::new(Overlay::new(kimi::Setup {
                real: home.to_path_buf(),
                root: self.state.join("kimi-code").join(name),
                proxy: self.proxy.clone(),
                status_command: if ask.status_line {
                    status_command()
                } else {
                    None
                },
                env: env.clone(),
            }))),
        }
    }

    /// One home is overlaid or rewritten, never both at once.
    fn admit(&self, home: &Path, manner: Manner) -> Result<(), HostError> {
        let (other, why) = match manner {
            Manner::Overlay => (
                Manner::Rewrite,
                "a run with --rewrite-config uses it; stop that run first, or give this one --rewrite-config too",
            ),
            Manner::Rewrite => (
                Manner::Overlay,
                "a run without --rewrite-config uses it; stop that run first, or leave --rewrite-config out",
            ),
            Manner::Legacy => return Ok(()),
        };
        let uses = self.uses.lock();
        if !uses.contains_key(&(home.to_path_buf(), other)) {
            return Ok(());
        }
        Err(HostError::Invalid(format!(
            "the client's folder {} is in use the other way: {why}",
            home.display()
        )))
    }

    /// One host at a time rewrites a configuration, and none overlays it meanwhile. Who begins undoes first what a host
    /// of another name left when it was killed.
    fn reserve(&self, home: &Path, manner: Manner) -> Result<(), Box<dyn Error + Send + Sync>> {
        let mut held = self.held.lock();
        if manner == Manner::Legacy || held.contains_key(home) {
            return Ok(());
        }
        let (Some(hosts), config) = (self.state.parent(), home.join("config.toml")) else {
            return Ok(());
        };
        let name = encode(&config);
        let locks = hosts.with_file_name("rewrites");
        fsx::create_private_dir(&locks)?;
        let lock = locks.join(format!("{name}.lock"));
        let alone = fsx::Lock::try_acquire(&lock)?;
        if alone.is_some() {
            for host in std::fs::read_dir(hosts)? {
                let journal = journals(&host?.path()).join(&name);
                if journal.exists() {
                    Rewrite::new(config.clone(), journal).undo()?;
                }
            }
        }
        let lock = match (manner, alone) {
            (Manner::Rewrite, Some(alone)) => alone,
            (_, alone) => {
                drop(alone);
                match (manner, fsx::Lock::try_share(&lock)?) {
                    (Manner::Overlay, Some(shared)) => shared,
                    // Whoever shares it overlays it.
                    (_, Some(_)) => return Err(format!(
                        "another host of kimiq has terminals that use {}; `kimiq ps` shows it, so stop it first, or leave --rewrite-config out",
                        home.display()
                    ).into()),
                    (_, None) => return Err(format!(
                        "another host of kimiq has rewritten {}; `kimiq ps` shows it, and its end puts the file back",
                        config.display()
                    ).into()),
                }
            }
        };
        held.insert(home.to_path_buf(), lock);
        Ok(())
    }

    async fn apply(
        &self,
        prepared: &Arc<Prepared>,
    ) -> Result<Synced, Box<dyn Error + Send + Sync>> {
        let (prepared, proxy, state) =
            (Arc::clone(prepared), self.proxy.clone(), self.state.clone());
        blocking(move || match &prepared.way {
            Way::Overlay(overlay) => Ok(overlay.prepare()?),
            Way::Rewrite(rewrite) => {
                fsx::create_private_dir(&journals(&state))?;
                let made = rewrite.apply(&prepared.env, &proxy)?;
                Ok(Synced {
                    routes: made.routes,
                    warnings: made.warnings,
                    env: made.env,
                    ..Synced::default()
                })
            }
            Way::Legacy { folder } => {
                fsx::create_private_dir(folder)?;
                // What each terminal gets is written at its start; this tells the routes.
                let probe = folder.join("probe.toml");
                let made =
                    legacy::write(&prepared.home, &probe, &prepared.env, &proxy, "none", None)?;
                fsx::remove(&probe)?;
                Ok(Synced {
                    routes: made.routes,
                    warnings: made.warnings,
                    env: made.env,
                    ..Synced::default()
                })
            }
        })
        .await
    }

    /// A run has ended: the last one of a home puts back what was changed.
    pub(crate) async fn release(&self, prepared: &Arc<Prepared>) {
        let _turn = self.turn.lock().await;
        self.release_in_turn(prepared).await;
    }

    async fn release_in_turn(&self, prepared: &Arc<Prepared>) {
        if prepared.released.is_cancelled() {
            return;
        }
        prepared.released.cancel();
        let last = {
            let mut uses = self.uses.lock();
            let usage = (prepared.home.clone(), prepared.way.manner());
            let left = uses.remove(&usage).unwrap_or(1) - 1;
            if left > 0 {
                uses.insert(usage, left);
            }
            left == 0
        };
        let way = prepared.way.clone();
        let done = blocking(move || {
            match way {
                Way::Overlay(overlay) if last => drop(overlay.finish()?),
                Way::Overlay(overlay) => drop(overlay.leave()?),
                Way::Rewrite(rewrite) if last => drop(rewrite.undo()?),
                Way::Rewrite(_) => {}
                Way::Legacy { folder } if last => std::fs::remove_dir_all(folder)?,
                Way::Legacy { .. } => {}
            }
            Ok(())
        });
        if let Err(error) = done.await {
            tracing::error!(error = %chain(&*error), "the client's configuration could not be put in order");
        }
        if last {
            self.held.lock().remove(&prepared.home);
        }
    }
}

/// Serves the routes, keeps the variables, and tells what the user should know.
async fn adopt(host: &Arc<Instance>, prepared: &Prepared, synced: Synced) {
    for route in &synced.routes {
        match host.acquaintance().make(&route.name, &route.base_url).await {
            Ok(upstream) => host.proxy.routes.set(upstream),
            Err(error) => host.notice(format!(
                "the provider `{}` cannot be served: {error}",
                route.provider
            )),
        }
    }
    for warning in &synced.warnings {
        let kimi::Warning::Direct { alias, why } = warning;
        host.notice(format!(
            "the model `{alias}` goes to its upstream directly, without limits and totals: {why}"
        ));
    }
    if synced.routes.is_empty() && synced.warnings.is_empty() {
        host.hint("the client knows no model yet: type /login in a terminal".to_owned());
    }
    if !synced.patched.is_empty() {
        let names = synced.patched.join(", ");
        host.hint(format!(
            "new models ({names}) go through kimiq after /reload in the terminal"
        ));
    }
    *prepared.extra.lock() = synced.env;
}

impl Prepared {
    /// Follows changes of the configuration while the run lasts.
    fn watch(self: &Arc<Self>, host: &Arc<Instance>) -> Result<(), Box<dyn Error + Send + Sync>> {
        let Way::Overlay(overlay) = &self.way else {
            return Ok(());
        };
        let mut watch = overlay.watch()?;
        let (overlay, prepared, host) = (Arc::clone(overlay), Arc::clone(self), Arc::clone(host));
        let released = self.released.clone();
        let tracker = host.tracker.clone();
        tracker.spawn(released.run_until_cancelled_owned(async move {
            loop {
                watch.changed().await;
                let overlay = Arc::clone(&overlay);
                match blocking(move || Ok(overlay.sync()?)).await {
                    Ok(synced) => adopt(&host, &prepared, synced).await,
                    Err(error) => host.notice(format!(
                        "the client's configuration is not followed: {}",
                        chain(&*error)
                    )),
                }
            }
        }));
        Ok(())
    }

    /// What to start in a slot.
    pub(crate) fn launch(
        &self,
        ask: &StartRun,
        slot: &Slot,
        key: &str,
        resume: Option<String>,
        proxy: &str,
    ) -> Result<LaunchSpec, Box<dyn Error + Send + Sync>> {
        let options = kimi::Options {
            terminal: slot.name.to_string(),
            key: key.to_owned(),
            cwd: slot.dir.clone(),
            args: if resume.is_some() {
                without_session(self.client.kind, &ask.args)
            } else {
                ask.args.iter().map(Into::into).collect()
            },
            resume,
            max_steps: ask.max_steps,
            quiet_client: ask.quiet,
            env: self.extra.lock().clone(),
        };
        Ok(match &self.way {
            Way::Overlay(overlay) => {
                kimi::launch::kimi_code(&self.client, overlay.root(), &options, &self.env)
            }
            Way::Rewrite(_) => {
                kimi::launch::kimi_code(&self.client, &self.home, &options, &self.env)
            }
            Way::Legacy { folder } => {
                let file = folder.join(format!("{}.toml", encode(Path::new(&*slot.name))));
                legacy::write(&self.home, &file, &self.env, proxy, key, ask.max_steps)?;
                kimi::launch::kimi_cli(&self.client, &file, &options, &self.env)
            }
        })
    }

    /// What to type to go on with a session, if that is one that can be gone on with.
    pub(crate) fn resume_line(&self, session: &str, dir: &Path) -> Option<String> {
        self.again.as_ref()?.line(session, dir)
    }
}

/// The user's arguments without those that choose a session: a restart goes on with the one that was open last.
/// `-c` goes on with the folder's last session in Kimi Code 2.1.0, and gives a message in kimi-cli, where `-C` goes on.
fn without_session(kind: Kind, args: &[String]) -> Vec<OsString> {
    let go_on = match kind {
        Kind::KimiCode => "-c",
        Kind::KimiCli => "-C",
    };
    let mut kept = Vec::new();
    let mut args = args.iter().peekable();
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--" => {
                kept.push(arg.into());
                kept.extend(args.by_ref().map(OsString::from));
            }
            "-r" | "-S" | "--resume" | "--session" => {
                // Without a value it would ask which.
                args.next_if(|next| !next.starts_with('-'));
            }
            "--continue" => {}
            arg if arg == go_on => {}
            arg if arg.starts_with("--resume=") || arg.starts_with("--session=") => {}
            arg => kept.push(arg.into()),
        }
    }
    kept
}

/// What the client's notifications mean.
pub(crate) fn phrases() -> Phrases {
    Phrases {
        approval: APPROVAL.to_owned(),
        question: QUESTION.to_owned(),
        done: DONE.to_owned(),
    }
}

/// How any other program is asked to leave: its window closes.
pub(crate) fn plain_ending() -> Ending {
    Ending::polite(&[])
}

/// How the client is asked to leave so that its session can be resumed.
pub(crate) fn ending() -> Ending {
    Ending::polite(&ending::FAREWELLS)
}

/// The session that the client named when it left.
pub(crate) fn session_in_farewell(screen: &str) -> Option<String> {
    ending::session_in_farewell(screen).map(ToOwned::to_owned)
}

/// The footer command: this program's hidden verb.
fn status_command() -> Option<String> {
    let program = std::env::current_exe().ok()?;
    let program = program.to_str()?;
    Some(format!("'{}' status-line", program.replace('\'', r"'\''")))
}

/// Where the configuration files lie that are made for kimi-cli's terminals.
pub(crate) fn generated(state: &Path) -> PathBuf {
    state.join("kimi-cli")
}

fn journals(state: &Path) -> PathBuf {
    state.join("journals")
}

/// A configuration that was put back.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Restored {
    /// The file.
    pub file: PathBuf,
    /// It has the bytes that it had before; otherwise somebody else changed it too, and only our addresses were taken out.
    pub identical: bool,
}

/// What came of putting back.
#[derive(Debug, Default)]
pub struct PutBack {
    /// Files that were put back.
    pub restored: Vec<Restored>,
    /// Why others were not; each tells its file. Their journals stay for another try.
    pub failed: Vec<String>,
}

/// The journals of open edits in a host's state, each with the file that it is about.
fn open_journals(state: &Path) -> std::io::Result<Vec<(PathBuf, PathBuf)>> {
    let found = match std::fs::read_dir(journals(state)) {
        Ok(found) => found,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut open = Vec::new();
    for entry in found {
        let journal = entry?.path();
        // Others beside it are copies and half-written files of the journal's own.
        let name = journal.file_name().and_then(|name| name.to_str());
        if name.is_some_and(|name| !name.contains('.')) {
            let file = Rewrite::file_of(&journal).unwrap_or_else(|| journal.clone());
            open.push((journal, file));
        }
    }
    Ok(open)
}

/// Files that a host of this state has edited, or left edited when it was killed.
pub fn edited_files(state: &Path) -> std::io::Result<Vec<PathBuf>> {
    let open = open_journals(state)?;
    Ok(open.into_iter().map(|(_, file)| file).collect())
}

/// Undoes every edit that an earlier host of this name left open in `state`. The caller holds the host's claim. One that
/// cannot be undone keeps no other from it.
pub fn restore(state: &Path) -> PutBack {
    let mut done = PutBack::default();
    let open = match open_journals(state) {
        Ok(open) => open,
        Err(error) => {
            let folder = journals(state);
            done.failed.push(format!("{}: {error}", folder.display()));
            return done;
        }
    };
    for (journal, file) in open {
        let identical = match Rewrite::new(file.clone(), journal).undo() {
            Ok(Undone::Nothing) => continue,
            Ok(Undone::Restored) => true,
            Ok(Undone::OursTakenBack) => false,
            Err(error) => {
                done.failed
                    .push(format!("{}: {}", file.display(), chain(&error)));
                continue;
            }
        };
        done.restored.push(Restored { file, identical });
    }
    done
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Box<dyn Error + Send + Sync>> + Send + 'static,
) -> Result<T, Box<dyn Error + Send + Sync>> {
    tokio::task::spawn_blocking(work).await?
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::ffi::OsStr;

    #[test]
    fn a_restart_keeps_the_arguments_but_those_that_choose_a_session() {
        let check = |kind, given: &str, expected: &str| {
            let given: Vec<String> = given.split(' ').map(ToOwned::to_owned).collect();
            let kept = without_session(kind, &given);
            assert_eq!(kept.join(OsStr::new(" ")), *expected, "{given:?}");
        };
        check(Kind::KimiCode, "--yolo -r session_x -m m", "--yolo -m m");
        check(Kind::KimiCode, "--session=session_x --yolo", "--yolo");
        check(Kind::KimiCode, "-S --yolo -c", "--yolo");
        check(
            Kind::KimiCode,
            "--continue --yolo -- -r x",
            "--yolo -- -r x",
        );
        check(Kind::KimiCli, "-c hello -C", "-c hello");
    }
}
