//! What was consumed: token counts, estimates before the fact, and the ledger of the day.
//!
//! [`Estimator`] guesses what a request will cost from the bytes of its text and learns from each true usage;
//! [`Ledger`] keeps what was really consumed, per day, model, terminal and run, over restarts and kills.
//!
//! Counts are whole tokens in `u64`, never floats. `prompt` always includes the cached part, whatever the
//! upstream's own field does: the difference is settled once, where a dialect is read. Nothing here knows HTTP, a
//! provider or a price, and nothing here decides whether a request may go: `limits` does.

mod count;
pub mod figures;
mod hits;
mod ledger;
mod prefix;
mod prompt;
mod ratio;
mod tokens;

pub use count::{Asked, Estimate, Estimator, Guess, Rates};
pub use ledger::{Account, By, Ledger, LedgerError, Total};
pub use prompt::{CLASSES, Class, Content, LINKS, Link, Prompt, chained};
pub use tokens::{Dimensions, Observation, Tokens};
