//! Folders that kimiq made in the client's real home, and their way back.
//!
//! The overlay's links need targets, so folders that are missing in the real home are made there. Their names are noted in
//! the overlay, after they were made: a kill in between leaves an empty folder, but none that somebody else made is ever
//! taken for ours. The last look removes those that are still empty, and nothing else.
//!
//! Another host may have an overlay of the same home, whose links must not lose their targets. So each overlay in use
//! holds a shared lock on the home's folder itself, and only who can have it alone removes anything. Where folders cannot
//! be locked, nothing is removed.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use crate::fsx;

/// Lies in the overlay; one name on each line.
pub(super) const RECORD: &str = ".kimiq-made-folders";

/// Tells other overlays of the home at `real` that it is in use, until the result is dropped.
pub(super) fn hold(real: &Path) -> Option<File> {
    let folder = File::open(real).ok()?;
    folder.lock_shared().ok()?;
    Some(folder)
}

/// Makes those of the folders `names` that `real` does not have, and notes them in the overlay at `root`.
pub(super) fn make(real: &Path, root: &Path, names: &[&str]) -> io::Result<()> {
    let before = recorded(root)?;
    let mut made = before.clone();
    for &name in names {
        let folder = real.join(name);
        if !folder.exists() {
            fsx::create_private_dir(&folder)?;
            made.push(name.to_owned());
        }
    }
    made.sort();
    made.dedup();
    if made == before {
        return Ok(());
    }
    fsx::write_atomic(&root.join(RECORD), made.join("\n").as_bytes(), fsx::PRIVATE)
}

/// Removes the folders that were made and are still empty, if nobody else uses the home; `held` is our own use of it.
pub(super) fn take_back(real: &Path, root: &Path, held: &File) -> io::Result<()> {
    held.unlock()?;
    if held.try_lock().is_err() {
        return Ok(());
    }
    for name in recorded(root)? {
        // Only an empty folder can be removed in this way; one that holds something is the client's by now.
        if let Err(error) = fs::remove_dir(real.join(&name)) {
            tracing::debug!(name, %error, "a folder of the client stays");
        }
    }
    fsx::remove(&root.join(RECORD))
}

fn recorded(root: &Path) -> io::Result<Vec<String>> {
    let note = fsx::read_if_exists(&root.join(RECORD))?.unwrap_or_default();
    Ok(String::from_utf8_lossy(&note)
        .lines()
        .map(str::to_owned)
        .collect())
}
