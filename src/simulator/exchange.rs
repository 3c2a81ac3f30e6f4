//! The way of one request: read, refuse or admit, wait for the first token, answer.
//!
//! The order is that of a real service: what is wrong with the request comes before the account, the account before
//! shedding, shedding before the token budgets. Faults that replace the answer happen before all of them.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http::HeaderValue;
use http::Method;
use http::Response;
use http::StatusCode;
use http::header;
use http::request::Parts;
use http_body_util::BodyExt;
use http_body_util::LengthLimitError;
use http_body_util::Limited;
use hyper::Request;
use hyper::body::Incoming;
use serde_json::Value;
use serde_json::json;

use super::agent;
use super::agent::Answer;
use super::ask::Ask;
use super::ask::Depth;
use super::body::Reply;
use super::budgets::Metric;
use super::budgets::View;
use super::declared;
use super::engine::Engine;
use super::engine::Exchange;
use super::engine::Need;
use super::fault::Fault;
use super::fault::MARKER;
use super::fault::Wish;
use super::garbled;
use super::options::Account;
use super::options::HeaderUnit;
use super::refusal::BAD_GATEWAY_PAGE;
use super::refusal::Refusal;
use super::reply::Ending;
use super::reply::Frame;
use super::truth::Dialect;
use super::truth::End;
use super::truth::TruthRecord;
use super::truth::Verdict;
use crate::usage::Dimensions;
use crate::usage::Tokens;

/// The connection that a request came on.
#[derive(Clone, Debug)]
pub(super) struct Line {
    pub(super) number: u64,
    /// Set before the connection closes, it is reset instead.
    pub(super) reset: Arc<AtomicBool>,
}

/// Unix seconds at which the simulated world starts; answers carry it plus the time since the start.
const EPOCH: u64 = 1_790_000_000;

/// How much slower a slow answer decodes (live: five to six times).
const SLOWNESS: f64 = 5.0;

/// How much faster Fast pools decode (Fireworks docs: 100 tokens per second and more).
const FAST_POOL: f64 = 2.5;

/// Answers one request. An error closes the connection without an answer.
pub(super) async fn answer(
    engine: Arc<Engine>,
    line: Line,
    request: Request<Incoming>,
) -> io::Result<Response<Reply>> {
    let (head, body) = request.into_parts();
    let read = Limited::new(body, engine.options.max_body).collect().await;
    let number = engine.next_number();
    let visit = Visit {
        luck: engine.luck(number),
        exchange: Exchange::new(engine.clone(), record(&engine, number, &head)),
        dialect: dialect(&head),
        engine,
        line,
    };
    match read {
        Ok(body) => visit.serve(&head, body.to_bytes()).await,
        Err(error) if error.is::<LengthLimitError>() => {
            Ok(visit.refuse(&Refusal::TooLarge, Verdict::Invalid))
        }
        Err(error) => Err(io::Error::other(error)),
    }
}

fn dialect(head: &Parts) -> Dialect {
    let path = head.uri.path().trim_end_matches('/');
    if head.method != Method::POST {
        Dialect::Other
    } else if path.ends_with("/chat/completions") {
        Dialect::Chat
    } else if path.ends_with("/messages") {
        Dialect::Messages
    } else if path.ends_with("/responses") {
        Dialect::Responses
    } else {
        Dialect::Other
    }
}

fn record(engine: &Engine, number: u64, head: &Parts) -> TruthRecord {
    let mut headers: Vec<String> = head.headers.keys().map(ToString::to_string).collect();
    headers.sort_unstable();
    let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
    let arrival = engine.elapsed();
    TruthRecord {
        number,
        arrival,
        ended: arrival,
        path: format!("{} {path}", head.method),
        dialect: dialect(head),
        model: String::new(),
        stream: false,
        session: None,
        status: 0,
        gateway: 0,
        replica: 0,
        tokens: Tokens::default(),
        limits: Dimensions::default(),
        used: Dimensions::default(),
        verdict: Verdict::Free,
        ttft: None,
        end: End::ClientGone,
        fault: None,
        credentials: ["authorization", "x-api-key"]
            .into_iter()
            .filter(|name| head.headers.contains_key(*name))
            .map(str::to_owned)
            .collect(),
        leaked: headers.iter().any(|name| name.starts_with("x-kimiq-")),
        headers,
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "token counts that become durations"
)]
fn approximate(tokens: u64) -> f64 {
    tokens as f64
}

