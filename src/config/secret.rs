//! A credential that no formatter prints.
//!
//! The bytes come out through [`Secret::reveal`] only, so that a search for that word finds every use.

use std::fmt;

/// A credential; `Debug` and `Display` show that there is one and nothing of it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a credential.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The credential itself, for the one place that sends it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<secret>")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<secret>")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_formatter_shows_it() {
        let secret = Secret::new("sk-visible");
        assert!(!format!("{secret} {secret:?} {secret:#?}").contains("visible"));
        assert_eq!(secret.reveal(), "sk-visible");
    }
}
