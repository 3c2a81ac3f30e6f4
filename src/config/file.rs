//! The user's settings file: every key optional, unknown ones told with their path.
//!
//! kimiq never writes this file.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use crate::config::ConfigError;
use crate::config::resolve::Origin;
use crate::config::setting::NORMALIZE;
use crate::config::setting::Setting;
use crate::config::value::Value;
use crate::fsx;

/// Something odd that does not stop kimiq.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning(pub(super) String);

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What the file said.
#[derive(Debug, Default)]
pub(super) struct Layer {
    pub(super) values: Vec<(&'static Setting, Value)>,
    pub(super) keys: BTreeMap<String, String>,
    /// What happens to the output of single models.
    pub(super) normalize: BTreeMap<String, String>,
    pub(super) warnings: Vec<Warning>,
}

/// Reads the settings file; a missing one is an empty layer.
pub(super) fn read(path: &Path) -> Result<Layer, ConfigError> {
    let bytes = fsx::read_if_exists(path).map_err(|source| ConfigError::Read {
        path: path.to_path_buf(),
        source,
    })?;
    let text = String::from_utf8_lossy(bytes.as_deref().unwrap_or_default()).into_owned();
    let origin = Origin::File(path.to_path_buf());
    parse(&text, &origin).map_err(|error| match error {
        Trouble::Toml(source) => ConfigError::Parse {
            path: path.to_path_buf(),
            source: Box::new(source),
        },
        Trouble::Value(error) => error,
    })
}

pub(super) enum Trouble {
    Toml(toml::de::Error),
    Value(ConfigError),
}

pub(super) fn parse(text: &str, origin: &Origin) -> Result<Layer, Trouble> {
    let table: toml::Table = text.parse().map_err(Trouble::Toml)?;
    let mut layer = Layer::default();
    for (section, inside) in &table {
        let Some(inside) = inside.as_table() else {
            layer.warnings.push(unknown(section, origin));
            continue;
        };
        for (name, found) in inside {
            let key = format!("{section}.{name}");
            if section == "keys" {
                let Some(source) = found.as_str().filter(|text| is_key_source(text)) else {
                    return Err(Trouble::Value(ConfigError::Value {
                        key: format!("keys.\"{name}\""),
                        origin: origin.clone(),
                        // It may be a key that somebody put here in the clear; it is not repeated.
                        found: "<hidden>".to_owned(),
                        expected: "env:NAME or file:PATH, so that no key lies in this file"
                            .to_owned(),
                    }));
                };
                layer.keys.insert(name.clone(), source.to_owned());
                continue;
            }
            if section == "normalize" {
                let word = found.as_str().filter(|word| NORMALIZE.contains(word));
                let Some(word) = word else {
                    return Err(Trouble::Value(ConfigError::Value {
                        key: format!("normalize.\"{name}\""),
                        origin: origin.clone(),
                        found: found.to_string(),
                        expected: format!("one of {}", NORMALIZE.join(", ")),
                    }));
                };
                layer.normalize.insert(name.clone(), word.to_owned());
                continue;
            }
            let Some(setting) = Setting::find(&key) else {
                layer.warnings.push(unknown(&key, origin));
                continue;
            };
            let value = setting
                .shape
                .read_toml(found, setting.auto)
                .map_err(|expected| {
                    Trouble::Value(ConfigError::Value {
                        key,
                        origin: origin.clone(),
                        found: found.to_string(),
                        expected,
                    })
                })?;
            layer.values.push((setting, value));
        }
    }
    Ok(layer)
}

fn unknown(key: &str, origin: &Origin) -> Warning {
    Warning(format!(
        "unknown setting `{key}` in {origin}; `kimiq config show` lists them all"
    ))
}

fn is_key_source(text: &str) -> bool {
    ["env:", "file:"]
        .iter()
        .any(|kind| text.strip_prefix(kind).is_some_and(|rest| !rest.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text(text: &str) -> Result<Layer, ConfigError> {
        parse(text, &Origin::File("/c.toml".into())).map_err(|error| match error {
            Trouble::Value(error) => error,
            Trouble::Toml(error) => panic!("{error}"),
        })
    }

    #[test]
    fn an_unknown_key_warns_with_its_path() {
        let layer = read_text("[limits]\nwindw = 3\nwindow = 3\n[other]\na = 1\n").unwrap();
        assert_eq!(layer.values.len(), 1);
        let told: Vec<String> = layer.warnings.iter().map(ToString::to_string).collect();
        assert!(told[0].contains("`limits.windw` in /c.toml"), "{told:?}");
        assert!(told[1].contains("`other.a`"), "{told:?}");
    }

    #[test]
    fn a_key_in_the_clear_is_refused_and_not_repeated() {
        let error = read_text("[keys]\n\"api.x\" = \"sk-123\"\n")
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("env:NAME") && !error.contains("sk-123"),
            "{error}"
        );
    }

    #[test]
    fn single_models_are_normalized_as_they_are_told() {
        let layer = read_text("[normalize]\n\"kimi-k2p6\" = \"off\"\n").unwrap();
        assert_eq!(layer.normalize["kimi-k2p6"], "off");
        assert!(layer.warnings.is_empty());
        let error = read_text("[normalize]\nkimi = 1\n")
            .unwrap_err()
            .to_string();
        assert!(error.contains("on, observe, off"), "{error}");
    }

    #[test]
    fn a_bad_value_names_file_and_fix() {
        let error = read_text("[limits]\nwindow = \"long\"\n")
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("`limits.window` from /c.toml is `\"long\"`; expected a number above 0"),
            "{error}"
        );
    }
}
