//! What a setting may hold, and how text or TOML becomes it.
//!
//! A shape is checked where the value is given. `auto` is a value of its own: kimiq learns or asks the system.

use std::fmt;

/// A checked value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Learned, or asked from the system.
    Auto,
    /// A whole number.
    Count(u64),
    /// A number with a fraction: seconds, ratios.
    Amount(f64),
    /// A switch.
    Switch(bool),
    /// Words.
    Text(String),
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("\"auto\""),
            Self::Count(n) => write!(f, "{n}"),
            Self::Amount(n) => write!(f, "{n}"),
            Self::Switch(on) => write!(f, "{on}"),
            Self::Text(text) => write!(f, "{text:?}"),
        }
    }
}

/// What a setting takes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Shape {
    /// A whole number within bounds.
    Count {
        /// Smallest value.
        least: u64,
        /// Largest value.
        most: u64,
    },
    /// A number above zero and up to `most`.
    Above {
        /// Largest value.
        most: f64,
    },
    /// A number from zero up to `most`.
    From0 {
        /// Largest value.
        most: f64,
    },
    /// `true` or `false`.
    Switch,
    /// Any text.
    Text,
    /// One of a few words.
    Word(&'static [&'static str]),
    /// An IANA time zone.
    Zone,
    /// An address that starts with `http://` or `https://`, or nothing.
    Url,
    /// A prefix key such as `ctrl-b`.
    Key,
}

impl Shape {
    /// Reads text from the environment or a flag.
    pub fn read_text(self, text: &str, auto: bool) -> Result<Value, String> {
        let text = text.trim();
        if auto && text.eq_ignore_ascii_case("auto") {
            return Ok(Value::Auto);
        }
        let value = match self {
            Self::Count { .. } => text.replace('_', "").parse().ok().map(Value::Count),
            Self::Above { .. } | Self::From0 { .. } => text.parse().ok().map(Value::Amount),
            Self::Switch => match text.to_ascii_lowercase().as_str() {
                "true" | "1" | "yes" | "on" => Some(Value::Switch(true)),
                "false" | "0" | "no" | "off" => Some(Value::Switch(false)),
                _ => None,
            },
            Self::Text | Self::Word(_) | Self::Zone | Self::Url | Self::Key => {
                Some(Value::Text(text.to_owned()))
            }
        };
        value
            .filter(|value| self.takes(value))
            .ok_or_else(|| self.expected(auto))
    }

    /// Reads a value of the settings file.
    pub fn read_toml(self, found: &toml::Value, auto: bool) -> Result<Value, String> {
        let value = match (self, found) {
            (Self::Above { .. } | Self::From0 { .. }, toml::Value::Float(n)) => {
                Some(Value::Amount(*n))
            }
            (Self::Above { .. } | Self::From0 { .. }, toml::Value::Integer(n)) => {
                i32::try_from(*n).ok().map(|n| Value::Amount(n.into()))
            }
            (Self::Count { .. }, toml::Value::Integer(n)) => {
                u64::try_from(*n).ok().map(Value::Count)
            }
            (Self::Switch, toml::Value::Boolean(on)) => Some(Value::Switch(*on)),
            (_, toml::Value::String(text)) => return self.read_text(text, auto),
            _ => None,
        };
        value
            .filter(|value| self.takes(value))
            .ok_or_else(|| self.expected(auto))
    }

    fn takes(self, value: &Value) -> bool {
        match (self, value) {
            (Self::Count { least, most }, Value::Count(n)) => (least..=most).contains(n),
            (Self::Above { most }, Value::Amount(n)) => *n > 0.0 && *n <= most,
            (Self::From0 { most }, Value::Amount(n)) => *n >= 0.0 && *n <= most,
            (Self::Switch, Value::Switch(_)) | (Self::Text, Value::Text(_)) => true,
            (Self::Word(words), Value::Text(text)) => words.contains(&text.as_str()),
            (Self::Zone, Value::Text(text)) => text.parse::<chrono_tz::Tz>().is_ok(),
            (Self::Url, Value::Text(text)) => is_url(text),
            (Self::Key, Value::Text(text)) => is_key(text),
            _ => false,
        }
    }

