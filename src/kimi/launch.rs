//! What to start.
pub struct LaunchSpec { pub program: PathBuf, pub args: Vec<OsString>, pub env: Vec<(OsString, OsString)>, pub env_remove: Vec<OsString>, pub cwd: PathBuf }
pub struct Options { pub terminal: String, pub key: String, pub cwd: PathBuf, pub resume: Option<String>, pub model: Option<String>, pub max_steps: Option<u32>, pub max_output_tokens: Option<u32>, pub quiet_client: bool, pub args: Vec<OsString>, pub env: Vec<(OsString, OsString)> }
pub fn kimi_code(client: &Client, home: &Path, options: &Options, env: &Environment) -> LaunchSpec;
pub fn kimi_cli(client: &Client, config_file: &Path, options: &Options, env: &Environment) -> LaunchSpec;
