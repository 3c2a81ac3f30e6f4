//! The real Kimi Code in front of a simulated upstream that garbles its answers in each of the 30 ways: through kimiq every
//! tool runs with the arguments that the model meant, as often and in the order of an answer that is right.
//!
//! `cargo test --test kimi_garbled -- --nocapture` prints what ran, and beside it what runs without repair.
#![cfg(unix)]
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "helpers of tests fail by panicking and end with the test, which tells what ran"
)]

#[expect(dead_code, reason = "other tests use more of it")]
mod support {
    pub(crate) mod client;
    pub(crate) mod house;
    pub(crate) mod live;
    pub(crate) mod scratch;
}

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;

use kimiq::fsx;
use kimiq::kimi::{Client, Environment, Options, Overlay, Setup, launch, prepare_demo};
use kimiq::simulator::{Commands, Garble, Options as Upstream, Simulator, declared};
use kimiq::upstream::Upstream as Place;
use serde_json::{Value, json};
use support::client::client;
use support::house::House;
use support::live::run;
use support::scratch::{Scratch, bare};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::task::TaskTracker;

/// Clients that run at once; each takes about a core.
const AT_ONCE: usize = 2;

/// A tool that the client ran: its name, the arguments, and whether the client took them.
type Ran = (String, Value, bool);

/// Everything that runs need.
struct Stage {
    client: Client,
    simulator: Simulator,
    house: House,
    turns: Semaphore,
}

impl Stage {
    async fn start() -> Arc<Self> {
        let options = Upstream {
            commands: Commands::Always,
            ..Upstream::immediate().unlimited()
        };
        let simulator = Simulator::start(options, &TaskTracker::new())
            .await
            .unwrap();
        let house = House::start(simulator.addr()).await;
        Arc::new(Self {
            client: client().await,
            simulator,
            house,
            turns: Semaphore::new(AT_ONCE),
        })
    }

    /// One `kimi -p` whose answers are garbled in this way; `kind` is the client's word for its provider.
    async fn run(&self, way: Garble, kind: &str, repaired: bool) -> Vec<Ran> {
        let _turn = self.turns.acquire().await.unwrap();
        let scratch = Scratch::new("garbled");
        let demo = prepare_demo(&scratch.folder("demo"), &self.simulator.base_url(), 1).unwrap();
        let config = demo.home.join("config.toml");
        let mut text = fs::read_to_string(&config).unwrap();
        text = text.replace("type = \"kimi\"", &format!("type = \"{kind}\""));
        if way.to_string() == "K30" {
            text = text.replace("\nmodel = \"kimi-k2.6\"", "\nmodel = \"kimi-k3\"");
        }
        fsx::write_atomic(&config, text.as_bytes(), 0o600).unwrap();
        // An answer without anything is asked for again; only the first is so.
        let times = if way.to_string() == "K29" { "*1" } else { "" };
        let mut env: Environment = bare(&scratch.folder("person"));
        let header = format!("{}: {way}{times}", declared::FAULT);
        env.insert("KIMI_CODE_CUSTOM_HEADERS".into(), header.into());
        let mut options = Options {
            terminal: "1".to_owned(),
            key: self.house.key.clone(),
            cwd: demo.work.clone(),
            quiet_client: true,
            args: ["-p", "look around", "--output-format", "stream-json"]
                .map(Into::into)
                .to_vec(),
            ..Options::default()
        };
        let mut home = demo.home.clone();
        let mut overlay = None;
        if repaired {
            let made = Overlay::new(Setup {
                real: demo.home.clone(),
                root: scratch.path().join("state/kimi"),
                proxy: format!("http://{}", self.house.address),
                status_command: None,
                env: env.clone(),
            });
            let synced = made.prepare().unwrap();
            for route in synced.routes {
                let place = Place::parse(&route.name, &route.base_url, false).unwrap();
                self.house.proxy.routes.set(place.simulated());
            }
            options.env = synced.env;
            made.root().clone_into(&mut home);
            overlay = Some(made);
        }
        let spec = launch::kimi_code(&self.client, &home, &options, &env);
        let output = run(&spec, &env).await;
        if let Some(overlay) = overlay {
            overlay.finish().unwrap();
        }
        ran(&String::from_utf8_lossy(&output.stdout))
    }
}

