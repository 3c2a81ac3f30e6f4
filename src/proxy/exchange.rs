//! One model request, from its first byte to the answer that relays it: the spine.
//!
//! The order of the calls in [`exchange`] is the life of a request. Retries live only here and only before the head of
//! the answer went to the client; the client sees a wait, not an error.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{Request, Response, StatusCode, request};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use tokio::time::Instant;

use crate::limits::Ask;
use crate::limits::Class;
use crate::limits::Departure;
use crate::limits::RefusalKind;
use crate::proxy::Proxy;
use crate::proxy::affinity::Affinity;
use crate::proxy::board::{Entry, Outcome, Phase};
use crate::proxy::fault::Fault;
use crate::proxy::listener::Answer;
use crate::proxy::meter::{Afterwards, Meter, Subject};
use crate::proxy::repair::Mending;
use crate::proxy::stalls::Watched;
use crate::proxy::stream::Relay;
use crate::proxy::trouble::Failing;
use crate::upstream::{
    AnswerBody, Connection, Refusal, SendBody, SendError, Upstream, observe, request_headers,
    response_headers,
};
use crate::usage::{Estimate, Tokens};
use crate::wire::{Dialect, Facts, Scan, Tap, Turn};

/// Tries after the first for an upstream that sheds load or cannot be reached.
const SHED_TRIES: u32 = 3;

/// Tries after the first for a failure of unknown meaning.
const FAILURE_TRIES: u32 = 1;

/// A chunk up to this size is copied, so that the connection's larger read buffer is free for its next use.
const SMALL: usize = 4096;

/// Most of an error's body that is read to tell its meaning; the rest is dropped with the connection.
const LONGEST_REFUSAL: usize = 256 * 1024;

/// How long that may take to come.
const SLOWEST_REFUSAL: Duration = Duration::from_secs(5);

/// A request that knows where it goes and in whose name.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) terminal: Arc<str>,
    /// Its share of the budgets in relation to others.
    pub(super) weight: u32,
    pub(super) upstream: Arc<Upstream>,
    /// Path and query below the upstream's base.
    pub(super) path: String,
    pub(super) dialect: Dialect,
    /// How long the client waits for the head of an answer.
    pub(super) patience: Duration,
    /// Where the answer's meter waits until the answer was flushed.
    pub(super) afterwards: Afterwards,
}

/// What follows a try that brought no answer.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    /// Another try on a new connection, at once.
    Reconnect,
    /// Another try after a pause.
    Again(Duration),
    /// Back into the queue: the pool rests, and the limiter knows until when.
    Requeue,
    /// The client gets what the upstream said, or a fault in its place.
    GiveUp,
}

/// Counts the tries that are behind a request.
#[derive(Debug)]
struct Tries {
    /// The first pause after shed load.
    pause: Duration,
    shed: u32,
    failed: u32,
    reconnected: bool,
}

