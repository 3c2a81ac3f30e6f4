//! A JSON object as it stands: its members in their order, each value as its own text.
//!
//! What a codec does not know it hands on as it came, so values are lent and never read unless they matter.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::normalize::text::Text;

/// The members of one object.
#[derive(Debug, Default)]
pub(super) struct Members<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'a> Members<'a> {
    /// Reads an object; `None` if it is none.
    pub(super) fn read(text: &'a [u8]) -> Option<Self> {
        serde_json::from_slice(text).ok()
    }

    /// Reads an object that is a member; `None` if it is none.
    pub(super) fn of(value: Option<&'a str>) -> Option<Self> {
        Self::read(value?.as_bytes())
    }

    /// The text of a member's value; a member that is null counts as absent.
    pub(super) fn get(&self, name: &str) -> Option<&'a str> {
        let value = self.0.iter().find(|(key, _)| key == name)?.1.get();
        (value != "null").then_some(value)
    }

    /// A member that is a string.
    pub(super) fn text(&self, name: &str) -> Option<Text> {
        Text::from_json(self.get(name)?)
    }

    /// A member that is a string without half characters.
    pub(super) fn string(&self, name: &str) -> Option<String> {
        self.text(name).map(|text| text.to_string_lossy())
    }

    /// A member that is an array, by its elements.
    pub(super) fn list(&self, name: &str) -> Option<Vec<&'a str>> {
        let list: Vec<&RawValue> = serde_json::from_str(self.get(name)?).ok()?;
        Some(list.into_iter().map(RawValue::get).collect())
    }

    /// All members.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &'a str)> {
        self.0.iter().map(|(key, value)| (&**key, value.get()))
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Reading)
    }
}

struct Reading;

impl<'de> Visitor<'de> for Reading {
    type Value = Members<'de>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = Vec::with_capacity(8);
        while let Some(Key(key)) = map.next_key()? {
            members.push((key, map.next_value()?));
        }
        Ok(Members(members))
    }
}

/// A key, lent if it can be.
struct Key<'a>(Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Key<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reading;
        impl<'de> Visitor<'de> for Reading {
            type Value = Key<'de>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a key")
            }

            fn visit_borrowed_str<E>(self, key: &'de str) -> Result<Self::Value, E> {
                Ok(Key(Cow::Borrowed(key)))
            }

            fn visit_str<E>(self, key: &str) -> Result<Self::Value, E> {
                Ok(Key(Cow::Owned(key.to_owned())))
            }
        }
        deserializer.deserialize_str(Reading)
    }
}

/// Writes objects and arrays.
#[derive(Debug)]
pub(super) struct Writer<'a> {
    out: &'a mut Vec<u8>,
    first: bool,
}

impl<'a> Writer<'a> {
    /// Opens an object.
    pub(super) fn object(out: &'a mut Vec<u8>) -> Self {
        out.push(b'{');
        Self { out, first: true }
    }

    /// Writes a member whose value is JSON text.
    pub(super) fn raw(&mut self, key: &str, value: &str) -> &mut Self {
        self.key(key).extend_from_slice(value.as_bytes());
        self
    }

    /// Writes a member that is a string.
    pub(super) fn text(&mut self, key: &str, text: &Text) -> &mut Self {
        text.write_json(self.key(key));
        self
    }

    /// Writes the key of a member; the value is to be appended.
    pub(super) fn key(&mut self, key: &str) -> &mut Vec<u8> {
        if !std::mem::take(&mut self.first) {
            self.out.push(b',');
        }
        Text::from(key).write_json(self.out);
        self.out.push(b':');
        self.out
    }

    /// Closes the object.
    pub(super) fn close(self) {
        self.out.push(b'}');
    }
}
