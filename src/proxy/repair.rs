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
use parking_lot::Mutex;

use crate::normalize::{Repairer, Repairs, Request, Rules, whole_chat, whole_messages};
use crate::proxy::stream::{BodyError, Relay};
use crate::wire::Dialect;

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

    /// Reads a request: what goes up for it, and what its answer is to be read by.
    pub(super) fn read(
        self: &Arc<Self>,
        dialect: Dialect,
        model: &str,
        chunks: Arc<[Bytes]>,
    ) -> (Arc<[Bytes]>, Option<Mending>) {
        let short = model.rsplit('/').next().unwrap_or(model);
        let named = self.models.get(model).or_else(|| self.models.get(short));
        let mode = named.copied().unwrap_or(self.usual);
        if mode == Normalize::Off || named.is_none() && !Rules::of_model(model).kimi {
            return (chunks, None);
        }
        let body = match &*chunks {
            [only] => only.clone(),
            several => several.concat().into(),
        };
        let Some(request) = Request::read(dialect, &body, named.map(|_| true)) else {
            return (chunks, None);
        };
        let mending = Mending {
            repairing: self.clone(),
            model: model.to_owned(),
            dialect,
            observes: mode == Normalize::Observe,
            rules: Arc::new(request.rules),
        };
        mending.count(&request.repairs);
        let sent = match request.body {
            Some(body) if mode == Normalize::On => Arc::from([Bytes::from(body)]),
            _ => chunks,
        };
        (sent, Some(mending))
    }
}

/// What an answer is to be read by.
#[derive(Clone, Debug)]
pub(super) struct Mending {
    repairing: Arc<Repairing>,
    model: String,
    dialect: Dialect,
    observes: bool,
    rules: Arc<Rules>,
}

impl Mending {
    /// The answer's body, repaired; it is a stream of `events` or whole.
    pub(super) fn mend(self, relay: Relay, events: bool) -> Mended {
        let rules = self.rules.clone();
        let form = match self.dialect {
            Dialect::Chat if events => Form::Stream(Repairer::chat(rules, self.observes).into()),
            Dialect::Messages if events => {
                Form::Stream(Repairer::messages(rules, self.observes).into())
            }
            _ => Form::Whole(Vec::new()),
        };
        Mended {
            relay,
            mending: self,
            form,
            ready: Vec::new().into_iter(),
            ended: false,
        }
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
        counts.entry(self.model.clone()).or_default().add(repairs);
    }

    fn whole(&self, body: Vec<u8>) -> Bytes {
        let (repaired, repairs) = match self.dialect {
            Dialect::Messages => whole_messages(self.rules.clone(), &body),
            _ => whole_chat(self.rules.clone(), &body),
        };
        self.count(&repairs);
        repaired.filter(|_| !self.observes).unwrap_or(body).into()
    }
}

/// The body of an answer that is repaired as it passes.
#[derive(Debug)]
pub(super) struct Mended {
    relay: Relay,
    mending: Mending,
    form: Form,
    /// What leaves next.
    ready: std::vec::IntoIter<Bytes>,
    ended: bool,
}

#[derive(Debug)]
enum Form {
    Stream(Box<Repairer>),
    Whole(Vec<u8>),
    /// Too long to be read.
    Through,
}

impl Mended {
    fn push(&mut self, chunk: &Bytes) {
        match &mut self.form {
            Form::Stream(repairer) => {
                let mut out = Vec::new();
                repairer.push(chunk, &mut out);
                self.ready = out.into_iter();
            }
            Form::Whole(body) => {
                body.extend_from_slice(chunk);
                if body.len() > LONGEST_BODY {
                    self.ready = vec![std::mem::take(body).into()].into_iter();
                    self.form = Form::Through;
                }
            }
            Form::Through => self.ready = vec![chunk.clone()].into_iter(),
        }
    }

    /// The upstream's answer came to its end.
    fn finish(&mut self) {
        self.ended = true;
        let mut out = Vec::new();
        match &mut self.form {
            Form::Stream(repairer) => repairer.finish(&mut out),
            Form::Through => {}
            Form::Whole(body) if body.is_empty() => {}
            Form::Whole(body) => out.push(self.mending.whole(std::mem::take(body))),
        }
        self.ready = out.into_iter();
    }
}

impl Drop for Mended {
    fn drop(&mut self) {
        if let Form::Stream(repairer) = &self.form {
            self.mending.count(repairer.repairs());
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
                    Ok(chunk) => this.push(&chunk),
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
            let (sent, mending) = repairing.read(Dialect::Chat, model, chunks.clone());
            assert_eq!(mending.map(|it| it.observes), expected, "{model}");
            assert!(Arc::ptr_eq(&sent, &chunks));
        }
    }
}
