//! A JSON text checked byte by byte: where it stands, where its first value ends, and whether it is still JSON.
//!
//! The walk holds a few words of state whatever arrives, so an argument text can be judged while it streams. It is strict
//! but for one thing that its owner repairs: raw control characters inside strings are told apart and not refused.

/// Deepest nesting that is followed; no tool's arguments come near it.
const DEEPEST: u32 = u128::BITS;

/// What a byte was in the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// It goes on as JSON.
    Fine,
    /// A raw control character inside a string.
    Control,
    /// It ended the outermost value.
    Complete,
    /// A blank or anything else behind the outermost value.
    Beyond,
    /// It makes the text no JSON.
    Broken,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum At {
    /// Before a value.
    #[default]
    Value,
    /// Behind `[`: a value or the end.
    FirstItem,
    /// Behind `{`: a key or the end.
    FirstKey,
    /// Behind a comma in an object.
    Key,
    Colon,
    /// Behind a value inside a container.
    After,
    Text,
    Escape,
    /// Hex digits still to come.
    Unicode(u8),
    /// The rest of `true`, `false`, `null`.
    Word(&'static [u8]),
    Minus,
    Zero,
    Digits,
    Point,
    Fraction,
    Exponent,
    Sign,
    Power,
    Done,
    Broken,
}

/// The state of the walk.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Grammar {
    at: At,
    depth: u32,
    /// One bit for each open container, the innermost lowest: whether it is an object.
    objects: u128,
    in_key: bool,
}

impl Grammar {
    /// Takes the next byte.
    pub(super) fn step(&mut self, byte: u8) -> Step {
        match self.at {
            At::Done => return Step::Beyond,
            At::Text if byte < b' ' => return Step::Control,
            _ => {}
        }
        let done = self.next(byte);
        match self.at {
            At::Broken => Step::Broken,
            At::Done if done => Step::Complete,
            _ => Step::Fine,
        }
    }

    /// Whether the walk is inside a string, where most bytes are plain.
    pub(super) fn in_text(&self) -> bool {
        self.at == At::Text
    }

    /// How deep the walk is.
    pub(super) fn depth(&self) -> u32 {
        self.depth
    }

    /// Whether the walk stands behind a whole member or item.
    pub(super) fn after_value(&self) -> bool {
        self.at == At::After
    }

    /// Whether the walk has just opened a container.
    pub(super) fn opened(&self) -> bool {
        matches!(self.at, At::FirstKey | At::FirstItem)
    }

    /// The bytes that close what is open, innermost first.
    pub(super) fn closers(&self) -> impl Iterator<Item = u8> + use<> {
        let objects = self.objects;
        (0..self.depth).map(move |level| {
            if objects >> level & 1 == 1 {
                b'}'
            } else {
                b']'
            }
        })
    }

