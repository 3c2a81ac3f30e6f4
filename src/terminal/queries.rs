//! What the emulator ignores and we need: signals to the outside, and questions that it does not answer.

/// Something the program told the terminal beside its picture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Signal {
    /// OSC 9;4: 0 none, 1 normal, 2 error, 3 busy without a measure, 4 paused.
    Progress(u8),
    /// OSC 9, 99 or 777: text without control characters.
    Notify(String),
    /// BEL.
    Bell,
    /// OSC 0 or 2; empty when the title was taken back.
    Title(String),
    /// OSC 133: `A` prompt, `B` input, `C` output, `D` end.
    PromptMark(char),
    /// OSC 7.
    Cwd(String),
    /// OSC 52: text that the program wants on the user's clipboard.
    Clipboard(String),
}
