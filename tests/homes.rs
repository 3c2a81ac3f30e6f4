//! What runs do to the client's own home: overlaid or rewritten, never both, and put back whatever was killed.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]
#![expect(
    clippy::disallowed_methods,
    reason = "tests lay out files as a user would have them"
)]

#[path = "sandbox/hosts.rs"]
mod hosts;
mod sandbox;
#[expect(dead_code, reason = "no window is opened here")]
#[path = "sandbox/window.rs"]
mod window;

use hosts::departed;
use hosts::detached;
use hosts::entry;
use hosts::pidfd;
use sandbox::Sandbox;
use window::processes_of;

/// A client that tells its version and is up at once, and a home for it; the words of a run with it.
fn client(sandbox: &Sandbox, script: &str) -> String {
    use std::os::unix::fs::PermissionsExt;
    let file = sandbox.home.join("stub");
    let text = format!(
        "#!/bin/sh\nif [ \"$1\" = --version ]; then {script}\necho 2.1.0; exit; fi\n\
         printf '\\033[?2004h\\033[?2004l'; exec cat\n"
    );
    std::fs::write(&file, text).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::create_dir_all(sandbox.home.join(".kimi-code")).unwrap();
    std::fs::write(config(sandbox), CONFIG).unwrap();
    file.display().to_string()
}

const CONFIG: &str = r#"default_model = "m"
[providers.p]
type = "openai_legacy"
base_url = "http://127.0.0.1:9/v1"
api_key = "k"
[models.m]
provider = "p"
model = "m"
max_context_size = 1000
"#;

fn config(sandbox: &Sandbox) -> std::path::PathBuf {
    sandbox.home.join(".kimi-code/config.toml")
}

fn is_rewritten(sandbox: &Sandbox) -> bool {
    let text = std::fs::read_to_string(config(sandbox)).unwrap();
    assert!(text == CONFIG || text.contains("/p/p"), "{text}");
    text != CONFIG
}

#[test]
fn a_home_is_overlaid_or_rewritten_and_never_both() {
    let sandbox = Sandbox::new();
    let kimi = client(&sandbox, "");
    let plain = ["run", "--detach", "--kimi", &kimi];
    let rewriting = ["run", "--detach", "--rewrite-config", "--kimi", &kimi];
    for (first, second) in [(&plain[..], &rewriting[..]), (&rewriting[..], &plain[..])] {
        sandbox.good(first);
        let refused = sandbox.run(second);
        assert_ne!(refused.code, 0, "{refused:?}");
        assert!(refused.err.contains("--rewrite-config"), "{refused:?}");
        sandbox.good(first);
        assert_eq!(is_rewritten(&sandbox), first == rewriting);
        sandbox.good(&["stop", "run"]);
        assert_eq!(is_rewritten(&sandbox), first == rewriting);
        sandbox.good(&["stop"]);
        assert!(!is_rewritten(&sandbox));
    }
}

#[test]
fn a_run_that_starts_while_the_host_ends_is_not_forgotten() {
    let sandbox = Sandbox::new();
    let (asked, first) = (sandbox.home.join("asked"), sandbox.home.join("first"));
    // The host's own look is the second; the command has looked before.
    let kimi = client(
        &sandbox,
        &format!(
            "echo >> {first}; if [ $(wc -l < {first}) = 2 ]; then echo > {asked}; exec sleep 1004; fi",
            first = first.display(),
            asked = asked.display(),
        ),
    );
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &asked,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
        0,
    )
    .unwrap();
    sandbox.good(&detached("1", "work"));
    let host = entry(&sandbox, "default").unwrap()["pid"].clone();
    let mut late = sandbox
        .command(&[
            "run",
            "--detach",
            "--name",
            "late",
            "--rewrite-config",
            "--kimi",
            &kimi,
        ])
        .spawn()
        .unwrap();
    let waited = sandbox::within(window::DEADLINE, move || std::fs::read(asked).unwrap());
    assert!(waited.is_some(), "the host never looked for the client");
    sandbox.good(&["stop"]);
    let told = sandbox::within(window::DEADLINE, move || late.wait().unwrap());
    assert!(told.unwrap().success());
    let found = entry(&sandbox, "default").unwrap();
    assert_ne!(found["pid"], host, "the run is on the next host");
    assert_eq!(
        sandbox.json(&["ps", "--json"])[0]["runs"][0]["name"],
        "late"
    );
    assert!(is_rewritten(&sandbox));
    sandbox.good(&["stop"]);
    assert!(!is_rewritten(&sandbox));
}

/// Kills the host of this name as a crash would.
fn crash(sandbox: &Sandbox, host: &str) {
    let pid = entry(sandbox, host).unwrap()["pid"].as_u64().unwrap();
    let departure = pidfd(pid);
    rustix::process::pidfd_send_signal(&departure, rustix::process::Signal::KILL).unwrap();
    departed(departure);
}

