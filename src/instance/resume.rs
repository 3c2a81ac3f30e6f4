//! How to go on with a session: one line to type, which puts it back behind kimiq.
//!
//! The lines of what is open are kept in a file beside the host's other state. A host that ends in order has told its own;
//! the file of a killed one still tells its sessions, and later hosts of the name keep them until they are open again, or a
//! week has passed.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde::Serialize;

use crate::clock;
use crate::config::Resolved;
use crate::control::Resume;
use crate::fsx;
use crate::instance::host::Instance;
use crate::kimi::Client;
use crate::kimi::Environment;
use crate::kimi::Kind;
use crate::kimi::ending;

/// Name of the host that a user has without asking for another.
pub const DEFAULT_HOST: &str = "default";

/// How long the sessions of killed hosts are told, milliseconds.
const KEPT: i64 = 7 * 24 * 3_600_000;

/// Least time between two writes.
const PAUSE: Duration = Duration::from_secs(1);

/// What starts a run that takes a session up again.
#[derive(Debug)]
pub(crate) struct Again {
    kind: Kind,
    /// Up to the folder.
    words: String,
}

impl Again {
    /// `command` names the client of the run, if the run named one.
    pub(crate) fn new(
        client: &Client,
        home: &Path,
        command: Option<&str>,
        env: &Environment,
        host: &str,
        settings: &Resolved,
    ) -> Self {
        let mut words = Vec::new();
        let variable = match client.kind {
            Kind::KimiCode => "KIMI_CODE_HOME",
            Kind::KimiCli => "KIMI_SHARE_DIR",
        };
        if env.contains_key(OsStr::new(variable)) {
            words.push(format!("{variable}={}", quoted(&home.to_string_lossy())));
        }
        words.push("kimiq run".to_owned());
        if host != DEFAULT_HOST {
            words.push(format!("--host {host}"));
        }
        if settings.count("terminals.count") != Some(1) {
            words.push("-n 1".to_owned());
        }
        // What the settings say needs no saying.
        if let Some(command) =
            command.filter(|given| settings.text("client.command") != Some(given))
        {
            words.push(format!("--kimi {}", quoted(command)));
        }
        Self {
            kind: client.kind,
            words: words.join(" "),
        }
    }

    /// What to type, if that is a session of the client.
    pub(crate) fn line(&self, session: &str, dir: &Path) -> Option<String> {
        ending::is_session(self.kind, session).then(|| {
            let dir = quoted(&dir.to_string_lossy());
            format!("{} --dir {dir} -- -r {session}", self.words)
        })
    }
}

/// How to go on with each session, as lines to print.
pub fn resume_lines(sessions: &[Resume]) -> Vec<String> {
    if sessions.is_empty() {
        return Vec::new();
    }
    let mut lines = vec!["to go on with a session:".to_owned()];
    for one in sessions {
        lines.push(format!("  {}  {}", one.terminal, one.command));
    }
    lines
}

/// Words as a shell takes them for one.
fn quoted(words: &str) -> String {
    let plain = words
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || b"/._-+".contains(&b));
    if plain {
        words.to_owned()
    } else {
        format!("'{}'", words.replace('\'', r"'\''"))
    }
}

/// What the file holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Kept {
    /// Open now.
    open: Vec<Resume>,
    /// Open when an earlier host was killed.
    lost: Vec<Resume>,
    /// When the last of them were found, milliseconds since 1970.
    #[serde(default)]
    found: i64,
}

impl Kept {
    /// As the next host finds it: what was open is lost, and what was lost long ago is forgotten.
    fn taken_over(mut self, now: i64) -> Self {
        if self.found + KEPT < now {
            self.lost.clear();
        }
        if !self.open.is_empty() {
            self.lost.append(&mut self.open);
            self.found = now;
        }
        self
    }
}

fn file(state: &Path) -> PathBuf {
    state.join("sessions.json")
}

fn read(state: &Path) -> io::Result<Kept> {
    let bytes = fsx::read_if_exists(&file(state))?;
    // A file of another form tells nothing that could be typed.
    Ok(bytes
        .and_then(|bytes| serde_json::from_slice(&bytes).ok())
        .unwrap_or_default())
}

/// Sessions that a killed host of this state had open and that are not open again. `alive`: a host of that name runs.
pub fn lost_sessions(state: &Path, alive: bool) -> io::Result<Vec<Resume>> {
    let kept = read(state)?;
    let kept = if alive { kept } else { kept.taken_over(now()) };
    Ok(kept.lost)
}

/// Of those the ones that no host has found yet, so that nobody was told of them.
pub fn fresh_losses(state: &Path, alive: bool) -> io::Result<Vec<Resume>> {
    Ok(if alive { Vec::new() } else { read(state)?.open })
}

