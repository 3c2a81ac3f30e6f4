//! Instance files: how a command finds the host that runs already.
//!
//! A host holds `<name>.lock` from its start to its end; the lock vanishes with the process, whatever killed it. While
//! it lives, `<name>.json` (0600) tells its process, port and token. A file whose process is gone, or whose process id
//! was given to another program since, is stale: it is not believed, and the next host replaces it.
//!
//! Whoever wants to start a host first takes `<name>.start`, looks again, and starts one only if there is none. So
//! two starts at once give one host, without polling.
//!
//! The process is told from a later one with the same id by its start time: field 22 of `/proc/PID/stat` on Linux
//! (proc(5)). Other platforms have no such file; there only the id is compared.

use std::fs;
use std::io;
use std::path::PathBuf;

use serde::Deserialize;
use serde::Serialize;

use crate::fsx;
use crate::fsx::Lock;

/// Version of the instance file's form.
const FORM: u32 = 1;

/// What a host is for. One kind of work is never given to a host of another kind: a demo's would cost real tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Purpose {
    /// Runs terminals.
    #[default]
    Runs,
    /// Runs terminals with a simulated upstream.
    Demo,
    /// Serves clients that the user starts alone.
    Proxy,
}

/// What an instance file tells.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Version of this form.
    pub form: u32,
    /// Name of the host.
    pub name: String,
    /// What it is for.
    #[serde(default)]
    pub purpose: Purpose,
    /// Its process.
    pub pid: u32,
    /// When the process began, in the system's own unit; 0 where the system does not tell.
    pub process_start: u64,
    /// Its port on 127.0.0.1.
    pub port: u16,
    /// What a command must show to be served.
    pub token: String,
    /// Version of kimiq.
    pub version: String,
    /// When it came up (RFC 3339).
    pub started: String,
}

impl std::fmt::Debug for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Entry")
            .field("name", &self.name)
            .field("pid", &self.pid)
            .field("port", &self.port)
            .finish_non_exhaustive()
    }
}

impl Entry {
    /// An entry for this process.
    pub fn of_this_process(
        name: &str,
        purpose: Purpose,
        port: u16,
        token: String,
        started: String,
    ) -> Self {
        let pid = std::process::id();
        Self {
            form: FORM,
            name: name.to_owned(),
            purpose,
            pid,
            process_start: process_start(pid).unwrap_or(0),
            port,
            token,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started,
        }
    }

    /// Something to wait with for the end of the process that wrote this; to be taken before it is told to end.
    pub fn departure(&self) -> Departure {
        Departure {
            #[cfg(not(target_os = "linux"))]
            name: self.name.clone(),
            #[cfg(target_os = "linux")]
            process: i32::try_from(self.pid)
                .ok()
                .and_then(rustix::process::Pid::from_raw)
                .and_then(|pid| {
                    rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::NONBLOCK).ok()
                })
                // Opened first, looked at second: whatever has the number now is the one that we hold.
                .filter(|_| self.is_alive()),
        }
    }

    /// Whether the process that wrote this still lives.
    pub fn is_alive(&self) -> bool {
        is_alive(self.pid, self.process_start)
    }
}

/// The end of a host's process.
#[derive(Debug)]
pub struct Departure {
    #[cfg(target_os = "linux")]
    process: Option<std::os::fd::OwnedFd>,
    #[cfg(not(target_os = "linux"))]
    name: String,
}

impl Departure {
    /// Waits until the process is gone, and with it its lock, port and files.
    #[cfg(target_os = "linux")]
    pub async fn wait(self, _registry: &Registry) -> io::Result<()> {
        use rustix::event::PollFd;
        use rustix::event::PollFlags;
        let Some(process) = self.process else {
            return Ok(());
        };
        // Not the lock: the next host may hold it by then.
        let ended = move || rustix::event::poll(&mut [PollFd::new(&process, PollFlags::IN)], None);
        tokio::task::spawn_blocking(ended)
            .await
            .map_err(io::Error::other)??;
        Ok(())
    }

