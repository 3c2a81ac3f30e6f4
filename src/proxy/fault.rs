//! Errors that kimiq itself answers with.
//!
//! The body has both shapes that the clients know, so that each of them shows the one short message (measured on Kimi
//! Code 2.1.0 with all four provider types, and on kimi-cli 1.51). The message avoids words by which the clients sort
//! errors into other classes.

use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, Response, StatusCode};
use serde_json::json;

use crate::limits::{Refusal, RefusalKind};

/// Tells that kimiq answered, and whose fault it was.
pub(super) const FAULT_HEADER: &str = "x-kimiq-fault";

/// Whose fault an error is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The asking client's.
    Client,
    /// The upstream's, or the network's on the way there.
    Upstream,
    /// A rule of kimiq: a budget, a cap, an ending.
    Kimiq,
}

impl Side {
    fn name(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Upstream => "upstream",
            Self::Kimiq => "kimiq",
        }
    }
}

/// An error on its way to the client.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Fault {
    /// Whose it is.
    pub side: Side,
    /// The status to answer with.
    pub status: StatusCode,
    /// The `type` of the error in the body.
    pub kind: &'static str,
    /// One short line for a person.
    pub message: String,
    /// Whole seconds after which a retry makes sense.
    pub retry_after: Option<u64>,
}

impl Fault {
    pub(super) fn client(
        status: StatusCode,
        kind: &'static str,
        message: impl Into<String>,
    ) -> Self {
        Self {
            side: Side::Client,
            status,
            kind,
            message: message.into(),
            retry_after: None,
        }
    }

    /// The upstream could not be reached, or failed in a way that the clients would take for final.
    pub(super) fn upstream(status: StatusCode, message: impl Into<String>) -> Self {
        Self {
            side: Side::Upstream,
            status,
            kind: "api_error",
            message: message.into(),
            retry_after: None,
        }
    }

    /// The answer, in the form that every client can show.
    pub(super) fn response(&self) -> Response<Vec<u8>> {
        let error = json!({"type": self.kind, "message": self.message});
        let body = json!({"type": "error", "error": error, "message": self.message});
        let mut response = Response::new(body.to_string().into_bytes());
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(FAULT_HEADER, HeaderValue::from_static(self.side.name()));
        if let Some(seconds) = self.retry_after {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

impl From<Refusal> for Fault {
    fn from(refusal: Refusal) -> Self {
        let status = match refusal.kind {
            RefusalKind::Queue { .. } | RefusalKind::Full => StatusCode::TOO_MANY_REQUESTS,
            // The clients retry 429 ten times but never 402, and a day is long.
            RefusalKind::Daily { .. } => StatusCode::PAYMENT_REQUIRED,
            RefusalKind::ShuttingDown => StatusCode::SERVICE_UNAVAILABLE,
        };
        Self {
            side: Side::Kimiq,
            status,
            kind: refusal.error_type(),
            message: refusal.message(),
            retry_after: Some(refusal.retry_after),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_body_has_both_shapes() {
        let fault = Fault {
            retry_after: Some(3),
            ..Fault::client(
                StatusCode::BAD_REQUEST,
                "invalid_request_error",
                "no \"model\"",
            )
        };
        let response = fault.response();
        let body: serde_json::Value = serde_json::from_slice(response.body()).unwrap();
        assert_eq!(body["type"], "error");
        assert_eq!(body["error"]["type"], "invalid_request_error");
        assert_eq!(body["error"]["message"], "no \"model\"");
        assert_eq!(body["message"], "no \"model\"");
        assert_eq!(response.headers()[FAULT_HEADER], "client");
        assert_eq!(response.headers()[RETRY_AFTER], "3");
    }
}
