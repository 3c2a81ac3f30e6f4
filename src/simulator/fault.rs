//! The ways in which an answer can go wrong on demand.

use std::fmt;
use std::str::FromStr;

use super::garble::Garble;
use super::options::UnknownName;

/// One fault. Those that name a stream act on the answer's body, streamed or not; the others replace the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The answer stops in the middle and never goes on; the connection stays open.
    Stall,
    /// The connection is closed in the middle of the answer, without the terminator of the body.
    Cut,
    /// As [`Fault::Cut`], after exactly this many events of the stream.
    CutAfter(u32),
    /// As [`Fault::Cut`], by a reset in place of an orderly close.
    Reset,
    /// The connection is closed before any byte of an answer.
    Drop,
    /// The answer ends in the middle, politely: body terminated, finish marker and usage missing.
    Truncate,
    /// A gateway's HTML page with status 502.
    Html502,
    /// One `data:` line in the middle holds broken JSON; the stream goes on after it.
    BrokenChunk,
    /// An error event in the middle of the stream, which then ends.
    ErrorEvent,
    /// Refused as over the limit: 429.
    Throttled,
    /// Shed: 503.
    Shed,
    /// The client is accepted and never gets a status line.
    Silent,
    /// The answer is whole, and what the model says in it is garbled.
    Garbled(Garble),
}

impl Fault {
    /// The words that name the faults; `cut-after=N` also takes a count, `KNN` a number from 01 to 30.
    pub const NAMES: &[&str] = &[
        "stall",
        "cut",
        "cut-after=N",
        "reset",
        "drop",
        "truncate",
        "html502",
        "broken-chunk",
        "error-event",
        "429",
        "503",
        "silent",
        "KNN",
    ];
}

/// A fault that a request asks for: for ever, or with `*N` behind its name for the first N requests that ask alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wish {
    pub(super) fault: Fault,
    pub(super) times: Option<u32>,
}

/// Opens the marker of a fault in a user's text.
pub(super) const MARKER: &str = "[[fault:";

impl Wish {
    /// The fault that a text asks for by `[[fault:NAME]]`, if any.
    pub(super) fn marked(text: &str) -> Option<Self> {
        let (_, rest) = text.split_once(MARKER)?;
        rest.split_once("]]")?.0.trim().parse().ok()
    }
}

impl FromStr for Wish {
    type Err = UnknownName;

    fn from_str(words: &str) -> Result<Self, UnknownName> {
        let (name, times) = match words.split_once('*') {
            Some((name, times)) => {
                let unknown = |_| UnknownName::new("fault", words, Fault::NAMES);
                (name, Some(times.parse().map_err(unknown)?))
            }
            None => (words, None),
        };
        Ok(Self {
            fault: name.parse()?,
            times,
        })
    }
}

impl FromStr for Fault {
    type Err = UnknownName;

    fn from_str(word: &str) -> Result<Self, UnknownName> {
        Ok(match word {
            "stall" => Self::Stall,
            "cut" => Self::Cut,
            "reset" => Self::Reset,
            "drop" => Self::Drop,
            "truncate" => Self::Truncate,
            "html502" => Self::Html502,
            "broken-chunk" => Self::BrokenChunk,
            "error-event" => Self::ErrorEvent,
            "429" => Self::Throttled,
            "503" => Self::Shed,
            "silent" => Self::Silent,
            _ => word
                .strip_prefix("cut-after=")
                .and_then(|count| count.parse().ok())
                .map(Self::CutAfter)
                .or_else(|| word.parse().ok().map(Self::Garbled))
                .ok_or_else(|| UnknownName::new("fault", word, Self::NAMES))?,
        })
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Stall => "stall",
            Self::Cut => "cut",
            Self::CutAfter(events) => return write!(out, "cut-after={events}"),
            Self::Reset => "reset",
            Self::Drop => "drop",
            Self::Truncate => "truncate",
            Self::Html502 => "html502",
            Self::BrokenChunk => "broken-chunk",
            Self::ErrorEvent => "error-event",
            Self::Throttled => "429",
            Self::Shed => "503",
            Self::Silent => "silent",
            Self::Garbled(way) => return way.fmt(out),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_faults_convert_both_ways() {
        for name in Fault::NAMES {
            let name = name.replace("=N", "=3").replace("NN", "07");
            assert_eq!(name.parse::<Fault>().unwrap().to_string(), name);
        }
        assert!("cut-after=x".parse::<Fault>().is_err());
        let complaint = "slow".parse::<Fault>().unwrap_err().to_string();
        assert!(complaint.contains("broken-chunk"), "{complaint}");
    }

    #[test]
    fn a_text_may_ask_for_a_fault() {
        let check = |text, expected: Option<(Fault, Option<u32>)>| {
            let expected = expected.map(|(fault, times)| Wish { fault, times });
            assert_eq!(Wish::marked(text), expected, "{text}");
        };
        check("please [[fault:cut]] now", Some((Fault::Cut, None)));
        check("[[fault: cut-after=2 ]]", Some((Fault::CutAfter(2), None)));
        check("[[fault:503*2]]", Some((Fault::Shed, Some(2))));
        check("[[fault:503*x]]", None);
        check("[[fault:nothing]]", None);
        check("[[fault:cut", None);
        check("no marker", None);
    }
}
