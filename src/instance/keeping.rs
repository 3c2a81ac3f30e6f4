//! What survives the host: learned limits and the last window, written at most once a second; and the stats line.

use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use crate::fsx;
use crate::instance::InstanceError;
use crate::limits::Gate;
use crate::limits::Saved;

/// Least time between two writes.
const PAUSE: Duration = Duration::from_secs(1);
/// How often the log gets a line about budgets and queue.
const STATS: Duration = Duration::from_secs(10);

/// The file of the limiter's state.
pub(crate) fn limits_file(state: &Path) -> PathBuf {
    state.join("limits.json")
}

/// Takes over what an earlier host wrote. A file that is not understood counts as none: limits are learned again.
pub(crate) fn restore(gate: &Gate, state: &Path) -> Result<(), InstanceError> {
    let path = limits_file(state);
    let bytes = fsx::read_if_exists(&path).map_err(|source| InstanceError::State {
        path: path.clone(),
        source,
    })?;
    let Some(bytes) = bytes else { return Ok(()) };
    match serde_json::from_slice::<Saved>(&bytes) {
        Ok(saved) => gate.restore(saved),
        Err(error) => {
            tracing::warn!(%error, path = %path.display(), "what was learned before is not readable");
        }
    }
    Ok(())
}

/// Writes the limiter's state. Blocks on the disk.
pub(crate) fn write(gate: &Gate, state: &Path) -> std::io::Result<()> {
    let bytes = serde_json::to_vec(&gate.saved()).map_err(std::io::Error::from)?;
    fsx::write_atomic(&limits_file(state), &bytes, fsx::PRIVATE)
}

/// Keeps the file up to date until dropped.
pub(crate) async fn keep(gate: Gate, state: PathBuf) {
    let mut changes = gate.changes();
    let mut failing = false;
    while changes.changed().await.is_ok() {
        let (gate, state) = (gate.clone(), state.clone());
        match tokio::task::spawn_blocking(move || write(&gate, &state)).await {
            Ok(Ok(())) => failing = false,
            Ok(Err(error)) => {
                if !failing {
                    tracing::warn!(%error, "the limits are kept in memory only");
                }
                failing = true;
            }
            // The runtime is ending; the last write is the teardown's.
            Err(_) => return,
        }
        tokio::time::sleep(PAUSE).await;
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
