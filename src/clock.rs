//! The wall clock, asked in one place only.
//!
//! Windows and waits use tokio's monotonic clock; the wall clock serves calendar days and stamps on disk.

use chrono::{DateTime, Utc};

/// The time of day, in UTC.
#[expect(
    clippy::disallowed_methods,
    reason = "this is the one reader of the wall clock"
)]
pub fn wall() -> DateTime<Utc> {
    DateTime::from(std::time::SystemTime::now())
}
