//! The few facts of a request that admission needs, found while the body arrives.
//!
//! The body is neither parsed into a tree nor copied: 400 kB cost one pass of memory, overlapped with the reading of
//! the socket. Where the session's name stands differs per dialect (measured on Kimi Code 2.1.0 and kimi-cli 1.51):
//! `prompt_cache_key` in chat and responses, `metadata.user_id` in messages.

use serde::Deserialize;

use crate::wire::json::{Visitor, Walk};

/// What a request body says about itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// The `model` as the client named it.
    pub model: Option<String>,
    /// Whether the answer is to be streamed.
    pub stream: bool,
    /// The client's session: the same value in every turn of one conversation, shared by its subagents.
    pub session: Option<String>,
    /// The client's cap on the answer, in tokens; usually the whole context window, so it is no estimate.
    pub max_output: Option<u64>,
    /// Bytes of the body that are text, encoded pictures left out.
    pub text_bytes: u64,
    /// Pictures and other long encoded pieces.
    pub pictures: u64,
    /// The body is one JSON object that came to its end.
    pub whole: bool,
}

/// A looker at a request body. Feed it every chunk, then ask for the facts.
#[derive(Debug, Default)]
pub struct Scan {
    walk: Walk,
    found: Found,
    bytes: u64,
}

#[derive(Debug, Default)]
struct Found {
    facts: Facts,
    user: Option<String>,
    picture_bytes: u64,
}

#[derive(Deserialize)]
struct Metadata {
    user_id: Option<String>,
}

impl Scan {
    /// Looks at the next chunk.
    pub fn feed(&mut self, chunk: &[u8]) {
        self.bytes += chunk.len() as u64;
        self.walk.feed(chunk, &mut self.found);
    }

    /// What was found.
    pub fn finish(self) -> Facts {
        let Found {
            mut facts,
            user,
            picture_bytes,
        } = self.found;
        facts.session = facts.session.or(user);
        facts.text_bytes = self.bytes.saturating_sub(picture_bytes);
        facts.whole = self.walk.ended();
        facts
    }
}

impl Visitor for Found {
    fn wants(&self, key: &[u8]) -> bool {
        matches!(
            key,
            b"model"
                | b"stream"
                | b"prompt_cache_key"
                | b"metadata"
                | b"user"
                | b"max_tokens"
                | b"max_completion_tokens"
                | b"max_output_tokens"
        )
    }

    fn captured(&mut self, key: &[u8], value: Option<&[u8]>) {
        let Some(value) = value else { return };
        match key {
            b"model" => self.facts.model = serde_json::from_slice(value).ok(),
            b"stream" => self.facts.stream = value == b"true",
            b"prompt_cache_key" => self.facts.session = serde_json::from_slice(value).ok(),
            b"metadata" => {
                let metadata = serde_json::from_slice::<Metadata>(value).ok();
                self.user = metadata.and_then(|it| it.user_id).or(self.user.take());
            }
            b"user" => self.user = self.user.take().or(serde_json::from_slice(value).ok()),
            _ => self.facts.max_output = serde_json::from_slice(value).ok(),
        }
    }

    fn picture(&mut self, length: u64) {
        self.facts.pictures += 1;
        self.picture_bytes += length;
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
        assert_eq!(facts.text_bytes, body.len() as u64);
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

    #[test]
    fn pictures_are_not_text() {
        let picture = "QUJD".repeat(4000);
        let body = format!(
            r#"{{"model":"k","messages":[{{"image_url":{{"url":"data:image/png;base64,{picture}"}}}},{{"text":"{}"}}]}}"#,
            "plain words of a person ".repeat(100)
        );
        let facts = scan(&body);
        assert_eq!(facts.pictures, 1);
        assert!(facts.text_bytes < 3000, "{}", facts.text_bytes);
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
        fn any_split_gives_the_same_facts(cuts in prop::collection::vec(0usize..220, 0..12)) {
            let body = r#"{"model":"kimi\"k\\2","messages":[{"content":"a\n\"b\" {} [] : , é 😀"}],"stream":true,"metadata":{"user_id":"s","deep":{"a":[1,2,{"b":"]}"}]}},"max_tokens":  50000 }"#;
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
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..400), json in "[{}\\[\\]\":,a\\\\ ]{0,200}") {
            let mut looker = Scan::default();
            looker.feed(&bytes);
            looker.feed(json.as_bytes());
            let facts = looker.finish();
            prop_assert!(facts.text_bytes <= (bytes.len() + json.len()) as u64);
        }
    }
}
