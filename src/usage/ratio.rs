//! Tokens per byte of one model, learned per kind of text.
//!
//! The estimate is a sum: bytes of each class, messages and pictures, each times its own rate. A true count corrects
//! the rates by what each contributed, in logarithms, so that a prompt of tool declarations teaches little about prose.
//! On top stands a check for bias: when the middle one of the last 50 errors is off by over 1 %, all rates move by it.
//!
//! Rates are the one place where this room computes with fractions; counts become whole at its edge.

use crate::usage::{CLASSES, Content};

/// Classes, messages, pictures.
const TERMS: usize = CLASSES + 2;
const PICTURES: usize = CLASSES + 1;

/// Bytes per token at the start, for prose, code, dense text, CJK, tools: from exact counts with the
/// published Kimi K2 vocabulary, escapes included, and a few percent on the safe side.
const START_BYTES: [f64; CLASSES] = [4.6, 4.1, 2.6, 5.0, 4.2];
/// Tokens of the template around a message, and of a picture, at the start.
const START_MESSAGE: f64 = 8.0;
const START_PICTURE: f64 = 1000.0;
/// How far a rate may be learned away from its start.
const RANGE: (f64, f64) = (0.4, 2.5);
/// Pictures differ by their size.
const PICTURE_RANGE: (f64, f64) = (0.05, 10.0);

/// Share of an error that is corrected at once, when many samples are behind.
const STEP: f64 = 0.1;
/// Tokens from which a sample counts in full.
const FULL_SAMPLE: f64 = 1000.0;
/// Fewest tokens that say anything: below, the template's own tokens dominate.
const LEAST_SAMPLE: f64 = 100.0;
/// Errors that are looked at for bias, and the bias that is let be.
const ERRORS: usize = 50;
const TOLERATED: f64 = 0.01;
/// Largest error that is believed, as a logarithm.
const LARGEST_ERROR: f64 = 1.0;

/// Bytes per token of an answer at the start.
const START_OUTPUT: f64 = 3.5;
const OUTPUT_RANGE: (f64, f64) = (1.0, 8.0);

/// What is learned about one model.
#[derive(Clone, Debug)]
pub(super) struct Ratio {
    fixed: bool,
    rates: [f64; TERMS],
    samples: u32,
    errors: Vec<f64>,
    /// Bytes per token of answers.
    output: f64,
}

impl Ratio {
    pub(super) fn new(fixed: Option<u64>) -> Self {
        let mut rates = start();
        if let Some(thousandths) = fixed {
            rates[..CLASSES].fill(1000.0 / float(thousandths));
            rates[CLASSES] = 0.0;
        }
        Self {
            fixed: fixed.is_some(),
            rates,
            samples: 0,
            errors: Vec::new(),
            output: fixed.map_or(START_OUTPUT, |thousandths| float(thousandths) / 1000.0),
        }
    }

    /// Estimated tokens.
    pub(super) fn tokens(&self, content: &Content) -> f64 {
        self.parts(content).iter().sum()
    }

    /// Learns from the true count of this content.
    pub(super) fn learn(&mut self, content: &Content, truth: f64) {
        let parts = self.parts(content);
        let estimated = parts.iter().sum::<f64>();
        if self.fixed || estimated < LEAST_SAMPLE || truth < 1.0 {
            return;
        }
        let error = (truth / estimated)
            .ln()
            .clamp(-LARGEST_ERROR, LARGEST_ERROR);
        let step = STEP.max(1.0 / (f64::from(self.samples) + 1.5)) * (truth / FULL_SAMPLE).min(1.0);
        self.samples = self.samples.saturating_add(1);
        // A share of the whole gets that share of the correction, scaled so that the sum moves by the step.
        let shares = parts.map(|part| part / estimated);
        let squares = shares.iter().map(|share| share * share).sum::<f64>();
        for (rate, share) in self.rates.iter_mut().zip(shares) {
            *rate *= (step * error * share / squares).exp();
        }
        self.errors.push(error);
        if self.errors.len() >= ERRORS {
            let (_, &mut bias, _) = self
                .errors
                .select_nth_unstable_by(ERRORS / 2, f64::total_cmp);
            self.errors.clear();
            if bias.abs() > TOLERATED {
                for rate in &mut self.rates {
                    *rate *= bias.exp();
                }
            }
        }
        self.bound();
    }

    /// Estimated tokens in so many bytes of an answer.
    pub(super) fn output(&self, bytes: u64) -> u64 {
        whole((float(bytes) / self.output).ceil())
    }

    /// Learns from the true count of an answer.
    pub(super) fn learn_output(&mut self, bytes: u64, tokens: u64) {
        if !self.fixed && bytes > 0 && tokens > 0 {
            let sample = float(bytes) / float(tokens);
            let step = STEP * (float(tokens) / 100.0).min(1.0);
            self.output += step * (sample.clamp(OUTPUT_RANGE.0, OUTPUT_RANGE.1) - self.output);
        }
    }

