//! The real Kimi Code, installed below the target folder by the first test that needs it.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests fail by panicking"
)]

use std::fs;
use std::path::Path;

use kimiq::fsx;
use kimiq::kimi::{Client, Environment, install, installed};

/// The client with its own node; tests that ask at once wait for one download.
pub(crate) async fn client() -> Client {
    let data = Path::new(env!("CARGO_TARGET_TMPDIR"))
        .parent()
        .unwrap()
        .join("client-check");
    fs::create_dir_all(&data).unwrap();
    let once = data.join(".once.lock");
    let _held = tokio::task::spawn_blocking(move || fsx::Lock::acquire(&once).unwrap())
        .await
        .unwrap();
    if let Some(client) = installed(&data) {
        return client;
    }
    let mut said = Vec::new();
    let done = install(&data, &inherited(), &mut |line| said.push(line.to_owned())).await;
    done.unwrap_or_else(|error| panic!("{error}\n{}", said.join("\n")))
}

/// The environment of the test itself, for npm: its settings may name a registry and a proxy.
#[expect(
    clippy::disallowed_methods,
    reason = "a test passes its own environment on to npm"
)]
fn inherited() -> Environment {
    std::env::vars_os().collect()
}
