//! Changes of the client's configuration, as they happen.
//!
//! The folders are watched, not the files, because the client replaces files by renaming. Events are only a hint to look:
//! several may fall together, and our own writes cause some too.

use std::path::{Path, PathBuf};

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;

/// Tells when one of the watched files may have changed.
#[derive(Debug)]
pub struct Watch {
    events: mpsc::Receiver<()>,
    _watcher: RecommendedWatcher,
}

impl Watch {
    pub(super) fn on(files: Vec<PathBuf>) -> notify::Result<Self> {
        let folders: Vec<PathBuf> = files
            .iter()
            .filter_map(|file| file.parent())
            .map(Path::to_path_buf)
            .collect();
        let (tell, events) = mpsc::channel(1);
        let mut watcher =
            notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
                let worth = match event {
                    Ok(event) => {
                        !event.kind.is_access()
                            && event.paths.iter().any(|path| files.contains(path))
                    }
                    // An overflow of the queue: look.
                    Err(_) => true,
                };
                // A full channel means that a look is due anyway.
                if worth && tell.try_send(()).is_err() {
                    tracing::trace!(
                        "a change of the client's configuration is already waiting to be looked at"
                    );
                }
            })?;
        for folder in folders {
            watcher.watch(&folder, RecursiveMode::NonRecursive)?;
        }
        Ok(Self {
            events,
            _watcher: watcher,
        })
    }

    /// Waits for the next change. Cancel safe. Never returns once the system has stopped telling.
    pub async fn changed(&mut self) {
        if self.events.recv().await.is_none() {
            std::future::pending::<()>().await;
        }
    }
}
