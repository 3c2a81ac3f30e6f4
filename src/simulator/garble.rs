//! The ways in which providers garble what a Kimi model says, by number: what a whole answer becomes.
//!
//! An answer is turned into a script of parts in the order in which they arrive; [`garbled`](super::garbled) writes
//! them in the dialect of the request. The numbers are those under which the kinds of damage are known in the tests of
//! the repairs; K25 to K27 are no damage but text that only looks like it, and an answer that is right.
//!
//! Calls are the scripted agent's own, so a client whose proxy repairs the answer goes on as if nothing had happened.

use std::fmt;
use std::str::FromStr;

use serde_json::Value;

use super::agent::{Answer, Call};
use super::options::UnknownName;

const SECTION: [&str; 2] = ["<|tool_calls_section_begin|>", "<|tool_calls_section_end|>"];
const SINGULAR: [&str; 2] = ["<|tool_call_section_begin|>", "<|tool_call_section_end|>"];
const BEGIN: &str = "<|tool_call_begin|>";
const ARGUMENTS: &str = "<|tool_call_argument_begin|>";
const END: &str = "<|tool_call_end|>";

/// Stand for the two halves of one character (a wave, U+1F30A) that arrive in two deltas.
pub(super) const HALVES: [char; 2] = ['\u{E000}', '\u{E001}'];

/// A way of garbling, 1 to 30.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Garble(u8);

impl Garble {
    /// All of them, in order.
    pub fn all() -> impl Iterator<Item = Self> {
        (1..=30).map(Self)
    }
}

impl fmt::Display for Garble {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "K{:02}", self.0)
    }
}

impl FromStr for Garble {
    type Err = UnknownName;

    fn from_str(word: &str) -> Result<Self, UnknownName> {
        Self::all()
            .find(|way| way.to_string() == word)
            .ok_or_else(|| UnknownName::new("damage", word, &["K01 to K30"]))
    }
}

/// Where a text arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Field {
    Content,
    Reasoning,
    /// In two other fields at once, in dialects that have them.
    Mirrored,
}

/// One thing that arrives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// A text, cut as usual.
    Text(Field, String),
    /// A text that is one delta.
    Delta(Field, String),
    /// A part of a structured call.
    Call(CallPart),
    /// A comment or ping.
    Noise,
}

/// A part of a structured call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct CallPart {
    pub(super) index: usize,
    pub(super) id: Option<String>,
    pub(super) name: Option<String>,
    pub(super) arguments: String,
    /// An empty thought rides on it.
    pub(super) thought: bool,
}

/// What arrives, and the finish in the words of chat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Script {
    pub(super) parts: Vec<Part>,
    pub(super) finish: &'static str,
}

/// How the script of an answer is written.
struct Writer {
    parts: Vec<Part>,
    /// Calls before this answer; ids count on from here.
    before: usize,
}

impl Garble {
    /// What an answer becomes.
    pub(super) fn script(self, answer: &Answer, before: usize) -> Script {
        let mut out = Writer {
            parts: Vec::new(),
            before,
        };
        let finish = out.write(self.0, answer);
        Script {
            parts: out.parts,
            finish: if answer.cut_short { "length" } else { finish },
        }
    }
}

impl Writer {
    fn text(&mut self, field: Field, text: &str) {
        if !text.is_empty() {
            self.parts.push(Part::Text(field, text.to_owned()));
        }
    }

    fn thought(&mut self, answer: &Answer) {
        self.text(Field::Reasoning, &answer.thinking);
    }

    fn content(&mut self, text: &str) {
        self.text(Field::Content, text);
    }

    /// Text that holds markers, one delta for each marker and for each text between.
    fn leak(&mut self, field: Field, text: &str) {
        let mut rest = text;
        while !rest.is_empty() {
            let end = match rest.strip_prefix("<|") {
                Some(inner) => inner.find("|>").map(|at| at + 4),
                None => rest.find("<|"),
            };
            let (delta, after) = rest.split_at(end.unwrap_or(rest.len()));
            self.parts.push(Part::Delta(field, delta.to_owned()));
            rest = after;
        }
    }

