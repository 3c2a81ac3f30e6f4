//! The three folders of kimiq, and the files in them.
//!
//! Settings, state and data lie where the platform wants them. `KIMIQ_HOME` puts all three under one folder, for
//! containers and tests; `KIMIQ_CONFIG`, `KIMIQ_STATE_DIR` and `KIMIQ_DATA_DIR` move one each.

use std::path::Path;
use std::path::PathBuf;

use crate::config::ConfigError;
use crate::config::Environment;

/// Where kimiq reads and keeps things.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paths {
    /// The user's settings file; it need not exist.
    pub config_file: PathBuf,
    /// Instance files, locks, logs, journals, ledger.
    pub state: PathBuf,
    /// What is big and can be fetched again: an installed client.
    pub data: PathBuf,
}

impl Paths {
    /// Finds the folders for this user.
    pub fn find(env: &Environment) -> Result<Self, ConfigError> {
        let home = env.get("KIMIQ_HOME").map(PathBuf::from);
        let place = |variable: &str, sub: &str, found: Option<PathBuf>, kind: &'static str| {
            if let Some(given) = env.get(variable) {
                return Ok(PathBuf::from(given));
            }
            if let Some(home) = &home {
                return Ok(home.join(sub));
            }
            found.ok_or(ConfigError::NoFolder { kind })
        };
        let config = dirs::config_dir().map(|folder| folder.join("kimiq").join("config.toml"));
        let state = dirs::state_dir()
            .or_else(dirs::data_local_dir)
            .map(|folder| folder.join("kimiq"));
        let data = dirs::data_local_dir().map(|folder| folder.join("kimiq"));
        Ok(Self {
            config_file: place("KIMIQ_CONFIG", "config.toml", config, "configuration")?,
            state: place("KIMIQ_STATE_DIR", "state", state, "state")?,
            data: place("KIMIQ_DATA_DIR", "data", data, "data")?,
        })
    }

    /// The folder of the instance files.
    pub fn instances(&self) -> PathBuf {
        self.state.join("instances")
    }

    /// State that belongs to one instance alone: a demo never mixes with real totals.
    pub fn instance_state(&self, name: &str) -> PathBuf {
        self.state.join("hosts").join(name)
    }

    /// Names of all hosts that ever had state.
    pub fn host_names(&self) -> std::io::Result<Vec<String>> {
        let found = match std::fs::read_dir(self.state.join("hosts")) {
            Ok(found) => found,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut names = Vec::new();
        for entry in found {
            names.extend(entry?.file_name().into_string());
        }
        names.sort();
        Ok(names)
    }

    /// The log of an instance.
    pub fn log(&self, name: &str) -> PathBuf {
        self.instance_state(name).join("log")
    }

    /// Turns a setting's path into one that does not depend on the working folder.
    pub fn absolute(base: &Path, given: &str) -> PathBuf {
        match given
            .strip_prefix("~/")
            .and_then(|rest| Some(dirs::home_dir()?.join(rest)))
        {
            Some(expanded) => expanded,
            None => base.join(given),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_variable_moves_everything_and_others_move_one() {
        let env = [("KIMIQ_HOME", "/k"), ("KIMIQ_DATA_DIR", "/big")]
            .into_iter()
            .collect::<Environment>();
        let paths = Paths::find(&env).unwrap();
        assert_eq!(paths.config_file, Path::new("/k/config.toml"));
        assert_eq!(paths.state, Path::new("/k/state"));
        assert_eq!(paths.data, Path::new("/big"));
        assert_eq!(Paths::absolute(Path::new("/w"), "x/y"), Path::new("/w/x/y"));
        assert_eq!(Paths::absolute(Path::new("/w"), "/x"), Path::new("/x"));
    }
}