/// The sessions were told.
pub fn forget_sessions(state: &Path) -> io::Result<()> {
    fsx::remove(&file(state))
}

/// The host ends in order: what it had open it tells itself.
pub(crate) fn close_sessions(state: &Path) -> io::Result<()> {
    let mut kept = read(state)?;
    if kept.lost.is_empty() {
        return forget_sessions(state);
    }
    kept.open.clear();
    let bytes = serde_json::to_vec(&kept).map_err(io::Error::from)?;
    fsx::write_atomic(&file(state), &bytes, fsx::PRIVATE)
}

fn now() -> i64 {
    clock::wall().timestamp_millis()
}

/// Keeps the file up to date until dropped.
pub(crate) async fn keep(host: Arc<Instance>, state: PathBuf) {
    let Kept { lost, found, .. } = read(&state).unwrap_or_default().taken_over(now());
    let mut kept = Kept::default();
    let mut failing = false;
    loop {
        let open: Vec<Resume> = host
            .runs()
            .iter()
            .flat_map(|run| run.open_sessions())
            .collect();
        let again: BTreeSet<&str> = open.iter().map(|one| one.session.as_str()).collect();
        let lost = lost.iter().filter(|one| !again.contains(&*one.session));
        let now = Kept {
            lost: lost.cloned().collect(),
            open,
            found,
        };
        if now != kept {
            match write(&state, &now).await {
                Ok(()) => {
                    kept = now;
                    failing = false;
                }
                Err(error) => {
                    if !failing {
                        tracing::warn!(%error, "open sessions are not kept");
                    }
                    failing = true;
                }
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn write(state: &Path, kept: &Kept) -> io::Result<()> {
    let bytes = serde_json::to_vec(kept).map_err(io::Error::from)?;
    let file = file(state);
    tokio::task::spawn_blocking(move || fsx::write_atomic(&file, &bytes, fsx::PRIVATE))
        .await
        .map_err(io::Error::other)?
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::config;
    use crate::config::Paths;

    const SESSION: &str = "session_0a1b2c3d-0000-4000-8000-000000000000";

    #[test]
    fn a_line_says_what_differs_from_the_usual() {
        let check = |kind, command, env: &[(&str, &str)], host, count: &str, expected: &str| {
            let ours: config::Environment =
                [("KIMIQ_HOME", "/no/k"), ("KIMIQ_TERMINALS_COUNT", count)]
                    .into_iter()
                    .collect();
            let settings = config::resolve(&Paths::find(&ours).unwrap(), &ours, &[]).unwrap();
            let client = Client {
                kind,
                version: None,
                program: "/opt/kimi".into(),
                args: Vec::new(),
                path_first: None,
            };
            let env = env.iter().map(|(n, v)| (n.into(), v.into())).collect();
            let home = Path::new("/h/.kimi-code");
            let again = Again::new(&client, home, command, &env, host, &settings);
            let line = again.line(SESSION, Path::new("/w/it's")).unwrap();
            assert_eq!(
                line,
                format!(r"{expected} --dir '/w/it'\''s' -- -r {SESSION}")
            );
            assert_eq!(again.line("no-session", Path::new("/w")), None);
        };
        let code = Kind::KimiCode;
        check(code, None, &[], "default", "1", "kimiq run");
        check(code, None, &[], "b", "6", "kimiq run --host b -n 1");
        let named = [("KIMI_CODE_HOME", "/any")];
        let expected = "KIMI_CODE_HOME=/h/.kimi-code kimiq run --kimi 'node /k.js'";
        check(code, Some("node /k.js"), &named, "default", "1", expected);
    }

    #[test]
    fn what_a_killed_host_had_open_is_told_until_it_is_old() {
        let one = |terminal: &str| Resume {
            terminal: terminal.into(),
            session: "s".into(),
            dir: "/w".into(),
            command: "kimiq run".into(),
        };
        let killed = Kept {
            open: vec![one("run:1")],
            ..Kept::default()
        };
        let told = killed.taken_over(KEPT * 9);
        assert_eq!((&told.lost[..], told.open.len()), (&[one("run:1")][..], 0));
        let later = |after: i64| told.clone().taken_over(KEPT * 9 + after).lost.len();
        assert_eq!((later(KEPT), later(KEPT + 1)), (1, 0));
        let mut again = told.clone();
        again.open.push(one("run:2"));
        assert_eq!(
            again.taken_over(KEPT * 10).lost,
            [one("run:1"), one("run:2")]
        );
    }

    #[test]
    fn lines_name_the_terminal() {
        let sessions = [Resume {
            terminal: "run:1".into(),
            session: "s".into(),
            dir: "/w".into(),
            command: "kimiq run".into(),
        }];
        assert_eq!(resume_lines(&sessions)[1], "  run:1  kimiq run");
        assert!(resume_lines(&[]).is_empty());
    }
}
