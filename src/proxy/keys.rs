//! Who asks. Every terminal has a random key; it dies with the terminal.

use std::sync::Arc;

use parking_lot::RwLock;
use subtle::ConstantTimeEq;

/// Bytes of randomness in a key.
const KEY_BYTES: usize = 24;

/// The keys that are valid now.
#[derive(Debug, Default)]
pub struct Keys {
    issued: RwLock<Vec<Issued>>,
}

struct Issued {
    key: String,
    terminal: Arc<str>,
}

impl std::fmt::Debug for Issued {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "a key of {}", self.terminal)
    }
}

impl Keys {
    /// Makes a key for a terminal. Fails only when the system gives no randomness.
    pub fn issue(&self, terminal: &str) -> Result<String, getrandom::Error> {
        let mut bytes = [0; KEY_BYTES];
        getrandom::fill(&mut bytes)?;
        let key: String = bytes
            .iter()
            .flat_map(|byte| [byte >> 4, byte & 15])
            .map(hex_digit)
            .collect();
        self.issued.write().push(Issued {
            key: key.clone(),
            terminal: terminal.into(),
        });
        Ok(key)
    }

    /// Ends every key of a terminal.
    pub fn revoke(&self, terminal: &str) {
        self.issued.write().retain(|it| &*it.terminal != terminal);
    }

    /// The terminal behind a key. Every valid key is compared in constant time, so that an answer's delay tells
    /// nothing about any of them.
    pub fn terminal_of(&self, key: &[u8]) -> Option<Arc<str>> {
        let mut found = None;
        for issued in self.issued.read().iter() {
            if bool::from(issued.key.as_bytes().ct_eq(key)) {
                found = Some(issued.terminal.clone());
            }
        }
        found
    }
}

fn hex_digit(half: u8) -> char {
    char::from(b"0123456789abcdef"[usize::from(half)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_names_its_terminal_until_it_is_revoked() {
        let keys = Keys::default();
        let one = keys.issue("run:1").unwrap();
        let two = keys.issue("run:2").unwrap();
        assert_eq!(one.len(), 2 * KEY_BYTES);
        assert_eq!(keys.terminal_of(one.as_bytes()).as_deref(), Some("run:1"));
        assert_eq!(keys.terminal_of(&one.as_bytes()[1..]), None);
        keys.revoke("run:1");
        assert_eq!(keys.terminal_of(one.as_bytes()), None);
        assert_eq!(keys.terminal_of(two.as_bytes()).as_deref(), Some("run:2"));
        assert!(!format!("{keys:?}").contains(&two));
    }
}
