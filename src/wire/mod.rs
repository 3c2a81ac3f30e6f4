//! The dialects: bytes in, bytes out.
//!
//! A client and an upstream that speak the same dialect exchange their bytes untouched; this room only looks at them
//! as they pass. Two lookers exist, both incremental and both free of copies on their usual path: [`Scan`] reads a
//! request body chunk by chunk as it arrives and finds the few facts that admission needs, [`Tap`] stands beside an
//! answer and finds its usage and whether it came to its end.
//!
//! Invariant: a looker never changes, holds or delays a byte, and never fails; what it does not understand it
//! reports as unknown. What it keeps is bounded whatever arrives.
//!
//! It knows neither sockets nor clocks nor HTTP.

mod json;
mod report;
mod sample;
mod scan;
mod sse;
mod tap;

pub use scan::{Facts, Scan, Turn};
pub use tap::{Ending, Tap};

/// The three forms in which a model is asked and answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// `OpenAI` chat completions.
    Chat,
    /// Anthropic messages.
    Messages,
    /// `OpenAI` responses.
    Responses,
}

impl Dialect {
    /// The dialect of a `POST` to this path, if it is model traffic. Prefixes differ per upstream, so only the end
    /// of the path counts.
    pub fn of_path(path: &str) -> Option<Self> {
        let path = path.trim_end_matches('/');
        if path.ends_with("/chat/completions") {
            Some(Self::Chat)
        } else if path.ends_with("/messages") {
            Some(Self::Messages)
        } else if path.ends_with("/responses") {
            Some(Self::Responses)
        } else {
            None
        }
    }

    /// The name used in logs and listings.
    pub fn name(self) -> &'static str {
        match self {
            Self::Chat => "chat",
            Self::Messages => "messages",
            Self::Responses => "responses",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Dialect;

    #[test]
    fn the_end_of_a_path_tells_the_dialect() {
        for (path, expected) in [
            ("/v1/chat/completions", Some(Dialect::Chat)),
            ("/chat/completions/", Some(Dialect::Chat)),
            ("/inference/v1/messages", Some(Dialect::Messages)),
            ("/v1/messages/count_tokens", None),
            ("/v1/responses", Some(Dialect::Responses)),
            ("/v1/responses/resp_1", None),
            ("/v1/models", None),
            ("/files", None),
        ] {
            assert_eq!(Dialect::of_path(path), expected, "{path}");
        }
    }
}
