//! (private)
