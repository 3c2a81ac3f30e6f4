//! The private home. All functions block on files (use spawn_blocking).
pub struct Setup { pub real: PathBuf, pub root: PathBuf, pub proxy: String, pub status_command: Option<String>, pub env: Environment }
pub struct Overlay;
/// Result of prepare and sync.
pub struct Synced { pub routes: Vec<Route>, pub warnings: Vec<Warning>, pub env: Vec<(OsString, OsString)>, pub carried_back: bool, /** aliases that appeared without our address: tell the user to `/reload` */ pub patched: Vec<String> }
impl Overlay {
    pub fn new(setup: Setup) -> Self;
    /// Builds or repairs the overlay; carries back what an earlier, killed host left. Idempotent.
    pub fn prepare(&self) -> Result<Synced, OverlayError>;
    /// Carries back, patches, and follows edits of the user's own file. Cheap when nothing changed.
    pub fn sync(&self) -> Result<Synced, OverlayError>;
    /// The `KIMI_CODE_HOME` of the children.
    pub fn root(&self) -> &Path;
    /// Events worth a `sync`.
    pub fn watch(&self) -> Result<Watch, OverlayError>;
}
/// The user's own status line command, for our status verb to run (root = $KIMI_CODE_HOME).
pub fn user_status_command(root: &Path) -> std::io::Result<Option<String>>;
