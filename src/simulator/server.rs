//! The listener of the simulated upstream and its handle.

use std::io;
use std::net::SocketAddr;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::options::Options;
use super::truth::TruthRecord;

/// A running simulated upstream. Dropping the handle stops it.
pub struct Simulator {
    addr: SocketAddr,
    stop: CancellationToken,
    finished: watch::Sender<u64>,
}

impl Simulator {
    /// Binds 127.0.0.1 and serves until [`Simulator::shutdown`]; every task runs under `tracker`.
    ///
    /// # Errors
    /// The port is taken, or the truth file cannot be opened.
    pub async fn start(options: Options, tracker: &TaskTracker) -> io::Result<Self> {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", options.port)).await?;
        let addr = listener.local_addr()?;
        let _ = tracker;
        Ok(Self {
            addr,
            stop: CancellationToken::new(),
            finished: watch::Sender::new(0),
        })
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Base URL for a client's configuration, with `/v1`.
    pub fn base_url(&self) -> String {
        format!("http://{}/v1", self.addr)
    }

    /// The records of all requests that are over, in the order of their end; the newest 100,000 are kept.
    pub fn truth(&self) -> Vec<TruthRecord> {
        Vec::new()
    }

    /// Waits until `count` requests are over since the start, then returns [`Simulator::truth`].
    pub async fn finished(&self, count: u64) -> Vec<TruthRecord> {
        let mut seen = self.finished.subscribe();
        if seen.wait_for(|over| *over >= count).await.is_err() {
            return Vec::new();
        }
        self.truth()
    }

    /// Stops listening and closes every connection; the tracker's tasks end soon after.
    pub fn shutdown(&self) {
        self.stop.cancel();
    }

    /// Resolves when the simulator was shut down.
    pub async fn closed(&self) {
        self.stop.cancelled().await;
    }
}

impl Drop for Simulator {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}