    /// Text in deltas of so many characters.
    fn cut(&mut self, field: Field, text: &str, characters: usize) {
        let all: Vec<char> = text.chars().collect();
        for piece in all.chunks(characters) {
            self.parts.push(Part::Delta(field, piece.iter().collect()));
        }
    }

    fn id(&self, index: usize, name: &str) -> String {
        format!("functions.{name}:{}", self.before + index)
    }

    /// A call as the model writes it.
    fn written(&self, index: usize, call: &Call) -> String {
        let id = self.id(index, &call.name);
        format!("{BEGIN}{id}{ARGUMENTS}{}{END}", call.arguments)
    }

    /// All calls as the model writes them.
    fn section(&self, calls: &[Call], markers: [&str; 2]) -> String {
        let [begin, end] = markers;
        let calls = calls.iter().enumerate();
        let calls: String = calls
            .map(|(index, call)| self.written(index, call))
            .collect();
        if calls.is_empty() {
            calls
        } else {
            format!("{begin}{calls}{end}")
        }
    }

    /// The calls with other headers.
    fn headed(&self, calls: &[Call], header: impl Fn(&str, usize) -> String) -> String {
        let [begin, end] = SECTION;
        let written = calls.iter().enumerate().map(|(index, call)| {
            let header = header(&call.name, self.before + index);
            format!("{BEGIN}{header}{ARGUMENTS}{}{END}", call.arguments)
        });
        let calls: String = written.collect();
        if calls.is_empty() {
            calls
        } else {
            format!("{begin}{calls}{end}")
        }
    }

    /// A structured call in two deltas.
    fn call(&mut self, index: usize, call: &Call) {
        self.named(index, &call.name, &call.name, &call.arguments);
    }

    fn named(&mut self, index: usize, name: &str, shown: &str, arguments: &str) {
        let begin = CallPart {
            index,
            id: Some(self.id(index, name)),
            name: Some(shown.to_owned()),
            ..CallPart::default()
        };
        let rest = CallPart {
            index,
            arguments: arguments.to_owned(),
            ..CallPart::default()
        };
        self.parts.extend([Part::Call(begin), Part::Call(rest)]);
    }

