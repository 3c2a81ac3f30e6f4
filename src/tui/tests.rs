//! The window as a whole: keys in, actions out; pictures in, an equal terminal out.

use super::Action;
use super::Outer;
use super::Prefix;
use super::Session;
use super::Status;
use super::Tab;
use super::ViewModel;
use super::frame::normalize;
use super::leave;
use crate::terminal::Cell;
use crate::terminal::Exit;
use crate::terminal::Flags;
use crate::terminal::Id;
use crate::terminal::Screen;
use crate::terminal::Signal;
use crate::terminal::Size;
use crate::terminal::State;
use crate::usage::figures::Share;
use proptest::prelude::*;
use std::time::Duration;
use tokio::time::Instant;

const SIZE: Size = Size {
    columns: 80,
    rows: 24,
};

const EXITED: State = State::Exited(Exit {
    code: Some(1),
    signal: None,
});

fn tab(number: u16, state: State) -> Tab {
    Tab {
        number,
        id: Id(u64::from(number) + 100),
        title: format!("title {number}"),
        state,
        wait: None,
        clock: None,
    }
}

fn view(states: &[State]) -> ViewModel {
    ViewModel {
        run: "demo".to_owned(),
        terminals: (1..).zip(states).map(|(n, state)| tab(n, *state)).collect(),
        status: Status {
            queue: 2,
            budget: Some(("generated tokens".to_owned(), Share::of(87, 100))),
            tokens_today: 1_234_567,
            daily_cap: Some(200_000_000),
            notices: vec!["80 % of the day is used".to_owned()],
        },
    }
}

fn session(view: &ViewModel) -> Session {
    let mut session = Session::new(SIZE, Prefix::default());
    session.update(view);
    session
}

fn write(id: u64, bytes: &[u8]) -> Action {
    Action::Write(Id(id), bytes.to_vec())
}

/// All actions but the repaints, with neighbouring writes as one.
fn essence(actions: impl IntoIterator<Item = Action>) -> Vec<Action> {
    let mut kept: Vec<Action> = Vec::new();
    for action in actions {
        match (kept.last_mut(), action) {
            (_, Action::Repaint) => {}
            (Some(Action::Write(id, bytes)), Action::Write(next, more)) if *id == next => {
                bytes.extend(more);
            }
            (_, action) => kept.push(action),
        }
    }
    kept
}

fn type_into(session: &mut Session, bytes: &[u8]) -> Vec<Action> {
    let now = Instant::now();
    let mut actions = session.input(bytes, now);
    actions.extend(session.tick(now + Duration::from_secs(10)));
    essence(actions)
}

/// By its number, which is its id's without the hundred.
fn to_front(session: &mut Session, id: Id) {
    let digit = b'0' + u8::try_from(id.0 - 100).unwrap();
    type_into(session, &[2, digit]);
    assert_eq!(session.focused(), Some(id));
}