pub(super) async fn exchange(
    proxy: &Arc<Proxy>,
    call: Call,
    request: Request<Incoming>,
) -> Result<Response<Answer>, Fault> {
    let (head, body) = request.into_parts();
    let (chunks, mut facts) = received(body, proxy).await?;
    let subject = subject(&call, &mut facts)?;
    let pool = subject.place.clone();
    let kind = call.upstream.kind();
    let affinity = Affinity::of(kind, &head.headers, &subject.session);
    let chunks = match &affinity {
        Some(affinity) => affinity.pin(chunks, call.dialect, &facts),
        None => chunks,
    };
    let (chunks, mending) = proxy
        .repairing
        .read(call.dialect, &subject.model, &facts, chunks);
    let arrived = Instant::now();
    let patience = call.patience;
    let (session, host) = (facts.session.as_deref(), call.upstream.host());
    let entry = proxy.board.enter(&call.terminal, session, host);
    let mut meter = Meter::new(proxy.clone(), subject, entry);
    let going = Going {
        proxy,
        call: &call,
        head: &head,
        chunks: &chunks,
        affinity: affinity.as_ref(),
    };
    let mut tries = Tries::new(proxy.options.retry_pause);
    let mut place = None;
    loop {
        meter.entry.phase(Phase::Queued);
        // Anew for each try: meanwhile a cache may have aged, or another answer of the session begun.
        let estimated = Instant::now();
        let guess = proxy.estimator.estimate(&meter.subject.asked(), estimated);
        let estimate = guess.estimate;
        meter.subject.guess = Some(guess);
        let ask = Ask {
            pool: pool.clone(),
            terminal: call.terminal.clone(),
            weight: call.weight,
            prompt: estimate.prompt,
            uncached: estimate.uncached,
            cached: estimate.cached,
            cache_expires_in: estimate.cache_expires_in,
            cache_sure_for: estimate.cache_sure_for,
            class: class(&facts, &estimate),
            session: meter.subject.session.clone(),
            max_tokens: facts.max_output,
            budgeted: kind.has_token_budgets(),
            patience,
            again: place.take(),
        };
        let departure = match proxy.gate.admit(ask).await {
            Ok(permit) => meter.admitted(permit, estimated.elapsed()),
            Err(refusal) => return Err(refused(&mut meter.entry, refusal)),
        };
        meter.entry.phase(Phase::Sent);
        let watched = proxy.stalls.watch();
        let sent = going.send(tries.connection(), departure, &watched).await;
        if let Ok(answer) = &sent
            && let Some(seen) = observe(answer.headers())
        {
            proxy.gate.observe(&pool, seen);
        }
        let (next, failing, taken, said) = match sent {
            Ok(answer) if answer.status().is_success() => {
                meter.entry.answered(call.upstream.host());
                meter.entry.phase(Phase::Streaming);
                return relay(&call, meter, watched, mending, answer).await;
            }
            Ok(answer) => {
                let (parts, text) = read_refusal(answer).await;
                let refusal = Refusal::of(parts.status, &parts.headers, &text, (proxy.wall)());
                if let Refusal::Throttled { after } = refusal {
                    proxy.gate.throttled(&pool, meter.permit(), after);
                    if estimate.cached > 0 {
                        proxy.estimator.refused(&pool);
                    }
                }
                let failing = Failing::by_refusal(refusal, parts.status);
                let taken = refusal == Refusal::Failed;
                let next = tries.after_refusal(refusal);
                (next, failing, taken, Ok((parts, text)))
            }
            Err(error) => {
                // A reused connection that broke had most likely died before.
                let taken = match error {
                    SendError::Broken { reused, .. } => !reused,
                    SendError::Silent { .. } => true,
                    SendError::Address(_) | SendError::Connect { .. } => false,
                };
                let failing = Failing::by_error(&error);
                (tries.after_error(&error), failing, taken, Err(error))
            }
        };
        // What the upstream refused at its door cost nothing there; what it took may have been counted.
        place = if taken {
            meter.failed()
        } else {
            meter.refused()
        };
        let pause = match next {
            Next::Again(pause)
                if arrived.elapsed() + pause < patience && proxy.gate.may_retry(&pool) =>
            {
                pause
            }
            Next::Reconnect | Next::Requeue => Duration::ZERO,
            Next::Again(_) | Next::GiveUp => {
                meter.entry.tried(call.upstream.host(), failing, None);
                meter.entry.end(Outcome::Failed, Tokens::default());
                return said.map_or_else(
                    |error| Err(unreachable_upstream(&error)),
                    |(parts, text)| pass_on(parts, text),
                );
            }
        };
        meter
            .entry
            .tried(call.upstream.host(), failing, Some(pause));
        meter.entry.phase(Phase::BackingOff);
        tokio::time::sleep(pause).await;
    }
}

/// The whole request, if it comes within the time in which an answer would have to move.
async fn received(body: Incoming, proxy: &Proxy) -> Result<(Arc<[Bytes]>, Facts), Fault> {
    let bound = proxy.options.stall;
    let whole = receive(body, proxy.options.largest_body);
    tokio::time::timeout(bound, whole)
        .await
        .unwrap_or_else(|_late| {
            let message = format!(
                "the request did not come to its end within {} s, the bound of `proxy.stall`",
                bound.as_secs_f64()
            );
            let kind = "invalid_request_error";
            Err(Fault::client(StatusCode::REQUEST_TIMEOUT, kind, message))
        })
}

/// Reads the whole request and looks at it while it comes. It is kept in its chunks, to be sent as it came.
async fn receive(body: Incoming, largest: u64) -> Result<(Arc<[Bytes]>, Facts), Fault> {
    let too_large = || {
        let message = format!(
            "the request is larger than {largest} bytes, the bound of `proxy.largest_body`"
        );
        Fault::client(StatusCode::PAYLOAD_TOO_LARGE, "request_too_large", message)
    };
    let mut body = Limited::new(body, usize::try_from(largest).unwrap_or(usize::MAX));
    let mut chunks = Vec::new();
    let mut scan = Scan::default();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| {
            if error.is::<http_body_util::LengthLimitError>() {
                too_large()
            } else {
                let message = "the request broke off before its end";
                Fault::client(StatusCode::BAD_REQUEST, "invalid_request_error", message)
            }
        })?;
        if let Ok(chunk) = frame.into_data() {
            scan.feed(&chunk);
            chunks.push(if chunk.len() <= SMALL {
                Bytes::copy_from_slice(&chunk)
            } else {
                chunk
            });
        }
    }
    Ok((chunks.into(), scan.finish()))
}

