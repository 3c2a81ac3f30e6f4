//! A folder for one test, gone with it.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

static NEXT: AtomicU32 = AtomicU32::new(0);

pub(crate) struct Scratch(PathBuf);

impl Scratch {
    pub(crate) fn new() -> Self {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let folder =
            std::env::temp_dir().join(format!("kimiq-kimi-{}-{number}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        Self(fs::canonicalize(folder).unwrap())
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn file(&self, at: &str, text: &str) -> PathBuf {
        let path = self.0.join(at);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        crate::fsx::write_atomic(&path, text.as_bytes(), 0o644).unwrap();
        path
    }

    /// Written by a process of its own: a descriptor of ours, held for an instant by some other test's child, would make
    /// the program "busy".
    pub(crate) fn program(&self, at: &str, text: &str) -> PathBuf {
        let path = self.0.join(at);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let mut shell = Command::new("/bin/sh")
            .args(["-c", "cat > \"$0\" && chmod 755 \"$0\""])
            .arg(&path)
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        shell
            .stdin
            .take()
            .unwrap()
            .write_all(text.as_bytes())
            .unwrap();
        assert!(shell.wait().unwrap().success());
        path
    }

    pub(crate) fn link(&self, target: &str, at: &str) {
        let path = self.0.join(at);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::os::unix::fs::symlink(self.0.join(target), path).unwrap();
    }

    pub(crate) fn read(&self, at: &str) -> String {
        fs::read_to_string(self.0.join(at)).unwrap()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("{} stays: {error}", self.0.display());
        }
    }
}
