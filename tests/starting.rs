//! How runs begin: what is refused, what is shown of terminals to come, what becomes of the first message.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

#[path = "sandbox/hosts.rs"]
mod hosts;
mod sandbox;
#[expect(dead_code, reason = "other tests use more of it")]
#[path = "sandbox/window.rs"]
mod window;

use std::time::Duration;

use hosts::departed;
use hosts::entry;
use hosts::pidfd;
use sandbox::Sandbox;
use window::SHELL;
use window::Window;

/// Less than a host waits for a run.
const SOON: Duration = Duration::from_secs(40);

#[test]
fn a_run_that_cannot_start_takes_its_host_with_it() {
    let sandbox = Sandbox::new();
    let failed = sandbox.run(&["run", "--detach", "--exec", "/nonexistent"]);
    assert_eq!(failed.code, 6, "{failed:?}");
    assert!(failed.err.contains("/nonexistent"), "{failed:?}");
    if let Some(found) = entry(&sandbox, "default") {
        let host = pidfd(found["pid"].as_u64().unwrap());
        let gone = sandbox::within(SOON, move || departed(host));
        assert!(gone.is_some(), "the host lives on");
    }
    let failed = sandbox.run(&["run", "--foreground", "--exec", "/nonexistent"]);
    assert_eq!(failed.code, 6, "{failed:?}");

    sandbox.good(&hosts::detached("1", "work"));
    let failed = sandbox.run(&["run", "--detach", "--exec", "/nonexistent"]);
    assert_eq!(failed.code, 6, "{failed:?}");
    let listed = sandbox.json(&["ps", "--json"]);
    assert_eq!(listed[0]["runs"][0]["name"], "work", "{listed}");
}

#[test]
fn weights_are_for_terminals_that_there_will_be() {
    let sandbox = Sandbox::new();
    let check = |weights: &[&str], expected: &str| {
        let args = ["run", "-n", "2", "--detach", "--exec", "cat"];
        let weights = weights.iter().flat_map(|one| ["--weight", *one]);
        let refused = sandbox.run(&args.into_iter().chain(weights).collect::<Vec<_>>());
        assert_eq!(refused.code, 2, "{refused:?}");
        assert!(refused.err.contains(expected), "{refused:?}");
    };
    check(&["9=2"], "there is no terminal 9 to weigh: the run has 2");
    check(&["1=2", "1=3"], "the weight of terminal 1 is given twice");
    check(&["2", "3"], "the weight of all terminals is given twice");
    assert_eq!(entry(&sandbox, "default"), None);
}

#[test]
fn terminals_that_start_later_are_listed_at_once_and_can_be_ended() {
    let sandbox = Sandbox::new();
    let args = ["run", "--detach", "-n", "3", "--name", "work"];
    let slow = ["--set", "terminals.stagger=1000"];
    sandbox.good(&[&args, &slow[..], &SHELL].concat());
    let mut window = Window::open(&sandbox, &["attach"]);
    window.shows("$");
    let started = || {
        let listed = sandbox.json(&["ps", "--json"]);
        let all = listed[0]["runs"][0]["terminals"]
            .as_array()
            .unwrap()
            .clone();
        let of = |one: &serde_json::Value| (one["number"].clone(), one["pid"].is_u64());
        all.iter().map(of).collect::<Vec<_>>()
    };
    let one = |number: u16, runs| (serde_json::Value::from(number), runs);
    assert_eq!(started(), [one(1, true), one(2, false), one(3, false)]);
    window.keys(b"\x022");
    window.shows("starting");
    window.keys(b"\x02x");
    window.shows("Close terminal 2");
    window.keys(b"y");
    window.shows("3 …");
    sandbox.good(&["stop", "work"]);
    window.shows("has ended");
    assert_eq!(window.ends(), 0);
}

#[test]
fn a_first_message_that_no_program_took_is_typed_after_the_restart() {
    let sandbox = Sandbox::new();
    let program = "if [ -e was ]; then printf '\\033[?2004h'; exec cat; fi; : > was; exit 3";
    let exec = ["--exec", "sh", "--", "-c", program];
    let args = ["run", "--prompt", "over-the-hills"];
    let mut window = Window::open(&sandbox, &[&args, &exec[..]].concat());
    window.shows("code 3");
    window.keys(b"r");
    window.shows("over-the-hills");
}