fn subject(call: &Call, facts: &mut Facts) -> Result<Subject, Fault> {
    let bad = |message| {
        Err(Fault::client(
            StatusCode::BAD_REQUEST,
            "invalid_request_error",
            message,
        ))
    };
    if !facts.whole {
        return bad("the request's body is no whole JSON object");
    }
    let Some(model) = facts.model.take() else {
        return bad("the request names no `model`");
    };
    Ok(Subject {
        terminal: call.terminal.clone(),
        place: call.upstream.pool(&model),
        model,
        session: facts
            .session
            .as_deref()
            .map_or_else(|| call.terminal.clone(), Into::into),
        prompt: std::mem::take(&mut facts.prompt),
        spawns: facts.spawns,
        guess: None,
    })
}

/// Whether somebody waits for the answer. Agents beside the main one, compactions and titles belong to turns, but
/// nobody looks at them.
fn class(facts: &Facts, estimate: &Estimate) -> Class {
    match facts.turn {
        _ if estimate.aside || facts.compacts => Class::Background,
        Turn::Typed => Class::Interactive,
        Turn::Tools | Turn::Other => Class::Loop,
    }
}

/// What goes up, the same in every try.
struct Going<'a> {
    proxy: &'a Proxy,
    call: &'a Call,
    head: &'a request::Parts,
    chunks: &'a Arc<[Bytes]>,
    affinity: Option<&'a Affinity>,
}

impl Going<'_> {
    /// Sends the request and waits for the head of the answer. The prompt is charged from the moment its last byte
    /// left.
    async fn send(
        &self,
        connection: Connection,
        departure: Departure,
        watched: &Watched,
    ) -> Result<Response<AnswerBody>, SendError> {
        let Call { upstream, path, .. } = self.call;
        let mut headers = request_headers(&self.head.headers, upstream);
        if let Some(affinity) = self.affinity {
            affinity.mark(&mut headers);
        }
        let body = SendBody::kept(self.chunks.clone(), move || departure.sent());
        let method = self.head.method.clone();
        tokio::select! {
            biased;
            sent = self.proxy.client.send(upstream, method, path, headers, body, connection) => sent,
            () = watched.stalled() => Err(SendError::Silent { host: upstream.host().to_owned() }),
        }
    }
}

async fn relay(
    call: &Call,
    mut meter: Box<Meter>,
    watched: Watched,
    mending: Option<Mending>,
    answer: Response<AnswerBody>,
) -> Result<Response<Answer>, Fault> {
    let (mut parts, body) = answer.into_parts();
    let content = parts
        .headers
        .get(CONTENT_TYPE)
        .map_or(&b""[..], |value| value.as_bytes());
    let events = content.starts_with(b"text/event-stream");
    let must_end = events || content.starts_with(b"application/json");
    parts.headers = response_headers(parts.headers);
    meter.answer(Tap::new(call.dialect, events));
    let relay = Relay::new(body, meter, call.afterwards.clone(), watched, must_end);
    let answer = match mending.filter(|mending| must_end && mending.reads()) {
        Some(mending) => {
            parts.headers.remove(http::header::CONTENT_LENGTH);
            if events {
                mending.stream(relay)
            } else {
                let whole = Box::pin(mending.whole(relay)).await;
                whole
                    .map_err(|error| Fault::upstream(StatusCode::BAD_GATEWAY, error.to_string()))?
            }
        }
        None => Answer::Relay(relay),
    };
    Ok(Response::from_parts(parts, answer))
}

/// The head and the beginning of an answer that is no success.
async fn read_refusal(answer: Response<AnswerBody>) -> (http::response::Parts, Bytes) {
    let (parts, body) = answer.into_parts();
    let text = Limited::new(body, LONGEST_REFUSAL).collect();
    // The status still tells most; an explanation that broke off, or that does not come, is none.
    match tokio::time::timeout(SLOWEST_REFUSAL, text).await {
        Ok(Ok(text)) => (parts, text.to_bytes()),
        Ok(Err(error)) => {
            tracing::debug!(%error, "the upstream's explanation could not be read");
            (parts, Bytes::new())
        }
        Err(_) => (parts, Bytes::new()),
    }
}

