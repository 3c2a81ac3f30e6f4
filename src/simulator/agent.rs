//! The scripted agent: what the simulated model says next.
//!
//! It reads the conversation and nothing else, so the same request always gets the same answer. After a typed
//! prompt it looks around with the client's own tools (list, read, a harmless command) for a few rounds, counted by the
//! tool results since that prompt, and ends with a summary. Arguments are named after the tool's own JSON schema.

use std::hash::DefaultHasher;
use std::hash::Hash;
use std::hash::Hasher;

use serde_json::Map;
use serde_json::Value;
use serde_json::json;

use super::ask::Talk;
use super::ask::Tool;
use super::cache::BYTES_PER_TOKEN;
use super::options::Commands;

/// A whole answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) thinking: String,
    pub(super) text: String,
    pub(super) calls: Vec<Call>,
    /// The output cap cut it short.
    pub(super) cut_short: bool,
}

/// A tool call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Call {
    pub(super) name: String,
    /// A JSON object, as text.
    pub(super) arguments: String,
}

/// Stand-in tokens of a text.
pub(super) fn tokens_of(text: &str) -> u64 {
    (text.len() as u64).div_ceil(BYTES_PER_TOKEN)
}

impl Answer {
    pub(super) fn reasoning_tokens(&self) -> u64 {
        tokens_of(&self.thinking)
    }

    pub(super) fn tokens(&self) -> u64 {
        let calls = self.calls.iter().map(Call::tokens).sum::<u64>();
        self.reasoning_tokens() + tokens_of(&self.text) + calls
    }

    /// Plain text of exactly so many tokens.
    pub(super) fn of_length(tokens: u64) -> Self {
        const WORDS: &str =
            "lorem ipsum dolor sit amet, consectetur adipiscing elit, sed do eiusmod tempor. ";
        let bytes = usize::try_from(tokens.saturating_mul(BYTES_PER_TOKEN)).unwrap_or(usize::MAX);
        Self {
            text: WORDS.chars().cycle().take(bytes).collect(),
            ..Self::default()
        }
    }

    /// The same answer within an output cap: calls that do not fit are left out whole.
    pub(super) fn within(mut self, cap: Option<u64>) -> Self {
        let Some(cap) = cap.filter(|cap| *cap < self.tokens()) else {
            return self;
        };
        let mut left = cap;
        for text in [&mut self.thinking, &mut self.text] {
            let bytes = usize::try_from(left.saturating_mul(BYTES_PER_TOKEN)).unwrap_or(usize::MAX);
            text.truncate(text.floor_char_boundary(bytes));
            left -= tokens_of(text).min(left);
        }
        self.calls.retain(|call| {
            let fits = call.tokens() <= left;
            left = if fits { left - call.tokens() } else { 0 };
            fits
        });
        self.cut_short = true;
        self
    }
}

impl Call {
    pub(super) fn tokens(&self) -> u64 {
        tokens_of(&self.name) + tokens_of(&self.arguments)
    }
}

/// What the model says next.
pub(super) fn answer(talk: &Talk, thinks: bool, commands: Commands) -> Answer {
    let mut answer = if talk.typed.contains("handoff summary") {
        // Kimi Code's compaction asks for one with these words.
        said("I gather what matters for going on.", &handoff(talk))
    } else if talk.tools.is_empty() {
        let text = if talk.typed.to_lowercase().contains("title") {
            title(&talk.typed)
        } else {
            plain(talk)
        };
        said(
            &format!(
                "No tools here, so I answer from the text alone: {}.",
                gist(&talk.typed)
            ),
            &text,
        )
    } else {
        agent_step(talk, commands)
    };
    if !thinks {
        answer.thinking.clear();
    }
    answer
}

fn said(thinking: &str, text: &str) -> Answer {
    Answer {
        thinking: thinking.to_owned(),
        text: text.to_owned(),
        ..Answer::default()
    }
}

