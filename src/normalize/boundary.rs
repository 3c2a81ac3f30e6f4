//! Where a JSON value ends, told while it streams.
//!
//! Argument text stands between markers, and a marker inside a string is data. So the reader of markers needs to know
//! whether it is in a string, and whether the value is complete; more of JSON is not understood here.

use memchr::memchr2;

/// Follows one value.
#[derive(Clone, Debug, Default)]
pub(super) struct Boundary {
    depth: u32,
    in_string: bool,
    escaped: bool,
    state: State,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// Only blanks so far.
    #[default]
    Before,
    Inside,
    /// A bare word or number, which ends where a blank or a marker comes; or no JSON at all.
    Word,
    Complete,
}

impl Boundary {
    /// Takes bytes up to the first `<` that is no data, or up to the end of the value, or all; tells how many.
    pub(super) fn take(&mut self, bytes: &[u8]) -> usize {
        let mut at = 0;
        while at < bytes.len() && self.state != State::Complete {
            if self.in_string {
                at += self.string(&bytes[at..]);
                continue;
            }
            match bytes[at] {
                b'<' => return at,
                byte => self.outside(byte),
            }
            at += 1;
        }
        at
    }

    /// Takes a byte that looked like a marker and is none.
    pub(super) fn take_one(&mut self, byte: u8) {
        if !self.in_string && self.state != State::Complete {
            self.outside(byte);
        }
    }

    /// Whether only blanks came.
    pub(super) fn is_empty(&self) -> bool {
        self.state == State::Before
    }

    /// Whether an object, array or string is complete.
    pub(super) fn is_complete(&self) -> bool {
        self.state == State::Complete
    }

    fn string(&mut self, bytes: &[u8]) -> usize {
        let mut at = 0;
        while at < bytes.len() {
            if std::mem::take(&mut self.escaped) {
                at += 1;
                continue;
            }
            let Some(next) = memchr2(b'"', b'\\', &bytes[at..]) else {
                return bytes.len();
            };
            at += next + 1;
            if bytes[at - 1] == b'\\' {
                self.escaped = true;
            } else {
                self.in_string = false;
                if self.depth == 0 {
                    self.state = State::Complete;
                }
                return at;
            }
        }
        at
    }

    fn outside(&mut self, byte: u8) {
        match (self.state, byte) {
            (State::Before, b' ' | b'\t' | b'\r' | b'\n') => {}
            (State::Before | State::Inside, b'"') => {
                self.state = State::Inside;
                self.in_string = true;
            }
            (State::Before | State::Inside, b'{' | b'[') => {
                self.state = State::Inside;
                self.depth = self.depth.saturating_add(1);
            }
            (State::Before, _) => self.state = State::Word,
            (State::Inside, b'}' | b']') => {
                self.depth -= 1;
                if self.depth == 0 {
                    self.state = State::Complete;
                }
            }
            (State::Inside | State::Word | State::Complete, _) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_end_where_they_end() {
        for (text, taken, complete) in [
            ("{}x", 2, true),
            (" {\"a\":[1,{\"<\":\"}\"}]} y", 20, true),
            ("{\"a\":\"\\\"<\"<", 10, false),
            ("\"{\\\"a\\\":1}\" ", 11, true),
            ("null<", 4, false),
            ("he said \"hi<", 11, false),
            ("{\"a\"", 4, false),
        ] {
            let mut boundary = Boundary::default();
            assert_eq!(boundary.take(text.as_bytes()), taken, "{text}");
            assert_eq!(boundary.is_complete(), complete, "{text}");
            let mut single = Boundary::default();
            let mut count = 0;
            for byte in text.bytes() {
                count += single.take(&[byte]);
                if single.is_complete() {
                    break;
                }
            }
            assert_eq!(single.is_complete(), complete, "{text}");
            assert_eq!(count, taken, "{text}");
        }
    }
}
