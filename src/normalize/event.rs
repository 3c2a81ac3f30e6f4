//! What an answer says, piece by piece, freed from its dialect.
//!
//! A codec turns an upstream's bytes into [`Piece`]s, the [`Answer`](super::Answer) turns pieces into [`Event`]s, and an encoder or the
//! same codec turns events into the bytes that the client gets. Pieces are what arrived, with all their damage; events
//! are what the client shall see, and keep this order: nothing stands between the begin and the end of a call, a call
//! says its name and id once and first, calls are numbered from 0 without gaps, and the finish comes last.

use crate::normalize::text::Text;

/// A text's place in an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Channel {
    /// What the user reads.
    Content,
    /// What the model thought.
    Reasoning,
}

/// One thing that arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// Text in its channel. The empty text is a piece too: between turns `"reasoning_content": ""` has a meaning.
    Text(Channel, Text),
    /// A part of a structured call.
    Call(CallPart),
    /// A structured call is over; only dialects that say so say it.
    CallEnd {
        /// The upstream's number of the call.
        slot: Option<u64>,
    },
    /// Why the model stopped.
    Finish(Finish),
}

/// A part of a structured call as it arrived.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CallPart {
    /// The upstream's number of the call; some send none.
    pub slot: Option<u64>,
    /// The call's id, on the first part or on each.
    pub id: Option<String>,
    /// The tool's name, on the first part or on each.
    pub name: Option<String>,
    /// Argument text. An upstream that sends an object instead of a text gets the object's own text here.
    pub arguments: Option<Text>,
}

/// One thing that the client shall see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Text in its channel.
    Text(Channel, Text),
    /// A call begins.
    CallBegin {
        /// Its number in the answer, dense from 0.
        index: usize,
        /// Its id, native (`functions.NAME:IDX`) unless the upstream sent another form.
        id: String,
        /// The tool's name.
        name: String,
    },
    /// A part of the open call's argument text.
    CallArguments {
        /// The open call's number.
        index: usize,
        /// The next part.
        text: Text,
    },
    /// The open call is over.
    CallEnd {
        /// Its number.
        index: usize,
    },
    /// Why the model stopped, which is the last event.
    Finish(Finish),
}

/// Why a model stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finish {
    /// It had said everything.
    Stop,
    /// It wants tools to be run.
    ToolCalls,
    /// The limit of tokens was reached.
    Length,
    /// The provider cut it.
    ContentFilter,
    /// A word of the upstream's own.
    Other(String),
    /// The answer ended properly and told no reason.
    Missing,
}

impl Finish {
    /// Reads the word of `OpenAI` chat.
    pub fn of_chat(word: &str) -> Self {
        match word {
            "stop" => Self::Stop,
            "tool_calls" => Self::ToolCalls,
            "length" => Self::Length,
            "content_filter" => Self::ContentFilter,
            other => Self::Other(other.to_owned()),
        }
    }

    /// The word of `OpenAI` chat.
    pub fn chat(&self) -> &str {
        match self {
            Self::Stop | Self::Missing => "stop",
            Self::ToolCalls => "tool_calls",
            Self::Length => "length",
            Self::ContentFilter => "content_filter",
            Self::Other(word) => word,
        }
    }
}
