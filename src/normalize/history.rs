//! The history of a request, cleaned on its way up.
//!
//! The prompt of a Kimi model shows a call of the history by its id alone, so ids that other models or clients made are
//! turned into native ones, and each result gets the id of its call. Arguments that are no JSON object are replaced,
//! because strict servers refuse the whole request for them, again and again. Texts that are empty beside calls go,
//! for the same reason. Thinking that bears our own signature goes back as thinking without one.
//!
//! What a message becomes depends on the messages before it and on nothing else: the next turn's prompt begins with this
//! turn's, byte for byte, and the provider's cache goes on fitting. `reasoning_content` stays as it is, the empty one
//! too, which says that the model thought nothing.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::collections::VecDeque;

use crate::normalize::arguments::object_of;
use crate::normalize::ids::{canonical, index_of_safe, native, next_free};
use crate::normalize::members::{Edits, Members, items, quoted};
use crate::normalize::repairs::{Kind, Repairs};
use crate::normalize::text::Text;
use crate::wire::Dialect;

/// The signature of thinking blocks that we make for Anthropic clients, which return thinking only with one.
pub(super) const SIGNATURE: &str = "a2ltaXEgdGhpbmtpbmc=";

/// A walk over the messages of a request, oldest first.
#[derive(Debug)]
pub(super) struct History<'a> {
    dialect: Dialect,
    edits: Edits<'a>,
    ids: Renumber,
}

impl<'a> History<'a> {
    pub(super) fn new(body: &'a [u8], dialect: Dialect) -> Self {
        Self {
            dialect,
            edits: Edits::new(body),
            ids: Renumber::default(),
        }
    }

    /// Takes the next message, or item of a responses body.
    pub(super) fn take(&mut self, raw: &'a str) {
        let Some(message) = Members::of(raw) else {
            return;
        };
        match self.dialect {
            Dialect::Chat => self.chat(&message),
            Dialect::Messages => self.blocks(&message),
            Dialect::Responses => self.item(raw, &message),
        }
    }

    /// How many calls there were.
    pub(super) fn calls(&self) -> u64 {
        self.ids.calls
    }

    /// The cleaned body; `None` if it was clean.
    pub(super) fn cleaned(self, repairs: &mut Repairs) -> Option<Vec<u8>> {
        let body = self.edits.apply();
        if body.is_some() {
            repairs.count(Kind::History);
        }
        body
    }

    fn chat(&mut self, message: &Members<'a>) {
        if let Some(id) = message.get("tool_call_id") {
            self.result(id);
        }
        let calls = message.items("tool_calls");
        for call in &calls {
            let Some(function) = Members::of(call).and_then(|it| it.get("function")) else {
                continue;
            };
            self.call(call, "id", function);
            self.argument_text(function);
        }
        let content = message.get("content");
        if let Some(content) = content.filter(|_| !calls.is_empty()) {
            self.empty_content(content);
        }
    }

    fn blocks(&mut self, message: &Members<'a>) {
        let blocks = message.items("content");
        let opened: Vec<_> = blocks.iter().map(|block| Members::of(block)).collect();
        let is = |index: usize, sort: &str| {
            let block: Option<&Members<'_>> = opened[index].as_ref();
            block.is_some_and(|block| block.is("type", sort))
        };
        let calls = (0..blocks.len()).any(|index| is(index, "tool_use"));
        for (raw, block) in blocks.iter().zip(&opened) {
            let Some(block) = block else { continue };
            if block.is("type", "tool_use") {
                self.call(raw, "id", raw);
                self.input(raw, block.get("input"));
            } else if let Some(id) = block.get("tool_use_id") {
                self.result(id);
            } else if block.is("type", "thinking")
                && block.is("signature", SIGNATURE)
                && let Some(ours) = block.get("signature")
            {
                self.edits.replace(ours, b"\"\"".to_vec());
            }
        }
        if calls {
            let empty = |index: usize| {
                let block = opened[index].as_ref();
                is(index, "text") && block.is_some_and(|block| block.is("text", ""))
            };
            self.edits.remove(&blocks, empty);
        }
    }

