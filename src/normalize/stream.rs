//! An answer's bytes on their way through: what is right leaves as the bytes that came.
//!
//! A [`Repairer`] cuts the stream into its events and shows each to the codec of its dialect. An event that the codec
//! lets pass, and every run of such events, leaves as a slice of the chunk that brought it, without a copy; in its
//! usual form, text in the envelope of the event before, it is not even parsed. Only an event that is to be changed is
//! replaced by what the codec wrote. An event that is cut over chunks waits until it is whole, since nobody can read it
//! before.

use std::sync::Arc;

use bytes::Bytes;

use crate::normalize::answer::Answer;
use crate::normalize::chat::{self, Chat};
use crate::normalize::frames::{Ends, Fields};
use crate::normalize::messages::{self, Messages};
use crate::normalize::repairs::Repairs;
use crate::normalize::rules::Rules;

/// Longest event that is read; a longer one passes as it is.
const LONGEST_EVENT: usize = 8 * 1024 * 1024;

/// A dialect's events.
pub(super) trait Codec: std::fmt::Debug + Send {
    /// Whether an event's payload is plain text that passes unread.
    fn passes(&mut self, data: &[u8], answer: &mut Answer) -> bool;

    /// Reads an event. Tells whether it is to be replaced by the events that it appended, which may be none.
    fn event(
        &mut self,
        name: Option<&[u8]>,
        data: &[u8],
        answer: &mut Answer,
        out: &mut Vec<u8>,
    ) -> bool;

    /// The stream came to its end: appends what was held.
    fn end(&mut self, answer: &mut Answer, out: &mut Vec<u8>);
}

/// Repairs one streamed answer.
#[derive(Debug)]
pub struct Repairer {
    codec: Box<dyn Codec>,
    answer: Answer,
    /// The beginning of an event that is not whole yet.
    held: Vec<u8>,
    ends: Ends,
    /// The event that ended last was replaced, its line ends too.
    replaced: bool,
    /// The event that is open is too long and passes.
    gave_up: bool,
    /// Counts what would be repaired and changes nothing.
    observes: bool,
}

impl Repairer {
    /// For an answer of `OpenAI` chat. With `observes` every byte leaves as it came, and repairs are only counted.
    pub fn chat(rules: Arc<Rules>, observes: bool) -> Self {
        Self::new(Box::new(Chat::default()), rules, observes)
    }

    /// For an answer of Anthropic messages.
    pub fn messages(rules: Arc<Rules>, observes: bool) -> Self {
        Self::new(Box::new(Messages::default()), rules, observes)
    }

    fn new(codec: Box<dyn Codec>, rules: Arc<Rules>, observes: bool) -> Self {
        Self {
            codec,
            answer: Answer::new(rules),
            held: Vec::new(),
            ends: Ends::default(),
            replaced: false,
            gave_up: false,
            observes,
        }
    }

    /// Takes the next chunk and appends what leaves now.
    pub fn push(&mut self, chunk: &Bytes, out: &mut Vec<Bytes>) {
        if !self.answer.is_touched() {
            out.push(chunk.clone());
        } else if self.observes {
            out.push(chunk.clone());
            self.repair(chunk, &mut Vec::new());
        } else {
            self.repair(chunk, out);
        }
    }

    /// The upstream ended its answer properly: appends what was held.
    pub fn finish(&mut self, out: &mut Vec<Bytes>) {
        if !self.answer.is_touched() {
            return;
        }
        let mut last = Vec::new();
        let held = std::mem::take(&mut self.held);
        if !held.is_empty() && !self.read(&held, &mut last) {
            last.extend_from_slice(&held);
        }
        self.codec.end(&mut self.answer, &mut last);
        if !last.is_empty() && !self.observes {
            out.push(last.into());
        }
    }

    /// What was repaired so far.
    pub fn repairs(&self) -> &Repairs {
        self.answer.repairs()
    }

    /// How many bytes are held: undecided, waiting for a call's end, or remembered to tell copies.
    pub fn held(&self) -> usize {
        self.held.len() + self.answer.held()
    }

    fn repair(&mut self, chunk: &Bytes, out: &mut Vec<Bytes>) {
        let mut at = 0;
        // Events from here on leave as they are.
        let mut from = 0;
        if self.held.is_empty() && self.ends.takes_lf(chunk) {
            at = 1;
            from = usize::from(self.replaced);
        }
        while let Some(length) = self.ends.find(&chunk[at..]) {
            let end = at + length;
            if self.gave_up {
                self.gave_up = false;
            } else if self.held.is_empty() {
                let mut instead = Vec::new();
                self.replaced = self.read(&chunk[at..end], &mut instead);
                if self.replaced {
                    slice(chunk, from, at, out);
                    give(instead, out);
                    from = end;
                }
            } else {
                let mut event = std::mem::take(&mut self.held);
                event.extend_from_slice(&chunk[at..end]);
                let mut instead = Vec::new();
                self.replaced = self.read(&event, &mut instead);
                give(if self.replaced { instead } else { event }, out);
                from = end;
            }
            at = end;
        }
        if self.gave_up {
            at = chunk.len();
        }
        slice(chunk, from, at, out);
        self.held.extend_from_slice(&chunk[at..]);
        if self.held.len() > LONGEST_EVENT {
            self.gave_up = true;
            give(std::mem::take(&mut self.held), out);
        }
    }

    /// Reads an event; tells whether it is replaced by what was appended.
    fn read(&mut self, event: &[u8], out: &mut Vec<u8>) -> bool {
        let fields = Fields::of(event);
        let Some(data) = fields.data else {
            return false;
        };
        !self.codec.passes(data, &mut self.answer)
            && self.codec.event(fields.name, data, &mut self.answer, out)
    }
}

/// Repairs an answer of `OpenAI` chat that came as one body; `None` if there is nothing to repair.
pub fn whole_chat(rules: Arc<Rules>, body: &[u8]) -> (Option<Vec<u8>>, Repairs) {
    let mut answer = Answer::new(rules);
    let repaired = if answer.is_touched() {
        chat::whole(body, &mut answer)
    } else {
        None
    };
    (repaired, answer.repairs().clone())
}

/// Repairs an answer of Anthropic messages that came as one body; `None` if there is nothing to repair.
pub fn whole_messages(rules: Arc<Rules>, body: &[u8]) -> (Option<Vec<u8>>, Repairs) {
    let mut answer = Answer::new(rules);
    let repaired = messages::whole(body, &mut answer);
    (repaired, answer.repairs().clone())
}

fn slice(chunk: &Bytes, from: usize, to: usize, out: &mut Vec<Bytes>) {
    if from < to {
        out.push(chunk.slice(from..to));
    }
}

fn give(bytes: Vec<u8>, out: &mut Vec<Bytes>) {
    if !bytes.is_empty() {
        out.push(bytes.into());
    }
}
