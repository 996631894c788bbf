//! A time of day in UTC, "HH:MM", and how it is read.
//!
//! **Invariant:** a minute of a day: 0 to 1439, so that adding it to a day never reaches the next one.

use std::fmt;
use std::time::Duration;

use crate::form::{Flaw, shown};
use crate::rule::Rule;

/// A time of day in UTC, in minutes from midnight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Hour(u16);

impl Hour {
    /// Reads "HH:MM", 00:00 to 23:59.
    pub(crate) fn read(text: &str) -> Result<Self, Flaw> {
        let digits = |part: &str| {
            let plain = part.len() == 2 && part.bytes().all(|b| b.is_ascii_digit());
            plain.then(|| part.parse::<u16>().ok()).flatten()
        };
        let parts = text.split_once(':').and_then(|(hour, minute)| digits(hour).zip(digits(minute)));
        match parts.filter(|(hour, minute)| *hour < 24 && *minute < 60) {
            Some((hour, minute)) => Ok(Self(hour * 60 + minute)),
            None => {
                let message = format!("\"{}\" is no time of day", shown(text));
                Err(Flaw::new(Rule::BadTime, message, "UTC, 00:00 to 23:59, for example \"02:00\""))
            }
        }
    }

    /// From midnight to it, less than a day.
    pub fn since_midnight(self) -> Duration {
        Duration::from_secs(u64::from(self.0) * 60)
    }
}

impl fmt::Display for Hour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02}:{:02}", self.0 / 60, self.0 % 60)
    }
}

impl serde::Serialize for Hour {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Hour {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <String as serde::Deserialize>::deserialize(deserializer)?;
        Self::read(&text).map_err(serde::de::Error::custom)
    }
}

impl schemars::JsonSchema for Hour {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Hour".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "string", "format": "lifeboat-hour", "pattern": "^([01][0-9]|2[0-3]):[0-5][0-9]$",
            "description": "A time of day in UTC: \"02:00\".",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_day() {
        for (text, minutes) in [("00:00", 0), ("02:30", 150), ("23:59", 1439)] {
            let hour = Hour::read(text).unwrap();
            assert_eq!(hour.since_midnight(), Duration::from_secs(minutes * 60));
            assert_eq!(hour.to_string(), text);
        }
        for text in ["", "2:00", "24:00", "12:60", "12", "+1:00", "12:00:00", "١٢:00", " 2:00"] {
            assert!(Hour::read(text).is_err(), "{text:?}");
        }
    }
}
