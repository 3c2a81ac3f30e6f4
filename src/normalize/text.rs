//! Text as JSON carries it, half characters included.
//!
//! JSON may escape a character beyond the basic plane as two surrogates, and providers that cut text by UTF-16 units
//! put the two halves into two deltas. No Rust string can hold a half, so a text is a byte string in generalised UTF-8
//! ("WTF-8"): halves are three bytes each, and two halves that meet become the one character that they are. A half
//! that never meets its other half survives as it came.

use std::fmt;

/// A text in generalised UTF-8.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct Text(Vec<u8>);

impl Text {
    /// Reads a JSON string with its quotes; `None` if it is none. Raw control characters are taken as they are, which
    /// strict readers refuse.
    pub fn from_json(raw: &str) -> Option<Self> {
        let inner = raw.strip_prefix('"')?.strip_suffix('"')?.as_bytes();
        let mut text = Self(Vec::with_capacity(inner.len()));
        let mut rest = inner;
        while let Some(at) = memchr::memchr2(b'\\', b'"', rest) {
            text.0.extend_from_slice(&rest[..at]);
            if rest[at] == b'"' {
                return None;
            }
            let (&escape, after) = rest[at + 1..].split_first()?;
            rest = after;
            match escape {
                b'"' | b'\\' | b'/' => text.0.push(escape),
                b'b' => text.0.push(8),
                b'f' => text.0.push(12),
                b'n' => text.0.push(b'\n'),
                b'r' => text.0.push(b'\r'),
                b't' => text.0.push(b'\t'),
                b'u' => {
                    let digits = std::str::from_utf8(rest.get(..4)?).ok()?;
                    text.push_unit(u16::from_str_radix(digits, 16).ok()?);
                    rest = &rest[4..];
                }
                _ => return None,
            }
        }
        text.0.extend_from_slice(rest);
        Some(text)
    }

    /// Appends this text as a JSON string with its quotes.
    pub fn write_json(&self, out: &mut Vec<u8>) {
        const HEX: &[u8; 16] = b"0123456789abcdef";
        out.push(b'"');
        let mut from = 0;
        let mut at = 0;
        while at < self.0.len() {
            let byte = self.0[at];
            let half = self.half_at(at);
            if byte >= b' ' && byte != b'"' && byte != b'\\' && half.is_none() {
                at += 1;
                continue;
            }
            out.extend_from_slice(&self.0[from..at]);
            match byte {
                b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
                b'\n' => out.extend_from_slice(b"\\n"),
                b'\r' => out.extend_from_slice(b"\\r"),
                b'\t' => out.extend_from_slice(b"\\t"),
                _ => {
                    let unit = half.unwrap_or(u16::from(byte));
                    out.extend_from_slice(b"\\u");
                    for shift in [12, 8, 4, 0] {
                        out.push(HEX[usize::from(unit >> shift & 15)]);
                    }
                }
            }
            at += if half.is_some() { 3 } else { 1 };
            from = at;
        }
        out.extend_from_slice(&self.0[from..]);
        out.push(b'"');
    }

    /// Whether there is no text.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The bytes, which are UTF-8 unless a half character is among them.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Makes a text of bytes that were taken from texts.
    pub fn from_bytes(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// Appends another text; halves that meet are joined.
    pub fn push(&mut self, other: &[u8]) {
        if let Some(high) = self.high_at_end()
            && let Some(low) = half(other)
            && (0xDC00..0xE000).contains(&low)
        {
            self.0.truncate(self.0.len() - 3);
            self.push_scalar(high, low);
            self.0.extend_from_slice(&other[3..]);
        } else {
            self.0.extend_from_slice(other);
        }
    }

    #[must_use]
    /// Takes the half character at the end away, if its other half may still come.
    pub fn split_half(&mut self) -> Self {
        let at = self.0.len() - if self.high_at_end().is_some() { 3 } else { 0 };
        Self(self.0.split_off(at))
    }

    /// As a string, with a replacement character for each lone half.
    pub fn to_string_lossy(&self) -> String {
        let mut clean = Vec::with_capacity(self.0.len());
        let mut at = 0;
        while at < self.0.len() {
            if self.half_at(at).is_some() {
                clean.extend_from_slice("\u{fffd}".as_bytes());
                at += 3;
            } else {
                clean.push(self.0[at]);
                at += 1;
            }
        }
        String::from_utf8_lossy(&clean).into_owned()
    }

    fn push_unit(&mut self, unit: u16) {
        let bytes = match char::from_u32(u32::from(unit)) {
            Some(char) => char.encode_utf8(&mut [0; 4]).as_bytes().to_vec(),
            None => half_bytes(unit).to_vec(),
        };
        self.push(&bytes);
    }

    fn push_scalar(&mut self, high: u16, low: u16) {
        let joined = char::decode_utf16([high, low]).next();
        if let Some(Ok(char)) = joined {
            self.0
                .extend_from_slice(char.encode_utf8(&mut [0; 4]).as_bytes());
        }
    }

    fn high_at_end(&self) -> Option<u16> {
        let at = self.0.len().checked_sub(3)?;
        self.half_at(at).filter(|unit| *unit < 0xDC00)
    }

    fn half_at(&self, at: usize) -> Option<u16> {
        half(&self.0[at..])
    }
}

/// The surrogate with which these bytes begin.
fn half(bytes: &[u8]) -> Option<u16> {
    match *bytes {
        [0xED, second @ 0xA0..=0xBF, third, ..] => {
            Some(0xD000 | u16::from(second & 0x3F) << 6 | u16::from(third & 0x3F))
        }
        _ => None,
    }
}

fn half_bytes(unit: u16) -> [u8; 3] {
    let [high, low] = unit.to_be_bytes();
    [
        0xED,
        0x80 | (high & 0x0F) << 2 | low >> 6,
        0x80 | low & 0x3F,
    ]
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        Self(text.as_bytes().to_vec())
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.to_string_lossy(), formatter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(text: &Text) -> String {
        let mut out = Vec::new();
        text.write_json(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn escapes_are_read_and_written() {
        for (raw, text, written) in [
            (r#""a\n\"\\\/""#, "a\n\"\\/", r#""a\n\"\\/""#),
            (r#""\u003c|x""#, "<|x", r#""<|x""#),
            (r#""\ud83c\udf0a é""#, "🌊 é", r#""🌊 é""#),
            (r#""\u0001\b""#, "\u{1}\u{8}", r#""\u0001\u0008""#),
        ] {
            let read = Text::from_json(raw).unwrap();
            assert_eq!(read, Text::from(text));
            assert_eq!(json(&read), written);
        }
        for broken in [r#""\x""#, r#""\u12""#, "a", r#""\""#, r#""a"b""#, ""] {
            assert_eq!(Text::from_json(broken), None, "{broken}");
        }
    }

    #[test]
    fn halves_survive_and_join() {
        let mut text = Text::from_json(r#""sea \ud83c""#).unwrap();
        assert_eq!(json(&text), r#""sea \ud83c""#);
        let half = text.split_half();
        assert_eq!(json(&text), r#""sea ""#);
        let mut joined = half.clone();
        joined.push(Text::from_json(r#""\udf0a ok""#).unwrap().as_bytes());
        assert_eq!(joined, Text::from("🌊 ok"));
        let lone = Text::from_json(r#""\udf0a\ud83c x""#).unwrap();
        assert_eq!(json(&lone), r#""\udf0a\ud83c x""#);
        assert_eq!(lone.to_string_lossy(), "\u{fffd}\u{fffd} x");
    }
}