#[test]
fn commands_and_everything_else() {
    let all = view(&[State::Idle, State::Working, EXITED]);
    let to = |from: u64, next: u64| {
        vec![
            Action::Focus(Id(from), false),
            Action::Focus(Id(next), true),
        ]
    };
    let cases: &[(&[u8], Vec<Action>)] = &[
        (b"hello\r", vec![write(101, b"hello\r")]),
        ("漢字".as_bytes(), vec![write(101, "漢字".as_bytes())]),
        (b"\x1b", vec![write(101, b"\x1b")]),
        (
            b"\x1b[A\x1bOA\x1b[1;5C\x1bx",
            vec![write(101, b"\x1b[A\x1bOA\x1b[1;5C\x1bx")],
        ),
        (
            b"\x1b[13;2u\x1b[97;5:3u",
            vec![write(101, b"\x1b[13;2u\x1b[97;5:3u")],
        ),
        (
            b"\x03\x04\x0f\x13\x07\x05\x14\x0a\x16",
            vec![write(101, b"\x03\x04\x0f\x13\x07\x05\x14\x0a\x16")],
        ),
        (
            b"a\x02nb",
            vec![
                write(101, b"a"),
                Action::Focus(Id(101), false),
                Action::Focus(Id(102), true),
                write(102, b"b"),
            ],
        ),
        (b"\x02p", to(101, 103)),
        (b"\x022", to(101, 102)),
        (b"\x029", vec![]),
        (b"\x1b[98;5u\x1b[98;5:3un", to(101, 102)),
        (b"\x1b[27;5;98~n", to(101, 102)),
        (b"\x02\x02", vec![write(101, b"\x02")]),
        (
            b"\x1b[98;5u\x1b[98;5:3u\x1b[98;5u\x1b[98;5:3u",
            vec![write(101, b"\x1b[98;5u\x1b[98;5:3u")],
        ),
        (b"\x02c", vec![Action::New]),
        (b"\x02d", vec![Action::Detach]),
        (b"\x02xy", vec![Action::Close(Id(101))]),
        (b"\x02&y", vec![Action::Close(Id(101))]),
        (b"\x02xnq", vec![write(101, b"q")]),
        (b"\x02x\x1b", vec![]),
        (b"\x02?qz", vec![write(101, b"z")]),
        (b"\x02r", vec![]),
        ("\x02é!".as_bytes(), vec![write(101, b"!")]),
        (b"\x02\x1b[Ax", vec![write(101, b"x")]),
        (
            b"\x023r",
            [to(101, 103), vec![Action::Restart(Id(103))]].concat(),
        ),
        (
            b"\x023\x02r",
            [to(101, 103), vec![Action::Restart(Id(103))]].concat(),
        ),
        (
            b"\x023xy",
            [to(101, 103), vec![Action::Close(Id(103))]].concat(),
        ),
        (b"\x023hello", to(101, 103)),
        (
            b"\x1b[200~a\x02n\x1b[A\x1b[201~b",
            vec![
                Action::Paste(Id(101), b"a\x02n\x1b[A".to_vec()),
                write(101, b"b"),
            ],
        ),
        (b"\x02?\x1b[200~lost\x1b[201~", vec![]),
        (
            b"\x1b[200~cut off",
            vec![Action::Paste(Id(101), b"cut off".to_vec())],
        ),
        (
            b"\x1b[O\x1b[I",
            vec![Action::Focus(Id(101), false), Action::Focus(Id(101), true)],
        ),
        (b"\x1b[<0;1;1M\x1b[M !!", vec![]),
        (b"\x1b[?997;1n\x1b[?2026;2$y\x1bP>|xterm\x1b\\", vec![]),
    ];
    for (bytes, expected) in cases {
        let mut session = session(&all);
        assert_eq!(
            type_into(&mut session, bytes),
            *expected,
            "{}",
            bytes.escape_ascii()
        );
    }
}

#[test]
fn a_lone_escape_waits_a_moment_and_no_longer() {
    let mut session = session(&view(&[State::Idle]));
    let now = Instant::now();
    assert_eq!(session.input(b"\x1b", now), []);
    let wake = session.wake().unwrap();
    assert!(wake - now < Duration::from_millis(50));
    assert_eq!(session.tick(now), []);
    assert_eq!(session.tick(wake), [write(101, b"\x1b")]);
    assert_eq!(session.wake(), None);
}

#[test]
fn what_the_outer_terminal_answers_is_learned_and_goes_nowhere() {
    let mut session = session(&view(&[State::Idle]));
    let answers = b"\x1b]10;rgb:ffff/ffff/ffff\x07\x1b]11;rgb:00/80/ff\x1b\\\x1b[?0u\x1b[?62;22c";
    let [Action::Learned(outer)] = type_into(&mut session, answers)[..] else {
        panic!("one answer was expected");
    };
    assert!(outer.kitty);
    let colors = outer.colors.unwrap();
    assert_eq!(
        (
            colors.foreground.r,
            colors.background.g,
            colors.background.b
        ),
        (255, 128, 255)
    );
    let mut poor = self::session(&view(&[State::Idle]));
    assert_eq!(
        type_into(&mut poor, b"\x1b[?1;2c"),
        [Action::Learned(Outer::default())]
    );
}

#[test]
fn the_focus_moves_on_when_its_terminal_is_closed() {
    let mut session = session(&view(&[State::Idle, State::Idle, State::Idle]));
    to_front(&mut session, Id(102));
    let mut fewer = view(&[State::Idle, State::Idle, State::Idle]);
    fewer.terminals.remove(1);
    session.update(&fewer);
    assert_eq!(session.focused(), Some(Id(103)));
    session.update(&view(&[]));
    assert_eq!(session.focused(), None);
    assert_eq!(type_into(&mut session, b"x\x02c"), [Action::New]);
}

