//! Hosts as processes: how they are started in tests, found, and awaited.

use serde_json::Value;

use crate::sandbox::Sandbox;
use crate::window;
use crate::window::SHELL;

/// The words of a run in the background with shells.
pub(crate) fn detached(count: &str, name: &str) -> Vec<&'static str> {
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
pub(crate) fn entry(sandbox: &Sandbox, host: &str) -> Option<Value> {
    let text = std::fs::read(sandbox.home.join(format!("state/instances/{host}.json"))).ok()?;
    Some(serde_json::from_slice(&text).unwrap())
}

/// A handle of a process that lives.
pub(crate) fn pidfd(pid: u64) -> std::os::fd::OwnedFd {
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).unwrap()
}

/// Waits for the end of a process.
pub(crate) fn departed(process: std::os::fd::OwnedFd) {
    let limit = rustix::event::Timespec::try_from(window::DEADLINE).unwrap();
    let flags = rustix::event::PollFlags::IN;
    let ready = rustix::event::poll(
        &mut [rustix::event::PollFd::new(&process, flags)],
        Some(&limit),
    );
    assert_eq!(ready.unwrap(), 1, "it never ended");
}
