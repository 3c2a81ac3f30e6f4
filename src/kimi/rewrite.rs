//! `--rewrite-config`.
pub struct Rewrite;
impl Rewrite {
    pub fn new(config: PathBuf, journal: PathBuf) -> Self;
    pub fn apply(&self, env: &Environment, proxy: &str) -> Result<Redirected, RewriteError>;
    /// Undoes what the journal says; also at the next start and by `kimiq restore`.
    pub fn undo(&self) -> Result<Undone, RewriteError>;
}
pub enum Undone { Nothing, Restored, OursTakenBack }