    /// What the setting takes, as the end of a sentence.
    pub fn expected(self, auto: bool) -> String {
        let plain = match self {
            Self::Count {
                least,
                most: u64::MAX,
            } => format!("a whole number from {least}"),
            Self::Count { least, most } => format!("a whole number from {least} to {most}"),
            Self::Above { most } => format!("a number above 0 and up to {most}"),
            Self::From0 { most } => format!("a number from 0 to {most}"),
            Self::Switch => "true or false".to_owned(),
            Self::Text => "text".to_owned(),
            Self::Word(words) => format!("one of {}", words.join(", ")),
            Self::Zone => "an IANA time zone such as Europe/Berlin".to_owned(),
            Self::Url => "an address such as https://api.fireworks.ai/inference".to_owned(),
            Self::Key => "a control key such as ctrl-b".to_owned(),
        };
        if auto {
            format!("{plain}, or auto")
        } else {
            plain
        }
    }
}

fn is_url(text: &str) -> bool {
    text.parse::<http::Uri>().is_ok_and(|uri| {
        matches!(uri.scheme_str(), Some("http" | "https"))
            && uri.host().is_some_and(|host| !host.is_empty())
    })
}

fn is_key(text: &str) -> bool {
    let lower = text.to_ascii_lowercase();
    let letter = lower
        .strip_prefix("ctrl-")
        .or_else(|| lower.strip_prefix("c-"));
    letter.is_some_and(|letter| letter.len() == 1 && letter.bytes().all(|b| b.is_ascii_lowercase()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(shape: Shape, text: &str, expected: Option<Value>) {
        assert_eq!(
            shape.read_text(text, true).ok(),
            expected,
            "{shape:?} {text}"
        );
    }

    #[test]
    fn text_becomes_a_value_only_when_it_fits() {
        let count = Shape::Count {
            least: 1,
            most: 65535,
        };
        check(count, "8787", Some(Value::Count(8787)));
        check(count, " 8_787 ", Some(Value::Count(8787)));
        check(count, "0", None);
        check(count, "70000", None);
        check(count, "-1", None);
        check(count, "AUTO", Some(Value::Auto));
        let ratio = Shape::Above { most: 1.0 };
        check(ratio, "0.9", Some(Value::Amount(0.9)));
        check(ratio, "1", Some(Value::Amount(1.0)));
        check(ratio, "0", None);
        check(ratio, "NaN", None);
        check(Shape::Switch, "on", Some(Value::Switch(true)));
        check(Shape::Switch, "maybe", None);
        check(
            Shape::Zone,
            "Asia/Tokyo",
            Some(Value::Text("Asia/Tokyo".into())),
        );
        check(Shape::Zone, "Mars/Olympus", None);
        check(Shape::Url, "ftp://x", None);
        check(
            Shape::Url,
            "http://127.0.0.1:1/v1",
            Some(Value::Text("http://127.0.0.1:1/v1".into())),
        );
        check(Shape::Key, "ctrl-a", Some(Value::Text("ctrl-a".into())));
        check(Shape::Key, "F13", None);
        check(Shape::Word(&["a", "b"]), "c", None);
    }

    #[test]
    fn toml_of_the_wrong_type_is_refused() {
        let shape = Shape::Count { least: 0, most: 10 };
        assert!(shape.read_toml(&toml::Value::Float(1.0), false).is_err());
        assert_eq!(
            shape.read_toml(&toml::Value::String("7".into()), false),
            Ok(Value::Count(7))
        );
        assert!(
            shape
                .read_toml(&toml::Value::String("auto".into()), false)
                .is_err()
        );
    }
}