    /// Waits until the process is gone. Its lock tells; a next host that is faster than we are prolongs the wait.
    #[cfg(not(target_os = "linux"))]
    pub async fn wait(self, registry: &Registry) -> io::Result<()> {
        let (registry, name) = (registry.clone(), self.name);
        tokio::task::spawn_blocking(move || registry.claim_when_free(&name).map(drop))
            .await
            .map_err(io::Error::other)?
    }
}

/// The folder of the instance files.
#[derive(Clone, Debug)]
pub struct Registry {
    folder: PathBuf,
}

impl Registry {
    /// Opens the folder; it is made when something is written.
    pub fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// The host of this name, if it lives. A file in a form that we do not know counts as none.
    pub fn find(&self, name: &str) -> io::Result<Option<Entry>> {
        Ok(self.read(name)?.filter(Entry::is_alive))
    }

    /// All hosts that live, by name.
    pub fn all(&self) -> io::Result<Vec<Entry>> {
        let files = match fs::read_dir(&self.folder) {
            Ok(files) => files,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut found = Vec::new();
        for file in files {
            let path = file?.path();
            if path.extension().is_some_and(|ending| ending == "json")
                && let Some(name) = path.file_stem().and_then(|stem| stem.to_str())
                && let Some(entry) = self.find(name)?
            {
                found.push(entry);
            }
        }
        found.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(found)
    }

    /// Waits until nobody else is starting this host. Blocks; hold it while looking and starting.
    pub fn starting(&self, name: &str) -> io::Result<Lock> {
        fsx::create_private_dir(&self.folder)?;
        Lock::acquire(&self.folder.join(format!("{name}.start")))
    }

    /// Becomes the host of this name, unless another process is.
    pub fn claim(&self, name: &str) -> io::Result<Option<Claim>> {
        fsx::create_private_dir(&self.folder)?;
        let lock = Lock::try_acquire(&self.folder.join(format!("{name}.lock")))?;
        Ok(lock.map(|lock| Claim {
            file: self.file(name),
            _lock: lock,
        }))
    }

    /// Becomes the host of this name as soon as the other one is gone. Blocks.
    pub fn claim_when_free(&self, name: &str) -> io::Result<Claim> {
        fsx::create_private_dir(&self.folder)?;
        let lock = Lock::acquire(&self.folder.join(format!("{name}.lock")))?;
        Ok(Claim {
            file: self.file(name),
            _lock: lock,
        })
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.json"))
    }

    fn read(&self, name: &str) -> io::Result<Option<Entry>> {
        let bytes = fsx::read_if_exists(&self.file(name))?;
        Ok(bytes
            .and_then(|bytes| serde_json::from_slice::<Entry>(&bytes).ok())
            .filter(|entry| entry.form == FORM))
    }
}

/// The right to be the host of a name.
#[derive(Debug)]
pub struct Claim {
    file: PathBuf,
    _lock: Lock,
}

impl Claim {
    /// Tells everyone where this host is; replaces what a killed one left.
    pub fn publish(&self, entry: &Entry) -> io::Result<()> {
        let bytes = serde_json::to_vec_pretty(entry).map_err(io::Error::from)?;
        // A stale file may have been made readable to others; a new file gets the right mode.
        fsx::remove(&self.file)?;
        fsx::write_atomic(&self.file, &bytes, fsx::PRIVATE)
    }

