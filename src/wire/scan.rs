//! The few facts of a request that admission needs, found while the body arrives.
//!
//! The body is neither parsed into a tree nor copied: 400 kB cost one pass of memory, overlapped with the reading of
//! the socket. Where the session's name stands differs per dialect (measured on Kimi Code 2.1.0 and kimi-cli 1.51):
//! `prompt_cache_key` in chat and responses, `metadata.user_id` in messages.
//!
//! A message's hash covers its strings, not its punctuation, and leaves out `type` and `cache_control`: Kimi Code
//! 2.1.0 moves the mark of the cache to the newest message in each turn, which changes no token of the older ones.

use std::sync::LazyLock;

use memchr::memmem::Finder;
use serde::Deserialize;
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use crate::usage::{Class, Content, Prompt, chained};
use crate::wire::json::{Visitor, Walk, Want};
use crate::wire::sample::{Sampler, Told};

/// The tool by which the main agent of Kimi Code starts others; they do not have it (measured on 2.1.0).
const SPAWNER: &[u8] = b"Agent";
/// How Kimi Code begins texts that it puts among the user's, after the prompt (measured on 2.1.0).
const REMINDER: &[u8] = b"<system-reminder>";
/// Near the beginning of what Kimi Code 2.1.0 asks for when it compacts a conversation.
static COMPACTION: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new("handoff summary"));
/// Bytes of each string that are kept to recognise it.
const LEAD: usize = 96;
/// Keys of a message and of its parts are looked at: body 1, list 2, message 3, parts 4, part 5, its parts 6 and 7.
const MESSAGE_KEYS: u32 = 7;
/// Keys of a tool, and of the function in it: body 1, list 2, tool 3, function 4.
const TOOL_KEYS: u32 = 4;

/// What a request body says about itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// The `model` as the client named it.
    pub model: Option<String>,
    /// Whether the answer is to be streamed.
    pub stream: bool,
    /// The client's session: the same value in every turn of one conversation, shared by its subagents.
    pub session: Option<String>,
    /// The body has a member that upstreams route by: `prompt_cache_key` or `user`.
    pub pinned: bool,
    /// The client's cap on the answer, in tokens; usually the whole context window, so it is no estimate.
    pub max_output: Option<u64>,
    /// The messages and what is in them.
    pub prompt: Prompt,
    /// What the conversation goes on from.
    pub turn: Turn,
    /// The client asks for a summary in place of the conversation.
    pub compacts: bool,
    /// The model may start other agents, so this is a main agent.
    pub spawns: bool,
    /// Tools are declared.
    pub has_tools: bool,
    /// The history holds calls of tools, or thinking that bears a signature.
    pub has_calls: bool,
    /// Where the first member begins: the offset after the opening brace.
    pub opening: Option<u64>,
    /// The body is one JSON object that came to its end.
    pub whole: bool,
}

/// What came after the model's last message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Turn {
    /// A text of the user, and no tool's result: somebody typed and waits.
    Typed,
    /// Results of tools; the client's own reminders and texts of the user may follow them.
    Tools,
    /// Neither.
    #[default]
    Other,
}

/// A looker at a request body. Feed it every chunk, then ask for the facts.
#[derive(Debug, Default)]
pub struct Scan {
    walk: Walk,
    found: Found,
    bytes: u64,
}

#[derive(Default)]
struct Found {
    facts: Facts,
    user: Option<String>,
    region: Region,
    key: Key,
    /// Inside the value of a key that is left out, of an object so deep.
    left_out: Option<u32>,
    lead: Vec<u8>,
    sampler: Sampler,
    hasher: Box<Xxh3>,
    /// Of the member or message at hand.
    content: Content,
    message: Message,
    tools: u64,
    system: u64,
}

/// Which part of the body the walk is in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Region {
    #[default]
    Other,
    Tools,
    System,
    Messages,
}

/// Keys that mean something, below the outermost object.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Key {
    Role,
    Type,
    Name,
    /// Text that a person may have written.
    Words,
    /// A proof of where a thought came from: long, encoded, no picture.
    Signature,
    #[default]
    Other,
}

