//! The eleven scenarios that a proxy before Fireworks' adaptive limits must master, each through kimiq's real proxy, over
//! real sockets, against the simulated upstream, in a time of their own: five minutes pass in two seconds, and none
//! passes while the machine has no time (see `support/time.rs`).
//!
//! Each names what it passes on. That is counted (429s, answers, shares of budgets), in the upstream's own record of
//! the truth. Where a share of a minute is counted, clients ask for much more than there is, so that the budget decides
//! how long they take. `cargo test --test scenarios -- --nocapture` prints the counts.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "helpers of tests fail by panicking and end with the test, and what was counted is printed"
)]

#[expect(dead_code, reason = "other tests use more of it")]
#[path = "../support"]
mod support {
    pub(crate) mod house;
    pub(crate) mod time;
    pub(crate) mod wire;
}

mod endings;
mod forecast;
mod headers;
mod load;
mod stage;
mod trouble;
