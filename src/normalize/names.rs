//! Tool names: what a garbled name or header means, decided only where one reading is left.
//!
//! In this order: a declared name as it stands; without blanks, `functions.` and `:INDEX`; with the dot and the colon
//! lost (`functionsNAME5`, `NAME5`, `functions_NAME_5`); equal to exactly one declared name but for case and `-_.`. What
//! is a number or another model's id names nothing, and then the arguments may tell. Everything else is a name that was
//! not declared: it is left, because a wrong guess is worse than none, and the client's error lets the model correct
//! itself. Names are never matched by likeness.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::value::RawValue;

/// The declared tools of a request.
#[derive(Clone, Debug, Default)]
pub struct Tools {
    tools: Vec<Tool>,
}

#[derive(Clone, Debug)]
struct Tool {
    name: String,
    keys: Vec<Key>,
}

/// A declared parameter, with what a guess by arguments needs of its schema.
#[derive(Clone, Debug)]
struct Key {
    name: String,
    required: bool,
    takes: Sorts,
}

/// The sorts of JSON values that a schema lets pass, one bit each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sorts(u8);

impl Sorts {
    const ANY: Self = Self(u8::MAX);

    fn of_word(word: &str) -> Self {
        Self(match word {
            "null" => 1,
            "boolean" => 2,
            "number" => 4 | 8,
            "integer" => 8,
            "string" => 16,
            "array" => 32,
            "object" => 64,
            _ => u8::MAX,
        })
    }

    fn of_value(raw: &str) -> Self {
        Self(match raw.as_bytes().first() {
            Some(b'n') => 1,
            Some(b't' | b'f') => 2,
            Some(b'"') => 16,
            Some(b'[') => 32,
            Some(b'{') => 64,
            _ if raw.contains(['.', 'e', 'E']) => 4,
            _ => 8,
        })
    }

    fn meets(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

/// What was said in place of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Name {
    /// A declared tool, perhaps written in another form.
    Declared(String),
    /// A plausible name of no declared tool, which is left; prefix and index of a header are off.
    Undeclared(String),
    /// No name: a bare number, a foreign id. The arguments may tell.
    Nameless,
}

#[derive(Deserialize)]
struct Schema<'a> {
    #[serde(borrow, default)]
    properties: BTreeMap<String, &'a RawValue>,
    #[serde(default)]
    required: Vec<String>,
}

#[derive(Deserialize)]
struct Property<'a> {
    #[serde(rename = "type", borrow, default)]
    sort: Option<&'a RawValue>,
}

impl Tool {
    fn new(name: &str, schema: Option<&str>) -> Self {
        let schema = schema.and_then(|raw| serde_json::from_str::<Schema<'_>>(raw).ok());
        let Some(Schema {
            properties,
            required,
        }) = schema
        else {
            return Self {
                name: name.to_owned(),
                keys: Vec::new(),
            };
        };
        // A required key that is not among the properties is a key all the same.
        let undescribed = required
            .iter()
            .filter(|key| !properties.contains_key(*key))
            .map(|key| Key {
                name: key.clone(),
                required: true,
                takes: Sorts::ANY,
            });
        let described = properties.iter().map(|(key, raw)| Key {
            name: key.clone(),
            required: required.contains(key),
            takes: sorts(raw.get()),
        });
        Self {
            name: name.to_owned(),
            keys: described.chain(undescribed).collect(),
        }
    }

    /// Whether all required keys are there, no undeclared one is, and each value is of a declared sort.
    fn takes(&self, arguments: &BTreeMap<String, &RawValue>) -> bool {
        let fits = |(name, value): (&String, &&RawValue)| {
            self.keys
                .iter()
                .any(|key| key.name == *name && key.takes.meets(Sorts::of_value(value.get())))
        };
        let complete = |key: &Key| !key.required || arguments.contains_key(&key.name);
        arguments.iter().all(fits) && self.keys.iter().all(complete)
    }
}

fn sorts(property: &str) -> Sorts {
    let sort = serde_json::from_str::<Property<'_>>(property)
        .ok()
        .and_then(|property| property.sort);
    let Some(sort) = sort.map(RawValue::get) else {
        return Sorts::ANY;
    };
    if let Ok(word) = serde_json::from_str::<String>(sort) {
        return Sorts::of_word(&word);
    }
    match serde_json::from_str::<Vec<String>>(sort) {
        Ok(words) => Sorts(
            words
                .iter()
                .fold(0, |sum, word| sum | Sorts::of_word(word).0),
        ),
        Err(_) => Sorts::ANY,
    }
}

impl Tools {
    /// Tools by name, each with the JSON schema of its parameters if it has one.
    pub fn new<'a>(tools: impl IntoIterator<Item = (&'a str, Option<&'a str>)>) -> Self {
        let tools = tools.into_iter();
        Self {
            tools: tools
                .map(|(name, schema)| Tool::new(name, schema))
                .collect(),
        }
    }

