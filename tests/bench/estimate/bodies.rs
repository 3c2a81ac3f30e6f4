//! Conversations of a coding agent as request bodies, turn by turn, made of this project's own files.
//!
//! Their shape is that of Kimi Code 2.1.0: a system text of 8 kB, 25 tools of 70 kB, a prompt, reminders, and then
//! rounds of thinking, a tool call and its result. Results are source files with line numbers, the lock file, test
//! output and Chinese prose.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

/// The requests of one conversation, in order.
pub(crate) struct Session {
    pub(crate) name: String,
    pub(crate) bodies: Vec<Vec<u8>>,
}

/// Written for this bench: prose in a script without an alphabet.
const CHINESE: &str = "令牌估算器把请求正文的字节数除以学到的比率，再用每次真实用量加以校正。缓存预测依赖前缀链：\
    只有当写入者的回答已经开始之后，前缀才算有效。预算按分钟滚动计算，等待中的请求不消耗处理器时间。\n";

pub(crate) fn recorded(folder: &Path) -> Session {
    let mut files: Vec<PathBuf> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "json"))
        .collect();
    files.sort();
    Session {
        name: folder.file_name().unwrap().to_string_lossy().into_owned(),
        bodies: files.iter().map(|file| fs::read(file).unwrap()).collect(),
    }
}

pub(crate) fn generated(seed: u64, rounds: usize) -> Session {
    let sources = sources();
    let mut draw = fastrand::Rng::with_seed(seed);
    let prose = prose(&sources);
    let tools: Vec<Value> = (0..25)
        .map(|number| tool(number, &prose, &mut draw))
        .collect();
    let mut messages = vec![
        json!({ "role": "system", "content": prose[..8000] }),
        json!({ "role": "user", "content": "Look at this project and tell me what the estimator does." }),
        json!({ "role": "user", "content": "<system-reminder>\nToday's date is 2026-11-20.\n</system-reminder>" }),
    ];
    let mut bodies = Vec::new();
    for round in 0..rounds {
        bodies.push(body(&messages, &tools));
        if round % 8 == 7 {
            messages.push(json!({ "role": "assistant", "content": piece(&prose, 900, &mut draw) }));
            messages.push(json!({ "role": "user", "content": piece(&prose, 200, &mut draw) }));
            continue;
        }
        let (path, text) = &sources[draw.usize(..sources.len())];
        let arguments = json!({ "path": path, "line_offset": draw.u32(1..400) }).to_string();
        messages.push(json!({
            "role": "assistant",
            "reasoning_content": piece(&prose, 300, &mut draw),
            "tool_calls": [{ "type": "function", "id": format!("functions.Read:{round}"),
                "function": { "name": "Read", "arguments": arguments } }],
        }));
        let result = match draw.u32(..10) {
            0 => CHINESE.repeat(draw.usize(2..20)),
            1 => {
                let lines = (0..draw.u32(20..200)).map(|line| {
                    let time = f64::from(draw.u32(..9000)) / 1e3;
                    format!("test usage::count::case_{line:03} ... ok <{time:.3}s>")
                });
                lines.collect::<Vec<_>>().join("\n")
            }
            _ => numbered(&piece(text, 9000, &mut draw)),
        };
        messages.push(json!({ "role": "tool", "tool_call_id": format!("functions.Read:{round}"), "content": result }));
    }
    Session {
        name: format!("generated {seed}"),
        bodies,
    }
}

fn body(messages: &[Value], tools: &[Value]) -> Vec<u8> {
    let body = json!({
        "model": "kimi-k2.6", "messages": messages, "tools": tools, "stream": true,
        "prompt_cache_key": "session_1", "max_completion_tokens": 262_144,
    });
    serde_json::to_vec(&body).unwrap()
}

fn tool(number: u32, prose: &str, draw: &mut fastrand::Rng) -> Value {
    let mut property = |name: &str, kind: &str| {
        let description = piece(prose, 160, draw);
        (
            name.to_owned(),
            json!({ "type": kind, "description": description }),
        )
    };
    let properties: serde_json::Map<String, Value> = [
        ("path", "string"),
        ("pattern", "string"),
        ("line_offset", "integer"),
        ("n_lines", "integer"),
        ("timeout", "number"),
    ]
    .map(|(name, kind)| property(name, kind))
    .into_iter()
    .collect();
    json!({ "type": "function", "function": {
        "name": format!("Tool{number}"), "description": piece(prose, 1500, draw),
        "parameters": { "type": "object", "properties": properties, "required": ["path"], "additionalProperties": false },
    }})
}

/// A part of a text of about this size.
fn piece(text: &str, size: usize, draw: &mut fastrand::Rng) -> String {
    let size = (size / 2 + draw.usize(..size)).min(text.len());
    let start = text.floor_char_boundary(draw.usize(..=text.len() - size));
    text[start..text.ceil_char_boundary(start + size)].to_owned()
}

fn numbered(text: &str) -> String {
    let lines = (1..).zip(text.lines());
    let lines = lines.map(|(number, line)| format!("{number}\t{line}"));
    lines.collect::<Vec<_>>().join("\n")
}

/// Texts of comments, without their signs.
fn prose(sources: &[(String, String)]) -> String {
    sources
        .iter()
        .flat_map(|(_, text)| text.lines())
        .filter_map(|line| line.trim_start().strip_prefix("//"))
        .map(|line| line.trim_start_matches(['/', '!']))
        .collect::<Vec<_>>()
        .join("\n")
}

fn sources() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut folders = vec![root.join("src"), root.join("tests")];
    let mut found = vec![root.join("Cargo.lock"), root.join("Cargo.toml")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                found.push(path);
            }
        }
    }
    found.sort();
    found
        .into_iter()
        .map(|path| {
            let name = path.strip_prefix(root).unwrap().display().to_string();
            (name, fs::read_to_string(path).unwrap())
        })
        .collect()
}
