//! The command line by verb, as a user meets it: results, remarks, exit codes.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

mod sandbox;

use std::io::BufRead;
use std::process::Child;
use std::process::Stdio;
use std::time::Duration;

use sandbox::Sandbox;

/// A command that goes on until the test ends it.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// Lines up to the first with these words.
fn lines_up_to(from: impl std::io::Read + Send + 'static, words: &'static str) -> Vec<String> {
    let found = sandbox::within(Duration::from_mins(1), move || {
        let mut read = Vec::new();
        for line in std::io::BufReader::new(from).lines() {
            read.push(line.unwrap());
            if read.last().unwrap().contains(words) {
                break;
            }
        }
        read
    })
    .unwrap();
    assert!(found.last().unwrap().contains(words), "{found:?}");
    found
}

#[track_caller]
fn check(args: &[&str], code: i32, said: &str) {
    let sandbox = Sandbox::new();
    let ran = sandbox.run(args);
    assert_eq!(ran.code, code, "{ran:?}");
    let all = format!("{}{}", ran.out, ran.err);
    assert!(all.contains(said), "`{said}` is not in {ran:?}");
}

#[test]
fn mistakes_have_their_documented_codes_and_name_the_fix() {
    check(&["fly"], 2, "unrecognized subcommand");
    check(&["run", "-n", "0"], 2, "1..=99");
    check(&["run", "--exec", "sh"], 2, "use --detach");
    check(
        &["run", "--detach", "--name", "a/b", "--exec", "sh"],
        2,
        "is no name",
    );
    check(
        &["run", "--detach", "--dir", "missing", "--exec", "sh"],
        2,
        "the folder missing does not exist",
    );
    check(&["run", "--detach"], 6, "kimiq client install");
    check(
        &["run", "--detach", "--kimi", "no-such-kimi"],
        6,
        "no-such-kimi",
    );
    check(
        &["config", "show", "--set", "limits.window=long"],
        3,
        "expected a number above 0",
    );
    check(
        &["config", "show", "--set", "limits.rps=1"],
        3,
        "there is no setting `limits.rps`",
    );
    check(&["attach"], 4, "start one with `kimiq run`");
    check(&["why"], 4, "no host");
    check(&["health"], 4, "no host");
    check(&["send", "x", "hello"], 2, "names no terminal");
    check(&["snapshot", "work:1"], 4, "no host");
    check(&["simulate", "--fault", "slow=1"], 2, "unknown fault");
    check(&["simulate", "--fault", "cut=2"], 2, "between 0 and 1");
    check(&["client", "install"], 6, "--yes");
}

#[test]
fn verbs_without_a_host_are_calm() {
    check(&["ps"], 0, "no terminals");
    check(&["ps", "--json"], 0, "[]");
    check(&["stop"], 0, "no host is running");
    check(&["usage"], 0, "0 of 200,000,000 tokens");
    check(&["usage", "--json", "--days", "3"], 0, "\"rows\": []");
    check(&["restore"], 0, "nothing to put back");
    check(&["restore", "--json"], 0, "[]");
    check(&["config", "check"], 0, "sound");
    check(&["--version"], 0, "kimiq 0.");
    check(&["--help"], 0, "Exit codes");
}

#[test]
fn a_watch_without_a_host_follows_the_file() {
    use kimiq::usage::Account;
    use kimiq::usage::Ledger;
    let sandbox = Sandbox::new();
    let file = sandbox.home.join("usage.json");
    let mut command = sandbox.command(&["usage", "--watch"]);
    command
        .env("KIMIQ_LIMITS_USAGE_STATE", &file)
        .env("KIMIQ_LIMITS_TIME_ZONE", "UTC")
        .stdout(Stdio::piped());
    let mut running = Running(command.spawn().unwrap());
    let mut out = std::io::BufReader::new(running.0.stdout.take().unwrap());
    let mut first = String::new();
    out.read_line(&mut first).unwrap();
    assert!(first.contains(" 0 of 200,000,000 tokens"), "{first}");
    let ledger = Ledger::open(file, chrono_tz::Tz::UTC, kimiq::clock::wall).unwrap();
    let account = Account {
        model: "k2".into(),
        terminal: "1".into(),
        source: "run".into(),
    };
    let tokens = kimiq::usage::Tokens {
        prompt: 5,
        ..kimiq::usage::Tokens::default()
    };
    ledger.add(account, tokens);
    ledger.flush().unwrap();
    lines_up_to(out, " 5 of 200,000,000 tokens");
}

#[test]
fn a_proxy_that_spends_its_own_key_says_so() {
    let sandbox = Sandbox::new();
    kimiq::fsx::write_atomic(
        &sandbox.home.join("config.toml"),
        b"[keys]\n\"127.0.0.1\" = \"env:KEY\"\n",
        0o600,
    )
    .unwrap();
    let mut command =
        sandbox.command(&["proxy", "--port", "0", "--upstream", "http://127.0.0.1:9"]);
    command.env("KEY", "k").stderr(Stdio::piped());
    let mut running = Running(command.spawn().unwrap());
    lines_up_to(
        running.0.stderr.take().unwrap(),
        "every user of this machine",
    );
}

