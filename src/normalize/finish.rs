//! Why the model stopped, put right.
//!
//! Clients run tools only if the reason says so, and some fail an answer whose reason promises calls that are not
//! there. A limit or a filter is never hidden: what was cut must be seen to be cut.

use crate::normalize::event::Finish;

impl Finish {
    /// The reason that an answer with or without calls shall tell.
    #[must_use]
    pub(super) fn right(self, has_calls: bool) -> Self {
        match self {
            Self::Length | Self::ContentFilter => self,
            Self::Stop | Self::ToolCalls | Self::Missing if has_calls => Self::ToolCalls,
            Self::Other(word)
                if has_calls
                    && matches!(
                        word.as_str(),
                        "eos" | "end_turn" | "function_call" | "null" | ""
                    ) =>
            {
                Self::ToolCalls
            }
            Self::ToolCalls | Self::Missing => Self::Stop,
            other => other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_and_reasons_agree() {
        for (said, with_calls, without) in [
            ("stop", "tool_calls", "stop"),
            ("tool_calls", "tool_calls", "stop"),
            ("eos", "tool_calls", "eos"),
            ("end_turn", "tool_calls", "end_turn"),
            ("function_call", "tool_calls", "function_call"),
            ("length", "length", "length"),
            ("content_filter", "content_filter", "content_filter"),
            ("abort", "abort", "abort"),
        ] {
            assert_eq!(Finish::of_chat(said).right(true).chat(), with_calls);
            assert_eq!(Finish::of_chat(said).right(false).chat(), without);
        }
        assert_eq!(Finish::Missing.right(true), Finish::ToolCalls);
        assert_eq!(Finish::Missing.right(false), Finish::Stop);
    }
}
