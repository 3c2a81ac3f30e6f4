//! `kimiq client install`: Kimi Code for kimiq alone, with the node it needs.
//!
//! The ordinary npm client does the work, with the user's own npm settings (registry, proxy, certificates); kimiq names no
//! host. Both packages are pinned, so that what was measured is what runs. The packages are installed beside their place and
//! renamed into it, so a broken download leaves the client that was there.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::Command;

use crate::fsx;
use crate::kimi::home::{Client, Environment, Kind, is_program};

/// The Kimi Code whose behaviour this room relies on.
pub const KIMI_CODE_VERSION: &str = "2.1.0";

/// The node it is run with (it needs 22.19 or later).
pub const NODE_VERSION: &str = "24.21.0";

/// Why the client could not be installed.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// There is no npm.
    #[error(
        "npm is not on PATH; install Node.js 20 or later (nodejs.org or your package manager), then try again"
    )]
    NoNpm,
    /// npm could not reach its registry.
    #[error(
        "npm cannot reach its registry; check the network, or npm's `registry` and `proxy` settings ({said})"
    )]
    NoNetwork {
        /// npm's own words, shortened.
        said: String,
    },
    /// npm failed for another reason.
    #[error("npm could not install Kimi Code: {said}")]
    Npm {
        /// npm's own words, shortened.
        said: String,
    },
    /// npm said that all is well, but a program is missing.
    #[error("npm left no {0}; its setting `ignore-scripts` must be off for this install")]
    Incomplete(&'static str),
    /// The data folder cannot be written.
    #[error("cannot write {folder}")]
    Files {
        /// The folder.
        folder: PathBuf,
        /// What happened.
        #[source]
        source: io::Error,
    },
}

/// The client that [`install`] made below `data`, if it is whole.
pub fn installed(data: &Path) -> Option<Client> {
    let programs = place(data).join(PROGRAMS);
    let whole = is_program(&programs.join("kimi")) && is_program(&programs.join("node"));
    whole.then(|| Client {
        kind: Kind::KimiCode,
        version: Some(KIMI_CODE_VERSION.to_owned()),
        program: programs.join("kimi"),
        args: Vec::new(),
        path_first: Some(programs),
    })
}

/// Installs the pinned client into `data/client`; one that is there is replaced. `progress` gets lines for the user.
///
/// About 310 MB; 15 s on a fast network. Dropping the future stops npm.
///
/// # Errors
///
/// npm is missing or fails, or `data` cannot be written. What was installed before stays usable.
pub async fn install(
    data: &Path,
    env: &Environment,
    progress: &mut (dyn FnMut(&str) + Send),
) -> Result<Client, InstallError> {
    let files = |source| InstallError::Files {
        folder: data.to_path_buf(),
        source,
    };
    fsx::create_private_dir(data).map_err(files)?;
    let lock = data.join(".client.lock");
    let locked = tokio::task::spawn_blocking(move || fsx::Lock::acquire(&lock)).await;
    let _held = locked
        .map_err(io::Error::other)
        .and_then(|lock| lock)
        .map_err(files)?;
    let beside = data.join(".client-new");
    let old = data.join(".client-old");
    clear(&beside).and_then(|()| clear(&old)).map_err(files)?;
    fsx::create_private_dir(&beside).map_err(files)?;
    fsx::write_atomic(
        &beside.join("package.json"),
        package().as_bytes(),
        fsx::PRIVATE,
    )
    .map_err(files)?;

    progress(&format!(
        "installing Kimi Code {KIMI_CODE_VERSION} and node {NODE_VERSION} with npm (about 310 MB on disk)"
    ));
    npm(&beside, env).await?;
    for program in ["kimi", "node"] {
        if !is_program(&beside.join(PROGRAMS).join(program)) {
            return Err(InstallError::Incomplete(program));
        }
    }
    let place = place(data);
    if place.exists() {
        fs::rename(&place, &old).map_err(files)?;
    }
    fs::rename(&beside, &place).map_err(files)?;
    if let Err(error) = clear(&old) {
        tracing::warn!(folder = %old.display(), %error, "the replaced client could not be removed");
    }
    progress(&format!("installed into {}", place.display()));
    installed(data).ok_or(InstallError::Incomplete("kimi"))
}

const PROGRAMS: &str = "node_modules/.bin";

/// How much of npm's words an error quotes, in lines.
const QUOTED: usize = 4;

fn place(data: &Path) -> PathBuf {
    data.join("client")
}

fn package() -> String {
    let package = serde_json::json!({
        "name": "kimiq-client",
        "version": "1.0.0",
        "private": true,
        "description": "Kimi Code, installed by kimiq for itself",
        "dependencies": { "@moonshot-ai/kimi-code": KIMI_CODE_VERSION, "node": NODE_VERSION },
    });
    format!("{package:#}\n")
}