    fn calls(&mut self, calls: &[Call]) -> &'static str {
        for (index, call) in calls.iter().enumerate() {
            self.call(index, call);
        }
        finish_of(calls)
    }

    /// Thought, words, and a leak in the content in place of the calls.
    fn leaked(&mut self, answer: &Answer, leak: &str) -> &'static str {
        self.thought(answer);
        self.content(&answer.text);
        self.leak(Field::Content, leak);
        "stop"
    }

    /// Writes the answer in one of the ways; tells its finish.
    fn write(&mut self, way: u8, answer: &Answer) -> &'static str {
        let calls = answer.calls.as_slice();
        let section = self.section(calls, SECTION);
        match way {
            1..=12 => self.text_for_calls(way, answer, &section),
            13 => {
                let words = format!("<think>{}</think>{}", answer.thinking, answer.text);
                self.content(&words);
                self.calls(calls)
            }
            14 => {
                self.text(Field::Mirrored, &answer.thinking);
                self.content(&answer.text);
                self.calls(calls)
            }
            15 => {
                self.thought(answer);
                self.content(&format!("(no content)(no content)\n{}", answer.text));
                self.calls(calls)
            }
            16..=22 => self.structured(way, answer),
            23 => {
                self.thought(answer);
                self.content(&answer.text);
                let finish = self.calls(calls);
                self.leak(Field::Content, &section);
                finish
            }
            24 => {
                self.thought(answer);
                self.content(&answer.text);
                self.leak(Field::Content, &format!("{END}{}", SECTION[1]));
                let finish = self.calls(calls);
                self.leak(Field::Content, "<|im_end|>");
                finish
            }
            25 => {
                self.thought(answer);
                let example = Call {
                    name: "run".to_owned(),
                    arguments: "{}".to_owned(),
                };
                let example = self.section(&[example], SECTION);
                self.content(&format!(
                    "A call looks so:\n```\n{example}\n```\n{}",
                    answer.text
                ));
                self.calls(calls)
            }
            26 => {
                self.thought(answer);
                self.content(&format!(
                    "A thought ends with `</think>`, not (no content), if a < b.\n{}",
                    answer.text
                ));
                self.calls(calls)
            }
            28 => {
                self.thought(answer);
                let [high, low] = HALVES;
                self.parts
                    .push(Part::Delta(Field::Content, format!("A wave {high}")));
                self.parts.push(Part::Noise);
                self.parts
                    .push(Part::Delta(Field::Content, format!("{low} é. ")));
                self.content(&answer.text);
                self.calls(calls)
            }
            29 => {
                self.thought(answer);
                "stop"
            }
            30 => {
                let markup = markup(answer);
                self.cut(Field::Content, &markup, 11);
                "stop"
            }
            _ => {
                self.thought(answer);
                self.content(&answer.text);
                self.calls(calls)
            }
        }
    }

    /// Ways that let calls arrive as text.
    fn text_for_calls(&mut self, way: u8, answer: &Answer, section: &str) -> &'static str {
        let calls = answer.calls.as_slice();
        match way {
            1 => self.leaked(answer, section),
            2 => {
                self.thought(answer);
                self.cut(Field::Content, &format!("{}{section}", answer.text), 3);
                "stop"
            }
            3 => {
                self.thought(answer);
                self.content(&answer.text);
                let first = self.section(calls.get(..1).unwrap_or_default(), SECTION);
                let written = calls.iter().enumerate().skip(1);
                let rest: String = written
                    .map(|(index, call)| self.written(index, call))
                    .collect();
                let [begin, end] = SECTION;
                let rest = if rest.is_empty() {
                    rest
                } else {
                    format!("{begin}{rest}{end}")
                };
                self.cut(Field::Content, &(first + &rest), 40);
                "stop"
            }
            4 => {
                let noisy = section.replacen(BEGIN, &format!("\nnow the tool\n{BEGIN}"), 1);
                self.leaked(answer, &noisy);
                self.content(" That is under way.");
                "stop"
            }
            5 => {
                let written = calls.iter().enumerate();
                let bare: String = written
                    .map(|(index, call)| self.written(index, call))
                    .collect();
                self.leaked(answer, &bare)
            }
            6 => {
                let [_, end] = SECTION;
                let open = section.strip_suffix(end).unwrap_or(section);
                self.leaked(answer, open.strip_suffix(END).unwrap_or(open))
            }
            7 => {
                let section = self.section(calls, SINGULAR);
                self.leaked(answer, &section)
            }
            8 => {
                let section = self.headed(calls, |name, index| format!("\n {name}:{index} \n"));
                self.leaked(answer, &section)
            }
            9 => {
                let section = self.headed(calls, |name, index| format!("functions{name}{index}"));
                self.leaked(answer, &section)
            }
            10 => {
                let section = self.headed(calls, |_, index| index.to_string());
                self.leaked(answer, &section)
            }
            11 => {
                let lines = calls.iter().enumerate().map(|(index, call)| {
                    let header = format!("{}:{}", call.name, self.before + index);
                    format!("\n{header}{ARGUMENTS}{}{}", call.arguments, SECTION[1])
                });
                let lines: String = lines.collect();
                self.leaked(answer, &lines)
            }
            _ => {
                self.thought(answer);
                let cut = section.find(ARGUMENTS).map_or(0, |at| at + ARGUMENTS.len());
                let (begun, rest) = section.split_at(cut);
                self.leak(Field::Reasoning, begun);
                self.leak(Field::Content, rest);
                self.content(&answer.text);
                "stop"
            }
        }
    }

    /// Ways that leave the calls structured, but not right.
    fn structured(&mut self, way: u8, answer: &Answer) -> &'static str {
        let calls = answer.calls.as_slice();
        self.thought(answer);
        self.content(&answer.text);
        if way == 22 {
            self.disordered(calls);
            return finish_of(calls);
        }
        if way == 18
            && let Some(call) = calls.first()
        {
            self.call(
                0,
                &Call {
                    name: call.name.clone(),
                    arguments: "{\"unclosed\": \"yes\"".to_owned(),
                },
            );
        }
        if way == 19 {
            let marked: Vec<Call> = calls
                .iter()
                .map(|call| with_command(call, " # <|tool_call_end|> in a comment"))
                .collect();
            let section = self.section(&marked, SECTION);
            self.leak(Field::Content, &section);
            return "stop";
        }
        let skipped = usize::from(way == 18);
        for (index, call) in calls.iter().enumerate() {
            let index = index + skipped;
            match way {
                16 if call.arguments == "{}" => self.named(index, &call.name, &call.name, ""),
                16 => {
                    let twice = Value::String(call.arguments.clone()).to_string();
                    self.named(index, &call.name, &call.name, &twice);
                }
                17 => {
                    // A raw line break in a string, and a brace too many.
                    let raw = with_command(call, "\n").arguments.replace("\\n", "\n");
                    self.named(index, &call.name, &call.name, &(raw + "}"));
                }
                21 => {
                    let shown = format!(" functions.{}:{}", call.name, self.before + index);
                    self.named(index, &call.name, &shown, &call.arguments);
                }
                _ => self.call(index, call),
            }
        }
        // A finish that hides the calls.
        if way == 20 || calls.is_empty() {
            "stop"
        } else {
            "tool_calls"
        }
    }

    /// Calls whose parts interleave, under high numbers, with the name on each part and empty thoughts between.
    fn disordered(&mut self, calls: &[Call]) {
        const FIRST: usize = 5;
        let halves: Vec<(usize, &Call, usize)> = calls
            .iter()
            .enumerate()
            .map(|(index, call)| {
                (
                    index,
                    call,
                    call.arguments.floor_char_boundary(call.arguments.len() / 2),
                )
            })
            .collect();
        for second in [false, true] {
            for (index, call, middle) in &halves {
                let (first, rest) = call.arguments.split_at(*middle);
                self.parts.push(Part::Call(CallPart {
                    index: FIRST + index,
                    id: Some(self.id(*index, &call.name)),
                    name: Some(call.name.clone()),
                    arguments: if second { rest } else { first }.to_owned(),
                    thought: second,
                }));
            }
        }
    }
}

