//! Call ids: the native form, the safe form, and the way between them.
//!
//! A Kimi model wants `functions.NAME:INDEX`, where INDEX counts the calls of the whole conversation: the id is the only
//! place where its prompt shows a tool's name in the history, and foreign ids teach it foreign ids. Anthropic and
//! Responses clients take letters, digits, `_` and `-` only (Anthropic's API: `^[a-zA-Z0-9_-]{1,64}$`), and Kimi Code 2.1.0
//! rewrites ids to that form by itself.
//!
//! All of it is stateless: an id's fate depends on what stands before it in the same answer or request, so that a prompt
//! keeps its prefix from turn to turn and the provider's cache goes on fitting.

use std::collections::BTreeSet;

use xxhash_rust::xxh3::xxh3_64;

use crate::normalize::repairs::{Kind, Repairs};

/// Longest id that clients of the safe form take (Anthropic's API).
const LONGEST_SAFE: usize = 64;

/// What stands before the name in a native id.
const PREFIX: &str = "functions.";

/// The id that a model knows a call by.
pub(super) fn native(name: &str, index: u64) -> String {
    format!("{PREFIX}{name}:{index}")
}

/// Name and index of an id in native form.
pub(super) fn canonical(id: &str) -> Option<(&str, u64)> {
    let (name, index) = id.strip_prefix(PREFIX)?.rsplit_once(':')?;
    let named = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    (!name.is_empty() && name.bytes().all(named))
        .then(|| number(index))
        .flatten()
        .map(|index| (name, index))
}

/// The id as clients of the safe form get it. One that is too long keeps its beginning and gets a hash.
pub fn safe(id: &str) -> String {
    let fit = |c: char| {
        if c.is_ascii_alphanumeric() || c == '-' {
            c
        } else {
            '_'
        }
    };
    let mut text: String = id.chars().map(fit).collect();
    if text.is_empty() {
        text.push('_');
    }
    if text.len() > LONGEST_SAFE {
        let mark = format!("_{:08x}", xxh3_64(id.as_bytes()) >> 32);
        text.truncate(LONGEST_SAFE - mark.len());
        text += &mark;
    }
    text
}

/// The index of a call of this name whose native id a client made safe; a mark of repetition (`__2`, Kimi Code
/// 2.1.0) behind it is looked over.
pub(super) fn index_of_safe(id: &str, name: &str) -> Option<u64> {
    let rest = id.strip_prefix("functions_")?;
    let (head, tail) = rest.split_at_checked(name.len())?;
    if head != safe(name) {
        return None;
    }
    let tail = tail.strip_prefix('_')?;
    let index = match tail.split_once("__") {
        Some((index, times)) if number(times).is_some() => index,
        _ => tail,
    };
    number(index)
}

/// The next id of this name that nobody has, from an index on.
pub(super) fn next_free(name: &str, from: u64, used: &BTreeSet<String>) -> String {
    let mut index = from;
    loop {
        let id = native(name, index);
        if !used.contains(&id) {
            return id;
        }
        index = index.saturating_add(1);
    }
}

fn number(digits: &str) -> Option<u64> {
    let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| digits.parse().ok()).flatten()
}

/// The index that a header still tells when its form is broken: the digits at its end.
fn last_number(said: &str) -> Option<u64> {
    let said = said.trim();
    let digits = said.bytes().rev().take_while(u8::is_ascii_digit).count();
    number(&said[said.len() - digits..])
}

/// Gives the calls of one answer their ids.
#[derive(Clone, Debug, Default)]
pub struct Ids {
    used: BTreeSet<String>,
}

impl Ids {
    /// The id of the next call, unique in the answer. `said` is what the upstream said: of a structured call its id,
    /// which is kept whatever its form; of a recovered call the header, which is kept if it is canonical and of this name.
    /// Made-up ids go on from the calls that the request's history holds, so many `before`.
    pub fn assign(
        &mut self,
        said: Option<&str>,
        recovered: bool,
        name: &str,
        before: impl FnOnce() -> u64,
        repairs: &mut Repairs,
    ) -> String {
        let said = said.map(str::trim).filter(|said| !said.is_empty());
        let is_own = |said: &str| canonical(said).is_some_and(|(named, _)| named == name);
        let kept = said.filter(|said| !recovered || is_own(said));
        let id = match kept {
            Some(id) if !self.used.contains(id) => id.to_owned(),
            _ => {
                repairs.count(Kind::Id);
                let told = said.filter(|said| recovered || canonical(said).is_some());
                let next = || before().saturating_add(self.used.len() as u64);
                let from = told.and_then(index_in).unwrap_or_else(next);
                next_free(name, from, &self.used)
            }
        };
        self.used.insert(id.clone());
        id
    }
}

/// The index in a header of any form. Digits of other models' ids are none.
fn index_in(said: &str) -> Option<u64> {
    const MOST: u64 = 1_000_000;
    let foreign = ["call_", "call-", "toolu_", "tooltoolu_", "chatcmpl-", "fc_"];
    let plain = !foreign.iter().any(|prefix| said.starts_with(prefix)) && !is_uuid(said);
    plain
        .then(|| last_number(said))
        .flatten()
        .filter(|index| *index < MOST)
}

