//! Real PTYs with plain programs: what goes in, what comes out, how they end, and that nothing is left.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]
#![expect(clippy::panic, reason = "helpers of tests fail by panicking")]

use kimiq::terminal::Ending;
use kimiq::terminal::Event;
use kimiq::terminal::Exit;
use kimiq::terminal::Id;
use kimiq::terminal::Screen;
use kimiq::terminal::Signal;
use kimiq::terminal::Size;
use kimiq::terminal::Spec;
use kimiq::terminal::Terminal;
use kimiq::terminal::become_subreaper;
use kimiq::terminal::end_marked;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

/// Longest wait for anything; a loaded machine takes seconds.
const LONG: Duration = Duration::from_secs(30);

const SIZE: Size = Size {
    columns: 80,
    rows: 24,
};

type Events = mpsc::Receiver<(Id, Event)>;

fn start(script: &str, marker: Option<&str>) -> (Terminal, Events) {
    let (events, receiver) = mpsc::channel(64);
    let mut env: BTreeMap<OsString, OsString> = BTreeMap::from([
        ("PATH".into(), "/usr/bin:/bin".into()),
        ("TERM".into(), "xterm-256color".into()),
        ("LANG".into(), "C.UTF-8".into()),
    ]);
    if let Some((name, value)) = marker.and_then(|marker| marker.split_once('=')) {
        env.insert(name.into(), value.into());
    }
    let spec = Spec {
        id: Id(1),
        program: "sh".into(),
        args: vec!["-c".into(), script.into()],
        env,
        cwd: std::env::temp_dir(),
        size: SIZE,
        scrollback: 100,
        marker: marker.map(str::to_owned),
    };
    let terminal = Terminal::spawn(spec, &TaskTracker::new(), events).unwrap();
    (terminal, receiver)
}

/// Waits until the screen's text pleases.
async fn seen(terminal: &Terminal, what: &str) -> String {
    let mut changes = terminal.changes();
    let look = async {
        loop {
            let text = terminal.screen().text();
            if text.contains(what) {
                return text;
            }
            changes.changed().await.unwrap();
        }
    };
    let found = timeout(LONG, look).await;
    found.unwrap_or_else(|_| panic!("no {what:?} on:\n{}", terminal.screen().text()))
}

async fn ended(terminal: &Terminal) -> Exit {
    timeout(LONG, terminal.ended()).await.unwrap()
}

fn code(code: i32) -> Exit {
    Exit {
        code: Some(code),
        signal: None,
    }
}

/// A marker that no other test and no other run has.
fn marker(name: &str) -> String {
    format!("KIMIQ_RUN={name}-{}", std::process::id())
}

/// Living processes that carry the marker.
fn carriers(marker: &str) -> Vec<i32> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<i32>() else {
            continue;
        };
        // Processes come and go while we look.
        let environment = fs::read(entry.path().join("environ")).unwrap_or_default();
        if environment
            .split(|byte| *byte == 0)
            .any(|entry| entry == marker.as_bytes())
        {
            found.push(pid);
        }
    }
    found
}

#[tokio::test]
async fn keys_reach_the_program_and_its_answer_the_screen() {
    let (terminal, _events) = start("cat", None);
    terminal.write("grün 漢字\r".as_bytes()).unwrap();
    let text = seen(&terminal, "grün 漢字\ngrün 漢字\n").await;
    assert!(text.starts_with("grün"));
    terminal.write(b"\x04").unwrap();
    assert_eq!(ended(&terminal).await, code(0));
    assert!(terminal.write(b"x").is_err());
}

#[tokio::test]
async fn the_last_words_are_on_the_screen_when_the_end_is_told() {
    let (terminal, mut events) = start("printf '\\033]0;ti\\001tle\\007last words'; exit 7", None);
    assert_eq!(ended(&terminal).await, code(7));
    assert_eq!(terminal.screen().text().lines().next(), Some("last words"));
    let mut told = Vec::new();
    while let Some((id, event)) = timeout(LONG, events.recv()).await.unwrap() {
        assert_eq!(id, Id(1));
        told.push(event);
    }
    assert_eq!(
        told,
        [
            Event::Signal(Signal::Title("title".to_owned())),
            Event::Exited(code(7))
        ]
    );
}

