//! JSON opened one level at a time, each part lent from the body with its place in it.
//!
//! A request is read for a few members and changed in a few places; everything between them has to stay as it came,
//! byte for byte. So nothing is parsed into values: an object is a list of lent members, and a change is a range of
//! the body with new bytes for it.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use serde::Deserialize;
use serde::Deserializer;
use serde::de::MapAccess;
use serde::de::Visitor;
use serde_json::value::RawValue;

use crate::normalize::text::Text;

/// The members of an object, in their order.
#[derive(Debug, Default)]
pub(super) struct Members<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'a> Members<'a> {
    /// Opens an object; `None` if it is none.
    pub(super) fn of(raw: &'a str) -> Option<Self> {
        serde_json::from_str(raw).ok()
    }

    /// Opens the bytes of a body.
    pub(super) fn of_body(body: &'a [u8]) -> Option<Self> {
        serde_json::from_slice(body).ok()
    }

    /// The value of a member as JSON; readers take the last of several.
    pub(super) fn get(&self, key: &str) -> Option<&'a str> {
        let found = self.0.iter().rev().find(|(name, _)| name == key);
        found.map(|(_, raw)| raw.get())
    }

    /// The text of a member that is a string.
    pub(super) fn text(&self, key: &str) -> Option<Cow<'a, str>> {
        text(self.get(key)?)
    }

    /// The value of a member; one that is null counts as absent.
    pub(super) fn told(&self, key: &str) -> Option<&'a str> {
        self.get(key).filter(|raw| *raw != "null")
    }

    /// The text of a member that is a string, half characters included.
    pub(super) fn said(&self, key: &str) -> Option<Text> {
        Text::from_json(self.get(key)?)
    }

    /// All members, in their order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &'a str)> {
        self.0.iter().map(|(key, raw)| (&**key, raw.get()))
    }

    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a member is this word.
    pub(super) fn is(&self, key: &str, word: &str) -> bool {
        self.text(key).is_some_and(|text| text == word)
    }

    /// The items of a member that is a list.
    pub(super) fn items(&self, key: &str) -> Vec<&'a str> {
        self.get(key).and_then(items).unwrap_or_default()
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Opener<'a>(std::marker::PhantomData<&'a ()>);

        impl<'de: 'a, 'a> Visitor<'de> for Opener<'a> {
            type Value = Members<'a>;

            fn expecting(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
                to.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::with_capacity(8);
                while let Some(Key(key)) = map.next_key()? {
                    members.push((key, map.next_value()?));
                }
                Ok(Members(members))
            }
        }

        from.deserialize_map(Opener(std::marker::PhantomData))
    }
}

/// A key, lent where it holds no escape.
struct Key<'a>(Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Key<'a> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Lent<'a>(#[serde(borrow)] Cow<'a, str>);
        Lent::deserialize(from).map(|Lent(key)| Self(key))
    }
}

/// The items of a list; `None` if it is none.
pub(super) fn items(raw: &str) -> Option<Vec<&str>> {
    let items: Vec<&RawValue> = serde_json::from_str(raw).ok()?;
    Some(items.into_iter().map(RawValue::get).collect())
}

/// The text of a JSON string; `None` if it is none.
pub(super) fn text(raw: &str) -> Option<Cow<'_, str>> {
    let inner = raw.strip_prefix('"')?.strip_suffix('"')?;
    if inner.contains('\\') {
        Text::from_json(raw).map(|text| Cow::Owned(text.to_string_lossy()))
    } else {
        Some(Cow::Borrowed(inner))
    }
}

/// A JSON string of a text.
pub(super) fn quoted(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len() + 2);
    Text::from_bytes(text.to_vec()).write_json(&mut out);
    out
}

/// Changes to a body, applied all at once.
#[derive(Debug)]
pub(super) struct Edits<'a> {
    body: &'a [u8],
    edits: Vec<(Range<usize>, Vec<u8>)>,
}

impl<'a> Edits<'a> {
    pub(super) fn new(body: &'a [u8]) -> Self {
        Self {
            body,
            edits: Vec::new(),
        }
    }

    /// Puts bytes in the place of a part of the body.
    pub(super) fn replace(&mut self, part: &str, bytes: Vec<u8>) {
        let range = self.place(part);
        self.edits.push((range, bytes));
    }

