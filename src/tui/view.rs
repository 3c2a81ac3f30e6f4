//! What is shown around the screens, as plain data, and how it is drawn.
//!
//! One line above the terminal for the tabs, one below for the state of things; a window of three lines has only the
//! tabs, a smaller one nothing. What does not fit is shortened, and the tab in front is always seen.

use super::frame::Area;
use super::frame::Frame;
use crate::terminal::Id;
use crate::terminal::Size;
use crate::terminal::State;
use crate::usage::figures;
use crate::usage::figures::Share;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Color;
use ratatui::style::Style;
use ratatui::text::Line;
use ratatui::text::Span;
use ratatui::widgets::Block;
use ratatui::widgets::Clear;
use ratatui::widgets::Paragraph;
use ratatui::widgets::Widget;
use ratatui::widgets::Wrap;
use unicode_width::UnicodeWidthChar;
use unicode_width::UnicodeWidthStr;

/// Longest title in a tab, in columns.
const TITLE: usize = 24;

/// Everything around the screens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ViewModel {
    /// The run's name.
    pub run: String,
    /// In the order of the tabs.
    pub terminals: Vec<Tab>,
    /// The last line.
    pub status: Status,
}

/// One terminal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tab {
    /// What the user types to reach it, from 1.
    pub number: u16,
    /// Its id.
    pub id: Id,
    /// Its title; control characters are dropped when painted.
    pub title: String,
    /// What it is doing; also tells how it ended.
    pub state: State,
    /// Why and how long it waits, in one sentence.
    pub wait: Option<String>,
    /// The time of it alone, as `4 s`.
    pub clock: Option<String>,
}

/// The status line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// Requests held by the limiter.
    pub queue: usize,
    /// The tightest budget: its name and how much of it is used.
    pub budget: Option<(String, Share)>,
    /// Tokens of the day.
    pub tokens_today: u64,
    /// The cap of the day.
    pub daily_cap: Option<u64>,
    /// Warnings, most important first; the first is shown.
    pub notices: Vec<String>,
}

/// What lies over the terminal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Overlay {
    #[default]
    None,
    Help,
    /// Is this terminal to be closed?
    Close(Id),
    /// Is the run to end with its window?
    End,
    /// Only what has ended can be started again.
    Lives,
}

/// Where the terminal lies in a window of this size.
pub(crate) fn terminal_area(size: Size) -> Area {
    match size.rows {
        0..=2 => Area {
            top: 0,
            rows: size.rows,
        },
        3 => Area { top: 1, rows: 2 },
        rows => Area {
            top: 1,
            rows: rows - 2,
        },
    }
}

/// Draws everything but the screen itself.
pub(crate) fn surround(
    frame: &mut Frame,
    view: &ViewModel,
    focused: Option<Id>,
    overlay: Overlay,
    prefix: &str,
    armed: bool,
) {
    let size = frame.size;
    let area = terminal_area(size);
    let front = view.terminals.iter().find(|tab| Some(tab.id) == focused);
    if area.top > 0 {
        let line = tabs(view, focused, usize::from(size.columns));
        frame.lay(&strip(line, size, 0));
    }
    if area.top + area.rows < size.rows {
        let line = status(view, front, prefix, armed, usize::from(size.columns));
        frame.lay(&strip(line, size, size.rows - 1));
    }
    match (overlay, front) {
        (Overlay::Help, _) => {
            let title = format!(" after {prefix} · any key closes ");
            window(frame, &title, &help(prefix));
        }
        (Overlay::Close(id), _) => window(frame, " close ", &close(view, id)),
        (Overlay::End, _) => {
            let what = format!(
                "Leave? `{}` ends with this window.",
                shortened(&view.run, TITLE)
            );
            let keys = "y: end it    any other key: stay".to_owned();
            window(frame, " detach ", &[what, keys]);
        }
        (Overlay::Lives, _) => {
            let what = "This terminal runs: r is for one that has ended.".to_owned();
            let keys = format!("{prefix} x closes it    any key: go on");
            window(frame, " restart ", &[what, keys]);
        }
        (Overlay::None, Some(tab)) if matches!(tab.state, State::Exited(_)) => {
            ended(frame, tab, area);
        }
        (Overlay::None, None) => {
            let text = format!("no terminal here; {prefix} c starts one");
            window(frame, "", &[text]);
        }
        _ => {}
    }
}

/// One line as wide as the window.
fn strip(line: Line<'_>, size: Size, row: u16) -> Buffer {
    let mut buffer = Buffer::empty(Rect::new(0, row, size.columns, 1));
    let area = buffer.area;
    line.render(area, &mut buffer);
    buffer
}

