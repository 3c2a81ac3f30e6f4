//! Time that passes as fast as the machine has done its work, and stands still while it has not.
//!
//! Clients, proxy, limiter and upstream live in one thread with one clock, which nothing moves but a task of its own:
//! when everybody has had several turns, and every socket was asked whether something came, a few milliseconds pass.
//! So a minute is a minute, with every default as a user has it; it takes a second or less; and on a busy machine a
//! test takes longer and ends no differently. A paused clock that moves by itself would not do beside real sockets: it
//! jumps to the next timer as soon as nobody has a turn, over whatever is still on its way. Here somebody always has
//! one.

use std::time::Duration;

use tokio::runtime::Builder;
use tokio::task::yield_now;

/// What passes at once.
const STEP: Duration = Duration::from_millis(10);

/// Turns that everybody has before it passes. What takes more of them is late by a step.
const TURNS: usize = 12;

/// Plays a test to its end in a time of its own.
pub(crate) fn in_own_time<T>(test: impl Future<Output = T>) -> T {
    let mut runtime = Builder::new_current_thread();
    let runtime = runtime.enable_all().start_paused(true).build().unwrap();
    runtime.block_on(async {
        tokio::spawn(pass());
        test.await
    })
}

/// Lets time pass.
async fn pass() {
    loop {
        for _ in 0..TURNS {
            yield_now().await;
        }
        tokio::time::advance(STEP).await;
    }
}
