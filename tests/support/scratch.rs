//! A folder that goes with its test.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use kimiq::fsx;
use kimiq::kimi::Environment;

/// A folder that goes with its test.
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    pub(crate) fn new(name: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let folder =
            std::env::temp_dir().join(format!("kimiq-{name}-{}-{number}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        Self(fs::canonicalize(folder).unwrap())
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn folder(&self, at: &str) -> PathBuf {
        let path = self.0.join(at);
        fs::create_dir_all(&path).unwrap();
        path
    }

    pub(crate) fn file(&self, at: &str, text: &str) -> PathBuf {
        let path = self.0.join(at);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fsx::write_atomic(&path, text.as_bytes(), 0o600).unwrap();
        path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // A client that is still closing its files may put one back; the folder is in the system's temporary one.
        drop(fs::remove_dir_all(&self.0));
    }
}

/// The environment of a person who has only a home and the system's programs.
pub(crate) fn bare(home: &Path) -> Environment {
    [
        ("HOME".into(), home.into()),
        ("PATH".into(), "/usr/bin:/bin".into()),
    ]
    .into()
}
