//! An upstream to try and to test against.
