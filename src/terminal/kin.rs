//! Who belongs to whom, read from `/proc`.
//!
//! A process belongs to a terminal when it descends from the terminal's program, lives in the program's session, or
//! carries the terminal's marker in its environment; so does whatever descends from one of these. A process is
//! remembered with the time of its start, so that a reused number is never taken for it. Zombies do not count: they
//! are dead. Without `/proc` nothing is found, and callers fall back to the process group.

use std::collections::HashSet;
use std::fs;

/// A living process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Process {
    pub(crate) pid: i32,
    /// Clock ticks between the machine's start and its own.
    pub(crate) started: u64,
}

/// One line of the process table.
#[derive(Clone, Copy, Debug)]
struct Entry {
    process: Process,
    parent: i32,
    session: i32,
    zombie: bool,
}

/// By what a family is known.
#[derive(Clone, Debug, Default)]
pub(crate) struct Roots {
    /// Processes whose descendants belong, themselves included.
    pub(crate) ancestors: Vec<i32>,
    /// Sessions whose members belong.
    pub(crate) session: Option<i32>,
    /// `NAME=value` in an environment.
    pub(crate) marker: Option<String>,
    /// Members found earlier.
    pub(crate) known: HashSet<Process>,
}

/// The living members of a family, this process never among them.
pub(crate) fn family(roots: &Roots) -> HashSet<Process> {
    let own = own_pid();
    let table = table();
    let mut members: HashSet<i32> = HashSet::new();
    for entry in &table {
        let pid = entry.process.pid;
        let belongs = roots.ancestors.contains(&pid)
            || roots.session == Some(entry.session)
            || roots.known.contains(&entry.process)
            || roots
                .marker
                .as_ref()
                .is_some_and(|marker| !entry.zombie && carries(pid, marker));
        if belongs {
            members.insert(pid);
        }
    }
    // Descendants: repeat until nobody is added; the table is not sorted by age.
    loop {
        let more: Vec<i32> = table
            .iter()
            .filter(|entry| {
                members.contains(&entry.parent)
                    && entry.parent != own
                    && !members.contains(&entry.process.pid)
            })
            .map(|entry| entry.process.pid)
            .collect();
        if more.is_empty() {
            break;
        }
        members.extend(more);
    }
    table
        .iter()
        .filter(|entry| {
            members.contains(&entry.process.pid) && entry.process.pid != own && !entry.zombie
        })
        .map(|entry| entry.process)
        .collect()
}

/// The living descendants of this process.
pub(crate) fn descendants() -> HashSet<Process> {
    let own = own_pid();
    let children = table()
        .iter()
        .filter(|entry| entry.parent == own)
        .map(|entry| entry.process.pid)
        .collect();
    family(&Roots {
        ancestors: children,
        ..Roots::default()
    })
}

/// This process's children that have ended, wait to be waited for, and are not of its own making: what a terminal
/// started lives in another session, what this process runs for itself shares its own.
pub(crate) fn strange_zombies() -> HashSet<Process> {
    let own = own_pid();
    let session = read_entry(own).map(|entry| entry.session);
    table()
        .iter()
        .filter(|entry| entry.parent == own && entry.zombie && Some(entry.session) != session)
        .map(|entry| entry.process)
        .collect()
}

/// Whether this very process still lives.
pub(crate) fn lives(process: Process) -> bool {
    read_entry(process.pid).is_some_and(|entry| entry.process == process && !entry.zombie)
}

fn own_pid() -> i32 {
    i32::try_from(std::process::id()).unwrap_or(0)
}

fn table() -> Vec<Entry> {
    // The folder is missing where the platform has no such table; then there is nothing to find.
    let Ok(folder) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    folder
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(read_entry)
        .collect()
}

fn read_entry(pid: i32) -> Option<Entry> {
    // A process may end between the listing and the reading; then it does not count.
    parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// Reads `pid (name) state ppid pgrp session ... starttime` (proc(5)); the name may hold anything, brackets too.
fn parse_stat(line: &str) -> Option<Entry> {
    let pid = line.split(' ').next()?.parse().ok()?;
    let (_, rest) = line.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    Some(Entry {
        process: Process {
            pid,
            started: fields.get(19)?.parse().ok()?,
        },
        parent: fields.get(1)?.parse().ok()?,
        session: fields.get(3)?.parse().ok()?,
        zombie: matches!(*fields.first()?, "Z" | "X"),
    })
}

fn carries(pid: i32, marker: &str) -> bool {
    // Other users' environments cannot be read; their processes are not ours to end.
    fs::read(format!("/proc/{pid}/environ")).is_ok_and(|environment| {
        environment
            .split(|byte| *byte == 0)
            .any(|entry| entry == marker.as_bytes())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_and_spaces_is_no_trap() {
        let line = "42 (a) b (c)) S 7 8 9 0 -1 4194304 1 2 3 4 5 6 7 8 20 0 1 0 12345 1 2";
        let entry = parse_stat(line).unwrap();
        assert_eq!(
            (
                entry.process.pid,
                entry.parent,
                entry.session,
                entry.process.started
            ),
            (42, 7, 9, 12345)
        );
        assert!(!entry.zombie);
    }
}