    /// Puts a member into an object of the body, which may have none; a value follows the key.
    pub(super) fn insert(&mut self, object: &str, member: &str) {
        let at = self.place(object).start + 1;
        let empty = object[1..].trim_ascii_start().starts_with('}');
        let comma = if empty { "" } else { "," };
        self.edits
            .push((at..at, format!("{member}{comma}").into_bytes()));
    }

    /// Takes items out of a list of which some stay.
    pub(super) fn remove(&mut self, items: &[&str], gone: impl Fn(usize) -> bool) {
        let mut any_stays = false;
        for (index, item) in items.iter().enumerate() {
            let place = self.place(item);
            if !gone(index) {
                any_stays = true;
            } else if any_stays {
                let before = self.place(items[index - 1]).end;
                self.edits.push((before..place.end, Vec::new()));
            } else if let Some(next) = items.get(index + 1) {
                self.edits
                    .push((place.start..self.place(next).start, Vec::new()));
            }
        }
    }

    /// The changed body; `None` if nothing was changed.
    pub(super) fn apply(mut self) -> Option<Vec<u8>> {
        if self.edits.is_empty() {
            return None;
        }
        self.edits
            .sort_by_key(|(range, _)| (range.start, range.end));
        let added: usize = self.edits.iter().map(|(_, bytes)| bytes.len()).sum();
        let mut out = Vec::with_capacity(self.body.len() + added);
        let mut from = 0;
        for (range, bytes) in &self.edits {
            out.extend_from_slice(self.body.get(from..range.start)?);
            out.extend_from_slice(bytes);
            from = range.end;
        }
        out.extend_from_slice(self.body.get(from..)?);
        Some(out)
    }

    /// Where a part that was lent from the body stands in it.
    fn place(&self, part: &str) -> Range<usize> {
        let start = part.as_ptr().addr() - self.body.as_ptr().addr();
        start..start + part.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_lent_and_the_last_counts() {
        let members = Members::of(r#"{"a": 1, "a\u0062": null, "a": "x\n"}"#).unwrap();
        assert_eq!(members.get("a"), Some(r#""x\n""#));
        assert_eq!(members.text("a").as_deref(), Some("x\n"));
        assert_eq!(members.get("ab"), Some("null"));
        assert_eq!(members.text("ab"), None);
        assert!(Members::of("[1]").is_none() && Members::of("{").is_none());
    }

    #[test]
    fn edits_leave_everything_else() {
        let body = r#"{ "a" : [ 1 , 2,3 ], "b": {}, "c": {"d":1} }"#;
        let check = |change: &dyn Fn(&mut Edits<'_>, &Members<'_>), expected: Option<&str>| {
            let members = Members::of(body).unwrap();
            let mut edits = Edits::new(body.as_bytes());
            change(&mut edits, &members);
            let changed = edits.apply();
            assert_eq!(
                changed
                    .as_deref()
                    .map(|it| std::str::from_utf8(it).unwrap()),
                expected
            );
        };
        check(&|_, _| {}, None);
        check(
            &|edits, members| {
                edits.insert(members.get("c").unwrap(), r#""e":0"#);
                edits.insert(members.get("b").unwrap(), r#""e":0"#);
            },
            Some(r#"{ "a" : [ 1 , 2,3 ], "b": {"e":0}, "c": {"e":0,"d":1} }"#),
        );
        let without = |gone: &'static [usize]| {
            move |edits: &mut Edits<'_>, members: &Members<'_>| {
                edits.remove(&members.items("a"), |index| gone.contains(&index));
            }
        };
        let left = |list: &str| format!(r#"{{ "a" : [ {list} ], "b": {{}}, "c": {{"d":1}} }}"#);
        for (gone, list) in [
            (&[0][..], "2,3"),
            (&[0, 1], "3"),
            (&[1], "1,3"),
            (&[1, 2], "1"),
            (&[2], "1 , 2"),
            (&[0, 2], "2"),
        ] {
            check(&without(gone), Some(&left(list)));
        }
        check(
            &|edits, members| edits.replace(members.get("b").unwrap(), b"7".to_vec()),
            Some(r#"{ "a" : [ 1 , 2,3 ], "b": 7, "c": {"d":1} }"#),
        );
    }
}
