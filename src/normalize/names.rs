//! Tool names: what a garbled name or id means, decided only where one reading is left.

/// The declared tools of a request.
#[derive(Clone, Debug, Default)]
pub struct Tools {
    names: Vec<String>,
}

/// What was said in place of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Name {
    /// A declared tool, perhaps written in another form.
    Declared(String),
    /// A plausible name of no declared tool, which is left.
    Undeclared(String),
    /// No name: a bare number, a foreign id. The arguments may tell.
    Nameless,
}

impl Tools {
    /// Tools by name, each with the JSON schema of its parameters if it has one.
    pub fn new<'a>(tools: impl IntoIterator<Item = (&'a str, Option<&'a str>)>) -> Self {
        Self {
            names: tools.into_iter().map(|(name, _)| name.to_owned()).collect(),
        }
    }

    /// Whether none is declared.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// The declared names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(String::as_str)
    }

    /// What a name or a header's id means.
    pub fn resolve(&self, said: &str) -> Name {
        let bare = said.trim();
        let bare = bare.strip_prefix("functions.").unwrap_or(bare);
        let name = bare.rsplit_once(':').map_or(bare, |(name, _)| name);
        if self.names().any(|declared| declared == name) {
            Name::Declared(name.to_owned())
        } else if name.is_empty() || name.bytes().all(|byte| byte.is_ascii_digit()) {
            Name::Nameless
        } else {
            Name::Undeclared(name.to_owned())
        }
    }

    /// The one tool that takes these arguments.
    pub fn infer(&self, _arguments: &[u8]) -> Option<&str> {
        match self.names.as_slice() {
            [only] => Some(only),
            _ => None,
        }
    }
}
