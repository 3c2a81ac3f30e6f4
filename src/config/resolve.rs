//! Puts the layers together: defaults, then the file, then the environment, then flags. The last one wins.
//!
//! The seed's `FIREWORKS_PROXY_*` variables and our own `KIMIQ_*` are one layer; where both are set, ours wins.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::config::ConfigError;
use crate::config::DEFAULTS;
use crate::config::Environment;
use crate::config::Paths;
use crate::config::Secret;
use crate::config::file;
use crate::config::file::Warning;
use crate::config::setting::SETTINGS;
use crate::config::setting::Setting;
use crate::config::value::Value;
use crate::fsx;

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Built in.
    Default,
    /// The user's settings file.
    File(PathBuf),
    /// A variable.
    Variable(String),
    /// A flag, by its name.
    Flag(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Variable(name) => write!(f, "variable {name}"),
            Self::Flag(name) => f.write_str(name),
        }
    }
}

/// A setting with its value and the value's origin, for `kimiq config show`.
#[derive(Clone, Debug)]
pub struct Row {
    /// The setting.
    pub setting: &'static Setting,
    /// Its value.
    pub value: Value,
    /// Where the value came from.
    pub origin: Origin,
}

/// All settings, resolved.
#[derive(Clone, Debug)]
pub struct Resolved {
    rows: BTreeMap<&'static str, Row>,
    keys: BTreeMap<String, Secret>,
    normalize: BTreeMap<String, String>,
    warnings: Vec<Warning>,
}

/// Resolves all settings. `flags` are pairs of the flag's name and `key=value`.
pub fn resolve(
    paths: &Paths,
    env: &Environment,
    flags: &[(String, String)],
) -> Result<Resolved, ConfigError> {
    let mut resolved = Resolved {
        rows: BTreeMap::new(),
        keys: BTreeMap::new(),
        normalize: BTreeMap::new(),
        warnings: Vec::new(),
    };
    match file::parse(DEFAULTS, &Origin::Default) {
        Ok(layer) => resolved.lay(layer.values, &Origin::Default),
        Err(file::Trouble::Value(error)) => return Err(error),
        Err(file::Trouble::Toml(source)) => {
            let path = PathBuf::from("defaults.toml");
            return Err(ConfigError::Parse {
                path,
                source: Box::new(source),
            });
        }
    }
    let layer = file::read(&paths.config_file)?;
    resolved.lay(layer.values, &Origin::File(paths.config_file.clone()));
    resolved.warnings.extend(layer.warnings);
    resolved.normalize = layer.normalize;
    for (host, source) in layer.keys {
        let key = read_key(&host, &source, env)?;
        resolved.keys.insert(host, key);
    }
    for setting in SETTINGS {
        let own = setting.variable();
        for name in setting.seed.into_iter().chain([own.as_str()]) {
            if let Some(text) = env.get(name) {
                resolved.set(setting, text, Origin::Variable(name.to_owned()))?;
            }
        }
    }
    let known = |name: &str| {
        SETTINGS
            .iter()
            .any(|setting| setting.variable() == name || setting.seed == Some(name))
    };
    for stray in env.strays(known) {
        resolved.warnings.push(Warning(format!(
            "the variable {stray} is no setting of kimiq"
        )));
    }
    for (flag, pair) in flags {
        let (key, text) = pair.split_once('=').ok_or_else(|| ConfigError::NotAPair {
            given: pair.clone(),
        })?;
        let key = key.trim();
        let setting = Setting::find(key).ok_or_else(|| ConfigError::NoSuchSetting {
            key: key.to_owned(),
        })?;
        resolved.set(setting, text, Origin::Flag(flag.clone()))?;
    }
    Ok(resolved)
}

fn read_key(host: &str, source: &str, env: &Environment) -> Result<Secret, ConfigError> {
    let key = format!("keys.\"{host}\"");
    if let Some(name) = source.strip_prefix("env:") {
        let found = env.get(name).ok_or_else(|| ConfigError::NoVariable {
            key,
            variable: name.to_owned(),
        })?;
        return Ok(Secret::new(found));
    }
    let named = source.strip_prefix("file:").unwrap_or(source);
    let path = Paths::absolute(&PathBuf::from("/"), named);
    match fsx::read_if_exists(&path) {
        Ok(Some(bytes)) => Ok(Secret::new(String::from_utf8_lossy(&bytes).trim())),
        Ok(None) => Err(ConfigError::Read {
            path,
            source: std::io::ErrorKind::NotFound.into(),
        }),
        Err(source) => Err(ConfigError::Read { path, source }),
    }
}

