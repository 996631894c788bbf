//! Durations as people write them: `250ms`, `5s`, `1h30m`, `30d`.
//!
//! **Invariant:** a number without a unit is never a duration: nobody has to guess what `timeout = 10` is.

use std::fmt;
use std::time::Duration;

use crate::form::{Flaw, text_form};
use crate::rule::Rule;

/// The longest duration taken, ten years: more is a slip of the hand.
const LONGEST: Duration = Duration::from_secs(3650 * 86_400);

/// Units with their length in milliseconds, longest first: that is also the order in which they are combined.
const UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

/// A duration with its units, longest first: "250ms", "5s", "15m", "2h", "30d", "1h30m".
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Length(pub Duration);

impl Length {
    #[cfg(test)]
    pub(crate) const fn millis(millis: u64) -> Self {
        Self(Duration::from_millis(millis))
    }

    pub(crate) const fn seconds(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }
}

text_form! {
    Length, "lifeboat-duration",
    r"^([0-9]+d)?([0-9]+h)?([0-9]+m)?([0-9]+s)?([0-9]+ms)?$",
    "A duration with its units, longest first: \"250ms\", \"5s\", \"15m\", \"2h\", \"30d\", \"1h30m\"."
}

impl Length {
    pub(crate) fn read(text: &str) -> Result<Self, Flaw> {
        let flaw = |message: String, help: &str| Flaw::new(Rule::BadDuration, message, help);
        if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
            let message = format!("`{}` has no unit", crate::form::shown(text));
            return Err(flaw(
                message,
                "say what it counts, for example \"250ms\", \"5s\", \"15m\", \"2h\" or \"30d\"",
            ));
        }
        let unread = || {
            flaw(
                format!("`{}` is not a duration", crate::form::shown(text)),
                "whole numbers with a unit, longest unit first: \"250ms\", \"5s\", \"1h30m\", \"30d\"",
            )
        };
        let too_long = || {
            flaw(format!("`{}` is too long", crate::form::shown(text)), "the most is ten years, \"3650d\"")
        };
        let (mut rest, mut units, mut millis) = (text, UNITS.as_slice(), 0_u64);
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(unread)?;
            let (number, tail) = rest.split_at(digits);
            if number.is_empty() {
                return Err(unread());
            }
            let letters = tail.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(tail.len());
            let (unit, tail) = tail.split_at(letters);
            let place = units.iter().position(|(name, _)| *name == unit).ok_or_else(unread)?;
            let value: u64 = number.parse().map_err(|_| too_long())?;
            millis =
                value.checked_mul(units[place].1).and_then(|v| millis.checked_add(v)).ok_or_else(too_long)?;
            units = &units[place + 1..];
            rest = tail;
        }
        if text.is_empty() {
            return Err(unread());
        }
        let length = Duration::from_millis(millis);
        if length > LONGEST { Err(too_long()) } else { Ok(Self(length)) }
    }
}

impl fmt::Display for Length {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut millis = u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX);
        if millis == 0 {
            return f.write_str("0s");
        }
        for (unit, size) in UNITS {
            if millis >= size {
                write!(f, "{}{unit}", millis / size)?;
                millis %= size;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_and_written() {
        for (text, millis, again) in [
            ("250ms", 250, "250ms"),
            ("5s", 5_000, "5s"),
            ("90s", 90_000, "1m30s"),
            ("15m", 900_000, "15m"),
            ("1h30m", 5_400_000, "1h30m"),
            ("30d", 2_592_000_000, "30d"),
            ("24h", 86_400_000, "1d"),
            ("1d2h3m4s5ms", 93_784_005, "1d2h3m4s5ms"),
            ("0s", 0, "0s"),
            ("3650d", 315_360_000_000, "3650d"),
        ] {
            let length = Length::read(text).unwrap();
            assert_eq!(length, Length::millis(millis), "{text}");
            assert_eq!(length.to_string(), again);
        }
    }

    #[test]
    fn what_is_no_duration() {
        for text in [
            "",
            "5",
            "s",
            "5 s",
            " 5s",
            "5s ",
            "-5s",
            "1.5h",
            "5S",
            "5sec",
            "30m1h",
            "5s5s",
            "3651d",
            "5s7",
            "18446744073709551616ms",
            "18446744073709551615d",
            "99999999999999999999999d",
            "٣s",
            "1h-5s",
        ] {
            assert!(Length::read(text).is_err(), "{text:?}");
        }
    }
}