/// The tools that a client tells of in its lines of JSON.
fn ran(stdout: &str) -> Vec<Ran> {
    let lines: Vec<Value> = stdout
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect();
    let results: BTreeMap<&str, &str> = lines
        .iter()
        .filter_map(|line| Some((line["tool_call_id"].as_str()?, line["content"].as_str()?)))
        .collect();
    let calls = lines
        .iter()
        .flat_map(|line| line["tool_calls"].as_array().into_iter().flatten());
    calls
        .map(|call| {
            let arguments = call["function"]["arguments"].as_str().unwrap_or_default();
            let result = results.get(call["id"].as_str().unwrap_or_default());
            let taken = result
                .is_some_and(|text| !text.contains("Invalid args") && !text.contains("not found"));
            (
                call["function"]["name"]
                    .as_str()
                    .unwrap_or_default()
                    .to_owned(),
                serde_json::from_str(arguments).unwrap_or_else(|_| json!(arguments)),
                taken,
            )
        })
        .collect()
}

/// What shall run, given what runs when nothing is garbled. Two of the ways put something into the commands.
fn meant(way: Garble, right: &[Ran]) -> Vec<Ran> {
    let more = match way.to_string().as_str() {
        "K17" => "\n",
        "K19" => " # <|tool_call_end|> in a comment",
        _ => "",
    };
    let mut meant = right.to_vec();
    for (_, arguments, _) in &mut meant {
        if let Some(Value::String(command)) = arguments.get_mut("command") {
            command.push_str(more);
        }
    }
    meant
}

/// Whether what ran is what was meant. In K18 a call with arguments that nobody can read stands before the others, and
/// the client's answer to it counts as a step; the others have to be right.
fn is_right(way: Garble, got: &[Ran], meant: &[Ran]) -> bool {
    if way.to_string() == "K18" {
        let others: Vec<_> = got
            .iter()
            .filter(|(_, arguments, _)| *arguments != json!({}))
            .collect();
        return others.len() > 1 && others.iter().all(|call| meant.contains(call));
    }
    got == meant
}

fn told(got: &[Ran]) -> String {
    if got.is_empty() {
        return "no tool ran".to_owned();
    }
    let names = got.iter().map(|(name, arguments, taken)| {
        let mark = if *taken && arguments.is_object() {
            ""
        } else {
            " (refused)"
        };
        format!("{}{mark}", name.trim())
    });
    names.collect::<Vec<_>>().join(", ")
}

/// All ways with one kind of provider.
async fn every_way(kind: &'static str, beside: bool) {
    let stage = Stage::start().await;
    let right = stage.run("K27".parse().unwrap(), kind, false).await;
    assert!(
        right.len() > 2 && right.iter().all(|(.., taken)| *taken),
        "{right:?}"
    );
    let mut runs = JoinSet::new();
    for way in Garble::all() {
        for repaired in [true, false] {
            if repaired || beside {
                let stage = stage.clone();
                runs.spawn(async move { (way, repaired, stage.run(way, kind, repaired).await) });
            }
        }
    }
    let mut with = BTreeMap::new();
    let mut without = BTreeMap::new();
    while let Some(done) = runs.join_next().await {
        let (way, repaired, got) = done.unwrap();
        if repaired { &mut with } else { &mut without }.insert(way, got);
    }
    let mut wrong = Vec::new();
    for (way, got) in &with {
        let meant = meant(*way, &right);
        let fine = is_right(*way, got, &meant);
        let bare = without.get(way).map_or_else(String::new, |bare| {
            let verdict = if is_right(*way, bare, &meant) {
                "right"
            } else {
                "wrong"
            };
            format!("   without repair {verdict}: {}", told(bare))
        });
        let verdict = if fine { "right" } else { "WRONG" };
        println!("{kind} {way}: {verdict}: {}{bare}", told(got));
        if !fine {
            wrong.push(format!("{way}: {got:?}"));
        }
    }
    assert!(wrong.is_empty(), "meant: {right:?}\n{}", wrong.join("\n"));
}

#[tokio::test]
async fn kimi_code_runs_the_right_tools_whatever_chat_garbles() {
    every_way("kimi", true).await;
}

#[tokio::test]
async fn kimi_code_runs_the_right_tools_whatever_messages_garbles() {
    every_way("anthropic", false).await;
}
