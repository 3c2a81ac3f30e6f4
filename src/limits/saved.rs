//! What survives a restart: learned limits, ratios, output samples and the last window of every log.
//!
//! A restart that forgets the windows would burst. Holds in flight are saved as if they had just been spent, because a
//! killed process cannot tell what the upstream will still charge for them.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::limits::hour::SavedPart;
use crate::limits::options::Options;
use crate::limits::pool::{Pool, age, stamp};
use crate::limits::window::Log;
use crate::usage::Dimensions;

/// Version of the format; others are ignored.
pub(crate) const VERSION: u32 = 2;

/// The state to write to disk, at most once a second.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Saved {
    pub(crate) version: u32,
    pub(crate) pools: Vec<SavedPool>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SavedPool {
    pub(crate) name: String,
    /// The upstream was known for token budgets.
    #[serde(default)]
    pub(crate) budgeted: bool,
    pub(crate) learned: Dimensions<Option<u64>>,
    /// When each limit rose last, milliseconds since 1970.
    pub(crate) rose: Dimensions<Option<i64>>,
    pub(crate) ratio_ppm: u32,
    /// Bursts are bounded until then, milliseconds since 1970.
    pub(crate) cautious_until: Option<i64>,
    pub(crate) last_traffic: DateTime<Utc>,
    /// Outputs of each class.
    pub(crate) outputs: [Vec<u64>; 3],
    /// Stamps in milliseconds since 1970 and tokens.
    pub(crate) logs: Dimensions<Vec<(i64, u64)>>,
    /// The same, counted when answers end.
    pub(crate) ended: Dimensions<Vec<(i64, u64)>>,
    /// The last hour, for advice.
    #[serde(default)]
    pub(crate) hour: Vec<SavedPart>,
}

impl Pool {
    pub(crate) fn saved(&self, name: &str, now: Duration, wall: DateTime<Utc>) -> SavedPool {
        let save = |log: &Log, pending: u64| -> Vec<(i64, u64)> {
            log.entries()
                .chain([(now, pending)])
                .filter(|&(_, amount)| amount > 0)
                .map(|(at, amount)| (stamp(at, now, wall), amount))
                .collect()
        };
        let logs = std::array::from_fn(|d| save(&self.logs[d], self.held(d)));
        let ended = std::array::from_fn(|d| {
            let pending = if self.at_end[d] { self.flying[d] } else { 0 };
            save(&self.ended[d], pending)
        });
        let rose = self.learned.rose();
        SavedPool {
            name: name.to_owned(),
            budgeted: self.budgeted,
            learned: Dimensions::from_array(self.learned.limits()),
            rose: Dimensions::from_array(rose.map(|at| at.map(|at| stamp(at, now, wall)))),
            ratio_ppm: self.margin.ppm(),
            cautious_until: self
                .caution
                .is_on(now)
                .then(|| stamp(self.caution.until(), now, wall)),
            last_traffic: self.last_traffic,
            outputs: self.outputs.saved(),
            logs: Dimensions::from_array(logs),
            ended: Dimensions::from_array(ended),
            hour: self.hour.saved(now, wall),
        }
    }

    /// Takes over what an earlier process saved and what still counts.
    pub(crate) fn restore(
        &mut self,
        saved: SavedPool,
        options: &Options,
        now: Duration,
        wall: DateTime<Utc>,
    ) {
        self.budgeted = saved.budgeted;
        self.last_traffic = saved.last_traffic.min(wall);
        let rose = saved.rose.into_array();
        let rose = rose.map(|at| at.map(|at| now.saturating_sub(age(wall, at))));
        self.learned.restore(saved.learned.into_array(), rose);
        self.margin.restore(saved.ratio_ppm);
        if let Some(until) = saved.cautious_until {
            let left = u64::try_from(until - wall.timestamp_millis()).unwrap_or(0);
            self.caution
                .restore(now + Duration::from_millis(left).min(Duration::from_hours(1)));
        }
        self.outputs.restore(saved.outputs);
        let logs = self.logs.iter_mut().zip(saved.logs.into_array());
        let ended = self.ended.iter_mut().zip(saved.ended.into_array());
        for (log, entries) in logs.chain(ended) {
            for (stamp, amount) in entries {
                let age = age(wall, stamp);
                if age < self.span {
                    log.push(now.saturating_sub(age), amount);
                }
            }
        }
        self.hour.restore(saved.hour, now, wall);
        self.advance(options, now);
    }
}