    /// The rates, to be kept over a restart.
    pub(super) fn saved(&self) -> Vec<f64> {
        self.rates.iter().copied().chain([self.output]).collect()
    }

    /// Takes over kept rates; what does not fit is ignored.
    pub(super) fn restore(&mut self, saved: &[f64]) {
        let usable = saved.len() == TERMS + 1 && saved.iter().all(|rate| rate.is_finite());
        if self.fixed || !usable {
            return;
        }
        self.rates.copy_from_slice(&saved[..TERMS]);
        self.output = saved[TERMS].clamp(OUTPUT_RANGE.0, OUTPUT_RANGE.1);
        self.samples = self.samples.max(10);
        self.bound();
    }

    fn parts(&self, content: &Content) -> [f64; TERMS] {
        std::array::from_fn(|term| {
            let amount = match term {
                PICTURES => content.pictures,
                CLASSES => content.messages,
                class => content.bytes[class],
            };
            float(amount) * self.rates[term]
        })
    }

    fn bound(&mut self) {
        for (term, (rate, start)) in self.rates.iter_mut().zip(start()).enumerate() {
            let (least, most) = if term == PICTURES {
                PICTURE_RANGE
            } else {
                RANGE
            };
            *rate = rate.clamp(start * least, start * most);
        }
    }
}

fn start() -> [f64; TERMS] {
    std::array::from_fn(|term| match term {
        PICTURES => START_PICTURE,
        CLASSES => START_MESSAGE,
        class => 1.0 / START_BYTES[class],
    })
}

/// A count as a fraction.
#[expect(
    clippy::cast_precision_loss,
    reason = "counts of bytes and tokens stay far below 2^52"
)]
pub(super) fn float(count: u64) -> f64 {
    count as f64
}

/// A fraction as a count; what is negative is zero.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "negatives were cut off, and the cast saturates"
)]
pub(super) fn whole(fraction: f64) -> u64 {
    fraction.max(0.0).round() as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::usage::Class;

    #[test]
    fn each_class_learns_its_own_rate() {
        let mut ratio = Ratio::new(None);
        for turn in 0..200u64 {
            let mut content = Content::of(Class::Prose, 1000 + turn % 7 * 3000);
            content.bytes[Class::Code as usize] = 1000 + turn % 5 * 4000;
            let truth = float(content.bytes[0]) / 5.0 + float(content.bytes[1]) / 3.0;
            ratio.learn(&content, truth);
        }
        for (class, expected) in [(Class::Prose, 2000.0), (Class::Code, 10_000.0 / 3.0)] {
            let learned = ratio.tokens(&Content::of(class, 10_000));
            assert!(
                (learned / expected - 1.0).abs() < 0.05,
                "{class:?}: {learned}"
            );
        }
    }

    #[test]
    fn a_steady_bias_goes_away_and_a_wild_sample_does_not_stay() {
        let content = Content::of(Class::Code, 33_000);
        let mut ratio = Ratio::new(None);
        for _ in 0..60 {
            ratio.learn(&content, 13_000.0);
        }
        let error = ratio.tokens(&content) / 13_000.0 - 1.0;
        assert!(error.abs() < 0.01, "{error}");
        ratio.learn(&content, 1_000_000.0);
        assert!(ratio.tokens(&content) < 15_000.0);
    }

    #[test]
    fn pictures_cost_what_the_rest_leaves_open() {
        let mut ratio = Ratio::new(None);
        let text = Content::of(Class::Prose, 4600);
        let seen = Content {
            pictures: 1,
            ..text
        };
        for _ in 0..500 {
            ratio.learn(&text, 1000.0);
            ratio.learn(&seen, 1300.0);
        }
        let picture = ratio.tokens(&seen) - ratio.tokens(&text);
        assert!((250.0..350.0).contains(&picture), "{picture}");
    }

    #[test]
    fn kept_rates_come_back_and_nonsense_does_not() {
        let mut ratio = Ratio::new(None);
        ratio.learn(&Content::of(Class::Cjk, 40_000), 15_000.0);
        ratio.learn_output(4000, 500);
        let mut fresh = Ratio::new(None);
        fresh.restore(&ratio.saved());
        assert_eq!(fresh.saved(), ratio.saved());
        let mut same = fresh.clone();
        same.restore(&[f64::NAN; TERMS + 1]);
        same.restore(&[]);
        assert_eq!(same.saved(), fresh.saved());
        same.restore(&[1e9; TERMS + 1]);
        assert!(same.tokens(&Content::of(Class::Code, 3300)) <= 2500.0);
    }
}