/// A box in the middle of the window.
fn window(frame: &mut Frame, title: &str, lines: &[String]) {
    let size = frame.size;
    let widest = lines.iter().map(|line| line.width()).max().unwrap_or(0);
    let columns = narrow(widest + 4).min(size.columns);
    let rows = narrow(lines.len() + 2).min(size.rows);
    let area = Rect::new(
        (size.columns - columns) / 2,
        (size.rows - rows) / 2,
        columns,
        rows,
    );
    let mut buffer = Buffer::empty(area);
    Clear.render(area, &mut buffer);
    let text: Vec<Line<'_>> = lines
        .iter()
        .map(|line| Line::from(format!(" {line}")))
        .collect();
    Paragraph::new(text)
        .block(Block::bordered().title(title.to_owned()))
        .wrap(Wrap { trim: false })
        .render(area, &mut buffer);
    frame.lay(&buffer);
    frame.cursor = None;
}

/// Eight lines, so that they fit a window of ten.
fn help(prefix: &str) -> Vec<String> {
    [
        ("n  p", "next, previous terminal"),
        ("1..9 0", "by number; 0 is 10"),
        ("c", "new terminal"),
        ("x  &", "close this terminal"),
        ("r", "restart it, once ended"),
        ("d", "detach; all runs on"),
        ("?", "these keys"),
        (prefix, "is sent to the program"),
    ]
    .iter()
    .map(|(key, what)| format!("{key:<7} {what}"))
    .collect()
}

fn close(view: &ViewModel, id: Id) -> Vec<String> {
    let name = view
        .terminals
        .iter()
        .find(|tab| tab.id == id)
        .map(|tab| format!("{} {}", tab.number, shortened(&tab.title, TITLE)))
        .unwrap_or_default();
    vec![
        format!(
            "Close terminal {}? It ends what runs there.",
            name.trim_end()
        ),
        "y: close    any other key: keep".to_owned(),
    ]
}

/// How a program ended, over the last line of its screen.
fn ended(frame: &mut Frame, tab: &Tab, area: Area) {
    let text = format!(" {} · press r to restart, x to close ", tab.state);
    let columns = usize::from(frame.size.columns);
    let line = Line::from(Span::styled(
        padded(&shortened(&text, columns), columns),
        Style::new().fg(Color::Black).bg(Color::Yellow),
    ));
    let buffer = strip(line, frame.size, (area.top + area.rows).saturating_sub(1));
    frame.lay(&buffer);
    frame.cursor = None;
}

/// A sign and a colour for each state.
fn mark(state: &State) -> (char, Color) {
    match state {
        State::Starting => ('…', Color::DarkGray),
        State::NeedsTrust | State::NeedsApproval => ('!', Color::LightYellow),
        State::Asks => ('?', Color::LightYellow),
        State::Working => ('●', Color::LightGreen),
        State::Waiting => ('◌', Color::LightBlue),
        State::Retrying => ('↻', Color::LightRed),
        State::Idle => ('○', Color::Gray),
        State::Bypassing => ('‼', Color::LightRed),
        State::Exited(_) => ('✕', Color::LightRed),
    }
}

/// The tabs: titles as long as they fit, then numbers only, then only those near the one in front.
fn tabs(view: &ViewModel, focused: Option<Id>, columns: usize) -> Line<'static> {
    let count = view.terminals.len().max(1);
    // Number, sign and the blanks between; a wait has its own words.
    let rest = columns.saturating_sub(view.terminals.len() * 7) / count;
    let longest = if rest < 3 { 0 } else { rest.min(TITLE) };
    let labels: Vec<String> = view
        .terminals
        .iter()
        .map(|tab| label(tab, longest))
        .collect();
    let widths: Vec<usize> = labels.iter().map(|label| label.width()).collect();
    let front = view
        .terminals
        .iter()
        .position(|tab| Some(tab.id) == focused)
        .unwrap_or(0);
    let mut first = 0;
    while first < front && widths[first..=front].iter().sum::<usize>() > columns {
        first += 1;
    }
    let mut spans = Vec::new();
    for (index, (tab, label)) in view.terminals.iter().zip(labels).enumerate().skip(first) {
        let (sign, color) = mark(&tab.state);
        let base = if index == front {
            Style::new().reversed()
        } else {
            Style::new()
        };
        let (before, after) = label.split_once(sign).unwrap_or((&label, ""));
        spans.push(Span::styled(before.to_owned(), base));
        spans.push(Span::styled(sign.to_string(), base.fg(color)));
        spans.push(Span::styled(after.to_owned(), base));
    }
    Line::from(spans)
}

