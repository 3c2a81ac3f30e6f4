//! Repair on the way through: the request's history up, the answer down.
//!
//! Only models of the Kimi family are read at all, each in the mode that the settings give it; the traffic of others
//! does not come here. A request of such a model is read once it is whole and before it waits. Its answer gets a body
//! around the relay's own: the relay goes on metering what the upstream said, the client gets what is right. A streamed
//! answer leaves chunk by chunk, one in a single body leaves whole, since only its end tells what it is.
//!
//! What was repaired is counted by model and kind, in the log and in [`Repairing::counts`], so that a user sees which
//! provider garbles.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use parking_lot::Mutex;

use crate::normalize::{Asked, Repairer, Repairs, Request, Rules, whole_chat, whole_messages};
use crate::proxy::listener::Answer;
use crate::proxy::stream::{BodyError, Relay};
use crate::wire::{Dialect, Facts};

/// Longest answer in one body that is read, in bytes.
const LONGEST_BODY: usize = 16 * 1024 * 1024;

/// What happens to the output of a Kimi model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Normalize {
    /// It is repaired.
    #[default]
    On,
    /// It is read and counted, and passes as it came.
    Observe,
    /// It is not read.
    Off,
}

impl Normalize {
    /// Reads the word of the settings.
    pub fn of(word: &str) -> Option<Self> {
        match word {
            "on" => Some(Self::On),
            "observe" => Some(Self::Observe),
            "off" => Some(Self::Off),
            _ => None,
        }
    }
}

/// The modes, and what was repaired so far.
#[derive(Debug, Default)]
pub struct Repairing {
    usual: Normalize,
    models: BTreeMap<String, Normalize>,
    counts: Mutex<BTreeMap<String, Repairs>>,
}

impl Repairing {
    /// The usual mode, and that of single models by the upstream's id or the last part of it. A model that is named is
    /// taken for a Kimi.
    pub fn new(usual: Normalize, models: BTreeMap<String, Normalize>) -> Self {
        Self {
            usual,
            models,
            counts: Mutex::default(),
        }
    }

    /// What was repaired or seen, by model and kind.
    pub fn counts(&self) -> Vec<(String, &'static str, u32)> {
        let counts = self.counts.lock();
        let kinds = counts.iter().flat_map(|(model, repairs)| {
            let seen = repairs.seen();
            seen.map(move |(kind, count)| (model.clone(), kind.name(), count))
        });
        kinds.collect()
    }

    /// Reads a request: what goes up for it, and what its answer is to be read by. Without calls in its history there is
    /// nothing to clean, and what the answer is read by is looked up when the answer asks for it.
    pub(super) fn read(
        self: &Arc<Self>,
        dialect: Dialect,
        model: &str,
        facts: &Facts,
        chunks: Arc<[Bytes]>,
    ) -> (Arc<[Bytes]>, Option<Mending>) {
        let short = model.rsplit('/').next().unwrap_or(model);
        let named = self.models.get(model).or_else(|| self.models.get(short));
        let mode = named.copied().unwrap_or(self.usual);
        if mode == Normalize::Off {
            return (chunks, None);
        }
        let mut rules = Rules::of_model(model);
        rules.kimi |= named.is_some();
        if !rules.kimi {
            return (chunks, None);
        }
        let read = move |chunks: &[Bytes]| Request::read(dialect, &joined(chunks), Some(true));
        let mending = |rules| Mending {
            repairing: self.clone(),
            model: model.into(),
            dialect,
            observes: mode == Normalize::Observe,
            rules: Arc::new(rules),
        };
        if !facts.has_calls {
            let kept = chunks.clone();
            let asked = move || read(&kept).map_or_else(Asked::default, |it| it.rules.clone());
            let rules = rules.reading(facts.has_tools, asked);
            return (chunks, Some(mending(rules)));
        }
        let Some(request) = read(&chunks) else {
            return (chunks, None);
        };
        let mending = mending(request.rules);
        mending.count(&request.repairs);
        let sent = match request.body {
            Some(body) if mode == Normalize::On => Arc::from([Bytes::from(body)]),
            _ => chunks,
        };
        (sent, Some(mending))
    }
}

/// The body in one piece.
fn joined(chunks: &[Bytes]) -> Bytes {
    match chunks {
        [only] => only.clone(),
        several => several.concat().into(),
    }
}

/// What an answer is to be read by.
#[derive(Clone, Debug)]
pub(super) struct Mending {
    repairing: Arc<Repairing>,
    model: Arc<str>,
    dialect: Dialect,
    observes: bool,
    rules: Arc<Rules>,
}

