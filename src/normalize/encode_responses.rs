//! Events as an `OpenAI` responses answer, streamed and whole.
//!
//! Texts, thinking and calls become output items, one open at a time. The dialect repeats each item whole when it is
//! done, and all of them at the end, so this writer keeps the answer while it streams.

use crate::normalize::arguments::object_of;
use crate::normalize::encode_messages::Counted;
use crate::normalize::event::{Channel, Event, Finish};
use crate::normalize::ids::safe;
use crate::normalize::text::Text;
use crate::normalize::writing::{Put, event, list, made};

/// Writes an answer for a client of the responses dialect.
#[derive(Debug)]
pub struct ResponsesEncoder {
    id: String,
    model: String,
    /// Unix seconds.
    created: u64,
    sequence: u64,
    open: Option<Item>,
    done: Vec<Vec<u8>>,
    finish: Finish,
}

/// An output item that is open.
#[derive(Debug)]
struct Item {
    sort: Sort,
    id: String,
    text: Text,
}

#[derive(Debug)]
enum Sort {
    Reasoning,
    Message,
    Call { id: String, name: String },
}

impl Sort {
    /// The word of the item's part, and the event of its deltas.
    fn part(&self) -> (&'static str, &'static str) {
        match self {
            Self::Reasoning => ("reasoning_text", "response.reasoning_text"),
            Self::Message => ("output_text", "response.output_text"),
            Self::Call { .. } => ("", "response.function_call_arguments"),
        }
    }

    fn is(&self, channel: Channel) -> bool {
        matches!(
            (self, channel),
            (Self::Reasoning, Channel::Reasoning) | (Self::Message, Channel::Content)
        )
    }
}

impl Item {
    /// The part with a text.
    fn part(&self, text: &Text) -> Vec<u8> {
        let (word, _) = self.sort.part();
        let mut members = vec![("type", Put::Word(word)), ("text", Put::Text(text))];
        if matches!(self.sort, Sort::Message) {
            members.push(("annotations", Put::Json(b"[]")));
        }
        made(&members)
    }

    /// The item, empty as it begins or whole as it ends.
    fn whole(&self, done: bool) -> Vec<u8> {
        let parts: Vec<Vec<u8>> = done.then(|| self.part(&self.text)).into_iter().collect();
        let parts = list(&parts);
        let status = |whole: bool| match (done, whole) {
            (false, _) => "in_progress",
            (true, true) => "completed",
            (true, false) => "incomplete",
        };
        match &self.sort {
            Sort::Reasoning => made(&[
                ("type", Put::Word("reasoning")),
                ("id", Put::Word(&self.id)),
                ("summary", Put::Json(b"[]")),
                ("content", Put::Json(&parts)),
            ]),
            Sort::Message => made(&[
                ("type", Put::Word("message")),
                ("id", Put::Word(&self.id)),
                ("role", Put::Word("assistant")),
                ("status", Put::Word(status(true))),
                ("content", Put::Json(&parts)),
            ]),
            Sort::Call { id, name } => made(&[
                ("type", Put::Word("function_call")),
                ("id", Put::Word(&self.id)),
                ("call_id", Put::Word(id)),
                ("name", Put::Word(name)),
                ("arguments", Put::Text(&self.text)),
                (
                    "status",
                    Put::Word(status(object_of(self.text.as_bytes()).is_none())),
                ),
            ]),
        }
    }
}

impl ResponsesEncoder {
    /// Begins an answer. `created` is in Unix seconds.
    pub fn start(id: &str, model: &str, created: u64, out: &mut Vec<u8>) -> Self {
        let mut encoder = Self {
            id: id.to_owned(),
            model: model.to_owned(),
            created,
            sequence: 0,
            open: None,
            done: Vec::new(),
            finish: Finish::Missing,
        };
        let response = encoder.response("in_progress", None);
        for name in ["response.created", "response.in_progress"] {
            encoder.event(name, &[("response", Put::Json(&response))], out);
        }
        encoder
    }

    /// Appends what an event adds.
    pub fn write(&mut self, said: &Event, out: &mut Vec<u8>) {
        match said {
            Event::Text(_, text) if text.is_empty() => {}
            Event::Text(channel, text) => {
                if !self
                    .open
                    .as_ref()
                    .is_some_and(|item| item.sort.is(*channel))
                {
                    let sort = match channel {
                        Channel::Content => Sort::Message,
                        Channel::Reasoning => Sort::Reasoning,
                    };
                    self.begin(sort, out);
                }
                self.delta(text, out);
            }
            Event::CallBegin { id, name, .. } => {
                let (id, name) = (safe(id), name.clone());
                self.begin(Sort::Call { id, name }, out);
            }
            Event::CallArguments { text, .. } => self.delta(text, out),
            Event::CallEnd { .. } => self.close(out),
            Event::Finish(finish) => {
                self.close(out);
                self.finish = finish.clone();
            }
        }
    }

