//! The bodies of answers that are no answers, in the words of each dialect.
//!
//! Shapes are those of Fireworks: the 429 of the chat dialect as seen live, the Anthropic envelope as documented, the
//! rest after the same pattern. No refusal carries `Retry-After`; none was ever seen.

use http::StatusCode;
use serde_json::Value;
use serde_json::json;

use super::truth::Dialect;

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// A budget or the request limit is used up.
    Throttled,
    /// Load is shed; with the status to use in the Anthropic dialect.
    Shed { as_529: bool },
    /// The spending limit is passed.
    Spent,
    /// The account is suspended.
    Suspended,
    /// No credential came.
    NoKey,
    /// The request makes no sense, for the reason given.
    Invalid(String),
    /// The body is too large.
    TooLarge,
    /// Nothing is at this path.
    NotFound,
    /// The server failed.
    Broken,
}

impl Refusal {
    /// Status and body.
    pub(super) fn render(&self, dialect: Dialect) -> (StatusCode, Value) {
        let (status, kind, code, message) = self.words(dialect);
        let body = match (self, dialect) {
            // Failures before the dialect layer keep Fireworks' own form everywhere.
            (Self::NotFound, _) => {
                json!({"error": {"code": "NOT_FOUND", "message": message}, "request_id": "simulated"})
            }
            (_, Dialect::Messages) => {
                json!({"type": "error", "error": {"type": kind, "message": message}})
            }
            _ => {
                json!({"error": {"object": "error", "type": code, "code": code, "message": message}})
            }
        };
        (status, body)
    }

    /// Status, type in the Anthropic dialect, type and code in the others, message.
    fn words(&self, dialect: Dialect) -> (StatusCode, &'static str, &'static str, &str) {
        const INVALID: &str = "invalid_request_error";
        match self {
            Self::Throttled => (
                StatusCode::TOO_MANY_REQUESTS,
                "rate_limit_error",
                INVALID,
                "rate limit exceeded, please try again later",
            ),
            Self::Shed { as_529 } => {
                let status = match StatusCode::from_u16(529) {
                    Ok(status) if *as_529 && dialect == Dialect::Messages => status,
                    _ => StatusCode::SERVICE_UNAVAILABLE,
                };
                (
                    status,
                    "overloaded_error",
                    "service_unavailable",
                    "the service is overloaded, please try again later",
                )
            }
            Self::Spent => (
                StatusCode::PAYMENT_REQUIRED,
                "billing_error",
                "payment_required",
                "the spending limit of the account is reached",
            ),
            Self::Suspended => (
                StatusCode::PRECONDITION_FAILED,
                "permission_error",
                "precondition_failed",
                "the account is suspended",
            ),
            Self::NoKey => (
                StatusCode::UNAUTHORIZED,
                "authentication_error",
                "unauthorized",
                "the API key is missing",
            ),
            Self::Invalid(message) => (StatusCode::BAD_REQUEST, INVALID, INVALID, message),
            Self::TooLarge => (
                StatusCode::PAYLOAD_TOO_LARGE,
                "request_too_large",
                INVALID,
                "the request is too large",
            ),
            Self::NotFound => (
                StatusCode::NOT_FOUND,
                "not_found_error",
                INVALID,
                "the path was not found",
            ),
            Self::Broken => (
                StatusCode::INTERNAL_SERVER_ERROR,
                "api_error",
                "server_error",
                "simulated failure",
            ),
        }
    }
}

/// What a gateway in front of the service sends when it cannot reach it.
pub(super) const BAD_GATEWAY_PAGE: &str = "<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body>\r\n\
    <center><h1>502 Bad Gateway</h1></center>\r\n<hr><center>nginx</center>\r\n</body>\r\n</html>\r\n";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_dialect_has_its_shape() {
        let check = |refusal: Refusal, dialect, status, body: Value| {
            let (got, told) = refusal.render(dialect);
            assert_eq!(
                (got.as_u16(), told),
                (status, body),
                "{refusal:?} {dialect:?}"
            );
        };
        check(
            Refusal::Throttled,
            Dialect::Chat,
            429,
            json!({"error": {
                "object": "error", "type": "invalid_request_error", "code": "invalid_request_error",
                "message": "rate limit exceeded, please try again later",
            }}),
        );
        check(
            Refusal::Throttled,
            Dialect::Messages,
            429,
            json!({"type": "error", "error": {
                "type": "rate_limit_error", "message": "rate limit exceeded, please try again later",
            }}),
        );
        let status = |refusal: Refusal, dialect| refusal.render(dialect).0.as_u16();
        assert_eq!(
            status(Refusal::Shed { as_529: true }, Dialect::Messages),
            529
        );
        assert_eq!(status(Refusal::Shed { as_529: true }, Dialect::Chat), 503);
        assert_eq!(
            status(Refusal::Shed { as_529: false }, Dialect::Messages),
            503
        );
        assert_eq!(
            Refusal::NotFound.render(Dialect::Messages).1["error"]["code"],
            "NOT_FOUND"
        );
    }
}
