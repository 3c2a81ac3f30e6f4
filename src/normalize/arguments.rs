//! Argument text repaired, only where one reading is left: nothing and `null` mean no arguments, an object that was
//! encoded twice is unwrapped once, raw control characters in strings are escaped, and what follows the complete object
//! is cut. Everything else passes as it came, broken text too; no brace and no quote is ever invented for a client.
//!
//! An object streams: each byte leaves in the push that brought it. Only a text that begins with a quote is held to its
//! end, up to a bound, since only its end tells what it is; and the letters of `null`.
//!
//! [`object_of`] is the other use: arguments of a request's history, which an upstream takes only as an object. There
//! the longest valid beginning is kept, because the call is long over.

use std::ops::ControlFlow;

use crate::normalize::grammar::{Grammar, Step};
use crate::normalize::repairs::{Kind, Repairs};
use crate::normalize::text::Text;

/// Longest text that is held because it may be encoded twice; a longer one passes as it came.
const LONGEST_HELD: usize = 1 << 20;

/// Repairs the argument text of one call.
#[derive(Clone, Debug, Default)]
pub struct Arguments {
    state: State,
    /// Control characters were escaped; counted once a call.
    escaped: bool,
}

#[derive(Clone, Debug, Default)]
enum State {
    /// Nothing but blanks yet.
    #[default]
    Blank,
    Object(Grammar),
    /// The object is complete.
    Complete,
    /// Junk came behind it.
    Junk,
    /// Held: `null`, or a string that may hold the object.
    Held(Vec<u8>),
    /// No reading: it passes.
    Raw,
}

impl Arguments {
    /// Takes the next part and appends what may go out to `out`.
    pub fn push(&mut self, text: &[u8], out: &mut Vec<u8>, repairs: &mut Repairs) {
        let mut rest = text;
        while !rest.is_empty() {
            rest = match &mut self.state {
                State::Blank => {
                    let blanks = rest.iter().take_while(|byte| is_blank(**byte)).count();
                    out.extend_from_slice(&rest[..blanks]);
                    let rest = &rest[blanks..];
                    self.state = match rest.first() {
                        None => State::Blank,
                        Some(b'{') => State::Object(Grammar::default()),
                        Some(b'"' | b'n') => State::Held(Vec::new()),
                        Some(_) => broken(repairs),
                    };
                    rest
                }
                State::Object(grammar) => {
                    let (taken, after) = object(grammar, rest, &mut self.escaped, out, repairs);
                    match after {
                        ControlFlow::Continue(()) => {}
                        ControlFlow::Break(Step::Complete) => self.state = State::Complete,
                        ControlFlow::Break(_) => self.state = broken(repairs),
                    }
                    &rest[taken..]
                }
                State::Complete => {
                    let blanks = rest.iter().take_while(|byte| is_blank(**byte)).count();
                    out.extend_from_slice(&rest[..blanks]);
                    if blanks < rest.len() {
                        repairs.count(Kind::TrailingJunk);
                        self.state = State::Junk;
                    }
                    &[]
                }
                State::Junk => &[],
                State::Held(held) => {
                    held.extend_from_slice(rest);
                    let null = held[0] == b'n' && !is_part_of_null(held);
                    if null || held.len() > LONGEST_HELD {
                        out.append(held);
                        self.state = broken(repairs);
                    }
                    &[]
                }
                State::Raw => {
                    out.extend_from_slice(rest);
                    &[]
                }
            };
        }
    }

    /// The call is over: appends what is left.
    pub fn end(&mut self, out: &mut Vec<u8>, repairs: &mut Repairs) {
        match std::mem::replace(&mut self.state, State::Junk) {
            State::Blank => {
                repairs.count(Kind::ArgumentsForm);
                out.extend_from_slice(b"{}");
            }
            State::Held(held) => {
                if let Some(inner) = unwrapped(&held, repairs) {
                    out.extend_from_slice(&inner);
                } else {
                    repairs.count(Kind::BrokenArguments);
                    out.extend_from_slice(&held);
                }
            }
            State::Object(_) => repairs.count(Kind::BrokenArguments),
            State::Complete | State::Junk | State::Raw => {}
        }
    }
}