/// What the upstream said, as the client would have seen it without us, but for statuses that the clients take for
/// final although they mean a gateway's trouble.
fn pass_on(mut parts: http::response::Parts, text: Bytes) -> Result<Response<Answer>, Fault> {
    if (520..=524).contains(&parts.status.as_u16()) {
        let message = format!("the upstream's gateway answered {}", parts.status.as_u16());
        return Err(Fault::upstream(StatusCode::SERVICE_UNAVAILABLE, message));
    }
    parts.headers = response_headers(parts.headers);
    parts.headers.remove(http::header::CONTENT_LENGTH);
    Ok(Response::from_parts(parts, Answer::full(text)))
}

fn refused(entry: &mut Entry, refusal: crate::limits::Refusal) -> Fault {
    let outcome = match refusal.kind {
        RefusalKind::Daily { resets_at } => Outcome::Capped { until: resets_at },
        _ => Outcome::Failed,
    };
    entry.end(outcome, Tokens::default());
    refusal.into()
}

pub(super) fn unreachable_upstream(error: &SendError) -> Fault {
    let mut message = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        message = format!("{message}: {cause}");
        source = cause.source();
    }
    Fault::upstream(StatusCode::BAD_GATEWAY, message)
}

impl Tries {
    fn connection(&self) -> Connection {
        if self.reconnected {
            Connection::Fresh
        } else {
            Connection::Pooled
        }
    }

    fn new(pause: Duration) -> Self {
        Self {
            pause,
            shed: 0,
            failed: 0,
            reconnected: false,
        }
    }

    fn after_refusal(&mut self, refusal: Refusal) -> Next {
        match refusal {
            Refusal::Throttled { .. } => Next::Requeue,
            Refusal::Shed => self.again_after_shed(),
            Refusal::Failed if self.failed < FAILURE_TRIES => {
                self.failed += 1;
                Next::Again(jittered(self.pause))
            }
            Refusal::Failed | Refusal::Exhausted | Refusal::Caller => Next::GiveUp,
        }
    }

    fn after_error(&mut self, error: &SendError) -> Next {
        match error {
            SendError::Address(_) => Next::GiveUp,
            SendError::Connect { .. } => self.again_after_shed(),
            // A pooled connection that had died looks like this; a new one tells whether the upstream is well.
            SendError::Broken { .. } | SendError::Silent { .. } if !self.reconnected => {
                self.reconnected = true;
                Next::Reconnect
            }
            SendError::Broken { .. } | SendError::Silent { .. } => Next::GiveUp,
        }
    }

    fn again_after_shed(&mut self) -> Next {
        if self.shed >= SHED_TRIES {
            return Next::GiveUp;
        }
        let pause = self.pause * 2u32.pow(self.shed);
        self.shed += 1;
        Next::Again(jittered(pause))
    }
}

/// The pause and up to half of it more, so that terminals that failed together do not return together.
fn jittered(pause: Duration) -> Duration {
    let mut byte = [0; 1];
    // Without randomness the pause is only less even.
    if getrandom::fill(&mut byte).is_err() {
        return pause;
    }
    pause + pause * u32::from(byte[0]) / 512
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_tried_again_by_their_meaning() {
        let first = Duration::from_millis(500);
        let mut tries = Tries::new(first);
        for _ in 0..10 {
            assert_eq!(
                tries.after_refusal(Refusal::Throttled { after: None }),
                Next::Requeue
            );
        }
        for n in 0..SHED_TRIES {
            let Next::Again(pause) = tries.after_refusal(Refusal::Shed) else {
                panic!()
            };
            let least = first * 2u32.pow(n);
            assert!(pause >= least && pause <= least * 3 / 2);
        }
        assert_eq!(tries.after_refusal(Refusal::Shed), Next::GiveUp);
        assert!(matches!(
            tries.after_refusal(Refusal::Failed),
            Next::Again(_)
        ));
        assert_eq!(tries.after_refusal(Refusal::Failed), Next::GiveUp);
        assert_eq!(tries.after_refusal(Refusal::Caller), Next::GiveUp);
        assert_eq!(tries.after_refusal(Refusal::Exhausted), Next::GiveUp);
    }
}