fn seconds(value: f64) -> HeaderValue {
    HeaderValue::from_str(&format!("{value:.3}")).unwrap_or(HeaderValue::from_static("0"))
}

fn number_in(headers: &HeaderMap, name: &str) -> Option<u64> {
    headers.get(name)?.to_str().ok()?.trim().parse().ok()
}

/// One request on its way.
struct Visit {
    engine: Arc<Engine>,
    line: Line,
    luck: fastrand::Rng,
    dialect: Dialect,
    exchange: Exchange,
}

impl Visit {
    async fn serve(mut self, head: &Parts, body: Bytes) -> io::Result<Response<Reply>> {
        if self.dialect == Dialect::Other {
            return Ok(self.side_path(head));
        }
        let declared_prompt = number_in(&head.headers, declared::PROMPT_TOKENS);
        let declared_cached = number_in(&head.headers, declared::CACHED_TOKENS);
        let declared_output = number_in(&head.headers, declared::OUTPUT_TOKENS);
        let block = self.engine.options.cache_block;
        let uncounted = declared_prompt.is_some() && (declared_cached.is_some() || block == 0);
        let marked = memchr::memmem::find(&body, MARKER.as_bytes()).is_some();
        let depth = Depth {
            prompt: (!uncounted).then_some(block),
            talk: declared_output.is_none() || marked,
        };
        let ask = match Ask::read(self.dialect, &body, depth) {
            Ok(ask) => ask,
            Err(reason) => return Ok(self.refuse(&Refusal::Invalid(reason), Verdict::Invalid)),
        };
        let prompt = declared_prompt.unwrap_or(ask.prompt);
        self.place(head, &ask);

        let fault = match self.fault(head, &ask, &body) {
            Ok(fault) => fault,
            Err(reason) => return Ok(self.refuse(&Refusal::Invalid(reason), Verdict::Invalid)),
        };
        self.exchange.record.fault = fault.map(|fault| fault.to_string());
        if let Some(replaced) = fault.and_then(Replaced::by) {
            return self.replace(replaced).await;
        }
        if let Some((refusal, verdict)) = self.turned_away(&ask) {
            self.dawdle().await;
            return Ok(self.refuse(&refusal, verdict));
        }
        let (admitted, full) = self.engine.admit(&Need {
            model: &ask.model,
            prompt,
            declared: declared_prompt.is_some(),
            declared_cached,
            blocks: &ask.blocks,
            cap: ask.cap,
            gateway: self.exchange.record.gateway,
            replica: self.exchange.record.replica,
        });
        self.exchange.record.limits = admitted.view.limits;
        self.exchange.record.used = admitted.view.used;
        if let Some(metric) = full {
            self.dawdle().await;
            return Ok(self.refuse(
                &Refusal::Throttled,
                match metric {
                    Metric::Prompt => Verdict::Prompt,
                    Metric::Uncached => Verdict::Uncached,
                    Metric::Generated => Verdict::Generated,
                },
            ));
        }
        self.exchange.admitted(admitted, prompt, ask.blocks.clone());
        let said = match declared_output {
            Some(tokens) => Answer::of_length(tokens),
            None => agent::answer(&ask.talk, ask.thinks, self.engine.options.commands),
        };
        Ok(self.speak(ask, &said, fault).await)
    }

    /// Chooses gateway and replica, and notes what the record needs of the request.
    fn place(&mut self, head: &Parts, ask: &Ask) {
        let options = &self.engine.options;
        let gateway = self.luck.usize(..self.engine.gateways());
        let replica = self.luck.usize(..self.engine.replicas());
        let header = |name: &str| head.headers.get(name)?.to_str().ok().map(str::to_owned);
        let record = &mut self.exchange.record;
        record.model.clone_from(&ask.model);
        record.stream = ask.stream;
        record.session = ask.session.clone().or_else(|| header("x-session-affinity"));
        record.gateway = if options.sticky_gateway {
            self.engine
                .luck(u64::MAX - self.line.number)
                .usize(..self.engine.gateways())
        } else {
            gateway
        };
        record.replica = match &record.session {
            Some(session) => {
                let seed = session.bytes().fold(0_u64, |sum, byte| {
                    sum.wrapping_mul(31).wrapping_add(byte.into())
                });
                self.engine.luck(seed).usize(..self.engine.replicas())
            }
            None => replica,
        };
    }