/// What a message has shown so far.
#[derive(Debug, Default)]
struct Message {
    role: Role,
    words: bool,
    compacts: bool,
    results: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Role {
    User,
    Model,
    Tool,
    #[default]
    Other,
}

#[derive(Deserialize)]
struct Metadata {
    user_id: Option<String>,
}

impl Scan {
    /// Looks at the next chunk.
    pub fn feed(&mut self, chunk: &[u8]) {
        if self.found.facts.opening.is_none() {
            let start = chunk.iter().position(|byte| !byte.is_ascii_whitespace());
            self.found.facts.opening = start
                .filter(|start| chunk[*start] == b'{')
                .map(|start| self.bytes + start as u64 + 1);
        }
        self.bytes += chunk.len() as u64;
        self.walk.feed(chunk, &mut self.found);
    }

    /// What was found.
    pub fn finish(self) -> Facts {
        let Found {
            mut facts,
            user,
            tools,
            system,
            ..
        } = self.found;
        facts.session = facts.session.or(user);
        facts.whole = self.walk.ended();
        let model = xxh3_64(facts.model.as_deref().unwrap_or_default().as_bytes());
        facts.prompt.head = chained(chained(model, tools), system);
        facts
    }
}

impl Found {
    /// The hash of everything since the last call.
    fn digest(&mut self) -> u64 {
        let digest = self.hasher.digest();
        self.hasher.reset();
        digest
    }

    fn end_of_message(&mut self) {
        let hash = self.digest();
        let content = std::mem::take(&mut self.content);
        let message = std::mem::take(&mut self.message);
        let by_model = message.role == Role::Model;
        self.facts.prompt.push(hash, content, by_model);
        if by_model {
            self.facts.turn = Turn::Other;
            self.facts.compacts = false;
        } else if message.results || message.role == Role::Tool {
            self.facts.turn = Turn::Tools;
        } else if message.role == Role::User && message.words && self.facts.turn == Turn::Other {
            self.facts.turn = Turn::Typed;
        }
        self.facts.compacts |= message.compacts;
    }

    /// A string of a message ended; what it says about the message.
    fn recognise(&mut self, depth: u32) {
        let lead = self.lead.as_slice();
        match (self.key, depth) {
            (Key::Role, 3) => {
                self.message.role = match lead {
                    b"user" => Role::User,
                    b"assistant" | b"model" => Role::Model,
                    b"tool" | b"function" => Role::Tool,
                    _ => Role::Other,
                }
            }
            (Key::Type, 3) if lead.ends_with(b"_output") => self.message.role = Role::Tool,
            (Key::Type, 3) if lead.ends_with(b"_call") || lead == b"reasoning" => {
                self.message.role = Role::Model;
                self.facts.has_calls |= lead.ends_with(b"_call");
            }
            (Key::Type, 5) => {
                self.message.results |= lead.ends_with(b"tool_result");
                self.facts.has_calls |= lead == b"tool_use";
            }
            (Key::Signature, 5) => self.facts.has_calls = true,
            (Key::Words, 3 | 5) => {
                self.message.words |= !lead.is_empty() && !lead.starts_with(REMINDER);
                self.message.compacts |= COMPACTION.find(lead).is_some();
            }
            _ => {}
        }
    }
}

/// A JSON string; most hold no escape, and are read as they stand.
fn string(value: &[u8]) -> Option<String> {
    let inner = value.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
    if memchr::memchr(b'\\', inner).is_some() {
        return serde_json::from_slice(value).ok();
    }
    std::str::from_utf8(inner).ok().map(str::to_owned)
}

impl Visitor for Found {
    fn wants(&mut self, key: &[u8]) -> Want {
        self.region = match key {
            b"messages" | b"input" => Region::Messages,
            b"system" | b"instructions" => Region::System,
            b"tools" => Region::Tools,
            _ => Region::Other,
        };
        self.key = Key::Other;
        match key {
            b"system" | b"instructions" | b"tools" => Want::Watch,
            b"model"
            | b"stream"
            | b"prompt_cache_key"
            | b"metadata"
            | b"user"
            | b"max_tokens"
            | b"max_completion_tokens"
            | b"max_output_tokens" => Want::Capture,
            _ => Want::Skip,
        }
    }

    fn captured(&mut self, key: &[u8], value: Option<&[u8]>) {
        let Some(value) = value else { return };
        match key {
            b"model" => self.facts.model = string(value),
            b"stream" => self.facts.stream = value == b"true",
            b"prompt_cache_key" => {
                self.facts.session = string(value);
                self.facts.pinned |= self.facts.session.is_some();
            }
            b"metadata" => {
                let metadata = serde_json::from_slice::<Metadata>(value).ok();
                self.user = metadata.and_then(|it| it.user_id).or(self.user.take());
            }
            b"user" => {
                self.user = self.user.take().or(serde_json::from_slice(value).ok());
                self.facts.pinned = true;
            }
            _ => self.facts.max_output = serde_json::from_slice(value).ok(),
        }
    }

