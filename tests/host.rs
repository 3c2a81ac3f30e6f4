//! The host as a process: started once, found again, gone without a trace; and windows on real PTYs.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

mod sandbox;
#[path = "sandbox/window.rs"]
mod window;

use std::net::TcpStream;
use std::process::Stdio;

use sandbox::Sandbox;
use serde_json::Value;
use window::SHELL;
use window::Window;
use window::processes_of;
use window::runs;

fn detached(count: &str, name: &str) -> Vec<&'static str> {
    let count: &'static str = Box::leak(count.to_owned().into_boxed_str());
    let name: &'static str = Box::leak(name.to_owned().into_boxed_str());
    let mut args = vec![
        "run",
        "--detach",
        "-n",
        count,
        "--name",
        name,
        "--set",
        "terminals.stagger=0",
    ];
    args.extend(SHELL);
    args
}

/// The instance file of a host.
fn entry(sandbox: &Sandbox, host: &str) -> Option<Value> {
    let text = std::fs::read(sandbox.home.join(format!("state/instances/{host}.json"))).ok()?;
    Some(serde_json::from_slice(&text).unwrap())
}

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
        processes_of(&sandbox.home).len() >= 5,
        "host, window, two shells and two sleeps"
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
    sandbox.good(&["stop", "one"]);
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
    again.keys(b"stty size\r");
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
    assert_eq!(window.ends(), 0);
    assert!(window.is_given_back());
    assert_eq!(processes_of(&sandbox.home), Vec::<u64>::new());
}

#[test]
fn a_program_that_cannot_start_is_told_and_leaves_nothing() {
    let sandbox = Sandbox::new();
    let ran = sandbox.run(&["run", "--detach", "--exec", "/no/such/program"]);
    assert_eq!(ran.code, 1);
    assert!(ran.err.contains("/no/such/program"), "{}", ran.err);
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
