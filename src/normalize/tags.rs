//! The tags of Kimi K3's markup: `<|open|>NAME KEY="VALUE"<|sep|>` and `<|close|>NAME<|sep|>`.

const OPEN: &[u8] = b"<|open|>";
const CLOSE: &[u8] = b"<|close|>";
const END: &[u8] = b"<|sep|>";

/// Names that tags have.
const NAMES: &[&str] = &[
    "think", "response", "tools", "call", "argument", "json", "message",
];

/// Longest tag.
const LONGEST: usize = 1024;

/// A tag.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Tag {
    pub(super) opens: bool,
    pub(super) name: &'static str,
    attributes: Vec<(String, String)>,
}

/// What a text begins with.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// A tag of this length.
    Tag(Tag, usize),
    /// The whole text may be the beginning of a tag.
    Undecided,
    Nothing,
}

impl Tag {
    /// The value of an attribute, unescaped; empty if there is none.
    pub(super) fn get(&self, key: &str) -> String {
        let found = self.attributes.iter().find(|(name, _)| name == key);
        let value = found.map_or("", |(_, value)| value);
        [
            ("&quot;", "\""),
            ("&#39;", "'"),
            ("&apos;", "'"),
            ("&lt;", "<"),
            ("&gt;", ">"),
            ("&amp;", "&"),
        ]
        .iter()
        .fold(value.to_owned(), |value, (escape, sign)| {
            value.replace(escape, sign)
        })
    }
}

/// Looks at the beginning of a text. With `last` no more text comes.
pub(super) fn find(text: &[u8], last: bool) -> Found {
    let undecided = if last || text.len() > LONGEST {
        Found::Nothing
    } else {
        Found::Undecided
    };
    let (opens, rest) = if let Some(rest) = text.strip_prefix(OPEN) {
        (true, rest)
    } else if let Some(rest) = text.strip_prefix(CLOSE) {
        (false, rest)
    } else if OPEN.starts_with(text) || CLOSE.starts_with(text) {
        return undecided;
    } else {
        return Found::Nothing;
    };
    let named = NAMES.iter().find(|name| rest.starts_with(name.as_bytes()));
    let Some(name) = named else {
        let may = NAMES.iter().any(|name| name.as_bytes().starts_with(rest));
        return if may { undecided } else { Found::Nothing };
    };
    let mut rest = &rest[name.len()..];
    let mut attributes = Vec::new();
    if opens {
        while let Some((key, value, more)) = attribute(rest) {
            attributes.push((key, value));
            rest = more;
        }
        if may_be_attribute(rest) && undecided == Found::Undecided {
            return undecided;
        }
    }
    let rest = match rest.strip_prefix(END) {
        Some(rest) => rest,
        // The separator may still come, or be missing.
        None if !last && END.starts_with(rest) => return undecided,
        None => rest,
    };
    let tag = Tag {
        opens,
        name,
        attributes,
    };
    Found::Tag(tag, text.len() - rest.len())
}

/// ` KEY="VALUE"`, and what follows.
fn attribute(text: &[u8]) -> Option<(String, String, &[u8])> {
    let text = text.strip_prefix(b" ")?;
    let sign = memchr::memchr(b'=', text)?;
    let (key, rest) = text.split_at(sign);
    let rest = rest.strip_prefix(b"=\"")?;
    let end = memchr::memchr(b'"', rest)?;
    let is_key = !key.is_empty() && key.iter().all(u8::is_ascii_alphanumeric);
    let string = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    is_key.then(|| (string(key), string(&rest[..end]), &rest[end + 1..]))
}

/// Whether more text may make this an attribute.
fn may_be_attribute(text: &[u8]) -> bool {
    let Some(text) = text.strip_prefix(b" ") else {
        return false;
    };
    let key = text.iter().take_while(|byte| byte.is_ascii_alphanumeric());
    let rest = &text[key.count()..];
    rest.is_empty() || rest == b"=" || rest.starts_with(b"=\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_told_with_and_without_separators() {
        for (text, name, opens, length) in [
            ("<|open|>think<|sep|>x", "think", true, 20),
            ("<|open|>thinkx", "think", true, 13),
            ("<|close|>call<|sep|>", "call", false, 20),
            (
                "<|open|>call tool=\"a&amp;b\" index=\"1\"<|sep|>",
                "call",
                true,
                44,
            ),
            (
                "<|open|>call tool=\"a&amp;b\" index=\"1\"<|open|>",
                "call",
                true,
                37,
            ),
        ] {
            let Found::Tag(tag, found) = find(text.as_bytes(), false) else {
                panic!("{text}");
            };
            assert_eq!(
                (tag.name, tag.opens, found),
                (name, opens, length),
                "{text}"
            );
            if name == "call" && opens {
                assert_eq!(tag.get("tool"), "a&b");
            }
            for cut in 1..length.min(12) {
                let start = find(&text.as_bytes()[..cut], false);
                assert_eq!(start, Found::Undecided, "{}", &text[..cut]);
            }
        }
        for text in ["<|x", "<|open|>other<|sep|>", "<b"] {
            assert_eq!(find(text.as_bytes(), false), Found::Nothing, "{text}");
        }
    }
}
