//! SIGKILL at every step of overlay and rewrite; afterwards the user's files are what they should be, byte for byte.
//!
//! The test runs its own program again as a child that dies at the step it is told, for every step there is.

use std::cell::Cell;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::kimi::home::Environment;
use crate::kimi::overlay::{Overlay, Setup};
use crate::kimi::rewrite::Rewrite;
use crate::kimi::scratch::Scratch;

const USER: &str = "# mine\ndefault_model = 'm'  # keep\n\n[providers.p]\ntype = \"kimi\"\n\n[models.m]\nprovider = \"p\"\nmodel = \"x\"\n";
const TUI: &str = "theme = \"dark\" # mine\n";
const PROXY: &str = "http://127.0.0.1:4711";

const SIGKILL: i32 = 9;

/// More steps than anything has; a test that gets here never ends by itself.
const MANY: usize = 200;

fn overlay(folder: &Path) -> Overlay {
    Overlay::new(Setup {
        real: folder.join("real"),
        root: folder.join("root"),
        proxy: PROXY.to_owned(),
        status_command: Some("kimiq status".to_owned()),
        env: Environment::new(),
    })
}

fn rewrite(folder: &Path) -> Rewrite {
    Rewrite::new(folder.join("real/config.toml"), folder.join("undo.json"))
}

/// Not a test of its own: what [`dies`] starts.
#[test]
fn child() {
    let told =
        |name: &str| std::env::args().find_map(|arg| arg.strip_prefix(name).map(str::to_owned));
    let Some(folder) = told("in=") else { return };
    let (at, folder): (usize, _) = (told("at=").unwrap().parse().unwrap(), Path::new(&folder));
    let passed = Cell::new(0);
    let step = |_: &'static str| {
        if passed.replace(passed.get() + 1) == at {
            rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL)
                .unwrap();
        }
    };
    match told("do=").unwrap().as_str() {
        "prepare" => drop(overlay(folder).prepare_by_steps(&step).unwrap()),
        "apply" => drop(
            rewrite(folder)
                .apply_by_steps(&Environment::new(), PROXY, &step)
                .unwrap(),
        ),
        "undo" => drop(rewrite(folder).undo_by_steps(&step).unwrap()),
        other => panic!("{other}"),
    }
}

/// True when the child was killed at step `at`, false when it got through.
fn dies(what: &str, at: usize, folder: &Path) -> bool {
    let status = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "kimi::kill_tests::child", "--nocapture"])
        .args([
            format!("do={what}"),
            format!("at={at}"),
            format!("in={}", folder.display()),
        ])
        .stdout(Stdio::null())
        .status()
        .unwrap();
    assert!(
        status.success() || status.signal() == Some(SIGKILL),
        "{what} at {at}: {status}"
    );
    !status.success()
}

fn no_temporary_files(folder: &Path) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let name = entry.unwrap().file_name();
        assert!(
            !name.to_string_lossy().ends_with(".tmp"),
            "{} left {}",
            folder.display(),
            name.display()
        );
    }
}

#[test]
fn an_overlay_killed_at_any_step_is_whole_after_the_next_start() {
    let carried = USER.replace("'m'", "\"other\"");
    for at in 0..MANY {
        let scratch = Scratch::new();
        scratch.file("real/config.toml", USER);
        scratch.file("real/tui.toml", TUI);
        overlay(scratch.path()).prepare().unwrap();
        // A model and a theme chosen inside, a folder and a file in place of links: everything there is to do.
        let inside = scratch.read("root/config.toml").replace("'m'", "\"other\"");
        scratch.file("root/config.toml", &inside);
        let inside = scratch.read("root/tui.toml").replace("dark", "light");
        scratch.file("root/tui.toml", &inside);
        std::fs::remove_file(scratch.path().join("root/skills")).unwrap();
        scratch.file("root/skills/one", "1");
        scratch.file("real/.config.toml.999999999.0.tmp", "half");

        let killed = dies("prepare", at, scratch.path());
        let after_kill = scratch.read("real/config.toml");
        assert!(
            after_kill == USER || after_kill == carried,
            "step {at}: {after_kill}"
        );

        let synced = overlay(scratch.path()).prepare().unwrap();
        assert_eq!(scratch.read("real/config.toml"), carried, "step {at}");
        assert_eq!(
            scratch.read("real/tui.toml"),
            TUI.replace("dark", "light"),
            "step {at}"
        );
        assert_eq!(scratch.read("real/skills/one"), "1", "step {at}");
        assert!(
            scratch.read("root/config.toml").contains(PROXY) && synced.routes.len() == 1,
            "step {at}"
        );
        no_temporary_files(&scratch.path().join("real"));
        no_temporary_files(&scratch.path().join("root"));
        if !killed {
            assert!(at > 20, "only {at} steps were seen");
            return;
        }
    }
    panic!("more than {MANY} steps");
}

#[test]
fn a_first_overlay_killed_at_any_step_leaves_the_user_s_file_alone() {
    for at in 0..MANY {
        let scratch = Scratch::new();
        scratch.file("real/config.toml", USER);
        let killed = dies("prepare", at, scratch.path());
        assert_eq!(scratch.read("real/config.toml"), USER, "step {at}");
        // The user edits before kimiq is started again.
        let edited = USER.replace("'m'", "'edited'");
        scratch.file("real/config.toml", &edited);
        overlay(scratch.path()).prepare().unwrap();
        assert_eq!(scratch.read("real/config.toml"), edited, "step {at}");
        if !killed {
            return;
        }
    }
    panic!("more than {MANY} steps");
}

#[test]
fn a_rewrite_killed_at_any_step_can_be_undone_byte_for_byte() {
    for (what, least) in [("apply", 2), ("undo", 2)] {
        for at in 0..MANY {
            let scratch = Scratch::new();
            scratch.file("real/config.toml", USER);
            if what == "undo" {
                rewrite(scratch.path())
                    .apply(&Environment::new(), PROXY)
                    .unwrap();
            }
            let killed = dies(what, at, scratch.path());
            rewrite(scratch.path()).undo().unwrap();
            assert_eq!(scratch.read("real/config.toml"), USER, "{what} at {at}");
            assert!(!scratch.path().join("undo.json").exists());
            if !killed {
                assert!(at >= least, "{what}: only {at} steps");
                break;
            }
        }
    }
}
