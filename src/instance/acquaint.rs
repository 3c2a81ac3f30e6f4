//! Gets to know an upstream before its first request.
//!
//! A server on this machine may be anything: a model of the user's own, another gateway, or kimiq's simulator. Only the
//! last has Fireworks' habits from the start, so it is asked who it is; any other passes untouched, and unlimited until its
//! answers name limits. Upstreams elsewhere are known by their host and are not asked.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use http::Method;

use crate::config::Resolved;
use crate::instance::options;
use crate::simulator;
use crate::upstream::AddressError;
use crate::upstream::Client;
use crate::upstream::Connection;
use crate::upstream::SendBody;
use crate::upstream::Upstream;

/// How long a server on this machine may take to say who it is.
const PATIENCE: Duration = Duration::from_secs(2);

/// What the pools of a demo are called after. Its simulator has another port at each start, and what was learned shall last.
const DEMO: &str = "simulated";

/// Knows the settings, and where a demo's simulator is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Acquaintance<'a> {
    pub(crate) settings: &'a Resolved,
    pub(crate) client: &'a Client,
    /// Address of the simulator that the host itself runs.
    pub(crate) simulated: Option<&'a str>,
}

impl Acquaintance<'_> {
    /// The upstream at this address.
    pub(crate) async fn make(&self, name: &str, base: &str) -> Result<Upstream, AddressError> {
        let upstream = options::upstream(self.settings, name, base)?;
        if !upstream.is_local() {
            return Ok(upstream);
        }
        if self.simulated.is_some_and(|own| is_under(own, base)) {
            return Ok(upstream.simulated().with_account(DEMO));
        }
        Ok(if is_simulator(self.client, &upstream).await {
            upstream.simulated()
        } else {
            upstream
        })
    }
}

fn is_under(own: &str, base: &str) -> bool {
    base.strip_prefix(own)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Asks for a head only, which no server charges for. One that is not up yet, or not willing, is none.
async fn is_simulator(client: &Client, upstream: &Upstream) -> bool {
    let body = SendBody::kept(Arc::new([]), || {});
    let answer = client.send(
        upstream,
        Method::HEAD,
        "/models",
        HeaderMap::new(),
        body,
        Connection::Fresh,
    );
    match tokio::time::timeout(PATIENCE, answer).await {
        Ok(Ok(answer)) => answer
            .headers()
            .get(http::header::SERVER)
            .is_some_and(|server| server == simulator::SERVER),
        Ok(Err(error)) => {
            tracing::debug!(%error, upstream = %upstream.name(), "did not say who it is");
            false
        }
        Err(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use tokio_util::task::TaskTracker;

    use crate::config;
    use crate::config::Environment;
    use crate::config::Paths;
    use crate::simulator::Simulator;
    use crate::upstream::Kind;

    #[tokio::test]
    async fn a_server_on_this_machine_is_the_simulator_only_if_it_says_so() {
        let env: Environment = [("KIMIQ_HOME", "/nowhere/kimiq")].into_iter().collect();
        let settings = config::resolve(&Paths::find(&env).unwrap(), &env, &[]).unwrap();
        let client = Client::new(options::connections(&settings)).unwrap();
        let tracker = TaskTracker::new();
        let simulator = Simulator::start(simulator::Options::default(), &tracker)
            .await
            .unwrap();
        let (own, base) = (format!("http://{}", simulator.addr()), simulator.base_url());
        let acquaintance = |simulated| Acquaintance {
            settings: &settings,
            client: &client,
            simulated,
        };
        let made = acquaintance(None).make("u", &base).await.unwrap();
        assert_eq!(made.kind(), Kind::Simulated);
        assert_eq!(*made.pool("m"), format!("{}/m", simulator.addr()));
        let made = acquaintance(Some(&own)).make("u", &base).await.unwrap();
        assert_eq!(&*made.pool("m"), "simulated/m");
        assert!(
            simulator.truth().is_empty(),
            "to ask who it is costs nothing"
        );
        simulator.shutdown();
        let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", silent.local_addr().unwrap());
        let asked = tracker.spawn(async move { drop(silent.accept().await) });
        let made = acquaintance(Some(&own)).make("u", &base).await.unwrap();
        assert_eq!(made.kind(), Kind::Other);
        asked.await.unwrap();
    }
}
