//! kimi-cli: a generated configuration file, given to it by `--config-file`.
//!
//! kimi-cli 1.51.0 then keeps its sessions, its login and its history where they are, refreshes no model list and leaves the
//! default file alone (measured). It can send no header of ours, so the terminal's key is part of the address, and each
//! terminal has its own file. What `/model` writes goes into that file and is not carried back.

use std::io;
use std::path::{Path, PathBuf};

use toml_edit::{DocumentMut, Item, Table, value};

use crate::fsx;
use crate::kimi::document::{self, DocumentError, Redirected};
use crate::kimi::home::Environment;
use crate::kimi::merge;
use crate::kimi::upstream::{self, Rules, Warning};

/// Why the file could not be made.
#[derive(Debug, thiserror::Error)]
pub enum LegacyError {
    /// A file could not be read or written.
    #[error("cannot use {path}")]
    Files {
        /// Which.
        path: PathBuf,
        /// What happened.
        #[source]
        source: io::Error,
    },
    /// The user's configuration is not TOML.
    #[error("{path} cannot be used")]
    Document {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: DocumentError,
    },
}

/// Writes the configuration of one terminal to `file` (0600), made from the one in kimi-cli's `home`.
///
/// # Errors
///
/// Files cannot be used, or the user's configuration is not TOML.
pub fn write(
    home: &Path,
    file: &Path,
    env: &Environment,
    proxy: &str,
    key: &str,
    max_steps: Option<u32>,
) -> Result<Redirected, LegacyError> {
    let files = |path: &Path, source| LegacyError::Files {
        path: path.to_path_buf(),
        source,
    };
    let path = home.join("config.toml");
    let text = fsx::read_if_exists(&path)
        .map_err(|source| files(&path, source))?
        .unwrap_or_default();
    let text = String::from_utf8(text)
        .map_err(|error| files(&path, io::Error::new(io::ErrorKind::InvalidData, error)))?;
    let redirected =
        generate(&text, env, proxy, key, max_steps).map_err(|source| LegacyError::Document {
            path: path.clone(),
            source,
        })?;
    fsx::write_atomic(file, redirected.text.as_bytes(), fsx::PRIVATE)
        .map_err(|source| files(file, source))?;
    Ok(redirected)
}

/// Removes the files that a killed host left in `folder`, which hold the user's keys. No terminal may use them any more.
///
/// # Errors
///
/// The folder cannot be removed.
pub fn sweep(folder: &Path) -> io::Result<()> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// The text of such a file: every provider's address becomes `PROXY/t/<key>/<route>`.
///
/// # Errors
///
/// The text is not TOML.
pub fn generate(
    text: &str,
    env: &Environment,
    proxy: &str,
    key: &str,
    max_steps: Option<u32>,
) -> Result<Redirected, DocumentError> {
    let mut made = document::parse(text, "client's configuration")?;
    let source = made.clone();
    let mut found = Redirected::default();
    let proxy = proxy.trim_end_matches('/');
    for (id, provider) in document::tables(source.as_table(), "providers") {
        let aliases: Vec<String> = document::tables(source.as_table(), "models")
            .filter(|(_, model)| upstream::text(*model, "provider") == Some(id))
            .map(|(alias, _)| alias.to_owned())
            .collect();
        match upstream::target(&Table::new(), Some(provider), env, Rules::KimiCli) {
            Ok(target) => {
                let mut route = document::new_route(&format!("{PREFIX}{id}"), &target);
                id.clone_into(&mut route.provider);
                route.aliases = aliases;
                let address = format!(
                    "{proxy}/t/{key}/{}{}",
                    upstream::segment(&route.name),
                    target.tail
                );
                if let Some(provider) = provider_mut(&mut made, id) {
                    merge::put(provider, "base_url", &value(address));
                }
                found.routes.push(route);
            }
            Err(why) => found
                .warnings
                .extend(aliases.into_iter().map(|alias| Warning::Direct {
                    alias,
                    why: why.clone(),
                })),
        }
    }
    if let Some(steps) = max_steps {
        let control = made
            .entry("loop_control")
            .or_insert_with(|| Item::Table(Table::new()));
        if let Some(control) = control.as_table_like_mut() {
            merge::put(control, "max_steps_per_turn", &value(i64::from(steps)));
        }
    }
    found.text = made.to_string();
    Ok(found)
}

/// Keeps kimi-cli's routes apart from Kimi Code's, whose configuration may give the same id another address.
const PREFIX: &str = "kimi-cli~";

fn provider_mut<'a>(
    document: &'a mut DocumentMut,
    id: &str,
) -> Option<&'a mut dyn toml_edit::TableLike> {
    document
        .get_mut("providers")?
        .as_table_like_mut()?
        .get_mut(id)?
        .as_table_like_mut()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(provider: &str, env: &[(&str, &str)], address: &str, upstream: &str) {
        let text = format!("[providers.p]\n{provider}\n[models.m]\nprovider = \"p\"\n");
        let env = env
            .iter()
            .map(|(name, value)| (name.into(), value.into()))
            .collect();
        let found = generate(&text, &env, "http://127.0.0.1:4711", "KEY", None).unwrap();
        assert!(
            found.text.contains(&format!("base_url = \"{address}\"")),
            "{}",
            found.text
        );
        assert_eq!(found.routes[0].base_url, upstream);
        assert_eq!(found.routes[0].aliases, ["m"]);
    }

    #[cfg(unix)]
    #[test]
    fn what_a_killed_host_left_goes() {
        let scratch = crate::kimi::scratch::Scratch::new();
        let folder = scratch.path().join("kimi-cli");
        scratch.file("kimi-cli/home/1.toml", "api_key = \"sk\"");
        scratch.link("kept", "kimi-cli/home/link");
        scratch.file("kept/file", "x");
        for _ in 0..2 {
            sweep(&folder).unwrap();
            assert!(!folder.exists());
        }
        assert_eq!(scratch.read("kept/file"), "x");
    }

    #[test]
    fn each_type_gets_the_address_that_it_completes_rightly() {
        let keyed = "http://127.0.0.1:4711/t/KEY/kimi-cli~p";
        check(
            "type = \"kimi\"\nbase_url = \"https://h/v1\"",
            &[],
            &format!("{keyed}/v1"),
            "https://h",
        );
        check(
            "type = \"kimi\"\nbase_url = \"https://h/v1\"",
            &[("KIMI_BASE_URL", "https://e/x")],
            keyed,
            "https://e/x",
        );
        check(
            "type = \"openai_legacy\"\nbase_url = \"https://h/x\"",
            &[],
            keyed,
            "https://h/x",
        );
        check(
            "type = \"anthropic\"\nbase_url = \"https://h/v1/\"",
            &[],
            keyed,
            "https://h",
        );
        check(
            "type = \"openai_responses\"\nbase_url = \"\"",
            &[],
            &format!("{keyed}/v1"),
            "https://api.openai.com",
        );
    }

    #[test]
    fn the_limit_of_steps_and_direct_models_are_told() {
        let text =
            "[providers.g]\ntype = \"gemini\"\nbase_url = \"\"\n[models.m]\nprovider = \"g\"\n";
        let found = generate(
            text,
            &Environment::new(),
            "http://127.0.0.1:1",
            "K",
            Some(7),
        )
        .unwrap();
        assert_eq!(found.warnings.len(), 1);
        assert_eq!(
            found.text,
            format!("{text}\n[loop_control]\nmax_steps_per_turn = 7\n")
        );
    }
}
