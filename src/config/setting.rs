//! Every setting: its key, what it takes, and the variable that the first proxy had for it.
//!
//! `defaults.toml` holds the default and the prose of each. The variable `KIMIQ_<KEY>` follows from the key.

use crate::config::value::Shape;

/// One setting.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// Dotted key, as in the settings file.
    pub key: &'static str,
    /// What it takes.
    pub shape: Shape,
    /// Whether `auto` is allowed.
    pub auto: bool,
    /// The first proxy's variable, which keeps its meaning.
    pub seed: Option<&'static str>,
}

impl Setting {
    /// The setting's own variable.
    pub fn variable(&self) -> String {
        format!("KIMIQ_{}", self.key.replace('.', "_").to_ascii_uppercase())
    }

    /// The setting with this key.
    pub fn find(key: &str) -> Option<&'static Self> {
        SETTINGS.iter().find(|setting| setting.key == key)
    }
}

const fn plain(key: &'static str, shape: Shape) -> Setting {
    Setting {
        key,
        shape,
        auto: false,
        seed: None,
    }
}

const fn auto(key: &'static str, shape: Shape) -> Setting {
    Setting {
        key,
        shape,
        auto: true,
        seed: None,
    }
}

const fn seed(name: &'static str, setting: Setting) -> Setting {
    Setting {
        seed: Some(name),
        ..setting
    }
}

const COUNT: Shape = Shape::Count {
    least: 0,
    most: u64::MAX,
};
const POSITIVE: Shape = Shape::Count {
    least: 1,
    most: u64::MAX,
};
const PORT: Shape = Shape::Count {
    least: 0,
    most: 65_535,
};
/// More than any provider takes from one account.
const RATE: Shape = Shape::Count {
    least: 1,
    most: 100_000,
};
/// More would leave the others nothing for minutes.
const WEIGHT: Shape = Shape::Count {
    least: 1,
    most: 100,
};
const RATIO: Shape = Shape::Above { most: 1.0 };
/// A day is more than any client waits.
const SECONDS: Shape = Shape::From0 { most: 86_400.0 };
const SOME_SECONDS: Shape = Shape::Above { most: 86_400.0 };

/// What may happen to the output of a Kimi model.
pub(super) const NORMALIZE: &[&str] = &["on", "observe", "off"];

/// Every setting, in the order of `defaults.toml`.
pub const SETTINGS: &[Setting] = &[
    seed(
        "FIREWORKS_PROXY_RPS",
        plain("limits.requests_per_second", RATE),
    ),
    seed(
        "FIREWORKS_PROXY_PROMPT_TPM_LIMIT",
        plain("limits.prompt_per_minute", POSITIVE),
    ),
    seed(
        "FIREWORKS_PROXY_UNCACHED_PROMPT_TPM_LIMIT",
        plain("limits.uncached_prompt_per_minute", POSITIVE),
    ),
    seed(
        "FIREWORKS_PROXY_GENERATED_TPM_LIMIT",
        plain("limits.generated_per_minute", POSITIVE),
    ),
    seed(
        "FIREWORKS_PROXY_TPM_SAFETY_RATIO",
        auto("limits.safety_ratio", RATIO),
    ),
    seed(
        "FIREWORKS_PROXY_OUTPUT_TOKEN_RESERVE",
        auto("limits.output_reserve", COUNT),
    ),
    seed(
        "FIREWORKS_PROXY_CHARS_PER_TOKEN",
        auto("limits.chars_per_token", Shape::Above { most: 100.0 }),
    ),
    seed("FIREWORKS_PROXY_MAX_WAIT", auto("limits.max_wait", SECONDS)),
    plain("limits.window", SOME_SECONDS),
    auto("limits.guard", SECONDS),
    seed(
        "FIREWORKS_PROXY_DAILY_TOKEN_LIMIT",
        plain("limits.daily_tokens", POSITIVE),
    ),
    seed(
        "FIREWORKS_PROXY_DAILY_TOKEN_WARN_RATIO",
        plain("limits.daily_warn_ratio", RATIO),
    ),
    seed(
        "FIREWORKS_PROXY_TIMEZONE",
        auto("limits.time_zone", Shape::Zone),
    ),
    seed(
        "FIREWORKS_PROXY_USAGE_STATE",
        auto("limits.usage_state", Shape::Text),
    ),
    seed("FIREWORKS_PROXY_PORT", plain("proxy.port", PORT)),
    plain("proxy.upstream", Shape::Url),
    plain("proxy.largest_body", POSITIVE),
    plain("proxy.stall", SOME_SECONDS),
    plain("proxy.normalize", Shape::Word(NORMALIZE)),
    plain("upstream.connection", Shape::Word(&["pooled", "fresh"])),
    plain("upstream.allow_plain", Shape::Switch),
    plain("host.port", PORT),
    plain("host.grace", SECONDS),
    plain(
        "host.log",
        Shape::Word(&["error", "warn", "info", "debug", "trace"]),
    ),
    plain("terminals.count", Shape::Count { least: 1, most: 99 }),
    plain("terminals.weight", WEIGHT),
    plain("terminals.stagger", SECONDS),
    plain("terminals.prefix", Shape::Key),
    plain("terminals.status_line", Shape::Switch),
    auto("client.command", Shape::Text),
    auto("client.max_steps", POSITIVE),
    plain("client.redirect", Shape::Word(&["overlay", "rewrite"])),
    plain("client.quiet", Shape::Switch),
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn the_table_and_the_defaults_name_the_same_settings() {
        let table: toml::Table = crate::config::DEFAULTS.parse().unwrap();
        let mut documented = BTreeSet::new();
        for (section, inside) in &table {
            for key in inside.as_table().unwrap().keys() {
                documented.insert(format!("{section}.{key}"));
            }
        }
        let known: BTreeSet<String> = SETTINGS.iter().map(|s| s.key.to_owned()).collect();
        assert_eq!(documented, known);
    }

    #[test]
    fn every_seed_variable_is_documented() {
        for setting in SETTINGS {
            if let Some(seed) = setting.seed {
                let short = seed.trim_start_matches("FIREWORKS_PROXY");
                assert!(crate::config::DEFAULTS.contains(short), "{seed}");
            }
        }
    }
}