    /// Whether none is declared.
    pub fn is_empty(&self) -> bool {
        self.tools.is_empty()
    }

    /// The declared names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tools.iter().map(|tool| tool.name.as_str())
    }

    /// Whether a tool has exactly this name.
    pub fn declares(&self, name: &str) -> bool {
        self.names().any(|declared| declared == name)
    }

    /// What a name or a header's id means.
    pub fn resolve(&self, said: &str) -> Name {
        if let Some(name) = self.declared(said) {
            return Name::Declared(name.to_owned());
        }
        let trimmed = said.trim();
        let (bare, prefixed) = match trimmed.strip_prefix("functions.") {
            Some(rest) => (rest, true),
            None => (trimmed, false),
        };
        let (name, indexed) = match bare.rsplit_once(':') {
            Some((name, index)) if is_number(index.trim()) => (name.trim(), true),
            _ => (bare.trim(), false),
        };
        if let Some(name) = self.declared(name) {
            return Name::Declared(name.to_owned());
        }
        if let Some(name) = self.glued(name).or_else(|| self.alike(name)) {
            return Name::Declared(name.to_owned());
        }
        let lost_colon = prefixed
            && !indexed
            && name
                .rsplit_once('.')
                .is_some_and(|(_, index)| is_number(index));
        let whole = prefixed && indexed;
        if is_nothing(name) || lost_colon || !whole && is_foreign_id(name) {
            Name::Nameless
        } else {
            Name::Undeclared(name.to_owned())
        }
    }

    /// The one tool that takes these arguments: the only one that is declared, or the only one whose schema they fit.
    pub fn infer(&self, arguments: &[u8]) -> Option<&str> {
        if let [only] = self.tools.as_slice() {
            return Some(&only.name);
        }
        let arguments = serde_json::from_slice(arguments).ok()?;
        self.only(|tool| tool.takes(&arguments))
    }

    fn declared(&self, name: &str) -> Option<&str> {
        self.names().find(|declared| *declared == name)
    }

    /// The one declared name for which this holds.
    fn only(&self, holds: impl Fn(&Tool) -> bool) -> Option<&str> {
        let mut found = self.tools.iter().filter(|tool| holds(tool));
        let first = found.next()?;
        // A tool that is declared twice is one tool.
        found
            .all(|other| other.name == first.name)
            .then_some(first.name.as_str())
    }

    /// The one declared name that this is with the separators of prefix and index lost or made safe.
    fn glued(&self, said: &str) -> Option<&str> {
        let bare = said
            .strip_prefix("functions")
            .filter(|rest| !rest.is_empty());
        let forms = [Some(said), bare];
        let is_index = |rest: &str| {
            let index = rest.strip_prefix(['.', ':', '_']).unwrap_or(rest);
            rest.is_empty() || is_number(index)
        };
        self.only(|tool| {
            forms.iter().flatten().any(|form| {
                let form = form.trim_start_matches(['.', ':', '_']);
                form.strip_prefix(tool.name.as_str()).is_some_and(is_index)
            })
        })
    }

    /// The one declared name that is equal but for case and separators.
    fn alike(&self, said: &str) -> Option<&str> {
        let wanted: String = folded(said).collect();
        let lost_dot = said
            .strip_prefix("functions")
            .map(|rest| folded(rest.trim_end_matches(|c: char| c.is_ascii_digit())).collect());
        let lost_dot: Option<String> = lost_dot.filter(|rest: &String| !rest.is_empty());
        let equals = |tool: &Tool, wanted: &str| folded(&tool.name).eq(wanted.chars());
        if wanted.is_empty() {
            return None;
        }
        self.only(|tool| equals(tool, &wanted))
            .or_else(|| self.only(|tool| lost_dot.as_ref().is_some_and(|rest| equals(tool, rest))))
    }
}

