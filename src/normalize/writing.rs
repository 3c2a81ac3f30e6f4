//! Writes JSON and server-sent events by hand: texts may hold half characters, which no value of a library can.

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

/// Appends an object.
pub(super) fn object(out: &mut Vec<u8>, members: &[(&str, Put<'_>)]) {
    out.push(b'{');
    for (index, (key, value)) in members.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        out.push(b'"');
        out.extend_from_slice(key.as_bytes());
        out.extend_from_slice(b"\":");
        match value {
            Put::Json(json) => out.extend_from_slice(json),
            Put::Text(text) => text.write_json(out),
            Put::Word(word) => Text::from(*word).write_json(out),
            Put::Count(count) => out.extend_from_slice(count.to_string().as_bytes()),
        }
    }
    out.push(b'}');
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
