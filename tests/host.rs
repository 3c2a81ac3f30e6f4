//! The host as a process: started once, found again, gone without a trace; and windows on real PTYs.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

#[path = "sandbox/hosts.rs"]
mod hosts;
mod sandbox;
#[path = "sandbox/window.rs"]
mod window;

use std::net::TcpStream;
use std::process::Stdio;

use hosts::departed;
use hosts::detached;
use hosts::entry;
use hosts::pidfd;
use sandbox::Sandbox;
use serde_json::Value;
use window::SHELL;
use window::Window;
use window::processes_of;
use window::runs;

fn terminals(listed: &Value) -> Vec<&Value> {
    let hosts = listed.as_array().unwrap().iter();
    hosts
        .flat_map(|host| host["runs"].as_array().unwrap())
        .flat_map(|run| run["terminals"].as_array().unwrap())
        .collect()
}

#[test]
fn two_starts_at_once_give_one_host() {
    let sandbox = Sandbox::new();
    let start = |name: &str| {
        let mut command = sandbox.command(&detached("1", name));
        command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    };
    let both = ["a", "b", "c"].map(start);
    for child in both {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }
    let listed = sandbox.json(&["ps", "--json"]);
    assert_eq!(listed.as_array().unwrap().len(), 1, "{listed}");
    let mut names: Vec<_> = listed[0]["runs"]
        .as_array()
        .unwrap()
        .iter()
        .map(|run| run["name"].as_str().unwrap())
        .collect();
    names.sort_unstable();
    assert_eq!(names, ["a", "b", "c"]);
}

#[test]
fn a_stop_leaves_no_process_no_port_and_no_entry() {
    let sandbox = Sandbox::new();
    sandbox.good(&detached("2", "work"));
    sandbox.good(&[
        "send",
        "work:1",
        "setsid sleep 1001 & nohup sh -c 'echo up-$((1+1)) > /dev/tty; exec sleep 1002' &",
    ]);
    let mut window = Window::open(&sandbox, &["attach", "work"]);
    window.shows("up-2");
    let found = entry(&sandbox, "default").unwrap();
    let port = u16::try_from(found["port"].as_u64().unwrap()).unwrap();
    assert!(TcpStream::connect(("127.0.0.1", port)).is_ok());
    assert!(
        processes_of(&sandbox.home).len() >= 4,
        "host, window, shell and sleep"
    );

    let said = sandbox.run(&["stop"]);
    assert_eq!(said.code, 0, "{said:?}");
    window.shows("has ended");
    assert_eq!(window.ends(), 0);

    assert_eq!(processes_of(&sandbox.home), Vec::<u64>::new());
    assert!(TcpStream::connect(("127.0.0.1", port)).is_err());
    assert_eq!(entry(&sandbox, "default"), None);
    assert_eq!(sandbox.run(&["attach"]).code, 4);
}

#[test]
fn stopping_one_run_leaves_the_other_and_stopping_the_last_ends_the_host() {
    let sandbox = Sandbox::new();
    sandbox.good(&detached("1", "one"));
    sandbox.good(&detached("1", "two"));
    for args in [
        &["send", "1", "hello"][..],
        &["snapshot", "1"],
        &["why", "1"],
    ] {
        let refused = sandbox.run(args);
        assert_eq!(refused.code, 2, "{refused:?}");
        assert!(refused.err.contains("one of one:1, two:1"), "{refused:?}");
    }
    sandbox.good(&["stop", "one"]);
    sandbox.good(&["snapshot", "1"]);
    let listed = sandbox.json(&["ps", "--json"]);
    assert_eq!(listed[0]["runs"].as_array().unwrap().len(), 1);
    assert_eq!(listed[0]["runs"][0]["name"], "two");
    sandbox.good(&["stop", "two"]);
    assert_eq!(entry(&sandbox, "default"), None);
    assert_eq!(processes_of(&sandbox.home), Vec::<u64>::new());
}