fn folded(name: &str) -> impl Iterator<Item = char> + '_ {
    name.chars()
        .filter(|c| !matches!(c, '-' | '_' | '.'))
        .flat_map(char::to_lowercase)
}

fn is_number(word: &str) -> bool {
    !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit())
}

/// What is left of a header without a name.
fn is_nothing(name: &str) -> bool {
    let name = name.strip_prefix(':').unwrap_or(name);
    name.is_empty() || is_number(name) || name == "functions"
}

/// Ids that other models and servers make: the model learns them from a history that holds them.
fn is_foreign_id(name: &str) -> bool {
    const PREFIXES: [&str; 6] = ["call_", "call-", "toolu_", "tooltoolu_", "chatcmpl-", "fc_"];
    let hex = |part: &str| part.bytes().all(|byte| byte.is_ascii_hexdigit());
    let uuid = || {
        let parts: Vec<&str> = name.split('-').collect();
        parts.iter().map(|part| part.len()).eq([8, 4, 4, 4, 12])
            && parts.iter().all(|part| hex(part))
    };
    let long_hex =
        || name.len() >= 16 && hex(name) && name.bytes().any(|byte| byte.is_ascii_digit());
    PREFIXES.iter().any(|prefix| name.starts_with(prefix)) || uuid() || long_hex()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DECLARED: [&str; 9] = [
        "ReadText",
        "run_cmd",
        "tide-table",
        "web.fetch",
        "read5",
        "read",
        "Save_It",
        "saveit",
        "mcp__git__log",
    ];

    fn tools(names: &[&str]) -> Tools {
        Tools::new(names.iter().map(|name| (*name, None)))
    }

    fn declared(name: &str) -> Name {
        Name::Declared(name.to_owned())
    }

    fn undeclared(name: &str) -> Name {
        Name::Undeclared(name.to_owned())
    }

    #[test]
    fn a_name_has_one_reading_or_is_left() {
        let tools = tools(&DECLARED);
        for (said, expected) in [
            ("ReadText", declared("ReadText")),
            ("functions.ReadText:0", declared("ReadText")),
            (" functions.ReadText:12\n", declared("ReadText")),
            ("functions. ReadText : 12", declared("ReadText")),
            ("ReadText:3", declared("ReadText")),
            ("\n tide-table", declared("tide-table")),
            ("functions.web.fetch:0", declared("web.fetch")),
            ("functions.mcp__git__log:118", declared("mcp__git__log")),
            ("functionsrun_cmd5", declared("run_cmd")),
            ("functions.run_cmd5", declared("run_cmd")),
            ("functionsrun_cmd:5", declared("run_cmd")),
            ("run_cmd5", declared("run_cmd")),
            ("functions_run_cmd_5", declared("run_cmd")),
            ("functions.run_cmd.0", declared("run_cmd")),
            ("functions.RUN-CMD:1", declared("run_cmd")),
            ("readtext", declared("ReadText")),
            ("read_text", declared("ReadText")),
            ("functionsReadtext7", declared("ReadText")),
            ("TideTable", declared("tide-table")),
            ("read5", declared("read5")),
            ("functions.read:5", declared("read")),
            // A header ends in an index, so this is not `read5`.
            ("functionsread5", declared("read")),
            ("SAVEIT", undeclared("SAVEIT")),
            ("web_search", undeclared("web_search")),
            ("functions.img_gen:0", undeclared("img_gen")),
            ("functions.call_home:0", undeclared("call_home")),
            ("ReadTexts", undeclared("ReadTexts")),
            ("", Name::Nameless),
            ("3", Name::Nameless),
            (":3", Name::Nameless),
            ("functions.", Name::Nameless),
            ("functions.:0", Name::Nameless),
            ("functions.3:0", Name::Nameless),
            ("functions.nothing.0", Name::Nameless),
            ("call_9f2", Name::Nameless),
            ("toolu_01A", Name::Nameless),
            ("tooltoolu_01A", Name::Nameless),
            ("chatcmpl-tool-3fa8", Name::Nameless),
            ("0b7c9d1e-4f60-4f0e-9f3a-0123456789ab", Name::Nameless),
            ("3fa85f6457174562b3fc2c963f66afa6", Name::Nameless),
        ] {
            assert_eq!(tools.resolve(said), expected, "{said:?}");
        }
    }

    #[test]
    fn arguments_tell_the_tool_only_if_one_takes_them() {
        let schemas = [
            (
                "tide",
                r#"{"properties":{"port":{"type":"string"},"day":{"type":["string","null"]}},"required":["port"]}"#,
            ),
            (
                "page",
                r#"{"properties":{"url":{"type":"string"},"depth":{"type":"integer"}},"required":["url"]}"#,
            ),
            (
                "link",
                r#"{"properties":{"url":{"type":"string"},"text":{}},"required":["url"]}"#,
            ),
            ("ping", r#"{"type":"object","properties":{}}"#),
            ("odd", r#"{"properties":{"flag":true},"required":["must"]}"#),
            (
                "num",
                r#"{"properties":{"depth":{"type":"number"}},"required":["depth"]}"#,
            ),
        ];
        let all = Tools::new(schemas.map(|(name, schema)| (name, Some(schema))));
        for (arguments, expected) in [
            (r#"{"port":"Kiel"}"#, Some("tide")),
            (r#" {"day":null,"port":"Kiel"} "#, Some("tide")),
            (r#"{"port":1}"#, None),
            (r#"{"day":"x"}"#, None),
            (r#"{"url":"x"}"#, None),
            (r#"{"url":"x","depth":3}"#, Some("page")),
            (r#"{"url":"x","depth":3.5}"#, None),
            (r#"{"url":"x","text":[1]}"#, Some("link")),
            (r#"{"must":0,"flag":[]}"#, Some("odd")),
            (r#"{"depth":-1}"#, Some("num")),
            (r#"{"depth":1e3}"#, Some("num")),
            ("{}", Some("ping")),
            (r#"{"port":"#, None),
            ("[]", None),
            ("", None),
        ] {
            assert_eq!(all.infer(arguments.as_bytes()), expected, "{arguments}");
        }
        let alone = Tools::new(schemas[..1].iter().map(|(name, raw)| (*name, Some(*raw))));
        assert_eq!(alone.infer(b"anything"), Some("tide"));
        let twice = Tools::new([schemas[3], schemas[3]].map(|(name, raw)| (name, Some(raw))));
        assert_eq!(twice.infer(b"{}"), Some("ping"));
        assert_eq!(Tools::default().infer(b"{}"), None);
    }

    proptest! {
        #[test]
        fn a_declared_name_is_found_in_every_header(which in 0..DECLARED.len(), index in 0u32..100_000, blanks in "[ \n]{0,3}") {
            let tools = tools(&DECLARED);
            let name = DECLARED[which];
            for said in [name.to_owned(), format!("{blanks}functions.{name}:{index}{blanks}"), format!("{name}:{index}")] {
                prop_assert_eq!(tools.resolve(&said), declared(name));
            }
        }

        #[test]
        fn nothing_that_was_not_declared_comes_out(said in "\\PC{0,20}|(functions)?[._: ]?[a-zA-Z_.-]{0,9}[:._]?[0-9]{0,3}") {
            let tools = tools(&DECLARED);
            match tools.resolve(&said) {
                Name::Declared(name) => prop_assert!(DECLARED.contains(&name.as_str())),
                Name::Undeclared(name) => prop_assert!(said.contains(&name)),
                Name::Nameless => {}
            }
        }
    }
}
