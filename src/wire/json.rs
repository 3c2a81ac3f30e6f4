//! An incremental walk over a JSON text that captures a few members and skips everything else.
//!
//! The walk takes the text in pieces of any size and gives the same result for any split. Inside strings it jumps
//! from quote to quote with vectorised search, so a long text costs about one pass of memory. Captures are
//! bounded; a member that is longer is reported as too long rather than kept.
//!
//! It does not validate: a broken text yields whatever was captured before the break.

use memchr::memchr_iter;

/// Longest member that is kept whole. Model names, session ids and usage objects are far below.
const LONGEST_CAPTURE: usize = 16 * 1024;

/// Longest key that is looked at; longer ones cannot be wanted.
const LONGEST_KEY: usize = 64;

/// How many bytes of a string decide whether it is an encoded picture rather than text.
const PICTURE_PROBE: usize = 256;

/// What a walk tells its owner. Wanted members are those of the outermost object.
pub(super) trait Visitor {
    /// Whether the value of this key of the outermost object is to be captured.
    fn wants(&self, key: &[u8]) -> bool;
    /// The raw JSON of a captured member; `None` when it was too long to keep.
    fn captured(&mut self, key: &[u8], value: Option<&[u8]>);
    /// A string of `length` bytes that was an encoded picture ended.
    fn picture(&mut self, _length: u64) {}
}

/// The state of a walk between two pieces.
#[derive(Debug)]
pub(super) struct Walk {
    depth: u32,
    in_string: bool,
    /// The string so far ends in an odd run of backslashes: its next byte is escaped.
    escaped: bool,
    /// At depth one: whether the next string is a key.
    expects_key: bool,
    in_key: bool,
    key: Vec<u8>,
    capturing: bool,
    too_long: bool,
    capture: Vec<u8>,
    string_length: u64,
    looks_encoded: bool,
    ended: bool,
}

impl Default for Walk {
    fn default() -> Self {
        Self {
            depth: 0,
            in_string: false,
            escaped: false,
            expects_key: false,
            in_key: false,
            key: Vec::with_capacity(LONGEST_KEY),
            capturing: false,
            too_long: false,
            capture: Vec::new(),
            string_length: 0,
            looks_encoded: false,
            ended: false,
        }
    }
}

impl Walk {
    /// Whether the outermost object was closed.
    pub(super) fn ended(&self) -> bool {
        self.ended
    }

    /// Takes the next piece.
    pub(super) fn feed(&mut self, piece: &[u8], visitor: &mut impl Visitor) {
        let mut at = 0;
        while at < piece.len() {
            at = if self.in_string {
                self.inside(piece, at, visitor)
            } else {
                self.outside(piece, at, visitor)
            };
        }
    }

    fn outside(&mut self, piece: &[u8], mut at: usize, visitor: &mut impl Visitor) -> usize {
        let start = at;
        while at < piece.len() {
            match piece[at] {
                b'"' => {
                    self.keep(&piece[start..=at]);
                    self.in_string = true;
                    self.escaped = false;
                    self.string_length = 0;
                    self.looks_encoded = true;
                    if self.depth == 1 && self.expects_key {
                        self.in_key = true;
                        self.key.clear();
                    }
                    return at + 1;
                }
                b'{' | b'[' => {
                    self.depth += 1;
                    if self.depth == 1 {
                        self.expects_key = piece[at] == b'{';
                    }
                }
                b'}' | b']' => {
                    if self.depth == 1 {
                        self.keep(&piece[start..at]);
                        self.finish_member(visitor);
                        self.ended = true;
                        self.depth = 0;
                        return at + 1;
                    }
                    self.depth = self.depth.saturating_sub(1);
                }
                b',' if self.depth == 1 => {
                    self.keep(&piece[start..at]);
                    self.finish_member(visitor);
                    self.expects_key = true;
                    return at + 1;
                }
                b':' if self.depth == 1 && self.expects_key => {
                    self.expects_key = false;
                    if visitor.wants(&self.key) {
                        self.capturing = true;
                        self.too_long = false;
                        self.capture.clear();
                    }
                    return at + 1;
                }
                _ => {}
            }
            at += 1;
        }
        self.keep(&piece[start..at]);
        at
    }

    /// Jumps from quote to quote; whether one ends the string is told by the backslashes before it. Texts hold many
    /// more escapes than quotes, so this beats stopping at each.
    fn inside(&mut self, piece: &[u8], at: usize, visitor: &mut impl Visitor) -> usize {
        let rest = &piece[at..];
        let end = memchr_iter(b'"', rest).find(|&quote| !self.escapes(&rest[..quote]));
        let run = &rest[..end.unwrap_or(rest.len())];
        self.probe(run);
        self.string_length += run.len() as u64;
        let Some(end) = end else {
            self.escaped = self.escapes(rest);
            self.keep(rest);
            return piece.len();
        };
        // The quote that ends a key is not part of it; the one that ends a captured value is.
        self.keep(if self.in_key { run } else { &rest[..=end] });
        self.in_string = false;
        self.in_key = false;
        if self.looks_encoded && self.string_length > PICTURE_PROBE as u64 {
            visitor.picture(self.string_length);
        }
        at + end + 1
    }

    /// Whether the byte after this part of the string is escaped.
    fn escapes(&self, part: &[u8]) -> bool {
        let run = part.iter().rev().take_while(|byte| **byte == b'\\').count();
        let before = self.escaped && run == part.len();
        (run + usize::from(before)) % 2 == 1
    }

    /// Base64 has no blank and no punctuation beyond a few signs; prose and code show one within a few bytes.
    fn probe(&mut self, run: &[u8]) {
        let seen = usize::try_from(self.string_length).unwrap_or(usize::MAX);
        if self.looks_encoded && seen < PICTURE_PROBE {
            let part = &run[..run.len().min(PICTURE_PROBE - seen)];
            self.looks_encoded = part.iter().all(|byte| {
                byte.is_ascii_alphanumeric()
                    || matches!(byte, b'+' | b'/' | b'=' | b'-' | b'_' | b':' | b';' | b',')
            });
        }
    }

    fn keep(&mut self, bytes: &[u8]) {
        if self.in_key {
            // A key that is too long to be wanted is cut, and then matches nothing.
            let room = LONGEST_KEY.saturating_sub(self.key.len());
            self.key.extend_from_slice(&bytes[..bytes.len().min(room)]);
        } else if self.capturing && !self.too_long {
            if self.capture.len() + bytes.len() > LONGEST_CAPTURE {
                self.too_long = true;
                self.capture.clear();
            } else {
                self.capture.extend_from_slice(bytes);
            }
        }
    }

    fn finish_member(&mut self, visitor: &mut impl Visitor) {
        if self.capturing {
            self.capturing = false;
            let value = (!self.too_long).then(|| self.capture.trim_ascii());
            visitor.captured(&self.key, value);
        }
    }
}
