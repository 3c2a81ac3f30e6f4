//! Stands before the emulator: joins clusters, and knows the modes that the emulator does not.
//!
//! Every call of the parser passes through here. Calls that move the cursor make the joiner forget the last cell;
//! the others leave it. Questions about modes that only we know are answered here, so that replies keep their order.

use super::graphemes::Joiner;
use alacritty_terminal::Term;
use alacritty_terminal::event::Event;
use alacritty_terminal::event::EventListener;
use alacritty_terminal::vte::ansi;
use alacritty_terminal::vte::ansi::Handler;
use alacritty_terminal::vte::ansi::PrivateMode;

/// Synchronized output: the program is in the middle of a frame.
const SYNCHRONIZED: u16 = 2026;
/// Clusters count as one character.
const CLUSTERS: u16 = 2027;
/// Reports of changes between dark and light.
const THEME_REPORTS: u16 = 2031;

/// Modes beside those of the emulator.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Extras {
    pub(crate) updating: bool,
    pub(crate) theme_reports: bool,
    pub(crate) modify_other_keys: u8,
}

/// The emulator with what stands before it.
pub(crate) struct Shim<'a, T> {
    pub(crate) term: &'a mut Term<T>,
    pub(crate) joiner: &'a mut Joiner,
    pub(crate) extras: &'a mut Extras,
    pub(crate) events: &'a T,
}

impl<T: EventListener> Shim<'_, T> {
    fn set(&mut self, mode: PrivateMode, on: bool) {
        match mode.raw() {
            SYNCHRONIZED => self.extras.updating = on,
            THEME_REPORTS => self.extras.theme_reports = on,
            _ => {}
        }
    }
}

/// Calls that leave the cursor where it is.
macro_rules! stays {
    ($($name:ident($($arg:ident: $kind:ty),*);)*) => {
        $(#[inline] fn $name(&mut self $(, $arg: $kind)*) { self.term.$name($($arg),*); })*
    };
}

/// Calls after which nothing may join the last cell.
macro_rules! moves {
    ($($name:ident($($arg:ident: $kind:ty),*);)*) => {
        $(#[inline] fn $name(&mut self $(, $arg: $kind)*) { self.joiner.forget(); self.term.$name($($arg),*); })*
    };
}

impl<T: EventListener> Handler for Shim<'_, T> {
    #[inline]
    fn input(&mut self, c: char) {
        if self.joiner.join(self.term, c) {
            return;
        }
        let cursor = &self.term.grid().cursor;
        let before = (
            (cursor.point.line, cursor.point.column),
            cursor.input_needs_wrap,
        );
        self.term.input(c);
        self.joiner.wrote(self.term, c, before);
    }

    fn set_private_mode(&mut self, mode: PrivateMode) {
        self.joiner.forget();
        self.set(mode, true);
        self.term.set_private_mode(mode);
    }

    fn unset_private_mode(&mut self, mode: PrivateMode) {
        self.joiner.forget();
        self.set(mode, false);
        self.term.unset_private_mode(mode);
    }

    fn report_private_mode(&mut self, mode: PrivateMode) {
        let on = match mode.raw() {
            SYNCHRONIZED => self.extras.updating,
            THEME_REPORTS => self.extras.theme_reports,
            CLUSTERS => {
                // Always so; 3 says "set for good".
                let reply = format!("\x1b[?{CLUSTERS};3$y");
                return self.events.send_event(Event::PtyWrite(reply));
            }
            _ => return self.term.report_private_mode(mode),
        };
        let reply = format!("\x1b[?{};{}$y", mode.raw(), if on { 1 } else { 2 });
        self.events.send_event(Event::PtyWrite(reply));
    }

    fn set_modify_other_keys(&mut self, mode: ansi::ModifyOtherKeys) {
        self.extras.modify_other_keys = match mode {
            ansi::ModifyOtherKeys::Reset => 0,
            ansi::ModifyOtherKeys::EnableExceptWellDefined => 1,
            ansi::ModifyOtherKeys::EnableAll => 2,
        };
    }

    fn report_modify_other_keys(&mut self) {
        let reply = format!("\x1b[>4;{}m", self.extras.modify_other_keys);
        self.events.send_event(Event::PtyWrite(reply));
    }

    fn reset_state(&mut self) {
        self.joiner.forget();
        *self.extras = Extras::default();
        self.term.reset_state();
    }

    stays! {
        set_title(title: Option<String>); bell(); terminal_attribute(attribute: ansi::Attr);
        set_color(index: usize, color: ansi::Rgb); reset_color(index: usize);
        dynamic_color_sequence(prefix: String, index: usize, terminator: &str);
        clipboard_store(kind: u8, base64: &[u8]); clipboard_load(kind: u8, terminator: &str);
        set_hyperlink(link: Option<ansi::Hyperlink>); report_keyboard_mode(); push_keyboard_mode(mode: ansi::KeyboardModes);
        pop_keyboard_modes(count: u16);
        set_keyboard_mode(mode: ansi::KeyboardModes, apply: ansi::KeyboardModesApplyBehavior);
        identify_terminal(intermediate: Option<char>); device_status(kind: usize); report_mode(mode: ansi::Mode);
        text_area_size_pixels(); text_area_size_chars(); set_cursor_style(style: Option<ansi::CursorStyle>);
        set_cursor_shape(shape: ansi::CursorShape); push_title(); pop_title();
    }

    moves! {
        goto(line: i32, column: usize); goto_line(line: i32); goto_col(column: usize); insert_blank(count: usize);
        move_up(count: usize); move_down(count: usize); move_forward(count: usize); move_backward(count: usize);
        move_down_and_cr(count: usize); move_up_and_cr(count: usize); put_tab(count: u16); backspace();
        carriage_return(); linefeed(); substitute(); newline(); set_horizontal_tabstop(); scroll_up(count: usize);
        scroll_down(count: usize); insert_blank_lines(count: usize); delete_lines(count: usize);
        erase_chars(count: usize); delete_chars(count: usize); move_backward_tabs(count: u16);
        move_forward_tabs(count: u16); save_cursor_position(); restore_cursor_position();
        clear_line(mode: ansi::LineClearMode); clear_screen(mode: ansi::ClearMode);
        clear_tabs(mode: ansi::TabulationClearMode); set_tabs(interval: u16); reverse_index();
        set_mode(mode: ansi::Mode); unset_mode(mode: ansi::Mode); set_keypad_application_mode();
        unset_keypad_application_mode(); set_active_charset(index: ansi::CharsetIndex);
        configure_charset(index: ansi::CharsetIndex, charset: ansi::StandardCharset); decaln();
        set_scrolling_region(top: usize, bottom: Option<usize>);
    }
}

/// The emulator's parser would hold back the bytes of a synchronized update; we let them through and hold back the
/// painting instead, so that replies stay in order and no killed program leaves bytes behind.
#[derive(Debug, Default)]
pub(crate) struct Unheld;

impl ansi::Timeout for Unheld {
    fn set_timeout(&mut self, _duration: std::time::Duration) {}

    fn clear_timeout(&mut self) {}

    fn pending_timeout(&self) -> bool {
        false
    }
}
