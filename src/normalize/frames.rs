//! A stream of server-sent events, cut into its events.
//!
//! An event is everything up to and with its blank line, so that what is untouched can leave as the bytes that came.
//! Lines end with LF, CR LF or CR, as the standard says.

use memchr::memchr2;

/// Finds where events end.
#[derive(Clone, Debug)]
pub(super) struct Ends {
    /// Nothing of the current line came.
    blank: bool,
    /// The last byte was a CR, whose LF may follow.
    cr: bool,
}

impl Default for Ends {
    fn default() -> Self {
        Self {
            blank: true,
            cr: false,
        }
    }
}

impl Ends {
    /// How many of these bytes belong to the event that is open; `None` if all do and it stays open.
    pub(super) fn find(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut at = usize::from(self.takes_lf(bytes));
        while let Some(length) = memchr2(b'\n', b'\r', &bytes[at..]) {
            let blank = length == 0 && self.blank;
            let end = at + length;
            at = end + 1;
            if bytes[end] == b'\r' {
                match bytes.get(at) {
                    Some(b'\n') => at += 1,
                    Some(_) => {}
                    None => self.cr = true,
                }
            }
            self.blank = true;
            if blank {
                return Some(at);
            }
        }
        self.blank &= at == bytes.len();
        None
    }

    /// Whether these bytes begin with the LF of a CR that ended what came before.
    pub(super) fn takes_lf(&mut self, bytes: &[u8]) -> bool {
        !bytes.is_empty() && std::mem::take(&mut self.cr) && bytes[0] == b'\n'
    }
}

/// The fields of one event that matter.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Fields<'a> {
    pub(super) name: Option<&'a [u8]>,
    /// The payload. Events of models have one line of it; more lines are taken for an event that is not theirs.
    pub(super) data: Option<&'a [u8]>,
}

impl<'a> Fields<'a> {
    pub(super) fn of(event: &'a [u8]) -> Self {
        let mut fields = Self::default();
        let mut lines = 0;
        let mut rest = event;
        while !rest.is_empty() {
            let end = memchr2(b'\n', b'\r', rest).unwrap_or(rest.len());
            let line = &rest[..end];
            rest = rest.get(end + 1..).unwrap_or_default();
            if let Some(data) = value(line, b"data:") {
                lines += 1;
                fields.data = Some(data);
            } else if let Some(name) = value(line, b"event:") {
                fields.name = Some(name);
            }
        }
        if lines > 1 {
            fields.data = None;
        }
        fields
    }
}

fn value<'a>(line: &'a [u8], field: &[u8]) -> Option<&'a [u8]> {
    let value = line.strip_prefix(field)?;
    Some(value.strip_prefix(b" ").unwrap_or(value))
}

/// Appends an event.
pub(super) fn write(name: Option<&str>, data: &[u8], out: &mut Vec<u8>) {
    if let Some(name) = name {
        out.extend_from_slice(b"event: ");
        out.extend_from_slice(name.as_bytes());
        out.push(b'\n');
    }
    out.extend_from_slice(b"data: ");
    out.extend_from_slice(data);
    out.extend_from_slice(b"\n\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(chunks: &[&str]) -> Vec<String> {
        let mut ends = Ends::default();
        let mut events = vec![String::new()];
        for chunk in chunks {
            let mut rest = *chunk;
            while let Some(end) = ends.find(rest.as_bytes()) {
                events.last_mut().unwrap().push_str(&rest[..end]);
                events.push(String::new());
                rest = &rest[end..];
            }
            events.last_mut().unwrap().push_str(rest);
        }
        events
    }

    #[test]
    fn events_end_with_a_blank_line() {
        for end in ["\n", "\r\n", "\r"] {
            let text =
                format!(": hi{end}{end}event: x{end}data:1{end}{end}data: 2{end}{end}data: 3");
            let found = events(&[&text]);
            assert_eq!(found.len(), 4, "{found:?}");
            assert_eq!(found[3], "data: 3");
            let fields = Fields::of(found[1].as_bytes());
            assert_eq!(fields.name, Some(&b"x"[..]));
            assert_eq!(fields.data, Some(&b"1"[..]));
            assert_eq!(Fields::of(found[2].as_bytes()).data, Some(&b"2"[..]));
            if end != "\r\n" {
                let bytes: Vec<&str> = text.split_inclusive(|_| true).collect();
                assert_eq!(events(&bytes), found);
            }
        }
        assert_eq!(Fields::of(b"data: 1\ndata: 2\n\n").data, None);
    }
}