/// One round of the turn: the next tool calls, or the summary when the script is through.
fn agent_step(talk: &Talk, commands: Commands) -> Answer {
    let mut done = talk.results.len();
    let mut remaining = script(talk, commands).into_iter();
    for (thinking, text, calls) in remaining.by_ref() {
        if calls.is_empty() {
            continue;
        }
        if done < calls.len() {
            return Answer {
                calls: calls.into_iter().skip(done).collect(),
                ..said(&thinking, &text)
            };
        }
        done -= calls.len();
    }
    said(
        &format!("I have seen enough of \"{}\" to answer.", gist(&talk.typed)),
        &summary(talk),
    )
}

type Round = (String, String, Vec<Call>);

/// The rounds of a turn. Which of them happen depends on the prompt and the tools on offer, never on later results, so
/// that counting results tells where the turn stands; only the file to read is taken from the first results.
fn script(talk: &Talk, commands: Commands) -> Vec<Round> {
    let may_run = match commands {
        Commands::Always => true,
        Commands::Unattended => talk.unattended,
        Commands::Never => false,
    };
    // Kimi Code fetches ripgrep from the network when its Glob is used without one; a demo must not cause that.
    let list = call(
        talk,
        &["Glob", "LS", "ListDirectory", "list_directory"],
        &[("pattern", json!("*")), ("path", json!("."))],
    )
    .filter(|call| !needs_ripgrep(talk, &call.name));
    let run = |command: &str| {
        let names = ["Bash", "Shell", "bash", "shell"];
        may_run
            .then(|| call(talk, &names, &[("command", json!(command))]))
            .flatten()
    };
    let note = |look: &str, tell: &str| {
        let todos = json!([
            {"title": "Look around in the folder", "status": look}, {"title": "Tell what is here", "status": tell},
        ]);
        call(talk, &["TodoList", "SetTodoList"], &[("todos", todos)])
    };
    let file = found_file(&talk.results).unwrap_or("README.md");
    let read = call(
        talk,
        &["Read", "ReadFile", "read_file"],
        &[("path", json!(file)), ("file_path", json!(file))],
    );
    let gist = gist(&talk.typed);
    let first = vec![
        note("in_progress", "pending"),
        list,
        run("ls -la | head -n 20"),
    ];
    let last = match draw(&talk.typed, 3) {
        0 => None,
        _ => run("echo checked: $(ls | wc -l) entries").or_else(|| note("done", "in_progress")),
    };
    [
        (
            format!("The user wants: {gist}. I should get an overview of the folder before I say anything."),
            pick(&talk.typed, &["Let me look around first.", "I'll start with the files here.", "First, what is in this folder?"]),
            first,
        ),
        (
            format!("There is a file {file}; it should tell what this is about."),
            format!("I'll read `{file}`."),
            vec![read],
        ),
        (
            "One more check, then I can sum up.".to_owned(),
            "A last quick check.".to_owned(),
            vec![last],
        ),
    ]
    .into_iter()
    .map(|(thinking, text, calls)| (thinking, text, calls.into_iter().flatten().collect()))
    .collect()
}

/// A call of the first tool on offer that bears one of `names`, with those `values` that its schema knows.
/// Nothing if it wants something else as well.
fn call(talk: &Talk, names: &[&str], values: &[(&str, Value)]) -> Option<Call> {
    let tool = names
        .iter()
        .find_map(|name| talk.tools.iter().find(|tool| tool.name == *name))?;
    let known = tool.schema.get("properties")?;
    let mut arguments = Map::new();
    for (name, value) in values {
        if known.get(name).is_some()
            && (arguments.is_empty() || required(tool).any(|needed| needed == *name))
        {
            arguments.insert((*name).to_owned(), value.clone());
        }
    }
    let complete = !arguments.is_empty() && required(tool).all(|name| arguments.contains_key(name));
    complete.then(|| Call {
        name: tool.name.clone(),
        arguments: Value::Object(arguments).to_string(),
    })
}

fn needs_ripgrep(talk: &Talk, name: &str) -> bool {
    talk.tools
        .iter()
        .any(|tool| tool.name == name && tool.description.contains("ripgrep"))
}