    /// The fault to happen: asked for by header, by the newest text, or drawn.
    fn fault(&mut self, head: &Parts, ask: &Ask, body: &Bytes) -> Result<Option<Fault>, String> {
        let asked = match head.headers.get(declared::FAULT) {
            Some(value) => {
                let wish: Wish = value
                    .to_str()
                    .unwrap_or_default()
                    .trim()
                    .parse()
                    .map_err(|e| format!("{e}"))?;
                Some(wish)
            }
            None => Wish::marked(&ask.talk.typed),
        };
        if let Some(wish) = asked {
            let typed = &ask.talk.typed;
            let granted = if typed.is_empty() {
                self.engine.grant(wish, (&ask.session, body))
            } else {
                self.engine.grant(wish, (&ask.session, typed))
            };
            return Ok(granted.then_some(wish.fault));
        }
        let chances = self.engine.options.faults.iter();
        Ok(chances
            .filter(|(_, chance)| self.luck.f64() < *chance)
            .map(|(fault, _)| *fault)
            .next())
    }

    /// What the account and the load say before any budget is asked.
    fn turned_away(&mut self, ask: &Ask) -> Option<(Refusal, Verdict)> {
        let options = &self.engine.options;
        if options.require_key && self.exchange.record.credentials.is_empty() {
            return Some((Refusal::NoKey, Verdict::Invalid));
        }
        match options.account {
            Account::Active => {}
            Account::Spent => return Some((Refusal::Spent, Verdict::Invalid)),
            Account::Suspended => return Some((Refusal::Suspended, Verdict::Invalid)),
        }
        if !self.engine.count_request() {
            return Some((Refusal::Throttled, Verdict::Requests));
        }
        let shed = self.engine.shed() * if ask.priority { 0.25 } else { 1.0 };
        (self.luck.f64() < shed).then_some((
            Refusal::Shed {
                as_529: options.shed_as_529,
            },
            Verdict::Shed,
        ))
    }

    /// Refusals take their time.
    async fn dawdle(&mut self) {
        let most = self.engine.options.refusal_delay.as_secs_f64();
        if most > 0.0 {
            let share = 0.5 + 0.5 * self.luck.f64();
            tokio::time::sleep(self.engine.real(most * share)).await;
        }
    }

    async fn replace(mut self, replaced: Replaced) -> io::Result<Response<Reply>> {
        match replaced {
            Replaced::Closed => {
                self.exchange.record.verdict = Verdict::Fault;
                self.exchange.finish(End::Fault);
                Err(io::Error::new(
                    io::ErrorKind::ConnectionAborted,
                    "fault on demand",
                ))
            }
            Replaced::Silence => {
                self.exchange.record.verdict = Verdict::Fault;
                std::future::pending().await
            }
            Replaced::Page => {
                self.exchange.record.verdict = Verdict::Fault;
                Ok(self.send(
                    StatusCode::BAD_GATEWAY,
                    "text/html",
                    BAD_GATEWAY_PAGE.to_owned(),
                ))
            }
            Replaced::Refused(refusal) => {
                self.dawdle().await;
                Ok(self.refuse(&refusal, Verdict::Fault))
            }
        }
    }

