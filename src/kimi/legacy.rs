//! kimi-cli: a generated configuration file.
/// `base` = `http://127.0.0.1:PORT`; addresses become `<base>/t/<key>/<route>`.
pub fn generate(text: &str, env: &Environment, base: &str, key: &str, max_steps: Option<u32>) -> Result<Redirected, DocumentError>;
