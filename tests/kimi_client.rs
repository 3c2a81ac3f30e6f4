//! The real Kimi Code in an overlay: its requests come to us with the terminal's key, and the user's home stays as it was.
#![cfg(unix)]
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

mod support {
    pub(crate) mod answers;
    pub(crate) mod client;
    pub(crate) mod live;
    pub(crate) mod scratch;
}

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use kimiq::kimi::{
    Client, Environment, Kind, LaunchSpec, Options, Overlay, Setup, Synced, ending, find, launch,
    prepare_demo,
};
use support::answers::{ANSWER, Asked, Upstream};
use support::client::client;
use support::live::{Live, run};
use support::scratch::{Scratch, bare};

/// The client keeps these itself, with or without us.
const CLIENTS_OWN: [&str; 6] = [
    "cache",
    "device_id",
    "logs",
    "session_index.jsonl",
    "sessions",
    "updates",
];

/// Files of a home that are the user's, with their bytes.
fn users_files(home: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![home.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let entry = entry.unwrap();
            let path = entry.path();
            if CLIENTS_OWN
                .iter()
                .any(|own| path.starts_with(home.join(own)))
            {
                continue;
            }
            if entry.file_type().unwrap().is_dir() {
                folders.push(path);
            } else {
                let bytes = fs::read(&path).unwrap();
                found.insert(path, bytes);
            }
        }
    }
    found
}

fn config(provider: &str, alias: &str) -> String {
    format!(
        "# my own file\ndefault_model = \"my.model/1\" # keep\n\n[providers.\"my provider\"]\n{provider}\napi_key = \"sk-mine\"\n\n\
         [models.\"my.model/1\"]\nprovider = \"my provider\"\nmodel = \"kimi-k2.6\"\nmax_context_size = 262144\n{alias}"
    )
}

/// One `kimi -p` in an overlay of a home with this configuration; returns the model requests and the routes.
async fn ask(
    client: &Client,
    text: &str,
    env: &[(&str, &str)],
    files: &[(&str, &str)],
) -> (Vec<Asked>, Vec<(String, String)>) {
    let scratch = Scratch::new("client");
    let upstream = Upstream::start().await;
    let real = scratch.folder("home/.kimi-code");
    scratch.file("home/.kimi-code/config.toml", text);
    for (name, text) in files {
        scratch.file(&format!("home/.kimi-code/{name}"), text);
    }
    // An older kimi-cli's home brings up a migration screen for a home without a marker.
    scratch.folder("home/.kimi");
    let mut env_of_user: Environment = bare(&scratch.path().join("home"));
    env_of_user.extend(env.iter().map(|(name, value)| (name.into(), value.into())));
    let overlay = Overlay::new(Setup {
        real: real.clone(),
        root: scratch.path().join("state/kimi home"),
        proxy: upstream.address.clone(),
        status_command: None,
        env: env_of_user.clone(),
    });
    let synced = overlay.prepare().unwrap();
    let before = users_files(&real);
    let options = Options {
        terminal: "1".to_owned(),
        key: "KEY-OF-TERMINAL-1".to_owned(),
        cwd: scratch.folder("work"),
        quiet_client: true,
        args: ["-p", "say it", "--output-format", "stream-json"]
            .map(Into::into)
            .to_vec(),
        env: synced.env.clone(),
        ..Options::default()
    };
    let spec = launch::kimi_code(client, overlay.root(), &options, &env_of_user);
    let output = run(&spec, &env_of_user).await;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success() && said.contains(ANSWER),
        "{text}\n{said}\n{}\n{:#?}",
        String::from_utf8_lossy(&output.stderr),
        upstream
            .asked()
            .iter()
            .map(|asked| &asked.path)
            .collect::<Vec<_>>()
    );
    overlay.finish().unwrap();
    assert_eq!(users_files(&real), before);
    let routes = synced
        .routes
        .into_iter()
        .map(|route| (route.name, route.base_url))
        .collect();
    (upstream.asked(), routes)
}