    /// Moves on; whether this byte may have completed the outermost value.
    fn next(&mut self, byte: u8) -> bool {
        let blank = matches!(byte, b' ' | b'\t' | b'\n' | b'\r');
        self.at = match (self.at, byte) {
            (At::Text, b'"') if self.in_key => At::Colon,
            (At::Text, b'"') => return self.value_ended(),
            (At::Text, b'\\') => At::Escape,
            (At::Text, _) => At::Text,
            (At::Escape, b'u') => At::Unicode(4),
            (At::Escape, b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => At::Text,
            (At::Unicode(1), _) if byte.is_ascii_hexdigit() => At::Text,
            (At::Unicode(left), _) if byte.is_ascii_hexdigit() => At::Unicode(left - 1),
            (At::Value | At::FirstItem, _) if !blank && byte != b']' => self.value(byte),
            (At::FirstItem, b']') | (At::FirstKey, b'}') => return self.close(byte),
            (At::FirstKey | At::Key, b'"') => {
                self.in_key = true;
                At::Text
            }
            (At::Colon, b':') => At::Value,
            (At::After, _) if !blank => return self.after(byte),
            (At::Word(rest), _) if rest.first() == Some(&byte) => match &rest[1..] {
                [] => return self.value_ended(),
                rest => At::Word(rest),
            },
            (At::Minus, b'0') => At::Zero,
            (At::Minus, b'1'..=b'9') | (At::Digits, b'0'..=b'9') => At::Digits,
            (At::Zero | At::Digits, b'.') => At::Point,
            (At::Point | At::Fraction, b'0'..=b'9') => At::Fraction,
            (At::Zero | At::Digits | At::Fraction, b'e' | b'E') => At::Exponent,
            (At::Exponent, b'+' | b'-') => At::Sign,
            (At::Exponent | At::Sign | At::Power, b'0'..=b'9') => At::Power,
            // A number has no end of its own; only inside a container is its end told by what follows.
            (At::Zero | At::Digits | At::Fraction | At::Power, _) if self.depth > 0 => {
                self.at = At::After;
                return if blank { false } else { self.after(byte) };
            }
            (At::Value | At::FirstItem | At::FirstKey | At::Key | At::Colon | At::After, _)
                if blank =>
            {
                self.at
            }
            _ => At::Broken,
        };
        false
    }

    fn value(&mut self, byte: u8) -> At {
        match byte {
            b'{' | b'[' if self.depth == DEEPEST => At::Broken,
            b'{' => self.open(true),
            b'[' => self.open(false),
            b'"' => {
                self.in_key = false;
                At::Text
            }
            b't' => At::Word(b"rue"),
            b'f' => At::Word(b"alse"),
            b'n' => At::Word(b"ull"),
            b'-' => At::Minus,
            b'0' => At::Zero,
            b'1'..=b'9' => At::Digits,
            _ => At::Broken,
        }
    }

    fn open(&mut self, object: bool) -> At {
        self.depth += 1;
        self.objects = self.objects << 1 | u128::from(object);
        if object { At::FirstKey } else { At::FirstItem }
    }

    fn after(&mut self, byte: u8) -> bool {
        self.at = match (byte, self.objects & 1 == 1) {
            (b',', true) => At::Key,
            (b',', false) => At::Value,
            (b'}', true) | (b']', false) => return self.close(byte),
            _ => At::Broken,
        };
        false
    }

    fn close(&mut self, _byte: u8) -> bool {
        self.depth -= 1;
        self.objects >>= 1;
        self.value_ended()
    }

    fn value_ended(&mut self) -> bool {
        self.at = if self.depth == 0 { At::Done } else { At::After };
        self.depth == 0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The end of the first value, if the text holds a whole one.
    fn end(text: &[u8]) -> Option<usize> {
        let mut grammar = Grammar::default();
        for (at, byte) in text.iter().enumerate() {
            match grammar.step(*byte) {
                Step::Complete => return Some(at + 1),
                Step::Broken | Step::Control => return None,
                Step::Fine | Step::Beyond => {}
            }
        }
        None
    }

    #[test]
    fn the_first_value_ends_where_it_should() {
        for (text, expected) in [
            (r#"{"a":1}"#, Some(7)),
            (
                r#" {"a":[1,-2.5e+3,{"b":"}]\""}], "c" : null } x"#,
                Some(44),
            ),
            (r#""{\"a\"}" tail"#, Some(9)),
            ("{}{}", Some(2)),
            ("[]", Some(2)),
            ("null", Some(4)),
            (r#"{"a":1"#, None),
            (r#"{"a":01}"#, None),
            (r#"{"a":1,}"#, None),
            (r"{a:1}", None),
            (r#"{"a" 1}"#, None),
            (r#"{"a":tru}"#, None),
            (r#"{"a":"\d"}"#, None),
            (r#"{"a":"\u12g4"}"#, None),
            (r#"{"a":1.}"#, None),
            ("{]", None),
            ("[}", None),
            ("[1,]", None),
            ("12", None),
        ] {
            assert_eq!(end(text.as_bytes()), expected, "{text}");
        }
        assert_eq!(end("[".repeat(129).as_bytes()), None);
        let deep = "[".repeat(128) + &"]".repeat(128);
        assert_eq!(end(deep.as_bytes()), Some(256));
    }

    #[test]
    fn what_is_open_can_be_closed() {
        let mut grammar = Grammar::default();
        for byte in br#"{"a":[{"b":1"# {
            grammar.step(*byte);
        }
        assert_eq!(grammar.closers().collect::<Vec<_>>(), b"}]}");
    }

    proptest! {
        #[test]
        fn strict_readers_agree(text in "[{\\[]([{}\\[\\],:\" ]|\"[ab\\\\nu0]{0,3}\"|-?[0-9.e]{1,4}|true|null){0,14}[}\\]]") {
            let strict = serde_json::from_str::<serde_json::Value>(&text).is_ok();
            prop_assert_eq!(end(text.as_bytes()) == Some(text.len()), strict, "{}", text);
        }
    }
}