fn finish_of(calls: &[Call]) -> &'static str {
    if calls.is_empty() {
        "stop"
    } else {
        "tool_calls"
    }
}

/// A call whose `command`, if it has one, goes on with this; a shell takes the additions of ours for nothing.
fn with_command(call: &Call, more: &str) -> Call {
    let mut arguments: Value = serde_json::from_str(&call.arguments).unwrap_or_default();
    if let Some(Value::String(command)) = arguments.get_mut("command") {
        command.push_str(more);
        let name = call.name.clone();
        return Call {
            name,
            arguments: arguments.to_string(),
        };
    }
    call.clone()
}

/// An answer in the markup of Kimi K3.
fn markup(answer: &Answer) -> String {
    let channel =
        |name: &str, text: &str| format!("<|open|>{name}<|sep|>{text}<|close|>{name}<|sep|>");
    let mut markup = String::new();
    if !answer.thinking.is_empty() {
        markup += &channel("think", &answer.thinking);
    }
    markup += &channel("response", &answer.text);
    let calls = answer.calls.iter().enumerate().map(|(index, call)| {
        let arguments: Value = serde_json::from_str(&call.arguments).unwrap_or_default();
        let told = arguments.as_object().into_iter().flatten().map(|(key, value)| {
            let (sort, text) = match value {
                Value::String(text) => ("string", text.clone()),
                Value::Array(_) => ("array", value.to_string()),
                Value::Object(_) => ("object", value.to_string()),
                Value::Number(_) => ("number", value.to_string()),
                _ => ("boolean", value.to_string()),
            };
            format!("<|open|>argument key=\"{key}\" type=\"{sort}\"<|sep|>{text}<|close|>argument<|sep|>")
        });
        let told: String = told.collect();
        let name = &call.name;
        let number = index + 1;
        format!("<|open|>call tool=\"{name}\" index=\"{number}\"<|sep|>{told}<|close|>call<|sep|>")
    });
    let calls: String = calls.collect();
    if !calls.is_empty() {
        markup += &channel("tools", &calls);
    }
    markup + "<|close|>message<|sep|>"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulator::reply::tests::everything;

    fn joined(way: &str, field: Field) -> String {
        let script = way.parse::<Garble>().unwrap().script(&everything(), 3);
        let text = |part: &Part| match part {
            Part::Text(at, text) | Part::Delta(at, text) if *at == field => text.clone(),
            _ => String::new(),
        };
        script.parts.iter().map(text).collect()
    }

    #[test]
    fn ways_have_names() {
        assert_eq!(Garble::all().count(), 30);
        for way in Garble::all() {
            assert_eq!(way.to_string().parse::<Garble>().unwrap(), way);
        }
        for wrong in ["K00", "K31", "K1", "k01", ""] {
            assert!(wrong.parse::<Garble>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn each_way_garbles_as_it_says() {
        let leak = "<|tool_calls_section_begin|><|tool_call_begin|>functions.Read:3<|tool_call_argument_begin|>{\"path\":\"a\"}<|tool_call_end|><|tool_calls_section_end|>";
        for (way, expected) in [
            ("K01", format!("some text{leak}")),
            ("K02", format!("some text{leak}")),
            ("K03", format!("some text{leak}")),
            ("K05", format!("some text{}", &leak[28..leak.len() - 26])),
            ("K06", "some text<|tool_calls_section_begin|><|tool_call_begin|>functions.Read:3<|tool_call_argument_begin|>{\"path\":\"a\"}".to_owned()),
            ("K07", format!("some text{}", leak.replace("calls_section", "call_section"))),
            ("K09", format!("some text{}", leak.replace("functions.Read:3", "functionsRead3"))),
            ("K10", format!("some text{}", leak.replace("functions.Read:3", "3"))),
            ("K11", "some text\nRead:3<|tool_call_argument_begin|>{\"path\":\"a\"}<|tool_calls_section_end|>".to_owned()),
            ("K13", "<think>thoughts</think>some text".to_owned()),
            ("K15", "(no content)(no content)\nsome text".to_owned()),
            ("K23", format!("some text{leak}")),
            ("K27", "some text".to_owned()),
            ("K29", String::new()),
        ] {
            assert_eq!(joined(way, Field::Content), expected, "{way}");
        }
        assert_eq!(joined("K14", Field::Mirrored), "thoughts");
        assert!(joined("K12", Field::Reasoning).ends_with("<|tool_call_argument_begin|>"));
        assert!(
            joined("K30", Field::Content).contains("<|open|>call tool=\"Read\" index=\"1\"<|sep|>")
        );
    }

    #[test]
    fn every_answer_can_be_garbled_in_every_way() {
        let bare = Answer {
            text: "words".to_owned(),
            ..Answer::default()
        };
        for way in Garble::all() {
            for answer in [&everything(), &bare, &Answer::default()] {
                let script = way.script(answer, 0);
                let finish = if answer.calls.is_empty() {
                    "stop"
                } else {
                    script.finish
                };
                assert_eq!(script.finish, finish, "{way}");
            }
            let cut = everything().within(Some(1));
            assert_eq!(way.script(&cut, 0).finish, "length", "{way}");
        }
    }
}
