//! The client's home through the public API: an overlay that is watched, and the way from a bare machine to a hint.
#![cfg(unix)]
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

mod support {
    pub(crate) mod scratch;
}

use std::fs;
use std::time::Duration;

use kimiq::kimi::{Environment, FindError, Overlay, Rewrite, Setup, Undone, find, legacy};
use support::scratch::{Scratch, bare};

const USER: &str = "default_model = \"m\" # mine\n\n[providers.p]\ntype = \"kimi\"\n\n[models.m]\nprovider = \"p\"\nmodel = \"x\"\n";

fn overlay(scratch: &Scratch) -> Overlay {
    Overlay::new(Setup {
        real: scratch.folder("home/.kimi-code"),
        root: scratch.path().join("state/kimi"),
        proxy: "http://127.0.0.1:4711".to_owned(),
        status_command: None,
        env: Environment::new(),
    })
}

/// Waits for `done`, looking again after each event of the watch.
async fn follow(overlay: &Overlay, done: impl Fn() -> bool) {
    let mut watch = overlay.watch().unwrap();
    let waiting = async {
        while !done() {
            overlay.sync().unwrap();
            if !done() {
                watch.changed().await;
            }
        }
    };
    tokio::time::timeout(Duration::from_mins(1), waiting)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_watched_overlay_follows_both_sides() {
    let scratch = Scratch::new("home");
    let home = scratch.file("home/.kimi-code/config.toml", USER);
    let overlay = overlay(&scratch);
    overlay.prepare().unwrap();
    let here = overlay.root().join("config.toml");
    let read = |path: &std::path::Path| fs::read_to_string(path).unwrap();

    // A person's editor, while the host waits for an event.
    let later = USER.replace("\"x\"", "\"y\"");
    let ((), ()) = tokio::join!(
        follow(&overlay, || read(&here).contains("model = \"y\"")),
        async { drop(scratch.file("home/.kimi-code/config.toml", &later)) }
    );
    assert_eq!(read(&home), later);

    // A terminal that discovers a model.
    let found = read(&here) + "\n[models.found]\nprovider = \"p\"\nmodel = \"z\"\n";
    let ((), ()) = tokio::join!(
        follow(&overlay, || read(&here).matches("127.0.0.1:4711").count()
            == 2),
        async { drop(scratch.file("state/kimi/config.toml", &found)) }
    );
    assert_eq!(
        read(&home),
        later.clone() + "\n[models.found]\nprovider = \"p\"\nmodel = \"z\"\n"
    );
}

#[test]
fn a_rewrite_left_by_a_killed_host_is_undone_from_its_journal_alone() {
    let scratch = Scratch::new("rewrite");
    let config = scratch.file("home/.kimi-code/config.toml", USER);
    let journal = scratch.path().join("state/undo.json");
    let rewrite = Rewrite::new(config.clone(), journal.clone());
    rewrite
        .apply(&Environment::new(), "http://127.0.0.1:4711")
        .unwrap();
    assert_ne!(fs::read_to_string(&config).unwrap(), USER);
    // Another process knows the journal only; it may have another home in mind.
    let restore = Rewrite::new(scratch.path().join("elsewhere/config.toml"), journal);
    assert_eq!(restore.undo().unwrap(), Undone::Restored);
    assert_eq!(fs::read_to_string(&config).unwrap(), USER);
}

#[test]
fn a_file_for_kimi_cli_is_private_and_the_user_s_own_is_not_touched() {
    use std::os::unix::fs::PermissionsExt;
    let scratch = Scratch::new("cli");
    let text = USER.replace(
        "type = \"kimi\"",
        "type = \"kimi\"\nbase_url = \"https://h/v1\"",
    );
    let home = scratch.folder("home/.kimi");
    let users = scratch.file("home/.kimi/config.toml", &text);
    let file = scratch.folder("state").join("terminal-1.toml");
    let made = legacy::write(
        &home,
        &file,
        &Environment::new(),
        "http://127.0.0.1:4711",
        "KEY",
        None,
    )
    .unwrap();
    assert_eq!(fs::read_to_string(&file).unwrap(), made.text);
    assert!(made.text.contains("http://127.0.0.1:4711/t/KEY/"));
    assert_eq!(
        fs::metadata(&file).unwrap().permissions().mode() & 0o777,
        0o600
    );
    assert_eq!(fs::read_to_string(users).unwrap(), text);
}

#[tokio::test]
async fn a_bare_machine_is_told_how_to_get_a_client() {
    let scratch = Scratch::new("bare");
    let mut env = bare(scratch.path());
    env.insert("PATH".into(), scratch.folder("bin").into());
    let error = find(None, &env, scratch.path()).await.unwrap_err();
    assert!(matches!(error, FindError::None));
    assert!(error.hint().contains("kimiq client install"));
}