/// The request arrives under the provider's route with the key and the user's own credential, and the route leads where
/// the client would have gone.
async fn check(provider: &str, alias: &str, path: &str, true_address: &str) {
    let client = client().await;
    let text = config(provider, alias);
    let (asked, routes) = ask(&client, &text, &[], &[]).await;
    assert_eq!(asked.len(), 1, "{asked:#?}");
    let request = &asked[0];
    assert_eq!(
        (request.method.as_str(), request.path.as_str()),
        ("POST", path)
    );
    assert_eq!(request.headers["x-kimiq-key"], "KEY-OF-TERMINAL-1");
    let credential = request
        .headers
        .get("authorization")
        .map(|value| value.to_str().unwrap().replace("Bearer ", ""));
    let other = ["x-api-key", "x-goog-api-key"]
        .iter()
        .find_map(|name| request.headers.get(*name));
    assert_eq!(
        credential
            .as_deref()
            .or(other.map(|value| value.to_str().unwrap())),
        Some("sk-mine")
    );
    let (name, base) = &routes[0];
    let rest = path.strip_prefix("/p/").unwrap().split_once('/').unwrap().1;
    assert_eq!(format!("{base}/{rest}"), true_address);
    assert!(name.starts_with("my provider"), "{name}");
}

#[tokio::test]
async fn a_kimi_provider_is_led() {
    let provider = "type = \"kimi\"\nbase_url = \"https://upstream.invalid/coding/v1\"";
    let path = "/p/my%20provider/v1/chat/completions";
    check(
        provider,
        "",
        path,
        "https://upstream.invalid/coding/v1/chat/completions",
    )
    .await;
}

#[tokio::test]
async fn an_openai_provider_without_v1_is_led() {
    let provider = "type = \"openai\"\nbase_url = \"https://upstream.invalid/api/\"";
    let path = "/p/my%20provider/chat/completions";
    check(
        provider,
        "",
        path,
        "https://upstream.invalid/api/chat/completions",
    )
    .await;
}

#[tokio::test]
async fn a_responses_provider_with_its_default_address_is_led() {
    let path = "/p/my%20provider/v1/responses";
    check(
        "type = \"openai_responses\"",
        "",
        path,
        "https://api.openai.com/v1/responses",
    )
    .await;
}

#[tokio::test]
async fn an_anthropic_provider_is_led() {
    let provider = "type = \"anthropic\"\nbase_url = \"https://upstream.invalid/v1\"";
    let path = "/p/my%20provider/v1/messages";
    check(provider, "", path, "https://upstream.invalid/v1/messages").await;
}

#[tokio::test]
async fn an_alias_with_another_protocol_and_address_is_led() {
    let provider = "type = \"kimi\"\nbase_url = \"https://unused.invalid/v1\"";
    let alias = "protocol = \"anthropic\"\nbase_url = \"https://upstream.invalid/v1\"\n";
    let path = "/p/my%20provider~my.model%2F1/v1/messages";
    check(
        provider,
        alias,
        path,
        "https://upstream.invalid/v1/messages",
    )
    .await;
}

/// Its dialect cannot be limited; it talks to its own upstream as it would without us.
#[tokio::test]
async fn a_google_provider_stays_direct() {
    let client = client().await;
    let own = Upstream::start().await;
    let provider = format!("type = \"google-genai\"\nbase_url = \"{}\"", own.address);
    let (asked, routes) = ask(&client, &config(&provider, ""), &[], &[]).await;
    assert_eq!((asked.len(), routes.len()), (0, 0));
    let asked: Vec<String> = own.asked().into_iter().map(|asked| asked.path).collect();
    assert_eq!(
        asked,
        ["/v1beta/models/kimi-k2.6:streamGenerateContent?alt=sse"]
    );
}

