//! One private home per user for Kimi Code, in which its model traffic is led to the proxy.
//!
//! The home is made of links into the real one (see `entries`) and of two files of its own: `config.toml`, always the
//! user's file with our addresses in it, and `tui.toml`. Beside each lies the text as we last saw or wrote it
//! (`.kimiq-base.toml`, `.kimiq-base-tui.toml`); the difference between the two is what a user changed inside a terminal,
//! and is carried back to the real file.
//!
//! The order of writes makes a kill harmless at every point: the user's file first, then the overlay's, then the base.
//! A base that is older than its file only makes the same changes be carried back once more; a base that is newer would
//! undo the user's own edits, so it is always written last.
//!
//! Everything here blocks on files for some milliseconds; call it from a blocking thread.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;

use crate::fsx;
use crate::kimi::document::{self, DocumentError, Redirected};
use crate::kimi::entries;
use crate::kimi::home::Environment;
use crate::kimi::made;
use crate::kimi::tui_file;
use crate::kimi::upstream::{Route, Warning};
use crate::kimi::watch::Watch;

/// What an overlay is made from.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The user's own home of the client; made if it is not there.
    pub real: PathBuf,
    /// Where the overlay lives: one stable path per user, because the client notes it in its logs and indexes.
    pub root: PathBuf,
    /// `http://127.0.0.1:PORT`.
    pub proxy: String,
    /// A shell command for the client's footer line; the user's own is kept, see [`user_status_command`].
    pub status_command: Option<String>,
    /// The user's environment: some providers take their address from it.
    pub env: Environment,
}

/// The overlay home.
#[derive(Debug)]
pub struct Overlay {
    setup: Setup,
    /// Our use of the real home, between the first preparation and the last look.
    held: Mutex<Option<File>>,
}

/// What holds after the overlay was prepared or brought up to date.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Synced {
    /// All routes that the proxy must serve now.
    pub routes: Vec<Route>,
    /// What the user should know.
    pub warnings: Vec<Warning>,
    /// Variables for new children, in place of the user's own.
    pub env: Vec<(OsString, OsString)>,
    /// The user's own file was changed, because a setting was changed inside a terminal.
    pub carried_back: bool,
    /// Aliases that had appeared without our address and have it now; a running terminal sees it after `/reload`.
    pub patched: Vec<String>,
}

/// Why the overlay could not be made or brought up to date.
#[derive(Debug, thiserror::Error)]
pub enum OverlayError {
    /// A file could not be read or written.
    #[error("cannot use {path}")]
    Files {
        /// Which.
        path: PathBuf,
        /// What happened.
        #[source]
        source: io::Error,
    },
    /// A configuration cannot be read.
    #[error("{path} cannot be used")]
    Document {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: DocumentError,
    },
    /// The system does not tell about changed files.
    #[error("cannot watch the client's configuration")]
    Watch(#[source] notify::Error),
}

const BASE: &str = ".kimiq-base.toml";
const BASE_TUI: &str = ".kimiq-base-tui.toml";
const OWNER: &str = ".kimiq-owner";
const REAL: &str = ".kimiq-real-home";
const STATUS: &str = ".kimiq-status-command";
const UNREADABLE: &str = ".kimiq-unreadable.toml";
const LOCK: &str = ".kimiq.lock";

/// How often a file that changes under our hands is read again before its writer is left to win.
const TRIES: usize = 5;

/// The user's own footer command in the overlay at `root` (a child's `KIMI_CODE_HOME`); our status verb runs it too.
///
/// # Errors
///
/// The note cannot be read.
pub fn user_status_command(root: &Path) -> io::Result<Option<String>> {
    let note = fsx::read_if_exists(&root.join(STATUS))?;
    Ok(note
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .filter(|command| !command.is_empty()))
}

/// The home that an overlay at `root` stands for; `None` where there is no overlay.
pub(super) fn real_home(root: &Path) -> Option<PathBuf> {
    let note = fsx::read_if_exists(&root.join(REAL)).ok()??;
    Some(path_of(note))
}

#[cfg(unix)]
fn path_of(note: Vec<u8>) -> PathBuf {
    let path: OsString = std::os::unix::ffi::OsStringExt::from_vec(note);
    path.into()
}

#[cfg(not(unix))]
fn path_of(note: Vec<u8>) -> PathBuf {
    String::from_utf8_lossy(&note).into_owned().into()
}

/// A path need not be Unicode; its bytes are noted as they are.
fn note_path(note: &Path, path: &Path) -> io::Result<()> {
    let bytes = path.as_os_str().as_encoded_bytes();
    if fsx::read_if_exists(note)?.as_deref() == Some(bytes) {
        return Ok(());
    }
    fsx::write_atomic(note, bytes, fsx::PRIVATE)
}

impl Overlay {
    /// Names an overlay; nothing is read or written yet.
    pub fn new(setup: Setup) -> Self {
        Self {
            setup,
            held: Mutex::default(),
        }
    }

