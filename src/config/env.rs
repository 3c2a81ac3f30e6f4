//! The environment of the process, read once and passed on as a value.
//!
//! This is the only file that may ask for it. An empty variable counts as not set, as most shells' users expect.
//! Variables that are no UTF-8 are left out: no setting is one, and a child of ours gets them by inheritance only
//! where kimiq starts it directly.

use std::collections::BTreeMap;

/// Variables of kimiq that are no settings: its folders.
const FOLDERS: [&str; 4] = [
    "KIMIQ_HOME",
    "KIMIQ_CONFIG",
    "KIMIQ_STATE_DIR",
    "KIMIQ_DATA_DIR",
];

/// Variables that a program in a terminal of kimiq gets. They are no settings and belong to that one terminal.
pub const INSIDE: [&str; 7] = [
    "KIMIQ_HOST",
    "KIMIQ_RUN",
    "KIMIQ_TERMINAL",
    "KIMIQ_MARK",
    "KIMIQ_PORT",
    "KIMIQ_KEY",
    "KIMIQ_URL",
];

/// The environment as it was when the program started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Environment(BTreeMap<String, String>);

impl Environment {
    /// Reads the environment of this process.
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the one reader of the environment"
    )]
    pub fn capture() -> Self {
        Self(
            std::env::vars_os()
                .filter_map(|(name, value)| {
                    Some((name.into_string().ok()?, value.into_string().ok()?))
                })
                .collect(),
        )
    }

    /// A variable that is set and not empty.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0
            .get(name)
            .map(String::as_str)
            .filter(|value| !value.is_empty())
    }

    /// Every variable, empty ones included, for a child that shall inherit them.
    pub fn all(&self) -> &BTreeMap<String, String> {
        &self.0
    }

    /// Variables that look like settings and mean nothing to us: likely misspelled ones.
    pub(super) fn strays(&self, known: impl Fn(&str) -> bool) -> Vec<&str> {
        let ours = |name: &&str| name.starts_with("KIMIQ_") || name.starts_with("FIREWORKS_PROXY_");
        self.0
            .keys()
            .map(String::as_str)
            .filter(|name| ours(name) && !known(name))
            .filter(|name| !FOLDERS.contains(name) && !INSIDE.contains(name))
            .collect()
    }
}

impl<N: Into<String>, V: Into<String>> FromIterator<(N, V)> for Environment {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(pairs: I) -> Self {
        Self(
            pairs
                .into_iter()
                .map(|(n, v)| (n.into(), v.into()))
                .collect(),
        )
    }
}
