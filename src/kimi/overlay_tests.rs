//! The overlay's life, without a client: what it writes is played by the tests.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::kimi::scratch::Scratch;

const USER: &str = "# mine\ndefault_model = \"m\"\n\n[providers.p]\ntype = \"kimi\"\n\n[models.m]\nprovider = \"p\"\nmodel = \"x\"\n";
const LED: &str = "base_url = \"http://127.0.0.1:4711/p/p/v1\"\n";

fn overlay(scratch: &Scratch, port: u16) -> Overlay {
    Overlay::new(Setup {
        real: scratch.path().join("real"),
        root: scratch.path().join("state/home"),
        proxy: format!("http://127.0.0.1:{port}"),
        status_command: Some("kimiq status".to_owned()),
        env: Environment::new(),
    })
}

/// Every file below a folder, with its bytes and the time of its last change.
fn snapshot(folder: &Path) -> BTreeMap<PathBuf, (Vec<u8>, std::time::SystemTime)> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            found.extend(snapshot(&entry.path()));
        } else if kind.is_file() {
            found.insert(
                entry.path(),
                (
                    fs::read(entry.path()).unwrap(),
                    entry.metadata().unwrap().modified().unwrap(),
                ),
            );
        }
    }
    found
}

#[test]
fn a_second_preparation_changes_nothing() {
    let scratch = Scratch::new();
    scratch.file("real/config.toml", USER);
    let overlay = overlay(&scratch, 4711);
    let first = overlay.prepare().unwrap();
    assert_eq!(
        scratch.read("state/home/config.toml"),
        format!("{USER}{LED}")
    );
    let mode = fs::metadata(scratch.path().join("state/home/config.toml"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(first.routes.len(), 1);
    // The marker has no content to compare, so it is written again.
    let mut before = snapshot(scratch.path());
    assert_eq!(overlay.prepare().unwrap(), first);
    assert_eq!(overlay.sync().unwrap(), first);
    let mut after = snapshot(scratch.path());
    for files in [&mut before, &mut after] {
        files.retain(|path, _| !path.ends_with(".skip-migration-from-kimi-cli"));
    }
    assert_eq!(before, after);
    assert_eq!(scratch.read("real/config.toml"), USER);
}

#[test]
fn a_change_inside_a_terminal_goes_home_and_new_aliases_are_led() {
    let scratch = Scratch::new();
    scratch.file("real/config.toml", USER);
    let overlay = overlay(&scratch, 4711);
    overlay.prepare().unwrap();
    // `/model` re-emits the file, the refresh appends an alias; the client renames its file into place.
    let new = "[models.new]\nprovider = \"p\"\nmodel = \"y\"\n";
    scratch.file("state/home/config.toml", &format!("default_model = \"new\"\n[models.m]\n{LED}model = \"x\"\nprovider = \"p\"\n[providers.p]\ntype = \"kimi\"\n{new}"));
    let synced = overlay.sync().unwrap();
    assert!(synced.carried_back);
    assert_eq!(synced.patched, ["new"]);
    assert_eq!(synced.routes[0].aliases, ["m", "new"]);
    let home = USER.replace("default_model = \"m\"", "default_model = \"new\"") + "\n" + new;
    assert_eq!(scratch.read("real/config.toml"), home);
    assert_eq!(
        scratch.read("state/home/config.toml").matches(LED).count(),
        2
    );
    let again = overlay.sync().unwrap();
    assert!(!again.carried_back && again.patched.is_empty());
}

#[test]
fn the_user_s_own_edits_reach_the_overlay_and_are_never_undone() {
    let scratch = Scratch::new();
    scratch.file("real/config.toml", USER);
    let overlay = overlay(&scratch, 4711);
    overlay.prepare().unwrap();
    let edited = USER.replace("\"x\"", "\"z\"") + "# a note\n";
    scratch.file("real/config.toml", &edited);
    assert!(!overlay.sync().unwrap().carried_back);
    assert!(
        scratch
            .read("state/home/config.toml")
            .contains("model = \"z\"")
    );
    assert_eq!(scratch.read("real/config.toml"), edited);
    scratch.file("real/config.toml", "broken = ");
    assert!(matches!(overlay.sync(), Err(OverlayError::Document { .. })));
    assert!(
        scratch
            .read("state/home/config.toml")
            .contains("model = \"z\"")
    );
}

#[test]
fn a_kimiq_inside_a_terminal_of_kimiq_finds_the_real_home() {
    let scratch = Scratch::new();
    scratch.file("real/config.toml", USER);
    let overlay = overlay(&scratch, 4711);
    overlay.prepare().unwrap();
    let client = crate::kimi::Client {
        kind: crate::kimi::Kind::KimiCode,
        version: None,
        program: "kimi".into(),
        args: Vec::new(),
        path_first: None,
    };
    let env = [("KIMI_CODE_HOME".into(), overlay.root().into())].into();
    assert_eq!(client.home(&env).unwrap(), scratch.path().join("real"));
}

#[test]
fn a_new_port_is_no_change_of_the_user_s() {
    let scratch = Scratch::new();
    scratch.file("real/config.toml", USER);
    overlay(&scratch, 1).prepare().unwrap();
    let synced = overlay(&scratch, 4711).prepare().unwrap();
    assert!(!synced.carried_back);
    assert!(scratch.read("state/home/config.toml").contains(LED));
    // The earlier one, should it still run, does not take the overlay back.
    assert!(overlay(&scratch, 1).sync().unwrap().patched.is_empty());
    assert!(scratch.read("state/home/config.toml").contains(LED));
    assert_eq!(scratch.read("real/config.toml"), USER);
}

#[test]
fn a_user_without_a_home_gets_folders_and_what_a_login_writes() {
    let scratch = Scratch::new();
    let overlay = overlay(&scratch, 4711);
    overlay.prepare().unwrap();
    assert!(!scratch.path().join("real/config.toml").exists());
    let login = "[providers.\"managed:kimi-code\"]\ntype = \"kimi\"\nbase_url = \"https://api.kimi.com/coding/v1\"\n\n[models.\"kimi-code/kimi-for-coding\"]\nprovider = \"managed:kimi-code\"\nmodel = \"kimi-for-coding\"\nmax_context_size = 262144\ndisplay_name = \"K\"\n";
    scratch.file("state/home/config.toml", login);
    let synced = overlay.sync().unwrap();
    assert_eq!(synced.patched, ["kimi-code/kimi-for-coding"]);
    assert_eq!(scratch.read("real/config.toml"), login);
    assert!(
        scratch
            .read("state/home/config.toml")
            .contains("http://127.0.0.1:4711/p/managed%3Akimi-code/v1")
    );
    assert_eq!(overlay.finish().unwrap().routes, synced.routes);
    assert_eq!(scratch.read("real/config.toml"), login);
}

#[test]
fn folders_made_for_nothing_go_with_the_last_look() {
    let scratch = Scratch::new();
    let there = |name: &str| scratch.path().join("real").join(name).exists();
    fs::create_dir_all(scratch.path().join("real/agents")).unwrap();
    let first = overlay(&scratch, 4711);
    first.prepare().unwrap();
    scratch.file("state/home/sessions/a", "x");
    let mut setup = first.setup.clone();
    setup.root = scratch.path().join("other/home");
    let other = Overlay::new(setup);
    other.prepare().unwrap();
    first.finish().unwrap();
    assert!(there("skills"), "the other one needs it");
    other.finish().unwrap();
    assert!(there("skills"), "the other one did not make it");

    // As after a kill: another object, and only what is noted on the disk.
    let again = overlay(&scratch, 4711);
    again.prepare().unwrap();
    again.finish().unwrap();
    assert!(!there("skills") && !there("credentials"));
    assert!(there("agents"), "the user's own, though empty");
    assert_eq!(scratch.read("real/sessions/a"), "x");

    again.prepare().unwrap();
    scratch.file("state/home/skills/s", "skill");
    assert_eq!(scratch.read("real/skills/s"), "skill");
}

#[test]
fn a_home_that_is_not_unicode_is_found_again() {
    let scratch = Scratch::new();
    let name = <std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(b"r\xff");
    let mut setup = overlay(&scratch, 4711).setup.clone();
    setup.real = scratch.path().join(name);
    let overlay = Overlay::new(setup);
    overlay.prepare().unwrap();
    assert_eq!(real_home(overlay.root()), Some(scratch.path().join(name)));
}

#[test]
fn the_footer_is_ours_and_the_user_s_own_is_kept() {
    let scratch = Scratch::new();
    scratch.file("real/config.toml", USER);
    let tui = "theme = \"dark\"\n[status_line]\ncommand = \"mine.sh\" # mine\n";
    scratch.file("real/tui.toml", tui);
    let overlay = overlay(&scratch, 4711);
    overlay.prepare().unwrap();
    assert!(
        scratch
            .read("state/home/tui.toml")
            .contains("command = \"kimiq status\"")
    );
    assert_eq!(
        user_status_command(overlay.root()).unwrap().as_deref(),
        Some("mine.sh")
    );
    let inside = scratch.read("state/home/tui.toml").replace("dark", "light");
    scratch.file("state/home/tui.toml", &inside);
    overlay.finish().unwrap();
    assert_eq!(scratch.read("real/tui.toml"), tui.replace("dark", "light"));
}

#[test]
fn an_overlay_that_somebody_broke_is_kept_aside_and_replaced() {
    let scratch = Scratch::new();
    scratch.file("real/config.toml", USER);
    let overlay = overlay(&scratch, 4711);
    overlay.prepare().unwrap();
    scratch.file("state/home/config.toml", "oh = ");
    overlay.sync().unwrap();
    assert_eq!(
        scratch.read("state/home/config.toml"),
        format!("{USER}{LED}")
    );
    assert_eq!(scratch.read("state/home/.kimiq-unreadable.toml"), "oh = ");
    assert_eq!(scratch.read("real/config.toml"), USER);
}
