//! Finding the client program and its home.
//!
//! In order: the command that the user names, every `kimi` on `PATH`, the client that `kimiq client install` put into our
//! own data folder. A refused kimi-cli is passed over while something better may follow. Nothing is remembered: an upgrade
//! of the client between two starts is seen.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};

use crate::kimi::identify::{self, Identity};
use crate::kimi::install;
use crate::kimi::overlay;

/// An environment as a value.
pub type Environment = BTreeMap<OsString, OsString>;

/// Which of the two programs called `kimi` this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Kimi Code, the current client.
    KimiCode,
    /// The archived Python kimi-cli, below 1.52.
    KimiCli,
}

/// A client program that can be started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client {
    /// Which program.
    pub kind: Kind,
    /// Its version, where it is known.
    pub version: Option<String>,
    /// The program to start, absolute.
    pub program: PathBuf,
    /// Arguments that come before ours.
    pub args: Vec<String>,
    /// A folder that must come first in the child's `PATH`: an npm install that brings its own node.
    pub path_first: Option<PathBuf>,
}

/// Why no client can be started.
#[derive(Debug, thiserror::Error)]
pub enum FindError {
    /// There is none.
    #[error("no `kimi` on PATH")]
    None,
    /// The named command does not exist or cannot be executed.
    #[error("`{0}` is not a program that can be started")]
    NoProgram(String),
    /// The named command has an open quote.
    #[error("`{0}` has a quote that is not closed")]
    Quote(String),
    /// kimi-cli 1.52 and later, which refuses to work and installs software when it is run alone.
    #[error("{program} is kimi-cli {version}, which no longer runs")]
    Refused {
        /// Where it is.
        program: PathBuf,
        /// What its files say.
        version: String,
    },
    /// A program that is neither of the two.
    #[error("{program} is neither Kimi Code nor kimi-cli (its --version says {said:?})")]
    Stranger {
        /// Where it is.
        program: PathBuf,
        /// The start of what it printed.
        said: String,
    },
    /// Kimi Code is there, but not the node it needs.
    #[error("{program} needs node 22.19 or later (node --version says {said:?})")]
    OldNode {
        /// Where it is.
        program: PathBuf,
        /// What node printed, or why it could not be run.
        said: String,
    },
    /// The environment names no home folder.
    #[error("HOME is not set, so the client's configuration cannot be found")]
    NoHome,
}

impl FindError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::None | Self::Refused { .. } | Self::OldNode { .. } => {
                "run `kimiq client install` to get Kimi Code for kimiq alone, or name yours with --kimi \"COMMAND ARGS\""
            }
            Self::NoProgram(_) | Self::Quote(_) => "check the command given with --kimi",
            Self::Stranger { .. } => "name the right program with --kimi \"COMMAND ARGS\"",
            Self::NoHome => "set HOME, or KIMI_CODE_HOME for Kimi Code",
        }
    }
}

/// Finds the client: `wanted` ("COMMAND ARGS"), else `kimi` on `PATH`, else our own below the `data` folder.
///
/// Files are read to tell the clients apart; only a program whose files say nothing is asked for its `--version`, for 20 s
/// at most.
///
/// # Errors
///
/// None is found, or the one that is found cannot be used; see [`FindError::hint`].
pub async fn find(
    wanted: Option<&str>,
    env: &Environment,
    data: &Path,
) -> Result<Client, FindError> {
    if let Some(wanted) = wanted {
        let mut words = shlex::split(wanted).ok_or_else(|| FindError::Quote(wanted.to_owned()))?;
        if words.is_empty() {
            return Err(FindError::NoProgram(wanted.to_owned()));
        }
        let program = words.remove(0);
        let found = lookup(&program, env).into_iter().next();
        return usable(&found.ok_or(FindError::NoProgram(program))?, words, env).await;
    }
    let mut refused = None;
    for program in lookup("kimi", env) {
        match usable(&program, Vec::new(), env).await {
            Ok(client) => return Ok(client),
            Err(error) => refused = refused.or(Some(error)),
        }
    }
    install::installed(data).ok_or_else(|| refused.unwrap_or(FindError::None))
}

