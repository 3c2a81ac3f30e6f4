//! Resolved settings as the plain options of each room.

use std::path::PathBuf;

use chrono_tz::Tz;

use crate::config::Paths;
use crate::config::Resolved;
use crate::limits;
use crate::limits::Ratio;
use crate::proxy;
use crate::proxy::Normalize;
use crate::proxy::Repairing;
use crate::tui::Prefix;
use crate::upstream::ClientOptions;
use crate::upstream::Upstream;
use crate::usage::Dimensions;

/// Parts per million: ratios reach the limiter as whole numbers.
const MILLION: f64 = 1e6;

/// The zone of the calendar day: the setting's, else the system's, else UTC.
pub(crate) fn zone(settings: &Resolved) -> Tz {
    let named = settings
        .text("limits.time_zone")
        .and_then(|name| name.parse().ok());
    named.unwrap_or_else(|| match iana_time_zone::get_timezone() {
        Ok(name) => name.parse().unwrap_or_else(|_| {
            tracing::warn!(%name, "the system's time zone is not known; the day is UTC's");
            Tz::UTC
        }),
        Err(error) => {
            tracing::warn!(%error, "the system names no time zone; the day is UTC's");
            Tz::UTC
        }
    })
}

/// The limiter's options.
pub(crate) fn limits(settings: &Resolved, zone: Tz) -> limits::Options {
    let usual = limits::Options::default();
    let budget = |name: &str, usual: u64| {
        let key = format!("limits.{name}");
        let value = settings.count(&key).unwrap_or(usual);
        (value, settings.is_set(&key).then_some(value))
    };
    let prompt = budget("prompt_per_minute", usual.start.prompt);
    let uncached = budget("uncached_prompt_per_minute", usual.start.uncached);
    let generated = budget("generated_per_minute", usual.start.generated);
    limits::Options {
        requests_per_second: settings
            .count("limits.requests_per_second")
            .and_then(|rate| u32::try_from(rate).ok())
            .unwrap_or(usual.requests_per_second),
        window: settings.span("limits.window").unwrap_or(usual.window),
        guard: settings.span("limits.guard"),
        start: Dimensions {
            prompt: prompt.0,
            uncached: uncached.0,
            generated: generated.0,
        },
        ceilings: Dimensions {
            prompt: prompt.1,
            uncached: uncached.1,
            generated: generated.1,
        },
        ratio: settings
            .amount("limits.safety_ratio")
            .map_or(usual.ratio, |ratio| Ratio::Fixed(ppm(ratio))),
        output_reserve: settings.count("limits.output_reserve"),
        daily_cap: settings
            .count("limits.daily_tokens")
            .unwrap_or(usual.daily_cap),
        daily_warn_ppm: settings
            .amount("limits.daily_warn_ratio")
            .map_or(usual.daily_warn_ppm, ppm),
        zone,
        ..usual
    }
}

/// Thousandths of a character per token, if the user fixed them.
pub(crate) fn chars_per_token(settings: &Resolved) -> Option<u64> {
    let chars = settings.amount("limits.chars_per_token")?;
    Some(u64::from(ppm(chars) / 1000).max(1))
}

/// The proxy's options.
pub(crate) fn proxy(settings: &Resolved) -> proxy::Options {
    let usual = proxy::Options::default();
    proxy::Options {
        max_wait: settings.span("limits.max_wait"),
        largest_body: settings
            .count("proxy.largest_body")
            .unwrap_or(usual.largest_body),
        stall: settings.span("proxy.stall").unwrap_or(usual.stall),
        ..usual
    }
}

/// How answers of Kimi models are repaired.
pub(crate) fn repairing(settings: &Resolved) -> Repairing {
    let usual = settings.text("proxy.normalize").and_then(Normalize::of);
    let named = settings.normalize().iter();
    let models = named.filter_map(|(model, word)| Some((model.clone(), Normalize::of(word)?)));
    Repairing::new(usual.unwrap_or_default(), models.collect())
}

/// How connections to upstreams are made.
pub(crate) fn connections(settings: &Resolved) -> ClientOptions {
    ClientOptions {
        always_fresh: settings.text("upstream.connection") == Some("fresh"),
        ..ClientOptions::default()
    }
}

/// An upstream with the key that the settings name for its host, if they name one.
pub(crate) fn upstream(
    settings: &Resolved,
    name: &str,
    base: &str,
) -> Result<Upstream, crate::upstream::AddressError> {
    let upstream = Upstream::parse(name, base, settings.switch("upstream.allow_plain"))?;
    match settings.key_for(upstream.host()) {
        Some(key) => upstream.with_key(key.reveal()),
        None => Ok(upstream),
    }
}