    /// The children's `KIMI_CODE_HOME`.
    pub fn root(&self) -> &Path {
        &self.setup.root
    }

    /// Builds the overlay or repairs it, and carries back what an earlier host that was killed left in it. May be run
    /// again at any time, also while terminals use it.
    ///
    /// # Errors
    ///
    /// Files cannot be used, or the user's configuration is not TOML.
    pub fn prepare(&self) -> Result<Synced, OverlayError> {
        self.prepare_by_steps(&|_| {})
    }

    /// Carries back, gives new aliases our address, and follows edits of the user's own file. Does nothing when nothing
    /// has changed.
    ///
    /// # Errors
    ///
    /// As [`Overlay::prepare`]; the overlay stays as it was.
    pub fn sync(&self) -> Result<Synced, OverlayError> {
        let _held = self.lock()?;
        self.sync_config(&|_| {})
    }

    /// As [`Overlay::sync`], for a run that ends while others of the same home go on.
    ///
    /// # Errors
    ///
    /// As [`Overlay::prepare`].
    pub fn leave(&self) -> Result<Synced, OverlayError> {
        drop(self.held.lock().take());
        self.sync()
    }

    /// The last look, once no terminal runs any more: everything that terminals changed goes home, and folders that were
    /// made there for nothing go.
    ///
    /// # Errors
    ///
    /// As [`Overlay::prepare`].
    pub fn finish(&self) -> Result<Synced, OverlayError> {
        let synced = self.prepare()?;
        let held = self.held.lock().take();
        if let Some(held) = held {
            let Setup { real, root, .. } = &self.setup;
            made::take_back(real, root, &held).map_err(|source| files(real, source))?;
        }
        Ok(synced)
    }

    /// Tells when a [`Overlay::sync`] is due.
    ///
    /// # Errors
    ///
    /// The system does not tell about changed files.
    pub fn watch(&self) -> Result<Watch, OverlayError> {
        Watch::on(vec![self.config(), self.users_config()]).map_err(OverlayError::Watch)
    }