    fn item(&mut self, raw: &'a str, item: &Members<'a>) {
        if item.is("type", "function_call") {
            self.call(raw, "call_id", raw);
            self.argument_text(raw);
        } else if item.is("type", "function_call_output")
            && let Some(id) = item.get("call_id")
        {
            self.result(id);
        }
    }

    /// Gives a call its id; the name stands in the same object or in another.
    fn call(&mut self, object: &'a str, key: &str, named: &'a str) {
        let Some(name) = Members::of(named).and_then(|it| it.text("name")) else {
            return;
        };
        let said = Members::of(object);
        let said = said.as_ref();
        let id = said.and_then(|it| it.text(key)).unwrap_or_default();
        let ours = self.ids.call(&id, &name);
        if ours == id {
            return;
        }
        let ours = String::from_utf8_lossy(&quoted(ours.as_bytes())).into_owned();
        match said.and_then(|it| it.get(key)) {
            Some(raw) => self.edits.replace(raw, ours.into_bytes()),
            None => self.edits.insert(object, &format!("\"{key}\":{ours}")),
        }
    }

    fn result(&mut self, raw: &'a str) {
        let Some(id) = crate::normalize::members::text(raw) else {
            return;
        };
        if let Some(ours) = self.ids.result(&id)
            && ours != id
        {
            self.edits.replace(raw, quoted(ours.as_bytes()));
        }
    }

