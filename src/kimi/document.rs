//! The client's configuration with our addresses in it, and without them.

/// A configuration whose model traffic goes to the proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redirected {
    /// The new text.
    pub text: String,
    /// What the proxy must serve.
    pub routes: Vec<Route>,
    /// What the user should know.
    pub warnings: Vec<Warning>,
    /// Variables for the child in place of the user's own (the `KIMI_MODEL_*` synthetic model).
    pub env: Vec<(OsString, OsString)>,
}
pub enum DocumentError {}
/// `proxy` is `http://127.0.0.1:PORT`.
pub fn redirect(text: &str, env: &Environment, proxy: &str) -> Result<Redirected, DocumentError>;
/// What the user changed inside a terminal, merged into the user's file; `None` when nothing is to be written.
pub fn carry_back(before: &str, after: &str, user_now: &str) -> Result<Option<String>, DocumentError>;
/// The text without our addresses; `user` is the user's own file, which tells what stood there before.
pub fn strip(text: &str, user: &str) -> Result<String, DocumentError>;