    pub(super) fn prepare_by_steps(
        &self,
        step: &dyn Fn(&'static str),
    ) -> Result<Synced, OverlayError> {
        let root = &self.setup.root;
        fsx::create_private_dir(root).map_err(|source| files(root, source))?;
        let _held = self.lock()?;
        step("locked");
        let real = &self.setup.real;
        fsx::create_private_dir(real).map_err(|source| files(real, source))?;
        {
            let mut held = self.held.lock();
            if held.is_none() {
                *held = made::hold(real);
            }
        }
        entries::lay(real, root, step).map_err(|source| files(root, source))?;
        let owner = root.join(OWNER);
        write(&owner, &self.setup.proxy)?;
        let note = root.join(REAL);
        note_path(&note, real).map_err(|source| files(&note, source))?;
        step("owner written");
        let synced = self.sync_config(step)?;
        self.sync_tui(step)?;
        Ok(synced)
    }

    fn lock(&self) -> Result<fsx::Lock, OverlayError> {
        let path = self.setup.root.join(LOCK);
        fsx::Lock::acquire(&path).map_err(|source| files(&path, source))
    }

    fn config(&self) -> PathBuf {
        self.setup.root.join("config.toml")
    }

    fn users_config(&self) -> PathBuf {
        self.setup.real.join("config.toml")
    }

    fn sync_config(&self, step: &dyn Fn(&'static str)) -> Result<Synced, OverlayError> {
        let (here, home, base) = (
            self.config(),
            self.users_config(),
            self.setup.root.join(BASE),
        );
        let mut carried_back = false;
        for _ in 0..TRIES {
            let was = read(&base)?;
            let is = read(&here)?;
            let user = read(&home)?;
            let mut text = user.clone().unwrap_or_default();
            if let (Some(was), Some(is)) = (&was, &is) {
                match document::carry_back(was, is, &text) {
                    Ok(None) => {}
                    Ok(Some(merged)) => {
                        if read(&home)? != user {
                            continue;
                        }
                        write(&home, &merged)?;
                        step("carried back");
                        carried_back = true;
                        text = merged;
                    }
                    Err(source) if document::parse(is, "").is_ok() => {
                        return Err(wrong(&home, source));
                    }
                    Err(_) => {
                        // The client writes whole files only, so somebody edited it; keep that text for him.
                        tracing::warn!(path = %here.display(), kept = UNREADABLE, "is not TOML and is replaced");
                        write(&self.setup.root.join(UNREADABLE), is)?;
                    }
                }
            }
            let wanted = document::redirect(&text, &self.setup.env, &self.setup.proxy)
                .map_err(|source| wrong(&home, source))?;
            let fits = is
                .as_ref()
                .is_some_and(|is| document::same_meaning(is, &wanted.text).unwrap_or(false));
            let patched = match &is {
                Some(is) if !fits => newly_led(is, &wanted),
                _ => Vec::new(),
            };
            let left = match is {
                Some(is) if fits || !self.is_owner()? => is,
                is => {
                    if read(&here)? != is {
                        continue;
                    }
                    write(&here, &wanted.text)?;
                    step("configuration written");
                    wanted.text
                }
            };
            if was.as_ref() != Some(&left) {
                write(&base, &left)?;
                step("base written");
            }
            let Redirected {
                routes,
                warnings,
                env,
                ..
            } = wanted;
            return Ok(Synced {
                routes,
                warnings,
                env,
                carried_back,
                patched,
            });
        }
        Err(files(
            &here,
            io::Error::new(
                io::ErrorKind::ResourceBusy,
                "it changes faster than it can be read",
            ),
        ))
    }

    fn sync_tui(&self, step: &dyn Fn(&'static str)) -> Result<(), OverlayError> {
        let (here, home) = (
            self.setup.root.join("tui.toml"),
            self.setup.real.join("tui.toml"),
        );
        let base = self.setup.root.join(BASE_TUI);
        let mut text = read(&home)?.unwrap_or_default();
        if let (Some(was), Some(is)) = (read(&base)?, read(&here)?) {
            match tui_file::carry_back(&was, &is, &text) {
                Ok(Some(merged)) => {
                    write(&home, &merged)?;
                    step("tui carried back");
                    text = merged;
                }
                Ok(None) => {}
                Err(error) => {
                    tracing::warn!(path = %here.display(), %error, "a theme or setting is not carried back");
                }
            }
        }
        let users_own = tui_file::status_command(&text).unwrap_or_else(|error| {
            // The client itself goes on with its defaults when this file is broken.
            tracing::warn!(path = %home.display(), %error, "is left out");
            text = String::new();
            None
        });
        let status = self.setup.root.join(STATUS);
        write(&status, users_own.as_deref().unwrap_or_default())?;
        step("footer command noted");
        let wanted = tui_file::with_ours(&text, self.setup.status_command.as_deref())
            .map_err(|source| wrong(&home, source))?;
        write(&here, &wanted)?;
        step("tui written");
        write(&base, &wanted)?;
        step("tui base written");
        Ok(())
    }

    /// Another kimiq may use the same overlay at another port; only the last that prepared it writes addresses, or the
    /// two would take turns for ever.
    fn is_owner(&self) -> Result<bool, OverlayError> {
        Ok(read(&self.setup.root.join(OWNER))?.is_none_or(|owner| owner == self.setup.proxy))
    }
}

/// Aliases of `is` that no kimiq led, and that are led now.
fn newly_led(is: &str, wanted: &Redirected) -> Vec<String> {
    let led: HashSet<&String> = wanted
        .routes
        .iter()
        .flat_map(|route| &route.aliases)
        .collect();
    let mut found = document::unled(is).unwrap_or_default();
    found.retain(|alias| led.contains(alias));
    found
}

fn files(path: &Path, source: io::Error) -> OverlayError {
    OverlayError::Files {
        path: path.to_path_buf(),
        source,
    }
}

fn wrong(path: &Path, source: DocumentError) -> OverlayError {
    OverlayError::Document {
        path: path.to_path_buf(),
        source,
    }
}

fn read(path: &Path) -> Result<Option<String>, OverlayError> {
    fsx::read_text_if_exists(path).map_err(|source| files(path, source))
}

fn write(path: &Path, text: &str) -> Result<(), OverlayError> {
    fsx::write_if_changed(path, text).map_err(|source| files(path, source))
}

#[cfg(unix)]
#[cfg(test)]
#[path = "overlay_tests.rs"]
mod tests;
