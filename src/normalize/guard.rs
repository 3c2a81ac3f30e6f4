//! Sections in a talk about markers.
//!
//! Who works on a parser of Kimi's output talks about its markers all day. Once a message of the request holds one, only
//! a whole section in the canonical form, whose calls name declared tools and hold valid JSON objects, is taken for
//! calls; everything else stays text, orphaned markers too.

use serde::de::IgnoredAny;

use crate::normalize::boundary::Boundary;
use crate::normalize::markers::{Marker, Start};
use crate::normalize::names::{Name, Tools};

/// What is known of a text that begins with a section.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict<'a> {
    /// A canonical section of this length, with the headers and arguments of its calls.
    Section(usize, Vec<(&'a str, &'a [u8])>),
    /// More text may make it one.
    Undecided,
    /// It is text.
    Text,
}

/// Longest section that is waited for.
const LONGEST: usize = 256 * 1024;

/// Longest header of a call.
const LONGEST_HEADER: usize = 256;

/// Reads a section from its begin marker on.
pub(super) fn read<'a>(text: &'a [u8], tools: &Tools, last: bool) -> Verdict<'a> {
    if text.len() > LONGEST || !text.starts_with(b"<|tool_calls_") {
        return Verdict::Text;
    }
    let mut reader = Cursor { text, at: 0, last };
    match reader.section(tools) {
        Ok(calls) if !calls.is_empty() => Verdict::Section(reader.at, calls),
        Err(Stop::Undecided) if !last => Verdict::Undecided,
        Ok(_) | Err(_) => Verdict::Text,
    }
}

enum Stop {
    Undecided,
    Wrong,
}

struct Cursor<'a> {
    text: &'a [u8],
    at: usize,
    last: bool,
}

impl<'a> Cursor<'a> {
    fn section(&mut self, tools: &Tools) -> Result<Vec<(&'a str, &'a [u8])>, Stop> {
        let mut calls = Vec::new();
        if self.marker()? != Marker::SectionBegin {
            return Err(Stop::Wrong);
        }
        loop {
            match self.marker()? {
                Marker::CallBegin => calls.push(self.call(tools)?),
                Marker::SectionEnd => return Ok(calls),
                _ => return Err(Stop::Wrong),
            }
        }
    }

    fn call(&mut self, tools: &Tools) -> Result<(&'a str, &'a [u8]), Stop> {
        let header = self.header(tools)?;
        if self.marker()? != Marker::Arguments {
            return Err(Stop::Wrong);
        }
        let arguments = self.object()?;
        if self.marker()? != Marker::CallEnd {
            return Err(Stop::Wrong);
        }
        Ok((header, arguments))
    }

    fn header(&mut self, tools: &Tools) -> Result<&'a str, Stop> {
        let rest = &self.text[self.at..];
        let length = memchr::memchr(b'<', rest).ok_or(if rest.len() > LONGEST_HEADER {
            Stop::Wrong
        } else {
            Stop::Undecided
        })?;
        self.at += length;
        let header = std::str::from_utf8(&rest[..length])
            .ok()
            .ok_or(Stop::Wrong)?;
        let canonical = header
            .trim()
            .strip_prefix("functions.")
            .and_then(|id| id.rsplit_once(':'))
            .is_some_and(|(name, digits)| {
                tools.resolve(name) == Name::Declared(name.to_owned())
                    && !digits.is_empty()
                    && digits.bytes().all(|byte| byte.is_ascii_digit())
            });
        canonical.then_some(header).ok_or(Stop::Wrong)
    }

    fn object(&mut self) -> Result<&'a [u8], Stop> {
        self.blanks();
        let rest = &self.text[self.at..];
        let mut boundary = Boundary::default();
        let length = boundary.take(rest);
        if !boundary.is_complete() {
            return Err(if length == rest.len() {
                Stop::Undecided
            } else {
                Stop::Wrong
            });
        }
        self.at += length;
        let object = &rest[..length];
        let valid =
            object.starts_with(b"{") && serde_json::from_slice::<IgnoredAny>(object).is_ok();
        valid.then_some(object).ok_or(Stop::Wrong)
    }

    fn marker(&mut self) -> Result<Marker, Stop> {
        self.blanks();
        let rest = &self.text[self.at..];
        match Start::of(rest, self.last, Marker::is_of_calls) {
            Start::Marker(marker, length) => {
                self.at += length;
                Ok(marker)
            }
            Start::Undecided => Err(Stop::Undecided),
            Start::Nothing => Err(Stop::Wrong),
        }
    }

    fn blanks(&mut self) {
        let rest = &self.text[self.at..];
        self.at += rest.len() - rest.trim_ascii_start().len();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_canonical_sections_count() {
        let tools = Tools::new([("run", None)]);
        let whole = "<|tool_calls_section_begin|> <|tool_call_begin|>functions.run:0\
            <|tool_call_argument_begin|>{\"a\":\"<|\"}<|tool_call_end|>\n<|tool_calls_section_end|>";
        let expected = Verdict::Section(whole.len(), vec![("functions.run:0", b"{\"a\":\"<|\"}")]);
        assert_eq!(read(whole.as_bytes(), &tools, false), expected);
        assert_eq!(
            read(format!("{whole} x").as_bytes(), &tools, true),
            expected
        );
        for cut in "<|tool_calls_section_begin|>".len()..whole.len() {
            let text = &whole.as_bytes()[..cut];
            assert_eq!(read(text, &tools, false), Verdict::Undecided, "{cut}");
            assert_eq!(read(text, &tools, true), Verdict::Text, "{cut}");
        }
        for (from, to) in [
            ("functions.run:0", "run:0"),
            ("functions.run:0", "functions.walk:0"),
            ("{\"a\":\"<|\"}", "{\"a\"}"),
            ("{\"a\":\"<|\"}", "[1]"),
            ("<|tool_call_end|>", ""),
            (
                "<|tool_calls_section_begin|> ",
                "<|tool_calls_section_begin|> so ",
            ),
        ] {
            let text = whole.replace(from, to);
            assert_eq!(read(text.as_bytes(), &tools, false), Verdict::Text, "{to}");
        }
    }
}