    /// Ends the answer.
    pub fn end(mut self, counted: Counted, out: &mut Vec<u8>) {
        self.close(out);
        let (status, name) = match self.reason() {
            None => ("completed", "response.completed"),
            Some(_) => ("incomplete", "response.incomplete"),
        };
        let response = self.response(status, Some(counted));
        self.event(name, &[("response", Put::Json(&response))], out);
    }

    /// A whole answer.
    pub fn whole(
        id: &str,
        model: &str,
        created: u64,
        events: &[Event],
        counted: Counted,
    ) -> Vec<u8> {
        let mut unsent = Vec::new();
        let mut encoder = Self::start(id, model, created, &mut unsent);
        for event in events {
            encoder.write(event, &mut unsent);
            unsent.clear();
        }
        encoder.close(&mut unsent);
        let status = if encoder.reason().is_none() {
            "completed"
        } else {
            "incomplete"
        };
        encoder.response(status, Some(counted))
    }

    /// Why the answer is not complete.
    fn reason(&self) -> Option<&'static str> {
        match self.finish {
            Finish::Length => Some("max_output_tokens"),
            Finish::ContentFilter => Some("content_filter"),
            _ => None,
        }
    }

    fn response(&self, status: &str, counted: Option<Counted>) -> Vec<u8> {
        let usage = counted.map_or_else(|| b"null".to_vec(), usage);
        let reason = self.reason().map_or_else(
            || b"null".to_vec(),
            |reason| made(&[("reason", Put::Word(reason))]),
        );
        made(&[
            ("id", Put::Word(&self.id)),
            ("object", Put::Word("response")),
            ("created_at", Put::Count(self.created)),
            ("model", Put::Word(&self.model)),
            ("status", Put::Word(status)),
            ("output", Put::Json(&list(&self.done))),
            ("incomplete_details", Put::Json(&reason)),
            ("error", Put::Json(b"null")),
            ("usage", Put::Json(&usage)),
        ])
    }

    fn event(&mut self, name: &str, members: &[(&str, Put<'_>)], out: &mut Vec<u8>) {
        let number = [("sequence_number", Put::Count(self.sequence))];
        self.sequence += 1;
        event(out, name, &[&number, members].concat());
    }

    fn output_index(&self) -> Put<'static> {
        Put::Count(self.done.len() as u64)
    }

    fn begin(&mut self, sort: Sort, out: &mut Vec<u8>) {
        self.close(out);
        let prefix = match sort {
            Sort::Reasoning => "rs",
            Sort::Message => "msg",
            Sort::Call { .. } => "fc",
        };
        let item = Item {
            id: format!("{prefix}_{}_{}", self.id, self.done.len()),
            sort,
            text: Text::default(),
        };
        let index = self.output_index();
        let members = [
            ("output_index", index),
            ("item", Put::Json(&item.whole(false))),
        ];
        self.event("response.output_item.added", &members, out);
        if !matches!(item.sort, Sort::Call { .. }) {
            let part = item.part(&Text::default());
            self.told(
                "response.content_part.added",
                &item,
                ("part", Put::Json(&part)),
                out,
            );
        }
        self.open = Some(item);
    }

    fn delta(&mut self, text: &Text, out: &mut Vec<u8>) {
        if let Some(mut item) = self.open.take() {
            item.text.push(text.as_bytes());
            let (_, name) = item.sort.part();
            let name = format!("{name}.delta");
            self.told(&name, &item, ("delta", Put::Text(text)), out);
            self.open = Some(item);
        }
    }

    fn close(&mut self, out: &mut Vec<u8>) {
        let Some(item) = self.open.take() else {
            return;
        };
        let call = matches!(item.sort, Sort::Call { .. });
        let field = if call { "arguments" } else { "text" };
        let name = format!("{}.done", item.sort.part().1);
        self.told(&name, &item, (field, Put::Text(&item.text)), out);
        if !call {
            let part = item.part(&item.text);
            self.told(
                "response.content_part.done",
                &item,
                ("part", Put::Json(&part)),
                out,
            );
        }
        let whole = item.whole(true);
        let members = [
            ("output_index", self.output_index()),
            ("item", Put::Json(&whole)),
        ];
        self.event("response.output_item.done", &members, out);
        self.done.push(whole);
    }

    /// An event about an item.
    fn told(&mut self, name: &str, item: &Item, field: (&str, Put<'_>), out: &mut Vec<u8>) {
        let mut members = vec![
            ("item_id", Put::Word(&item.id)),
            ("output_index", self.output_index()),
        ];
        if !matches!(item.sort, Sort::Call { .. }) {
            members.push(("content_index", Put::Count(0)));
        }
        members.push(field);
        self.event(name, &members, out);
    }
}

fn usage(counted: Counted) -> Vec<u8> {
    let input = counted.input + counted.cached;
    let cached = made(&[("cached_tokens", Put::Count(counted.cached))]);
    made(&[
        ("input_tokens", Put::Count(input)),
        ("input_tokens_details", Put::Json(&cached)),
        ("output_tokens", Put::Count(counted.output)),
        ("total_tokens", Put::Count(input + counted.output)),
    ])
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::normalize::writing::payloads;

    fn events(finish: Finish, arguments: &str) -> Vec<Event> {
        vec![
            Event::Text(Channel::Reasoning, "so".into()),
            Event::Text(Channel::Content, "lo".into()),
            Event::Text(Channel::Content, "ok".into()),
            Event::CallBegin {
                index: 0,
                id: "functions.Read:0".to_owned(),
                name: "Read".to_owned(),
            },
            Event::CallArguments {
                index: 0,
                text: arguments.into(),
            },
            Event::CallEnd { index: 0 },
            Event::Finish(finish),
        ]
    }

    #[test]
    fn items_open_and_close_in_order_and_the_end_repeats_them() {
        let mut out = Vec::new();
        let mut encoder = ResponsesEncoder::start("r1", "kimi", 7, &mut out);
        let events = events(Finish::ToolCalls, "{}");
        for event in &events {
            encoder.write(event, &mut out);
        }
        encoder.end(
            Counted {
                input: 3,
                cached: 2,
                output: 1,
            },
            &mut out,
        );
        let all = payloads(&out);
        let names: Vec<String> = all
            .iter()
            .map(|event| {
                format!(
                    "{}{}",
                    event["type"].as_str().unwrap(),
                    event["output_index"]
                )
                .replace("response.", "")
                .replace("null", "")
            })
            .collect();
        assert_eq!(
            names,
            [
                "created",
                "in_progress",
                "output_item.added0",
                "content_part.added0",
                "reasoning_text.delta0",
                "reasoning_text.done0",
                "content_part.done0",
                "output_item.done0",
                "output_item.added1",
                "content_part.added1",
                "output_text.delta1",
                "output_text.delta1",
                "output_text.done1",
                "content_part.done1",
                "output_item.done1",
                "output_item.added2",
                "function_call_arguments.delta2",
                "function_call_arguments.done2",
                "output_item.done2",
                "completed",
            ]
        );
        assert!(
            all.iter()
                .enumerate()
                .all(|(index, event)| event["sequence_number"] == index)
        );
        let end = &all.last().unwrap()["response"];
        assert_eq!(
            end["output"],
            json!([
                {"type": "reasoning", "id": "rs_r1_0", "summary": [], "content": [{"type": "reasoning_text", "text": "so"}]},
                {"type": "message", "id": "msg_r1_1", "role": "assistant", "status": "completed",
                 "content": [{"type": "output_text", "text": "look", "annotations": []}]},
                {"type": "function_call", "id": "fc_r1_2", "call_id": "functions_Read_0", "name": "Read", "arguments": "{}", "status": "completed"},
            ])
        );
        assert_eq!(end["usage"]["input_tokens"], 5);
        let whole = ResponsesEncoder::whole(
            "r1",
            "kimi",
            7,
            &events,
            Counted {
                input: 3,
                cached: 2,
                output: 1,
            },
        );
        assert_eq!(&serde_json::from_slice::<Value>(&whole).unwrap(), end);
    }

    #[test]
    fn what_was_cut_is_told() {
        for (finish, status, reason) in [
            (Finish::Stop, "completed", Value::Null),
            (
                Finish::Length,
                "incomplete",
                json!({"reason": "max_output_tokens"}),
            ),
            (
                Finish::ContentFilter,
                "incomplete",
                json!({"reason": "content_filter"}),
            ),
        ] {
            let whole =
                ResponsesEncoder::whole("r", "k", 1, &events(finish, "{\"a"), Counted::default());
            let whole: Value = serde_json::from_slice(&whole).unwrap();
            assert_eq!(
                (&whole["status"], &whole["incomplete_details"]),
                (&json!(status), &reason)
            );
            assert_eq!(whole["output"][2]["arguments"], "{\"a");
            assert_eq!(whole["output"][2]["status"], "incomplete");
        }
    }
}