    fn watched(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
        if self.region == Region::Tools {
            self.content.bytes[Class::Tools as usize] += bytes.len() as u64;
        }
    }

    fn finished(&mut self) {
        match self.region {
            Region::Tools | Region::System => {
                let digest = self.digest();
                let content = std::mem::take(&mut self.content);
                if self.region == Region::Tools {
                    self.tools = digest;
                } else {
                    self.system = digest;
                }
                self.facts.prompt.head_content = self.facts.prompt.head_content + content;
            }
            // The whole input of a responses body may be one string.
            Region::Messages if self.content != Content::default() => {
                self.message.role = Role::User;
                self.message.words = true;
                self.end_of_message();
            }
            Region::Messages | Region::Other => {}
        }
        self.region = Region::Other;
    }

    fn keys_to(&self) -> u32 {
        match self.region {
            Region::Other => 1,
            Region::Tools => TOOL_KEYS,
            Region::System | Region::Messages => MESSAGE_KEYS,
        }
    }

    fn opened(&mut self, depth: u32) {
        self.facts.has_tools |= self.region == Region::Tools && depth == 3;
    }

    fn closed(&mut self, depth: u32) {
        if self.left_out.is_some_and(|within| depth <= within) {
            self.left_out = None;
        }
        if self.region == Region::Messages && depth == 3 {
            self.end_of_message();
        }
    }

    fn named(&mut self, depth: u32, key: &[u8]) {
        if self.left_out.is_some_and(|within| depth <= within) {
            self.left_out = None;
        }
        self.key = match key {
            b"role" if depth == 3 => Key::Role,
            // Messages and their parts stand at odd depths; what a tool is called with stands between.
            b"type" if depth % 2 == 1 => Key::Type,
            b"name" => Key::Name,
            b"content" | b"text" => Key::Words,
            b"signature" | b"encrypted_content" => Key::Signature,
            _ => Key::Other,
        };
        self.facts.has_calls |= depth == 3 && key == b"tool_calls";
        if key == b"cache_control" && self.left_out.is_none() {
            self.left_out = Some(depth);
        }
    }

    fn text(&mut self, run: &[u8]) {
        if self.region == Region::Other || self.left_out.is_some() {
            return;
        }
        if self.lead.capacity() == 0 {
            self.lead.reserve(LEAD);
        }
        let room = LEAD - self.lead.len();
        self.lead.extend_from_slice(&run[..run.len().min(room)]);
        if self.region == Region::Tools || matches!(self.key, Key::Type | Key::Role) {
            return;
        }
        self.sampler.take(run);
        if self.region == Region::Messages {
            self.hasher.update(run);
        }
    }

    fn text_ended(&mut self, depth: u32) {
        if self.region == Region::Other || self.left_out.is_some() {
            return;
        }
        match self.region {
            Region::Tools => {
                self.facts.spawns |= self.key == Key::Name && self.lead == SPAWNER;
            }
            Region::Messages => {
                // The end of each string counts, so that two messages with the same bytes cut otherwise differ. Roles
                // are told by their first letter.
                let mark = match self.key {
                    Key::Role => self.lead.first().copied().unwrap_or(0),
                    _ => 0xFF,
                };
                if self.key != Key::Type {
                    self.hasher.update(&[mark]);
                }
                self.recognise(depth);
            }
            Region::System | Region::Other => {}
        }
        self.lead.clear();
        match self.sampler.finish() {
            Told::Text(text) if self.region != Region::Tools => self.content = self.content + text,
            Told::Encoded if self.key != Key::Signature => self.content.pictures += 1,
            _ => {}
        }
    }
}

impl std::fmt::Debug for Found {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Prompts are private, and the hasher's state says nothing.
        formatter.debug_struct("Found").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn scan(body: &str) -> Facts {
        let mut scan = Scan::default();
        scan.feed(body.as_bytes());
        scan.finish()
    }