#[tokio::test]
async fn a_signal_is_told_from_a_code() {
    let (terminal, _events) = start("kill -TERM $$", None);
    let exit = ended(&terminal).await;
    assert_eq!((exit.code, exit.signal), (None, Some(15)));
}

#[tokio::test]
async fn the_end_is_the_wait_status_even_if_the_pty_is_held_open() {
    let marker = marker("held");
    let (terminal, _events) = start("sleep 1000 & exit 3", Some(&marker));
    assert_eq!(ended(&terminal).await, code(3));
    terminal.end(&Ending::now()).await;
    assert_eq!(carriers(&marker), Vec::<i32>::new());
}

#[tokio::test]
async fn a_size_reaches_emulator_and_program_and_the_last_of_many_wins() {
    let (terminal, _events) = start(
        "trap 'stty size' WINCH; stty size; while :; do sleep 0.05; done",
        None,
    );
    seen(&terminal, "24 80\n").await;
    for columns in 81..=120 {
        terminal.resize(Size { columns, rows: 30 });
    }
    let text = seen(&terminal, "30 120\n").await;
    assert_eq!(terminal.screen().size().columns, 120);
    // The first change at once, the rest as one.
    assert!(
        text.lines().filter(|line| !line.is_empty()).count() <= 4,
        "{text}"
    );
    terminal.end(&Ending::now()).await;
}

#[tokio::test]
async fn a_paste_is_bracketed_only_if_asked_for() {
    let (terminal, mut events) = start("stty raw -echo; printf '\\033[?2004hready'; cat -v", None);
    seen(&terminal, "ready").await;
    assert_eq!(
        timeout(LONG, events.recv()).await.unwrap(),
        Some((Id(1), Event::Ready))
    );
    terminal.paste(b"a\nb\x1b[201~c").unwrap();
    seen(&terminal, "^[[200~a^Mbc^[[201~").await;
    terminal.end(&Ending::now()).await;
}

#[tokio::test]
async fn a_message_ends_with_an_enter_of_its_own() {
    let (terminal, _events) = start("stty raw -echo; printf '\\033[?2004hready'; cat -v", None);
    seen(&terminal, "ready").await;
    terminal.type_message("say hello").await.unwrap();
    seen(&terminal, "^[[200~say hello^[[201~^M").await;
    terminal.end(&Ending::now()).await;
}

#[tokio::test]
async fn focus_is_told_only_to_those_who_ask() {
    let (terminal, _events) = start(
        "stty raw -echo; printf A; read -r _; printf '\\033[?1004hB'; cat -v",
        None,
    );
    seen(&terminal, "A").await;
    terminal.focus(false);
    terminal.write(b"\n").unwrap();
    // It asks only now, and takes itself to be in front: it is told at once that it is not.
    seen(&terminal, "B^[[O").await;
    terminal.focus(true);
    seen(&terminal, "B^[[O^[[I").await;
    terminal.end(&Ending::now()).await;
}

#[tokio::test]
async fn questions_are_answered_in_their_order() {
    let (terminal, _events) = start(
        "stty raw -echo; printf '\\033[?u\\033[?996n\\033[c\\033[6n\\033]11;?\\007\\033[16t'; cat -v",
        None,
    );
    let text = seen(&terminal, "^[[6;18;9t").await;
    let joined: String = text.lines().collect();
    assert_eq!(
        joined,
        "^[[?0u^[[?997;1n^[[?6c^[[1;1R^[]11;rgb:1818/1818/1818^G^[[6;18;9t"
    );
    terminal.end(&Ending::now()).await;
}