/// ` 2 ◌ 4 s title `; the sign stands before any text that could hold it too, and the time goes before the title where
/// there is little room.
fn label(tab: &Tab, longest: usize) -> String {
    let (sign, _) = mark(&tab.state);
    let clock = tab.clock.as_deref().unwrap_or_default();
    let clock = if clock.width() <= longest { clock } else { "" };
    let left = longest.saturating_sub(clock.width() + usize::from(!clock.is_empty()));
    let left = if left < 3 { 0 } else { left };
    let title = shortened(&tab.title.replace(sign, " "), left);
    let rest = [clock, &title].map(|text| {
        if text.is_empty() {
            String::new()
        } else {
            format!(" {text}")
        }
    });
    format!(" {} {sign}{} ", tab.number, rest.concat())
}

/// The last line: what the terminal in front does on the left, the budgets on the right, a warning in between.
fn status(
    view: &ViewModel,
    front: Option<&Tab>,
    prefix: &str,
    armed: bool,
    columns: usize,
) -> Line<'static> {
    let mut facts = Vec::new();
    if view.status.queue > 0 {
        facts.push(format!("queue {}", view.status.queue));
    }
    if let Some((name, used)) = &view.status.budget {
        facts.push(format!("{} {used}", shortened(name, TITLE)));
    }
    facts.push(match view.status.daily_cap {
        Some(cap) => format!(
            "{}/{} today",
            figures::short(view.status.tokens_today),
            figures::short(cap)
        ),
        None => format!("{} tokens today", figures::short(view.status.tokens_today)),
    });
    let hint = if armed {
        format!("{prefix} …")
    } else {
        format!("{prefix} ?")
    };
    facts.push(hint);
    // What matters less goes first when it gets narrow: the hint, the tokens and the budget; then the words around a time.
    let says = doing(view, front);
    let mut right = format!("{} ", facts.join(" · "));
    let mut left = says.last().cloned().unwrap_or_default();
    'fits: for one in says {
        for kept in (1..=facts.len()).rev() {
            right = format!("{} ", facts[..kept].join(" · "));
            if one.width() + right.width() <= columns {
                left = one;
                break 'fits;
            }
        }
    }
    if left.width() > columns.saturating_sub(right.width()) {
        right = String::new();
    }
    let left = shortened(&left, columns.saturating_sub(right.width()));
    let middle = columns.saturating_sub(left.width() + right.width());
    let notice = view.status.notices.first().map_or(String::new(), |notice| {
        shortened(&format!("  {notice}  "), middle)
    });
    let base = Style::new().fg(Color::White).bg(Color::DarkGray);
    Line::from(vec![
        Span::styled(left, base),
        Span::styled(padded(&notice, middle), base.fg(Color::LightYellow).bold()),
        Span::styled(shortened(&right, columns), base),
    ])
}

/// What the terminal in front does: in a sentence, in a few words, in fewer.
fn doing(view: &ViewModel, front: Option<&Tab>) -> Vec<String> {
    let run = shortened(&view.run, TITLE);
    let Some(tab) = front else {
        return vec![format!(" {run}")];
    };
    let state = tab.state;
    let full = match &tab.wait {
        Some(wait) if state == State::Waiting => wait.clone(),
        Some(wait) => format!("{state}: {wait}"),
        None => state.to_string(),
    };
    let short = match &tab.clock {
        Some(clock) => format!("{state}, {clock}"),
        None => state.to_string(),
    };
    vec![
        format!(" {run} · {full}"),
        format!(" {run} · {short}"),
        format!(" {short}"),
    ]
}

/// Text without control characters that takes at most `columns`; a cut is shown.
fn shortened(text: &str, columns: usize) -> String {
    let clean: String = text.chars().filter(|c| !c.is_control()).collect();
    if clean.width() <= columns {
        return clean;
    }
    let mut kept = String::new();
    let mut width = 0;
    for c in clean.chars() {
        width += c.width().unwrap_or(0);
        if width + 1 > columns {
            break;
        }
        kept.push(c);
    }
    if columns > 0 {
        kept.push('…');
    }
    kept
}

fn padded(text: &str, columns: usize) -> String {
    let missing = columns.saturating_sub(text.width());
    format!("{text}{}", " ".repeat(missing))
}

fn narrow(length: usize) -> u16 {
    u16::try_from(length).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_cut_by_columns_and_loses_its_control_characters() {
        for (text, columns, expected) in [
            ("abc", 3, "abc"),
            ("abcd", 3, "ab…"),
            ("漢字漢字", 5, "漢字…"),
            ("漢字漢字", 4, "漢…"),
            ("a\x1b[2Jb", 9, "a[2Jb"),
            ("abc", 0, ""),
        ] {
            assert_eq!(shortened(text, columns), expected);
        }
    }
}
