//! What tells two states apart: their whole text, with what makes no difference taken out.
//!
//! Moments are read as how long ago they were, on the clock they were taken from, and older than every length in the policy
//! is just "old". An entry of a list that holds nothing but old moments (a proof, a beat, a move) is left out, and
//! counters that only grow (failures, answers) are cut where no threshold lies beyond.
//!
//! **Invariant:** what is taken out here is taken out of the text only; the states themselves go on whole. Two states that
//! are taken for one differ in nothing that a rule of the model compares.

use std::fmt;

/// Older than this, in milliseconds, is old: beyond every threshold of the model's policy.
const OLD: i64 = 26_000;

/// Numbers from here on are moments.
const MOMENTS: u64 = 1_000_000_000_000;

/// Counters that grow for ever, each cut at a number beyond its threshold.
const COUNTERS: [&str; 4] = ["failures", "hard", "conclusive", "answers"];
const CUT: u64 = 4;

/// A nested part of the text.
#[derive(Clone, Copy, Default)]
struct Part {
    hash: u64,
    /// The entry being read.
    entry: u64,
    /// Whether it has moments, and whether one of them is not old.
    old: bool,
    young: bool,
    /// The same of all entries before.
    any_old: bool,
    any_young: bool,
    list: bool,
}

/// Reads text and keeps its digest.
pub(crate) struct Digest {
    now: u64,
    parts: Vec<Part>,
    word: Word,
    quoted: bool,
    escaped: bool,
    counter: bool,
}

/// The word or number being read.
#[derive(Clone, Copy, Default)]
struct Word {
    hash: u64,
    number: Option<u64>,
    length: usize,
    text: [u8; 12],
}

const fn mix(hash: u64, value: u64) -> u64 {
    let mixed = (hash ^ value).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    mixed ^ (mixed >> 29)
}

impl Digest {
    /// The digest of a value's text, with moments read as seen from `now`.
    pub(crate) fn of(value: &impl fmt::Debug, now: u64) -> u64 {
        Self::of_text(&format!("{value:?}"), now)
    }

    /// The same of text.
    pub(crate) fn of_text(text: &str, now: u64) -> u64 {
        let (parts, word) = (vec![Part::default()], Word::default());
        let mut digest = Self { now, parts, word, quoted: false, escaped: false, counter: false };
        text.bytes().for_each(|byte| digest.take(byte));
        digest.end_word();
        let Part { hash, entry, .. } = digest.parts[0];
        mix(hash, entry)
    }

    fn top(&mut self) -> &mut Part {
        self.parts.last_mut().expect("there is always a part")
    }

    fn end_word(&mut self) {
        let Word { hash, number, length, text } = std::mem::take(&mut self.word);
        if length == 0 {
            return;
        }
        let value = match number {
            Some(moment) if moment >= MOMENTS => {
                let ago = self.now.cast_signed() - moment.cast_signed();
                if ago > OLD {
                    self.top().old = true;
                    u64::MAX
                } else {
                    self.top().young = true;
                    ago.cast_unsigned()
                }
            }
            Some(count) if self.counter => count.min(CUT),
            Some(number) => number,
            None => hash,
        };
        self.counter = COUNTERS.iter().any(|name| name.len() == length && text.starts_with(name.as_bytes()));
        let top = self.top();
        top.entry = mix(top.entry, value);
    }

    fn end_entry(&mut self) {
        let top = self.top();
        if !(top.list && top.old && !top.young) {
            top.hash = mix(top.hash, top.entry);
        }
        top.any_old |= top.old;
        top.any_young |= top.young;
        (top.entry, top.old, top.young) = (0, false, false);
    }

    fn take(&mut self, byte: u8) {
        if self.quoted {
            self.quoted = self.escaped || byte != b'"';
            self.escaped = !self.escaped && byte == b'\\';
            let top = self.top();
            top.entry = mix(top.entry, u64::from(byte));
            return;
        }
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'.' => {
                let word = &mut self.word;
                let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'));
                word.number = match (word.length, word.number, digit) {
                    (0, _, Some(digit)) => Some(digit),
                    (_, Some(number), Some(digit)) => {
                        number.checked_mul(10).and_then(|n| n.checked_add(digit))
                    }
                    _ => None,
                };
                word.hash = mix(word.hash, u64::from(byte));
                if let Some(place) = word.text.get_mut(word.length) {
                    *place = byte;
                }
                word.length += 1;
            }
            b'[' | b'{' | b'(' => {
                self.end_word();
                self.parts.push(Part { list: byte == b'[', ..Part::default() });
            }
            b']' | b'}' | b')' => {
                self.end_word();
                self.end_entry();
                let part = self.parts.pop().expect("a part was opened");
                let Some(top) = self.parts.last_mut() else { return self.parts.push(part) };
                top.entry = mix(mix(top.entry, u64::from(byte)), part.hash);
                top.old |= part.any_old;
                top.young |= part.any_young;
            }
            b',' => {
                self.end_word();
                self.end_entry();
            }
            b'"' => {
                self.end_word();
                self.quoted = true;
            }
            _ => self.end_word(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_makes_no_difference_is_taken_out() {
        let now = 2_000_000_000_000;
        let of = |value: &str| Digest::of_text(value, now);
        assert_eq!(of("[(1999999000000, 1), (1999999999000, 2)]"), of("[(1999999999000, 2)]"));
        assert_ne!(of("[(1999999998000, 1), (1999999999000, 2)]"), of("[(1999999999000, 2)]"));
        assert_ne!(of("{ at: 1999999999000 }"), of("{ at: 1999999998000 }"));
        assert_eq!(of("{ at: 1999999000000 }"), of("{ at: 1999998000000 }"));
        assert_eq!(of("{ failures: 5 }"), of("{ failures: 7 }"));
        assert_ne!(of("{ attempt: 5 }"), of("{ attempt: 7 }"));
        assert_ne!(of("A { b: [] }"), of("A { b: [1] }"));
        assert_ne!(of("[1, 2]"), of("[2, 1]"));
        assert_ne!(of("\"a, b\""), of("\"a b\""));
    }
}