impl Client {
    /// The client's home: `KIMI_CODE_HOME` or `~/.kimi-code`, `KIMI_SHARE_DIR` or `~/.kimi`.
    ///
    /// # Errors
    ///
    /// Neither variable nor `HOME` is set.
    pub fn home(&self, env: &Environment) -> Result<PathBuf, FindError> {
        let (variable, folder) = match self.kind {
            Kind::KimiCode => ("KIMI_CODE_HOME", ".kimi-code"),
            Kind::KimiCli => ("KIMI_SHARE_DIR", ".kimi"),
        };
        if let Some(named) = set(env, variable) {
            // Inside one of our own terminals the variable names the overlay.
            return Ok(overlay::real_home(Path::new(named)).unwrap_or_else(|| PathBuf::from(named)));
        }
        let home = set(env, "HOME")
            .or_else(|| set(env, "USERPROFILE"))
            .ok_or(FindError::NoHome)?;
        Ok(Path::new(home).join(folder))
    }
}

async fn usable(program: &Path, args: Vec<String>, env: &Environment) -> Result<Client, FindError> {
    let beside = program
        .parent()
        .filter(|folder| is_program(&folder.join("node")));
    let (kind, version) = match identify::identify(program, &args, beside, env).await {
        Identity::KimiCode(version) => (Kind::KimiCode, version),
        Identity::KimiCli(version) => (Kind::KimiCli, Some(version)),
        Identity::Refused(version) => {
            return Err(FindError::Refused {
                program: program.to_path_buf(),
                version,
            });
        }
        Identity::OldNode(said) => {
            return Err(FindError::OldNode {
                program: program.to_path_buf(),
                said,
            });
        }
        Identity::Stranger(said) => {
            return Err(FindError::Stranger {
                program: program.to_path_buf(),
                said,
            });
        }
    };
    let path_first = beside
        .filter(|_| kind == Kind::KimiCode)
        .map(Path::to_path_buf);
    Ok(Client {
        kind,
        version,
        program: program.to_path_buf(),
        args,
        path_first,
    })
}

/// Every program of that name on `PATH`, or the one that a path names.
fn lookup(program: &str, env: &Environment) -> Vec<PathBuf> {
    let candidates: Vec<PathBuf> = if program.contains(std::path::MAIN_SEPARATOR) {
        vec![PathBuf::from(program)]
    } else {
        let path = set(env, "PATH").unwrap_or_default();
        std::env::split_paths(path)
            .map(|folder| folder.join(program))
            .collect()
    };
    candidates
        .into_iter()
        .filter(|candidate| is_program(candidate))
        .filter_map(|candidate| std::path::absolute(candidate).ok())
        .collect()
}

fn set<'a>(env: &'a Environment, name: &str) -> Option<&'a OsStr> {
    env.get(OsStr::new(name))
        .map(OsString::as_os_str)
        .filter(|value| !value.is_empty())
}

#[cfg(unix)]
pub(super) fn is_program(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    fs::metadata(path).is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

#[cfg(not(unix))]
pub(super) fn is_program(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|found| found.is_file())
}

#[cfg(unix)]
#[cfg(test)]
mod tests {
    use super::*;
    use crate::kimi::scratch::Scratch;

    fn env(path: &Path) -> Environment {
        [
            ("PATH".into(), path.into()),
            ("HOME".into(), "/home/u".into()),
        ]
        .into()
    }

    /// A `kimi` that leaves a mark when it is run.
    fn script(scratch: &Scratch, at: &str, first: &str, body: &str) -> PathBuf {
        let mark = scratch.path().join("was-run");
        scratch.program(at, &format!("{first}\ntouch {}\n{body}\n", mark.display()))
    }

    #[tokio::test]
    async fn an_npm_install_is_known_by_its_package_without_being_run() {
        let scratch = Scratch::new();
        scratch.file(
            "m/@moonshot-ai/kimi-code/package.json",
            r#"{"name":"@moonshot-ai/kimi-code","version":"2.1.0"}"#,
        );
        script(
            &scratch,
            "m/@moonshot-ai/kimi-code/dist/main.mjs",
            "#!/bin/sh",
            "",
        );
        scratch.link("m/@moonshot-ai/kimi-code/dist/main.mjs", "bin/kimi");
        scratch.program("bin/node", "");
        let found = find(None, &env(&scratch.path().join("bin")), scratch.path())
            .await
            .unwrap();
        assert_eq!(
            (found.kind, found.version.as_deref()),
            (Kind::KimiCode, Some("2.1.0"))
        );
        assert_eq!(found.path_first, Some(scratch.path().join("bin")));
        assert_eq!(
            found.home(&env(Path::new(""))).unwrap(),
            Path::new("/home/u/.kimi-code")
        );
        assert!(!scratch.path().join("was-run").exists());
    }