/// The ledger's file. Hosts of one user share it, except a demo: its tokens are not real.
pub(crate) fn ledger_file(settings: &Resolved, paths: &Paths, name: &str, demo: bool) -> PathBuf {
    if demo {
        return paths.instance_state(name).join("usage.json");
    }
    match settings.text("limits.usage_state") {
        // A background host has no working folder of the user's.
        Some(given) => Paths::absolute(&paths.state, given),
        None => paths.state.join("usage.json"),
    }
}

/// The window's prefix key.
pub(crate) fn prefix(settings: &Resolved) -> Prefix {
    settings
        .text("terminals.prefix")
        .and_then(Prefix::parse)
        .unwrap_or_default()
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "settings are checked to be between 0 and 100, which fits in millionths"
)]
fn ppm(ratio: f64) -> u32 {
    (ratio * MILLION).round() as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;
    use crate::config::Environment;

    fn resolved(env: &[(&str, &str)]) -> Resolved {
        let env: Environment = env
            .iter()
            .copied()
            .chain([("KIMIQ_HOME", "/nowhere/kimiq")])
            .collect();
        config::resolve(&Paths::find(&env).unwrap(), &env, &[]).unwrap()
    }

    #[test]
    fn nothing_set_gives_the_documented_defaults() {
        let settings = resolved(&[]);
        assert_eq!(limits(&settings, Tz::UTC), limits::Options::default());
        assert_eq!(chars_per_token(&settings), None);
        let made = proxy(&settings);
        let usual = proxy::Options::default();
        assert_eq!(
            (made.max_wait, made.largest_body, made.stall),
            (usual.max_wait, usual.largest_body, usual.stall)
        );
        assert!(!connections(&settings).always_fresh);
        let ledger = ledger_file(
            &settings,
            &Paths::find(&[("KIMIQ_HOME", "/k")].into_iter().collect()).unwrap(),
            "x",
            false,
        );
        assert_eq!(ledger, std::path::Path::new("/k/state/usage.json"));
    }

    #[test]
    fn the_first_proxys_variables_keep_their_meaning() {
        let settings = resolved(&[
            ("FIREWORKS_PROXY_RPS", "7"),
            ("FIREWORKS_PROXY_PROMPT_TPM_LIMIT", "100"),
            ("FIREWORKS_PROXY_UNCACHED_PROMPT_TPM_LIMIT", "50"),
            ("FIREWORKS_PROXY_GENERATED_TPM_LIMIT", "10"),
            ("FIREWORKS_PROXY_TPM_SAFETY_RATIO", "0.8"),
            ("FIREWORKS_PROXY_OUTPUT_TOKEN_RESERVE", "5"),
            ("FIREWORKS_PROXY_CHARS_PER_TOKEN", "4"),
            ("FIREWORKS_PROXY_DAILY_TOKEN_LIMIT", "1000"),
            ("FIREWORKS_PROXY_DAILY_TOKEN_WARN_RATIO", "0.5"),
            ("FIREWORKS_PROXY_MAX_WAIT", "90"),
            ("FIREWORKS_PROXY_TIMEZONE", "Asia/Tokyo"),
            ("FIREWORKS_PROXY_USAGE_STATE", "/u.json"),
            ("FIREWORKS_PROXY_PORT", "9000"),
            ("KIMIQ_PROXY_LARGEST_BODY", "5"),
            ("KIMIQ_PROXY_STALL", "7.5"),
        ]);
        let zone = zone(&settings);
        assert_eq!(zone, Tz::Asia__Tokyo);
        let made = limits(&settings, zone);
        let start = Dimensions {
            prompt: 100,
            uncached: 50,
            generated: 10,
        };
        assert_eq!(made.start, start);
        let ceilings = Dimensions {
            prompt: Some(100),
            uncached: Some(50),
            generated: Some(10),
        };
        assert_eq!(made.ceilings, ceilings, "set by the user is a ceiling");
        assert_eq!(
            (made.requests_per_second, made.ratio),
            (7, Ratio::Fixed(800_000))
        );
        assert_eq!(
            (made.output_reserve, made.daily_cap, made.daily_warn_ppm),
            (Some(5), 1000, 500_000)
        );
        assert_eq!(chars_per_token(&settings), Some(4000));
        assert_eq!(
            proxy(&settings).max_wait,
            Some(std::time::Duration::from_secs(90))
        );
        assert_eq!(proxy(&settings).largest_body, 5);
        assert_eq!(
            proxy(&settings).stall,
            std::time::Duration::from_millis(7500)
        );
        let paths = Paths::find(&[("KIMIQ_HOME", "/k")].into_iter().collect()).unwrap();
        assert_eq!(
            ledger_file(&settings, &paths, "x", false),
            std::path::Path::new("/u.json")
        );
        assert_eq!(
            ledger_file(&settings, &paths, "x", true),
            std::path::Path::new("/k/state/hosts/x/usage.json")
        );
        assert_eq!(settings.count("proxy.port"), Some(9000));
    }
}
