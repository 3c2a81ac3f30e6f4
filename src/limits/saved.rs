//! What survives a restart: learned limits, ratios, output samples and the last window of every log.
//!
//! A restart that forgets the windows would burst. Holds in flight are saved as if they had just been spent, because a
//! killed process cannot tell what the upstream will still charge for them.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::usage::Dimensions;

/// Version of the format; others are ignored.
pub(crate) const VERSION: u32 = 1;

/// The state to write to disk, at most once a second.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Saved {
    pub(crate) version: u32,
    pub(crate) pools: Vec<SavedPool>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SavedPool {
    pub(crate) name: String,
    pub(crate) learned: Dimensions<Option<u64>>,
    pub(crate) ratio_ppm: u32,
    pub(crate) last_traffic: DateTime<Utc>,
    pub(crate) outputs: Vec<u64>,
    /// Stamps in milliseconds since 1970 and tokens.
    pub(crate) logs: Dimensions<Vec<(i64, u64)>>,
    /// The same, counted when answers end.
    pub(crate) ended: Dimensions<Vec<(i64, u64)>>,
}
