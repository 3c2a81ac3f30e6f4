//! An incremental walk over a JSON text that tells its owner about a few members and skips everything else.
//!
//! The walk takes the text in pieces of any size and gives the same result for any split. Inside strings it jumps
//! from quote to quote with vectorised search, so a long text costs about one pass of memory. Captures are
//! bounded; a member that is longer is reported as too long rather than kept.
//!
//! It does not validate: a broken text yields whatever was captured before the break.

use memchr::memchr_iter;

/// Longest member that is kept whole. Model names, session ids and usage objects are far below.
const LONGEST_CAPTURE: usize = 16 * 1024;

/// Room that is made for the first one: a usage object of any upstream.
const USUAL_CAPTURE: usize = 512;

/// Longest key that is looked at; longer ones cannot be wanted.
const LONGEST_KEY: usize = 64;

/// What is to become of a member of the outermost object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Want {
    /// Nothing.
    Skip,
    /// It is kept and told whole.
    Capture,
    /// Its raw bytes are told as they come.
    Watch,
}

/// What a walk tells its owner. Members are those of the outermost object, whose depth is one.
pub(super) trait Visitor {
    /// What is to become of the value of this key of the outermost object.
    fn wants(&mut self, key: &[u8]) -> Want;
    /// The raw JSON of a captured member; `None` when it was too long to keep.
    fn captured(&mut self, key: &[u8], value: Option<&[u8]>);
    /// The next raw bytes of a watched member.
    fn watched(&mut self, _bytes: &[u8]) {}
    /// A member of the outermost object ended.
    fn finished(&mut self) {}
    /// Keys of objects at most so deep are told; deeper ones pass as text.
    fn keys_to(&self) -> u32 {
        1
    }
    /// A container opened, and the depth is now this.
    fn opened(&mut self, _depth: u32) {}
    /// A container of this depth closed.
    fn closed(&mut self, _depth: u32) {}
    /// A key of an object below the outermost.
    fn named(&mut self, _depth: u32, _key: &[u8]) {}
    /// The next bytes of a string that is no key.
    fn text(&mut self, _run: &[u8]) {}
    /// That string ended, in a container of this depth.
    fn text_ended(&mut self, _depth: u32) {}
}

/// A key, kept in place. One that is too long to be wanted is cut, and then matches nothing.
#[derive(Debug)]
struct Key {
    bytes: [u8; LONGEST_KEY],
    length: usize,
}

impl Default for Key {
    fn default() -> Self {
        Self {
            bytes: [0; LONGEST_KEY],
            length: 0,
        }
    }
}

impl Key {
    fn bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }

    fn clear(&mut self) {
        self.length = 0;
    }

    fn extend(&mut self, more: &[u8]) {
        let room = &mut self.bytes[self.length..];
        let taken = more.len().min(room.len());
        room[..taken].copy_from_slice(&more[..taken]);
        self.length += taken;
    }
}

/// The state of a walk between two pieces.
#[derive(Debug)]
pub(super) struct Walk {
    depth: u32,
    /// One bit for each open container, the innermost lowest: whether it is an object. Below 64 levels nothing is told.
    objects: u64,
    in_string: bool,
    /// The string so far ends in an odd run of backslashes: its next byte is escaped.
    escaped: bool,
    /// Whether the next string is a key.
    expects_key: bool,
    in_key: bool,
    /// The current member's key, and the current key below it.
    key: Key,
    inner: Key,
    want: Want,
    too_long: bool,
    capture: Vec<u8>,
    /// Where the untold part of a watched member begins in this piece.
    untold: usize,
    ended: bool,
}

impl Default for Walk {
    fn default() -> Self {
        Self {
            depth: 0,
            objects: 0,
            in_string: false,
            escaped: false,
            expects_key: false,
            in_key: false,
            key: Key::default(),
            inner: Key::default(),
            want: Want::Skip,
            too_long: false,
            capture: Vec::new(),
            untold: 0,
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
        self.untold = 0;
        let mut at = 0;
        while at < piece.len() {
            at = if self.in_string {
                self.inside(piece, at, visitor)
            } else {
                self.outside(piece, at, visitor)
            };
        }
        if self.want == Want::Watch {
            visitor.watched(&piece[self.untold..]);
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
                    if self.expects_key && self.depth <= visitor.keys_to() {
                        self.in_key = true;
                        self.key_buffer().clear();
                    }
                    return at + 1;
                }
                open @ (b'{' | b'[') => {
                    self.depth += 1;
                    self.expects_key = open == b'{';
                    if self.depth <= u64::BITS {
                        self.objects = self.objects << 1 | u64::from(self.expects_key);
                    }
                    visitor.opened(self.depth);
                }
                b'}' | b']' => {
                    if self.depth == 1 {
                        self.keep(&piece[start..at]);
                        self.finish_member(piece, at, visitor);
                        self.ended = true;
                        self.depth = 0;
                        self.objects = 0;
                        return at + 1;
                    }
                    visitor.closed(self.depth);
                    if self.depth <= u64::BITS {
                        self.objects >>= 1;
                    }
                    self.depth = self.depth.saturating_sub(1);
                    self.expects_key = false;
                }
                b',' if self.depth == 1 => {
                    self.keep(&piece[start..at]);
                    self.finish_member(piece, at, visitor);
                    self.expects_key = self.objects & 1 == 1;
                    return at + 1;
                }
                b',' => self.expects_key = self.depth <= u64::BITS && self.objects & 1 == 1,
                b':' if self.depth == 1 && self.expects_key => {
                    self.expects_key = false;
                    self.want = visitor.wants(self.key.bytes());
                    self.too_long = false;
                    self.capture.clear();
                    self.untold = at + 1;
                    return at + 1;
                }
                b':' => self.expects_key = false,
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
        if self.in_key {
            self.key_buffer().extend(run);
        } else {
            visitor.text(run);
        }
        let Some(end) = end else {
            self.escaped = self.escapes(rest);
            self.keep(rest);
            return piece.len();
        };
        self.keep(&rest[..=end]);
        self.in_string = false;
        if !self.in_key {
            visitor.text_ended(self.depth);
        } else if self.depth > 1 {
            visitor.named(self.depth, self.inner.bytes());
        }
        self.in_key = false;
        at + end + 1
    }

    /// Whether the byte after this part of the string is escaped.
    fn escapes(&self, part: &[u8]) -> bool {
        let run = part.iter().rev().take_while(|byte| **byte == b'\\').count();
        let before = self.escaped && run == part.len();
        (run + usize::from(before)) % 2 == 1
    }

    fn key_buffer(&mut self) -> &mut Key {
        if self.depth == 1 {
            &mut self.key
        } else {
            &mut self.inner
        }
    }

    fn keep(&mut self, bytes: &[u8]) {
        if self.want == Want::Capture && !self.too_long {
            if self.capture.len() + bytes.len() > LONGEST_CAPTURE {
                self.too_long = true;
                self.capture.clear();
            } else {
                if self.capture.capacity() == 0 {
                    self.capture.reserve(USUAL_CAPTURE.max(bytes.len()));
                }
                self.capture.extend_from_slice(bytes);
            }
        }
    }

    fn finish_member(&mut self, piece: &[u8], at: usize, visitor: &mut impl Visitor) {
        match self.want {
            Want::Skip => {}
            Want::Capture => {
                let value = (!self.too_long).then(|| self.capture.trim_ascii());
                visitor.captured(self.key.bytes(), value);
            }
            Want::Watch => visitor.watched(&piece[self.untold..at]),
        }
        self.want = Want::Skip;
        visitor.finished();
    }
}
