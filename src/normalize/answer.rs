//! The whole machine for one answer: pieces in, events out.

use std::sync::Arc;

use crate::normalize::event::{Event, Piece};
use crate::normalize::repairs::Repairs;
use crate::normalize::rules::Rules;

/// One answer on its way.
#[derive(Debug)]
pub struct Answer {
    _rules: Arc<Rules>,
    repairs: Repairs,
}

impl Answer {
    /// `whole` tells that the answer comes as one body: what stands before a late tag was not yet sent.
    pub fn new(rules: Arc<Rules>, _whole: bool) -> Self {
        Self {
            _rules: rules,
            repairs: Repairs::default(),
        }
    }

    /// Takes the next piece and appends what the client may see now.
    pub fn push(&mut self, piece: Piece, out: &mut Vec<Event>) {
        if let Piece::Text(channel, text) = piece {
            out.push(Event::Text(channel, text));
        }
    }

    /// The answer ended properly; appends what was held, and a finish if none came.
    pub fn end(&mut self, _out: &mut Vec<Event>) {}

    /// Whether nothing is held and no call is open, so that plain text may pass unseen.
    pub fn repairs(&self) -> &Repairs {
        &self.repairs
    }
}
