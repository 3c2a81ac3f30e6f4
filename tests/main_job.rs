//! The main job with the real client: `kimiq run` leads real Kimi Code terminals through the limiter, counts what they
//! use, and leaves the user's files as they were, whatever ends it.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

#[expect(dead_code, reason = "other tests use the rest")]
mod sandbox;
#[expect(dead_code, reason = "other tests use the rest")]
#[path = "sandbox/window.rs"]
mod window;
mod support {
    pub(crate) mod client;
}

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use kimiq::simulator::{Options, Simulator, TruthRecord};
use kimiq::usage::Tokens;
use notify::{RecursiveMode, Watcher};
use sandbox::Sandbox;
use serde_json::Value;
use tokio_util::task::TaskTracker;
use window::Window;

/// Six cold starts of the real client on two busy cores take half a minute.
const DEADLINE: Duration = Duration::from_secs(90);

const CONFIG: &str = r#"# my own words
default_model = "m"

[providers.work]
type = "TYPE"
base_url = "BASE/v1"   # where I work
api_key = "sk-mine"

[models.m]
provider = "work"
model = "kimi-k2.6"
max_context_size = 262144
"#;

/// A sandbox whose own client is the one that the tests installed.
async fn with_client() -> Sandbox {
    let client = support::client::client().await;
    let installed = client.program.ancestors().nth(3).unwrap().to_path_buf();
    assert!(
        installed.join("node_modules").is_dir(),
        "{}",
        installed.display()
    );
    let sandbox = Sandbox::new();
    fs::create_dir_all(sandbox.home.join("data")).unwrap();
    std::os::unix::fs::symlink(installed, sandbox.home.join("data/client")).unwrap();
    sandbox
}

fn terminals(sandbox: &Sandbox, host: &str) -> Vec<Value> {
    let listed = sandbox.json(&["--host", host, "ps", "--json"]);
    let runs = listed
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|host| host["runs"].as_array().unwrap().clone());
    runs.flat_map(|run| run["terminals"].as_array().unwrap().clone())
        .collect()
}

/// Watches a terminal of a run in a window until it is in a state.
#[track_caller]
fn wait_for(sandbox: &Sandbox, host: &str, run: &str, number: u16, words: &str) {
    let mut window = Window::open(sandbox, &["--host", host, "attach", run]);
    window.shows("Ctrl-b ?");
    window.keys(format!("\x02{number}").as_bytes());
    window.shows(words);
    window.keys(b"\x02d");
    window.ends();
}

/// The records of a truth file, once there are so many that ended.
#[track_caller]
fn truth_of(path: &Path, count: usize) -> Vec<TruthRecord> {
    let (sender, changes) = std::sync::mpsc::channel();
    let mut watcher = notify::recommended_watcher(sender).unwrap();
    watcher
        .watch(path.parent().unwrap(), RecursiveMode::NonRecursive)
        .unwrap();
    loop {
        let text = fs::read_to_string(path).unwrap_or_default();
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let records: Vec<TruthRecord> = whole
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        if records.len() >= count {
            return records;
        }
        let change = changes.recv_timeout(DEADLINE);
        assert!(
            change.is_ok(),
            "only {} of {count} requests came",
            records.len()
        );
    }
}

/// The user's own files: everything but what the client keeps for itself, with or without kimiq.
fn users_files(home: &Path) -> BTreeMap<PathBuf, String> {
    const CLIENTS_OWN: [&str; 10] = [
        "cache",
        "device_id",
        "logs",
        "session_index.jsonl",
        "sessions",
        "tui.toml",
        "updates",
        "user-history",
        "workspace-trust",
        "workspaces.json",
    ];
    let mut found = BTreeMap::new();
    let mut folders = vec![home.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let own = CLIENTS_OWN
                .iter()
                .any(|own| path.starts_with(home.join(own)));
            if path.is_dir() && !own {
                folders.push(path);
            } else if !own {
                found.insert(path.clone(), fs::read_to_string(path).unwrap());
            }
        }
    }
    found
}

/// Processes that carry a mark of this sandbox in their environment and are still alive.
fn alive(sandbox: &Sandbox) -> Vec<String> {
    let mark = sandbox.home.display().to_string();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap() {
        let process = entry.unwrap().path();
        let environment = fs::read(process.join("environ")).unwrap_or_default();
        if String::from_utf8_lossy(&environment).contains(&mark) {
            let line = fs::read(process.join("cmdline")).unwrap_or_default();
            found.push(String::from_utf8_lossy(&line).replace('\0', " "));
        }
    }
    found
}

fn users_home(sandbox: &Sandbox, kind: &str, upstream: SocketAddr) -> PathBuf {
    let home = sandbox.home.join(".kimi-code");
    fs::create_dir_all(&home).unwrap();
    let text = CONFIG
        .replace("TYPE", kind)
        .replace("BASE", &format!("http://{upstream}"));
    kimiq::fsx::write_atomic(&home.join("config.toml"), text.as_bytes(), 0o644).unwrap();
    home
}

