//! The prefix key, and keys as far as the window has to read them.
//!
//! A terminal may spell one key in three ways: the old control byte, `CSI code ; modifiers u` (kitty keyboard) and
//! `CSI 27 ; modifiers ; code ~` (xterm's modifyOtherKeys). Only the keys of the window itself are read; all others
//! pass as the bytes they are.

/// The key that starts a command: Ctrl with a letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix(char);

impl Default for Prefix {
    /// Ctrl-b, as in tmux.
    fn default() -> Self {
        Self('b')
    }
}

impl Prefix {
    /// Reads `ctrl-b`, `C-b` or `^b`, in any case; `None` for anything but Ctrl with a letter, and for the letters
    /// that no program could do without (Ctrl-c, and those that are Tab, Enter and line feed).
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim().to_ascii_lowercase();
        let letter = ["ctrl-", "ctrl+", "c-", "^"]
            .iter()
            .find_map(|head| text.strip_prefix(head))?;
        let mut letters = letter.chars();
        match (letters.next(), letters.next()) {
            (Some(letter @ 'a'..='z'), None) if !matches!(letter, 'c' | 'i' | 'j' | 'm') => {
                Some(Self(letter))
            }
            _ => None,
        }
    }

    /// As people write it: `Ctrl-b`.
    pub fn label(self) -> String {
        format!("Ctrl-{}", self.0)
    }

    /// Whether this is the prefix, whatever its spelling.
    pub(crate) fn is(self, key: &Key) -> bool {
        let meant = key.code == self.0 || key.base == Some(self.0);
        key.control && !key.shift && !key.other && meant
    }
}

/// What a key event tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Motion {
    Press,
    Release,
}

/// A key as far as the window reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Key {
    /// The key without its modifiers.
    pub(crate) code: char,
    /// The key at this place of a Latin keyboard, where the terminal tells it.
    pub(crate) base: Option<char>,
    /// What it types.
    pub(crate) types: char,
    pub(crate) control: bool,
    pub(crate) shift: bool,
    /// Alt, super, hyper or meta.
    pub(crate) other: bool,
    pub(crate) motion: Motion,
}

impl Key {
    /// A key in its old spelling: one byte.
    pub(crate) fn byte(byte: u8) -> Self {
        let control = (1..=26).contains(&byte) && !matches!(byte, b'\t' | b'\r' | 0x1b);
        let code = if control {
            char::from(byte + b'a' - 1)
        } else {
            char::from(byte)
        };
        Self {
            code,
            base: None,
            types: code,
            control,
            shift: false,
            other: false,
            motion: Motion::Press,
        }
    }

    /// A key in one of its two new spellings; `sequence` is a whole `CSI`.
    pub(crate) fn sequence(sequence: &[u8]) -> Option<Self> {
        let text = str::from_utf8(sequence.strip_prefix(b"\x1b[")?).ok()?;
        if let Some(fields) = text.strip_suffix('u') {
            let mut fields = fields.split(';');
            let mut codes = fields.next()?.split(':').map(number);
            let code = char::from_u32(codes.next()??)?;
            let shifted = codes.next().flatten();
            let base = codes.next().flatten().and_then(char::from_u32);
            let mut modifiers = fields.next().unwrap_or("1").split(':').map(number);
            let held = modifiers.next().flatten();
            let motion = match modifiers.next().flatten() {
                Some(3) => Motion::Release,
                _ => Motion::Press,
            };
            let typed = fields
                .next()
                .and_then(|text| number(text.split(':').next()?));
            let types = typed.or(shifted).and_then(char::from_u32).unwrap_or(code);
            return Some(Self::held(code, base, types, held, motion));
        }
        let mut fields = text.strip_suffix('~')?.split(';');
        if fields.next() != Some("27") {
            return None;
        }
        let held = number(fields.next()?);
        let types = char::from_u32(number(fields.next()?)?)?;
        let code = types.to_ascii_lowercase();
        Some(Self::held(code, None, types, held, Motion::Press))
    }

    /// `held` is one more than the sum of the modifiers: 1 shift, 2 alt, 4 control, 8 to 32 others, 64 and up locks.
    fn held(
        code: char,
        base: Option<char>,
        types: char,
        held: Option<u32>,
        motion: Motion,
    ) -> Self {
        let held = held.unwrap_or(1).saturating_sub(1);
        Self {
            code,
            base,
            types,
            control: held & 4 != 0,
            shift: held & 1 != 0,
            other: held & (2 | 8 | 16 | 32) != 0,
            motion,
        }
    }
}

fn number(text: &str) -> Option<u32> {
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_prefix_is_read_from_settings() {
        let b = Some(Prefix('b'));
        for (text, expected) in [
            ("ctrl-b", b),
            ("C-b", b),
            ("^B", b),
            ("Ctrl+a", Some(Prefix('a'))),
            ("b", None),
            ("ctrl-c", None),
            ("ctrl-", None),
            ("ctrl-ab", None),
            ("ctrl-1", None),
        ] {
            assert_eq!(Prefix::parse(text), expected, "{text}");
        }
    }

    #[test]
    fn the_prefix_is_known_in_every_spelling() {
        let prefix = Prefix::default();
        for (bytes, expected) in [
            (&b"\x1b[98;5u"[..], true),
            (b"\x1b[98;5:1u", true),
            (b"\x1b[98;69u", true),
            (b"\x1b[1080:1048:98;5u", true),
            (b"\x1b[27;5;98~", true),
            (b"\x1b[98;6u", false),
            (b"\x1b[98;7u", false),
            (b"\x1b[98u", false),
            (b"\x1b[99;5u", false),
            (b"\x1b[27;6;66~", false),
        ] {
            let key = Key::sequence(bytes).unwrap();
            assert_eq!(prefix.is(&key), expected, "{}", bytes.escape_ascii());
        }
        assert!(prefix.is(&Key::byte(2)));
        assert!(!prefix.is(&Key::byte(b'b')));
        assert_eq!(Key::sequence(b"\x1b[47:63;2u").unwrap().types, '?');
        assert_eq!(
            Key::sequence(b"\x1b[98;5:3u").unwrap().motion,
            Motion::Release
        );
        assert_eq!(Key::sequence(b"\x1b[A"), None);
    }
}