#[tokio::test]
async fn a_synthetic_model_and_the_user_s_own_headers_are_led() {
    let client = client().await;
    let env = [
        ("KIMI_MODEL_NAME", "kimi-k2.6"),
        ("KIMI_MODEL_API_KEY", "sk-env"),
        ("KIMI_MODEL_BASE_URL", "https://upstream.invalid/v1"),
        ("KIMI_CODE_CUSTOM_HEADERS", "X-Team: blue"),
        ("HTTPS_PROXY", "http://127.0.0.1:9"),
        ("HTTP_PROXY", "http://127.0.0.1:9"),
    ];
    let (asked, routes) = ask(&client, "", &env, &[]).await;
    assert_eq!(asked[0].path, "/p/__kimi_env__/v1/chat/completions");
    assert_eq!(asked[0].headers["x-team"], "blue");
    assert_eq!(asked[0].headers["x-kimiq-key"], "KEY-OF-TERMINAL-1");
    assert_eq!(asked[0].body["model"], "kimi-k2.6");
    assert_eq!(
        routes,
        [(
            "__kimi_env__".to_owned(),
            "https://upstream.invalid".to_owned()
        )]
    );
}

/// The login stays where it is and is used; the model is one that only the overlay declares.
#[tokio::test]
async fn a_login_is_shared_and_its_models_are_led_before_they_are_discovered() {
    let client = client().await;
    let text = "default_model = \"kimi-code/kimi-for-coding\"\n\n[providers.\"managed:kimi-code\"]\ntype = \"kimi\"\n\
        base_url = \"https://api.kimi.com/coding/v1\"\n\n[providers.\"managed:kimi-code\".oauth]\nstorage = \"file\"\nkey = \"oauth/kimi-code\"\n";
    let token = serde_json::json!({
        "access_token": "ACCESS", "refresh_token": "REFRESH", "scope": "kimi-code", "token_type": "Bearer",
        "expires_in": 4_000_000_000_u64, "expires_at": 6_000_000_000_u64,
    });
    let files = [("credentials/kimi-code.json", token.to_string())];
    let files = files.each_ref().map(|(name, text)| (*name, text.as_str()));
    let (asked, routes) = ask(&client, text, &[], &files).await;
    assert_eq!(asked[0].path, "/p/managed%3Akimi-code/v1/chat/completions");
    assert_eq!(asked[0].headers["authorization"], "Bearer ACCESS");
    assert_eq!(asked[0].headers["x-msh-platform"], "kimi_code_cli");
    assert_eq!(asked[0].body["model"], "kimi-for-coding");
    assert_eq!(
        routes,
        [(
            "managed:kimi-code".to_owned(),
            "https://api.kimi.com/coding".to_owned()
        )]
    );
}

#[tokio::test]
async fn the_installed_client_is_found_and_known_by_its_files() {
    let client = client().await;
    let bin = client.path_first.clone().unwrap();
    let env: Environment = [("PATH".into(), bin.into_os_string())].into();
    let found = find(None, &env, Path::new("/nowhere")).await.unwrap();
    assert_eq!(
        (found.kind, found.version.as_deref()),
        (Kind::KimiCode, Some(kimiq::kimi::KIMI_CODE_VERSION))
    );
    assert_eq!(found.path_first, client.path_first);
}

/// A live client's set-up: an overlay over `real`, working in `work`.
struct Stage {
    overlay: Overlay,
    synced: Synced,
    env: Environment,
    work: PathBuf,
}

impl Stage {
    fn new(scratch: &Scratch, real: PathBuf, work: PathBuf, upstream: &Upstream) -> Self {
        let env = bare(&scratch.folder("person"));
        let overlay = Overlay::new(Setup {
            real,
            root: scratch.path().join("state/kimi"),
            proxy: upstream.address.clone(),
            status_command: Some("printf 'terminal %s in line' \"$KIMIQ_TERMINAL\"".to_owned()),
            env: env.clone(),
        });
        let synced = overlay.prepare().unwrap();
        Self {
            overlay,
            synced,
            env,
            work,
        }
    }