    #[test]
    fn a_chat_body_tells_model_stream_session_and_cap() {
        let body = r#"{"messages":[{"role":"user","content":"say \"model\": \"no\" }, {"}],"stream" : true,
            "model":"kimi-k2.6","max_completion_tokens":262144,"prompt_cache_key":"session_1","tools":[{"model":"x"}]}"#;
        let facts = scan(body);
        assert_eq!(facts.model.as_deref(), Some("kimi-k2.6"));
        assert!(facts.stream);
        assert_eq!(facts.session.as_deref(), Some("session_1"));
        assert_eq!(facts.max_output, Some(262_144));
        assert!(facts.pinned && !facts.spawns);
        assert_eq!(facts.opening, Some(1));
        assert!(facts.whole);
    }

    #[test]
    fn a_messages_body_names_its_session_in_the_metadata() {
        let facts = scan(
            r#"{"model":"k","metadata":{"user_id":"session_2"},"stream":false,"max_tokens":9}"#,
        );
        assert_eq!(facts.session.as_deref(), Some("session_2"));
        assert!(!facts.stream);
        assert_eq!(facts.max_output, Some(9));
    }

    /// A body in the dialects' common shape: head, and messages as JSON.
    fn body(head: &str, messages: &[&str]) -> String {
        format!(
            r#"{{"model":"k",{head}"messages":[{}]}}"#,
            messages.join(",")
        )
    }

    fn hashes(facts: &Facts) -> Vec<u64> {
        let links = facts.prompt.links();
        links.iter().map(|link| link.hash).collect()
    }

    #[test]
    fn pictures_and_signatures_are_not_text() {
        let encoded = "QUJD".repeat(4000);
        let facts = scan(&body(
            "",
            &[&format!(
                r#"{{"role":"user","content":[{{"image_url":{{"url":"data:image/png;base64,{encoded}"}}}},{{"text":"{}"}}]}},
            {{"role":"assistant","content":[{{"thinking":"so","signature":"{encoded}"}}]}}"#,
                "plain words of a person ".repeat(100)
            )],
        ));
        let content = facts.prompt.content();
        assert_eq!(content.pictures, 1);
        assert_eq!(content.text(), 2402);
        assert_eq!(content.bytes[Class::Prose as usize], 2402);
        let end = facts.prompt.links()[1];
        assert!(end.by_model && end.content.pictures == 1);
    }