#[test]
fn after_a_kill_the_next_host_puts_things_in_order() {
    let sandbox = Sandbox::new();
    sandbox.good(&detached("1", "work"));
    sandbox.good(&[
        "send",
        "work:1",
        "setsid sh -c 'echo up-$((1+1)); exec sleep 1003' &",
    ]);
    let mut window = Window::open(&sandbox, &["attach"]);
    window.shows("up-2");
    let host = entry(&sandbox, "default").unwrap()["pid"].as_u64().unwrap();
    let pid = rustix::process::Pid::from_raw(i32::try_from(host).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    window.shows("the host went away");
    assert_ne!(window.ends(), 0);
    assert!(window.is_given_back());
    assert!(
        entry(&sandbox, "default").is_some(),
        "a killed host cannot clean up"
    );
    assert_eq!(sandbox.run(&["health"]).code, 4, "and is not believed");

    let old = processes_of(&sandbox.home);
    assert!(!old.is_empty(), "the sleep lives on");
    sandbox.good(&detached("1", "again"));
    for pid in old {
        assert!(!runs(pid), "{pid} was left by the killed host");
    }
    let found = entry(&sandbox, "default").unwrap();
    assert_ne!(found["pid"].as_u64(), Some(host));
    assert_eq!(terminals(&sandbox.json(&["ps", "--json"])).len(), 1);
}

#[test]
fn a_window_detaches_and_comes_back() {
    let sandbox = Sandbox::new();
    let mut args = vec!["run", "--name", "work"];
    args.extend(SHELL);
    let mut window = Window::open(&sandbox, &args);
    window.shows("$");
    window.keys(b"echo marker-$((40+2))\r");
    window.shows("marker-42");
    assert!(!window.is_given_back(), "raw while it shows the run");
    window.keys(b"\x02d");
    window.shows("`work` goes on");
    assert_eq!(window.ends(), 0);
    assert!(window.is_given_back());

    let mut again = Window::open(&sandbox, &["attach", "work"]);
    again.shows("marker-42");
    again.resize(60, 20);
    again.keys(b"until stty size | grep 18.60; do :; done\r");
    again.shows("18 60");
    again.keys(b"\x02d");
    assert_eq!(again.ends(), 0);
}

#[test]
fn a_signal_gives_the_terminal_back_and_the_run_goes_on() {
    use rustix::process::Signal;
    let sandbox = Sandbox::new();
    sandbox.good(&detached("1", "work"));
    for signal in [Signal::TERM, Signal::HUP, Signal::INT, Signal::QUIT] {
        let mut window = Window::open(&sandbox, &["attach"]);
        window.shows("$");
        let pid = i32::try_from(window.child.process_id().unwrap()).unwrap();
        rustix::process::kill_process(rustix::process::Pid::from_raw(pid).unwrap(), signal)
            .unwrap();
        assert_eq!(window.ends(), 0, "{signal:?}");
        assert!(window.is_given_back(), "{signal:?}");
        let tail = String::from_utf8_lossy(&window.raw).into_owned();
        let (_, after) = tail
            .rsplit_once("\x1b[?1049l")
            .expect("the alternate screen is left");
        assert!(after.contains("goes on"), "{after:?}");
    }
    assert_eq!(terminals(&sandbox.json(&["ps", "--json"])).len(), 1);
}

#[test]
fn a_killed_window_harms_nobody() {
    let sandbox = Sandbox::new();
    sandbox.good(&detached("1", "work"));
    let mut first = Window::open(&sandbox, &["attach"]);
    let mut second = Window::open(&sandbox, &["attach"]);
    first.shows("$");
    second.shows("$");
    first.child.kill().unwrap();
    second.keys(b"echo still-$((1+1))\r");
    second.shows("still-2");
}

#[test]
fn a_foreground_run_ends_with_its_window() {
    let sandbox = Sandbox::new();
    let mut args = vec!["run", "--foreground"];
    args.extend(SHELL);
    let mut window = Window::open(&sandbox, &args);
    window.shows("$");
    let listed = sandbox.json(&["ps", "--json"]);
    assert_eq!(terminals(&listed).len(), 1);
    window.keys(b"\x02d");
    window.shows("ends with this window");
    window.keys(b"y");
    window.shows("ends with its window");
    assert_eq!(window.ends(), 0);
    assert!(window.is_given_back());
    assert_eq!(processes_of(&sandbox.home), Vec::<u64>::new());
}

#[test]
fn a_foreground_run_without_a_terminal_ends_with_its_programs() {
    let sandbox = Sandbox::new();
    let ran = sandbox.run(&["run", "--foreground", "--exec", "sh", "--", "-c", "exit 3"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.err.contains("ended"), "{ran:?}");
    assert_eq!(processes_of(&sandbox.home), Vec::<u64>::new());
}

#[test]
fn the_proxy_serves_plain_paths_and_ends_at_a_signal() {
    use std::io::BufRead;
    use std::io::Read;
    use std::io::Write;
    let sandbox = Sandbox::new();
    let mut upstream = sandbox
        .command(&["simulate", "--port", "0"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    std::io::BufReader::new(upstream.stdout.as_mut().unwrap())
        .read_line(&mut line)
        .unwrap();
    let url = line
        .split_whitespace()
        .find(|word| word.starts_with("http"))
        .unwrap();
    let url = url.trim_end_matches(';').trim_end_matches("/v1");
    let mut proxy = sandbox
        .command(&["proxy", "--port", "0", "--upstream", url])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut out = std::io::BufReader::new(proxy.stdout.take().unwrap());
    let mut line = String::new();
    out.read_line(&mut line).unwrap();
    let port: u16 = line
        .split("127.0.0.1:")
        .nth(1)
        .unwrap()
        .split(' ')
        .next()
        .unwrap()
        .parse()
        .unwrap();
    let ask = |request: String| {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    let get = |path: &str| {
        ask(format!(
            "GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n"
        ))
    };
    assert!(get("/health").contains("\"ok\":true"));
    let body = r#"{"model":"kimi","max_tokens":50,"messages":[{"role":"user","content":"hello"}]}"#;
    let answer = ask(format!(
        "POST /v1/messages HTTP/1.1\r\nhost: 127.0.0.1\r\nx-api-key: k\r\nanthropic-version: 2023-06-01\r\n\
         content-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len(),
    ));
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let usage = get("/usage");
    assert!(usage.contains("\"requests\":1"), "{usage}");

    let pid = rustix::process::Pid::from_child(&proxy);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    assert!(proxy.wait().unwrap().success());
    assert!(TcpStream::connect(("127.0.0.1", port)).is_err());
    upstream.kill().unwrap();
    upstream.wait().unwrap();
}

#[test]
fn a_suspended_window_gives_the_terminal_back_and_takes_it_again() {
    use rustix::process::Signal;
    let sandbox = Sandbox::new();
    sandbox.good(&detached("1", "work"));
    let mut window = Window::open(&sandbox, &["attach"]);
    window.shows("$");
    window.raw.clear();
    let pid = i32::try_from(window.child.process_id().unwrap()).unwrap();
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(pid, Signal::TSTP).unwrap();
    window.writes(b"\x1b[?1049l");
    let stopped = rustix::process::WaitIdOptions::STOPPED;
    let wait = move || rustix::process::waitid(rustix::process::WaitId::Pid(pid), stopped).is_ok();
    assert_eq!(
        sandbox::within(window::DEADLINE, wait),
        Some(true),
        "it never stopped"
    );
    assert!(window.is_given_back());
    rustix::process::kill_process(pid, Signal::CONT).unwrap();
    window.writes(b"\x1b[?1049h");
    window.keys(b"echo back-$((1+1))\r");
    window.shows("back-2");
    assert!(!window.is_given_back());
}

#[test]
fn the_last_window_of_a_dead_run_ends_it() {
    let sandbox = Sandbox::new();
    let mut args = vec!["run", "--name", "work"];
    args.extend(SHELL);
    let mut window = Window::open(&sandbox, &args);
    window.shows("$");
    let host = sandbox.json(&["ps", "--json"])[0]["pid"].as_u64().unwrap();
    let departure = pidfd(host);
    window.keys(b"exit 7\r");
    window.shows("code 7");
    let listed = sandbox.json(&["ps", "--json"]);
    let terminal = terminals(&listed)[0].clone();
    assert_eq!(
        (&terminal["state"], &terminal["exit_code"]),
        (&"exited".into(), &7.into())
    );
    window.keys(b"\x02r");
    window.shows("starting");
    window.keys(b"echo new-$((1+1))\r");
    window.shows("new-2");
    window.keys(b"exit\r");
    window.shows("exit");
    window.keys(b"\x02d");
    window.shows("`work` has ended");
    assert_eq!(window.ends(), 0);
    departed(departure);
    assert_eq!(processes_of(&sandbox.home), Vec::<u64>::new());
}

#[test]
fn traffic_of_a_terminal_is_counted_under_its_name() {
    let sandbox = Sandbox::new();
    let ask = r#"printf '{"model":"kimi","max_tokens":9,"messages":[{"role":"user","content":"hi"}]}' > body; curl -s -o /dev/null -w 'got-%{http_code}\n' -H 'content-type: application/json' -H 'x-api-key: k' --data-binary @body $KIMIQ_URL/v1/messages; curl -s -H "x-kimiq-key: $KIMIQ_KEY" http://127.0.0.1:$KIMIQ_PORT/kimiq/v1/status-line; kimiq status-line < body"#;
    let mut args = vec!["run", "--detach", "--demo", "--name", "work"];
    args.extend(SHELL);
    sandbox.good(&args);
    let bin = std::path::Path::new(env!("CARGO_BIN_EXE_kimiq"))
        .parent()
        .unwrap();
    sandbox.good(&["send", "1", &format!("PATH=$PATH:{}; {ask}", bin.display())]);
    let mut window = Window::open(&sandbox, &["attach"]);
    window.shows("got-200");
    window.shows("kimiq work:1");
    let usage = sandbox.json(&["usage", "--by", "terminal", "--json"]);
    assert_eq!(usage["rows"][0]["key"], "work:1", "{usage}");
    assert_eq!(usage["rows"][0]["requests"], 1, "{usage}");
    let listed = sandbox.json(&["ps", "--json"]);
    assert_eq!(terminals(&listed)[0]["requests"], 1);
    sandbox.good(&["stop"]);
    let at_rest = sandbox.json(&["usage", "--host", "demo", "--by", "terminal", "--json"]);
    assert_eq!(at_rest["rows"], usage["rows"], "the ledger survives");
}

#[test]
fn a_run_goes_only_to_a_host_of_its_kind() {
    let sandbox = Sandbox::new();
    let exec = ["--detach", "--exec", "cat"];
    let run = |args: &[&str]| sandbox.run(&[&["run"], args, &exec].concat());
    assert_eq!(
        run(&["--host", "demo"]).code,
        2,
        "nothing real under this name"
    );
    assert_eq!(run(&[]).code, 0);
    let refused = run(&["--demo", "--host", "default"]);
    assert_eq!(refused.code, 2, "{refused:?}");
    assert!(refused.err.contains("real tokens"), "{refused:?}");
    assert_eq!(run(&["--demo", "--host", "play"]).code, 0);
    assert_eq!(run(&["--host", "play"]).code, 2);
}

#[test]
fn inside_a_terminal_kimiq_knows_where_it_is() {
    let sandbox = Sandbox::new();
    sandbox.good(&detached("1", "work"));
    let kimiq = env!("CARGO_BIN_EXE_kimiq");
    sandbox.good(&[
        "send",
        "work:1",
        &format!(
            "{kimiq} config show > shown 2> told; {kimiq} run --host other --detach --exec cat 2> refused; \
             {kimiq} run --name beside --detach --exec cat 2> allowed; echo up-$((1+1))"
        ),
    ]);
    let mut window = Window::open(&sandbox, &["attach", "work"]);
    window.shows("up-2");
    let read = |name: &str| std::fs::read_to_string(sandbox.home.join("work").join(name)).unwrap();
    assert_eq!(read("told"), "", "no warning of what kimiq itself set");
    assert!(!read("shown").is_empty());
    assert!(
        read("refused").contains("ends with it"),
        "{}",
        read("refused")
    );
    assert_eq!(entry(&sandbox, "other"), None);
    assert!(
        read("allowed").contains("`beside` runs"),
        "{}",
        read("allowed")
    );
}

#[test]
fn what_other_hosts_use_counts_against_the_days_cap() {
    use kimiq::usage::Account;
    use kimiq::usage::Ledger;
    let sandbox = Sandbox::new();
    sandbox.good(&detached("1", "work"));
    let mut window = Window::open(&sandbox, &["attach"]);
    window.shows("0/200M");
    // Another process with the same ledger, as `kimiq proxy` is.
    let file = sandbox.home.join("state/usage.json");
    let other = Ledger::open(file, chrono_tz::Tz::UTC, kimiq::clock::wall).unwrap();
    let account = Account {
        model: "k2".into(),
        terminal: String::new(),
        source: "proxy".into(),
    };
    let spend = |prompt| {
        let tokens = kimiq::usage::Tokens {
            prompt,
            ..kimiq::usage::Tokens::default()
        };
        other.add(account.clone(), tokens);
        other.flush().unwrap();
    };
    spend(170_000_000);
    window.shows("85 % of the day's tokens are used");
    spend(30_000_000);
    window.shows("every request is refused until");
    let why = sandbox.good(&["why"]);
    assert!(why.starts_with("every request: refused until "), "{why}");
    assert_eq!(sandbox.run(&["health"]).code, 5);
}

#[test]
fn at_the_days_cap_every_command_says_until_when() {
    let sandbox = Sandbox::new();
    let ask = r#"printf '{"model":"kimi","max_tokens":9,"messages":[{"role":"user","content":"hi"}]}' > body; curl -s -o /dev/null -w 'got-%{http_code}\n' -H 'content-type: application/json' -H 'x-api-key: k' --data-binary @body $KIMIQ_URL/v1/messages"#;
    let capped = ["--set", "limits.daily_tokens=5"];
    let mut args = vec!["run", "--detach", "--demo", "--name", "work"];
    args.extend(capped.iter().chain(&SHELL));
    sandbox.good(&args);
    assert_eq!(sandbox.run(&["health"]).code, 0, "some are left");
    sandbox.good(&["send", "work:1", ask]);
    let mut window = Window::open(&sandbox, &["attach"]);
    window.shows("got-402");
    let left = "refused until ";
    let few = "5 of the day's 5 tokens are left, too few for it";
    for (args, code) in [
        (&["ps"][..], 0),
        (&["why"], 0),
        (&["why", "work:1"], 0),
        (&["health"], 5),
    ] {
        let said = sandbox.run(args);
        assert_eq!(said.code, code, "{said:?}");
        let text = said.out.clone() + &said.err;
        assert!(text.contains(left) && text.contains(few), "{said:?}");
    }
}
