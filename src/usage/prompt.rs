//! What a prompt consists of: how many bytes of which kind of text, and the chain of its messages.
//!
//! A prompt is told in two parts: its head (model, tools, system text) and its messages. Each message extends a running
//! hash, so that two prompts share a prefix of `n` messages exactly when their heads are equal and their hashes after
//! `n` messages are. What is kept is bounded: a conversation of more than [`LINKS`] messages is known at every second,
//! fourth, ... message only, which costs a few messages of precision and nothing else.

/// Most places of a conversation that are kept.
pub const LINKS: usize = 4096;

/// The kinds of text that differ in bytes per token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Words of a language with an alphabet.
    Prose,
    /// Program text, markup, paths.
    Code,
    /// Digits, hashes, tables of numbers.
    Dense,
    /// Chinese, Japanese, Korean.
    Cjk,
    /// The declarations of tools.
    Tools,
}

/// Number of [`Class`]es.
pub const CLASSES: usize = 5;

/// How much of a prompt there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Content {
    /// Bytes of text, indexed by [`Class`]; encoded pictures left out.
    pub bytes: [u64; CLASSES],
    /// Messages, or items.
    pub messages: u64,
    /// Pictures.
    pub pictures: u64,
}

/// A place in a conversation: after so many messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// Messages up to here.
    pub upto: u64,
    /// Hash of all of them, in order.
    pub hash: u64,
    /// Their content, the head left out.
    pub content: Content,
    /// The message that ends here was said by the model.
    pub by_model: bool,
}

/// A prompt as the estimator sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prompt {
    /// Hash of model, tools and system text.
    pub head: u64,
    /// Content of tools and system text.
    pub head_content: Content,
    links: Vec<Link>,
    stride: u64,
}

impl Content {
    /// Content of one class.
    pub fn of(class: Class, bytes: u64) -> Self {
        let mut content = Self::default();
        content.bytes[class as usize] = bytes;
        content
    }

    /// Bytes of text of all classes.
    pub fn text(&self) -> u64 {
        self.bytes.iter().sum()
    }

    fn zip(&self, other: &Self, with: fn(u64, u64) -> u64) -> Self {
        Self {
            bytes: std::array::from_fn(|class| with(self.bytes[class], other.bytes[class])),
            messages: with(self.messages, other.messages),
            pictures: with(self.pictures, other.pictures),
        }
    }
}

impl std::ops::Add for Content {
    type Output = Self;

    fn add(self, more: Self) -> Self {
        self.zip(&more, u64::saturating_add)
    }
}

impl std::ops::Sub for Content {
    type Output = Self;

    fn sub(self, less: Self) -> Self {
        self.zip(&less, u64::saturating_sub)
    }
}

impl Default for Prompt {
    fn default() -> Self {
        Self::new(0, Content::default())
    }
}

impl Prompt {
    /// A prompt without messages.
    pub fn new(head: u64, head_content: Content) -> Self {
        Self {
            head,
            head_content,
            links: Vec::new(),
            stride: 1,
        }
    }

    /// Appends a message with this hash of its own.
    pub fn push(&mut self, hash: u64, content: Content, by_model: bool) {
        let last = self.links.last().copied();
        if self.links.len() >= LINKS {
            self.stride *= 2;
            let stride = self.stride;
            self.links.retain(|link| link.upto.is_multiple_of(stride));
        } else if last.is_some_and(|last| !last.upto.is_multiple_of(self.stride)) {
            self.links.pop();
        }
        let before = last.unwrap_or(Link {
            upto: 0,
            hash: 0,
            content: Content::default(),
            by_model: false,
        });
        self.links.push(Link {
            upto: before.upto + 1,
            hash: chained(before.hash, hash),
            content: before.content
                + Content {
                    messages: 1,
                    ..content
                },
            by_model,
        });
    }

    /// Places in the conversation, oldest first; the last one is its end.
    pub fn links(&self) -> &[Link] {
        &self.links
    }

    /// All of it.
    pub fn content(&self) -> Content {
        self.head_content
            + self
                .links
                .last()
                .map_or_else(Content::default, |end| end.content)
    }

    /// Everything up to a place: the head alone for `None`.
    pub fn content_upto(&self, link: Option<usize>) -> Content {
        self.head_content + link.map_or_else(Content::default, |at| self.links[at].content)
    }
}

/// The hash of a sequence from the hash of what came before and that of the next part. The order matters.
pub fn chained(before: u64, next: u64) -> u64 {
    // Odd constants of the golden ratio and of splitmix64's finaliser: every input bit reaches every output bit.
    let mixed = (before.rotate_left(29) ^ next).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let mixed = (mixed ^ (mixed >> 32)).wrapping_mul(0x94D0_49BB_1331_11EB);
    (mixed ^ (mixed >> 29)).wrapping_add(before)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prompt(messages: u64) -> Prompt {
        let mut prompt = Prompt::default();
        for number in 0..messages {
            prompt.push(number, Content::of(Class::Prose, 10), number % 2 == 1);
        }
        prompt
    }

    #[test]
    fn a_chain_tells_where_two_conversations_part() {
        let (short, long) = (prompt(5), prompt(9));
        assert_eq!(short.links()[..], long.links()[..5]);
        let mut other = prompt(4);
        other.push(99, Content::default(), false);
        assert_ne!(other.links()[4].hash, long.links()[4].hash);
        assert_ne!(chained(1, 2), chained(2, 1));
        assert_eq!(long.content().text(), 90);
        assert_eq!(long.content().messages, 9);
    }

    #[test]
    fn a_long_conversation_stays_bounded_and_keeps_its_end() {
        for messages in [4096, 4097, 4100, 9000, 100_001] {
            let long = prompt(messages);
            assert!(long.links().len() <= LINKS);
            assert_eq!(long.links().last().unwrap().upto, messages);
            assert_eq!(long.content().text(), messages * 10);
            let next = prompt(messages + 1);
            let known: Vec<_> = long
                .links()
                .iter()
                .map(|link| (link.upto, link.hash))
                .collect();
            let shared = next
                .links()
                .iter()
                .rev()
                .find(|link| known.contains(&(link.upto, link.hash)));
            // At most the coarser of the two strides is lost.
            assert!(shared.unwrap().upto + 64 >= messages, "{messages}");
        }
    }
}
