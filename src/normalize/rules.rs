//! What the request says about how its answer is to be read.

use std::fmt;
use std::ops::Deref;
use std::sync::LazyLock;

use crate::normalize::names::Tools;

/// How an answer is to be read: what is known at once, and what the request's reader finds when somebody first asks.
/// Most answers are plain text, for which nobody does.
pub struct Rules {
    /// The upstream's model is a Kimi; no other model's answer is touched.
    pub kimi: bool,
    /// The model is of the K3 family, whose markup is another.
    pub k3: bool,
    /// The answer begins inside a think block whose open tag was in the prompt; a setting of the route.
    pub starts_in_reasoning: bool,
    /// The request declares tools.
    has_tools: bool,
    asked: LazyLock<Asked, Reader>,
}

type Reader = Box<dyn FnOnce() -> Asked + Send>;

/// What stands in the request's body.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    /// The declared tools.
    pub tools: Tools,
    /// The request forbids calls with `tool_choice: "none"`.
    pub forbids_calls: bool,
    /// A message of the request holds `<|tool_call`: the talk is about markers.
    pub mentions_markers: bool,
    /// A message of the request holds `think>`: the talk is about think tags.
    pub mentions_think: bool,
    /// Calls in the request's history; ids that must be made up go on from there.
    pub calls_before: u64,
}

impl Rules {
    /// What an upstream's model id tells: whether the model is a Kimi, and of which family. A request of which nothing
    /// more is known declares no tools.
    pub fn of_model(id: &str) -> Self {
        let names = |family: &str| {
            let mut parts = id.as_bytes().windows(family.len());
            parts.any(|part| part.eq_ignore_ascii_case(family.as_bytes()))
        };
        let kimi = names("kimi");
        Self {
            kimi,
            k3: kimi && (names("kimi-k3") || names("kimi_k3")),
            starts_in_reasoning: false,
            has_tools: false,
            asked: LazyLock::new(Box::new(Asked::default)),
        }
    }

    /// With what stands in the body.
    #[must_use]
    pub fn asking(self, asked: Asked) -> Self {
        Self {
            has_tools: !asked.tools.is_empty(),
            asked: LazyLock::new(Box::new(move || asked)),
            ..self
        }
    }

    /// With a reader of the body, which is called at most once. `has_tools`: the request declares some.
    #[must_use]
    pub fn reading(self, has_tools: bool, read: impl FnOnce() -> Asked + Send + 'static) -> Self {
        Self {
            has_tools,
            asked: LazyLock::new(Box::new(read)),
            ..self
        }
    }

    /// Whether calls that are written as text may be read as calls.
    pub fn recovers_calls(&self) -> bool {
        self.kimi && self.has_tools && !self.forbids_calls && !self.tools.is_empty()
    }
}

impl Deref for Rules {
    type Target = Asked;

    fn deref(&self) -> &Asked {
        &self.asked
    }
}

impl fmt::Debug for Rules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rules")
            .field("kimi", &self.kimi)
            .field("k3", &self.k3)
            .field("asked", &self.asked)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_tools_the_body_is_not_read() {
        let rules = Rules::of_model("kimi-k2.6").reading(false, || panic!());
        assert!(rules.kimi && !rules.recovers_calls());
        let rules = Rules::of_model("kimi-k2.6").reading(true, || Asked {
            tools: Tools::new([("a", None)]),
            ..Asked::default()
        });
        assert!(rules.recovers_calls());
    }
}
