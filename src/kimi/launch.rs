//! What to start for a terminal: program, arguments and environment.
//!
//! The child must believe that it talks to a capable terminal and to no multiplexer around us, must send our key with each
//! model request, and must not be led past the proxy by a variable. `TERM_PROGRAM=ghostty` with images off makes Kimi
//! Code 2.1.0 tell its state by OSC 9;4 and OSC 9 (measured).

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use crate::kimi::home::{Client, Environment};
use crate::kimi::identify::path_with;

/// Header that carries a terminal's key.
pub const KEY_HEADER: &str = "x-kimiq-key";

/// Variable that tells a terminal's own name to everything that runs in it.
pub const TERMINAL_VARIABLE: &str = "KIMIQ_TERMINAL";

/// A program to start in a terminal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LaunchSpec {
    /// Absolute.
    pub program: PathBuf,
    /// Without the program's name.
    pub args: Vec<OsString>,
    /// Variables to set over the user's environment.
    pub env: Vec<(OsString, OsString)>,
    /// Variables to take out of the user's environment first.
    pub env_remove: Vec<OsString>,
    /// Working folder.
    pub cwd: PathBuf,
}

/// What differs from terminal to terminal.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The terminal's name, for [`TERMINAL_VARIABLE`].
    pub terminal: String,
    /// The terminal's key; only Kimi Code gets it here.
    pub key: String,
    /// Working folder.
    pub cwd: PathBuf,
    /// Session to resume; the client wants the same working folder.
    pub resume: Option<String>,
    /// Steps per turn; for kimi-cli it belongs into the generated file.
    pub max_steps: Option<u32>,
    /// No update check and no telemetry of the client.
    pub quiet_client: bool,
    /// More arguments of the user's.
    pub args: Vec<OsString>,
    /// More variables: those of a [`crate::kimi::Redirected`] or [`crate::kimi::Synced`].
    pub env: Vec<(OsString, OsString)>,
}

/// Starts Kimi Code in an overlay `home` (or in the real one, after a rewrite). `env` is the user's environment.
pub fn kimi_code(client: &Client, home: &Path, options: &Options, env: &Environment) -> LaunchSpec {
    let mut spec = shared(client, options, env);
    let mut set = |name: &str, value: OsString| spec.env.push((name.into(), value));
    set("KIMI_CODE_HOME", home.into());
    set(
        "KIMI_CODE_CUSTOM_HEADERS",
        headers(
            env.get(OsStr::new("KIMI_CODE_CUSTOM_HEADERS")),
            &options.key,
        ),
    );
    set("TERM_PROGRAM", "ghostty".into());
    set("PI_IMAGE_PROTOCOL", "none".into());
    if let Some(steps) = options.max_steps {
        set("KIMI_LOOP_MAX_STEPS_PER_TURN", steps.to_string().into());
    }
    if options.quiet_client {
        set("KIMI_CODE_NO_AUTO_UPDATE", "1".into());
        set("KIMI_DISABLE_TELEMETRY", "1".into());
    }
    spec
}

/// Starts kimi-cli with a generated `config_file` (see [`crate::kimi::legacy`]).
pub fn kimi_cli(
    client: &Client,
    config_file: &Path,
    options: &Options,
    env: &Environment,
) -> LaunchSpec {
    let mut spec = shared(client, options, env);
    let at = client.args.len();
    spec.args
        .splice(at..at, ["--config-file".into(), config_file.into()]);
    if options.quiet_client {
        spec.env
            .push(("KIMI_CLI_NO_AUTO_UPDATE".into(), "1".into()));
    }
    spec
}

/// Taken from the child: a multiplexer or terminal around us is not the one it talks to.
const FOREIGN: [&str; 9] = [
    "ITERM_SESSION_ID",
    "KONSOLE_VERSION",
    "ConEmuANSI",
    "STY",
    "TERM_PROGRAM",
    "TERM_PROGRAM_VERSION",
    "TMUX",
    "VTE_VERSION",
    "WT_SESSION",
];