    /// Waits for the first token and starts the answer.
    async fn speak(mut self, ask: Ask, said: &Answer, fault: Option<Fault>) -> Response<Reply> {
        let said = said.clone().within(ask.cap);
        let options = &self.engine.options;
        let prefill = if options.prefill_pace > 0.0 {
            approximate(self.exchange.record.tokens.uncached()) / options.prefill_pace
        } else {
            0.0
        };
        let first_token = options.first_token.as_secs_f64() + prefill;
        let pace = self.seconds_per_token(&ask.model);
        let tokens = Tokens {
            generated: said.tokens(),
            reasoning: said.reasoning_tokens(),
            ..self.exchange.record.tokens
        };
        let whole_time = first_token
            + if ask.stream {
                0.0
            } else {
                pace * approximate(tokens.generated)
            };
        if whole_time > 0.0 {
            tokio::time::sleep(self.engine.real(whole_time)).await;
        }
        // What the gateway believes before this answer counts: it decides which headers go out.
        let view = self.engine.view(&ask.model, self.exchange.record.gateway);
        self.exchange.first_token();
        if self.dialect == Dialect::Responses {
            self.exchange.reasoning = tokens.reasoning;
        }
        let server_time = self.exchange.record.ttft.unwrap_or_default();
        let frame = Frame {
            dialect: self.dialect,
            id: format!("sim{:016x}", self.luck.u64(..)),
            model: ask.model,
            created: EPOCH + Duration::try_from_secs_f64(self.exchange.record.arrival).unwrap_or_default().as_secs(),
            tokens,
            usage: self.engine.options.usage,
            perf: ask.perf_metrics.then(|| {
                json!({
                    "prompt-tokens": tokens.prompt, "cached-prompt-tokens": tokens.cached,
                    "server-time-to-first-token": server_time, "server-processing-time": server_time,
                })
            }),
            calls_before: ask.talk.calls,
            event_tokens: self.engine.options.event_tokens,
        };
        let garbled = match fault {
            Some(Fault::Garbled(way)) => Some(way.script(&said, frame.calls_before)),
            _ => None,
        };
        self.exchange.record.status = 200;
        let reset = self.line.reset.clone();
        let (body, kind) = if ask.stream {
            let options = &self.engine.options;
            let events = garbled
                .as_ref()
                .and_then(|script| garbled::stream(&frame, script));
            let events = events.unwrap_or_else(|| frame.stream(&said));
            let events = frame.dress(events, options.comments, options.crlf);
            let (events, ending) = frame.damage(events, fault);
            let chunk = options.chunk_bytes;
            let pace = self.engine.real(pace);
            (
                Reply::stream(events, ending, pace, reset, self.exchange).in_chunks(chunk),
                "text/event-stream",
            )
        } else {
            let text = garbled
                .as_ref()
                .and_then(|script| garbled::document(&frame, script));
            let mut text = text.unwrap_or_else(|| frame.document(&said).to_string());
            let ending = match fault {
                Some(Fault::ErrorEvent) => return self.refuse(&Refusal::Broken, Verdict::Admitted),
                Some(Fault::Truncate | Fault::BrokenChunk) => {
                    text.truncate(text.floor_char_boundary(text.len() / 2));
                    Ending::Clean
                }
                Some(Fault::Stall) => Ending::Hang,
                Some(Fault::Cut | Fault::CutAfter(_)) => Ending::Break,
                Some(Fault::Reset) => Ending::Reset,
                _ => Ending::Clean,
            };
            (
                Reply::whole(text, tokens.generated, ending, reset, self.exchange),
                "application/json",
            )
        };
        let mut response = Response::new(body);
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        budget_headers(headers, &view, self.engine.header_unit(), view.completions);
        headers.insert("fireworks-server-time-to-first-token", seconds(server_time));
        if !ask.stream {
            headers.insert("fireworks-prompt-tokens", tokens.prompt.into());
            headers.insert("fireworks-cached-prompt-tokens", tokens.cached.into());
            headers.insert("fireworks-server-processing-time", seconds(server_time));
        }
        response
    }

    /// Simulated seconds per generated token of this answer; 0 writes at once.
    fn seconds_per_token(&mut self, model: &str) -> f64 {
        let options = &self.engine.options;
        let (share, slow) = (self.luck.f64(), self.luck.f64() < options.slow_share);
        if options.decode_pace <= 0.0 {
            return 0.0;
        }
        let fast =
            model.contains("/routers/") || model.ends_with("-fast") || model.ends_with("-turbo");
        let pace = options.decode_pace * (0.6 + 0.8 * share) * if fast { FAST_POOL } else { 1.0 };
        if slow { SLOWNESS / pace } else { 1.0 / pace }
    }

