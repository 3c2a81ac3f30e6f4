//! A complete home and work folder for `kimiq run --demo`.
pub struct Demo { pub home: PathBuf, pub work: PathBuf }
pub fn prepare_demo(folder: &Path, base_url: &str) -> std::io::Result<Demo>;
