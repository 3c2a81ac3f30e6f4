//! Server-sent events, looked at as they pass.
//!
//! A splitter hands out the payload of each `data:` line. A line that lies whole inside one chunk, which is the usual
//! case, is lent and not copied; one that is cut over chunks is gathered, up to a bound, beyond which it is skipped.
//! Lines end with LF, CR LF or CR, as the standard says.

use memchr::memchr2;

/// Longest line that is gathered over chunks. A line may carry a whole tool call, never more than an answer.
const LONGEST_LINE: usize = 1024 * 1024;

/// Splits a stream into the payloads of its `data:` lines.
#[derive(Debug, Default)]
pub(super) struct Splitter {
    line: Vec<u8>,
    skipping: bool,
}

impl Splitter {
    /// Takes the next chunk and calls `see` for each payload that it completes.
    pub(super) fn feed(&mut self, mut chunk: &[u8], mut see: impl FnMut(&[u8])) {
        while let Some(end) = memchr2(b'\n', b'\r', chunk) {
            let (head, rest) = chunk.split_at(end);
            chunk = &rest[1..];
            if self.skipping {
                self.skipping = false;
            } else if self.line.is_empty() {
                payload(head, &mut see);
            } else {
                self.line.extend_from_slice(head);
                payload(&self.line, &mut see);
            }
            self.line.clear();
        }
        if !self.skipping && !chunk.is_empty() {
            if self.line.len() + chunk.len() > LONGEST_LINE {
                self.skipping = true;
                self.line = Vec::new();
            } else {
                self.line.extend_from_slice(chunk);
            }
        }
    }
}

fn payload(line: &[u8], see: &mut impl FnMut(&[u8])) {
    if let Some(data) = line.strip_prefix(b"data:") {
        see(data.strip_prefix(b" ").unwrap_or(data));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn split(chunks: &[&[u8]]) -> Vec<Vec<u8>> {
        let mut seen = Vec::new();
        let mut splitter = Splitter::default();
        for chunk in chunks {
            splitter.feed(chunk, |data| seen.push(data.to_vec()));
        }
        seen
    }

    #[test]
    fn every_line_end_and_prefix_is_understood() {
        let seen = split(&[
            b": comment\r\nevent: x\r\ndata: one\r\n\r\ndata:two\n\ndata:  three\rdata\n\n",
        ]);
        assert_eq!(seen, [b"one".to_vec(), b"two".to_vec(), b" three".to_vec()]);
    }

    #[test]
    fn an_endless_line_is_skipped_and_kept_nowhere() {
        let mut splitter = Splitter::default();
        let piece = vec![b'x'; LONGEST_LINE];
        let mut seen = Vec::new();
        splitter.feed(b"data: ", |data| seen.push(data.to_vec()));
        splitter.feed(&piece, |data| seen.push(data.to_vec()));
        assert!(splitter.line.capacity() == 0);
        splitter.feed(b"tail\ndata: next\n", |data| seen.push(data.to_vec()));
        assert_eq!(seen, [b"next".to_vec()]);
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same_lines(cuts in prop::collection::vec(0usize..80, 0..10)) {
            let text = "data: {\"a\":\"é😀\"}\r\n\r\n: ping\n\ndata:b\r\rdata: [DONE]\n\n".as_bytes();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(text.len())).collect();
            cuts.extend([0, text.len()]);
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|pair| &text[pair[0]..pair[1]]).collect();
            prop_assert_eq!(split(&pieces), split(&[text]));
        }
    }
}