#[tokio::test]
async fn output_is_read_while_the_program_takes_no_input() {
    let (terminal, _events) = start(
        "stty raw -echo; printf ready; sleep 1; printf done; sleep 1000",
        None,
    );
    seen(&terminal, "ready").await;
    let much = vec![b'x'; 1024 * 1024];
    for _ in 0..8 {
        terminal.write(&much).unwrap();
    }
    assert!(terminal.write(&much).is_err(), "the queue is bounded");
    seen(&terminal, "done").await;
    terminal.end(&Ending::now()).await;
}

#[tokio::test]
async fn a_half_told_frame_is_shown_after_its_time() {
    let (terminal, _events) = start("printf '\\033[?2026hhalf'; sleep 1000", None);
    seen(&terminal, "half").await;
    assert!(!terminal.screen().updating());
    terminal.end(&Ending::now()).await;
}

/// Everything that usually gets away: `nohup`, a session of its own, a double fork, a cleared environment, deaf ones.
/// Each tells its number when it is there.
const RUNAWAYS: &str = r#"
    nohup sh -c 'echo pid=$$ >/dev/tty; exec sleep 1000' >/dev/null 2>&1 &
    setsid sh -c 'echo pid=$$; exec sleep 1000' &
    (setsid sh -c 'sh -c "echo pid=\$\$; exec sleep 1000" & echo pid=$$; sleep 1000; :' &)
    env -i setsid sh -c 'echo pid=$$; exec sleep 1000' &
    sh -c 'trap "" HUP TERM INT; echo pid=$$; sleep 1000; sleep 1000' &
    exec cat"#;

/// Whether the process runs; one that has ended and waits for its parent does not.
fn runs(pid: &str) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit(") ").next().unwrap().starts_with('Z'))
}

#[tokio::test]
async fn an_end_leaves_nobody() {
    become_subreaper();
    let marker = marker("family");
    let (terminal, _events) = start(RUNAWAYS, Some(&marker));
    let mut changes = terminal.changes();
    let pids = timeout(LONG, async {
        loop {
            let text = terminal.screen().text();
            let pids: Vec<String> = text
                .split_whitespace()
                .filter_map(|word| Some(word.strip_prefix("pid=")?.to_owned()))
                .collect();
            if pids.len() == 6 {
                return pids;
            }
            changes.changed().await.unwrap();
        }
    })
    .await
    .unwrap();
    assert!(pids.iter().all(|pid| runs(pid)));
    // As a host does it: in a task of its own.
    let tasks = TaskTracker::new();
    let exit = tasks
        .spawn(async move {
            let ending = Ending::polite(&[(b"\x04", Duration::from_secs(10))]);
            terminal.end(&ending).await
        })
        .await
        .unwrap();
    assert_eq!(
        exit,
        code(0),
        "the farewell was enough for the program itself"
    );
    let left: Vec<&String> = pids.iter().filter(|pid| runs(pid)).collect();
    assert!(left.is_empty(), "{left:?}");
    assert_eq!(carriers(&marker), Vec::<i32>::new());
}

#[tokio::test]
async fn a_deaf_program_is_killed() {
    let marker = marker("deaf");
    let (terminal, _events) = start(
        "trap '' HUP TERM INT; echo up; while :; do sleep 1; done",
        Some(&marker),
    );
    seen(&terminal, "up").await;
    let exit = terminal
        .end(&Ending::polite(&[(b"\x03", Duration::from_millis(50))]))
        .await;
    assert_eq!(exit.signal, Some(9));
    assert_eq!(carriers(&marker), Vec::<i32>::new());
}

#[tokio::test]
async fn strays_of_an_earlier_host_are_found_by_their_marker() {
    let marker = marker("stray");
    let (terminal, _events) = start(
        "trap '' HUP; setsid sleep 2001 & setsid sleep 2002 & exit 0",
        Some(&marker),
    );
    ended(&terminal).await;
    let strays = carriers(&marker);
    assert_eq!(strays.len(), 2);
    let ended = end_marked(&marker, Duration::from_millis(100)).await;
    assert_eq!(ended.len(), 2);
    assert_eq!(carriers(&marker), Vec::<i32>::new());
}

