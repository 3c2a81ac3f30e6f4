//! How a client is ended so that its session can be resumed, and how a session is found again.
//!
//! Measured on Kimi Code 2.1.0: Ctrl-C stops a turn, closes a panel or empties the editor, and Ctrl-D twice then ends it
//! with code 0, its modes restored and a resume hint printed. Ctrl-C alone, however often, only interrupts when it comes
//! too fast; Ctrl-D alone does nothing beside a text or a panel. SIGHUP ends it with code 129 and modes restored;
//! SIGTERM and SIGINT kill it and leave the terminal's modes as they were. After SIGKILL a session still resumes, without
//! the answer that was streaming.

use std::time::Duration;

use crate::kimi::home::Kind;

/// What to type, and how long each may take to have its effect.
pub const FAREWELLS: [(&[u8], Duration); 2] = [
    (b"\x03", Duration::from_millis(300)),
    (b"\x04\x04", Duration::from_secs(3)),
];

/// The session in the hint that the client prints when it leaves, last one first.
pub fn session_in_farewell(screen: &str) -> Option<&str> {
    let (_, rest) = screen.rsplit_once("kimi -r ")?;
    let id = rest
        .split(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == '-'))
        .next()?;
    (!id.is_empty()).then_some(id)
}

/// True for what a request of the client names its session by (`prompt_cache_key`, `metadata.user_id`): Kimi Code's are
/// `session_<uuid>`, kimi-cli's a bare UUID.
pub fn is_session(kind: Kind, id: &str) -> bool {
    let uuid = match kind {
        Kind::KimiCode => id.strip_prefix("session_"),
        Kind::KimiCli => Some(id),
    };
    uuid.is_some_and(|uuid| {
        uuid.len() == 36
            && uuid.bytes().enumerate().all(|(at, byte)| match at {
                8 | 13 | 18 | 23 => byte == b'-',
                _ => byte.is_ascii_hexdigit(),
            })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_found_in_what_the_client_says() {
        let said = "Bye!\r\n\r\nTo resume this session: kimi -r session_0a1b2c3d-0000-4000-8000-000000000000\x1b[0m\r\n";
        let id = session_in_farewell(said).unwrap();
        assert_eq!(id, "session_0a1b2c3d-0000-4000-8000-000000000000");
        assert!(is_session(Kind::KimiCode, id));
        assert!(!is_session(Kind::KimiCli, id));
        assert!(!is_session(Kind::KimiCode, "session_x"));
        assert_eq!(session_in_farewell("nothing"), None);
    }
}
