//! What survives the host: learned limits and rates and the last window, written at most once a second; what hosts share:
//! the day's cap; and the stats line.

use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::de::DeserializeOwned;

use crate::fsx;
use crate::instance::InstanceError;
use crate::limits::Gate;
use crate::limits::Saved;
use crate::proxy::Proxy;
use crate::usage::Estimator;
use crate::usage::Rates;

/// Least time between two writes.
const PAUSE: Duration = Duration::from_secs(1);
/// How often the log gets a line about budgets and queue.
const STATS: Duration = Duration::from_secs(10);

/// The file of the limiter's state.
pub(crate) fn limits_file(state: &Path) -> PathBuf {
    state.join("limits.json")
}

/// The file of what the estimates learned.
fn rates_file(state: &Path) -> PathBuf {
    state.join("rates.json")
}

/// Takes over what an earlier host wrote. A file that is not understood counts as none: it is learned again.
pub(crate) fn restore(
    gate: &Gate,
    estimator: &Estimator,
    state: &Path,
) -> Result<(), InstanceError> {
    if let Some(saved) = read::<Saved>(&limits_file(state))? {
        gate.restore(saved);
    }
    if let Some(rates) = read::<Rates>(&rates_file(state))? {
        estimator.restore(&rates);
    }
    Ok(())
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, InstanceError> {
    let bytes = fsx::read_if_exists(path).map_err(|source| InstanceError::State {
        path: path.to_path_buf(),
        source,
    })?;
    let read = bytes
        .map(|bytes| serde_json::from_slice(&bytes))
        .transpose();
    Ok(read.unwrap_or_else(|error| {
        tracing::warn!(%error, path = %path.display(), "what was learned before is not readable");
        None
    }))
}

/// Writes what limiter and estimates know. Blocks on the disk.
pub(crate) fn write(proxy: &Proxy, state: &Path) -> std::io::Result<()> {
    let limits = serde_json::to_vec(&proxy.gate.saved()).map_err(std::io::Error::from)?;
    let rates = serde_json::to_vec(&proxy.estimator.saved()).map_err(std::io::Error::from)?;
    fsx::write_atomic(&limits_file(state), &limits, fsx::PRIVATE)?;
    fsx::write_atomic(&rates_file(state), &rates, fsx::PRIVATE)
}

/// Keeps the files up to date until dropped.
pub(crate) async fn keep(proxy: Arc<Proxy>, state: PathBuf) {
    let mut changes = proxy.gate.changes();
    let mut failing = false;
    while changes.changed().await.is_ok() {
        let (proxy, state) = (proxy.clone(), state.clone());
        match tokio::task::spawn_blocking(move || write(&proxy, &state)).await {
            Ok(Ok(())) => failing = false,
            Ok(Err(error)) => {
                if !failing {
                    tracing::warn!(%error, "what is learned is kept in memory only");
                }
                failing = true;
            }
            // The runtime is ending; the last write is the teardown's.
            Err(_) => return,
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Counts what other hosts write into the ledger against the day's cap, too, until dropped.
pub(crate) async fn share_day(proxy: Arc<Proxy>) {
    let mut last = None;
    let mut failing = false;
    loop {
        tokio::time::sleep(PAUSE).await;
        let ledger = proxy.ledger.clone();
        match tokio::task::spawn_blocking(move || ledger.refresh()).await {
            Ok(Ok(())) => failing = false,
            Ok(Err(error)) => {
                if !failing {
                    tracing::warn!(%error, "what other hosts use is not seen");
                }
                failing = true;
            }
            // The runtime is ending.
            Err(_) => return,
        }
        let now = proxy.ledger.of_others();
        // Told only when it changed: each telling wakes every window.
        if last.replace(now) != Some(now) {
            proxy.gate.restore_day(now.0, now.1);
        }
    }
}

/// Logs queue, budgets and the day's tokens while they change, until dropped.
pub(crate) async fn log_stats(gate: Gate) {
    let mut last = String::new();
    loop {
        tokio::time::sleep(STATS).await;
        let line = gate.snapshot().line();
        if line != last {
            tracing::info!("{line}");
            last = line;
        }
    }
}
