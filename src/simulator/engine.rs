//! The state that all requests share, and the life of one request in it.
//!
//! One lock guards pools, caches and counters; nothing waits while it is held. An [`Exchange`] is the one owner of a
//! request's record: whatever way the request ends, its destructor at the latest books what it cost and writes it down.

use std::collections::HashMap;
use std::collections::VecDeque;
use std::fs::File;
use std::fs::OpenOptions;
use std::hash::DefaultHasher;
use std::hash::Hash;
use std::hash::Hasher;
use std::io;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;

use super::budgets::Metric;
use super::budgets::Pool;
use super::budgets::Rolling;
use super::budgets::Rules;
use super::budgets::View;
use super::cache::Cache;
use super::fault::Wish;
use super::options::Charge;
use super::options::HeaderUnit;
use super::options::Options;
use super::truth::End;
use super::truth::TruthRecord;
use super::truth::Verdict;
use crate::usage::Dimensions;
use crate::usage::Tokens;

/// Records kept in memory.
const KEPT_RECORDS: usize = 20_000;

pub(super) struct Engine {
    pub(super) options: Options,
    started: Instant,
    /// Simulated microseconds that were passed over.
    skipped: AtomicU64,
    arrived: watch::Sender<u64>,
    state: Mutex<State>,
    journal: Mutex<Journal>,
    over: watch::Sender<u64>,
}

struct State {
    rules: Rules,
    pools: HashMap<String, Pool>,
    requests: Rolling,
    caches: Vec<Cache>,
    /// How often a fault that was asked for a few times has happened.
    granted: HashMap<u64, u32>,
}

struct Journal {
    records: VecDeque<TruthRecord>,
    file: Option<File>,
}

/// What a request needs from the shared state.
#[derive(Clone, Debug)]
pub(super) struct Need<'a> {
    pub(super) model: &'a str,
    pub(super) prompt: u64,
    /// `prompt` is the client's own word, not the count of the text behind the blocks.
    pub(super) declared: bool,
    /// The client's own word for the cached part.
    pub(super) declared_cached: Option<u64>,
    pub(super) blocks: &'a [u64],
    pub(super) cap: Option<u64>,
    pub(super) gateway: usize,
    pub(super) replica: usize,
}

/// An admission.
#[derive(Clone, Copy, Debug)]
pub(super) struct Admitted {
    pub(super) view: View,
    pub(super) cached: u64,
}

impl Engine {
    pub(super) fn new(options: Options) -> io::Result<Self> {
        let file = options
            .truth
            .as_ref()
            .map(|path| OpenOptions::new().create(true).append(true).open(path))
            .transpose()?;
        let blocks = options.cache_capacity / options.cache_block.max(1);
        let cache = || {
            Cache::new(
                options.cache_lifetime.as_secs_f64(),
                usize::try_from(blocks).unwrap_or(usize::MAX),
            )
        };
        Ok(Self {
            started: Instant::now(),
            skipped: AtomicU64::new(0),
            arrived: watch::Sender::new(0),
            state: Mutex::new(State {
                rules: Rules::new(&options),
                pools: HashMap::new(),
                requests: Rolling::new(options.window.as_secs_f64(), 0.0),
                caches: (0..options.replicas.max(1)).map(|_| cache()).collect(),
                granted: HashMap::new(),
            }),
            journal: Mutex::new(Journal {
                records: VecDeque::new(),
                file,
            }),
            over: watch::Sender::new(0),
            options,
        })
    }

    pub(super) fn next_number(&self) -> u64 {
        let mut number = 0;
        self.arrived.send_modify(|arrived| {
            *arrived += 1;
            number = *arrived;
        });
        number
    }

    /// Real seconds since the start, whole microseconds: so many digits survive a JSON text exactly.
    pub(super) fn elapsed(&self) -> f64 {
        (self.started.elapsed().as_secs_f64() * 1e6).round() / 1e6
    }

    /// Simulated seconds since the start.
    fn now(&self) -> f64 {
        let skipped = Duration::from_micros(self.skipped.load(Ordering::Relaxed));
        self.elapsed() * self.scale() + skipped.as_secs_f64()
    }

    /// Lets so much simulated time pass at once.
    pub(super) fn skip(&self, time: Duration) {
        let time = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.skipped.fetch_add(time, Ordering::Relaxed);
    }