#[test]
fn settings_tell_where_they_came_from() {
    let sandbox = Sandbox::new();
    kimiq::fsx::write_atomic(
        &sandbox.home.join("config.toml"),
        b"[limits]\ndaily_tokens = 7\ndayly_tokens = 8\n",
        0o600,
    )
    .unwrap();
    let ran = sandbox.run(&["config", "show"]);
    assert_eq!(ran.code, 0);
    let row = ran
        .out
        .lines()
        .find(|line| line.starts_with("limits.daily_tokens"))
        .unwrap();
    assert!(row.contains('7') && row.ends_with("config.toml"), "{row}");
    assert!(
        ran.err.contains("unknown setting `limits.dayly_tokens`"),
        "{}",
        ran.err
    );
    assert!(!ran.out.contains('\x1b'), "no colours into a pipe");

    let output = sandbox
        .command(&["config", "show", "--json"])
        .env("FIREWORKS_PROXY_RPS", "3")
        .output()
        .unwrap();
    let shown: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let row = shown
        .as_array()
        .unwrap()
        .iter()
        .find(|row| row["key"] == "limits.requests_per_second")
        .unwrap();
    assert_eq!(
        (&row["value"], &row["origin"]),
        (&"3".into(), &"variable FIREWORKS_PROXY_RPS".into())
    );

    let ran = sandbox.run(&["config", "check", "--json"]);
    let checked: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!((ran.code, &checked["ok"]), (3, &false.into()));
    assert_eq!(checked["warnings"].as_array().unwrap().len(), 1);
    let ran = sandbox.run(&["config", "check"]);
    assert_eq!(ran.code, 3, "{ran:?}");
    assert!(ran.err.contains("limits.dayly_tokens"), "{ran:?}");
    let ran = sandbox.run(&["doctor"]);
    assert!(ran.out.contains("bad settings"), "{ran:?}");
    let paths = sandbox.json(&["config", "path", "--json"]);
    assert_eq!(
        paths["config"].as_str().unwrap(),
        sandbox.home.join("config.toml").to_str().unwrap()
    );
    let defaults = sandbox.good(&["config", "show", "--defaults"]);
    assert_eq!(defaults, kimiq::config::DEFAULTS);
}

#[test]
fn completions_are_those_of_the_repository() {
    let sandbox = Sandbox::new();
    for (shell, file) in [
        ("bash", "kimiq.bash"),
        ("zsh", "_kimiq"),
        ("fish", "kimiq.fish"),
        ("powershell", "_kimiq.ps1"),
        ("elvish", "kimiq.elv"),
    ] {
        let stored =
            std::fs::read_to_string(format!("{}/completions/{file}", env!("CARGO_MANIFEST_DIR")))
                .unwrap();
        assert_eq!(sandbox.good(&["completions", shell]), stored, "{shell}");
    }
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let sandbox = Sandbox::new();
    let mut child = sandbox
        .command(&["completions", "zsh"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(output.stderr.is_empty(), "{output:?}");
}

#[test]
fn the_footer_line_falls_back_at_once_without_a_host() {
    let sandbox = Sandbox::new();
    let ran = sandbox.run(&["status-line"]);
    assert_ne!(ran.code, 0, "the client then shows its own line");
    assert_eq!(ran.out, "");
}

#[test]
fn the_doctor_names_the_fix() {
    check(
        &["doctor", "--set", "limits.window=long"],
        5,
        "bad settings",
    );
    let sandbox = Sandbox::new();
    let ran = sandbox.run(&["doctor"]);
    assert_eq!(ran.code, 5, "{ran:?}");
    assert!(
        ran.out.contains("bad client") && ran.out.contains("kimiq client install"),
        "{}",
        ran.out
    );
    let ran = sandbox.run(&["doctor", "--json"]);
    let findings: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    for finding in findings.as_array().unwrap() {
        assert_eq!(finding["ok"], finding["what"] != "client", "{finding}");
    }
}

#[test]
fn an_edited_configuration_is_put_back() {
    use kimiq::kimi::Rewrite;
    let sandbox = Sandbox::new();
    let config = sandbox.home.join("client.toml");
    let before = "[providers.p]\ntype = \"openai\"\nbase_url = \"https://x.example/v1\"\n\n[models.m]\nprovider = \"p\"\nmodel = \"k\"\n";
    std::fs::create_dir_all(sandbox.home.join("state/hosts/default/journals")).unwrap();
    kimiq::fsx::write_atomic(&config, before.as_bytes(), 0o600).unwrap();
    let name = percent_encoding::utf8_percent_encode(
        config.to_str().unwrap(),
        percent_encoding::NON_ALPHANUMERIC,
    );
    let journal = sandbox
        .home
        .join(format!("state/hosts/default/journals/{name}"));
    Rewrite::new(config.clone(), journal)
        .apply(&kimiq::kimi::Environment::new(), "http://127.0.0.1:9")
        .unwrap();
    assert_ne!(std::fs::read_to_string(&config).unwrap(), before);

    let said = sandbox.good(&["restore"]);
    assert!(said.contains("byte for byte"), "{said}");
    assert_eq!(std::fs::read_to_string(&config).unwrap(), before);
    assert!(
        sandbox
            .run(&["restore"])
            .err
            .contains("nothing to put back")
    );
}