fn broken(repairs: &mut Repairs) -> State {
    repairs.count(Kind::BrokenArguments);
    State::Raw
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

fn is_part_of_null(held: &[u8]) -> bool {
    let word = held.trim_ascii_end();
    b"null".starts_with(word) && (word.len() == held.len() || word == b"null")
}

/// Writes an object's bytes until it ends or breaks; how many were taken.
fn object(
    grammar: &mut Grammar,
    text: &[u8],
    escaped: &mut bool,
    out: &mut Vec<u8>,
    repairs: &mut Repairs,
) -> (usize, ControlFlow<Step>) {
    let mut from = 0;
    let mut at = 0;
    while at < text.len() {
        if grammar.in_text() {
            let plain = |byte: &u8| *byte >= b' ' && *byte != b'"' && *byte != b'\\';
            at += text[at..].iter().take_while(|byte| plain(byte)).count();
            if at == text.len() {
                break;
            }
        }
        let byte = text[at];
        match grammar.step(byte) {
            Step::Fine => at += 1,
            Step::Control => {
                out.extend_from_slice(&text[from..at]);
                escape(byte, out);
                at += 1;
                from = at;
                if !std::mem::replace(escaped, true) {
                    repairs.count(Kind::ControlCharacter);
                }
            }
            Step::Complete => {
                out.extend_from_slice(&text[from..=at]);
                return (at + 1, ControlFlow::Break(Step::Complete));
            }
            broken @ (Step::Broken | Step::Beyond) => {
                out.extend_from_slice(&text[from..at]);
                return (at, ControlFlow::Break(broken));
            }
        }
    }
    out.extend_from_slice(&text[from..]);
    (text.len(), ControlFlow::Continue(()))
}

fn escape(byte: u8, out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let short = match byte {
        b'\n' => b'n',
        b'\r' => b'r',
        b'\t' => b't',
        8 => b'b',
        12 => b'f',
        _ => {
            out.extend_from_slice(b"\\u00");
            out.push(HEX[usize::from(byte >> 4)]);
            out.push(HEX[usize::from(byte & 15)]);
            return;
        }
    };
    out.extend_from_slice(&[b'\\', short]);
}

/// What a held text means: the object inside a string, or no arguments.
fn unwrapped(held: &[u8], repairs: &mut Repairs) -> Option<Vec<u8>> {
    if held.trim_ascii_end() == b"null" {
        repairs.count(Kind::ArgumentsForm);
        return Some(b"{}".to_vec());
    }
    let end = end_of_string(held)?;
    let inner = Text::from_json(std::str::from_utf8(&held[..end]).ok()?)?;
    let mut counted = Repairs::default();
    let object = if inner.as_bytes().trim_ascii().is_empty() {
        b"{}".to_vec()
    } else {
        complete(inner.as_bytes(), &mut counted)?
    };
    repairs.count(Kind::ArgumentsForm);
    repairs.add(&counted);
    if !held[end..].trim_ascii().is_empty() {
        repairs.count(Kind::TrailingJunk);
    }
    Some(object)
}

/// The offset behind the string with which this text begins.
fn end_of_string(text: &[u8]) -> Option<usize> {
    let mut escaped = false;
    let close = text.iter().skip(1).position(|byte| {
        let closes = *byte == b'"' && !escaped;
        escaped = *byte == b'\\' && !escaped;
        closes
    });
    (text.first() == Some(&b'"')).then_some(close? + 2)
}

/// The object that this text is, with control characters escaped and junk cut; `None` if it is none.
fn complete(text: &[u8], repairs: &mut Repairs) -> Option<Vec<u8>> {
    let text = text.trim_ascii();
    let mut out = Vec::with_capacity(text.len());
    let mut grammar = Grammar::default();
    if text.first() != Some(&b'{') {
        return None;
    }
    match object(&mut grammar, text, &mut false, &mut out, repairs) {
        (taken, ControlFlow::Break(Step::Complete)) => {
            if taken < text.len() {
                repairs.count(Kind::TrailingJunk);
            }
            Some(out)
        }
        _ => None,
    }
}

/// A valid object for an argument text of a request's history; `None` if the text is one already.
///
/// What streams repair is repaired; of a text that is broken the longest beginning with whole members is kept, and if
/// there is none, `{}` stands for it.
pub(super) fn object_of(text: &[u8]) -> Option<Vec<u8>> {
    let mut ignored = Repairs::default();
    if let Some(object) = complete(text, &mut ignored) {
        return (!ignored.is_empty()).then_some(object);
    }
    let text = text.trim_ascii();
    if text.is_empty() {
        return Some(b"{}".to_vec());
    }
    if let Some(object) = unwrapped(text, &mut ignored) {
        return Some(object);
    }
    let inner = end_of_string(text)
        .and_then(|end| std::str::from_utf8(&text[..end]).ok())
        .and_then(Text::from_json);
    let inner = inner.as_ref().map_or(text, Text::as_bytes);
    Some(beginning(inner.trim_ascii()))
}

/// The longest beginning of a broken object that whole members make, closed.
fn beginning(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut best = b"{}".to_vec();
    let mut grammar = Grammar::default();
    if text.first() != Some(&b'{') {
        return best;
    }
    let mut whole = 0;
    let mut closers = Vec::new();
    for byte in text {
        match grammar.step(*byte) {
            Step::Control => escape(*byte, &mut out),
            Step::Broken | Step::Complete | Step::Beyond => break,
            Step::Fine => {
                // A number may go on, so it is whole only when something follows; that byte is not kept.
                let follows = matches!(byte, b',');
                if follows && whole < out.len() {
                    whole = out.len();
                    closers = grammar.closers().collect();
                }
                out.push(*byte);
                if grammar.opened() && grammar.depth() == 1
                    || grammar.after_value() && matches!(byte, b'"' | b'}' | b']' | b'e' | b'l')
                {
                    whole = out.len();
                    closers = grammar.closers().collect();
                }
            }
        }
    }
    if whole > 0 {
        out.truncate(whole);
        out.append(&mut closers);
        // What was kept has been followed byte by byte; a strict reader has the last word.
        if serde_json::from_slice::<serde::de::IgnoredAny>(&out).is_ok() {
            best = out;
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn repaired(parts: &[&[u8]]) -> (Vec<u8>, Vec<Kind>) {
        let (mut out, mut repairs) = (Vec::new(), Repairs::default());
        let mut arguments = Arguments::default();
        for part in parts {
            arguments.push(part, &mut out, &mut repairs);
        }
        arguments.end(&mut out, &mut repairs);
        (out, repairs.seen().map(|(kind, _)| kind).collect())
    }

    #[test]
    fn what_has_one_reading_is_repaired() {
        use Kind::{ArgumentsForm, BrokenArguments, ControlCharacter, TrailingJunk};
        for (text, expected, kinds) in [
            (r#"{"a": 1,  "a":[ ]}"#, r#"{"a": 1,  "a":[ ]}"#, &[][..]),
            (" {\"a\":1}\n", " {\"a\":1}\n", &[]),
            ("", "{}", &[ArgumentsForm]),
            (" \n", " \n{}", &[ArgumentsForm]),
            ("null", "{}", &[ArgumentsForm]),
            ("null \n", "{}", &[ArgumentsForm]),
            (
                r#""{\"a\": \"b\\n\"}""#,
                r#"{"a": "b\n"}"#,
                &[ArgumentsForm],
            ),
            (r#"" ""#, "{}", &[ArgumentsForm]),
            (
                "\"{\\\"a\\\":\\\"b\nc\\\"}\"",
                r#"{"a":"b\nc"}"#,
                &[ArgumentsForm, ControlCharacter],
            ),
            (
                r#""{\"a\":1}" and more"#,
                r#"{"a":1}"#,
                &[ArgumentsForm, TrailingJunk],
            ),
            (
                "{\"a\":\"x\ny\tz\u{1}\u{c}\"}",
                r#"{"a":"x\ny\tz\u0001\f"}"#,
                &[ControlCharacter],
            ),
            (r#"{"a":1}}"#, r#"{"a":1}"#, &[TrailingJunk]),
            (
                r#"{"a":1} <|tool_call_end|>"#,
                r#"{"a":1} "#,
                &[TrailingJunk],
            ),
            (r#"{"a":1}{"b":2}"#, r#"{"a":1}"#, &[TrailingJunk]),
            // Broken or of another kind: as it came.
            (
                r#"{"port": "Kiel""#,
                r#"{"port": "Kiel""#,
                &[BrokenArguments],
            ),
            (r"{'a': '}'} x", r"{'a': '}'} x", &[BrokenArguments]),
            (r#"{"a": True} x"#, r#"{"a": True} x"#, &[BrokenArguments]),
            (r#"{"re": "\d"} x"#, r#"{"re": "\d"} x"#, &[BrokenArguments]),
            ("[1,2]", "[1,2]", &[BrokenArguments]),
            ("nul", "nul", &[BrokenArguments]),
            ("nothing", "nothing", &[BrokenArguments]),
            ("null null", "null null", &[BrokenArguments]),
            (r#""plain words""#, r#""plain words""#, &[BrokenArguments]),
            (
                r#""\"{\\\"a\\\":1}\"""#,
                r#""\"{\\\"a\\\":1}\"""#,
                &[BrokenArguments],
            ),
            (r#""{\"a\":1"#, r#""{\"a\":1"#, &[BrokenArguments]),
            ("42", "42", &[BrokenArguments]),
        ] {
            let (out, seen) = repaired(&[text.as_bytes()]);
            assert_eq!(String::from_utf8_lossy(&out), expected, "{text}");
            assert_eq!(seen, kinds, "{text}");
        }
    }

    #[test]
    fn an_object_leaves_as_it_comes() {
        let (mut out, mut repairs) = (Vec::new(), Repairs::default());
        let mut arguments = Arguments::default();
        for part in [r#"{"pa"#, r#"th": "#, r#""a\"#, r#"nb", "n":1"#, "2}"] {
            let before = out.len();
            arguments.push(part.as_bytes(), &mut out, &mut repairs);
            assert_eq!(&out[before..], part.as_bytes());
        }
        arguments.end(&mut out, &mut repairs);
        assert!(repairs.is_empty());
    }

    #[test]
    fn a_text_that_may_be_encoded_twice_is_held_up_to_a_bound() {
        let (mut out, mut repairs) = (Vec::new(), Repairs::default());
        let mut arguments = Arguments::default();
        arguments.push(b"\"", &mut out, &mut repairs);
        arguments.push(&vec![b'x'; LONGEST_HELD - 1], &mut out, &mut repairs);
        assert!(out.is_empty());
        arguments.push(b"yz", &mut out, &mut repairs);
        assert_eq!(out.len(), LONGEST_HELD + 2);
        arguments.push(b"!", &mut out, &mut repairs);
        assert_eq!(out.last(), Some(&b'!'));
    }

    #[test]
    fn history_arguments_become_objects() {
        for (text, expected) in [
            (r#"{"a":1}"#, None),
            (" {} ", None),
            ("", Some("{}")),
            ("null", Some("{}")),
            ("[1]", Some("{}")),
            ("words", Some("{}")),
            (r#""words""#, Some("{}")),
            (r#""{\"a\":1}""#, Some(r#"{"a":1}"#)),
            (r#""{\"a\":1,\"b""#, Some(r#"{"a":1}"#)),
            ("{\"a\":\"x\ny\"}", Some(r#"{"a":"x\ny"}"#)),
            (r#"{"a":1}}"#, Some(r#"{"a":1}"#)),
            (r#"{"port": "Kiel""#, Some(r#"{"port": "Kiel"}"#)),
            (r#"{"port": "Kiel", "da"#, Some(r#"{"port": "Kiel"}"#)),
            (r#"{"port": "Kie"#, Some("{}")),
            (r#"{"n": 12"#, Some("{}")),
            (r#"{"n": 12, "m"#, Some(r#"{"n": 12}"#)),
            (
                r#"{"a": [1, {"b": true"#,
                Some(r#"{"a": [1, {"b": true}]}"#),
            ),
            (r#"{"a": [1, 2"#, Some(r#"{"a": [1]}"#)),
            (r#"{"a": "x"; "b": 1}"#, Some(r#"{"a": "x"}"#)),
            ("{", Some("{}")),
            ("{a:1}", Some("{}")),
        ] {
            let object = object_of(text.as_bytes());
            assert_eq!(
                object.as_deref().map(String::from_utf8_lossy).as_deref(),
                expected,
                "{text}"
            );
        }
    }

    fn text() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            "[{\\[\"n ]?([{}\\[\\],:\"\\\\nul \n]|\"[a\n\\\\nu0]{0,3}\"|[0-9.]{1,3}|true){0,14}"
                .prop_map(String::into_bytes),
            prop::collection::vec(any::<u8>(), 0..40),
            "\\{\"a\":\"[^\"\\\\]{0,20}\"\\}"
                .prop_map(|text| serde_json::to_vec(&text).unwrap_or_default()),
        ]
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same(text in text(), cuts in prop::collection::vec(0usize..60, 0..6)) {
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(text.len())).collect();
            cuts.extend([0, text.len()]);
            cuts.sort_unstable();
            let parts: Vec<&[u8]> = cuts.windows(2).map(|pair| &text[pair[0]..pair[1]]).collect();
            prop_assert_eq!(repaired(&parts), repaired(&[&text]));
        }

        #[test]
        fn a_valid_object_is_never_touched(text in "\\{(\"a\": ?(\"[^\"\\\\\\pC]{0,9}\"|[1-9]|\\[\\]|null), ?)?\"b\":\\{\\} ?\\}") {
            let (out, kinds) = repaired(&[text.as_bytes()]);
            prop_assert_eq!(out, text.as_bytes());
            prop_assert!(kinds.is_empty());
            prop_assert_eq!(object_of(text.as_bytes()), None);
        }

        #[test]
        fn history_always_gets_an_object(text in text()) {
            let object = object_of(&text).unwrap_or(text);
            let read = serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(&object);
            let halves = String::from_utf8(object.clone()).is_err() || object.windows(2).any(|pair| pair == b"\\u");
            prop_assert!(read.is_ok() || halves, "{}", String::from_utf8_lossy(&object));
        }
    }
}
