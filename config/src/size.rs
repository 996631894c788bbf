//! Sizes as people write them: `512KiB`, `16MiB`, `1GiB`.
//!
//! **Invariant:** a number without a unit is never a size, and a unit is always a power of 1024 by its name.

use std::fmt;

use crate::form::{Flaw, shown, text_form};
use crate::rule::Rule;

/// Units with their size in bytes, largest first.
const UNITS: [(&str, u64); 5] =
    [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

/// A size in bytes: "512KiB", "16MiB", "1GiB".
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

text_form! {
    Size, "lifeboat-size", r"^[0-9]+(B|KiB|MiB|GiB|TiB)$",
    "A size with its unit: \"0B\", \"512KiB\", \"16MiB\", \"1GiB\"."
}

impl Size {
    pub(crate) fn read(text: &str) -> Result<Self, Flaw> {
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let size = UNITS
            .iter()
            .find(|(name, _)| *name == unit)
            .and_then(|(_, size)| number.parse::<u64>().ok()?.checked_mul(*size));
        size.map(Self).ok_or_else(|| {
            let message = if unit.is_empty() && digits > 0 {
                format!("`{}` has no unit", shown(text))
            } else {
                format!("`{}` is not a size", shown(text))
            };
            let help =
                "a whole number and its unit, B, KiB, MiB, GiB or TiB: \"512KiB\", \"16MiB\", \"1GiB\"";
            Flaw::new(Rule::BadSize, message, help)
        })
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fits = UNITS.iter().find(|(_, size)| self.0 >= *size && self.0.is_multiple_of(*size));
        let (unit, size) = fits.copied().unwrap_or(("B", 1));
        write!(f, "{}{unit}", self.0 / size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_and_written() {
        for (text, bytes) in
            [("0B", 0), ("1B", 1), ("1536B", 1536), ("16MiB", 16 << 20), ("1GiB", 1 << 30), ("3TiB", 3 << 40)]
        {
            assert_eq!(Size::read(text).unwrap(), Size(bytes), "{text}");
            assert_eq!(Size(bytes).to_string(), text);
        }
        assert_eq!(Size::read("2048KiB").unwrap().to_string(), "2MiB");
        for text in ["", "16", "MiB", "16MB", "16 MiB", "-1B", "1.5GiB", "16mib", "99999999TiB", "١B"] {
            assert!(Size::read(text).is_err(), "{text:?}");
        }
    }
}