    /// The paths that cost no tokens.
    fn side_path(self, head: &Parts) -> Response<Reply> {
        let path = head.uri.path().trim_end_matches('/');
        let is = |name: &str| head.method == Method::GET && path.ends_with(name);
        let body = if is("/models") {
            let model = |id: &String| json!({"id": id, "object": "model", "created": EPOCH, "owned_by": "simulator", "context_length": 262_144});
            json!({"object": "list", "data": self.engine.options.models.iter().map(model).collect::<Vec<_>>()})
        } else if is("/usages") {
            // Field names as Kimi Code 2.1.0 reads them.
            let part = json!({"used_ratio": 0.1, "reset_time": "2030-01-01T00:00:00Z"});
            json!({"usages": {
                "limit_5h": part, "limit_7d": part, "limit_month_total": part, "limit_month_code": part,
            }})
        } else if is("/me") {
            json!({"id": "simulated-user", "name": "Simulated User"})
        } else {
            return self.refuse(&Refusal::NotFound, Verdict::Free);
        };
        self.send(StatusCode::OK, "application/json", body.to_string())
    }

    fn refuse(mut self, refusal: &Refusal, verdict: Verdict) -> Response<Reply> {
        let (status, body): (StatusCode, Value) = refusal.render(self.dialect);
        self.exchange.record.verdict = verdict;
        let throttled = *refusal == Refusal::Throttled;
        let view = self.engine.view_if(throttled, &self.exchange.record);
        let unit = self.engine.header_unit();
        let mut response = self.send(status, "application/json", body.to_string());
        if let Some(view) = view {
            budget_headers(response.headers_mut(), &view, unit, true);
        }
        response
    }

    fn send(mut self, status: StatusCode, kind: &'static str, body: String) -> Response<Reply> {
        self.exchange.record.status = status.as_u16();
        let reply = Reply::whole(body, 0, Ending::Clean, self.line.reset, self.exchange);
        let mut response = Response::new(reply);
        *response.status_mut() = status;
        response
            .headers_mut()
            .insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        response
    }
}

impl Engine {
    /// The view for a refusal that tells about the budgets.
    fn view_if(&self, throttled: bool, record: &TruthRecord) -> Option<View> {
        (throttled && !record.model.is_empty()).then(|| self.view(&record.model, record.gateway))
    }
}

/// What a fault puts in the place of an answer.
enum Replaced {
    Closed,
    Silence,
    Page,
    Refused(Refusal),
}

impl Replaced {
    fn by(fault: Fault) -> Option<Self> {
        match fault {
            Fault::Drop => Some(Self::Closed),
            Fault::Silent => Some(Self::Silence),
            Fault::Html502 => Some(Self::Page),
            Fault::Throttled => Some(Self::Refused(Refusal::Throttled)),
            Fault::Shed => Some(Self::Refused(Refusal::Shed { as_529: false })),
            _ => None,
        }
    }
}

/// The limit and remaining headers. A gateway that has seen no answer end tells about the total prompt only, as live
/// answers do.
fn budget_headers(headers: &mut HeaderMap, view: &View, unit: HeaderUnit, all: bool) {
    const NAMES: [(&str, &str); 3] = [
        (
            "x-ratelimit-limit-tokens-prompt",
            "x-ratelimit-remaining-tokens-prompt",
        ),
        (
            "x-ratelimit-limit-tokens-cache-adjusted-prompt",
            "x-ratelimit-remaining-tokens-cache-adjusted-prompt",
        ),
        (
            "x-ratelimit-limit-tokens-generated",
            "x-ratelimit-remaining-tokens-generated",
        ),
    ];
    let divisor = match unit {
        HeaderUnit::Minute => 1,
        HeaderUnit::Second => 60,
    };
    for (metric, (limit_name, remaining_name)) in Metric::ALL.into_iter().zip(NAMES) {
        if all || metric == Metric::Prompt {
            let limit = *metric.of(&view.limits);
            let remaining = limit.saturating_sub(*metric.of(&view.used));
            headers.insert(limit_name, (limit / divisor).into());
            headers.insert(remaining_name, (remaining / divisor).into());
        }
    }
    headers.insert("x-ratelimit-over-limit", HeaderValue::from_static("no"));
}
