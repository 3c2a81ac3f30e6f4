//! The ledger: token totals per local day, model, terminal and run, in memory and in one JSON file.
//!
//! What is added is on disk within a second. Before each write the file is read again under a lock and only what is new
//! is added to it, so that two processes with one ledger both count. A file that cannot be understood is renamed, never
//! overwritten. Days older than five weeks keep their totals per model only.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use chrono::{DateTime, Days, NaiveDate, Utc};
use chrono_tz::Tz;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use crate::fsx;
use crate::usage::Tokens;

const VERSION: u32 = 1;
/// Days that keep terminals and runs apart.
const DETAILED: u64 = 35;
/// Days kept at all.
const KEPT: u64 = 800;
/// Least time between two writes.
const PAUSE: Duration = Duration::from_secs(1);

/// Why the ledger could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The file could not be read.
    #[error("the ledger {path} could not be read; check its permissions")]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The file could not be written.
    #[error("the ledger {path} could not be written; check its folder's permissions and the disk")]
    Write {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

/// Whose tokens.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Account {
    /// The model as the client named it.
    pub model: String,
    /// The terminal's name; empty when there is none.
    pub terminal: String,
    /// The run's name or another origin; empty when there is none.
    pub source: String,
}

/// A column to group by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum By {
    /// Local calendar day.
    Day,
    /// Model.
    Model,
    /// Terminal.
    Terminal,
    /// Run or other origin.
    Source,
}

/// A sum; columns that were not asked for are `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Total {
    /// Local calendar day.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub day: Option<NaiveDate>,
    /// Model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Terminal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub terminal: Option<String>,
    /// Run or other origin.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Requests that were counted.
    pub requests: u64,
    /// Their tokens.
    #[serde(flatten)]
    pub tokens: Tokens,
}

/// Handle to the ledger; clones share one.
#[derive(Clone, Debug)]
pub struct Ledger {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    path: PathBuf,
    zone: Tz,
    wall: fn() -> DateTime<Utc>,
    book: Mutex<Book>,
    /// One writer at a time.
    writing: Mutex<()>,
    dirty: Notify,
    closed: AtomicBool,
}

type Rows = BTreeMap<(NaiveDate, Account), Sum>;

/// The ledger is the sum of all three.
#[derive(Debug, Default)]
struct Book {
    on_disk: Rows,
    /// The file that they were read from, or written to.
    stamp: Option<Stamp>,
    in_writing: Rows,
    pending: Rows,
    /// What this process added on the last day on which it did.
    own: (NaiveDate, u64),
}

/// What tells one state of the file from another: its date and size.
type Stamp = (SystemTime, u64);

#[derive(Clone, Copy, Debug, Default)]
struct Sum {
    requests: u64,
    tokens: Tokens,
}

/// The file: one row per day and account.
#[derive(Serialize, Deserialize)]
struct File {
    version: u32,
    rows: Vec<Row>,
}

#[derive(Serialize, Deserialize)]
struct Row {
    day: NaiveDate,
    model: String,
    terminal: String,
    source: String,
    requests: u64,
    #[serde(flatten)]
    tokens: Tokens,
}

impl Ledger {
    /// Reads the ledger at `path`; the file need not exist. `zone` tells which day it is at `wall`.
    ///
    /// # Errors
    ///
    /// [`LedgerError::Read`] when the file is there but cannot be read. One that is read but not understood is renamed,
    /// with a warning, and a new one begins.
    pub fn open(path: PathBuf, zone: Tz, wall: fn() -> DateTime<Utc>) -> Result<Self, LedgerError> {
        let on_disk = read(&path)?.unwrap_or_default();
        let book = Book {
            on_disk,
            ..Book::default()
        };
        let shared = Shared {
            path,
            zone,
            wall,
            book: Mutex::new(book),
            writing: Mutex::new(()),
            dirty: Notify::new(),
            closed: AtomicBool::new(false),
        };
        Ok(Self {
            shared: Arc::new(shared),
        })
    }

