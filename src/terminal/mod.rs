//! One PTY with one program and its emulated screen.
