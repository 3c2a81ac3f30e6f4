//! What kind of text a string holds, told from samples of it.
//!
//! Looking at every byte would cost more than finding the string's end, so the first 256 bytes of a string and then 64
//! of every 512 are looked at; each sample speaks for its block. Blocks are counted from the string's own beginning,
//! so the result does not depend on how the body was cut.

use crate::usage::{CLASSES, Class, Content};

/// A sample speaks for so many bytes.
const BLOCK: usize = 512;
/// Size of a sample, and of a string's first one.
const SAMPLE: usize = 64;
const FIRST_SAMPLE: usize = 256;

/// Kinds of bytes.
const LETTER: u8 = 0;
const SPACE: u8 = 1;
const DIGIT: u8 = 2;
/// A sign that base64 and the heads of data addresses use, and any other.
const ENCODING: u8 = 3;
const SIGN: u8 = 4;
/// The first byte of a character of three bytes from the CJK planes, and any other byte beyond ASCII.
const CJK: u8 = 5;
const HIGH: u8 = 6;

/// Bits of the counter of one kind: a block's samples are at most 256, so the counters of all kinds fit into one number.
const COUNTER: u8 = 9;

/// One in the counter of the byte's kind.
const ONE: [u64; 256] = ones();

const fn ones() -> [u64; 256] {
    let mut table = [0; 256];
    let mut byte = 0u8;
    loop {
        let kind = match byte {
            b'a'..=b'z' | b'A'..=b'Z' => LETTER,
            b' ' => SPACE,
            b'0'..=b'9' => DIGIT,
            b'+' | b'/' | b'=' | b'-' | b'_' | b':' | b';' | b',' => ENCODING,
            0xE3..=0xED => CJK,
            0x80.. => HIGH,
            _ => SIGN,
        };
        table[byte as usize] = 1 << (kind * COUNTER);
        if byte == u8::MAX {
            return table;
        }
        byte += 1;
    }
}

/// Looks at one string after the other.
#[derive(Debug, Default)]
pub(super) struct Sampler {
    length: usize,
    /// How many bytes of each kind were seen in this block, nine bits each.
    counts: u64,
    bytes: [u64; CLASSES],
    plain: bool,
}

/// What a string was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Told {
    /// Text, by class.
    Text(Content),
    /// A picture or another long encoded piece.
    Encoded,
}

impl Sampler {
    /// Takes the next bytes of the string.
    pub(super) fn take(&mut self, mut run: &[u8]) {
        while !run.is_empty() {
            let at = self.length % BLOCK;
            let (part, rest) = run.split_at(run.len().min(BLOCK - at));
            let sample = if self.length < BLOCK {
                FIRST_SAMPLE
            } else {
                SAMPLE
            };
            let part_of_sample = &part[..part.len().min(sample.saturating_sub(at))];
            let seen = part_of_sample.iter().map(|byte| ONE[usize::from(*byte)]);
            self.counts += seen.sum::<u64>();
            self.length += part.len();
            if self.length.is_multiple_of(BLOCK) {
                self.close(BLOCK);
            }
            run = rest;
        }
    }

    /// The string ended.
    pub(super) fn finish(&mut self) -> Told {
        let rest = self.length % BLOCK;
        if rest > 0 {
            self.close(rest);
        }
        let told = if self.plain || self.length <= FIRST_SAMPLE {
            Told::Text(Content {
                bytes: self.bytes,
                ..Content::default()
            })
        } else {
            Told::Encoded
        };
        *self = Self::default();
        told
    }

    fn close(&mut self, length: usize) {
        let of = |kind: u8| self.counts >> (kind * COUNTER) & ((1 << COUNTER) - 1);
        let seen = (LETTER..=HIGH).map(of).sum::<u64>();
        // Base64 has no blank and no sign beyond a few; prose and code show one within a few bytes.
        self.plain |= of(SPACE) + of(SIGN) + of(CJK) + of(HIGH) > 0;
        let signs = of(SIGN) + of(ENCODING) + of(DIGIT);
        let class = if of(CJK) * 9 > seen {
            Class::Cjk
        } else if signs * 10 <= seen {
            Class::Prose
        } else if (of(DIGIT) * 2 + of(SIGN) + of(ENCODING)) * 2 >= seen {
            Class::Dense
        } else {
            Class::Code
        };
        self.bytes[class as usize] += length as u64;
        self.counts = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(text: &str) -> Told {
        let mut sampler = Sampler::default();
        sampler.take(text.as_bytes());
        sampler.finish()
    }

    fn class(text: &str) -> Option<Class> {
        let Told::Text(content) = told(text) else {
            return None;
        };
        [Class::Prose, Class::Code, Class::Dense, Class::Cjk]
            .into_iter()
            .find(|class| content.bytes[*class as usize] == text.len() as u64)
    }

    #[test]
    fn texts_are_told_apart() {
        for (text, expected) in [
            (
                "The answer is a part of the new bytes, because the client sends it back.",
                Class::Prose,
            ),
            (
                r"    let Some(end) = self.end(\n    &rest[..quote]) else {\n        return;\n    };",
                Class::Code,
            ),
            (
                r"2026-11-20 15:28:43 17 209.5 4096 0.017 1,234 56\n2026-11-20 15:28:44 3 11.25",
                Class::Dense,
            ),
            ("令牌估算器把请求正文的字节数除以学到的比率。", Class::Cjk),
            ("Größere Sätze mit Umlauten sind auch Prosa.", Class::Prose),
        ] {
            assert_eq!(class(text), Some(expected), "{text}");
        }
    }

    #[test]
    fn long_encoded_strings_are_not_text() {
        assert_eq!(told(&"QUJD".repeat(100)), Told::Encoded);
        assert_eq!(
            told(&format!("data:image/png;base64,{}", "QUJD".repeat(1000))),
            Told::Encoded
        );
        assert!(matches!(told(&"QUJD".repeat(60)), Told::Text(_)));
        let late = format!("{} and words", "QUJD".repeat(300));
        assert!(class(&late).is_none());
        assert_eq!(told(""), Told::Text(Content::default()));
    }
}
