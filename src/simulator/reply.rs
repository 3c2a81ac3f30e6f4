//! An answer as the events of a stream, and what a fault does to them: pure, no time and no socket.
//!
//! The three dialects turn one [`Answer`] into events or into one document. Each event knows how many generated tokens
//! it carries; the pace of the stream and the charge while streaming follow from that alone.

use serde_json::Value;
use serde_json::json;

use super::agent::Answer;
use super::agent::tokens_of;
use super::cache::BYTES_PER_TOKEN;
use super::chat;
use super::fault::Fault;
use super::messages;
use super::options::UsagePlacement;
use super::responses;
use super::truth::Dialect;
use crate::usage::Tokens;

/// What the wire form of an answer needs besides the answer.
#[derive(Clone, Debug)]
pub(super) struct Frame {
    pub(super) dialect: Dialect,
    pub(super) id: String,
    pub(super) model: String,
    /// Unix seconds.
    pub(super) created: u64,
    pub(super) tokens: Tokens,
    pub(super) usage: UsagePlacement,
    /// `perf_metrics` of the last event, if the request asked for them.
    pub(super) perf: Option<Value>,
    /// Tool calls in the conversation so far; ids count on from here.
    pub(super) calls_before: usize,
    /// Tokens of one delta.
    pub(super) event_tokens: u64,
}

/// One event of a stream, ready to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Event {
    pub(super) bytes: String,
    pub(super) tokens: u64,
}

/// How a body stops after its last event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// Terminated as HTTP wants it.
    Clean,
    /// The connection closes without the terminator.
    Break,
    /// The connection is reset.
    Reset,
    /// Nothing more comes.
    Hang,
}

impl Event {
    pub(super) fn new(bytes: String, tokens: u64) -> Self {
        Self { bytes, tokens }
    }

    /// An SSE event without a name.
    pub(super) fn data(value: &Value, tokens: u64) -> Self {
        Self::new(format!("data: {value}\n\n"), tokens)
    }

    /// An SSE event named after the `type` in its data.
    pub(super) fn typed(value: &Value, tokens: u64) -> Self {
        let name = value
            .get("type")
            .and_then(Value::as_str)
            .unwrap_or("message");
        Self::new(format!("event: {name}\ndata: {value}\n\n"), tokens)
    }
}

