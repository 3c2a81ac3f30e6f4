//! What lies in the overlay beside the configuration: links into the real home.
//!
//! Folders are linked as folders, because the client writes inside them; most important are `credentials` and `oauth`
//! together, or several terminals would rotate the login's refresh token against each other. A file that the client
//! replaces by renaming loses its link; it is brought home at the next start or end.

use std::fs;
use std::io;
use std::path::Path;

use crate::fsx;
use crate::kimi::leftovers;
use crate::kimi::made;

/// Folders that the client keeps in its home (Kimi Code 2.1.0). They are made in the real home, so that nothing a
/// terminal writes stays in the overlay; see `made` for their way back.
const FOLDERS: [&str; 16] = [
    "agents",
    "bin",
    "cache",
    "credentials",
    "logs",
    "oauth",
    "plugins",
    "search-index",
    "server",
    "sessions",
    "skills",
    "telemetry",
    "themes",
    "updates",
    "user-history",
    "workspace-trust",
];

/// Files that are linked whether or not they exist: the client creates them through the link.
const FILES: [&str; 2] = ["device_id", "session_index.jsonl"];

/// Files of the overlay's own. `workspaces.json` is a list of folders that the client rewrites by renaming.
const OWN: [&str; 4] = ["config.toml", "tui.toml", "workspaces.json", MARKER];

/// What kimiq writes in one of the two homes.
const SWEPT: [&str; 11] = [
    "config.toml",
    "tui.toml",
    "device_id",
    "mcp.json",
    "workspaces.json",
    ".kimiq-base.toml",
    ".kimiq-base-tui.toml",
    made::RECORD,
    ".kimiq-owner",
    ".kimiq-real-home",
    ".kimiq-status-command",
];

/// Keeps the client from offering to migrate from kimi-cli for each new home; its content is not read.
const MARKER: &str = ".skip-migration-from-kimi-cli";

const LINK_BESIDE: &str = ".kimiq-link";

pub(super) fn lay(real: &Path, root: &Path, step: &dyn Fn(&'static str)) -> io::Result<()> {
    fsx::create_private_dir(real)?;
    for folder in [real, root] {
        leftovers::sweep(folder, &SWEPT)?;
    }
    made::make(real, root, &FOLDERS)?;
    step("folders made in the real home");
    for name in FOLDERS.iter().chain(&FILES) {
        bring_home(real, root, name)?;
        link(real, root, name)?;
        step("linked");
    }
    for entry in fs::read_dir(real)? {
        let entry = entry?;
        let name = entry.file_name();
        // A name that is not Unicode is none of the client's.
        let Some(name) = name.to_str() else { continue };
        let temporary = name.starts_with(".kimiq")
            || name.starts_with(".config.toml")
            || name.starts_with(".tui.toml");
        if !OWN.contains(&name) && !temporary {
            bring_home(real, root, name)?;
            link(real, root, name)?;
        }
    }
    drop_dead_links(root)?;
    step("linked what else there is");
    if !root.join("workspaces.json").exists()
        && let Some(list) = fsx::read_if_exists(&real.join("workspaces.json"))?
    {
        fsx::write_atomic(&root.join("workspaces.json"), &list, fsx::PRIVATE)?;
    }
    fsx::write_atomic(&root.join(MARKER), b"", fsx::PRIVATE)?;
    step("marked");
    Ok(())
}

/// Takes home what the client made in the overlay where a link should be.
fn bring_home(real: &Path, root: &Path, name: &str) -> io::Result<()> {
    let (home, here) = (real.join(name), root.join(name));
    let Ok(found) = fs::symlink_metadata(&here) else {
        return Ok(());
    };
    if found.is_dir() {
        merge_folder(&here, &home)
    } else if found.is_file() {
        let newer = match fs::metadata(&home) {
            Ok(at_home) => found.modified()? > at_home.modified()?,
            Err(_) => true,
        };
        if newer {
            fsx::write_atomic(&home, &fs::read(&here)?, fsx::PRIVATE)?;
        }
        Ok(())
    } else {
        Ok(())
    }
}

fn merge_folder(from: &Path, to: &Path) -> io::Result<()> {
    if !to.exists() {
        fsx::create_private_dir(to)?;
    }
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if fs::symlink_metadata(&target).is_err() {
            fs::rename(entry.path(), &target)?;
        } else if entry.file_type()?.is_dir() && target.is_dir() {
            merge_folder(&entry.path(), &target)?;
        }
    }
    match fs::remove_dir(from) {
        // What both homes have under one name stays in the overlay rather than being overwritten.
        Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(()),
        other => other,
    }
}

