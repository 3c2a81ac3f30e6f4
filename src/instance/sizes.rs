//! Which size each terminal of a run has, when windows of several sizes show it.
//!
//! A terminal has the size of the window that shows it; of several, of the one that was used last. One that nobody shows
//! has the size of the window that was used last at all, so that it fits when it comes to the front there. Pure.

use crate::terminal::Id;
use crate::terminal::Size;

/// The windows of a run.
#[derive(Clone, Debug)]
pub(crate) struct Sizes {
    /// Where no window is.
    usual: Size,
    /// The one that was used last comes last.
    windows: Vec<Shown>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Shown {
    window: Id,
    size: Size,
    front: Option<Id>,
}

impl Sizes {
    pub(crate) fn new(usual: Size) -> Self {
        Self {
            usual,
            windows: Vec::new(),
        }
    }

    /// A window gives terminals this size and has this one in front; `used`: its user did something. Returns whether sizes
    /// may have changed.
    pub(crate) fn shows(&mut self, window: Id, size: Size, front: Option<Id>, used: bool) -> bool {
        let now = Shown {
            window,
            size,
            front,
        };
        let at = self.windows.iter().position(|known| known.window == window);
        match at {
            Some(at) if used && at + 1 < self.windows.len() => {
                self.windows.remove(at);
                self.windows.push(now);
            }
            Some(at) if self.windows[at] == now => return false,
            Some(at) => self.windows[at] = now,
            None => self.windows.push(now),
        }
        self.usual = self.windows.last().map_or(self.usual, |last| last.size);
        true
    }

    /// A window is gone.
    pub(crate) fn leaves(&mut self, window: Id) {
        self.windows.retain(|known| known.window != window);
        self.usual = self.windows.last().map_or(self.usual, |last| last.size);
    }

    /// The size of a terminal.
    pub(crate) fn of(&self, terminal: Id) -> Size {
        let shown = self.windows.iter().rev();
        let mut shown = shown.filter(|window| window.front == Some(terminal));
        shown.next().map_or(self.usual, |window| window.size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_has_the_size_of_who_shows_it_now() {
        let size = |columns| Size { columns, rows: 20 };
        let (large, small) = (Id(1), Id(2));
        let mut sizes = Sizes::new(size(80));
        let check = |sizes: &Sizes, expected: [u16; 3]| {
            let found = [103, 105, 109].map(|id| sizes.of(Id(id)).columns);
            assert_eq!(found, expected, "{sizes:?}");
        };
        check(&sizes, [80, 80, 80]);
        assert!(sizes.shows(large, size(110), Some(Id(103)), true));
        check(&sizes, [110, 110, 110]);
        assert!(!sizes.shows(large, size(110), Some(Id(103)), true));
        // A small one comes and shows the same.
        sizes.shows(small, size(60), Some(Id(103)), true);
        check(&sizes, [60, 60, 60]);
        // It turns to another.
        sizes.shows(small, size(60), Some(Id(105)), true);
        check(&sizes, [110, 60, 60]);
        sizes.shows(large, size(110), Some(Id(105)), false);
        check(&sizes, [60, 60, 60]);
        // Somebody types in the large one.
        sizes.shows(large, size(110), Some(Id(105)), true);
        check(&sizes, [110, 110, 110]);
        sizes.shows(small, size(60), Some(Id(105)), true);
        sizes.leaves(small);
        check(&sizes, [110, 110, 110]);
        sizes.leaves(large);
        check(&sizes, [110, 110, 110]);
    }
}