fn clear(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

async fn npm(folder: &Path, env: &Environment) -> Result<(), InstallError> {
    let mut command = Command::new("npm");
    command
        .args([
            "install",
            "--loglevel=error",
            "--no-audit",
            "--no-fund",
            "--no-update-notifier",
            "--save-exact",
        ])
        .current_dir(folder)
        .env_clear()
        .envs(env)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(InstallError::NoNpm),
        Err(error) => {
            return Err(InstallError::Npm {
                said: error.to_string(),
            });
        }
    };
    let mut said = Vec::new();
    let (mut out, mut err) = (lines(child.stdout.take()), lines(child.stderr.take()));
    let (mut out_open, mut err_open) = (true, true);
    while out_open || err_open {
        let line = tokio::select! {
            line = next(&mut out), if out_open => { out_open = line.is_some(); line }
            line = next(&mut err), if err_open => { err_open = line.is_some(); line }
        };
        if let Some(line) = line.filter(|line| !line.trim().is_empty()) {
            // Its notes about settings, engines and scripts help nobody whose install works.
            said.push(line);
        }
    }
    let status = child.wait().await.map_err(|error| InstallError::Npm {
        said: error.to_string(),
    })?;
    if status.success() {
        Ok(())
    } else {
        Err(failure(&said))
    }
}

type Lines = Option<tokio::io::Lines<BufReader<Box<dyn AsyncRead + Send + Unpin>>>>;

fn lines(stream: Option<impl AsyncRead + Send + Unpin + 'static>) -> Lines {
    let stream: Box<dyn AsyncRead + Send + Unpin> = Box::new(stream?);
    Some(BufReader::new(stream).lines())
}

async fn next(lines: &mut Lines) -> Option<String> {
    // A line that cannot be read ends the reading; npm's exit status still tells how it went.
    lines.as_mut()?.next_line().await.ok().flatten()
}

fn failure(said: &[String]) -> InstallError {
    let network = [
        "ENOTFOUND",
        "EAI_AGAIN",
        "ECONNREFUSED",
        "ECONNRESET",
        "ETIMEDOUT",
        "ENETUNREACH",
        "EHOSTUNREACH",
    ];
    let errors: Vec<&str> = said
        .iter()
        .filter_map(|line| {
            line.strip_prefix("npm error ")
                .or_else(|| line.strip_prefix("npm ERR! "))
        })
        .take(QUOTED)
        .collect();
    let quoted = match said.last() {
        _ if !errors.is_empty() => errors.join("; "),
        Some(last) => last.clone(),
        None => "npm gave no reason".to_owned(),
    };
    if network
        .iter()
        .any(|code| said.iter().any(|line| line.contains(code)))
    {
        InstallError::NoNetwork { said: quoted }
    } else {
        InstallError::Npm { said: quoted }
    }
}

#[cfg(unix)]
#[cfg(test)]
mod tests {
    use super::*;
    use crate::kimi::scratch::Scratch;

    /// An npm that does as told, in place of the real one.
    fn env(scratch: &Scratch, npm: &str) -> Environment {
        scratch.program("bin/npm", &format!("#!/bin/sh\n{npm}\n"));
        let path = format!("{}:/usr/bin:/bin", scratch.path().join("bin").display());
        [("PATH".into(), path.into())].into()
    }

    async fn run(
        scratch: &Scratch,
        env: &Environment,
    ) -> (Result<Client, InstallError>, Vec<String>) {
        let mut said = Vec::new();
        let result = install(scratch.path(), env, &mut |line| said.push(line.to_owned())).await;
        (result, said)
    }

    const WORKS: &str = "grep -q '\"@moonshot-ai/kimi-code\": \"2.1.0\"' package.json || exit 9\nmkdir -p node_modules/.bin\n\
        for p in kimi node; do echo > node_modules/.bin/$p; chmod +x node_modules/.bin/$p; done; echo added 2 packages";

    #[tokio::test]
    async fn an_install_replaces_and_a_failed_one_leaves_what_was_there() {
        let scratch = Scratch::new();
        assert_eq!(installed(scratch.path()), None);
        let (result, said) = run(&scratch, &env(&scratch, WORKS)).await;
        let client = result.unwrap();
        assert_eq!(client.path_first.as_deref(), client.program.parent());
        assert_eq!(said.len(), 2, "{said:?}");
        assert!(said[1].starts_with("installed into "), "{said:?}");

        let refusing = env(&scratch, "echo 'npm error code ENOTFOUND' >&2; exit 1");
        let error = run(&scratch, &refusing).await.0.unwrap_err();
        assert!(
            matches!(&error, InstallError::NoNetwork { said } if said == "code ENOTFOUND"),
            "{error}"
        );
        assert_eq!(installed(scratch.path()), Some(client.clone()));

        run(&scratch, &env(&scratch, WORKS)).await.0.unwrap();
        assert!(
            !scratch.path().join(".client-old").exists()
                && !scratch.path().join(".client-new").exists()
        );
    }

    #[tokio::test]
    async fn what_is_missing_is_named() {
        let scratch = Scratch::new();
        let nothing = [("PATH".into(), "/nowhere".into())].into();
        assert!(matches!(
            run(&scratch, &nothing).await.0,
            Err(InstallError::NoNpm)
        ));
        let silent = run(&scratch, &env(&scratch, "exit 0")).await.0;
        assert!(matches!(silent, Err(InstallError::Incomplete("kimi"))));
        let unusual = run(&scratch, &env(&scratch, "echo killed; exit 7")).await.0;
        assert!(matches!(unusual, Err(InstallError::Npm { said }) if said == "killed"));
    }
}