const FOREIGN_FAMILIES: [&str; 8] = [
    "GHOSTTY_",
    "KITTY_",
    "LC_TERMINAL",
    "TMUX_",
    "WARP_",
    "WEZTERM_",
    "WT_",
    "ZELLIJ",
];

/// Taken from the child: they name an upstream, which the routes know already. `KIMI_CODE_BASE_URL` stays: it chooses the
/// place of the login, and the aliases' addresses win over it. Google's stays, because its models keep their own upstream.
const ENDPOINTS: [&str; 3] = ["ANTHROPIC_BASE_URL", "KIMI_BASE_URL", "OPENAI_BASE_URL"];

const LOOPBACK: [&str; 3] = ["127.0.0.1", "localhost", "::1"];

fn shared(client: &Client, options: &Options, env: &Environment) -> LaunchSpec {
    let mut args: Vec<OsString> = client.args.iter().map(OsString::from).collect();
    args.extend(options.args.iter().cloned());
    if let Some(session) = &options.resume {
        args.extend(["-S".into(), session.into()]);
    }
    let mut env_remove: Vec<OsString> = FOREIGN
        .iter()
        .chain(&ENDPOINTS)
        .map(OsString::from)
        .collect();
    env_remove.extend(env.keys().filter(|name| is_foreign(name)).cloned());
    let mut set: Vec<(OsString, OsString)> = vec![
        ("TERM".into(), "xterm-256color".into()),
        ("COLORTERM".into(), "truecolor".into()),
        (TERMINAL_VARIABLE.into(), options.terminal.clone().into()),
    ];
    // Programs differ in which spelling they read; an empty one in one spelling must not hide the other.
    let exempt = without_proxy(env);
    set.extend(["NO_PROXY", "no_proxy"].map(|name| (name.into(), exempt.clone())));
    let is_set = |name: &&str| {
        env.get(OsStr::new(*name))
            .is_some_and(|value| !value.is_empty())
    };
    if !["LC_ALL", "LC_CTYPE", "LANG"].iter().any(is_set) {
        set.push(("LANG".into(), "C.UTF-8".into()));
    }
    if let Some(folder) = &client.path_first {
        set.push(("PATH".into(), path_with(folder, env)));
    }
    set.extend(options.env.iter().cloned());
    LaunchSpec {
        program: client.program.clone(),
        args,
        env: set,
        env_remove,
        cwd: options.cwd.clone(),
    }
}

fn is_foreign(name: &OsStr) -> bool {
    name.to_str().is_some_and(|name| {
        FOREIGN_FAMILIES
            .iter()
            .any(|family| name.starts_with(family))
    })
}

/// The user's own headers, and the key last. The variable holds one `Name: Value` a line.
fn headers(users: Option<&OsString>, key: &str) -> OsString {
    let users = users
        .map(|value| value.to_string_lossy())
        .unwrap_or_default();
    let mut lines: Vec<String> = users
        .lines()
        .filter(|line| {
            let name = line.split(':').next().unwrap_or_default();
            !line.trim().is_empty() && !name.trim().eq_ignore_ascii_case(KEY_HEADER)
        })
        .map(str::to_owned)
        .collect();
    lines.push(format!("{KEY_HEADER}: {key}"));
    lines.join("\n").into()
}

