//! The house rules, enforced: arrows between rooms, size of files, essays, no leftovers.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Which rooms each room may import. A room that is not listed may import nothing.
const ARROWS: &[(&str, &[&str])] = &[
    ("clock", &[]),
    ("fsx", &[]),
    ("usage", &["clock", "fsx"]),
    ("wire", &["usage"]),
    ("limits", &["usage"]),
    ("upstream", &["wire", "usage"]),
    ("normalize", &["wire"]),
    (
        "proxy",
        &["wire", "usage", "limits", "normalize", "upstream"],
    ),
    ("kimi", &["fsx"]),
    ("terminal", &[]),
    ("tui", &["terminal", "usage", "limits"]),
    ("control", &["usage", "terminal", "limits", "fsx"]),
    ("simulator", &["wire", "usage"]),
    (
        "config",
        &[
            "fsx",
            "limits",
            "usage",
            "upstream",
            "proxy",
            "kimi",
            "terminal",
            "tui",
            "control",
            "simulator",
        ],
    ),
    (
        "instance",
        &[
            "clock",
            "config",
            "control",
            "fsx",
            "kimi",
            "limits",
            "proxy",
            "simulator",
            "terminal",
            "tui",
            "upstream",
            "usage",
            "wire",
        ],
    ),
    (
        "cli",
        &[
            "instance",
            "config",
            "control",
            "kimi",
            "usage",
            "simulator",
        ],
    ),
];

/// Longest source file, in lines.
const LONGEST: usize = 700;

#[test]
fn rooms_import_only_what_the_table_allows() {
    let allowed: BTreeMap<&str, &[&str]> = ARROWS.iter().copied().collect();
    let mut wrong = Vec::new();
    for file in sources() {
        let room = room_of(&file);
        if room == "main" || room == "lib" {
            continue;
        }
        let Some(may) = allowed.get(room.as_str()) else {
            panic!("room `{room}` is not in the table of arrows");
        };
        for (number, line) in code_lines(&file) {
            for target in mentions(&line) {
                if target != room
                    && allowed.contains_key(target.as_str())
                    && !may.contains(&target.as_str())
                {
                    wrong.push(format!("{}:{number}: {room} -> {target}", file.display()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "forbidden arrows:\n{}", wrong.join("\n"));
}

#[test]
fn every_room_opens_with_an_essay() {
    for file in sources() {
        let text = fs::read_to_string(&file).unwrap();
        assert!(
            text.starts_with("//!"),
            "{} has no opening essay",
            file.display()
        );
    }
}

#[test]
fn no_file_is_too_long() {
    for file in sources().into_iter().chain(files_below("tests")) {
        let lines = fs::read_to_string(&file).unwrap().lines().count();
        assert!(
            lines <= LONGEST,
            "{} has {lines} lines; split it by concern",
            file.display()
        );
    }
}

#[test]
fn nothing_reaches_around_its_own_room() {
    for file in sources() {
        for (number, line) in code_lines(&file) {
            assert!(
                !line.contains("super::super"),
                "{}:{number} reaches over its room",
                file.display()
            );
        }
    }
}

#[test]
fn the_entry_stays_short() {
    let lines = fs::read_to_string(source_root().join("main.rs"))
        .unwrap()
        .lines()
        .count();
    assert!(lines < 30, "main.rs has {lines} lines");
}

fn source_root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

fn sources() -> Vec<PathBuf> {
    files_below("src")
}

fn files_below(folder: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// The first folder below `src`, or the file's own name at the top.
fn room_of(file: &Path) -> String {
    let inside = file.strip_prefix(source_root()).unwrap();
    let first = inside
        .components()
        .next()
        .unwrap()
        .as_os_str()
        .to_string_lossy()
        .into_owned();
    first.trim_end_matches(".rs").to_owned()
}

fn code_lines(file: &Path) -> Vec<(usize, String)> {
    fs::read_to_string(file)
        .unwrap()
        .lines()
        .enumerate()
        .filter(|(_, line)| !line.trim_start().starts_with("//"))
        .map(|(index, line)| (index + 1, line.to_owned()))
        .collect()
}

/// Rooms named by `crate::room` in a line; a braced list after `crate::` is refused, so that none can hide.
fn mentions(line: &str) -> Vec<String> {
    let mut found = Vec::new();
    for part in line.split("crate::").skip(1) {
        assert!(
            !part.starts_with('{'),
            "write one `use crate::room` a line, not `{line}`"
        );
        found.push(
            part.chars()
                .take_while(|c| c.is_alphanumeric() || *c == '_')
                .collect(),
        );
    }
    found
}