    /// Unit of the headers now.
    pub(super) fn header_unit(&self) -> HeaderUnit {
        let unit = self.options.header_unit;
        match self.options.unit_switch {
            Some(at) if self.now() >= at.as_secs_f64() => unit.other(),
            _ => unit,
        }
    }

    /// Probability of a request being shed now.
    pub(super) fn shed(&self) -> f64 {
        let on = self.options.shed_span.is_none_or(|(from, until)| {
            (from.as_secs_f64()..until.as_secs_f64()).contains(&self.now())
        });
        if on { self.options.shed } else { 0.0 }
    }

    fn scale(&self) -> f64 {
        self.options.time_scale.max(1e-6)
    }

    /// The real length of so many simulated seconds.
    pub(super) fn real(&self, seconds: f64) -> Duration {
        Duration::try_from_secs_f64(seconds / self.scale()).unwrap_or(Duration::ZERO)
    }

    /// Everything that is drawn for the bearer of a number, in a fixed order.
    pub(super) fn luck(&self, number: u64) -> fastrand::Rng {
        let mut hasher = DefaultHasher::new();
        (self.options.seed, number).hash(&mut hasher);
        fastrand::Rng::with_seed(hasher.finish())
    }

    pub(super) fn gateways(&self) -> usize {
        self.options.gateways.max(1)
    }

    pub(super) fn replicas(&self) -> usize {
        self.options.replicas.max(1)
    }

    /// Counts a request against the account's limit; false if that is used up.
    pub(super) fn count_request(&self) -> bool {
        let now = self.now();
        let mut state = self.state.lock();
        let free = state.requests.sum(now) < self.options.requests;
        if free {
            state.requests.add(now, 1);
        }
        free
    }

    /// Whether a wish that holds only a few times has one left for this `asker`.
    pub(super) fn grant(&self, wish: Wish, asker: impl Hash) -> bool {
        let Some(times) = wish.times else {
            return true;
        };
        let mut hasher = DefaultHasher::new();
        (wish.fault.to_string(), times).hash(&mut hasher);
        asker.hash(&mut hasher);
        let mut state = self.state.lock();
        let granted = state.granted.entry(hasher.finish()).or_default();
        *granted += 1;
        *granted <= times
    }

    /// What a gateway believes about a model's budgets.
    pub(super) fn view(&self, model: &str, gateway: usize) -> View {
        let now = self.now();
        self.state.lock().pool(model, now).view(now, gateway)
    }

    /// Admits a request and charges its prompt, or says which budget is full.
    pub(super) fn admit(&self, need: &Need<'_>) -> (Admitted, Option<Metric>) {
        let now = self.now();
        let mut state = self.state.lock();
        let hit = state
            .caches
            .get_mut(need.replica)
            .map_or(0, |cache| cache.hit(now, need.blocks));
        let cached = need.declared_cached.unwrap_or_else(|| {
            let (hit, all) = (hit as u64, need.blocks.len() as u64);
            let block = self.options.cache_block;
            if !need.declared {
                return hit * block;
            }
            // A declared prompt is as much cached as the text that stands for it.
            let share = u128::from(need.prompt) * u128::from(hit) / u128::from(all.max(1));
            u64::try_from(share).unwrap_or(u64::MAX) / block.max(1) * block
        });
        let cached = cached.min(need.prompt.saturating_sub(1));
        let reserved = match self.options.charge {
            Charge::Reserved => need.cap.unwrap_or(0),
            Charge::AtEnd | Charge::Streaming => 0,
        };
        let wanted = Dimensions {
            prompt: need.prompt,
            uncached: need.prompt - cached,
            generated: reserved,
        };
        let pool = state.pool(need.model, now);
        let (view, full) = pool.admit(now, need.gateway, wanted);
        if full.is_none() {
            let charge = Dimensions {
                uncached: 0,
                ..wanted
            };
            pool.charge(now, need.gateway, charge);
        }
        (Admitted { view, cached }, full)
    }

    fn charge(&self, model: &str, gateway: usize, tokens: Dimensions<u64>, completed: bool) {
        let now = self.now();
        let mut state = self.state.lock();
        let pool = state.pool(model, now);
        pool.charge(now, gateway, tokens);
        if completed {
            pool.completed(now, gateway);
        }
    }

