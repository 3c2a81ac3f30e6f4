//! What every verb needs: environment, folders, the printer, and the hosts that live.

use std::io;
use std::path::Path;

use crate::cli::args::Common;
use crate::cli::failure::Failure;
use crate::cli::failure::Kind;
use crate::cli::failure::Outcome;
use crate::cli::output::Output;
use crate::config;
use crate::config::Environment;
use crate::config::Paths;
use crate::config::Resolved;
use crate::control::Client;
use crate::control::ControlError;
use crate::control::Registry;
use crate::control::Resume;
use crate::control::RunInfo;
use crate::control::is_plain_name;
use crate::instance;
use crate::instance::DEFAULT_HOST;
use crate::instance::Setup;

/// Name of the host that has the simulated upstream.
pub(crate) const DEMO_HOST: &str = "demo";

/// What every verb needs.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) common: Common,
    pub(crate) env: Environment,
    pub(crate) paths: Paths,
    pub(crate) output: Output,
    pub(crate) registry: Registry,
}

impl Context {
    pub(crate) fn new(common: Common, env: Environment, output: Output) -> Result<Self, Failure> {
        if let Some(name) = &common.host
            && !is_plain_name(name)
        {
            return Err(bad_name(name));
        }
        let paths = Paths::find(&env)?;
        let registry = Registry::new(paths.instances());
        Ok(Self {
            common,
            env,
            paths,
            output,
            registry,
        })
    }

    /// All settings, `--set` and then `flags` on top; what is odd about them is told. A flag is its name and the pair.
    pub(crate) fn settings(&self, flags: &[(&str, String)]) -> Result<Resolved, Failure> {
        let settings = config::resolve(&self.paths, &self.env, &self.layers(flags))?;
        for warning in settings.warnings() {
            self.output.warn(warning.to_string());
        }
        Ok(settings)
    }

    /// What the command line sets: `--set`, then these flags of the verb.
    pub(crate) fn layers(&self, flags: &[(&str, String)]) -> Vec<(String, String)> {
        let given = self
            .common
            .settings
            .iter()
            .map(|pair| ("--set".to_owned(), pair.clone()));
        let named = flags
            .iter()
            .map(|(flag, pair)| ((*flag).to_owned(), pair.clone()));
        given.chain(named).collect()
    }

    /// A host by the name that was given, or the usual one.
    pub(crate) fn setup(&self, settings: Resolved) -> Setup {
        let name = self
            .common
            .host
            .clone()
            .unwrap_or_else(|| DEFAULT_HOST.to_owned());
        Setup {
            demo: name == DEMO_HOST,
            name,
            paths: self.paths.clone(),
            settings,
            env: self.env.clone(),
        }
    }

    /// The hosts that this command is about: the named one, or all that live.
    pub(crate) fn hosts(&self) -> Result<Vec<Client>, Failure> {
        if let Some(name) = &self.common.host {
            return Ok(vec![Client::find(&self.registry, name)?]);
        }
        let found = self
            .registry
            .all()
            .map_err(|source| ControlError::Registry { source })?;
        Ok(found.into_iter().map(Client::new).collect())
    }

    /// Hosts that were killed, with what was open in them and is not open again.
    pub(crate) fn lost(&self) -> Result<Vec<(String, Vec<Resume>)>, Failure> {
        self.sessions(instance::lost_sessions)
    }

    /// The same for hosts after which none of their name was started yet.
    pub(crate) fn just_lost(&self) -> Result<Vec<(String, Vec<Resume>)>, Failure> {
        self.sessions(instance::fresh_losses)
    }

    fn sessions(
        &self,
        of: impl Fn(&Path, bool) -> io::Result<Vec<Resume>>,
    ) -> Result<Vec<(String, Vec<Resume>)>, Failure> {
        let mut found = Vec::new();
        for name in self.paths.host_names()? {
            let about = self.common.host.as_ref().is_none_or(|only| *only == name);
            let alive = self.registry.find(&name)?.is_some();
            let state = self.paths.instance_state(&name);
            let sessions = of(&state, alive)?;
            if about && !sessions.is_empty() {
                found.push((name, sessions));
            }
        }
        Ok(found)
    }

    /// The one host that this command is about: the named one, the only one, or the default one.
    pub(crate) fn host(&self) -> Result<Client, Failure> {
        let mut hosts = self.hosts()?;
        let chosen = hosts
            .iter()
            .position(|host| host.entry().name == DEFAULT_HOST)
            .unwrap_or(0);
        if hosts.is_empty() {
            return Err(ControlError::NotRunning {
                name: DEFAULT_HOST.to_owned(),
            }
            .into());
        }
        if hosts.len() > 1 && self.common.host.is_none() {
            let names: Vec<_> = hosts
                .iter()
                .map(|host| host.entry().name.as_str())
                .collect();
            self.output.note(format!(
                "several hosts run ({}); this is about `{}`, choose another with --host",
                names.join(", "),
                names[chosen],
            ));
        }
        Ok(hosts.swap_remove(chosen))
    }

    /// The host that has this run; without a name, the one with the newest run.
    pub(crate) async fn host_of_run(
        &self,
        run: Option<&str>,
    ) -> Result<(Client, RunInfo), Failure> {
        let hosts = self.hosts()?;
        if hosts.is_empty() {
            return Err(ControlError::NotRunning {
                name: DEFAULT_HOST.to_owned(),
            }
            .into());
        }
        let mut found: Option<(Client, RunInfo)> = None;
        for host in hosts {
            for info in host.runs().await? {
                let fits = run.is_none_or(|run| run == info.name);
                if fits
                    && found
                        .as_ref()
                        .is_none_or(|(_, best)| best.started <= info.started)
                {
                    found = Some((host.clone(), info));
                }
            }
        }
        found.ok_or_else(|| {
            let message = run.map_or_else(
                || "there is no run".to_owned(),
                |run| format!("there is no run `{run}`"),
            );
            ControlError::NotFound { message }.into()
        })
    }

    /// `N` or `RUN:N`, as a host and `RUN:N`.
    pub(crate) async fn terminal(&self, given: &str) -> Result<(Client, String), Failure> {
        let (run, number) = match given.rsplit_once(':') {
            Some((run, number)) => (Some(run), number),
            None => (None, given),
        };
        if number.parse::<u16>().is_err() {
            let what = format!("`{given}` names no terminal; write it as 2 or work:2");
            return Err(Failure::new(Kind::Usage, what));
        }
        if run.is_none() {
            self.one_of(number).await?;
        }
        let (host, info) = self.host_of_run(run).await?;
        let terminal = format!("{}:{number}", info.name);
        Ok((host, terminal))
    }

    /// A number alone names a terminal where there is one run; with several nobody should have to guess.
    async fn one_of(&self, number: &str) -> Outcome {
        let mut candidates = Vec::new();
        for host in self.hosts()? {
            let runs = host.runs().await?;
            candidates.extend(runs.iter().map(|run| format!("{}:{number}", run.name)));
        }
        if candidates.len() < 2 {
            return Ok(());
        }
        let what = format!("several runs live, so `{number}` may be any of them");
        let hint = format!("write one of {}", candidates.join(", "));
        Err(Failure::new(Kind::Usage, what).hint(hint))
    }
}

pub(crate) fn bad_name(name: &str) -> Failure {
    let what =
        format!("`{name}` is no name: use letters, digits, - and _, up to 40 and not digits alone");
    Failure::new(Kind::Usage, what)
}