impl Frame {
    /// The deltas of a text, with the tokens of each; together they carry the tokens of the whole text.
    pub(super) fn pieces<'a>(&self, text: &'a str) -> impl Iterator<Item = (&'a str, u64)> {
        let step =
            usize::try_from(self.event_tokens.max(1) * BYTES_PER_TOKEN).unwrap_or(usize::MAX);
        let mut start = 0_usize;
        std::iter::from_fn(move || {
            // A step is at least four bytes, so it holds at least one character.
            let end = text.floor_char_boundary(start.saturating_add(step));
            let piece = text.get(start..end).filter(|piece| !piece.is_empty())?;
            let tokens =
                text.get(..end).map_or(0, tokens_of) - text.get(..start).map_or(0, tokens_of);
            start = end;
            Some((piece, tokens))
        })
    }

    pub(super) fn stream(&self, answer: &Answer) -> Vec<Event> {
        match self.dialect {
            Dialect::Messages => messages::stream(self, answer),
            Dialect::Responses => responses::stream(self, answer),
            _ => chat::stream(self, answer),
        }
    }

    pub(super) fn document(&self, answer: &Answer) -> Value {
        match self.dialect {
            Dialect::Messages => messages::document(self, answer),
            Dialect::Responses => responses::document(self, answer),
            _ => chat::document(self, answer),
        }
    }

    /// An error in the middle of a stream, as each dialect writes it.
    fn error_event(&self) -> Event {
        const MESSAGE: &str = "simulated failure in the middle of the stream";
        match self.dialect {
            Dialect::Messages => Event::typed(
                &json!({"type": "error", "error": {"type": "api_error", "message": MESSAGE}}),
                0,
            ),
            Dialect::Responses => Event::typed(
                &json!({"type": "error", "code": "server_error", "message": MESSAGE, "param": null}),
                0,
            ),
            _ => Event::data(
                &json!({"error": {"object": "error", "type": "server_error", "code": "server_error", "message": MESSAGE}}),
                0,
            ),
        }
    }

    /// Dresses a stream as gateways do: comment or ping events in between, and CRLF line ends.
    pub(super) fn dress(&self, events: Vec<Event>, comments: bool, crlf: bool) -> Vec<Event> {
        const EVERY: usize = 4;
        let noise = || match self.dialect {
            Dialect::Messages => Event::typed(&json!({"type": "ping"}), 0),
            _ => Event::new(": keep-alive\n\n".to_owned(), 0),
        };
        let mut dressed = Vec::with_capacity(events.len());
        for (index, event) in events.into_iter().enumerate() {
            // The first event stays the first: it opens the answer in every dialect.
            if comments && index % EVERY == 1 {
                dressed.push(noise());
            }
            dressed.push(event);
        }
        if crlf {
            for event in &mut dressed {
                event.bytes = event.bytes.replace('\n', "\r\n");
            }
        }
        dressed
    }

    /// Does to a stream what the fault says.
    pub(super) fn damage(
        &self,
        mut events: Vec<Event>,
        fault: Option<Fault>,
    ) -> (Vec<Event>, Ending) {
        let middle = events.len().div_ceil(2);
        let ending = match fault {
            Some(Fault::Stall) => Ending::Hang,
            Some(Fault::Cut | Fault::CutAfter(_)) => Ending::Break,
            Some(Fault::Reset) => Ending::Reset,
            _ => Ending::Clean,
        };
        match fault {
            Some(Fault::Stall | Fault::Cut | Fault::Reset | Fault::Truncate) => {
                events.truncate(middle);
            }
            Some(Fault::CutAfter(count)) => {
                events.truncate(usize::try_from(count).unwrap_or(usize::MAX));
            }
            Some(Fault::BrokenChunk) => events.insert(
                middle,
                Event::new("data: {\"broken\": [1, \n\n".to_owned(), 0),
            ),
            Some(Fault::ErrorEvent) => {
                events.truncate(middle);
                events.push(self.error_event());
            }
            _ => {}
        }
        (events, ending)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::simulator::agent::Call;

    pub(in crate::simulator) fn frame(dialect: Dialect) -> Frame {
        Frame {
            dialect,
            id: "id-1".to_owned(),
            model: "m".to_owned(),
            created: 7,
            tokens: Tokens {
                prompt: 100,
                cached: 60,
                generated: 9,
                reasoning: 2,
            },
            usage: UsagePlacement::Finish,
            perf: None,
            calls_before: 3,
            event_tokens: 1,
        }
    }

    pub(in crate::simulator) fn everything() -> Answer {
        Answer {
            thinking: "thoughts".to_owned(),
            text: "some text".to_owned(),
            calls: vec![Call {
                name: "Read".to_owned(),
                arguments: r#"{"path":"a"}"#.to_owned(),
            }],
            cut_short: false,
        }
    }

    /// The JSON of each `data:` line.
    pub(in crate::simulator) fn data(events: &[Event]) -> Vec<Value> {
        events
            .iter()
            .flat_map(|event| event.bytes.lines())
            .filter_map(|line| serde_json::from_str(line.strip_prefix("data: ")?).ok())
            .collect()
    }

    #[test]
    fn pieces_keep_characters_whole_and_lose_nothing() {
        let frame = frame(Dialect::Chat);
        let text = "aé漢字🦀 end";
        let pieces: Vec<_> = frame.pieces(text).collect();
        assert_eq!(
            pieces.iter().map(|(piece, _)| *piece).collect::<String>(),
            text
        );
        assert!(
            pieces
                .iter()
                .all(|(piece, tokens)| piece.len() <= 4 && *tokens <= 1)
        );
        assert_eq!(
            pieces.iter().map(|(_, tokens)| tokens).sum::<u64>(),
            tokens_of(text)
        );
    }

    #[test]
    fn deltas_carry_all_tokens_in_every_dialect() {
        for dialect in [Dialect::Chat, Dialect::Messages, Dialect::Responses] {
            let frame = frame(dialect);
            let events = frame.stream(&everything());
            assert_eq!(
                events.iter().map(|event| event.tokens).sum::<u64>(),
                everything().tokens(),
                "{dialect:?}"
            );
            assert!(events.iter().all(|event| event.bytes.ends_with("\n\n")));
        }
    }

    #[test]
    fn dress_adds_noise_and_leaves_the_data_alone() {
        for dialect in [Dialect::Chat, Dialect::Messages] {
            let frame = frame(dialect);
            let plain = frame.stream(&everything());
            let dressed = frame.dress(plain.clone(), true, true);
            assert!(dressed.len() > plain.len());
            assert!(
                dressed
                    .iter()
                    .all(|event| event.bytes.ends_with("\r\n\r\n"))
            );
            let kept: Vec<Value> = data(&dressed)
                .into_iter()
                .filter(|event| event["type"] != "ping")
                .collect();
            assert_eq!(kept, data(&plain));
        }
    }

    #[test]
    fn faults_do_what_they_say() {
        let frame = frame(Dialect::Chat);
        let whole = frame.stream(&everything());
        let check = |fault, length, ending| {
            let (events, how) = frame.damage(whole.clone(), Some(fault));
            assert_eq!((events.len(), how), (length, ending), "{fault}");
            events
        };
        let half = whole.len().div_ceil(2);
        check(Fault::Stall, half, Ending::Hang);
        check(Fault::Cut, half, Ending::Break);
        check(Fault::CutAfter(1), 1, Ending::Break);
        check(Fault::Reset, half, Ending::Reset);
        check(Fault::Truncate, half, Ending::Clean);
        check(Fault::ErrorEvent, half + 1, Ending::Clean);
        let broken = check(Fault::BrokenChunk, whole.len() + 1, Ending::Clean);
        assert!(
            serde_json::from_str::<Value>(broken[half].bytes.trim_start_matches("data: ")).is_err()
        );
    }
}