    /// Counts one request on the current day.
    pub fn add(&self, account: Account, tokens: Tokens) {
        let day = self.date();
        let mut book = self.shared.book.lock();
        let sum = book.pending.entry((day, account)).or_default();
        sum.requests += 1;
        sum.tokens += tokens;
        if book.own.0 != day {
            book.own = (day, 0);
        }
        book.own.1 += tokens.total();
        drop(book);
        self.shared.dirty.notify_one();
    }

    /// The current local day and its sum.
    pub fn today(&self) -> (NaiveDate, Total) {
        let day = self.date();
        let sum = self.totals(1, &[]).pop().unwrap_or_default();
        (day, sum)
    }

    /// The current local day, and tokens of it that this process did not add: those of earlier and of other processes.
    pub fn of_others(&self) -> (NaiveDate, u64) {
        let (day, total) = self.today();
        // Looked at last: what is added meanwhile is none of theirs.
        let (own_day, own) = self.shared.book.lock().own;
        let own = if own_day == day { own } else { 0 };
        (day, total.tokens.total().saturating_sub(own))
    }

    /// Sums of the last `days` local days, today included, grouped by the given columns, in their order.
    pub fn totals(&self, days: u32, by: &[By]) -> Vec<Total> {
        let today = self.date();
        let first = before(today, u64::from(days.max(1) - 1));
        let book = self.shared.book.lock();
        let mut groups: BTreeMap<Vec<String>, Total> = BTreeMap::new();
        for rows in [&book.on_disk, &book.in_writing, &book.pending] {
            for ((day, account), sum) in rows {
                if *day < first || *day > today {
                    continue;
                }
                let key = by.iter().map(|one| one.of(*day, account)).collect();
                let total = groups
                    .entry(key)
                    .or_insert_with(|| Total::named(*day, account, by));
                total.requests += sum.requests;
                total.tokens += sum.tokens;
            }
        }
        drop(book);
        groups.into_values().collect()
    }

    /// Takes over what other processes wrote since the last look, so that sums hold their tokens too. Blocks on the disk,
    /// for no longer than a look at the file's date if nobody wrote.
    ///
    /// # Errors
    ///
    /// [`LedgerError`]; the sums stay as they were.
    pub fn refresh(&self) -> Result<(), LedgerError> {
        let one_at_a_time = self.shared.writing.lock();
        let stamp = stamp(&self.shared.path);
        if self.shared.book.lock().stamp == stamp {
            return Ok(());
        }
        let rows = read(&self.shared.path)?;
        let mut book = self.shared.book.lock();
        book.stamp = stamp;
        // A file that somebody took away is written again with what we know.
        if let Some(rows) = rows {
            book.on_disk = rows;
        }
        drop(book);
        drop(one_at_a_time);
        Ok(())
    }

    /// Writes what is new, if anything is. Blocks on the disk.
    ///
    /// # Errors
    ///
    /// [`LedgerError`]; nothing is lost then, the next call tries again.
    pub fn flush(&self) -> Result<(), LedgerError> {
        let one_at_a_time = self.shared.writing.lock();
        let mine = {
            let mut book = self.shared.book.lock();
            let pending = std::mem::take(&mut book.pending);
            merge(&mut book.in_writing, pending);
            book.in_writing.clone()
        };
        if mine.is_empty() {
            return Ok(());
        }
        let (rows, stamp) = self.write(mine)?;
        let mut book = self.shared.book.lock();
        book.on_disk = rows;
        book.stamp = stamp;
        book.in_writing.clear();
        drop(book);
        drop(one_at_a_time);
        Ok(())
    }

