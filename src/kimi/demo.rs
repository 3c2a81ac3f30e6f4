//! A complete client home and a work folder for `kimiq run --demo`: no key, no network, no question at the first start.
//!
//! Everything lies in one folder of kimiq's own. The work folder is marked as trusted, which is right only because kimiq made
//! it: trust in a user's folder is the user's to give, since it lets a project start programs.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use ring::digest::{SHA256, digest};

use crate::fsx;

/// Where the demo lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Demo {
    /// A home of Kimi Code, to be used as the real one below an overlay.
    pub home: PathBuf,
    /// A folder to work in.
    pub work: PathBuf,
}

/// Makes the demo's folders below `folder`, or brings them up to date; `base_url` is the simulated upstream without
/// `/v1`, `now` the time in milliseconds since 1970.
///
/// # Errors
///
/// The folder cannot be written.
pub fn prepare_demo(folder: &Path, base_url: &str, now: i64) -> io::Result<Demo> {
    let demo = Demo {
        home: folder.join("home"),
        work: folder.join("work"),
    };
    fsx::create_private_dir(&demo.home.join(TRUST))?;
    fsx::create_private_dir(&demo.work.join("src"))?;
    // The client asks the system for its working folder, which has no links in it.
    let work = fs::canonicalize(&demo.work)?;
    for (name, text) in FILES {
        let path = work.join(name);
        if !path.exists() {
            fsx::write_atomic(&path, text.as_bytes(), 0o644)?;
        }
    }
    let config = CONFIG.replace("BASE_URL", base_url.trim_end_matches('/'));
    fsx::write_atomic(
        &demo.home.join("config.toml"),
        config.as_bytes(),
        fsx::PRIVATE,
    )?;
    let root = work.to_string_lossy();
    let record = demo.home.join(TRUST).join(trust_key(&root));
    if !record.exists() {
        let trust = serde_json::json!({ "root": root, "trustedAt": now });
        fsx::write_atomic(&record, trust.to_string().as_bytes(), fsx::PRIVATE)?;
    }
    Ok(Demo { work, ..demo })
}

const TRUST: &str = "workspace-trust";

const CONFIG: &str = r#"default_model = "kimi-k2.6"
telemetry = false

[providers.simulated]
type = "kimi"
base_url = "BASE_URL/v1"
api_key = "sk-demo"

[models."kimi-k2.6"]
provider = "simulated"
model = "kimi-k2.6"
max_context_size = 262144
capabilities = ["thinking", "tool_use"]
display_name = "Kimi K2.6 (simulated)"
"#;

const FILES: [(&str, &str); 3] = [
    (
        "README.md",
        "# Tide table\n\nA small program that a team of terminals can read, change and test.\n\n- `src/tides.py` computes the table\n- `notes.txt` holds what is still to do\n",
    ),
    (
        "notes.txt",
        "- heights below zero are printed without a sign\n- the table has no tests\n",
    ),
    (
        "src/tides.py",
        "\"\"\"High and low water from two harmonic constituents.\"\"\"\n\nfrom math import cos, radians\n\nCONSTITUENTS = [(1.8, 28.984), (0.6, 30.0)]  # metres, degrees per hour\n\n\ndef height(hours: float) -> float:\n    return sum(size * cos(radians(speed * hours)) for size, speed in CONSTITUENTS)\n\n\nif __name__ == \"__main__\":\n    for hour in range(25):\n        print(f\"{hour:02d}:00  {height(hour):5.2f} m\")\n",
    ),
];

/// Longest readable part of the name of a trust record, in characters.
const SLUG: usize = 40;

/// Name of the trust record of a folder in Kimi Code 2.1.0: a readable part and 12 hex digits of the path's SHA-256.
fn trust_key(root: &str) -> String {
    let root = root.replace('\\', "/");
    let root = root.trim_end_matches('/');
    let name = root.rsplit('/').next().unwrap_or(root).to_lowercase();
    let mut slug = String::new();
    for c in name.chars() {
        if c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '_' | '-') {
            slug.push(c);
        } else if !slug.ends_with('\u{0}') {
            slug.push('\u{0}');
        }
    }
    let slug = slug.replace('\u{0}', "-");
    let slug = slug.trim_matches('-');
    let slug = slug[..slug.len().min(SLUG)].trim_matches('-');
    let slug = if matches!(slug, "" | "." | "..") {
        "workspace"
    } else {
        slug
    };
    let hash = digest(&SHA256, root.as_bytes());
    let hex = hash
        .as_ref()
        .iter()
        .take(6)
        .fold(String::new(), |mut hex, byte| {
            hex.extend(
                [byte >> 4, byte & 15]
                    .map(|digit| char::from_digit(digit.into(), 16).unwrap_or('0')),
            );
            hex
        });
    format!("wd_{slug}_{hex}")
}

#[cfg(unix)]
#[cfg(test)]
mod tests {
    use super::*;
    use crate::kimi::scratch::Scratch;

    #[test]
    fn a_trust_record_is_named_as_the_client_names_it() {
        // The digits by sha256sum; that the client looks there is shown with the real one in tests/kimi_client.rs.
        assert_eq!(trust_key("/home/u/My Dir"), "wd_my-dir_f3729174d55c");
        assert!(trust_key("/").starts_with("wd_workspace_"));
        assert!(trust_key(&format!("/{}", "a b".repeat(30))).len() < 4 + 40 + 13);
    }

    #[test]
    fn a_demo_can_be_prepared_twice_and_keeps_what_was_changed_in_its_work_folder() {
        let scratch = Scratch::new();
        let demo = prepare_demo(scratch.path(), "http://127.0.0.1:1/", 5).unwrap();
        scratch.file("work/notes.txt", "changed");
        assert_eq!(
            prepare_demo(scratch.path(), "http://127.0.0.1:2", 6).unwrap(),
            demo
        );
        assert_eq!(scratch.read("work/notes.txt"), "changed");
        assert!(
            scratch
                .read("home/config.toml")
                .contains("\"http://127.0.0.1:2/v1\"")
        );
        assert!(
            crate::kimi::redirect(
                &scratch.read("home/config.toml"),
                &crate::kimi::Environment::new(),
                "http://127.0.0.1:3"
            )
            .unwrap()
            .warnings
            .is_empty()
        );
    }
}
