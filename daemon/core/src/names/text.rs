//! The text of a name, which is copied with every sighting, reason and record: a short one lies in the name itself and is
//! copied without an allocation, a long one is shared.
//!
//! **Invariant:** a text that fits is never kept long, and what is behind its end is zero: so equal texts have equal bytes,
//! and the order of the bytes, then of the lengths, is the order of the texts.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// How many bytes fit: with the two bytes for their number and the variant, as large as a `String`.
const FITS: usize = 22;

/// The text of a name.
#[derive(Clone)]
pub(super) enum Text {
    Short([u8; FITS], u8),
    Long(Arc<str>),
}

impl Text {
    pub(super) fn new(text: &str) -> Self {
        let mut bytes = [0; FITS];
        match (bytes.get_mut(..text.len()), u8::try_from(text.len())) {
            (Some(room), Ok(length)) => {
                room.copy_from_slice(text.as_bytes());
                Self::Short(bytes, length)
            }
            _ => Self::Long(text.into()),
        }
    }

    pub(super) fn as_str(&self) -> &str {
        match self {
            // Made of a text, so it is one; without `unsafe` that is looked at again.
            Self::Short(..) => std::str::from_utf8(self.bytes()).unwrap_or_default(),
            Self::Long(text) => text,
        }
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Self::Short(bytes, length) => &bytes[..usize::from(*length).min(FITS)],
            Self::Long(text) => text.as_bytes(),
        }
    }
}

/// The bytes as numbers of the same order.
#[inline]
fn ranked(bytes: &[u8; FITS]) -> (u128, u64) {
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, q, r, s, t, u, v] = *bytes;
    let high = u128::from_be_bytes([a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p]);
    (high, u64::from_be_bytes([0, 0, q, r, s, t, u, v]))
}

impl PartialEq for Text {
    #[inline]
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Short(a, n), Self::Short(b, m)) => n == m && ranked(a) == ranked(b),
            (Self::Long(a), Self::Long(b)) => a == b,
            _ => false,
        }
    }
}

impl Eq for Text {}

impl PartialOrd for Text {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Text {
    #[inline]
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Short(a, n), Self::Short(b, m)) => (ranked(a), n).cmp(&(ranked(b), m)),
            _ => self.bytes().cmp(other.bytes()),
        }
    }
}

impl Hash for Text {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.bytes().hash(state);
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl Serialize for Text {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|text| Self::new(&text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_kept_and_ordered_as_a_string_is() {
        let long = "a region with a name that is too long to lie in it";
        let all = [
            "",
            "a",
            "a\0",
            "a\0b",
            "ab",
            "east",
            "eas\u{7a}",
            "ü",
            "exactly-twenty-two-byt",
            "exactly-twenty-two-byte",
            long,
        ];
        for a in all {
            let text = Text::new(a);
            assert_eq!(text.as_str(), a);
            assert_eq!(matches!(text, Text::Short(..)), a.len() <= 22, "{a}");
            assert_eq!(format!("{text:?}"), format!("{a:?}"));
            assert_eq!(serde_json::to_string(&text).unwrap(), serde_json::to_string(a).unwrap());
            let read: Text = serde_json::from_str(&serde_json::to_string(a).unwrap()).unwrap();
            assert_eq!(read, text);
            for b in all {
                assert_eq!(text.cmp(&Text::new(b)), a.cmp(b), "{a:?} and {b:?}");
                assert_eq!(text == Text::new(b), a == b, "{a:?} and {b:?}");
            }
        }
        assert_eq!(size_of::<Text>(), size_of::<String>());
    }
}