    fn remember(&self, replica: usize, blocks: &[u64]) {
        let now = self.now();
        if let Some(cache) = self.state.lock().caches.get_mut(replica) {
            cache.insert(now, blocks);
        }
    }

    fn write_down(&self, record: TruthRecord) {
        let mut journal = self.journal.lock();
        if let Some(file) = &mut journal.file
            && let Ok(mut line) = serde_json::to_vec(&record)
        {
            line.push(b'\n');
            // One write per line, so that a reader of the file never sees half of one.
            if let Err(error) = file.write_all(&line) {
                tracing::warn!(%error, "the truth file cannot be written; records stay in memory only");
                journal.file = None;
            }
        }
        if journal.records.len() == KEPT_RECORDS {
            journal.records.pop_front();
        }
        journal.records.push_back(record);
        drop(journal);
        self.over.send_modify(|over| *over += 1);
    }

    pub(super) fn records(&self) -> Vec<TruthRecord> {
        self.journal.lock().records.iter().cloned().collect()
    }

    /// How many requests have arrived.
    pub(super) fn arrived(&self) -> watch::Receiver<u64> {
        self.arrived.subscribe()
    }

    /// How many requests are over.
    pub(super) fn over(&self) -> watch::Receiver<u64> {
        self.over.subscribe()
    }
}

impl State {
    fn pool(&mut self, model: &str, now: f64) -> &mut Pool {
        if !self.pools.contains_key(model) {
            self.pools
                .insert(model.to_owned(), Pool::new(self.rules.clone(), now));
        }
        self.pools
            .entry(model.to_owned())
            .or_insert_with(|| Pool::new(self.rules.clone(), now))
    }
}

/// One request from its arrival to its end.
pub(super) struct Exchange {
    engine: Arc<Engine>,
    pub(super) record: TruthRecord,
    blocks: Vec<u64>,
    /// Thinking tokens of the whole answer, if the upstream tells them.
    pub(super) reasoning: u64,
    admitted: bool,
    answering: bool,
    over: bool,
}

impl Exchange {
    pub(super) fn new(engine: Arc<Engine>, record: TruthRecord) -> Self {
        Self {
            engine,
            record,
            blocks: Vec::new(),
            reasoning: 0,
            admitted: false,
            answering: false,
            over: false,
        }
    }

    pub(super) fn admitted(&mut self, admitted: Admitted, prompt: u64, blocks: Vec<u64>) {
        self.admitted = true;
        self.blocks = blocks;
        self.record.verdict = Verdict::Admitted;
        self.record.tokens = Tokens {
            prompt,
            cached: admitted.cached,
            ..Tokens::default()
        };
    }

    /// The first token leaves now: the prompt is in the replica's cache from here on.
    pub(super) fn first_token(&mut self) {
        self.answering = true;
        let since = self.engine.elapsed() - self.record.arrival;
        // Whole microseconds, as the other times: a difference of such is not exactly one.
        self.record.ttft = Some((since * 1e6).round() / 1e6);
        if !self.blocks.is_empty() {
            self.engine.remember(self.record.replica, &self.blocks);
        }
    }

    /// So many generated tokens went out.
    pub(super) fn streamed(&mut self, tokens: u64) {
        if tokens == 0 {
            return;
        }
        self.record.tokens.generated += tokens;
        if self.engine.options.charge == Charge::Streaming {
            let charge = Dimensions {
                generated: tokens,
                ..Dimensions::default()
            };
            self.engine
                .charge(&self.record.model, self.record.gateway, charge, false);
        }
    }

    /// Ends the exchange; only the first call counts.
    pub(super) fn finish(&mut self, end: End) {
        if std::mem::replace(&mut self.over, true) {
            return;
        }
        if self.admitted && self.answering {
            let generated = match self.engine.options.charge {
                Charge::AtEnd => self.record.tokens.generated,
                Charge::Streaming | Charge::Reserved => 0,
            };
            let charge = Dimensions {
                prompt: 0,
                uncached: self.record.tokens.uncached(),
                generated,
            };
            self.engine.charge(
                &self.record.model,
                self.record.gateway,
                charge,
                end == End::Complete,
            );
        }
        self.record.tokens.reasoning = self.reasoning.min(self.record.tokens.generated);
        self.record.end = end;
        self.record.ended = self.engine.elapsed();
        self.engine.write_down(self.record.clone());
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.finish(End::ClientGone);
    }
}