#[test]
fn a_new_terminal_that_was_asked_for_is_shown() {
    let mut session = session(&view(&[State::Idle]));
    assert_eq!(session.focused(), Some(Id(101)));
    session.update(&view(&[State::Idle, State::Idle]));
    assert_eq!(session.focused(), Some(Id(101)), "somebody else's");
    type_into(&mut session, b"\x02c");
    session.update(&view(&[State::Idle, State::Idle, State::Idle]));
    assert_eq!(session.focused(), Some(Id(103)));
}

#[test]
fn a_window_without_colours_has_none_of_its_own() {
    let ended = State::Exited(Exit {
        code: Some(1),
        signal: None,
    });
    let all = view(&[ended, State::Working]);
    for (plain, overlay) in [(false, &b""[..]), (true, b""), (true, b"\x02x")] {
        let mut session = session(&all);
        session.set_plain(plain);
        type_into(&mut session, overlay);
        let mut screen = Screen::new(session.terminal_size(), 0);
        screen.feed(b"\x1b[38;5;77mtheirs");
        let painted = session.paint(&all, |_| Some(&screen));
        let text = String::from_utf8(painted).unwrap();
        assert!(text.contains("38;5;77"), "the program keeps its own");
        let others = text.replace("38;5;77", "");
        assert_eq!(!others.contains("8;5;"), plain, "{text:?}");
    }
}

#[test]
fn mouse_reports_reach_a_program_that_asks_in_its_own_place_and_form() {
    let all = view(&[State::Idle]);
    for (ask, expected) in [
        (
            &b"\x1b[?1000h\x1b[?1006h"[..],
            &b"\x1b[<0;5;3M\x1b[<0;5;3m"[..],
        ),
        (b"\x1b[?1000h", b"\x1b[M %#\x1b[M#%#"),
    ] {
        let mut session = session(&all);
        let mut screen = Screen::new(session.terminal_size(), 0);
        screen.feed(ask);
        session.paint(&all, |_| Some(&screen));
        let actions = type_into(
            &mut session,
            b"\x1b[<0;5;4M\x1b[<0;5;4m\x1b[<0;5;1M\x1b[<0;5;24M",
        );
        assert_eq!(actions, [write(101, expected)]);
    }
}

#[test]
fn a_copied_text_reaches_the_clipboard_as_it_was() {
    let fed = Screen::new(SIZE, 0).feed(&super::clipboard("grün\n"));
    assert_eq!(fed.signals, [Signal::Clipboard("grün\n".to_owned())]);
}

/// What a terminal shows that was painted, made comparable.
fn shown(outer: &Screen, size: Size) -> Vec<Vec<Cell>> {
    (0..size.rows)
        .map(|row| {
            let mut cells = outer.row(row).to_vec();
            normalize(&mut cells);
            cells
        })
        .collect()
}

/// One paint after another on one emulator, against a single full one on another.
struct Bench {
    session: Session,
    outer: Screen,
}

impl Bench {
    fn new(view: &ViewModel, size: Size) -> Self {
        let mut session = Session::new(size, Prefix::default());
        session.update(view);
        let mut outer = Screen::new(size, 0);
        outer.feed(&session.enter());
        Self { session, outer }
    }

    fn paint(&mut self, view: &ViewModel, screen: &Screen) {
        let bytes = self.session.paint(view, |_| Some(screen));
        assert!(!bytes.windows(3).any(|part| part == b"[3J"));
        self.outer.feed(&bytes);
    }

    fn assert_equal(&self, view: &ViewModel, screen: &Screen, size: Size) {
        let mut fresh = Self::new(view, size);
        to_front(&mut fresh.session, self.session.focused().unwrap());
        fresh.paint(view, screen);
        for (row, (painted, whole)) in shown(&self.outer, size)
            .iter()
            .zip(shown(&fresh.outer, size))
            .enumerate()
        {
            assert_eq!(painted, &whole, "row {row} of {size:?}");
        }
        let (painted, whole) = (self.outer.cursor(), fresh.outer.cursor());
        assert_eq!(painted.visible, whole.visible);
        if painted.visible {
            assert_eq!(painted, whole);
        }
        assert_eq!(self.outer.modes(), fresh.outer.modes());
    }
}

