//! The client's `tui.toml` with our footer line in it.
//!
//! Kimi Code 2.1.0 rewrites the whole file, with every default spelled out, when a user changes the theme or a setting, and
//! it does so in place: a reader may see half of it. So removals are never carried back, and it is read only at the start
//! and at the end of a host.

use toml_edit::{Item, Table, TableLike, value};

use crate::kimi::document::{DocumentError, parse, with_line_ends_of};
use crate::kimi::merge;

/// The user's own footer command, if there is one.
pub(super) fn status_command(user: &str) -> Result<Option<String>, DocumentError> {
    let document = parse(user, "client's tui.toml")?;
    let command = document
        .get("status_line")
        .and_then(|line| line.get("command"))
        .and_then(Item::as_str);
    Ok(command
        .map(str::to_owned)
        .filter(|command| !command.trim().is_empty()))
}

/// The user's file with what a shepherded terminal needs: our footer, no dialogs that block, and notifications that
/// come whether or not the terminal has the focus, because they tell its state.
pub(super) fn with_ours(user: &str, status: Option<&str>) -> Result<String, DocumentError> {
    let mut document = parse(user, "client's tui.toml")?;
    let root = document.as_table_mut();
    merge::put(root, "disable_feedback_survey", &value(true));
    merge::put(root, "cache_expiry_hint", &value(false));
    if let Some(notifications) = section(root, "notifications") {
        merge::put(notifications, "enabled", &value(true));
        merge::put(notifications, "notification_condition", &value("always"));
    }
    if let (Some(status), Some(line)) = (status, section(root, "status_line")) {
        merge::put(line, "command", &value(status));
    }
    Ok(document.to_string())
}

/// What a user changed inside a terminal, taken into the user's own file; `None` when nothing is to be written.
pub(super) fn carry_back(
    before: &str,
    after: &str,
    user_now: &str,
) -> Result<Option<String>, DocumentError> {
    let mut before = parse(before, "overlay's tui.toml as it was written")?;
    let after = parse(after, "overlay's tui.toml")?;
    let mut user = parse(user_now, "client's tui.toml")?;
    keep_common(before.as_table_mut(), after.as_table());
    Ok(
        merge::merge(before.as_table(), after.as_table(), user.as_table_mut())
            .then(|| with_line_ends_of(user_now, user.to_string())),
    )
}

fn section<'a>(root: &'a mut Table, name: &str) -> Option<&'a mut dyn TableLike> {
    root.entry(name)
        .or_insert_with(|| Item::Table(Table::new()))
        .as_table_like_mut()
}

/// Drops from `before` what `after` does not have, so that its absence is no change.
fn keep_common(before: &mut dyn TableLike, after: &dyn TableLike) {
    let keys: Vec<String> = before.iter().map(|(key, _)| key.to_owned()).collect();
    for key in keys {
        match (
            before.get_mut(&key).and_then(Item::as_table_like_mut),
            after.get(&key),
        ) {
            (_, None) => drop(before.remove(&key)),
            (Some(before), Some(after)) => {
                if let Some(after) = after.as_table_like() {
                    keep_common(before, after);
                }
            }
            (None, Some(_)) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_footer_goes_in_and_only_the_user_s_changes_come_back() {
        let user = "theme = \"dark\" # mine\n\n[status_line]\ncommand = \"mine.sh\"\n";
        let written = with_ours(user, Some("kimiq status")).unwrap();
        assert_eq!(status_command(user).unwrap().as_deref(), Some("mine.sh"));
        assert_eq!(
            status_command(&written).unwrap().as_deref(),
            Some("kimiq status")
        );
        assert_eq!(carry_back(&written, &written, user).unwrap(), None);

        // The client re-emits the file with all its defaults after `/theme`.
        let after = written.replace("\"dark\" # mine", "\"light\"") + "[editor]\ncommand = \"\"\n";
        let carried = carry_back(&written, &after, user).unwrap().unwrap();
        assert_eq!(
            carried,
            user.replace("dark", "light") + "\n[editor]\ncommand = \"\"\n"
        );

        // Half a file, seen while the client writes.
        assert_eq!(carry_back(&written, "", user).unwrap(), None);
    }
}
