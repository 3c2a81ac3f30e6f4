//! The policy of kimiq's forerunner, as far as it is described: 0.80 of the limits in rolling minutes, a constant reserve for each
//! answer, one queue in order of arrival.
//!
//! A reading, not a copy. Taken as known: the ratio and that it never adapts, the constant reserve (2,048 here), 3.5
//! bytes per token to begin with and an average afterwards, the cached share of a prompt expected as the average share
//! of earlier answers, correction by true usage when an answer ends, limits as the last header told them. A 429 goes
//! on to the client.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

use super::load::{Job, count, whole};
use super::policy::{Move, Policy, Told};
use super::upstream::{MINUTE, Upstream};

/// Share of the limits that it uses.
const RATIO: f64 = 0.80;
/// Tokens reserved for an answer.
const RESERVE: u64 = 2_048;

#[derive(Debug)]
struct Entry {
    at: Duration,
    job: usize,
    tokens: [u64; 3],
}

/// Its state.
#[derive(Debug)]
pub(crate) struct FirstSeed {
    limits: [u64; 3],
    log: VecDeque<Entry>,
    queue: VecDeque<usize>,
    jobs: HashMap<usize, Job>,
    running: BTreeMap<usize, Duration>,
    /// Tokens per byte, and the share of a prompt outside the cache.
    density: f64,
    uncached: f64,
}

impl FirstSeed {
    pub(crate) fn new(limits: [u64; 3]) -> Self {
        Self {
            limits,
            log: VecDeque::new(),
            queue: VecDeque::new(),
            jobs: HashMap::new(),
            running: BTreeMap::new(),
            density: 1.0 / 3.5,
            uncached: 1.0,
        }
    }

    fn need(&self, job: &Job) -> [u64; 3] {
        let prompt = count(job.bytes) * self.density;
        [whole(prompt), whole(prompt * self.uncached), RESERVE]
    }

    fn used(&self, d: usize) -> u64 {
        self.log.iter().map(|entry| entry.tokens[d]).sum()
    }

    fn pump(&mut self, now: Duration, moves: &mut Vec<Move>) {
        let running = &self.running;
        self.log
            .retain(|e| now < e.at + MINUTE || running.contains_key(&e.job));
        while let Some(&id) = self.queue.front() {
            let need = self.need(&self.jobs[&id]);
            let fits = (0..3).all(|d| {
                let used = self.used(d);
                used == 0 || count(used + need[d]) <= count(self.limits[d]) * RATIO
            });
            if !fits {
                break;
            }
            self.queue.pop_front();
            self.running.insert(id, now);
            self.log.push_back(Entry {
                at: now,
                job: id,
                tokens: need,
            });
            moves.push(Move::Send(id));
        }
    }

    fn end(&mut self, job: &Job, tokens: Option<[u64; 3]>, now: Duration) {
        self.running.remove(&job.id);
        if let Some(index) = self.log.iter().rposition(|e| e.job == job.id) {
            match tokens {
                // What was generated counts from the end.
                Some(tokens) => {
                    self.log[index].tokens = [tokens[0], tokens[1], 0];
                    self.log.push_back(Entry {
                        at: now,
                        job: job.id,
                        tokens: [0, 0, tokens[2]],
                    });
                }
                None => {
                    self.log.remove(index);
                }
            }
        }
    }
}

impl Policy for FirstSeed {
    fn hear(&mut self, now: Duration, told: Told<'_>, _: &Upstream, moves: &mut Vec<Move>) {
        match told {
            Told::Asked(job) => {
                self.jobs.insert(job.id, job.clone());
                self.queue.push_back(job.id);
            }
            Told::Denied(job, _) => {
                self.end(job, None, now);
                moves.push(Move::Refuse(job.id, None));
            }
            Told::Begun(_, seen) => {
                for (limit, told) in self.limits.iter_mut().zip(seen.limits.into_array()) {
                    *limit = told.unwrap_or(*limit);
                }
            }
            Told::Streamed(..) | Told::Woken => {}
            Told::Ended(job, tokens) => {
                self.end(job, Some(tokens.dimensions().into_array()), now);
                self.jobs.remove(&job.id);
                let blend = |old: f64, new: f64| old * 0.9 + new * 0.1;
                let density = count(tokens.prompt) / count(job.bytes);
                self.density = blend(self.density, density);
                let uncached = count(tokens.uncached()) / count(tokens.prompt);
                self.uncached = blend(self.uncached, uncached);
            }
        }
        self.pump(now, moves);
    }

    fn wake(&mut self, now: Duration) -> Option<Duration> {
        (!self.queue.is_empty()).then(|| now + Duration::from_millis(250))
    }
}
