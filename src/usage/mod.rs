//! What was consumed: token counts, estimates before the fact, and the ledger of the day.
//!
//! Counts are whole tokens in `u64`, never floats. `prompt` always includes the cached part, whatever the
//! upstream's own field does: the difference is settled once, where a dialect is read.

mod count;
mod tokens;

pub use count::{Estimate, Estimator};
pub use tokens::{Dimensions, Observation, Tokens};
