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
    asker: Asker,
}

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asker {
    /// The terminal's name.
    pub terminal: Arc<str>,
    /// Its share of the budgets in relation to others; at least 1.
    pub weight: u32,
}

impl std::fmt::Debug for Issued {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "a key of {}", self.asker.terminal)
    }
}

impl Keys {
    /// Makes a key for a terminal with this weight. Fails only when the system gives no randomness.
    pub fn issue(&self, terminal: &str, weight: u32) -> Result<String, getrandom::Error> {
        let mut bytes = [0; KEY_BYTES];
        getrandom::fill(&mut bytes)?;
        let key: String = bytes
            .iter()
            .flat_map(|byte| [byte >> 4, byte & 15])
            .map(hex_digit)
            .collect();
        self.issued.write().push(Issued {
            key: key.clone(),
            asker: Asker {
                terminal: terminal.into(),
                weight: weight.max(1),
            },
        });
        Ok(key)
    }

    /// Ends every key of a terminal.
    pub fn revoke(&self, terminal: &str) {
        self.issued
            .write()
            .retain(|it| &*it.asker.terminal != terminal);
    }

    /// Who is behind a key. Every valid key is compared in constant time, so that an answer's delay tells
    /// nothing about any of them.
    pub fn asker(&self, key: &[u8]) -> Option<Asker> {
        let mut found = None;
        for issued in self.issued.read().iter() {
            if bool::from(issued.key.as_bytes().ct_eq(key)) {
                found = Some(issued.asker.clone());
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
        let one = keys.issue("run:1", 3).unwrap();
        let two = keys.issue("run:2", 0).unwrap();
        let asker = |terminal: &str, weight| {
            let terminal = terminal.into();
            Some(Asker { terminal, weight })
        };
        assert_eq!(one.len(), 2 * KEY_BYTES);
        assert_eq!(keys.asker(one.as_bytes()), asker("run:1", 3));
        assert_eq!(keys.asker(&one.as_bytes()[1..]), None);
        keys.revoke("run:1");
        assert_eq!(keys.asker(one.as_bytes()), None);
        assert_eq!(keys.asker(two.as_bytes()), asker("run:2", 1));
        assert!(!format!("{keys:?}").contains(&two));
    }
}
