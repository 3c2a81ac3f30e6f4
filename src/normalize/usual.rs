//! The usual form of a stream's texts: the same bytes before and behind, and between them a text.
//!
//! Streams repeat one envelope thousands of times. Once it was read, the next event is told by two comparisons.

use crate::normalize::event::Channel;
use crate::normalize::text::Text;

/// The bytes around the text of the last event that was nothing but text.
#[derive(Debug)]
pub(super) struct Usual {
    before: Vec<u8>,
    after: Vec<u8>,
    pub(super) channel: Channel,
}

impl Usual {
    /// Learns the form of an event whose member `key` holds this text; `None` if it cannot be told.
    pub(super) fn learn(data: &[u8], key: &[u8], channel: Channel, text: &Text) -> Option<Self> {
        let at = memchr::memmem::rfind(data, key)? + key.len();
        let blanks = data[at..].len() - data[at..].trim_ascii_start().len();
        let at = at + blanks;
        let mut written = Vec::new();
        text.write_json(&mut written);
        let after = data[at..].strip_prefix(written.as_slice())?;
        (!text.is_empty()).then(|| Self {
            before: data[..=at].to_vec(),
            after: [b"\"", after].concat(),
            channel,
        })
    }

    /// The escaped text of an event in this form.
    pub(super) fn text<'a>(&self, data: &'a [u8]) -> Option<&'a [u8]> {
        data.strip_prefix(self.before.as_slice())?
            .strip_suffix(self.after.as_slice())
    }
}

/// An escaped text without quotes around it, if it can be read and holds no half characters.
pub(super) fn plain(text: &[u8]) -> Option<Text> {
    if memchr::memmem::find(text, b"\\u").is_some() {
        return None;
    }
    let text = std::str::from_utf8(text).ok()?;
    Text::from_json(&format!("\"{text}\"")).filter(|text| !text.is_empty())
}
