//! A client that runs: to its end with its output, or in a PTY as a person has it.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::expect_used,
    reason = "helpers of tests fail by panicking"
)]

use std::io::{Read, Write};
use std::process::{Output, Stdio};
use std::time::Duration;

use kimiq::kimi::{Environment, LaunchSpec};
use portable_pty::{Child, CommandBuilder, MasterPty, PtySize, native_pty_system};
use tokio::sync::mpsc;

/// Longest that a client may take for one thing on a loaded machine.
const PATIENCE: Duration = Duration::from_mins(5);

/// Runs a client without a terminal.
pub(crate) async fn run(spec: &LaunchSpec, env: &Environment) -> Output {
    let mut command = tokio::process::Command::new(&spec.program);
    command
        .args(&spec.args)
        .current_dir(&spec.cwd)
        .env_clear()
        .envs(env)
        .stdin(Stdio::null())
        .kill_on_drop(true);
    for name in &spec.env_remove {
        command.env_remove(name);
    }
    command.envs(spec.env.iter().map(|(name, value)| (name, value)));
    tokio::time::timeout(PATIENCE, command.output())
        .await
        .expect("the client ends")
        .unwrap()
}

/// A client in a PTY of 30 rows and 100 columns.
pub(crate) struct Live {
    child: Box<dyn Child + Send + Sync>,
    keys: Box<dyn Write + Send>,
    bytes: mpsc::Receiver<Vec<u8>>,
    seen: Vec<u8>,
    _master: Box<dyn MasterPty + Send>,
}

impl Live {
    pub(crate) fn start(spec: &LaunchSpec, env: &Environment) -> Self {
        let size = PtySize {
            rows: 30,
            cols: 100,
            pixel_width: 0,
            pixel_height: 0,
        };
        let pair = native_pty_system().openpty(size).unwrap();
        let mut command = CommandBuilder::new(&spec.program);
        command.args(&spec.args);
        command.cwd(&spec.cwd);
        command.env_clear();
        for (name, value) in env {
            command.env(name, value);
        }
        for name in &spec.env_remove {
            command.env_remove(name);
        }
        for (name, value) in &spec.env {
            command.env(name, value);
        }
        let child = pair.slave.spawn_command(command).unwrap();
        let mut reader = pair.master.try_clone_reader().unwrap();
        let (tell, bytes) = mpsc::channel(64);
        std::thread::spawn(move || {
            let mut buffer = [0; 8192];
            while let Ok(count @ 1..) = reader.read(&mut buffer) {
                if tell.blocking_send(buffer[..count].to_vec()).is_err() {
                    break;
                }
            }
        });
        Self {
            child,
            keys: pair.master.take_writer().unwrap(),
            bytes,
            seen: Vec::new(),
            _master: pair.master,
        }
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) {
        self.keys.write_all(bytes).unwrap();
        self.keys.flush().unwrap();
    }

    /// Types a line as a paste, and Enter once the client has shown it.
    pub(crate) async fn line(&mut self, text: &str) {
        self.write(format!("\x1b[200~{text}\x1b[201~").as_bytes());
        self.until(text).await;
        self.write(b"\r");
    }

    /// Reads until the client has written `wanted` (escape sequences of colour and cursor taken out) since the last
    /// match; returns everything it has ever written.
    pub(crate) async fn until(&mut self, wanted: &str) -> String {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let text = readable(&self.seen);
            if text.contains(wanted) {
                self.seen.clear();
                return text;
            }
            match tokio::time::timeout_at(deadline, self.bytes.recv()).await {
                Ok(Some(bytes)) => self.seen.extend(bytes),
                Ok(None) => panic!("the client went without {wanted:?}:\n{text}"),
                Err(late) => panic!("no {wanted:?} in time ({late}):\n{text}"),
            }
        }
    }

    /// Waits for the end; the exit code, and what the client wrote since the last match.
    pub(crate) async fn end(mut self) -> (u32, String) {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while let Some(bytes) = tokio::time::timeout_at(deadline, self.bytes.recv())
            .await
            .expect("the client ends")
        {
            self.seen.extend(bytes);
        }
        let waiting = tokio::task::spawn_blocking(move || self.child.wait().unwrap());
        let status = waiting.await.unwrap();
        (status.exit_code(), readable(&self.seen))
    }
}

/// Text and OSC contents, without CSI sequences.
fn readable(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut parts = text.split("\x1b[");
    let mut found = parts.next().unwrap().to_owned();
    for part in parts {
        let end = part.find(|c: char| ('@'..='~').contains(&c));
        found.push_str(end.map_or("", |end| &part[end + 1..]));
    }
    found
}
