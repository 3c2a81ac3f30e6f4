//! Usage as upstreams report it, in every place where they are known to put it.
//!
//! Chat: `usage` of the last chunk, of a following chunk without choices, or inside a choice (Moonshot); cached tokens
//! in `prompt_tokens_details.cached_tokens` or, first, at the top level (Moonshot); `prompt_tokens` includes them.
//! Messages: `message_start` and `message_delta`, later values win; `input_tokens` excludes what the cache read or
//! wrote, and Fireworks sends zeros at the start. Responses: `response.usage` of the last event.

use serde::Deserialize;

use crate::usage::Tokens;
use crate::wire::Dialect;

/// The usage object of any dialect; absent members are unknown.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
pub(super) struct Usage {
    prompt_tokens: Option<u64>,
    completion_tokens: Option<u64>,
    cached_tokens: Option<u64>,
    prompt_tokens_details: Option<Details>,
    completion_tokens_details: Option<Details>,
    input_tokens: Option<u64>,
    output_tokens: Option<u64>,
    cache_read_input_tokens: Option<u64>,
    cache_creation_input_tokens: Option<u64>,
    input_tokens_details: Option<Details>,
    output_tokens_details: Option<Details>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
struct Details {
    cached_tokens: Option<u64>,
    reasoning_tokens: Option<u64>,
}

impl Usage {
    /// Takes over what a later report says; a later zero does not undo an earlier count of the input.
    pub(super) fn update(&mut self, later: Self) {
        let keep_largest = |old: Option<u64>, new: Option<u64>| new.max(old);
        self.prompt_tokens = keep_largest(self.prompt_tokens, later.prompt_tokens);
        self.completion_tokens = keep_largest(self.completion_tokens, later.completion_tokens);
        self.cached_tokens = keep_largest(self.cached_tokens, later.cached_tokens);
        self.input_tokens = keep_largest(self.input_tokens, later.input_tokens);
        self.output_tokens = keep_largest(self.output_tokens, later.output_tokens);
        self.cache_read_input_tokens =
            keep_largest(self.cache_read_input_tokens, later.cache_read_input_tokens);
        self.cache_creation_input_tokens = keep_largest(
            self.cache_creation_input_tokens,
            later.cache_creation_input_tokens,
        );
        self.prompt_tokens_details = later.prompt_tokens_details.or(self.prompt_tokens_details);
        self.completion_tokens_details = later
            .completion_tokens_details
            .or(self.completion_tokens_details);
        self.input_tokens_details = later.input_tokens_details.or(self.input_tokens_details);
        self.output_tokens_details = later.output_tokens_details.or(self.output_tokens_details);
    }

    /// The tokens, with `prompt` including the cached part; `None` while input or output is unknown.
    pub(super) fn tokens(&self, dialect: Dialect) -> Option<Tokens> {
        let cached = |details: Option<Details>| details.and_then(|it| it.cached_tokens);
        let reasoning =
            |details: Option<Details>| details.and_then(|it| it.reasoning_tokens).unwrap_or(0);
        match dialect {
            Dialect::Chat => Some(Tokens {
                prompt: self.prompt_tokens?,
                cached: self
                    .cached_tokens
                    .or(cached(self.prompt_tokens_details))
                    .unwrap_or(0),
                generated: self.completion_tokens?,
                reasoning: reasoning(self.completion_tokens_details),
            }),
            Dialect::Messages => {
                let cached = self.cache_read_input_tokens.unwrap_or(0);
                Some(Tokens {
                    prompt: self.input_tokens?
                        + cached
                        + self.cache_creation_input_tokens.unwrap_or(0),
                    cached,
                    generated: self.output_tokens?,
                    reasoning: reasoning(self.output_tokens_details),
                })
            }
            Dialect::Responses => Some(Tokens {
                prompt: self.input_tokens?,
                cached: cached(self.input_tokens_details).unwrap_or(0),
                generated: self.output_tokens?,
                reasoning: reasoning(self.output_tokens_details),
            }),
        }
    }
}
