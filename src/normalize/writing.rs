//! Writes JSON and server-sent events by hand: texts may hold half characters, which no value of a library can, and
//! members that were lent are handed on as they came.

use crate::normalize::text::Text;

/// A value of a member.
#[derive(Clone, Copy, Debug)]
pub(super) enum Put<'a> {
    /// JSON that is ready.
    Json(&'a [u8]),
    /// A text of an answer.
    Text(&'a Text),
    /// A word of ours or of a dialect.
    Word(&'a str),
    /// A count.
    Count(u64),
}

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

/// Appends an object.
pub(super) fn object(out: &mut Vec<u8>, members: &[(&str, Put<'_>)]) {
    let mut writer = Writer::object(out);
    for (key, value) in members {
        let out = writer.key(key);
        match value {
            Put::Json(json) => out.extend_from_slice(json),
            Put::Text(text) => text.write_json(out),
            Put::Word(word) => Text::from(*word).write_json(out),
            Put::Count(count) => out.extend_from_slice(count.to_string().as_bytes()),
        }
    }
    writer.close();
}

/// An object of its own.
pub(super) fn made(members: &[(&str, Put<'_>)]) -> Vec<u8> {
    let mut out = Vec::with_capacity(96);
    object(&mut out, members);
    out
}

/// A list of values that are ready.
pub(super) fn list(items: &[Vec<u8>]) -> Vec<u8> {
    let mut out = vec![b'['];
    out.extend_from_slice(&items.join(&b','));
    out.push(b']');
    out
}

/// Appends an event that is named after its `type`, which is put first.
pub(super) fn event(out: &mut Vec<u8>, name: &str, members: &[(&str, Put<'_>)]) {
    out.extend_from_slice(b"event: ");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\ndata: ");
    let named = [("type", Put::Word(name))];
    object(out, &[&named, members].concat());
    out.extend_from_slice(b"\n\n");
}

/// The payloads of a stream's events.
#[cfg(test)]
pub(super) fn payloads(stream: &[u8]) -> Vec<serde_json::Value> {
    let text = std::str::from_utf8(stream).unwrap();
    let lines = text.lines().filter_map(|line| line.strip_prefix("data: "));
    lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_written_in_order() {
        let half = Text::from_json(r#""\ud83d""#).unwrap();
        let inner = list(&[made(&[("n", Put::Count(7))]), b"null".to_vec()]);
        let mut out = Vec::new();
        event(
            &mut out,
            "x.y",
            &[
                ("a", Put::Word("b\"\n")),
                ("c", Put::Text(&half)),
                ("d", Put::Json(&inner)),
            ],
        );
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "event: x.y\ndata: {\"type\":\"x.y\",\"a\":\"b\\\"\\n\",\"c\":\"\\ud83d\",\"d\":[{\"n\":7},null]}\n\n"
        );
    }
}