    #[test]
    fn the_next_turn_extends_the_chain() {
        let system = r#""system":[{"type":"text","text":"You help.","cache_control":{"type":"ephemeral"}}],"#;
        let marked = r#"{"role":"user","content":[{"type":"text","text":"go","cache_control":{"type":"ephemeral"}}]}"#;
        let plain = r#"{"role": "user", "content": [{"type":"text","text":"go"}]}"#;
        let string = r#"{"role":"user","content":"go"}"#;
        let call = r#"{"role":"assistant","content":[{"type":"tool_use","id":"t1","name":"Read","input":{"path":"a"}}]}"#;
        let result = r#"{"role":"user","content":[{"type":"tool_result","tool_use_id":"t1","content":"x","cache_control":{"type":"ephemeral"}}]}"#;
        let first = scan(&body(system, &[marked]));
        let second = scan(&body(system, &[plain, call, result]));
        assert_eq!(hashes(&first)[..], hashes(&second)[..1]);
        assert_eq!(hashes(&first), hashes(&scan(&body(system, &[string]))));
        assert_eq!(first.prompt.head, second.prompt.head);
        assert_ne!(first.prompt.head, scan(&body("", &[marked])).prompt.head);
        let other = r#"{"role":"assistant","content":[{"type":"tool_use","id":"t1","name":"Read","input":{"path":"b"}}]}"#;
        let edited = scan(&body(system, &[plain, other, result]));
        assert_eq!(hashes(&edited)[0], hashes(&second)[0]);
        assert_ne!(hashes(&edited)[1], hashes(&second)[1]);
        assert_ne!(hashes(&edited)[2], hashes(&second)[2]);
        // The order of the members does not matter.
        let turned = format!(r#"{{"messages":[{plain}],{system}"model":"k"}}"#);
        assert_eq!(scan(&turned).prompt.head, first.prompt.head);
        assert_eq!(hashes(&scan(&turned)), hashes(&first));
    }

    #[test]
    fn who_waits_for_the_answer_is_told() {
        let user = r#"{"role":"user","content":"fix it"}"#;
        let reminder =
            r#"{"role":"user","content":"<system-reminder>\nToday is Friday.</system-reminder>"}"#;
        let said = r#"{"role":"assistant","content":"done"}"#;
        let call = r#"{"role":"assistant","tool_calls":[{"id":"1","type":"function","function":{"name":"Read","arguments":"{}"}}]}"#;
        let result = r#"{"role":"tool","tool_call_id":"1","content":"text"}"#;
        let block = r#"{"role":"user","content":[{"type":"tool_result","tool_use_id":"1","content":[{"type":"text","text":"x"}]},{"type":"text","text":"<system-reminder>x"}]}"#;
        let compaction = r#"{"role":"user","content":"You are about to run out of context. Create a handoff summary for the\nmodel"}"#;
        let item =
            r#"{"content":[{"type":"input_text","text":"go"}],"role":"user","type":"message"}"#;
        let called = r#"{"arguments":"{}","call_id":"1","name":"Read","type":"function_call"}"#;
        let output = r#"{"call_id":"1","output":"text","type":"function_call_output"}"#;
        let thought = r#"{"type":"reasoning","summary":[],"encrypted_content":"QUJD"}"#;
        for (messages, turn) in [
            (&[user][..], Turn::Typed),
            (&[user, reminder, reminder], Turn::Typed),
            (&[user, said, user], Turn::Typed),
            (&[user, call, result], Turn::Tools),
            (&[user, call, result, reminder], Turn::Tools),
            (&[user, call, result, result, user], Turn::Tools),
            (&[user, call, block], Turn::Tools),
            (&[item], Turn::Typed),
            (&[item, thought, called, output], Turn::Tools),
            (&[user, said], Turn::Other),
            (&[reminder], Turn::Other),
            (&[], Turn::Other),
        ] {
            let facts = scan(&body("", messages));
            assert_eq!((facts.turn, facts.compacts), (turn, false), "{messages:?}");
        }
        assert!(scan(&body("", &[user, said, compaction])).compacts);
        assert!(!scan(&body("", &[user, compaction, said, user])).compacts);
        let whole = scan(r#"{"model":"k","input":"say it"}"#);
        assert_eq!((whole.turn, whole.prompt.links().len()), (Turn::Typed, 1));
    }

    #[test]
    fn the_main_agent_is_known_by_its_tools() {
        for (tools, expected) in [
            (
                r#""tools":[{"type":"function","function":{"name":"Read"}},{"type":"function","function":{"name":"Agent"}}],"#,
                true,
            ),
            (r#""tools":[{"name":"Agent","input_schema":{}}],"#, true),
            (
                r#""tools":[{"name":"Read","input_schema":{"properties":{"name":{"enum":["Agent"]}}}}],"#,
                false,
            ),
            (r#""tool_choice":{"name":"Agent"},"#, false),
        ] {
            let facts = scan(&body(tools, &[]));
            assert_eq!(facts.spawns, expected, "{tools}");
            let counted = facts.prompt.head_content.bytes[Class::Tools as usize];
            assert_eq!(counted > 0, tools.contains("tools"));
        }
    }

    #[test]
    fn what_is_no_object_or_is_cut_is_told() {
        for body in [
            "",
            "[1,2]",
            "null",
            r#"{"model":"k""#,
            r#"{"model":"#,
            "\"",
            "{{{{",
        ] {
            let facts = scan(body);
            assert!(facts.model.is_none(), "{body}");
            assert_eq!(facts.whole, body == "[1,2]", "{body}");
        }
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same_facts(cuts in prop::collection::vec(0usize..420, 0..12)) {
            let body = r#"{"model":"kimi\"k\\2","system":[{"text":"be \"good\""}],"messages":[{"role":"user","content":"a\n\"b\" {} [] : , é 😀"},{"role":"assistant","content":[{"cache_control":null,"type":"text","text":"x\\"}]},{"content":"令牌","role":"tool"}],"tools":[{"name":"Agent"}],"stream":true,"metadata":{"user_id":"s","deep":{"a":[1,2,{"b":"]}"}]}},"max_tokens":  50000 }"#;
            let bytes = body.as_bytes();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let mut pieces = Scan::default();
            for pair in cuts.windows(2) {
                pieces.feed(&bytes[pair[0]..pair[1]]);
            }
            prop_assert_eq!(pieces.finish(), scan(body));
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..400), json in "(\\{\"(messages|tools|system|x)\":)?[{}\\[\\]\":,a\\\\ ]{0,200}") {
            for first in [bytes.as_slice(), &[]] {
                let mut looker = Scan::default();
                looker.feed(first);
                looker.feed(json.as_bytes());
                let facts = looker.finish();
                prop_assert!(facts.prompt.content().text() <= (first.len() + json.len()) as u64);
            }
        }
    }
}
