//! JSON written member by member, so that members which were lent are handed on as they came.

use crate::normalize::text::Text;

/// Writes an object.
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
