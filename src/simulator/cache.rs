//! The prompt cache of the serving replicas: a pure core that takes `now`.
//!
//! A prompt is cut into blocks of equal length. Each block is named by the hash of itself and of everything before it, so
//! that a block is known exactly when the whole prefix up to its end is known. A request finds the longest known
//! prefix in whole blocks, on its replica only.

use std::collections::HashMap;
use std::hash::DefaultHasher;
use std::hash::Hasher;

/// Bytes of message text that make one token, the stand-in for the true tokenizer.
pub(super) const BYTES_PER_TOKEN: u64 = 4;

/// A prompt cut into blocks while its text is fed in; text that only differs in how it is split gives the same blocks.
#[derive(Debug)]
pub(super) struct Prefix {
    block_bytes: usize,
    hasher: DefaultHasher,
    filled: usize,
    bytes: u64,
    blocks: Vec<u64>,
}

impl Prefix {
    /// For blocks of `block` tokens; with 0 only the length is counted.
    pub(super) fn new(block: u64) -> Self {
        Self {
            block_bytes: usize::try_from(block * BYTES_PER_TOKEN).unwrap_or(usize::MAX),
            hasher: DefaultHasher::new(),
            filled: 0,
            bytes: 0,
            blocks: Vec::new(),
        }
    }

    pub(super) fn feed(&mut self, text: &str) {
        self.bytes += text.len() as u64;
        if self.block_bytes == 0 {
            return;
        }
        let mut rest = text.as_bytes();
        while !rest.is_empty() {
            let (part, after) = rest.split_at(rest.len().min(self.block_bytes - self.filled));
            self.hasher.write(part);
            self.filled += part.len();
            if self.filled == self.block_bytes {
                self.blocks.push(self.hasher.finish());
                self.filled = 0;
            }
            rest = after;
        }
    }

    /// Length of the text so far in stand-in tokens.
    pub(super) fn tokens(&self) -> u64 {
        self.bytes.div_ceil(BYTES_PER_TOKEN)
    }

    pub(super) fn into_blocks(self) -> Vec<u64> {
        self.blocks
    }
}

/// The cache of one replica.
#[derive(Debug)]
pub(super) struct Cache {
    lifetime: f64,
    /// Blocks held at most.
    capacity: usize,
    used: HashMap<u64, f64>,
}

impl Cache {
    pub(super) fn new(lifetime: f64, capacity: usize) -> Self {
        Self {
            lifetime,
            capacity,
            used: HashMap::new(),
        }
    }

    /// How many leading blocks are held. A use renews their life.
    pub(super) fn hit(&mut self, now: f64, blocks: &[u64]) -> usize {
        let mut found = 0;
        for block in blocks {
            match self.used.get_mut(block) {
                Some(last) if now - *last < self.lifetime => *last = now,
                _ => break,
            }
            found += 1;
        }
        found
    }

    /// Holds a prompt from now on.
    pub(super) fn insert(&mut self, now: f64, blocks: &[u64]) {
        self.used.extend(blocks.iter().map(|block| (*block, now)));
        if self.used.len() > self.capacity {
            self.evict(now);
        }
    }

    /// Drops what is too old, and of the rest the longest unused quarter if there is still too much.
    fn evict(&mut self, now: f64) {
        self.used.retain(|_, last| now - *last < self.lifetime);
        if self.used.len() <= self.capacity {
            return;
        }
        let mut ages: Vec<f64> = self.used.values().copied().collect();
        let quarter = ages.len() / 4;
        let (_, oldest_kept, _) = ages.select_nth_unstable_by(quarter, f64::total_cmp);
        let oldest_kept = *oldest_kept;
        self.used.retain(|_, last| *last >= oldest_kept);
        if self.used.len() > self.capacity {
            self.used.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blocks(text: &str) -> Vec<u64> {
        let mut prefix = Prefix::new(1);
        prefix.feed(text);
        prefix.into_blocks()
    }

    #[test]
    fn the_split_of_a_text_does_not_matter() {
        let mut split = Prefix::new(1);
        for part in ["ab", "", "cdefg", "hij"] {
            split.feed(part);
        }
        assert_eq!(split.tokens(), 3);
        assert_eq!(split.into_blocks(), blocks("abcdefghij"));
    }

    #[test]
    fn only_whole_blocks_of_the_common_beginning_are_found() {
        let mut cache = Cache::new(600.0, 100);
        cache.insert(0.0, &blocks("aaaabbbbcccc"));
        let mut check =
            |text, expected| assert_eq!(cache.hit(1.0, &blocks(text)), expected, "{text}");
        check("aaaabbbbcccc", 3);
        check("aaaabbbbccccdddd", 3);
        check("aaaabbbbcc", 2);
        check("aaaaXbbbcccc", 1);
        check("Xaaabbbbcccc", 0);
        check("bbbbcccc", 0);
    }

    #[test]
    fn an_unused_entry_dies_and_a_used_one_lives_on() {
        let mut cache = Cache::new(10.0, 100);
        cache.insert(0.0, &blocks("aaaabbbb"));
        assert_eq!(cache.hit(9.0, &blocks("aaaa")), 1);
        assert_eq!(
            cache.hit(11.0, &blocks("aaaabbbb")),
            1,
            "the second block was not used"
        );
        assert_eq!(cache.hit(30.0, &blocks("aaaa")), 0);
    }

    #[test]
    fn a_full_cache_drops_the_longest_unused() {
        let mut cache = Cache::new(600.0, 4);
        for (at, text) in [
            (0.0, "aaaa"),
            (1.0, "bbbb"),
            (2.0, "cccc"),
            (3.0, "dddd"),
            (4.0, "eeee"),
        ] {
            cache.insert(at, &blocks(text));
        }
        assert_eq!(cache.hit(5.0, &blocks("aaaa")), 0);
        assert_eq!(cache.hit(5.0, &blocks("eeee")), 1);
        assert!(cache.used.len() <= 4);
    }

    #[test]
    fn without_blocks_only_the_length_counts() {
        let mut prefix = Prefix::new(0);
        prefix.feed("abcdefghi");
        assert_eq!(prefix.tokens(), 3);
        assert!(prefix.into_blocks().is_empty());
    }
}
