//! Files that survive a kill at any instant.
//!
//! A file is written beside its place, synced, renamed over it, and the folder is synced; a reader sees the old or the
//! new bytes, never a mixture. Symbolic links are followed and an existing file keeps its mode. Locks are advisory
//! and vanish with their process.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// Mode of a file that only its owner may read.
pub const PRIVATE: u32 = 0o600;

/// Makes names of temporary files distinct inside one process.
static SEQUENCE: AtomicU64 = AtomicU64::new(0);

/// Replaces `path` by `bytes` in one step. A new file gets `mode`; an existing one keeps its own.
pub fn write_atomic(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let target = resolve(path)?;
    let folder = parent(&target);
    let kept = match fs::metadata(&target) {
        Ok(found) => Some(mode_of(&found)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    let (beside, mut file) = create_beside(&target, kept.unwrap_or(mode))?;
    let written = kept
        .map_or(Ok(()), |kept| set_mode(&file, kept))
        .and_then(|()| file.write_all(bytes))
        .and_then(|()| file.sync_all())
        .and_then(|()| fs::rename(&beside, &target));
    if let Err(error) = written {
        // The temporary file is ours alone; when it cannot be removed either, the first error is the one to tell.
        if fs::remove_file(&beside).is_err() {
            tracing::debug!(path = %beside.display(), "a temporary file could not be removed");
        }
        return Err(error);
    }
    sync_folder(folder)
}

/// Makes a folder and its parents; those that are new are readable by the owner only.
pub fn create_private_dir(path: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}

/// Removes a file; one that is not there is no error. The folder is synced, so that the removal survives a crash.
pub fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Ok(()) => sync_folder(parent(path)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Reads a file; `None` when it is not there.
pub fn read_if_exists(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Reads a text; `None` when the file is not there, an error when it is no UTF-8.
pub fn read_text_if_exists(path: &Path) -> io::Result<Option<String>> {
    let text = read_if_exists(path)?.map(String::from_utf8).transpose();
    text.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// Writes a text that only its owner may read, but only if it is not already there, so that a watcher is not woken for
/// nothing.
pub fn write_if_changed(path: &Path, text: &str) -> io::Result<()> {
    if read_text_if_exists(path)?.as_deref() == Some(text) {
        return Ok(());
    }
    write_atomic(path, text.as_bytes(), PRIVATE)
}

/// An advisory lock on a file, held until dropped or until the process ends.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Lock {
    /// Waits until the lock is free.
    pub fn acquire(path: &Path) -> io::Result<Self> {
        let file = open_lock(path)?;
        file.lock()?;
        Ok(Self { _file: file })
    }

    /// Takes the lock for itself alone if nobody holds it.
    pub fn try_acquire(path: &Path) -> io::Result<Option<Self>> {
        let file = open_lock(path)?;
        Self::taken(file.try_lock(), file)
    }

    /// Takes the lock together with others that share it, if nobody holds it alone.
    pub fn try_share(path: &Path) -> io::Result<Option<Self>> {
        let file = open_lock(path)?;
        Self::taken(file.try_lock_shared(), file)
    }

    fn taken(tried: Result<(), fs::TryLockError>, file: File) -> io::Result<Option<Self>> {
        match tried {
            Ok(()) => Ok(Some(Self { _file: file })),
            Err(fs::TryLockError::WouldBlock) => Ok(None),
            Err(fs::TryLockError::Error(error)) => Err(error),
        }
    }
}

fn open_lock(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.create(true).truncate(false).read(true).write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, PRIVATE);
    options.open(path)
}

/// The file that a chain of symbolic links ends at; it need not exist.
fn resolve(path: &Path) -> io::Result<PathBuf> {
    match fs::canonicalize(path) {
        Ok(found) => Ok(found),
        Err(error) if error.kind() == io::ErrorKind::NotFound => match fs::read_link(path) {
            // A dangling link: write what it names, not the link itself.
            Ok(target) => Ok(parent(path).join(target)),
            Err(_) => Ok(path.to_path_buf()),
        },
        Err(error) => Err(error),
    }
}

fn create_beside(target: &Path, mode: u32) -> io::Result<(PathBuf, File)> {
    let name = target.file_name().unwrap_or_default().to_string_lossy();
    loop {
        let number = SEQUENCE.fetch_add(1, Ordering::Relaxed);
        let beside = parent(target).join(format!(".{name}.{}.{number}.tmp", std::process::id()));
        let mut options = OpenOptions::new();
        options.create_new(true).write(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, mode);
        #[cfg(not(unix))]
        let _unused_mode = mode;
        match options.open(&beside) {
            Ok(file) => return Ok((beside, file)),
            // Left behind by a killed process that had our number.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

#[cfg(unix)]
fn mode_of(found: &fs::Metadata) -> u32 {
    std::os::unix::fs::PermissionsExt::mode(&found.permissions()) & 0o7777
}

/// The umask cuts the mode that a file is opened with, but not this.
#[cfg(unix)]
fn set_mode(file: &File, mode: u32) -> io::Result<()> {
    file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(mode))
}

#[cfg(not(unix))]
fn set_mode(_file: &File, _mode: u32) -> io::Result<()> {
    Ok(())
}

#[cfg(not(unix))]
fn mode_of(_found: &fs::Metadata) -> u32 {
    PRIVATE
}

#[cfg(unix)]
fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

#[cfg(not(unix))]
fn sync_folder(_folder: &Path) -> io::Result<()> {
    // Windows has no folder sync; the rename itself is journalled there.
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scratch() -> PathBuf {
        let folder = std::env::temp_dir().join(format!(
            "kimiq-fsx-{}-{}",
            std::process::id(),
            SEQUENCE.fetch_add(1, Ordering::Relaxed)
        ));
        fs::create_dir_all(&folder).unwrap();
        folder
    }

    #[test]
    fn a_replaced_file_keeps_its_mode_and_a_link_stays_a_link() {
        use std::os::unix::fs::PermissionsExt;
        let folder = scratch();
        let real = folder.join("real");
        write_atomic(&real, b"one", 0o600).unwrap();
        // A usual umask takes away a part of this one.
        fs::set_permissions(&real, fs::Permissions::from_mode(0o664)).unwrap();
        let link = folder.join("link");
        std::os::unix::fs::symlink("real", &link).unwrap();

        write_atomic(&link, b"two", 0o600).unwrap();

        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read(&real).unwrap(), b"two");
        assert_eq!(mode_of(&fs::metadata(&real).unwrap()), 0o664);
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 2);
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_dangling_link_is_written_through() {
        let folder = scratch();
        let link = folder.join("link");
        std::os::unix::fs::symlink("later", &link).unwrap();
        write_atomic(&link, b"x", PRIVATE).unwrap();
        assert_eq!(fs::read(folder.join("later")).unwrap(), b"x");
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_held_lock_is_seen_and_released() {
        let folder = scratch();
        let path = folder.join("lock");
        let held = Lock::acquire(&path).unwrap();
        assert!(Lock::try_acquire(&path).unwrap().is_none());
        drop(held);
        assert!(Lock::try_acquire(&path).unwrap().is_some());
        fs::remove_dir_all(&folder).unwrap();
    }
}
