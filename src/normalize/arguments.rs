//! Argument text repaired while it streams, only where one reading is left.

use crate::normalize::repairs::Repairs;

/// Repairs the argument text of one call.
#[derive(Clone, Debug, Default)]
pub struct Arguments {
    seen: bool,
}

impl Arguments {
    /// Takes the next part and appends what may go out to `out`.
    pub fn push(&mut self, text: &[u8], out: &mut Vec<u8>, _repairs: &mut Repairs) {
        self.seen |= !text.trim_ascii().is_empty();
        out.extend_from_slice(text);
    }

    /// The call is over: appends what is left.
    pub fn end(&mut self, out: &mut Vec<u8>, _repairs: &mut Repairs) {
        if !self.seen {
            out.extend_from_slice(b"{}");
        }
    }
}
