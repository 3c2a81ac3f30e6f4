//! Removing the temporary files of a kimiq that was killed in the middle of a write.
//!
//! `fsx` writes `.NAME.PID.NUMBER.tmp` beside its target. In a client's home such a file may hold keys and would stay for
//! ever, so whoever works there next removes those whose process is gone.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::Path;

use crate::fsx;

/// Removes what dead processes left in `folder` beside a file of one of the `names`.
pub(super) fn sweep(folder: &Path, names: &[&str]) -> io::Result<()> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        if let Some(pid) = writer(&entry.file_name(), names)
            && !alive(pid)
        {
            fsx::remove(&entry.path())?;
        }
    }
    Ok(())
}

/// The process that made a temporary file for one of `names`.
fn writer(file: &OsStr, names: &[&str]) -> Option<i32> {
    let middle = file.to_str()?.strip_prefix('.')?.strip_suffix(".tmp")?;
    let (rest, number) = middle.rsplit_once('.')?;
    let (name, pid) = rest.rsplit_once('.')?;
    number.parse::<u64>().ok()?;
    names.contains(&name).then(|| pid.parse().ok())?
}

#[cfg(unix)]
fn alive(pid: i32) -> bool {
    rustix::process::Pid::from_raw(pid).is_some_and(|pid| {
        // Not permitted means alive under another user.
        !matches!(
            rustix::process::test_kill_process(pid),
            Err(rustix::io::Errno::SRCH)
        )
    })
}

#[cfg(not(unix))]
fn alive(_pid: i32) -> bool {
    // Unknown: then nothing is removed.
    true
}

#[cfg(unix)]
#[cfg(test)]
mod tests {
    use super::*;
    use crate::kimi::scratch::Scratch;

    #[test]
    fn only_what_dead_writers_left_goes() {
        let scratch = Scratch::new();
        let mine = format!(".config.toml.{}.0.tmp", std::process::id());
        for name in [
            ".config.toml.999999999.3.tmp",
            &mine,
            ".other.999999999.3.tmp",
            "config.toml",
            ".config.toml.tmp",
        ] {
            scratch.file(name, "x");
        }
        sweep(scratch.path(), &["config.toml"]).unwrap();
        let mut left: Vec<String> = fs::read_dir(scratch.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        left.sort();
        let mut expected = [
            ".config.toml.tmp".to_owned(),
            mine,
            ".other.999999999.3.tmp".to_owned(),
            "config.toml".to_owned(),
        ];
        expected.sort();
        assert_eq!(left, expected);
    }
}