/// The words that `kimiq stop` says to type to go on, without the first.
fn to_go_on(said: &str) -> Vec<String> {
    let (_, line) = said.split_once("kimiq run ").unwrap();
    let line = line.lines().next().unwrap();
    shlex::split(&format!("run {line}")).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn six_terminals_do_their_turn_and_every_token_is_counted() {
    let sandbox = with_client().await;
    sandbox.good(&[
        "run",
        "--demo",
        "--terminals",
        "6",
        "--detach",
        "--prompt",
        "look around",
    ]);

    let records = truth_of(&sandbox.home.join("state/hosts/demo/truth.jsonl"), 24);
    for number in 1..=6 {
        wait_for(
            &sandbox,
            "demo",
            "demo",
            number,
            &format!("kimiq demo:{number} "),
        );
        wait_for(&sandbox, "demo", "demo", number, "demo · idle");
    }
    for terminal in terminals(&sandbox, "demo") {
        assert_eq!(
            (&terminal["state"], &terminal["requests"]),
            (&"idle".into(), &4.into())
        );
    }

    assert_eq!(records.iter().filter(|it| it.status != 200).count(), 0);
    assert!(records.iter().all(|it| !it.leaked));
    let mut truth = Tokens::default();
    for record in &records {
        truth += record.tokens;
    }
    let usage = sandbox.json(&["--host", "demo", "usage", "--json"]);
    let mut counted: Tokens = serde_json::from_value(usage["today"]["tokens"].clone()).unwrap();
    // The chat dialect tells how much was thinking only where the upstream does.
    counted.reasoning = truth.reasoning;
    assert_eq!(counted, truth);
    assert_eq!(usage["today"]["requests"], records.len());

    sandbox.good(&["stop"]);
    assert_eq!(alive(&sandbox), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_users_client_is_led_stopped_and_resumed_and_its_files_stay() {
    for kind in ["kimi", "openai", "openai_responses", "anthropic"] {
        let sandbox = with_client().await;
        let simulator = Simulator::start(Options::immediate(), &TaskTracker::new())
            .await
            .unwrap();
        let home = users_home(&sandbox, kind, simulator.addr());
        let before = users_files(&home);

        sandbox.good(&[
            "run",
            "--set",
            "client.quiet=true",
            "--detach",
            "--name",
            "mine",
            "--prompt",
            "look around",
        ]);
        // The user answers the question about the folder; the prompt waits for that.
        wait_for(&sandbox, "default", "mine", 1, "asks to trust the folder");
        sandbox.good(&["send", "mine:1", ""]);
        let records = tokio::time::timeout(DEADLINE, simulator.finished(4))
            .await
            .unwrap();
        assert!(
            records.iter().all(|it| it.status == 200 && !it.leaked),
            "{kind}: {records:#?}"
        );
        wait_for(&sandbox, "default", "mine", 1, "mine · idle");
        let again = to_go_on(&sandbox.good(&["stop"]));
        assert_eq!(users_files(&home), before, "{kind}");

        let more = ["--detach", "--name", "mine", "--prompt", "and now?"];
        let mut words = vec!["--set", "client.quiet=true"];
        words.extend(again.iter().map(String::as_str));
        let end = words.iter().position(|word| *word == "--").unwrap();
        words.splice(end..end, more);
        sandbox.good(&words);
        let records = tokio::time::timeout(DEADLINE, simulator.finished(records.len() as u64 + 1))
            .await
            .unwrap();
        let (first, resumed) = (&records[0], records.last().unwrap());
        assert_eq!(resumed.session, first.session, "{kind}");
        assert!(resumed.tokens.prompt > first.tokens.prompt, "{kind}");
        sandbox.good(&["stop"]);
        assert_eq!(users_files(&home), before, "{kind}");
        assert_eq!(alive(&sandbox), Vec::<String>::new());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_host_leaves_nothing_edited_and_nobody_behind() {
    for rewrite in [false, true] {
        let sandbox = with_client().await;
        let simulator = Simulator::start(Options::immediate(), &TaskTracker::new())
            .await
            .unwrap();
        let home = users_home(&sandbox, "kimi", simulator.addr());
        let before = users_files(&home);
        let mut args = vec![
            "run",
            "--set",
            "client.quiet=true",
            "--detach",
            "--name",
            "mine",
        ];
        if rewrite {
            args.push("--rewrite-config");
        }
        sandbox.good(&args);
        wait_for(&sandbox, "default", "mine", 1, "asks to trust the folder");
        let edited = fs::read_to_string(home.join("config.toml")).unwrap();
        assert_eq!(edited.contains("/p/work"), rewrite, "{edited}");

        let entry = fs::read_to_string(sandbox.home.join("state/instances/default.json")).unwrap();
        let entry: Value = serde_json::from_str(&entry).unwrap();
        let pid = i32::try_from(entry["pid"].as_i64().unwrap()).unwrap();
        let pid = rustix::process::Pid::from_raw(pid).unwrap();
        let gone = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        let mut wait = [rustix::event::PollFd::new(
            &gone,
            rustix::event::PollFlags::IN,
        )];
        rustix::event::poll(&mut wait, None).unwrap();

        sandbox.good(&["restore"]);
        assert_eq!(users_files(&home), before, "rewrite: {rewrite}");
        // The next host clears away what the killed one left.
        sandbox.good(&[
            "run",
            "--set",
            "client.quiet=true",
            "--detach",
            "--name",
            "next",
            "--exec",
            "true",
        ]);
        sandbox.run(&["stop"]);
        assert_eq!(alive(&sandbox), Vec::<String>::new(), "rewrite: {rewrite}");
        assert_eq!(users_files(&home), before, "rewrite: {rewrite}");
    }
}
