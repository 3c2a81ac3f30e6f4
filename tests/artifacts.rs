//! Completions and man pages stand in the repository as the definition of the command line makes them.
//!
//! `UPDATE=1 cargo test --test artifacts` writes them anew. A file that nothing makes fails, too.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

use clap_complete::Shell;

#[test]
fn completions_are_fresh() {
    let mut made = BTreeMap::new();
    let shells = [
        (Shell::Bash, "kimiq.bash"),
        (Shell::Zsh, "_kimiq"),
        (Shell::Fish, "kimiq.fish"),
        (Shell::PowerShell, "_kimiq.ps1"),
        (Shell::Elvish, "kimiq.elv"),
    ];
    for (shell, name) in shells {
        let mut script = Vec::new();
        let mut command = kimiq::cli::shown_command();
        clap_complete::generate(shell, &mut command, "kimiq", &mut script);
        let text = String::from_utf8_lossy(&script);
        assert!(!text.contains("status-line"), "{name} offers a hidden verb");
        made.insert(name.to_owned(), script);
    }
    compare("completions", &made);
}

#[test]
fn man_pages_are_fresh() {
    let folder = scratch("man");
    let made = Command::new(env!("CARGO_BIN_EXE_kimiq"))
        .arg("man")
        .arg(&folder)
        .env("KIMIQ_HOME", &folder)
        .status()
        .unwrap();
    assert!(made.success());
    let made = read(&folder);
    fs::remove_dir_all(folder).unwrap();
    assert!(made.contains_key("kimiq-run.1"));
    for (name, page) in &made {
        let page = String::from_utf8_lossy(page);
        let synopsis = page.split(".SH SYNOPSIS\n").nth(1).unwrap();
        let synopsis = synopsis.lines().next().unwrap();
        assert!(
            synopsis.starts_with("kimiq") && !synopsis.contains(r"\-\-host"),
            "{name}: {synopsis}"
        );
        assert!(page.contains("\"kimiq "), "{name} names another program");
        let blank = page
            .lines()
            .zip(page.lines().skip(1))
            .find(|(option, told)| option.starts_with("\\fB\\-\\-") && told.is_empty());
        assert_eq!(blank, None, "{name}: an option without a word about it");
    }
    compare("man", &made);
}

fn compare(name: &str, made: &BTreeMap<String, Vec<u8>>) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    if kimiq::config::Environment::capture()
        .get("UPDATE")
        .is_some()
    {
        if folder.exists() {
            fs::remove_dir_all(&folder).unwrap();
        }
        fs::create_dir_all(&folder).unwrap();
        for (file, bytes) in made {
            kimiq::fsx::write_atomic(&folder.join(file), bytes, 0o644).unwrap();
        }
        return;
    }
    let found = read(&folder);
    let mut wrong: Vec<&String> = made
        .keys()
        .chain(found.keys())
        .filter(|file| made.get(*file) != found.get(*file))
        .collect();
    wrong.dedup();
    assert!(
        wrong.is_empty(),
        "{name}/ is not what the command line's definition makes: {wrong:?}; run `UPDATE=1 cargo test --test artifacts`"
    );
}

fn read(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let Ok(files) = fs::read_dir(folder) else {
        return BTreeMap::new();
    };
    files
        .map(|file| file.unwrap().path())
        .map(|path| {
            (
                path.file_name().unwrap().to_string_lossy().into_owned(),
                fs::read(&path).unwrap(),
            )
        })
        .collect()
}

fn scratch(name: &str) -> PathBuf {
    let folder =
        std::env::temp_dir().join(format!("kimiq-artifacts-{name}-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    folder
}
