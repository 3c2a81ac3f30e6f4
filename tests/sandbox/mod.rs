//! A place of its own for each test that runs the program: folders and environment.
//!
//! Dropping it stops every host of its own and removes the folder.
#![expect(
    clippy::print_stderr,
    reason = "the log of a failed test is for a person"
)]

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::process::Output;
use std::process::Stdio;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering;

pub(crate) struct Sandbox {
    pub(crate) home: PathBuf,
}

/// What a command printed, and its exit code.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Sandbox {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let home = std::env::temp_dir().join(format!("kimiq-test-{}-{number}", std::process::id()));
        fs::create_dir_all(home.join("work")).unwrap();
        Self {
            home: home.canonicalize().unwrap(),
        }
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kimiq"));
        command
            .args(args)
            .current_dir(self.home.join("work"))
            .env_clear()
            .stdin(Stdio::null());
        for (name, value) in self.env() {
            command.env(name, value);
        }
        command
    }

    pub(crate) fn env(&self) -> Vec<(&'static str, String)> {
        let home = self.home.display().to_string();
        vec![
            ("PATH", "/usr/local/bin:/usr/bin:/bin".to_owned()),
            ("HOME", home.clone()),
            ("KIMIQ_HOME", home),
            ("NO_COLOR", "1".to_owned()),
            ("TERM", "xterm-256color".to_owned()),
            ("TZ", "UTC".to_owned()),
        ]
    }

    pub(crate) fn run(&self, args: &[&str]) -> Ran {
        Ran::from(self.command(args).output().unwrap())
    }

    /// As [`Self::run`], for commands that must succeed.
    #[track_caller]
    pub(crate) fn good(&self, args: &[&str]) -> String {
        let ran = self.run(args);
        assert_eq!(ran.code, 0, "{args:?}: {ran:?}");
        ran.out
    }

    #[track_caller]
    pub(crate) fn json(&self, args: &[&str]) -> serde_json::Value {
        serde_json::from_str(&self.good(args)).unwrap()
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        let ran = self.run(&["stop", "--now"]);
        if std::thread::panicking() {
            eprintln!("stop said {ran:?}");
            for name in ["default", "demo", "proxy"] {
                if let Ok(log) =
                    fs::read_to_string(self.home.join(format!("state/hosts/{name}/log")))
                {
                    eprintln!("--- log of {name}\n{log}");
                }
            }
            return;
        }
        fs::remove_dir_all(&self.home).unwrap();
    }
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }
}