    fn spec(&self, client: &Client, resume: Option<&str>) -> LaunchSpec {
        let options = Options {
            terminal: "7".to_owned(),
            key: "KEY".to_owned(),
            cwd: self.work.clone(),
            resume: resume.map(str::to_owned),
            quiet_client: true,
            env: self.synced.env.clone(),
            ..Options::default()
        };
        launch::kimi_code(client, self.overlay.root(), &options, &self.env)
    }
}

#[tokio::test]
async fn the_demo_asks_nothing_tells_its_state_and_can_be_resumed() {
    let client = client().await;
    let scratch = Scratch::new("demo");
    let upstream = Upstream::start().await;
    let demo = prepare_demo(&scratch.folder("demo"), "https://upstream.invalid", 1).unwrap();
    let stage = Stage::new(&scratch, demo.home, demo.work, &upstream);

    let mut live = Live::start(&stage.spec(&client, None), &stage.env);
    let start = live.until("terminal 7 in line").await;
    assert!(!start.contains("Trust this folder"), "{start}");
    live.line("say it please").await;
    live.until("\x1b]9;4;3").await;
    live.until("]9;Kimi Code task complete").await;
    assert!(
        upstream
            .asked()
            .iter()
            .any(|asked| asked.path == "/p/simulated/v1/chat/completions")
    );
    let [(interrupt, _), (leave, _)] = ending::FAREWELLS;
    live.write(interrupt);
    live.until("Press Ctrl+C again").await;
    live.write(leave);
    let (code, farewell) = live.end().await;
    let session = ending::session_in_farewell(&farewell).unwrap();
    assert!(ending::is_session(Kind::KimiCode, session), "{farewell}");
    assert_eq!(code, 0);

    let mut again = Live::start(&stage.spec(&client, Some(session)), &stage.env);
    again.until(ANSWER).await;
    again.write(b"\x1b[O");
    again.line("/exit").await;
    assert_eq!(again.end().await.0, 0);
}

#[tokio::test]
async fn a_model_chosen_inside_is_carried_back_and_nothing_else() {
    let client = client().await;
    let scratch = Scratch::new("model");
    let upstream = Upstream::start().await;
    // The demo's folder is trusted, so that no question stands in the way.
    let demo = prepare_demo(&scratch.folder("demo"), "https://upstream.invalid", 1).unwrap();
    let config = demo.home.join("config.toml");
    let text = format!(
        "# mine\n{}\n[models.second] # another\nprovider = \"simulated\"\nmodel = \"kimi-k2.5\"\nmax_context_size = 262144\n",
        fs::read_to_string(&config).unwrap()
    );
    kimiq::fsx::write_atomic(&config, text.as_bytes(), 0o600).unwrap();
    let stage = Stage::new(&scratch, demo.home, demo.work, &upstream);
    let mut watch = stage.overlay.watch().unwrap();

    let mut live = Live::start(&stage.spec(&client, None), &stage.env);
    live.until("terminal 7 in line").await;
    live.line("/model second").await;
    live.until("Enter select").await;
    live.write(b"\r");
    live.until("Switched to").await;
    let expected = text.replace(
        "default_model = \"kimi-k2.6\"",
        "default_model = \"second\"",
    ) + "\n[thinking]\nenabled = false\n";
    tokio::time::timeout(std::time::Duration::from_mins(1), async {
        while fs::read_to_string(&config).unwrap() != expected {
            watch.changed().await;
            assert!(stage.overlay.sync().unwrap().patched.is_empty());
        }
    })
    .await
    .unwrap_or_else(|_| panic!("{}", fs::read_to_string(&config).unwrap()));
    live.line("/exit").await;
    assert_eq!(live.end().await.0, 0);
    stage.overlay.finish().unwrap();
    assert_eq!(fs::read_to_string(&config).unwrap(), expected);
}