#[tokio::test]
async fn a_missing_folder_or_program_is_told() {
    let (events, _receiver) = mpsc::channel(1);
    let mut spec = Spec {
        id: Id(1),
        program: "no-such-program".into(),
        args: Vec::new(),
        env: BTreeMap::from([("PATH".into(), "/usr/bin:/bin".into())]),
        cwd: "/no/such/folder".into(),
        size: SIZE,
        scrollback: 0,
        marker: None,
    };
    let tracker = TaskTracker::new();
    let folder = Terminal::spawn(spec.clone(), &tracker, events.clone()).unwrap_err();
    assert!(folder.to_string().contains("/no/such/folder"));
    spec.cwd = std::env::temp_dir();
    let program = Terminal::spawn(spec, &tracker, events).unwrap_err();
    assert!(program.to_string().contains("no-such-program"));
}

#[tokio::test]
async fn the_end_is_told_whatever_was_not_fetched() {
    let script = "i=0; while [ $i -lt 2000 ]; do printf '\\033]133;A\\007\\033]133;B\\007'; i=$((i+1)); done; printf '\\033]9;done\\007'";
    let (terminal, mut events) = start(script, None);
    assert_eq!(ended(&terminal).await, code(0));
    let mut told = Vec::new();
    while let Some((_, event)) = timeout(LONG, events.recv()).await.unwrap() {
        told.push(event);
    }
    assert!(told.len() < 2000, "{} events were kept", told.len());
    assert!(told.contains(&Event::Signal(Signal::Notify("done".to_owned()))));
    assert_eq!(told.last(), Some(&Event::Exited(code(0))));
}

/// What a session of Kimi Code 2.1.0 wrote at 80x24: start, trust question, a message, thinking, an approval, a command,
/// an answer with emoji and a table, two resizes, the end.
const RECORDING: &[u8] = include_bytes!("recordings/kimi-code-2.1.0.bytes");

#[test]
fn a_real_session_gives_the_same_screen_however_it_is_cut() {
    let replay = |chunk: usize| {
        let mut screen = Screen::new(SIZE, 1000);
        let mut replies = Vec::new();
        let mut signals = Vec::new();
        let mut ready = false;
        for part in RECORDING.chunks(chunk) {
            let fed = screen.feed(part);
            replies.extend(fed.replies);
            signals.extend(fed.signals);
            ready |= screen.modes().bracketed_paste;
        }
        // The same signal twice in a row is heard once or twice, as the cut falls.
        signals.dedup();
        assert!(ready || chunk > 4096);
        assert!(!screen.modes().bracketed_paste, "it left politely");
        assert_eq!(screen.modes().kitty, 0);
        let replies = String::from_utf8(replies).unwrap();
        (screen.text(), screen.history(), replies, signals)
    };
    let whole = replay(RECORDING.len());
    for chunk in [1, 7, 4096, 65536] {
        assert_eq!(replay(chunk), whole, "in pieces of {chunk}");
    }
    let (text, history, replies, signals) = whole;
    assert!(history > 0);
    assert!(text.contains("To resume this session"), "{text}");
    // Colour, keyboard, device, colour once more, theme: in the order of the questions.
    assert_eq!(
        replies,
        "\x1b]11;rgb:1818/1818/1818\x07\x1b[?7u\x1b[?6c\x1b]11;rgb:1818/1818/1818\x07\x1b[?997;1n"
    );
    let told: Vec<&Signal> = signals
        .iter()
        .filter(|signal| !matches!(signal, Signal::PromptMark(_)))
        .collect();
    let progress = |mark| Signal::Progress(mark);
    let notify = |text: &str| Signal::Notify(text.to_owned());
    assert_eq!(
        told,
        [
            &progress(3),
            &Signal::Title("please usetool 漢字 now".to_owned()),
            &progress(0),
            &progress(3),
            &progress(0),
            &notify("Kimi Code approval required: Bash"),
            &progress(3),
            &progress(0),
            &progress(3),
            &progress(0),
            &notify("Kimi Code task complete: please usetool 漢字 now"),
        ]
    );
    let marks = |letter| {
        signals
            .iter()
            .filter(|signal| **signal == Signal::PromptMark(letter))
            .count()
    };
    assert!(marks('A') > 0 && marks('B') > 0 && marks('C') > 0);
}

