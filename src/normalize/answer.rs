//! The whole machine for one answer: pieces in, events out.
//!
//! It joins the [`Reader`](super::reader::Reader) of texts, the queue of [`calls`](super::calls) and the [rule of the finish](super::finish),
//! and keeps the order between them.

use std::sync::Arc;

use crate::normalize::calls::{Calls, Sink};
use crate::normalize::event::{Channel, Event, Finish, Piece};
use crate::normalize::k3::K3;
use crate::normalize::reader::Reader;
use crate::normalize::repairs::{Kind, Repairs};
use crate::normalize::rules::Rules;
use crate::normalize::text::Text;

/// One answer on its way.
#[derive(Debug)]
pub struct Answer {
    /// The model is a Kimi.
    touched: bool,
    texts: Texts,
    calls: Calls,
    repairs: Repairs,
    has_content: bool,
    finished: bool,
}

/// The reader of the texts, by the family's grammar.
#[derive(Debug)]
enum Texts {
    K2(Box<Reader>),
    K3(Box<K3>),
}

impl Texts {
    fn new(rules: &Arc<Rules>) -> Self {
        if rules.k3 {
            Self::K3(Box::new(K3::new(rules.clone())))
        } else {
            Self::K2(Box::new(Reader::new(rules.clone())))
        }
    }

    fn push(&mut self, field: Channel, text: &Text, sink: &mut Sink<'_>) {
        match self {
            Self::K2(reader) => reader.push(field, text, sink),
            Self::K3(reader) => reader.push(field, text, sink),
        }
    }

    fn passes(&mut self, field: Channel, text: &[u8]) -> bool {
        match self {
            Self::K2(reader) => reader.passes(field, text),
            Self::K3(reader) => reader.passes(field, text),
        }
    }

    fn settle(&mut self, sink: &mut Sink<'_>) {
        match self {
            Self::K2(reader) => reader.settle(sink),
            Self::K3(reader) => reader.settle(sink),
        }
    }

    fn end(&mut self, sink: &mut Sink<'_>) {
        match self {
            Self::K2(reader) => reader.end(sink),
            Self::K3(reader) => reader.end(sink),
        }
    }

    fn held(&self) -> usize {
        match self {
            Self::K2(reader) => reader.held(),
            Self::K3(reader) => reader.held(),
        }
    }
}

impl Answer {
    /// The machine for an answer to a request with these rules.
    pub fn new(rules: Arc<Rules>) -> Self {
        Self {
            touched: rules.kimi,
            texts: Texts::new(&rules),
            calls: Calls::new(rules),
            repairs: Repairs::default(),
            has_content: false,
            finished: false,
        }
    }

    /// Whether the answer is read at all. A model that is no Kimi says what it says.
    pub(super) fn is_touched(&self) -> bool {
        self.touched
    }

    /// Tells the whole content before its pieces come, and whether reasoning comes: of an answer in one body nothing was
    /// shown yet, so a late close tag may still make what stands before it thinking.
    pub fn foresee(&mut self, content: &Text, has_reasoning: bool) {
        match &mut self.texts {
            _ if has_reasoning => {}
            Texts::K2(reader) => reader.foresee(content),
            Texts::K3(reader) => reader.foresee(content),
        }
    }

    /// Takes the next piece and appends what the client may see now.
    pub fn push(&mut self, piece: Piece, out: &mut Vec<Event>) {
        let from = out.len();
        let mut sink = Sink {
            calls: &mut self.calls,
            repairs: &mut self.repairs,
            out,
        };
        match piece {
            Piece::Text(channel, text) if text.is_empty() => {
                if sink.calls.at_rest() {
                    sink.text(channel, b"");
                }
            }
            Piece::Text(channel, text) => self.texts.push(channel, &text, &mut sink),
            Piece::Call(part) => {
                self.texts.settle(&mut sink);
                sink.part(&part);
            }
            Piece::CallEnd { slot } => sink.part_end(slot),
            Piece::Finish(finish) => self.finish(finish, out),
        }
        self.notice(&out[from..]);
    }

    /// The answer ended properly; appends what was held, and a finish if none came.
    pub fn end(&mut self, out: &mut Vec<Event>) {
        if self.finished {
            self.close(out);
        } else {
            self.finish(Finish::Missing, out);
        }
    }

    /// Whether this text, which is all that comes, may pass unseen; then it counts as passed.
    pub fn passes(&mut self, channel: Channel, text: &[u8]) -> bool {
        let passes = self.calls.at_rest() && self.texts.passes(channel, text);
        self.has_content |= passes && channel == Channel::Content;
        passes
    }

    /// A text ended, and what follows does not go on with it: what is undecided of it is decided.
    pub(super) fn settle(&mut self, out: &mut Vec<Event>) {
        let from = out.len();
        let mut sink = Sink {
            calls: &mut self.calls,
            repairs: &mut self.repairs,
            out,
        };
        self.texts.settle(&mut sink);
        self.notice(&out[from..]);
    }

    /// What was repaired so far.
    pub fn repairs(&self) -> &Repairs {
        &self.repairs
    }

    /// How many calls have begun.
    pub(super) fn calls(&self) -> usize {
        self.calls.count()
    }

    /// How many bytes are held.
    pub(super) fn held(&self) -> usize {
        self.texts.held() + self.calls.held()
    }

    /// Counts what a codec repaired.
    pub(super) fn count(&mut self, kind: Kind) {
        self.repairs.count(kind);
    }

    fn finish(&mut self, said: Finish, out: &mut Vec<Event>) {
        let from = out.len();
        self.close(out);
        self.notice(&out[from..]);
        let right = said.clone().right(self.calls.count() > 0);
        if right != said {
            self.repairs.count(Kind::FinishReason);
        }
        if right == Finish::Stop && !self.has_content {
            self.repairs.count(Kind::EmptyAnswer);
        }
        self.finished = true;
        out.push(Event::Finish(right));
    }

    fn close(&mut self, out: &mut Vec<Event>) {
        let mut sink = Sink {
            calls: &mut self.calls,
            repairs: &mut self.repairs,
            out,
        };
        self.texts.end(&mut sink);
        sink.finish();
    }

    fn notice(&mut self, events: &[Event]) {
        self.has_content |= events.iter().any(|event| match event {
            Event::Text(Channel::Content, text) => !text.as_bytes().trim_ascii().is_empty(),
            _ => false,
        });
    }
}
