//! `--rewrite-config`: the real configuration edited in place, under an undo journal.
//!
//! The journal holds the file's bytes before and after, and is on the disk before the file is touched. Undoing restores the
//! bytes where nobody else wrote meanwhile; otherwise only our addresses are taken out of what stands there now. It may be
//! done any number of times, at the end of a host, at the next start after a kill, or by `kimiq restore`.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::fsx;
use crate::kimi::document::{self, DocumentError, Redirected};
use crate::kimi::home::Environment;
use crate::kimi::leftovers;

/// One real configuration file and its journal.
#[derive(Clone, Debug)]
pub struct Rewrite {
    config: PathBuf,
    journal: PathBuf,
}

/// What an undo found to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Undone {
    /// No edit of ours was open.
    Nothing,
    /// The file has the bytes that it had before.
    Restored,
    /// Somebody else changed the file too; only our addresses were taken out.
    OursTakenBack,
}

/// Why a configuration could not be edited or put back.
#[derive(Debug, thiserror::Error)]
pub enum RewriteError {
    /// A file could not be read or written.
    #[error("cannot use {path}")]
    Files {
        /// Which.
        path: PathBuf,
        /// What happened.
        #[source]
        source: io::Error,
    },
    /// The configuration is not TOML.
    #[error("{path} cannot be used")]
    Document {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: DocumentError,
    },
    /// The file was edited into something that is not TOML while our addresses were in it.
    #[error(
        "{path} is not valid TOML any more, so kimiq's addresses stay in it; mend it and run `kimiq restore` (the text as it was is in {journal})"
    )]
    Unreadable {
        /// The configuration.
        path: PathBuf,
        /// The journal.
        journal: PathBuf,
    },
    /// The journal was written by something else.
    #[error(
        "{0} is no undo journal of kimiq; move it away once you have made sure that the client's configuration is right"
    )]
    Journal(PathBuf),
}

#[derive(Serialize, Deserialize)]
struct Entry {
    /// The file that was edited; the journal's place may be shared by several.
    config: PathBuf,
    /// Its text before; `None` when it was not there.
    original: Option<String>,
    /// The text we wrote.
    written: String,
}

impl Rewrite {
    /// Names the `config` file and where its `journal` is kept; nothing is read or written yet.
    pub fn new(config: PathBuf, journal: PathBuf) -> Self {
        Self { config, journal }
    }

    /// The file that a `journal` is about, if it is one of ours and can be read.
    pub fn file_of(journal: &Path) -> Option<PathBuf> {
        let text = fsx::read_if_exists(journal).ok()??;
        let entry: Entry = serde_json::from_slice(&text).ok()?;
        Some(entry.config)
    }

    /// Leads the aliases of the real file to `proxy`; an edit that is still open from before is undone first.
    ///
    /// # Errors
    ///
    /// A file cannot be used; the configuration is then as it was.
    pub fn apply(&self, env: &Environment, proxy: &str) -> Result<Redirected, RewriteError> {
        self.apply_by_steps(env, proxy, &|_| {})
    }

    /// Takes back what [`Rewrite::apply`] did, here or in a process that was killed.
    ///
    /// # Errors
    ///
    /// A file cannot be used; the journal then stays for another try.
    pub fn undo(&self) -> Result<Undone, RewriteError> {
        self.undo_by_steps(&|_| {})
    }