#[test]
fn the_screen_of_the_program_is_seen_cell_by_cell() {
    let all = view(&[State::Working, State::Idle]);
    let mut bench = Bench::new(&all, SIZE);
    let mut screen = Screen::new(bench.session.terminal_size(), 0);
    screen.feed(
        "\x1b[1;31mred\x1b[0m 漢字 👨‍👩‍👧‍👦👍🏽❤️🇩🇪1️⃣ \x1b[4:3;58:2::1:2:3mcurly\x1b[0m\r\n\x1b]8;id=a;https://example.org\x07link\x1b]8;;\x07\
        \x1b[48;5;99mback\x1b[K\x1b[0m\r\n\x1b[38;2;1;2;3mtrue\x1b[7mcolour\x1b[0m\ttab\x1b[>7u\x1b[?1h\x1b[?2004h\x1b[5 q"
            .as_bytes(),
    );
    bench.paint(&all, &screen);
    for row in 0..22 {
        let mut expected = screen.row(row).to_vec();
        normalize(&mut expected);
        let mut painted = bench.outer.row(row + 1).to_vec();
        normalize(&mut painted);
        assert_eq!(painted, expected, "row {row}");
    }
    let modes = bench.outer.modes();
    assert_eq!((modes.kitty, modes.application_cursor), (7, true));
    assert_eq!(bench.outer.cursor().shape, screen.cursor().shape);
    assert_eq!(bench.outer.cursor().row, screen.cursor().row + 1);
    // Nothing changed: nothing to say.
    assert_eq!(bench.session.paint(&all, |_| Some(&screen)), b"");
    let text = bench.outer.text();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], " 1 ● title 1  2 ○ title 2");
    assert!(lines[23].starts_with(" demo · working"), "{}", lines[23]);
    assert!(lines[23].contains("generated tokens 87 %"), "{}", lines[23]);
}

#[test]
fn half_a_picture_is_not_shown() {
    let all = view(&[State::Working]);
    let mut bench = Bench::new(&all, SIZE);
    let mut screen = Screen::new(bench.session.terminal_size(), 0);
    screen.feed(b"whole");
    bench.paint(&all, &screen);
    screen.feed(b"\x1b[?2026h\x1b[2J\x1b[Hhalf");
    bench.paint(&all, &screen);
    assert!(bench.outer.text().contains("whole"));
    screen.feed(b" and half\x1b[?2026l");
    bench.paint(&all, &screen);
    assert!(bench.outer.text().contains("half and half"));
}

#[test]
fn a_dead_terminal_tells_its_end_and_a_question_is_asked_before_a_close() {
    let all = view(&[EXITED]);
    let mut bench = Bench::new(&all, SIZE);
    let mut screen = Screen::new(bench.session.terminal_size(), 0);
    screen.feed(b"last words");
    bench.paint(&all, &screen);
    let text = bench.outer.text();
    assert!(text.contains("last words"));
    assert!(
        text.contains("exited with code 1 · press r to restart"),
        "{text}"
    );
    bench.session.input(b"\x02x", Instant::now());
    bench.paint(&all, &screen);
    assert!(bench.outer.text().contains("Close terminal 1 title 1?"));
    bench.session.input(b"n\x02?", Instant::now());
    bench.paint(&all, &screen);
    assert!(bench.outer.text().contains("next, previous terminal"));
}

#[test]
fn leaving_undoes_all_that_entering_and_painting_did() {
    let all = view(&[State::Idle]);
    let mut bench = Bench::new(&all, SIZE);
    let before = Screen::new(SIZE, 0).modes();
    let mut screen = Screen::new(bench.session.terminal_size(), 0);
    screen.feed(b"\x1b[>7u\x1b[>4;2m\x1b[?1h\x1b=\x1b[?1003h\x1b[?1006h\x1b[?25l\x1b[3 q");
    bench.paint(&all, &screen);
    assert_ne!(bench.outer.modes(), before);
    bench.outer.feed(leave());
    assert_eq!(bench.outer.modes(), before);
    assert!(bench.outer.cursor().visible);
    assert!(!bench.outer.updating());
}

