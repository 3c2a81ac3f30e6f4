//! The repair of answers, judged by vectors, by cases of our own and by properties.
//!
//! `cargo test --test normalize -- --nocapture vectors` prints what passed and failed by kind of damage.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests fail by panicking"
)]

mod client;
mod judge;
mod own;
mod projections;
mod properties;
mod upstream;
mod vectors;