    pub(super) fn apply_by_steps(
        &self,
        env: &Environment,
        proxy: &str,
        step: &dyn Fn(&'static str),
    ) -> Result<Redirected, RewriteError> {
        let _held = self.lock()?;
        self.undo_locked(step)?;
        let original = read(&self.config)?;
        let redirected = document::redirect(original.as_deref().unwrap_or_default(), env, proxy)
            .map_err(|source| RewriteError::Document {
                path: self.config.clone(),
                source,
            })?;
        if redirected.text == original.as_deref().unwrap_or_default() {
            return Ok(redirected);
        }
        let entry = Entry {
            config: self.config.clone(),
            original,
            written: redirected.text.clone(),
        };
        let text = serde_json::to_vec_pretty(&entry)
            .map_err(|error| files(&self.journal, error.into()))?;
        fsx::write_atomic(&self.journal, &text, fsx::PRIVATE)
            .map_err(|source| files(&self.journal, source))?;
        step("journal written");
        write(&self.config, &redirected.text)?;
        step("configuration written");
        Ok(redirected)
    }

    pub(super) fn undo_by_steps(
        &self,
        step: &dyn Fn(&'static str),
    ) -> Result<Undone, RewriteError> {
        let _held = self.lock()?;
        self.undo_locked(step)
    }

    fn lock(&self) -> Result<fsx::Lock, RewriteError> {
        if let Some(folder) = self.journal.parent() {
            fsx::create_private_dir(folder).map_err(|source| files(folder, source))?;
        }
        let path = self.journal.with_extension("lock");
        fsx::Lock::acquire(&path).map_err(|source| files(&path, source))
    }

    fn undo_locked(&self, step: &dyn Fn(&'static str)) -> Result<Undone, RewriteError> {
        let Some(journal) = read(&self.journal)? else {
            return Ok(Undone::Nothing);
        };
        let entry: Entry = serde_json::from_str(&journal)
            .map_err(|_damaged| RewriteError::Journal(self.journal.clone()))?;
        sweep(&entry.config)?;
        let now = read(&entry.config)?;
        let undone = if now.as_ref() == Some(&entry.written) || now == entry.original {
            match &entry.original {
                Some(original) => write(&entry.config, original)?,
                None => {
                    fsx::remove(&entry.config).map_err(|source| files(&entry.config, source))?;
                }
            }
            Undone::Restored
        } else {
            if let Some(now) = now {
                let stripped = document::strip(&now, entry.original.as_deref().unwrap_or_default());
                let stripped = stripped.map_err(|_syntax| RewriteError::Unreadable {
                    path: entry.config.clone(),
                    journal: self.journal.clone(),
                })?;
                write(&entry.config, &stripped)?;
            }
            Undone::OursTakenBack
        };
        step("configuration put back");
        fsx::remove(&self.journal).map_err(|source| files(&self.journal, source))?;
        step("journal removed");
        Ok(undone)
    }
}

fn sweep(config: &Path) -> Result<(), RewriteError> {
    let name = config
        .file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default();
    let folder = config.parent().unwrap_or(config);
    leftovers::sweep(folder, &[name]).map_err(|source| files(folder, source))
}

fn files(path: &Path, source: io::Error) -> RewriteError {
    RewriteError::Files {
        path: path.to_path_buf(),
        source,
    }
}

fn read(path: &Path) -> Result<Option<String>, RewriteError> {
    fsx::read_text_if_exists(path).map_err(|source| files(path, source))
}

fn write(path: &Path, text: &str) -> Result<(), RewriteError> {
    fsx::write_if_changed(path, text).map_err(|source| files(path, source))
}

#[cfg(unix)]
#[cfg(test)]
mod tests {
    use super::*;
    use crate::kimi::scratch::Scratch;

    const USER: &str = "# mine\ndefault_model = 'm'   # keep\n[providers.p]\ntype = \"kimi\"\n[models]\nm = {provider = \"p\",  model = \"x\"}\n";
    const PROXY: &str = "http://127.0.0.1:4711";

    fn rewrite(scratch: &Scratch) -> Rewrite {
        Rewrite::new(
            scratch.path().join("home/config.toml"),
            scratch.path().join("state/undo.json"),
        )
    }

    #[test]
    fn an_untouched_file_comes_back_byte_for_byte() {
        let scratch = Scratch::new();
        scratch.file("home/config.toml", USER);
        let rewrite = rewrite(&scratch);
        for _ in 0..2 {
            let redirected = rewrite.apply(&Environment::new(), PROXY).unwrap();
            assert_eq!(scratch.read("home/config.toml"), redirected.text);
            assert!(redirected.text.contains("http://127.0.0.1:4711/p/p/v1"));
            assert_eq!(
                Rewrite::file_of(&rewrite.journal).as_ref(),
                Some(&rewrite.config)
            );
        }
        assert_eq!(rewrite.undo().unwrap(), Undone::Restored);
        assert_eq!(scratch.read("home/config.toml"), USER);
        assert_eq!(rewrite.undo().unwrap(), Undone::Nothing);
    }

    #[test]
    fn from_a_file_that_others_changed_only_ours_is_taken() {
        let scratch = Scratch::new();
        let path = scratch.file("home/config.toml", USER);
        let rewrite = rewrite(&scratch);
        rewrite.apply(&Environment::new(), PROXY).unwrap();
        let edited = scratch
            .read("home/config.toml")
            .replace("# keep", "# edited")
            + "[new]\na = 1 # theirs\n";
        scratch.file("home/config.toml", &edited);
        assert_eq!(rewrite.undo().unwrap(), Undone::OursTakenBack);
        let expected = USER.replace("# keep", "# edited") + "[new]\na = 1 # theirs\n";
        assert!(document::same_meaning(&scratch.read("home/config.toml"), &expected).unwrap());
        assert!(scratch.read("home/config.toml").contains("# theirs"));

        rewrite.apply(&Environment::new(), PROXY).unwrap();
        scratch.file("home/config.toml", "broken = ");
        assert!(matches!(
            rewrite.undo(),
            Err(RewriteError::Unreadable { .. })
        ));
        std::fs::remove_file(path).unwrap();
        assert_eq!(rewrite.undo().unwrap(), Undone::OursTakenBack);
    }

    #[test]
    fn a_home_without_a_configuration_has_none_afterwards() {
        let scratch = Scratch::new();
        scratch.file("home/other", "");
        let rewrite = rewrite(&scratch);
        rewrite.apply(&Environment::new(), PROXY).unwrap();
        assert_eq!(rewrite.undo().unwrap(), Undone::Nothing);
        assert!(!scratch.path().join("home/config.toml").exists());
    }
}
