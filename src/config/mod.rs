//! Settings: defaults, user file, environment and flags, resolved once, each value with its origin.
