//! Figures as a person reads them; every place that shows one takes it from here.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How much of something is used, in percent; never above 100, and of nothing all is used.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Share(u8);

impl Share {
    /// `part` of `whole`, rounded down.
    pub fn of(part: u64, whole: u64) -> Self {
        let percent = (u128::from(part) * 100).checked_div(u128::from(whole));
        Self(percent.map_or(100, |percent| u8::try_from(percent.min(100)).unwrap_or(100)))
    }

    /// The percentage, 0 to 100.
    pub fn percent(self) -> u8 {
        self.0
    }

    /// Nothing is left.
    pub fn is_full(self) -> bool {
        self.0 >= 100
    }
}

impl fmt::Display for Share {
    /// `37 %`, or `full`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_full() {
            f.pad("full")
        } else {
            f.pad(&format!("{} %", self.0))
        }
    }
}

/// Thousands with a mark between: 1234567 becomes `1,234,567`.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A count in at most five characters: `950`, `12.3k`, `4.5M`.
pub fn short(count: u64) -> String {
    for (unit, name) in [(1_000_000_000, "G"), (1_000_000, "M"), (1_000, "k")] {
        if count >= unit {
            let tenths = count / (unit / 10);
            return if tenths >= 1000 || tenths.is_multiple_of(10) {
                format!("{}{name}", tenths / 10)
            } else {
                format!("{}.{}{name}", tenths / 10, tenths % 10)
            };
        }
    }
    count.to_string()
}

/// A time to come, rounded up: `12 s`, `3 min`, `5 h`.
pub fn time(milliseconds: u64) -> String {
    let seconds = milliseconds.div_ceil(1000);
    match seconds {
        0..=99 => format!("{seconds} s"),
        100..=5_940 => format!("{} min", seconds.div_ceil(60)),
        _ => format!("{} h", seconds.div_ceil(3600)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_never_exceed_the_whole() {
        for (part, whole, expected) in [
            (0, 100, "0 %"),
            (37, 100, "37 %"),
            (999, 1000, "99 %"),
            (1000, 1000, "full"),
            (94_158, 1, "full"),
            (u64::MAX, 3, "full"),
            (5, 0, "full"),
            (0, 0, "full"),
        ] {
            assert_eq!(Share::of(part, whole).to_string(), expected);
        }
        assert_eq!(format!("{:>6}|", Share::of(1, 2)), "  50 %|");
        assert_eq!(serde_json::to_string(&Share::of(255, 100)).unwrap(), "100");
    }

    #[test]
    fn numbers_are_grouped() {
        for (number, expected) in [
            (0, "0"),
            (999, "999"),
            (1000, "1,000"),
            (1_234_567, "1,234,567"),
        ] {
            assert_eq!(grouped(number), expected);
        }
    }

    #[test]
    fn counts_are_short() {
        for (count, expected) in [
            (0, "0"),
            (999, "999"),
            (1000, "1k"),
            (12_345, "12.3k"),
            (123_456, "123k"),
            (4_500_000, "4.5M"),
            (200_000_000, "200M"),
            (1_250_000_000, "1.2G"),
        ] {
            assert_eq!(short(count), expected);
        }
    }

    #[test]
    fn times_are_round() {
        for (milliseconds, expected) in [
            (0, "0 s"),
            (1, "1 s"),
            (11_001, "12 s"),
            (99_000, "99 s"),
            (99_001, "2 min"),
            (5_940_000, "99 min"),
            (9_900_000, "3 h"),
        ] {
            assert_eq!(time(milliseconds), expected);
        }
    }
}
