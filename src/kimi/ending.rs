//! How a client is ended so that its session can be resumed, and how a session is found again.
//!
//! Measured on Kimi Code 2.1.0: Ctrl-C stops a turn, closes a panel or empties the editor, and Ctrl-D twice then ends it
//! with code 0, its modes restored and a resume hint printed. Ctrl-C alone, however often, only interrupts when it comes
//! too fast; Ctrl-D alone does nothing beside a text or a panel. SIGHUP ends it with code 129 and modes restored;
//! SIGTERM and SIGINT kill it and leave the terminal's modes as they were. After SIGKILL a session still resumes, without
//! the answer that was streaming.

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use crate::kimi::home::Kind;

/// What to type, and how long each may take to have its effect.
pub const FAREWELLS: [(&[u8], Duration); 2] = [
    (b"\x03", Duration::from_millis(300)),
    (b"\x04\x04", Duration::from_secs(3)),
];

/// Puts the user's terminal back, whatever way a client went: cursor, paste, keyboard, focus, colour and output modes.
pub const RESTORE: &str = "\x1b[?25h\x1b[?2004l\x1b[<u\x1b[>4;0m\x1b[?1004l\x1b[?2031l\x1b[?2026l";

/// The command that takes a session up again outside of kimiq, in the same working folder.
pub fn resume_command(session: &str) -> String {
    format!("kimi -r {session}")
}

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

/// One line of `kimi session list --json`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Session {
    /// What `-r` takes.
    pub id: String,
    /// The client's title for it.
    #[serde(default)]
    pub title: Option<String>,
    /// Where it must be resumed.
    #[serde(default)]
    pub work_dir: Option<PathBuf>,
    /// `completed`, `cancelled` or `failed`; missing when the client was killed.
    #[serde(default)]
    pub last_turn_reason: Option<String>,
}

/// Reads what `kimi session list --json` prints; unknown fields are left out.
///
/// # Errors
///
/// It is not that.
pub fn sessions(json: &str) -> Result<Vec<Session>, serde_json::Error> {
    serde_json::from_str(json)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_found_in_what_the_client_says() {
        let said = "Bye!\r\n\r\nTo resume this session: kimi -r session_0a1b2c3d-0000-4000-8000-000000000000\x1b[0m\r\n";
        let id = session_in_farewell(said).unwrap();
        assert_eq!(
            resume_command(id),
            "kimi -r session_0a1b2c3d-0000-4000-8000-000000000000"
        );
        assert!(is_session(Kind::KimiCode, id));
        assert!(!is_session(Kind::KimiCli, id));
        assert!(!is_session(Kind::KimiCode, "session_x"));
        assert_eq!(session_in_farewell("nothing"), None);
    }

    #[test]
    fn the_list_of_sessions_is_read() {
        let printed =
            r#"[{"id":"session_1","title":null,"lastPrompt":"x","workDir":"/w","updatedAt":1}]"#;
        let found = sessions(printed).unwrap();
        assert_eq!(
            (found[0].id.as_str(), found[0].work_dir.as_deref()),
            ("session_1", Some("/w".as_ref()))
        );
        assert!(sessions("[]").unwrap().is_empty());
    }
}