fn is_uuid(said: &str) -> bool {
    said.len() == 36 && said.bytes().filter(|byte| *byte == b'-').count() == 4
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn native_ids_are_known() {
        for (id, expected) in [
            ("functions.Read:0", Some(("Read", 0))),
            ("functions.mcp__a-b.c:117", Some(("mcp__a-b.c", 117))),
            ("functions.Read:", None),
            ("functions.:0", None),
            ("functions.Read:0 ", None),
            ("functions.Read:+1", None),
            ("functions.Re ad:1", None),
            ("functions_Read_0", None),
            ("Read:0", None),
            ("call_1", None),
            ("functions.Read:99999999999999999999", None),
        ] {
            assert_eq!(canonical(id), expected, "{id}");
        }
    }

    #[test]
    fn safe_ids_are_made_and_read_back() {
        for (id, expected) in [
            ("functions.Read:0", "functions_Read_0"),
            ("functions.a.b-c:12", "functions_a_b-c_12"),
            ("toolu_01", "toolu_01"),
            ("é:1", "__1"),
            ("", "_"),
        ] {
            assert_eq!(safe(id), expected);
        }
        let long = native(&"x".repeat(64), 3);
        assert_eq!(safe(&long).len(), 64);
        assert_ne!(safe(&long), safe(&native(&"x".repeat(64), 4)));
        for (id, name, expected) in [
            ("functions_Read_0", "Read", Some(0)),
            ("functions_a_b_7", "a.b", Some(7)),
            ("functions_Read_3__2", "Read", Some(3)),
            ("functions_Read_0", "Write", None),
            ("functions_Read_x", "Read", None),
            ("functions_Read", "Read", None),
            ("functions_é", "é", None),
            ("call_0", "call", None),
        ] {
            assert_eq!(index_of_safe(id, name), expected, "{id}");
        }
    }

    #[test]
    fn an_answer_s_ids_are_native_and_unique() {
        let check = |calls: &[(Option<&str>, bool, &str)], expected: &[&str], counted: u32| {
            let mut ids = Ids::default();
            let mut repairs = Repairs::default();
            let given: Vec<String> = calls
                .iter()
                .map(|(said, recovered, name)| {
                    ids.assign(*said, *recovered, name, || 4, &mut repairs)
                })
                .collect();
            assert_eq!(given, expected);
            assert_eq!(repairs.of(Kind::Id), counted, "{expected:?}");
        };
        let read = Some("functions.Read:9");
        check(&[(read, true, "Read")], &["functions.Read:9"], 0);
        check(&[(read, false, "Read")], &["functions.Read:9"], 0);
        check(
            &[(read, true, "Read"), (read, true, "Read")],
            &["functions.Read:9", "functions.Read:10"],
            1,
        );
        check(
            &[(read, false, "Read"), (read, false, "Read")],
            &["functions.Read:9", "functions.Read:10"],
            1,
        );
        check(&[(Some("call_9f2"), false, "Read")], &["call_9f2"], 0);
        check(
            &[(Some("call_9"), false, "A"), (Some("call_9"), false, "B")],
            &["call_9", "functions.B:5"],
            1,
        );
        check(&[(Some("3"), true, "Read")], &["functions.Read:3"], 1);
        check(&[(Some("call_92"), true, "Read")], &["functions.Read:4"], 1);
        check(
            &[(Some("functions.read:7"), true, "Read")],
            &["functions.Read:7"],
            1,
        );
        check(
            &[(Some("functionsRead7"), true, "Read")],
            &["functions.Read:7"],
            1,
        );
        check(
            &[(None, false, "Read"), (Some(" "), true, "Read")],
            &["functions.Read:4", "functions.Read:5"],
            2,
        );
    }

    proptest! {
        #[test]
        fn what_was_made_safe_comes_back(name in "[a-zA-Z_.-]{1,40}", index in 0u64..1_000_000) {
            let id = native(&name, index);
            prop_assert_eq!(canonical(&id), Some((name.as_str(), index)));
            prop_assert_eq!(index_of_safe(&safe(&id), &name), Some(index));
        }

        #[test]
        fn safe_ids_always_pass(id in "\\PC{0,100}") {
            let text = safe(&id);
            prop_assert!((1..=LONGEST_SAFE).contains(&text.len()));
            prop_assert!(text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-')));
            prop_assert_eq!(safe(&text), text);
        }

        #[test]
        fn no_id_is_given_twice(calls in prop::collection::vec((prop::option::of("functions.[ab]:[0-2]|[0-2]|x"), any::<bool>(), "[ab]"), 0..20)) {
            let mut ids = Ids::default();
            let mut repairs = Repairs::default();
            let given: Vec<String> = calls.iter().map(|(said, recovered, name)| ids.assign(said.as_deref(), *recovered, name, || 0, &mut repairs)).collect();
            let distinct: BTreeSet<&String> = given.iter().collect();
            prop_assert_eq!(distinct.len(), given.len());
        }
    }
}