/// The user's exemptions from the proxy, and loopback. kimi-cli 1.51.0 sends even loopback requests through a proxy
/// that the environment names (measured).
fn without_proxy(env: &Environment) -> OsString {
    let mut hosts: Vec<String> = Vec::new();
    for name in ["NO_PROXY", "no_proxy"] {
        let users = env
            .get(OsStr::new(name))
            .map(|value| value.to_string_lossy())
            .unwrap_or_default();
        hosts.extend(
            users
                .split(',')
                .map(|host| host.trim().to_owned())
                .filter(|host| !host.is_empty()),
        );
    }
    hosts.extend(LOOPBACK.map(str::to_owned));
    let mut seen = std::collections::HashSet::new();
    hosts.retain(|host| seen.insert(host.clone()));
    hosts.join(",").into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kimi::home::Kind;

    fn client() -> Client {
        Client {
            kind: Kind::KimiCode,
            version: None,
            program: "/own/.bin/kimi".into(),
            args: vec!["--first".to_owned()],
            path_first: Some("/own/.bin".into()),
        }
    }

    fn env(pairs: &[(&str, &str)]) -> Environment {
        pairs
            .iter()
            .map(|(name, value)| (name.into(), value.into()))
            .collect()
    }

    fn value<'a>(spec: &'a LaunchSpec, name: &str) -> Option<&'a str> {
        spec.env
            .iter()
            .rev()
            .find(|(set, _)| set == name)
            .and_then(|(_, value)| value.to_str())
    }

    #[test]
    fn a_kimi_code_child_knows_its_home_its_key_and_its_terminal() {
        let options = Options {
            terminal: "3".to_owned(),
            key: "SECRET".to_owned(),
            resume: Some("session_x".to_owned()),
            max_steps: Some(9),
            args: vec!["--yolo".into()],
            ..Options::default()
        };
        let users = env(&[
            ("PATH", "/usr/bin"),
            (
                "KIMI_CODE_CUSTOM_HEADERS",
                "X-Team: blue\nX-Kimiq-Key: old\n",
            ),
            ("NO_PROXY", "corp.example"),
            ("no_proxy", "localhost,other"),
            ("TMUX", "x"),
            ("ZELLIJ_PANE_ID", "1"),
            ("LANG", "de_DE.UTF-8"),
        ]);
        let spec = kimi_code(&client(), Path::new("/overlay"), &options, &users);
        assert_eq!(spec.args, ["--first", "--yolo", "-S", "session_x"]);
        assert!(!spec.args.iter().any(|arg| arg == "SECRET"));
        for (name, expected) in [
            ("KIMI_CODE_HOME", Some("/overlay")),
            (
                "KIMI_CODE_CUSTOM_HEADERS",
                Some("X-Team: blue\nx-kimiq-key: SECRET"),
            ),
            (
                "NO_PROXY",
                Some("corp.example,localhost,other,127.0.0.1,::1"),
            ),
            (
                "no_proxy",
                Some("corp.example,localhost,other,127.0.0.1,::1"),
            ),
            ("PATH", Some("/own/.bin:/usr/bin")),
            ("TERM_PROGRAM", Some("ghostty")),
            ("KIMIQ_TERMINAL", Some("3")),
            ("KIMI_LOOP_MAX_STEPS_PER_TURN", Some("9")),
            ("KIMI_DISABLE_TELEMETRY", None),
            ("LANG", None),
        ] {
            assert_eq!(value(&spec, name), expected, "{name}");
        }
        for name in ["TMUX", "ZELLIJ_PANE_ID", "OPENAI_BASE_URL"] {
            assert!(
                spec.env_remove.iter().any(|removed| removed == name),
                "{name}"
            );
        }
    }

    #[test]
    fn a_kimi_cli_child_gets_its_file_and_no_terminal_name() {
        let options = Options {
            quiet_client: true,
            args: vec!["--yolo".into()],
            ..Options::default()
        };
        let spec = kimi_cli(&client(), Path::new("/state/1.toml"), &options, &env(&[]));
        assert_eq!(
            spec.args,
            ["--first", "--config-file", "/state/1.toml", "--yolo"]
        );
        assert_eq!(value(&spec, "TERM_PROGRAM"), None);
        assert_eq!(value(&spec, "LANG"), Some("C.UTF-8"));
        assert_eq!(value(&spec, "KIMI_CLI_NO_AUTO_UPDATE"), Some("1"));
    }
}