fn required(tool: &Tool) -> impl Iterator<Item = &str> {
    let names = tool.schema.get("required").and_then(Value::as_array);
    names.into_iter().flatten().filter_map(Value::as_str)
}

/// A file of text that the results name, a README if there is one.
fn found_file(results: &[String]) -> Option<&str> {
    const ENDINGS: [&str; 8] = [".md", ".txt", ".toml", ".json", ".py", ".rs", ".ts", ".js"];
    let mut found = results
        .iter()
        .flat_map(|text| text.split(|c: char| c.is_whitespace() || "\"'`,:()".contains(c)))
        .filter(|word| {
            ENDINGS
                .iter()
                .any(|ending| word.len() > ending.len() && word.ends_with(ending))
        })
        .peekable();
    let first = found.peek().copied();
    found.find(|word| word.contains("README")).or(first)
}

/// The beginning of a prompt, on one line.
fn gist(typed: &str) -> String {
    let words: Vec<&str> = typed.split_whitespace().take(12).collect();
    let line = words.join(" ");
    line.get(..line.floor_char_boundary(100))
        .unwrap_or_default()
        .to_owned()
}

fn title(typed: &str) -> String {
    let words: Vec<&str> = typed.split_whitespace().take(5).collect();
    words.join(" ")
}

fn plain(talk: &Talk) -> String {
    format!(
        "You said: \"{}\". This answer comes from a simulated model, so it holds no more than that: {} \
         Ask for something in a project folder, and I will look around with your tools.",
        gist(&talk.typed),
        pick(
            &talk.typed,
            &[
                "the connection works, tokens are counted.",
                "everything between you and me is in place.",
                "the stream reached you in one piece."
            ],
        )
    )
}

fn handoff(talk: &Talk) -> String {
    format!(
        "Handoff: the latest request was about \"{}\". {} tool results were seen since the start; nothing is left half \
         done. Constraints: read only, no changes to files. Next: wait for the user.",
        gist(&talk.before),
        talk.calls
    )
}

fn summary(talk: &Talk) -> String {
    let lines: usize = talk.results.iter().map(|text| text.lines().count()).sum();
    let file = found_file(&talk.results).map_or_else(
        || "no readable text file".to_owned(),
        |file| format!("`{file}`"),
    );
    format!(
        "{}\n\n- Request: {}\n- Looked at: {} tool results, {lines} lines\n- Most telling file: {file}\n\n{}",
        pick(
            &talk.typed,
            &[
                "Done. Here is what I found:",
                "That is the lay of the land:",
                "Summary:"
            ]
        ),
        gist(&talk.typed),
        talk.results.len(),
        pick(
            &talk.typed,
            &[
                "Nothing was changed. Tell me where to go deeper.",
                "I changed nothing; say the word for the next step.",
                "All read-only so far. What next?"
            ],
        ),
    )
}

/// One of the choices, the same for the same prompt.
fn pick(typed: &str, choices: &[&str]) -> String {
    let index = usize::try_from(draw(typed, choices.len() as u64)).unwrap_or(0);
    choices.get(index).copied().unwrap_or_default().to_owned()
}