    #[tokio::test]
    async fn the_refused_kimi_cli_is_never_run_and_passed_over() {
        let scratch = Scratch::new();
        let python = scratch.path().join("venv/bin/python3");
        script(&scratch, "venv/bin/python3", "#!/bin/sh", "");
        scratch.program(
            "venv/bin/kimi",
            &format!(
                "#!{}\nfrom kimi_cli.__main__ import main\n",
                python.display()
            ),
        );
        scratch.file(
            "venv/lib/python3.12/site-packages/kimi_cli-1.52.0.dist-info/METADATA",
            "",
        );
        let path = scratch.path().join("venv/bin");
        let error = find(None, &env(&path), scratch.path()).await.unwrap_err();
        assert!(
            matches!(&error, FindError::Refused { version, .. } if version == "1.52.0"),
            "{error}"
        );
        assert!(!scratch.path().join("was-run").exists());

        fs::rename(
            scratch
                .path()
                .join("venv/lib/python3.12/site-packages/kimi_cli-1.52.0.dist-info"),
            scratch
                .path()
                .join("venv/lib/python3.12/site-packages/kimi_cli-1.51.0.dist-info"),
        )
        .unwrap();
        let found = find(None, &env(&path), scratch.path()).await.unwrap();
        assert_eq!(
            (found.kind, found.version.as_deref()),
            (Kind::KimiCli, Some("1.51.0"))
        );
        assert!(!scratch.path().join("was-run").exists());
    }

    #[tokio::test]
    async fn a_program_without_files_is_asked_for_its_version() {
        let scratch = Scratch::new();
        for (says, expected) in [
            ("2.1.0", Some(Kind::KimiCode)),
            ("kimi, version 1.40.0", Some(Kind::KimiCli)),
            ("kimi, version 1.52.0", None),
            ("kimi-cli is retired, please install Kimi Code", None),
        ] {
            let wrapper = scratch.program(
                "wrap/k",
                &format!("#!/bin/sh\n[ \"$2\" = --version ] && echo '{says}'\n"),
            );
            let wanted = format!("/bin/sh '{}' one", wrapper.display());
            let found = find(Some(&wanted), &env(Path::new("/bin")), scratch.path()).await;
            assert_eq!(
                found.as_ref().ok().map(|client| client.kind),
                expected,
                "{says}"
            );
            if let Ok(client) = found {
                assert_eq!(client.args.last().unwrap(), "one");
            }
        }
    }

    #[tokio::test]
    async fn an_old_node_is_told_before_a_terminal_fails_on_it() {
        let scratch = Scratch::new();
        scratch.file(
            "pkg/package.json",
            r#"{"name":"@moonshot-ai/kimi-code","version":"2.1.0"}"#,
        );
        scratch.program("pkg/main.mjs", "#!/usr/bin/env node\n");
        scratch.link("pkg/main.mjs", "bin/kimi");
        let env = env(&scratch.path().join("bin"));
        for (says, good) in [
            ("v22.19.0", true),
            ("v24.1.0", true),
            ("v20.20.2", false),
            ("v22.9.0", false),
        ] {
            scratch.program("bin/node", &format!("#!/bin/sh\necho {says}\n"));
            let found = find(None, &env, scratch.path()).await;
            assert_eq!(found.is_ok(), good, "{says}: {found:?}");
        }
    }

    #[tokio::test]
    async fn nothing_found_says_what_to_do() {
        let scratch = Scratch::new();
        let error = find(None, &env(Path::new("/nowhere")), scratch.path())
            .await
            .unwrap_err();
        assert!(error.hint().contains("kimiq client install"));
        let error = find(
            Some("gone --x"),
            &env(Path::new("/nowhere")),
            scratch.path(),
        )
        .await
        .unwrap_err();
        assert_eq!(
            error.to_string(),
            "`gone` is not a program that can be started"
        );
    }
}