    /// Leaves the registry: the last act of a host.
    pub fn leave(self) -> io::Result<()> {
        fsx::remove(&self.file)
    }
}

/// Names become file names and parts of `RUN:N`, so they are kept plain.
pub fn is_plain_name(name: &str) -> bool {
    (1..=40).contains(&name.len())
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        && name.bytes().any(|b| !b.is_ascii_digit())
}

#[cfg(target_os = "linux")]
fn process_start(pid: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the program's name in parentheses and may hold anything, parentheses too.
    let rest = &text[text.rfind(')')? + 1..];
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next()?;
    if matches!(state, "Z" | "X") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

#[cfg(not(target_os = "linux"))]
fn process_start(_pid: u32) -> Option<u64> {
    None
}

#[cfg(target_os = "linux")]
fn is_alive(pid: u32, start: u64) -> bool {
    process_start(pid).is_some_and(|found| found == start)
}

#[cfg(all(unix, not(target_os = "linux")))]
fn is_alive(pid: u32, _start: u64) -> bool {
    i32::try_from(pid)
        .ok()
        .and_then(rustix::process::Pid::from_raw)
        .is_some_and(|pid| rustix::process::test_kill_process(pid).is_ok())
}

#[cfg(not(unix))]
fn is_alive(_pid: u32, _start: u64) -> bool {
    // Nothing tells; the port is asked anyway, and a host that does not answer is not believed.
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scratch() -> (PathBuf, Registry) {
        static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let number = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let folder =
            std::env::temp_dir().join(format!("kimiq-registry-{}-{number}", std::process::id()));
        (folder.clone(), Registry::new(folder))
    }

    fn ours(name: &str) -> Entry {
        Entry::of_this_process(name, Purpose::Runs, 4711, "t".into(), "now".into())
    }

    #[test]
    fn a_published_host_is_found_until_it_leaves() {
        let (folder, registry) = scratch();
        assert_eq!(registry.find("a").unwrap(), None);
        let claim = registry.claim("a").unwrap().unwrap();
        claim.publish(&ours("a")).unwrap();
        assert_eq!(registry.find("a").unwrap(), Some(ours("a")));
        assert_eq!(registry.all().unwrap(), vec![ours("a")]);
        claim.leave().unwrap();
        assert_eq!(registry.find("a").unwrap(), None);
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn one_name_has_one_host() {
        let (folder, registry) = scratch();
        let first = registry.claim("a").unwrap().unwrap();
        assert!(registry.claim("a").unwrap().is_none());
        assert!(registry.claim("b").unwrap().is_some());
        first.leave().unwrap();
        assert!(registry.claim("a").unwrap().is_some());
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_reused_process_id_is_not_believed() {
        let (folder, registry) = scratch();
        let claim = registry.claim("a").unwrap().unwrap();
        let mut entry = ours("a");
        entry.process_start += 1;
        claim.publish(&entry).unwrap();
        assert_eq!(registry.find("a").unwrap(), None);
        claim.publish(&ours("a")).unwrap();
        assert!(registry.find("a").unwrap().is_some());
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_damaged_or_newer_file_counts_as_none() {
        let (folder, registry) = scratch();
        drop(registry.starting("a").unwrap());
        for text in ["", "{", "{\"form\":1}", "[]"] {
            fsx::write_atomic(&folder.join("a.json"), text.as_bytes(), fsx::PRIVATE).unwrap();
            assert_eq!(registry.find("a").unwrap(), None, "{text}");
        }
        let newer = Entry {
            form: FORM + 1,
            ..ours("a")
        };
        let bytes = serde_json::to_vec(&newer).unwrap();
        fsx::write_atomic(&folder.join("a.json"), &bytes, fsx::PRIVATE).unwrap();
        assert_eq!(registry.find("a").unwrap(), None);
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn the_file_is_for_its_owner_alone() {
        use std::os::unix::fs::PermissionsExt;
        let (folder, registry) = scratch();
        let claim = registry.claim("a").unwrap().unwrap();
        fs::File::create(folder.join("a.json")).unwrap();
        fs::set_permissions(folder.join("a.json"), fs::Permissions::from_mode(0o644)).unwrap();
        claim.publish(&ours("a")).unwrap();
        let mode = fs::metadata(folder.join("a.json"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(
            !format!(
                "{:?}",
                Entry {
                    token: "secret-token".into(),
                    ..ours("a")
                }
            )
            .contains("secret-token")
        );
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn names_are_plain() {
        for (name, expected) in [
            ("work", true),
            ("a-1_B", true),
            ("7", false),
            ("", false),
            ("a/b", false),
            ("..", false),
        ] {
            assert_eq!(is_plain_name(name), expected, "{name}");
        }
    }
}
