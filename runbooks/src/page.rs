//! The page as written: prose, then steps.
//!
//! **Invariant:** the grammar is closed. A step does one [`Deed`], and unknown keys are errors.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use serde::Deserialize;
use serde::de::{Deserializer, Error};

use crate::check::{Flaw, FlawKind};

/// A procedure, by roles.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Runbook {
    /// Its name, as in `lifeboat plan failover`.
    pub name: String,
    /// One line that says when it is for.
    pub title: String,
    /// When to use it, what it costs, when not to.
    pub prose: String,
    /// What is done, in this order.
    #[serde(rename = "step")]
    pub steps: Vec<Step>,
}

/// One step.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// Its name, unique on the page.
    pub name: String,
    /// What it does, for a person.
    pub title: String,
    /// What it does.
    #[serde(rename = "do")]
    pub deed: Deed,
    /// What must have been given by earlier steps.
    #[serde(default)]
    pub needs: BTreeSet<Fact>,
    /// What it gives when it succeeded.
    #[serde(default)]
    pub gives: BTreeSet<Fact>,
    /// How long one attempt may take.
    #[serde(deserialize_with = "length")]
    pub timeout: Duration,
    /// How many attempts are made, 1 or more.
    pub attempts: u32,
    /// How long to wait between two attempts.
    #[serde(deserialize_with = "length")]
    pub pause: Duration,
    /// From the moment this step starts, the only way is forward.
    #[serde(default)]
    pub point_of_no_return: bool,
}

/// What a step can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Deed {
    /// Measure how much the target lacks.
    MeasureLoss,
    /// Make the old primary accept no more writes, and prove it.
    Fence,
    /// Make the target a primary.
    Promote,
    /// Wait until the target commits and its region answers.
    AwaitServing,
    /// Point the workload's names at the target's region.
    SwitchDns,
    /// Ask every name server and a real client.
    Verify,
    /// Put the result on record.
    Report,
}

/// What a step can give to those after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fact {
    /// The loss is measured.
    Loss,
    /// The old primary is proven to take no more writes.
    Fenced,
    /// The target is a primary.
    Primary,
    /// The target's region serves.
    Serving,
    /// The names point at the target.
    Names,
    /// Clients were seen there.
    Verified,
}

impl fmt::Display for Fact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Loss => "loss",
            Self::Fenced => "fenced",
            Self::Primary => "primary",
            Self::Serving => "serving",
            Self::Names => "names",
            Self::Verified => "verified",
        })
    }
}

/// Reads the page, without judging its order.
pub(crate) fn parse(text: &str) -> Result<Runbook, Flaw> {
    toml::from_str(text).map_err(|error| {
        let line = error.span().map_or(1, |span| line_of(text, span.start));
        Flaw { line, kind: FlawKind::Unreadable { problem: error.message().to_owned() } }
    })
}

/// The line, from 1, on which the byte stands.
pub(crate) fn line_of(text: &str, byte: usize) -> usize {
    text.bytes().take(byte).filter(|b| *b == b'\n').count() + 1
}

/// `250ms`, `5s` or `2m`.
fn length<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 =
        number.parse().map_err(|_| D::Error::custom(format!("{text:?} does not begin with a number")))?;
    let millis = match unit {
        "ms" => Some(number),
        "s" => number.checked_mul(1000),
        "m" => number.checked_mul(60_000),
        _ => return Err(D::Error::custom(format!("{text:?} needs a unit: \"ms\", \"s\" or \"m\""))),
    };
    millis.map(Duration::from_millis).ok_or_else(|| D::Error::custom(format!("{text:?} is too long")))
}
