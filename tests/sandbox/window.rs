//! Windows on real PTYs, and processes as the system sees them.
//!
//! Nothing here sleeps: what is waited for reports itself, and every wait has a deadline.

#![expect(clippy::panic, reason = "a wait that fails tells what it saw")]

use std::fs;
use std::io::Read;
use std::io::Write;
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use kimiq::terminal::Screen;
use kimiq::terminal::Size;
use portable_pty::Child;
use portable_pty::CommandBuilder;
use portable_pty::MasterPty;
use portable_pty::PtySize;
use portable_pty::native_pty_system;
use tokio::time::Instant;

use crate::sandbox::Sandbox;

/// Generous: the machine may be busy. A wait ends when its condition holds, not when this passes.
pub(crate) const DEADLINE: Duration = Duration::from_mins(1);

/// A program that tells at once that it takes input, as a real client does, and then is a plain shell.
pub(crate) const SHELL: [&str; 5] = [
    "--exec",
    "sh",
    "--",
    "-c",
    "printf '\\033[?2004h\\033[?2004l'; PS1='$ ' exec sh -i",
];

/// The program on a PTY, and what it shows.
pub(crate) struct Window {
    pub(crate) child: Box<dyn Child + Send + Sync>,
    master: Box<dyn MasterPty + Send>,
    writer: Box<dyn Write + Send>,
    output: mpsc::Receiver<Vec<u8>>,
    screen: Screen,
    /// Everything that was written to the PTY.
    pub(crate) raw: Vec<u8>,
    before: String,
}

impl Window {
    /// Opens a window.
    pub(crate) fn open(sandbox: &Sandbox, args: &[&str]) -> Self {
        let size = PtySize {
            rows: 24,
            cols: 80,
            ..PtySize::default()
        };
        let pair = native_pty_system().openpty(size).unwrap();
        let mut command = CommandBuilder::new(env!("CARGO_BIN_EXE_kimiq"));
        command.args(args);
        command.cwd(sandbox.home.join("work"));
        command.env_clear();
        for (name, value) in sandbox.env() {
            command.env(name, value);
        }
        let before = discipline(&*pair.master);
        let child = pair.slave.spawn_command(command).unwrap();
        drop(pair.slave);
        let mut reader = pair.master.try_clone_reader().unwrap();
        let (told, output) = mpsc::sync_channel(1024);
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = reader.read(&mut buffer) {
                if told.send(buffer[..count].to_vec()).is_err() {
                    break;
                }
            }
        });
        let writer = pair.master.take_writer().unwrap();
        Self {
            child,
            master: pair.master,
            writer,
            output,
            screen: Screen::new(
                Size {
                    columns: 80,
                    rows: 24,
                },
                100,
            ),
            raw: Vec::new(),
            before,
        }
    }
    pub(crate) fn keys(&mut self, bytes: &[u8]) {
        self.writer.write_all(bytes).unwrap();
        self.writer.flush().unwrap();
    }

    pub(crate) fn resize(&self, columns: u16, rows: u16) {
        self.master
            .resize(PtySize {
                rows,
                cols: columns,
                ..PtySize::default()
            })
            .unwrap();
    }

    /// Waits until the screen holds a text.
    #[track_caller]
    pub(crate) fn shows(&mut self, text: &str) {
        let deadline = Instant::now() + DEADLINE;
        while !self.screen.text().contains(text) {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.output.recv_timeout(left) {
                Ok(bytes) => self.take(&bytes),
                Err(why) => panic!(
                    "`{text}` never came ({why}); the screen:\n{}",
                    self.screen.text()
                ),
            }
        }
    }

    /// Waits until these bytes have been written, and forgets what was before.
    #[track_caller]
    pub(crate) fn writes(&mut self, bytes: &[u8]) {
        let deadline = Instant::now() + DEADLINE;
        loop {
            if let Some(at) = self
                .raw
                .windows(bytes.len())
                .position(|window| window == bytes)
            {
                self.raw.drain(..at + bytes.len());
                return;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            match self.output.recv_timeout(left) {
                Ok(bytes) => self.take(&bytes),
                Err(why) => panic!("it was never written ({why})"),
            }
        }
    }

    fn take(&mut self, bytes: &[u8]) {
        self.raw.extend_from_slice(bytes);
        let fed = self.screen.feed(bytes);
        if !fed.replies.is_empty() {
            self.keys(&fed.replies);
        }
    }

    /// Waits for the end and returns the exit code; everything written is then in `raw`.
    #[track_caller]
    pub(crate) fn ends(&mut self) -> u32 {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.output.recv_timeout(left) {
                Ok(bytes) => self.take(&bytes),
                Err(mpsc::RecvTimeoutError::Disconnected) => break,
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    panic!("no end; the screen:\n{}", self.screen.text())
                }
            }
        }
        self.child.wait().unwrap().exit_code()
    }

    /// Whether the line discipline is as it was before the program began.
    pub(crate) fn is_given_back(&self) -> bool {
        discipline(&*self.master) == self.before
    }
}

fn discipline(master: &dyn MasterPty) -> String {
    format!("{:?}", master.get_termios().unwrap())
}

/// Whether a process runs; one that only waits to be noticed does not.
pub(crate) fn runs(pid: u64) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| {
        !stat
            .rsplit(')')
            .next()
            .unwrap()
            .trim_start()
            .starts_with('Z')
    })
}

/// Processes whose environment names this sandbox.
pub(crate) fn processes_of(home: &Path) -> Vec<u64> {
    let needle = home.display().to_string().into_bytes();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap() {
        let path = entry.unwrap().path();
        let Some(pid) = path
            .file_name()
            .and_then(|name| name.to_str()?.parse().ok())
        else {
            continue;
        };
        if let Ok(env) = fs::read(path.join("environ"))
            && env.windows(needle.len()).any(|window| window == needle)
            && runs(pid)
            && pid != u64::from(std::process::id())
        {
            found.push(pid);
        }
    }
    found
}