#[test]
fn two_hosts_never_rewrite_one_configuration() {
    let sandbox = Sandbox::new();
    let kimi = client(&sandbox, "");
    let run = |host: &'static str, more: &[&'static str]| {
        let args = ["run", "--detach", "--host", host, "--kimi", &kimi];
        sandbox.run(&[&args, more].concat())
    };
    let rewriting = ["--rewrite-config"];
    assert_eq!(run("a", &rewriting).code, 0);
    for more in [&rewriting[..], &[]] {
        let refused = run("b", more);
        assert_eq!(refused.code, 1, "{refused:?}");
        assert!(refused.err.contains("another host"), "{refused:?}");
    }
    crash(&sandbox, "a");
    assert_eq!(run("b", &rewriting).code, 0, "what died holds nothing");
    assert_eq!(run("a", &[]).code, 1);
    sandbox.good(&["--host", "b", "stop"]);
    assert!(!is_rewritten(&sandbox), "also what the first had done");
    assert_eq!(run("a", &rewriting).code, 0);
    sandbox.good(&["stop"]);
    assert!(!is_rewritten(&sandbox));
    for overlaying in ["a", "b"] {
        assert_eq!(run(overlaying, &[]).code, 0, "any number may overlay it");
    }
    let refused = run("c", &rewriting);
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(refused.err.contains("terminals that use"), "{refused:?}");
    for overlaying in ["a", "b"] {
        sandbox.good(&["--host", overlaying, "stop"]);
    }
    assert_eq!(run("c", &rewriting).code, 0);
    sandbox.good(&["stop"]);
    assert!(!is_rewritten(&sandbox));
}

#[test]
fn one_configuration_that_cannot_be_put_back_keeps_no_other_from_it() {
    let sandbox = Sandbox::new();
    let kimi = client(&sandbox, "");
    sandbox.good(&["run", "--detach", "--rewrite-config", "--kimi", &kimi]);
    crash(&sandbox, "default");
    assert!(is_rewritten(&sandbox));
    let doctor = sandbox.run(&["doctor"]);
    let line = format!("bad edited file: {}", config(&sandbox).display());
    assert!(doctor.out.contains(&line), "{doctor:?}");
    assert!(doctor.out.contains("`kimiq restore`"), "{doctor:?}");
    let journals = sandbox.home.join("state/hosts/default/journals");
    for name in ["%2Faaa", "%2Fzzz"] {
        std::fs::write(journals.join(name), "no journal").unwrap();
    }
    let ran = sandbox.run(&["restore"]);
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(!is_rewritten(&sandbox), "{ran:?}");
    assert!(ran.out.contains("byte for byte"), "{ran:?}");
    assert!(
        ran.err.contains("%2Faaa") && ran.err.contains("%2Fzzz"),
        "{ran:?}"
    );
}

#[test]
fn a_host_that_is_killed_by_force_leaves_nothing_edited() {
    let sandbox = Sandbox::new();
    let kimi = client(&sandbox, "");
    sandbox.good(&["run", "--detach", "--rewrite-config", "--kimi", &kimi]);
    assert!(is_rewritten(&sandbox));
    // A port at which nobody listens stands for a host that does not answer.
    let file = sandbox.home.join("state/instances/default.json");
    let mut found = entry(&sandbox, "default").unwrap();
    found["port"] = 1.into();
    std::fs::write(&file, found.to_string()).unwrap();
    let ran = sandbox.run(&["stop", "--now"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.err.contains("was killed"), "{ran:?}");
    assert!(ran.out.contains("byte for byte"), "{ran:?}");
    assert!(!is_rewritten(&sandbox));
    assert_eq!(processes_of(&sandbox.home), Vec::<u64>::new());
    assert_eq!(entry(&sandbox, "default"), None);
}

/// The text of a file, once it holds these words.
fn file_with(path: &std::path::Path, words: &str) -> String {
    use notify::Watcher;
    let (sender, changes) = std::sync::mpsc::channel();
    let mut watcher = notify::recommended_watcher(sender).unwrap();
    let folder = path.parent().unwrap();
    watcher
        .watch(folder, notify::RecursiveMode::NonRecursive)
        .unwrap();
    loop {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        if text.contains(words) {
            return text;
        }
        let change = changes.recv_timeout(window::DEADLINE);
        assert!(change.is_ok(), "`{words}` never came: {text}");
    }
}

#[test]
fn a_killed_host_tells_how_to_go_on_with_what_was_open() {
    const SESSION: &str = "session_0a1b2c3d-0000-4000-8000-000000000000";
    let sandbox = Sandbox::new();
    let kimi = client(&sandbox, "");
    let stub = sandbox.home.join("stub");
    let ask = format!(
        "curl -s -o /dev/null -H \"x-kimiq-key: $KIMIQ_KEY\" -d '{{\"model\":\"m\",\"prompt_cache_key\":\"{SESSION}\",\"messages\":[]}}' \
         http://127.0.0.1:$KIMIQ_PORT/p/p/v1/chat/completions"
    );
    let text = std::fs::read_to_string(&stub).unwrap();
    std::fs::write(&stub, text.replace("exec cat", &format!("{ask}; exec cat"))).unwrap();
    let start = ["run", "--detach", "--name", "mine", "--kimi", &kimi];
    sandbox.good(&start);
    let state = sandbox.home.join("state/hosts/default");
    file_with(&state.join("sessions.json"), SESSION);
    crash(&sandbox, "default");

    let line = format!(
        "mine:1  kimiq run --kimi {kimi} --dir {} -- -r {SESSION}",
        sandbox.home.join("work").display()
    );
    let told = sandbox.run(&["ps"]).err;
    assert!(told.contains(&line), "{told}");
    assert!(sandbox.run(&["doctor"]).out.contains("`kimiq ps`"));
    let other = [&start[..2], &["--exec", "cat"]].concat();
    let told = sandbox.run(&other).err;
    assert!(told.contains("killed with 1 session open"), "{told}");
    assert!(sandbox.run(&["ps"]).err.contains(&line), "not open again");
    // The session is opened again.
    sandbox.good(&start);
    file_with(&state.join("sessions.json"), "\"lost\":[]");
    assert!(!sandbox.run(&["ps"]).err.contains("killed"));
    let told = sandbox.run(&["stop"]);
    assert!(told.out.contains(&line), "{told:?}");
    assert!(!sandbox.run(&["ps"]).err.contains(SESSION));
}