#[test]
fn every_size_is_painted() {
    let all = view(&[
        State::Idle,
        State::Waiting,
        EXITED,
        State::Asks,
        State::Bypassing,
        State::Starting,
    ]);
    for (columns, rows) in [
        (2, 2),
        (3, 3),
        (5, 4),
        (40, 10),
        (80, 24),
        (200, 50),
        (400, 120),
    ] {
        let size = Size { columns, rows };
        for overlay in [&b""[..], b"\x02?", b"\x02x"] {
            let mut bench = Bench::new(&all, size);
            let mut screen = Screen::new(bench.session.terminal_size(), 10);
            screen.feed("漢字 text\r\n".repeat(200).as_bytes());
            to_front(&mut bench.session, Id(105));
            bench.session.input(overlay, Instant::now());
            bench.paint(&all, &screen);
            if overlay.is_empty() {
                bench.assert_focused_tab(size);
            }
        }
    }
}

impl Bench {
    /// The tab in front is seen whatever does not fit.
    fn assert_focused_tab(&self, size: Size) {
        if size.rows > 3 && size.columns >= 40 {
            let text = self.outer.text();
            let line = text.lines().next().unwrap();
            assert!(line.contains(" 5 ‼"), "{line}");
        }
    }
}

/// Keys, sequences, halves of both, in any order.
fn input() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        any::<u8>().prop_map(|byte| vec![byte]),
        Just(b"\x02".to_vec()),
        Just(b"\x02n".to_vec()),
        Just(b"\x02xy".to_vec()),
        Just(b"\x02?".to_vec()),
        Just(b"\x1b".to_vec()),
        Just(b"\x1b[98;5u".to_vec()),
        Just(b"\x1b[98;5:3u".to_vec()),
        Just(b"\x1b[27;5;98~".to_vec()),
        Just(b"\x1b[200~".to_vec()),
        Just(b"\x1b[201~".to_vec()),
        Just(b"\x1b[A".to_vec()),
        Just(b"\x1bOP".to_vec()),
        Just(b"\x1b[<0;5;4M".to_vec()),
        Just(b"\x1b[M !!".to_vec()),
        Just(b"\x1b]11;rgb:0/0/0\x1b\\".to_vec()),
        Just(b"\x1b[?62c".to_vec()),
        Just(b"\x1b[I".to_vec()),
        Just("é漢👍".as_bytes().to_vec()),
    ];
    prop::collection::vec(piece, 0..30).prop_map(|pieces| pieces.concat())
}

/// What a program may write: text of all widths, moves, colours, clears.
fn output() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        "[a-z ]{0,30}".prop_map(String::into_bytes),
        Just("漢字漢字".as_bytes().to_vec()),
        Just("👨‍👩‍👧‍👦❤️🇩🇪1️⃣e\u{301}".as_bytes().to_vec()),
        Just(b"\r\n".to_vec()),
        (0..60u16, 0..200u16).prop_map(|(r, c)| format!("\x1b[{r};{c}H").into_bytes()),
        (0..110u8).prop_map(|sgr| format!("\x1b[{sgr}m").into_bytes()),
        (0..=255u8).prop_map(|c| format!("\x1b[38;5;{c}m\x1b[48;2;{c};1;2m").into_bytes()),
        Just(b"\x1b[K".to_vec()),
        Just(b"\x1b[2J".to_vec()),
        Just(b"\x1b[3J\x1b[?1049h".to_vec()),
        Just(b"\x1b[?1049l\x1b[?25l".to_vec()),
        Just(b"\x1b[?25h\x1b[?1h\x1b[>5u\x1b[<u\x1b[?1002h".to_vec()),
        Just(b"\x1b[L\x1b[M\x1b[3@\x1b[2P\x1b[S".to_vec()),
        Just(b"\x1b]8;id=x;https://example.org\x07link\x1b]8;;\x07".to_vec()),
        any::<u8>().prop_map(|byte| vec![byte]),
    ];
    prop::collection::vec(piece, 0..20).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(128) })]

    #[test]
    fn any_split_of_the_input_gives_the_same_actions(bytes in input(), cuts in prop::collection::vec(1..8usize, 1..40)) {
        let all = view(&[State::Idle, State::Working, EXITED]);
        let whole = type_into(&mut session(&all), &bytes);
        let mut split = session(&all);
        let now = Instant::now();
        let mut actions = Vec::new();
        let mut rest = &bytes[..];
        for cut in cuts.into_iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (head, tail) = rest.split_at(cut.min(rest.len()));
            actions.extend(split.input(head, now));
            rest = tail;
        }
        actions.extend(split.tick(now + Duration::from_secs(10)));
        prop_assert_eq!(essence(actions), whole);
    }

    #[test]
    fn paints_add_up_to_the_picture(
        steps in prop::collection::vec((output(), 0..4u8), 1..8),
        columns in 2..120u16,
        rows in 2..50u16,
    ) {
        let size = Size { columns, rows };
        let all = view(&[State::Idle, State::Waiting, EXITED]);
        let mut bench = Bench::new(&all, size);
        let mut screen = Screen::new(bench.session.terminal_size(), 50);
        for (bytes, twist) in &steps {
            screen.feed(bytes);
            screen.stop_updating();
            match twist {
                1 => screen.resize(Size { columns: columns + 3, rows: rows / 2 + 2 }),
                2 => { bench.session.input(b"\x02n", Instant::now()); }
                3 => { bench.session.input(b"\x02?", Instant::now()); }
                _ => { bench.session.input(b"\x1b[I", Instant::now()); }
            }
            bench.paint(&all, &screen);
        }
        // An overlay is not part of a fresh session: any key closes it, in front of a dead terminal none does harm.
        bench.session.input(b"\x02?q", Instant::now());
        bench.paint(&all, &screen);
        bench.assert_equal(&all, &screen, size);
    }
}