    /// Arguments that are a string which has to hold an object.
    fn argument_text(&mut self, object: &'a str) {
        let members = Members::of(object);
        let Some(raw) = members.as_ref().and_then(|it| it.get("arguments")) else {
            self.edits.insert(object, r#""arguments":"{}""#);
            return;
        };
        if let Some(text) = Text::from_json(raw) {
            if let Some(object) = object_of(text.as_bytes()) {
                self.edits.replace(raw, quoted(&object));
            }
        } else if raw.starts_with('{') {
            self.edits.replace(raw, quoted(raw.as_bytes()));
        } else {
            self.edits.replace(raw, b"\"{}\"".to_vec());
        }
    }

    /// Arguments that have to be an object.
    fn input(&mut self, block: &'a str, input: Option<&'a str>) {
        match input {
            None => self.edits.insert(block, r#""input":{}"#),
            Some(raw) if raw.starts_with('{') => {}
            Some(raw) => {
                let text = Text::from_json(raw).unwrap_or_default();
                let object = object_of(text.as_bytes());
                let object = object.unwrap_or_else(|| text.as_bytes().to_vec());
                self.edits.replace(raw, object);
            }
        }
    }

    /// Content that says nothing beside calls: an empty text, a list without items, texts of a list that are empty.
    fn empty_content(&mut self, content: &'a str) {
        let Some(parts) = items(content) else {
            if content == "\"\"" {
                self.edits.replace(content, b"null".to_vec());
            }
            return;
        };
        let empty = |part: &str| {
            Members::of(part).is_some_and(|part| part.is("type", "text") && part.is("text", ""))
        };
        if parts.iter().all(|part| empty(part)) {
            self.edits.replace(content, b"null".to_vec());
        } else {
            self.edits.remove(&parts, |index| empty(parts[index]));
        }
    }
}

/// Native ids for the calls of a conversation, and the way from a client's id to ours.
#[derive(Debug, Default)]
struct Renumber {
    calls: u64,
    used: BTreeSet<String>,
    given: BTreeMap<String, Given>,
}

/// What the calls became that bear one id of the client's.
#[derive(Debug, Default)]
struct Given {
    /// Calls that wait for their result.
    open: VecDeque<String>,
    /// The one that got the last result.
    last: Option<String>,
}

impl Renumber {
    /// A call keeps its id if it is native, of this very name and new. Else it gets the one that a client made safe, or
    /// the count of the calls before it.
    fn call(&mut self, id: &str, name: &str) -> String {
        let own = canonical(id).is_some_and(|(named, _)| named == name);
        let safe = || index_of_safe(id, name).map(|index| native(name, index));
        let wanted = if own { Some(id.to_owned()) } else { safe() };
        let ours = wanted
            .filter(|id| !self.used.contains(id))
            .unwrap_or_else(|| next_free(name, self.calls, &self.used));
        self.calls += 1;
        self.used.insert(ours.clone());
        let given = self.given.entry(id.to_owned()).or_default();
        if given.last.take().is_some() {
            // Clients use an id anew in later turns; what was not answered by then never will be.
            given.open.clear();
        }
        given.open.push_back(ours.clone());
        ours
    }

    /// The id of the call that this result belongs to; `None` for a result without a call.
    fn result(&mut self, id: &str) -> Option<String> {
        let given = self.given.get_mut(id)?;
        if let Some(next) = given.open.pop_front() {
            given.last = Some(next);
        }
        given.last.clone()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::normalize::request::Request;

    fn cleaned(dialect: Dialect, body: &Value) -> Option<Value> {
        let request = Request::read(dialect, body.to_string().as_bytes(), Some(true)).unwrap();
        assert_eq!(request.repairs.is_empty(), request.body.is_none());
        request
            .body
            .map(|body| serde_json::from_slice(&body).unwrap())
    }

    fn check(dialect: Dialect, list: &str, messages: Value, expected: Value) {
        let body = json!({"model": "kimi-k2.6", list: messages, "max_tokens": 5});
        let clean = cleaned(dialect, &body);
        if messages == expected {
            assert_eq!(clean, None, "{messages}");
        } else {
            assert_eq!(clean.unwrap()[list], expected);
        }
    }

    fn call(id: &str, name: &str, arguments: &str) -> Value {
        json!({"id": id, "type": "function", "function": {"name": name, "arguments": arguments}})
    }

    fn says(calls: &[Value]) -> Value {
        json!({"role": "assistant", "content": null, "reasoning_content": "", "tool_calls": calls})
    }

    fn result(id: &str) -> Value {
        json!({"role": "tool", "tool_call_id": id, "content": "x"})
    }

    /// Ids of calls and of results, in order.
    fn ids(calls: &[(&str, &str)], expected: &[&str]) {
        let talk = |id: &dyn Fn(usize) -> String| {
            let turns = calls.iter().enumerate().flat_map(|(index, (_, name))| {
                [says(&[call(&id(index), name, "{}")]), result(&id(index))]
            });
            turns.collect::<Value>()
        };
        let before = talk(&|index| calls[index].0.to_owned());
        let after = talk(&|index| expected[index].to_owned());
        check(Dialect::Chat, "messages", before, after);
    }

    #[test]
    fn ids_become_native_and_stay_what_they_were() {
        ids(
            &[("functions.run:4", "run"), ("functions.Read:5", "Read")],
            &["functions.run:4", "functions.Read:5"],
        );
        ids(&[("functions_Read_0", "Read")], &["functions.Read:0"]);
        ids(
            &[("functions_a_b_3", "a.b"), ("functions_a_b_3__2", "a.b")],
            &["functions.a.b:3", "functions.a.b:1"],
        );
        ids(
            &[
                ("call_9f2", "run"),
                ("call_77c", "run"),
                ("toolu_1", "Read"),
            ],
            &["functions.run:0", "functions.run:1", "functions.Read:2"],
        );
        // The same ids in each turn, as some providers send them.
        ids(
            &[
                ("functions.run:0", "run"),
                ("functions.run:0", "run"),
                ("0", "run"),
            ],
            &["functions.run:0", "functions.run:1", "functions.run:2"],
        );
        ids(
            &[("functions.run:1", "run"), ("x", "run")],
            &["functions.run:1", "functions.run:2"],
        );
        ids(&[("functions.other:0", "run")], &["functions.run:0"]);
    }

    #[test]
    fn results_follow_their_calls() {
        check(
            Dialect::Chat,
            "messages",
            json!([
                says(&[
                    call("a", "run", "{}"),
                    call("a", "run", "{}"),
                    call("b", "run", "{}")
                ]),
                result("b"),
                result("a"),
                result("a"),
                result("a"),
                result("unknown"),
                says(&[call("b", "run", "{}")]),
                result("b"),
            ]),
            json!([
                says(&[
                    call("functions.run:0", "run", "{}"),
                    call("functions.run:1", "run", "{}"),
                    call("functions.run:2", "run", "{}"),
                ]),
                result("functions.run:2"),
                result("functions.run:0"),
                result("functions.run:1"),
                result("functions.run:1"),
                result("unknown"),
                says(&[call("functions.run:3", "run", "{}")]),
                result("functions.run:3"),
            ]),
        );
        let without = json!({"type": "function", "function": {"name": "run"}});
        check(
            Dialect::Chat,
            "messages",
            json!([{"role": "assistant", "tool_calls": [without, 7, {}]}]),
            json!([{"role": "assistant", "tool_calls": [call("functions.run:0", "run", "{}"), 7, {}]}]),
        );
    }

    #[test]
    fn broken_arguments_are_replaced_and_right_ones_kept() {
        let with = |arguments: Value| {
            let mut call = call("functions.a:0", "a", "");
            call["function"]["arguments"] = arguments;
            json!([says(&[call])])
        };
        for (arguments, expected) in [
            (
                json!("{ \"a\" : \"\\ud83d\" }"),
                json!("{ \"a\" : \"\\ud83d\" }"),
            ),
            (json!("{\"a\":1"), json!("{}")),
            (json!("{\"a\":\"x\", \"b"), json!("{\"a\":\"x\"}")),
            (json!(""), json!("{}")),
            (json!(null), json!("{}")),
            (json!([1]), json!("{}")),
            (json!({"a": {"b": "c"}}), json!("{\"a\":{\"b\":\"c\"}}")),
        ] {
            check(Dialect::Chat, "messages", with(arguments), with(expected));
        }
        let block = |input: Value| json!([{"role": "assistant", "content": [{"type": "tool_use", "id": "functions.a:0", "name": "a", "input": input}]}]);
        for (input, expected) in [
            (json!({"a": 1}), json!({"a": 1})),
            (json!(null), json!({})),
            (json!("{\"a\":1}"), json!({"a": 1})),
            (json!("{\"a\":1,"), json!({"a": 1})),
        ] {
            check(Dialect::Messages, "messages", block(input), block(expected));
        }
    }

    #[test]
    fn empty_texts_beside_calls_go() {
        let with = |content: Value| {
            let mut message = says(&[call("functions.a:0", "a", "{}")]);
            message["content"] = content;
            json!([message])
        };
        let text = |text: &str| json!({"type": "text", "text": text});
        for (content, expected) in [
            (json!("words"), json!("words")),
            (json!(""), json!(null)),
            (json!([]), json!(null)),
            (json!([text("")]), json!(null)),
            (json!([text(""), text("a"), text("")]), json!([text("a")])),
        ] {
            check(Dialect::Chat, "messages", with(content), with(expected));
        }
        let alone = json!([{"role": "assistant", "content": "", "tool_calls": []}]);
        check(Dialect::Chat, "messages", alone.clone(), alone);
        let used = json!({"type": "tool_use", "id": "functions.a:0", "name": "a", "input": {}});
        check(
            Dialect::Messages,
            "messages",
            json!([{"role": "assistant", "content": [text(""), used, text("")]}]),
            json!([{"role": "assistant", "content": [used]}]),
        );
    }

    #[test]
    fn anthropic_and_responses_clients_are_served_alike() {
        let turn = |id: &str, signature: &str| {
            json!([
                {"role": "user", "content": "q"},
                {"role": "assistant", "content": [
                    {"type": "thinking", "thinking": "Open it.", "signature": signature},
                    {"type": "tool_use", "id": id, "name": "Read", "input": {"path": "a"}},
                ]},
                {"role": "user", "content": [{"type": "tool_result", "tool_use_id": id, "content": "x"}]},
            ])
        };
        let expected = turn("functions.Read:0", "");
        check(
            Dialect::Messages,
            "messages",
            turn("toolu_7", SIGNATURE),
            expected,
        );
        let foreign = turn("functions.Read:0", "EqQB");
        check(Dialect::Messages, "messages", foreign.clone(), foreign);
        let items = |id: &str, arguments: &str| {
            json!([
                {"type": "message", "role": "user", "content": "q"},
                {"type": "reasoning", "id": "rs", "summary": []},
                {"type": "function_call", "id": "fc_1", "call_id": id, "name": "Read", "arguments": arguments},
                {"type": "function_call_output", "call_id": id, "output": "x"},
            ])
        };
        let expected = items("functions.Read:0", "{}");
        check(
            Dialect::Responses,
            "input",
            items("functions_Read_0", "{\"a"),
            expected,
        );
    }

    #[test]
    fn everything_else_keeps_its_bytes() {
        let body = "{ \"model\":\"kimi\",\"messages\" : [ {\"tool_calls\":[ {\"id\":\"x\" ,\"function\":{\"name\":\"a\",\"arguments\":\"{}\"}}],\"role\":\"assistant\",\"reasoning_content\":\"\"} ,{\"role\":\"tool\",\"tool_call_id\":\"x\"}],\"seed\":1e400}";
        let request = Request::read(Dialect::Chat, body.as_bytes(), None).unwrap();
        assert_eq!(request.rules.calls_before, 1);
        let expected = body.replace("\"x\"", "\"functions.a:0\"");
        assert_eq!(request.body.unwrap(), expected.as_bytes());
    }

    fn talk() -> impl Strategy<Value = Vec<Value>> {
        let id = "functions[._][ab][:_][0-2](__2)?|call_[0-2]|[0-1]";
        let message = prop_oneof![
            prop::collection::vec((id, "[ab]", "\\{\"a\":[0-9\"]{0,2}\\}?"), 1..3).prop_map(
                |calls| {
                    let calls: Vec<_> = calls
                        .iter()
                        .map(|(id, name, arguments)| call(id, name, arguments))
                        .collect();
                    says(&calls)
                }
            ),
            id.prop_map(|id| result(&id)),
        ];
        prop::collection::vec(message, 0..12)
    }

    proptest! {
        #[test]
        fn a_longer_talk_begins_with_the_shorter(talk in talk(), cut in 0usize..12) {
            let clean = |talk: &[Value]| {
                let body = json!({"model": "kimi", "messages": talk});
                let clean = cleaned(Dialect::Chat, &body).unwrap_or(body);
                clean["messages"].as_array().unwrap().clone()
            };
            let whole = clean(&talk);
            let cut = cut.min(talk.len());
            prop_assert_eq!(&clean(&talk[..cut]), &whole[..cut]);
            // Cleaning is done once: what is clean stays.
            prop_assert_eq!(&clean(&whole), &whole);
            let mut ids: Vec<_> = whole.iter().flat_map(|it| it["tool_calls"].as_array().into_iter().flatten()).map(|it| it["id"].to_string()).collect();
            let all = ids.len();
            ids.sort();
            ids.dedup();
            prop_assert_eq!(ids.len(), all);
        }

        #[test]
        fn arbitrary_bodies_never_panic(body in "\\{\"model\":\"kimi\",\"(messages|input)\":[\\[\\]{},:\"a-z]{0,30}\\}", bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            for dialect in [Dialect::Chat, Dialect::Messages, Dialect::Responses] {
                let _read = (Request::read(dialect, body.as_bytes(), None), Request::read(dialect, &bytes, None));
            }
        }
    }
}
