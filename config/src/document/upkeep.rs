//! What keeps a workload's regions in step with people and with each other: maintenance windows, and the hosts on
//! which its databases are salvaged and made standbys again.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::hour::Hour;
use crate::length::Length;

/// A time of each week, in UTC, in which nothing is done without a person.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Maintenance {
    /// The days on which it begins.
    #[schemars(length(min = 1, max = 7), extend("uniqueItems" = true))]
    pub days: Vec<Day>,
    /// When it begins, UTC.
    pub start: Hour,
    /// How long it is open, 1m to 7d.
    #[schemars(extend("x-minimum" = "1m", "x-maximum" = "7d"))]
    pub length: Length,
}

/// A day of the week.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum Day {
    /// The first day of the week (ISO 8601).
    Monday,
    /// The second.
    Tuesday,
    /// The third.
    Wednesday,
    /// The fourth.
    Thursday,
    /// The fifth.
    Friday,
    /// The sixth.
    Saturday,
    /// The last.
    Sunday,
}

impl Day {
    /// From the beginning of Monday to its beginning, in whole days, 0 to 6.
    pub fn since_monday(self) -> Duration {
        Duration::from_secs(self as u64 * 24 * 3600)
    }
}

/// The command that runs `lifeboat host` on the host of a database.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Host {
    /// Program and arguments, never a shell. {region} and {epoch} are replaced.
    #[schemars(length(min = 1, max = 100), inner(length(max = 4096)))]
    pub command: Vec<String>,
    /// How long one request may take, a fresh copy of the database included, 1s to 30d.
    #[serde(default = "four_hours")]
    #[schemars(extend("x-minimum" = "1s", "x-maximum" = "30d"))]
    pub timeout: Length,
}

fn four_hours() -> Length {
    Length::seconds(4 * 3600)
}
