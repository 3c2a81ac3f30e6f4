//! How a client is ended so that its session can be resumed (measured on Kimi Code 2.1.0).
pub const INTERRUPT: &[u8] = b"\x03"; pub const RESTORE: &str = "\x1b[?25h\x1b[?2004l\x1b[<u\x1b[>4;0m\x1b[?1004l\x1b[?2031l\x1b[?2026l";
pub fn resume_command(session: &str) -> String;
pub fn session_of_cache_key(..) -> Option<String>;
