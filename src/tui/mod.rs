//! The window around the terminals: state, update, view, keys.