/// Makes `root/name` a link to `real/name`; a folder that could not be emptied is left.
fn link(real: &Path, root: &Path, name: &str) -> io::Result<()> {
    let (target, here) = (real.join(name), root.join(name));
    match fs::symlink_metadata(&here) {
        Ok(found) if found.is_symlink() && fs::read_link(&here)? == target => return Ok(()),
        Ok(found) if found.is_dir() => {
            tracing::warn!(folder = %here.display(), "holds files that the client's home has too; it stays apart");
            return Ok(());
        }
        _ => {}
    }
    let beside = root.join(LINK_BESIDE);
    fsx::remove(&beside)?;
    make_link(&target, &beside)?;
    fs::rename(&beside, &here)
}

/// Links whose target is gone would make the client see files that cannot be read; those it creates itself stay.
fn drop_dead_links(root: &Path) -> io::Result<()> {
    for entry in fs::read_dir(root)? {
        let entry = entry?;
        let kept = entry
            .file_name()
            .to_str()
            .is_some_and(|name| FILES.contains(&name));
        if entry.file_type()?.is_symlink() && !entry.path().exists() && !kept {
            fsx::remove(&entry.path())?;
        }
    }
    Ok(())
}

#[cfg(unix)]
fn make_link(target: &Path, at: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink(target, at)
}

#[cfg(windows)]
fn make_link(target: &Path, at: &Path) -> io::Result<()> {
    // Needs developer mode or an elevated shell; without it the user is told to run with --rewrite-config.
    if target.is_dir() {
        std::os::windows::fs::symlink_dir(target, at)
    } else {
        std::os::windows::fs::symlink_file(target, at)
    }
}

#[cfg(unix)]
#[cfg(test)]
mod tests {
    use super::*;
    use crate::kimi::scratch::Scratch;

    fn laid(scratch: &Scratch) {
        let root = scratch.path().join("root");
        fsx::create_private_dir(&root).unwrap();
        lay(&scratch.path().join("real"), &root, &|_| {}).unwrap();
    }

    #[test]
    fn everything_of_the_home_is_seen_and_written_through() {
        let scratch = Scratch::new();
        scratch.file("real/config.toml", "user");
        scratch.file("real/mcp.json", "{}");
        scratch.file("real/later-version/state", "s");
        scratch.file("real/workspaces.json", "[1]");
        laid(&scratch);
        assert!(!scratch.path().join("root/config.toml").exists());
        assert_eq!(scratch.read("root/mcp.json"), "{}");
        assert_eq!(scratch.read("root/later-version/state"), "s");
        scratch.file("root/sessions/a", "x");
        scratch.file("root/device_id", "id");
        assert_eq!(scratch.read("real/sessions/a"), "x");
        assert_eq!(scratch.read("real/device_id"), "id");
        scratch.file("root/workspaces.json", "[2]");
        fs::remove_file(scratch.path().join("real/mcp.json")).unwrap();
        laid(&scratch);
        assert!(fs::symlink_metadata(scratch.path().join("root/mcp.json")).is_err());
        assert_eq!(scratch.read("real/workspaces.json"), "[1]");
    }

    #[test]
    fn what_the_client_put_in_place_of_a_link_comes_home() {
        let scratch = Scratch::new();
        scratch.file("real/mcp.json", "old");
        laid(&scratch);
        let here = scratch.path().join("root/mcp.json");
        fs::remove_file(&here).unwrap();
        scratch.file("root/mcp.json", "new");
        fs::remove_file(scratch.path().join("root/skills")).unwrap();
        scratch.file("root/skills/s/SKILL.md", "skill");
        // The clock of the file system may be coarse; the order is what matters.
        let later =
            fs::metadata(&here).unwrap().modified().unwrap() + std::time::Duration::from_secs(2);
        fs::File::open(&here).unwrap().set_modified(later).unwrap();
        laid(&scratch);
        assert_eq!(scratch.read("real/mcp.json"), "new");
        assert_eq!(scratch.read("real/skills/s/SKILL.md"), "skill");
        assert!(fs::symlink_metadata(here).unwrap().is_symlink());
    }
}
