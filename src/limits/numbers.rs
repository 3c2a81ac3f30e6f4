//! Maps by the limiter's own numbers.
//!
//! They are consecutive and nobody outside chooses them, so they need no hash that withstands an attack; several
//! look-ups stand on every request's way.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use crate::limits::limiter::Id;

/// A map by request.
pub(crate) type ById<T> = HashMap<Id, T, BuildHasherDefault<Spread>>;

/// Spreads a number over all bits by one multiplication.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Spread(u64);

impl Hasher for Spread {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, number: u64) {
        // The golden ratio in 64 bits: neighbours land far apart.
        self.0 = (self.0 ^ number).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }
}
