//! `kimiq client install`.
pub const KIMI_CODE_VERSION: &str = "2.1.0"; pub const NODE_VERSION: &str = "24.21.0";
pub fn installed(data: &Path) -> Option<Client>;
pub async fn install(data: &Path, env: &Environment, progress: &mut (dyn FnMut(&str) + Send)) -> Result<Client, InstallError>;
