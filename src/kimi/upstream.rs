//! Which address a model alias of the client really talks to.

/// What a client speaks to an upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wire {
    /// OpenAI chat completions (client types `kimi`, `openai`, `openai_legacy`).
    Chat,
    /// Anthropic messages.
    Messages,
    /// OpenAI responses.
    Responses,
    /// Google generative language; passed through only.
    Google,
}

/// A place that the proxy must serve under `/p/<name>` (Kimi Code) or `/t/<key>/<name>` (kimi-cli), the name percent-encoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Decoded route name: the provider's id, or `provider~alias` where an alias has an address of its own.
    pub name: String,
    /// The true upstream; the upstream URL is this plus the rest of the request's path, as it stands.
    pub base_url: String,
    /// What the client speaks there by its provider's type; a hint, since an alias may choose another `protocol`.
    pub wire: Wire,
    /// Id of the provider in the client's configuration; empty for an alias without one.
    pub provider: String,
    /// Aliases that use this route, in the file's order.
    pub aliases: Vec<String>,
}

/// Something the user should be told once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Warning {
    /// The alias talks to its upstream directly: no limits and no accounting for it.
    Direct {
        /// The alias.
        alias: String,
        /// Why, as one sentence.
        why: String,
    },
}
