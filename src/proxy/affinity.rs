//! Asking the upstream to serve a conversation where its prompt cache is.
//!
//! Prompt caches are local to a serving replica. Fireworks routes by the body's `prompt_cache_key`, then `user`, then
//! the header `x-session-affinity` (Fireworks docs, prompt caching). What the client itself sets is left alone; without
//! it, one stable value per conversation is added: a hash, because a session's name may tell who or where the user is.
//! The body is not copied for it: one member is put between its opening brace and the rest.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use ring::digest::{Context, SHA256};

use crate::upstream::Kind;
use crate::wire::{Dialect, Facts};

const HEADER: HeaderName = HeaderName::from_static("x-session-affinity");

/// Headers by which clients choose a replica themselves; Fireworks documents all of them.
const CLIENTS_OWN: [HeaderName; 3] = [
    HEADER,
    HeaderName::from_static("x-multi-turn-session-id"),
    HeaderName::from_static("x-claude-code-session-id"),
];

/// Digits of the hash that are sent: 128 bits.
const DIGITS: usize = 32;

/// What is added to a request so that it meets its cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Affinity {
    digits: [u8; DIGITS],
}

impl Affinity {
    /// The affinity of a conversation at this upstream; `None` where the client chose one or none is taken.
    pub(super) fn of(kind: Kind, headers: &HeaderMap, session: &str) -> Option<Self> {
        let chosen = |name| headers.contains_key(name);
        if !kind.takes_affinity() || CLIENTS_OWN.iter().any(chosen) {
            return None;
        }
        let mut hash = Context::new(&SHA256);
        hash.update(b"affinity of ");
        hash.update(session.as_bytes());
        let hash = hash.finish();
        let mut digits = [0; DIGITS];
        for (pair, byte) in digits.chunks_exact_mut(2).zip(hash.as_ref()) {
            pair[0] = b"0123456789abcdef"[usize::from(byte >> 4)];
            pair[1] = b"0123456789abcdef"[usize::from(byte & 15)];
        }
        Some(Self { digits })
    }

    /// Adds the header.
    pub(super) fn mark(&self, headers: &mut HeaderMap) {
        if let Ok(value) = HeaderValue::from_bytes(&self.digits) {
            headers.insert(HEADER, value);
        }
    }

    /// Adds the member to a body that has none, in a dialect that knows it.
    pub(super) fn pin(
        &self,
        chunks: Arc<[Bytes]>,
        dialect: Dialect,
        facts: &Facts,
    ) -> Arc<[Bytes]> {
        if facts.pinned || dialect == Dialect::Messages {
            return chunks;
        }
        let member: Vec<u8> = [&b"\"prompt_cache_key\":\""[..], &self.digits, b"\","].concat();
        facts
            .opening
            .and_then(|opening| spliced(&chunks, opening, member.into()))
            .unwrap_or(chunks)
    }
}

/// The chunks with one more at this offset.
fn spliced(chunks: &[Bytes], offset: u64, more: Bytes) -> Option<Arc<[Bytes]>> {
    let mut before = usize::try_from(offset).ok()?;
    let at = chunks.iter().position(|chunk| {
        let inside = before <= chunk.len();
        if !inside {
            before -= chunk.len();
        }
        inside
    })?;
    let mut all = chunks[..at].to_vec();
    all.extend([chunks[at].slice(..before), more, chunks[at].slice(before..)]);
    all.extend_from_slice(&chunks[at + 1..]);
    all.retain(|chunk| !chunk.is_empty());
    Some(all.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Scan;

    fn facts(chunks: &[Bytes]) -> Facts {
        let mut scan = Scan::default();
        for chunk in chunks {
            scan.feed(chunk);
        }
        scan.finish()
    }

    #[test]
    fn a_member_goes_behind_the_brace_wherever_the_body_is_cut() {
        let body = " \n{\"model\":\"k\"}";
        for cut in 0..body.len() {
            let chunks: Arc<[Bytes]> = [&body[..cut], &body[cut..]].map(Bytes::from).into();
            let facts = facts(&chunks);
            let affinity = Affinity::of(Kind::Simulated, &HeaderMap::new(), "s").unwrap();
            let sent = affinity.pin(chunks.clone(), Dialect::Chat, &facts);
            let text = String::from_utf8(sent.concat()).unwrap();
            let key = std::str::from_utf8(&affinity.digits).unwrap();
            assert_eq!(
                text,
                format!(" \n{{\"prompt_cache_key\":\"{key}\",\"model\":\"k\"}}")
            );
            assert!(Arc::ptr_eq(
                &affinity.pin(chunks.clone(), Dialect::Messages, &facts),
                &chunks
            ));
        }
    }

    #[test]
    fn what_the_client_chose_and_what_is_unknown_stays() {
        let of = |kind, header: Option<&str>, session: &str| {
            let header = header.map(|name| {
                (
                    name.parse::<HeaderName>().unwrap(),
                    HeaderValue::from_static("v"),
                )
            });
            Affinity::of(kind, &header.into_iter().collect(), session)
        };
        let digits = of(Kind::Fireworks, None, "session_1").unwrap().digits;
        assert_eq!(
            digits,
            of(Kind::Simulated, None, "session_1").unwrap().digits
        );
        assert_ne!(
            digits,
            of(Kind::Simulated, None, "session_2").unwrap().digits
        );
        // A fixed value: it must be the same after a restart and an update.
        assert_eq!(&digits[..], VALUE_OF_SESSION_1.as_bytes());
        for kind in [
            Kind::Moonshot,
            Kind::KimiCode,
            Kind::OpenRouter,
            Kind::Vertex,
            Kind::Other,
        ] {
            assert_eq!(of(kind, None, "s"), None);
        }
        for header in CLIENTS_OWN {
            assert_eq!(of(Kind::Fireworks, Some(header.as_str()), "s"), None);
        }
        // What other clients route by in the body is theirs too.
        for body in [r#"{"prompt_cache_key":"a","model":"k"}"#, r#"{"user":"a"}"#] {
            let chunks: Arc<[Bytes]> = [Bytes::from_static(body.as_bytes())].into();
            let affinity = of(Kind::Simulated, None, "s").unwrap();
            let sent = affinity.pin(chunks.clone(), Dialect::Chat, &facts(&chunks));
            assert!(Arc::ptr_eq(&sent, &chunks));
        }
    }

    const VALUE_OF_SESSION_1: &str = "d0038a2011da96299c57fe7612f850c7";
}
