//! Telling Kimi Code from kimi-cli, by files wherever files tell.
//!
//! kimi-cli 1.52.0 prints a notice for every use and, run without arguments, downloads and starts an installer; so no
//! program is ever run without arguments here, and one whose files say "kimi-cli 1.52" is not run at all. `--version`
//! prints a bare `2.1.0` in Kimi Code and `kimi, version 1.51.0` in kimi-cli (measured); it costs 1-3 s of start-up.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

use crate::kimi::home::Environment;

/// What a program turned out to be.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Identity {
    KimiCode(Option<String>),
    KimiCli(String),
    Refused(String),
    Stranger(String),
    /// Kimi Code whose node is missing or too old; what `node --version` said.
    OldNode(String),
}

/// The first kimi-cli that refuses to work.
const REFUSES_FROM: (u32, u32) = (1, 52);

/// The oldest node that runs Kimi Code 2.1.0, by its package.
const NODE_NEEDED: (u32, u32) = (22, 19);

const PATIENCE: Duration = Duration::from_secs(20);

/// How much of a script is read to see what it starts, in bytes.
const HEAD: u64 = 4096;

/// How far above the program its package's description may lie.
const PARENTS: usize = 4;

pub(super) async fn identify(
    program: &Path,
    args: &[String],
    path_first: Option<&Path>,
    env: &Environment,
) -> Identity {
    // Arguments may make an interpreter or a runner of the program; then its files tell nothing.
    if args.is_empty()
        && let Some(found) = by_files(program)
    {
        return with_its_node(found, program, path_first, env).await;
    }
    by_version(&ask(program, args, path_first, env).await)
}

/// A script of node's is only as good as the node that `PATH` has for it.
async fn with_its_node(
    found: Identity,
    program: &Path,
    path_first: Option<&Path>,
    env: &Environment,
) -> Identity {
    let of_node = head(program).is_some_and(|head| {
        head.lines()
            .next()
            .is_some_and(|first| first.starts_with("#!") && first.contains("node"))
    });
    if !of_node || !matches!(found, Identity::KimiCode(_)) {
        return found;
    }
    let said = ask(Path::new("node"), &[], path_first, env).await;
    let said = said.trim();
    if said
        .strip_prefix('v')
        .is_some_and(|version| numbers(version) >= NODE_NEEDED)
    {
        found
    } else {
        Identity::OldNode(said.to_owned())
    }
}

fn by_files(program: &Path) -> Option<Identity> {
    let real = fs::canonicalize(program).ok()?;
    if let Some(found) = npm_package(&real) {
        return Some(found);
    }
    let head = head(&real)?;
    let first = head.lines().next()?.strip_prefix("#!")?.trim();
    if !first.contains("python") {
        return None;
    }
    let interpreter = Path::new(first.split_whitespace().next()?);
    [program, &real, interpreter]
        .into_iter()
        .filter_map(|path| path.parent()?.parent())
        .find_map(python_package)
        .map(cli)
}

/// Kimi Code, if the `package.json` above a script says so.
fn npm_package(script: &Path) -> Option<Identity> {
    let text = script
        .ancestors()
        .skip(1)
        .take(PARENTS)
        .find_map(|folder| fs::read_to_string(folder.join("package.json")).ok())?;
    let package: serde_json::Value = serde_json::from_str(&text).ok()?;
    let field = |name: &str| package.get(name).and_then(|value| value.as_str());
    (field("name")? == "@moonshot-ai/kimi-code")
        .then(|| Identity::KimiCode(field("version").map(str::to_owned)))
}

fn head(path: &Path) -> Option<String> {
    let mut bytes = Vec::new();
    File::open(path)
        .ok()?
        .take(HEAD)
        .read_to_end(&mut bytes)
        .ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// The version of `kimi_cli` installed below a Python prefix, from the name of its metadata folder.
fn python_package(prefix: &Path) -> Option<String> {
    let mut libraries = vec![prefix.join("Lib")];
    for library in ["lib", "lib64"] {
        libraries.extend(entries(&prefix.join(library)));
    }
    libraries
        .iter()
        .flat_map(|library| [library.join("site-packages"), library.join("dist-packages")])
        .flat_map(|packages| entries(&packages))
        .find_map(|entry| {
            let name = entry.file_name()?.to_str()?;
            Some(
                name.strip_prefix("kimi_cli-")?
                    .strip_suffix(".dist-info")?
                    .to_owned(),
            )
        })
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder)
        .map(|found| found.filter_map(|entry| Some(entry.ok()?.path())).collect())
        .unwrap_or_default()
}

fn cli(version: String) -> Identity {
    if numbers(&version) >= REFUSES_FROM {
        Identity::Refused(version)
    } else {
        Identity::KimiCli(version)
    }
}

/// Major and minor; what is no number counts as 0.
fn numbers(version: &str) -> (u32, u32) {
    let mut parts = version.split('.').map(|part| part.parse().unwrap_or(0));
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0))
}

async fn ask(
    program: &Path,
    args: &[String],
    path_first: Option<&Path>,
    env: &Environment,
) -> String {
    let mut command = Command::new(program);
    command
        .args(args)
        .arg("--version")
        .env_clear()
        .envs(env)
        .stdin(Stdio::null())
        .kill_on_drop(true);
    if let Some(folder) = path_first {
        command.env("PATH", path_with(folder, env));
    }
    match tokio::time::timeout(PATIENCE, command.output()).await {
        Ok(Ok(output)) => String::from_utf8_lossy(&output.stdout).into_owned(),
        Ok(Err(error)) => error.to_string(),
        Err(_late) => format!("nothing within {} s", PATIENCE.as_secs()),
    }
}

fn by_version(said: &str) -> Identity {
    let said = said.trim();
    if let Some(version) = said.strip_prefix("kimi, version ") {
        return cli(version.to_owned());
    }
    let bare = said.starts_with(|c: char| c.is_ascii_digit())
        && said.contains('.')
        && !said.contains(char::is_whitespace);
    if bare {
        return Identity::KimiCode(Some(said.to_owned()));
    }
    Identity::Stranger(said.chars().take(80).collect())
}

/// `PATH` with one folder in front.
pub(super) fn path_with(folder: &Path, env: &Environment) -> std::ffi::OsString {
    let old = env.get(OsStr::new("PATH")).cloned().unwrap_or_default();
    let folders = std::iter::once(folder.to_path_buf()).chain(std::env::split_paths(&old));
    // A folder with a separator in its name cannot be listed; the client's own node is then not found, as without us.
    std::env::join_paths(folders).unwrap_or(old)
}