    fn write(&self, mine: Rows) -> Result<(Rows, Option<Stamp>), LedgerError> {
        let path = &self.shared.path;
        let failed = |source| LedgerError::Write {
            path: path.clone(),
            source,
        };
        if let Some(folder) = path.parent() {
            fsx::create_private_dir(folder).map_err(failed)?;
        }
        let lock = fsx::Lock::acquire(&with_ending(path, ".lock")).map_err(failed)?;
        let mut rows = match read(path)? {
            Some(rows) => rows,
            None => self.shared.book.lock().on_disk.clone(),
        };
        merge(&mut rows, mine);
        let rows = thin(rows, self.date());
        let file = File {
            version: VERSION,
            rows: rows.iter().map(Row::from).collect(),
        };
        let bytes = serde_json::to_vec(&file).map_err(|error| failed(error.into()))?;
        fsx::write_atomic(path, &bytes, fsx::PRIVATE).map_err(failed)?;
        let stamp = stamp(path);
        drop(lock);
        Ok((rows, stamp))
    }

    /// Keeps the file up to date: spawn it once. Ends after [`Ledger::close`], with a last write.
    pub async fn drive(self) {
        let mut failing = false;
        loop {
            let closed = self.shared.closed.load(Ordering::Acquire);
            if !closed {
                self.shared.dirty.notified().await;
            }
            let ledger = self.clone();
            match tokio::task::spawn_blocking(move || ledger.flush()).await {
                Ok(Ok(())) => failing = false,
                Ok(Err(error)) => {
                    if !failing {
                        tracing::warn!(
                            error = &error as &dyn std::error::Error,
                            "usage is kept in memory only"
                        );
                    }
                    failing = true;
                    self.shared.dirty.notify_one();
                }
                // The runtime is ending.
                Err(_) => return,
            }
            if closed {
                return;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Ends [`Ledger::drive`]. What is added later needs a [`Ledger::flush`].
    pub fn close(&self) {
        self.shared.closed.store(true, Ordering::Release);
        self.shared.dirty.notify_one();
    }

    fn date(&self) -> NaiveDate {
        (self.shared.wall)()
            .with_timezone(&self.shared.zone)
            .date_naive()
    }
}

impl By {
    fn of(self, day: NaiveDate, account: &Account) -> String {
        match self {
            Self::Day => day.to_string(),
            Self::Model => account.model.clone(),
            Self::Terminal => account.terminal.clone(),
            Self::Source => account.source.clone(),
        }
    }
}

impl Total {
    fn named(day: NaiveDate, account: &Account, by: &[By]) -> Self {
        let mut total = Self::default();
        for one in by {
            match one {
                By::Day => total.day = Some(day),
                By::Model => total.model = Some(account.model.clone()),
                By::Terminal => total.terminal = Some(account.terminal.clone()),
                By::Source => total.source = Some(account.source.clone()),
            }
        }
        total
    }
}

impl From<(&(NaiveDate, Account), &Sum)> for Row {
    fn from(((day, account), sum): (&(NaiveDate, Account), &Sum)) -> Self {
        Self {
            day: *day,
            model: account.model.clone(),
            terminal: account.terminal.clone(),
            source: account.source.clone(),
            requests: sum.requests,
            tokens: sum.tokens,
        }
    }
}

/// The rows on disk; `None` when there is no file, or none that we understand.
fn read(path: &Path) -> Result<Option<Rows>, LedgerError> {
    let failed = |source| LedgerError::Read {
        path: path.to_path_buf(),
        source,
    };
    let Some(bytes) = fsx::read_if_exists(path).map_err(failed)? else {
        return Ok(None);
    };
    match serde_json::from_slice::<File>(&bytes) {
        Ok(file) if file.version == VERSION => {
            let mut rows = Rows::new();
            for row in file.rows {
                let account = Account {
                    model: row.model,
                    terminal: row.terminal,
                    source: row.source,
                };
                let sum = Sum {
                    requests: row.requests,
                    tokens: row.tokens,
                };
                add(&mut rows, (row.day, account), sum);
            }
            Ok(Some(rows))
        }
        _ => {
            let aside = (0..1000)
                .map(|number| match number {
                    0 => with_ending(path, ".broken"),
                    more => with_ending(path, &format!(".broken-{more}")),
                })
                .find(|aside| !aside.exists())
                .unwrap_or_else(|| with_ending(path, ".broken"));
            std::fs::rename(path, &aside).map_err(failed)?;
            tracing::warn!(kept = %aside.display(), "the ledger is not one of this version; a new one begins");
            Ok(None)
        }
    }
}

fn add(rows: &mut Rows, key: (NaiveDate, Account), sum: Sum) {
    let known = rows.entry(key).or_default();
    known.requests += sum.requests;
    known.tokens += sum.tokens;
}

fn merge(rows: &mut Rows, more: Rows) {
    for (key, sum) in more {
        add(rows, key, sum);
    }
}

/// Old days lose their terminals and runs, and very old ones go.
fn thin(rows: Rows, today: NaiveDate) -> Rows {
    let detailed_from = before(today, DETAILED);
    let kept_from = before(today, KEPT);
    let mut thinned = Rows::new();
    for ((day, mut account), sum) in rows {
        if day < kept_from {
            continue;
        }
        if day < detailed_from {
            account.terminal.clear();
            account.source.clear();
        }
        add(&mut thinned, (day, account), sum);
    }
    thinned
}

fn before(day: NaiveDate, days: u64) -> NaiveDate {
    day.checked_sub_days(Days::new(days))
        .unwrap_or(NaiveDate::MIN)
}

fn stamp(path: &Path) -> Option<Stamp> {
    let about = std::fs::metadata(path).ok()?;
    Some((about.modified().ok()?, about.len()))
}

fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU64;

    static SCRATCH: AtomicU64 = AtomicU64::new(0);

    fn scratch() -> PathBuf {
        let number = SCRATCH.fetch_add(1, Ordering::Relaxed);
        let folder =
            std::env::temp_dir().join(format!("kimiq-ledger-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        folder
    }

    fn noon() -> DateTime<Utc> {
        "2026-11-20T12:00:00Z".parse().unwrap()
    }

    fn next_day() -> DateTime<Utc> {
        "2026-11-21T12:00:00Z".parse().unwrap()
    }

    fn far_future() -> DateTime<Utc> {
        "2027-02-01T12:00:00Z".parse().unwrap()
    }

    fn open(path: &Path, wall: fn() -> DateTime<Utc>) -> Ledger {
        Ledger::open(path.to_path_buf(), Tz::UTC, wall).unwrap()
    }

    fn account(model: &str, terminal: &str) -> Account {
        Account {
            model: model.to_owned(),
            terminal: terminal.to_owned(),
            source: "run".to_owned(),
        }
    }

    fn tokens(prompt: u64, generated: u64) -> Tokens {
        Tokens {
            prompt,
            generated,
            ..Tokens::default()
        }
    }

    #[test]
    fn totals_group_by_what_was_asked() {
        let folder = scratch();
        let path = folder.join("ledger.json");
        let ledger = open(&path, noon);
        ledger.add(account("k2", "1"), tokens(100, 10));
        ledger.add(account("k2", "2"), tokens(200, 20));
        ledger.add(account("k3", "1"), tokens(400, 40));
        ledger.flush().unwrap();
        ledger.add(account("k2", "1"), tokens(1, 0));

        let by_model = ledger.totals(1, &[By::Model]);
        let seen: Vec<_> = by_model
            .iter()
            .map(|t| (t.model.as_deref().unwrap(), t.requests, t.tokens.total()))
            .collect();
        assert_eq!(seen, [("k2", 3, 331), ("k3", 1, 440)]);
        assert_eq!(ledger.totals(1, &[By::Terminal, By::Model]).len(), 3);
        let (day, today) = ledger.today();
        assert_eq!(day.to_string(), "2026-11-20");
        assert_eq!((today.requests, today.tokens.total()), (4, 771));

        let tomorrow = open(&path, next_day);
        assert_eq!(tomorrow.today().1, Total::default());
        assert_eq!(tomorrow.totals(2, &[By::Day])[0].requests, 3);
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn two_processes_with_one_ledger_both_count() {
        let folder = scratch();
        let path = folder.join("deep/ledger.json");
        let one = open(&path, noon);
        let two = open(&path, noon);
        one.add(account("k2", "1"), tokens(100, 0));
        one.flush().unwrap();
        two.add(account("k2", "1"), tokens(1, 0));
        two.flush().unwrap();
        one.add(account("k2", "1"), tokens(10, 0));
        one.flush().unwrap();
        one.flush().unwrap();
        assert_eq!(one.today().1.tokens.prompt, 111);
        assert_eq!(two.today().1.tokens.prompt, 101);
        two.refresh().unwrap();
        assert_eq!(two.today().1.tokens.prompt, 111);
        assert_eq!(open(&path, noon).today().1.tokens.prompt, 111);
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_broken_ledger_is_kept_aside() {
        let folder = scratch();
        let path = folder.join("ledger.json");
        for (number, text) in ["{\"half", "{\"version\":99,\"rows\":[]}"]
            .iter()
            .enumerate()
        {
            fsx::write_atomic(&path, text.as_bytes(), fsx::PRIVATE).unwrap();
            let ledger = open(&path, noon);
            ledger.add(account("k2", "1"), tokens(5, 0));
            ledger.flush().unwrap();
            let ending = if number == 0 { ".broken" } else { ".broken-1" };
            let kept = std::fs::read_to_string(with_ending(&path, ending)).unwrap();
            assert_eq!(kept, *text);
            assert_eq!(open(&path, noon).today().1.tokens.prompt, 5);
        }
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_write_that_fails_loses_nothing() {
        let folder = scratch();
        let path = folder.join("ledger.json");
        let ledger = open(&path, noon);
        ledger.add(account("k2", "1"), tokens(5, 0));
        std::fs::create_dir(&path).unwrap();
        ledger.flush().unwrap_err();
        assert_eq!(ledger.today().1.tokens.prompt, 5);
        std::fs::remove_dir(&path).unwrap();
        ledger.add(account("k2", "1"), tokens(2, 0));
        ledger.flush().unwrap();
        assert_eq!(open(&path, noon).today().1.tokens.prompt, 7);
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn old_days_keep_their_totals_only() {
        let folder = scratch();
        let path = folder.join("ledger.json");
        let ledger = open(&path, noon);
        ledger.add(account("k2", "1"), tokens(100, 0));
        ledger.add(account("k2", "2"), tokens(200, 0));
        ledger.flush().unwrap();
        let later = open(&path, far_future);
        later.add(account("k2", "1"), tokens(1, 0));
        later.flush().unwrap();
        let rows = later.totals(200, &[By::Day, By::Terminal]);
        assert_eq!(rows.len(), 2);
        assert_eq!(rows[0].tokens.prompt, 300);
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[tokio::test]
    async fn the_driver_writes_and_ends_with_a_last_write() {
        let folder = scratch();
        let path = folder.join("ledger.json");
        let ledger = open(&path, noon);
        ledger.add(account("k2", "1"), tokens(5, 0));
        let (driven, ()) = tokio::join!(
            tokio::time::timeout(Duration::from_secs(20), ledger.clone().drive()),
            async {
                ledger.add(account("k2", "1"), tokens(6, 0));
                ledger.close();
            }
        );
        driven.unwrap();
        assert_eq!(open(&path, noon).today().1.tokens.prompt, 11);
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn what_others_added_is_told_apart_from_our_own() {
        let path = scratch().join("usage.json");
        let (one, two) = (open(&path, noon), open(&path, noon));
        one.add(account("k2", "1"), tokens(100, 10));
        assert_eq!(one.of_others().1, 0, "whether or not it was written");
        one.flush().unwrap();
        two.add(account("k2", "2"), tokens(5, 0));
        two.refresh().unwrap();
        assert_eq!((one.of_others().1, two.of_others().1), (0, 110));
        two.flush().unwrap();
        one.refresh().unwrap();
        assert_eq!(one.of_others().1, 5);
        assert_eq!(
            open(&path, noon).of_others().1,
            115,
            "after a restart all of it"
        );
        std::fs::remove_dir_all(path.parent().unwrap()).unwrap();
    }
}