#[test]
fn a_normal_row_has_no_half_characters() {
    let mut screen = Screen::new(
        Size {
            columns: 4,
            rows: 2,
        },
        0,
    );
    screen.feed("漢字".as_bytes());
    let mut cut = screen.row(0)[1..3].to_vec();
    normalize(&mut cut);
    assert!(cut.iter().all(|cell| {
        cell.c == ' '
            && !cell
                .flags
                .intersects(Flags::WIDE_CHAR | Flags::WIDE_CHAR_SPACER)
    }));
}

/// The first picture as text.
fn painted(session: &mut Session, view: &ViewModel, size: Size) -> String {
    let mut screen = Screen::new(size, 0);
    screen.feed(&session.paint(view, |_| None::<&Screen>));
    screen.text()
}

#[test]
fn the_last_window_asks_before_it_ends_the_run() {
    let view = view(&[State::Idle]);
    let mut session = session(&view);
    session.set_last(true);
    let now = Instant::now();
    let detaches = |session: &mut Session, keys: &[u8]| {
        essence(session.input(keys, now)).contains(&Action::Detach)
    };
    assert!(!detaches(&mut session, b"\x02d"));
    let asked = painted(&mut session, &view, SIZE);
    assert!(asked.contains("`demo` ends with this window"), "{asked}");
    assert!(!detaches(&mut session, b"n"));
    assert!(!detaches(&mut session, b"\x02d"));
    assert!(detaches(&mut session, b"y"));
}

#[test]
fn a_restart_of_what_lives_is_explained() {
    let view = view(&[State::Idle]);
    let mut session = session(&view);
    let now = Instant::now();
    assert_eq!(essence(session.input(b"\x02r", now)), []);
    let told = painted(&mut session, &view, SIZE);
    assert!(told.contains("r is for one that has ended"), "{told}");
    assert_eq!(
        essence(session.input(b"q", now)),
        [],
        "the key closes the box"
    );
    assert_eq!(essence(session.input(b"q", now)), [write(101, b"q")]);
}

#[test]
fn a_narrow_window_keeps_the_time() {
    let mut view = view(&[State::Waiting]);
    let wait = "waits for 131,184 uncached prompt tokens, place 2, about 12 s";
    view.terminals[0].wait = Some(wait.to_owned());
    view.terminals[0].clock = Some("12 s".to_owned());
    let line = |columns: u16| {
        let size = Size { columns, rows: 24 };
        let mut session = Session::new(size, Prefix::default());
        session.update(&view);
        let text = painted(&mut session, &view, size);
        text.lines().last().unwrap().trim().to_owned()
    };
    assert!(line(100).contains(wait), "{}", line(100));
    for columns in [60, 40, 30] {
        let line = line(columns);
        assert!(
            line.contains("waiting in the queue, 12 s"),
            "{columns}: {line}"
        );
    }
    assert!(line(60).contains("queue 2"), "{}", line(60));
}