#[test]
fn the_table_of_a_real_answer_has_straight_borders() {
    let mut screen = Screen::new(
        Size {
            columns: 80,
            rows: 200,
        },
        0,
    );
    screen.feed(RECORDING);
    let border = |row: u16| -> Vec<usize> {
        screen
            .row(row)
            .iter()
            .enumerate()
            .filter(|(_, cell)| matches!(cell.c, '│' | '┼' | '├' | '┤'))
            .map(|(column, _)| column)
            .collect()
    };
    let rows: Vec<u16> = (0..200)
        .filter(|row| {
            let line: String = screen.row(*row).iter().map(|cell| cell.c).collect();
            line.contains("thumbs") || line.contains("heart") || line.contains("keycap")
        })
        .filter(|row| border(*row).len() == 4)
        .collect();
    assert!(rows.len() >= 2, "{}", screen.text());
    for row in &rows {
        assert_eq!(border(*row), border(rows[0]), "{}", screen.text());
    }
}

/// Bytes as programs and line noise make them: sequences with any numbers, text of any width, halves.
fn noise() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        any::<Vec<u8>>(),
        "\\PC{0,12}".prop_map(String::into_bytes),
        (
            "[?>=<!]?",
            prop::collection::vec(any::<u16>(), 0..4),
            "[ $'\"]?[@-~]"
        )
            .prop_map(|(mark, numbers, end)| {
                let numbers: Vec<String> = numbers.iter().map(ToString::to_string).collect();
                format!("\x1b[{mark}{}{end}", numbers.join(";")).into_bytes()
            }),
        (0..200u16, 0..200u16)
            .prop_map(|(row, column)| format!("\x1b[{row};{column}H").into_bytes()),
        prop_oneof![
            Just(6),
            Just(7),
            Just(25),
            Just(69),
            Just(1047),
            Just(1049),
            Just(2026)
        ]
        .prop_flat_map(|mode| prop_oneof![
            Just(format!("\x1b[?{mode}h")),
            Just(format!("\x1b[?{mode}l"))
        ])
        .prop_map(String::into_bytes),
        "\\]([0-9]{1,3};){1,2}[a-z?]{0,8}(\u{7}|\u{1b}\\\\)?"
            .prop_map(|text| format!("\x1b{text}").into_bytes()),
        Just("👨‍👩‍👧‍👦🇩🇪❤️1️⃣👍🏽漢e\u{301}".as_bytes().to_vec()),
        Just(b"\r\n\x1bM\x1bD\x1b7\x1b8\x1b[4h\x1b[4l\x1b(0q\x1b(B".to_vec()),
    ];
    prop::collection::vec(piece, 0..25).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(128) })]

    #[test]
    fn nothing_that_is_written_breaks_a_screen_and_no_cut_matters(
        steps in prop::collection::vec((noise(), 0..200u16, 0..80u16), 1..5),
        chunk in 1..9usize,
    ) {
        let mut whole = Screen::new(SIZE, 50);
        let mut cut = Screen::new(SIZE, 50);
        for (bytes, columns, rows) in &steps {
            let replies = whole.feed(bytes).replies;
            let in_parts: Vec<u8> = bytes.chunks(chunk).flat_map(|part| cut.feed(part).replies).collect();
            prop_assert_eq!(replies.escape_ascii().to_string(), in_parts.escape_ascii().to_string());
            for screen in [&mut whole, &mut cut] {
                screen.resize(Size { columns: *columns, rows: *rows });
            }
        }
        prop_assert_eq!(whole.text(), cut.text());
        prop_assert_eq!(whole.cursor(), cut.cursor());
        prop_assert_eq!(whole.modes(), cut.modes());
        prop_assert_eq!(whole.title(), cut.title());
        let cursor = whole.cursor();
        prop_assert!(cursor.row < whole.size().rows && cursor.column < whole.size().columns);
    }
}