impl Mending {
    /// The body of a streamed answer, repaired as it passes.
    pub(super) fn stream(self, relay: Relay) -> Answer {
        let rules = self.rules.clone();
        let repairer = match self.dialect {
            Dialect::Messages => Repairer::messages(rules, self.observes),
            Dialect::Chat | Dialect::Responses => Repairer::chat(rules, self.observes),
        };
        Answer::Mended(Box::new(Mended {
            relay,
            repairs: Some((self, repairer)),
            ready: Vec::new().into_iter(),
            ended: false,
        }))
    }

    /// The body of an answer that comes in one piece, repaired once it came to its end; one that is too long passes.
    pub(super) async fn whole(self, mut relay: Relay) -> Result<Answer, BodyError> {
        let mut chunks = Vec::new();
        let mut length = 0;
        while let Some(frame) = relay.frame().await {
            let Ok(chunk) = frame?.into_data() else {
                continue;
            };
            length += chunk.len();
            chunks.push(chunk);
            if length > LONGEST_BODY {
                return Ok(Answer::Mended(Box::new(Mended {
                    relay,
                    repairs: None,
                    ready: chunks.into_iter(),
                    ended: false,
                })));
            }
        }
        Ok(Answer::full(self.repaired(joined(&chunks))))
    }

    /// Whether an answer of this form can be read.
    pub(super) fn reads(&self) -> bool {
        self.dialect != Dialect::Responses
    }

    fn count(&self, repairs: &Repairs) {
        if repairs.is_empty() {
            return;
        }
        for (kind, count) in repairs.seen() {
            tracing::info!(model = %self.model, kind = kind.name(), count, observed = self.observes, "repaired");
        }
        let mut counts = self.repairing.counts.lock();
        counts
            .entry(self.model.to_string())
            .or_default()
            .add(repairs);
    }

    fn repaired(&self, body: Bytes) -> Bytes {
        let (repaired, repairs) = match self.dialect {
            Dialect::Messages => whole_messages(self.rules.clone(), &body),
            Dialect::Chat | Dialect::Responses => whole_chat(self.rules.clone(), &body),
        };
        self.count(&repairs);
        repaired
            .filter(|_| !self.observes)
            .map_or(body, Bytes::from)
    }
}

/// The body of an answer that is repaired as it passes.
#[derive(Debug)]
pub(super) struct Mended {
    relay: Relay,
    /// Nothing: the rest passes.
    repairs: Option<(Mending, Repairer)>,
    /// What leaves next.
    ready: std::vec::IntoIter<Bytes>,
    ended: bool,
}

impl Mended {
    fn push(&mut self, chunk: Bytes) {
        let mut out = Vec::new();
        match &mut self.repairs {
            Some((_, repairer)) => repairer.push(&chunk, &mut out),
            None => out.push(chunk),
        }
        self.ready = out.into_iter();
    }

    /// The upstream's answer came to its end.
    fn finish(&mut self) {
        self.ended = true;
        if let Some((_, repairer)) = &mut self.repairs {
            let mut out = Vec::new();
            repairer.finish(&mut out);
            self.ready = out.into_iter();
        }
    }
}

impl Drop for Mended {
    fn drop(&mut self) {
        if let Some((mending, repairer)) = &self.repairs {
            mending.count(repairer.repairs());
        }
    }
}

impl Body for Mended {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        loop {
            if let Some(bytes) = this.ready.next() {
                return Poll::Ready(Some(Ok(Frame::data(bytes))));
            }
            if this.ended {
                return Poll::Ready(None);
            }
            match std::task::ready!(Pin::new(&mut this.relay).poll_frame(context)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(chunk) => this.push(chunk),
                    Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
                },
                Some(Err(error)) => {
                    this.ended = true;
                    return Poll::Ready(Some(Err(error)));
                }
                None => this.finish(),
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.ended && self.ready.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_kimi_models_are_read_and_each_in_its_mode() {
        let off = BTreeMap::from([
            ("kimi-k2p6".to_owned(), Normalize::Off),
            ("house/secret".to_owned(), Normalize::Observe),
        ]);
        let repairing = Arc::new(Repairing::new(Normalize::On, off));
        for (model, expected) in [
            ("kimi-k2", Some(false)),
            ("deepseek-v3", None),
            ("accounts/x/models/kimi-k2p6", None),
            ("house/secret", Some(true)),
        ] {
            let body = format!(r#"{{"model":"{model}","messages":[]}}"#);
            let chunks: Arc<[Bytes]> = Arc::from([Bytes::from(body)]);
            let (sent, mending) =
                repairing.read(Dialect::Chat, model, &Facts::default(), chunks.clone());
            assert_eq!(mending.map(|it| it.observes), expected, "{model}");
            assert!(Arc::ptr_eq(&sent, &chunks));
        }
    }
}
