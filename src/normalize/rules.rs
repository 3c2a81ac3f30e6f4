//! What the request says about how its answer is to be read.

use crate::normalize::names::Tools;

/// How an answer is to be read; what the request's reader found.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// The upstream's model is a Kimi; no other model's answer is touched.
    pub kimi: bool,
    /// The model is of the K3 family, whose markup is another.
    pub k3: bool,
    /// The declared tools.
    pub tools: Tools,
    /// The request forbids calls with `tool_choice: "none"`.
    pub forbids_calls: bool,
    /// A message of the request holds `<|tool_call`: the talk is about markers.
    pub mentions_markers: bool,
    /// A message of the request holds `think>`: the talk is about think tags.
    pub mentions_think: bool,
    /// The answer begins inside a think block whose open tag was in the prompt; a setting of the route.
    pub starts_in_reasoning: bool,
    /// Calls in the request's history; ids that must be made up go on from there.
    pub calls_before: u64,
}

impl Rules {
    /// Whether calls that are written as text may be read as calls.
    pub fn recovers_calls(&self) -> bool {
        self.kimi && !self.forbids_calls && !self.tools.is_empty()
    }
}
