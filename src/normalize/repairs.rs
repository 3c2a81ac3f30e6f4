//! What was repaired, counted.
//!
//! A kind is a stable word for one sort of damage, so that a user sees which provider garbles what. Kinds name what was
//! done and not where; their comments name the damage by the numbers under which it is described in the tests.

/// Counts by kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Repairs {
    counts: [u32; Kind::ALL.len()],
}

impl Repairs {
    /// Counts one repair.
    pub fn count(&mut self, kind: Kind) {
        let count = &mut self.counts[kind as usize];
        *count = count.saturating_add(1);
    }

    /// How often a kind was seen.
    pub fn of(&self, kind: Kind) -> u32 {
        self.counts[kind as usize]
    }

    /// The kinds that were seen, with their counts.
    pub fn seen(&self) -> impl Iterator<Item = (Kind, u32)> + '_ {
        Kind::ALL
            .iter()
            .map(|kind| (*kind, self.of(*kind)))
            .filter(|(_, count)| *count > 0)
    }

    /// Whether nothing was repaired.
    pub fn is_empty(&self) -> bool {
        self.counts.iter().all(|count| *count == 0)
    }

    /// Adds another's counts.
    pub fn add(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(other.counts) {
            *count = count.saturating_add(more);
        }
    }
}

macro_rules! kinds {
    ($($(#[$meta:meta])* $name:ident = $word:literal,)*) => {
        /// A sort of damage.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Kind { $($(#[$meta])* $name,)* }

        impl Kind {
            /// All kinds, in the order of their numbers.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The word for logs, listings and the ledger.
            pub fn name(self) -> &'static str {
                match self { $(Self::$name => $word,)* }
            }
        }
    };
}

kinds! {
    /// A call written as text in the content (K01-K10).
    CallInText = "call_in_text",
    /// A call whose beginning was lost, told by its argument marker alone (K11).
    HeadlessCall = "headless_call",
    /// A call written as text in the reasoning (K12).
    CallInReasoning = "call_in_reasoning",
    /// A call that was cut before its arguments or could not be named, and was dropped (K06, K10).
    CallDropped = "call_dropped",
    /// Thinking that came as content (K13).
    ThinkingInContent = "thinking_in_content",
    /// An answer that came as thinking (K13).
    ContentInThinking = "content_in_thinking",
    /// A tag that opens or closes nothing (K13).
    StrayTag = "stray_tag",
    /// Thinking in a field that clients do not read, or twice (K14).
    ReasoningField = "reasoning_field",
    /// Thinking without the signature that clients want to see before they send it back (6.4).
    Unsigned = "unsigned_thinking",
    /// A placeholder for no content before the answer (K15).
    Placeholder = "placeholder",
    /// Arguments that were empty, no text or encoded twice (K16).
    ArgumentsForm = "arguments_form",
    /// Raw control characters in arguments (K17).
    ControlCharacter = "control_character",
    /// Junk behind complete arguments (K17).
    TrailingJunk = "trailing_junk",
    /// Arguments that are broken JSON and passed as they came (K18).
    BrokenArguments = "broken_arguments",
    /// A finish reason that was wrong or missing (K20).
    FinishReason = "finish_reason",
    /// A tool's name in another form (K09, K21).
    Name = "name",
    /// A call that was named by its arguments (K10).
    NameInferred = "name_inferred",
    /// The parts of structured calls in disorder (K22).
    CallOrder = "call_order",
    /// A call that came twice (K23).
    CallTwice = "call_twice",
    /// Markers that belong to nothing (K24).
    OrphanMarker = "orphan_marker",
    /// Half characters that were joined over deltas (K28).
    HalfCharacter = "half_character",
    /// An answer without content and calls, which is passed as it is (K29).
    EmptyAnswer = "empty_answer",
    /// Markup of Kimi K3 in the text (K30).
    K3Markup = "k3_markup",
    /// An id that was missing, foreign or used twice (6.1).
    Id = "id",
    /// History of a request: ids, arguments or reasoning that upstreams stumble over (6.1, 6.3, 6.4).
    History = "history",
}