fn draw(typed: &str, below: u64) -> u64 {
    let mut hasher = DefaultHasher::new();
    typed.hash(&mut hasher);
    hasher.finish() % below.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tool(name: &str, required: &[&str], optional: &[&str]) -> Tool {
        let properties: Map<String, Value> = required
            .iter()
            .chain(optional)
            .map(|name| ((*name).to_owned(), json!({"type": "string"})))
            .collect();
        Tool {
            name: name.to_owned(),
            description: String::new(),
            schema: json!({"type": "object", "properties": properties, "required": required}),
        }
    }

    /// The tools of Kimi Code 2.1.0 that matter here.
    fn talk(typed: &str, results: &[&str]) -> Talk {
        Talk {
            tools: vec![
                tool("Agent", &["prompt", "description"], &[]),
                tool("Bash", &["command"], &["cwd", "description"]),
                Tool {
                    description: "Powered by ripgrep.".to_owned(),
                    ..tool("Glob", &["pattern"], &["path"])
                },
                tool("TodoList", &[], &["todos"]),
                tool("Read", &["path"], &["line_offset"]),
            ],
            typed: typed.to_owned(),
            before: "the first request".to_owned(),
            results: results.iter().map(|text| (*text).to_owned()).collect(),
            calls: results.len(),
            unattended: true,
        }
    }

    #[test]
    fn a_turn_calls_known_tools_and_ends() {
        for typed in ["look around", "a", "b", "c", "d"] {
            let mut results = Vec::new();
            let mut called = Vec::new();
            for round in 0.. {
                assert!(round < 6, "the turn does not end");
                let next = answer(&talk(typed, &results), true, Commands::Unattended);
                assert!(!next.thinking.is_empty());
                if next.calls.is_empty() {
                    assert!(next.text.contains(typed));
                    break;
                }
                for call in next.calls {
                    results.push("./src/main.rs\n./README.md");
                    called.push((call.name, call.arguments));
                }
            }
            let expect = |name: &str, arguments: &str| (name.to_owned(), arguments.to_owned());
            assert_eq!(called.first().unwrap().0, "TodoList");
            assert!(called.contains(&expect("Bash", r#"{"command":"ls -la | head -n 20"}"#)));
            assert!(
                called.iter().all(|(name, _)| name != "Glob"),
                "would fetch ripgrep"
            );
            assert!(called.contains(&expect("Read", r#"{"path":"./README.md"}"#)));
            assert!((3..=4).contains(&called.len()), "{called:?}");
        }
    }

    #[test]
    fn a_client_that_lists_by_itself_is_asked_to() {
        let mut old = talk("x", &[]);
        old.tools = vec![
            tool("Glob", &["pattern"], &["directory"]),
            tool("ReadFile", &["path"], &[]),
        ];
        let said = answer(&old, true, Commands::Never);
        assert_eq!(said.calls[0].arguments, r#"{"pattern":"*"}"#);
    }

    #[test]
    fn commands_are_left_alone_where_somebody_would_have_to_approve() {
        let asks = |commands, unattended| {
            let talk = Talk {
                unattended,
                ..talk("x", &[])
            };
            answer(&talk, true, commands)
                .calls
                .iter()
                .any(|call| call.name == "Bash")
        };
        assert!(asks(Commands::Unattended, true));
        assert!(!asks(Commands::Unattended, false));
        assert!(asks(Commands::Always, false));
        assert!(!asks(Commands::Never, true));
    }

    #[test]
    fn without_usable_tools_the_answer_is_text() {
        let mut bare = talk("hello there", &[]);
        bare.tools = vec![tool("Read", &["path", "reason"], &[])];
        let told = answer(&bare, true, Commands::Always);
        assert!(
            told.calls.is_empty() && told.text.contains("hello there"),
            "{told:?}"
        );
        bare.tools.clear();
        assert!(answer(&bare, false, Commands::Always).thinking.is_empty());
    }

    #[test]
    fn a_compaction_gets_a_summary_and_no_call() {
        let told = answer(
            &talk("Create a handoff summary for the\nmodel", &[]),
            true,
            Commands::Always,
        );
        assert!(
            told.calls.is_empty() && told.text.contains("the first request"),
            "{told:?}"
        );
    }

    #[test]
    fn a_declared_length_is_met_and_a_cap_obeyed() {
        assert_eq!(Answer::of_length(1000).tokens(), 1000);
        assert_eq!(Answer::of_length(0).tokens(), 0);
        let whole = answer(&talk("x", &[]), true, Commands::Always);
        let total = whole.tokens();
        assert!(!whole.clone().within(Some(total)).cut_short);
        for cap in [0, 1, 10, total - 1] {
            let cut = whole.clone().within(Some(cap));
            assert!(cut.cut_short && cut.tokens() <= cap, "{cap}: {cut:?}");
        }
    }
}