impl Resolved {
    fn lay(&mut self, values: Vec<(&'static Setting, Value)>, origin: &Origin) {
        for (setting, value) in values {
            self.rows.insert(
                setting.key,
                Row {
                    setting,
                    value,
                    origin: origin.clone(),
                },
            );
        }
    }

    fn set(
        &mut self,
        setting: &'static Setting,
        text: &str,
        origin: Origin,
    ) -> Result<(), ConfigError> {
        let value = setting
            .shape
            .read_text(text, setting.auto)
            .map_err(|expected| ConfigError::Value {
                key: setting.key.to_owned(),
                origin: origin.clone(),
                found: text.to_owned(),
                expected,
            })?;
        self.rows.insert(
            setting.key,
            Row {
                setting,
                value,
                origin,
            },
        );
        Ok(())
    }

    /// Every setting, in the order of the documentation.
    pub fn rows(&self) -> impl Iterator<Item = &Row> {
        SETTINGS
            .iter()
            .filter_map(|setting| self.rows.get(setting.key))
    }

    /// What is odd about the settings and does not stop kimiq.
    pub fn warnings(&self) -> &[Warning] {
        &self.warnings
    }

    /// Keys that kimiq sends in place of the client's, by host of the upstream.
    pub fn keys(&self) -> &BTreeMap<String, Secret> {
        &self.keys
    }

    /// What happens to the output of single models: `on`, `observe` or `off` by the upstream's id of the model.
    pub fn normalize(&self) -> &BTreeMap<String, String> {
        &self.normalize
    }

    /// The key for an upstream, by its host with the port or without.
    pub fn key_for(&self, host: &str) -> Option<&Secret> {
        let bare = host.rsplit_once(':').map_or(host, |(bare, _)| bare);
        self.keys.get(host).or_else(|| self.keys.get(bare))
    }

    /// Whether somebody set this, in any layer.
    pub fn is_set(&self, key: &str) -> bool {
        self.rows
            .get(key)
            .is_some_and(|row| row.origin != Origin::Default)
    }

    fn value(&self, key: &str) -> Option<&Value> {
        let found = self.rows.get(key).map(|row| &row.value);
        debug_assert!(found.is_some(), "no setting {key}");
        found
    }

    /// A whole number; `None` is `auto`.
    pub fn count(&self, key: &str) -> Option<u64> {
        match self.value(key) {
            Some(Value::Count(n)) => Some(*n),
            _ => None,
        }
    }

    /// A number with a fraction; `None` is `auto`.
    pub fn amount(&self, key: &str) -> Option<f64> {
        match self.value(key) {
            Some(Value::Amount(n)) => Some(*n),
            _ => None,
        }
    }

    /// A span of time given in seconds; `None` is `auto`.
    pub fn span(&self, key: &str) -> Option<Duration> {
        self.amount(key)
            .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
    }

    /// Words; `None` is `auto` or empty.
    pub fn text(&self, key: &str) -> Option<&str> {
        match self.value(key) {
            Some(Value::Text(text)) if !text.is_empty() => Some(text),
            _ => None,
        }
    }

    /// A switch.
    pub fn switch(&self, key: &str) -> bool {
        matches!(self.value(key), Some(Value::Switch(true)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sandbox(file: &str) -> (PathBuf, Paths) {
        static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let number = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let folder =
            std::env::temp_dir().join(format!("kimiq-config-{}-{number}", std::process::id()));
        fsx::create_private_dir(&folder).unwrap();
        let home = folder.to_str().unwrap().to_owned();
        let paths =
            Paths::find(&[("KIMIQ_HOME", home)].into_iter().collect::<Environment>()).unwrap();
        fsx::write_atomic(&paths.config_file, file.as_bytes(), fsx::PRIVATE).unwrap();
        (folder, paths)
    }

    #[track_caller]
    fn check(file: &str, env: &[(&str, &str)], flag: Option<&str>, expected: u64, origin: &str) {
        let (folder, paths) = sandbox(file);
        let env: Environment = env.iter().copied().collect();
        let flags: Vec<_> = flag
            .map(|pair| ("--set".to_owned(), pair.to_owned()))
            .into_iter()
            .collect();
        let resolved = resolve(&paths, &env, &flags).unwrap();
        assert_eq!(resolved.count("limits.prompt_per_minute"), Some(expected));
        let row = resolved
            .rows()
            .find(|row| row.setting.key == "limits.prompt_per_minute")
            .unwrap();
        assert!(row.origin.to_string().contains(origin), "{}", row.origin);
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn later_layers_win_and_tell_their_name() {
        let file = "[limits]\nprompt_per_minute = 2\n";
        let seed = ("FIREWORKS_PROXY_PROMPT_TPM_LIMIT", "3");
        let own = ("KIMIQ_LIMITS_PROMPT_PER_MINUTE", "4");
        let flag = Some("limits.prompt_per_minute=5");
        check("", &[], None, 4_500_000, "default");
        check(file, &[], None, 2, "config.toml");
        check(file, &[seed], None, 3, "FIREWORKS_PROXY_PROMPT_TPM_LIMIT");
        check(
            file,
            &[own, seed],
            None,
            4,
            "KIMIQ_LIMITS_PROMPT_PER_MINUTE",
        );
        check(file, &[own, seed], flag, 5, "--set");
        check(
            "",
            &[("FIREWORKS_PROXY_PROMPT_TPM_LIMIT", "")],
            None,
            4_500_000,
            "default",
        );
    }

    #[test]
    fn mistakes_name_their_place() {
        let (folder, paths) = sandbox("");
        let told = |env: &[(&str, &str)], flags: &[(&str, &str)]| {
            let env: Environment = env.iter().copied().collect();
            let flags: Vec<_> = flags
                .iter()
                .map(|(a, b)| ((*a).to_owned(), (*b).to_owned()))
                .collect();
            resolve(&paths, &env, &flags).unwrap_err().to_string()
        };
        let error = told(&[("FIREWORKS_PROXY_RPS", "fast")], &[]);
        assert!(
            error.contains("variable FIREWORKS_PROXY_RPS is `fast`"),
            "{error}"
        );
        let error = told(&[], &[("--set", "limits.rps=1")]);
        assert!(error.contains("no setting `limits.rps`"), "{error}");
        let error = told(&[], &[("--set", "limits.window")]);
        assert!(error.contains("is not `key=value`"), "{error}");
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_key_comes_from_a_variable_and_is_not_printed() {
        let (folder, paths) = sandbox("[keys]\n\"api.x\" = \"env:X_KEY\"\n");
        let resolved = resolve(
            &paths,
            &[("X_KEY", "sk-1")].into_iter().collect::<Environment>(),
            &[],
        )
        .unwrap();
        assert_eq!(resolved.keys()["api.x"].reveal(), "sk-1");
        assert!(resolved.key_for("api.x:8443").is_some());
        assert!(resolved.key_for("api.y").is_none());
        assert!(!format!("{resolved:?}").contains("sk-1"));
        let error = resolve(&paths, &Environment::default(), &[])
            .unwrap_err()
            .to_string();
        assert!(error.contains("X_KEY"), "{error}");
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_misspelled_variable_is_told() {
        let (folder, paths) = sandbox("");
        let env = [
            ("KIMIQ_LIMITS_WINDW", "1"),
            ("KIMIQ_HOME", "/x"),
            ("FIREWORKS_PROXY_RPS", "3"),
            ("FIREWORKS_PROXY_RPZ", "3"),
        ]
        .into_iter()
        .collect::<Environment>();
        let resolved = resolve(&paths, &env, &[]).unwrap();
        let told: Vec<_> = resolved
            .warnings()
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(told[0].contains("FIREWORKS_PROXY_RPZ") && told[1].contains("KIMIQ_LIMITS_WINDW"));
        std::fs::remove_dir_all(folder).unwrap();
    }
}
