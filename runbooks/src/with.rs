//! The operands of the deeds that leave them to the page.
//!
//! **Invariant:** a deed takes its own operands and no others; the deeds that only lifeboat can bind take none.
//!
//! In every text `{workload}`, `{run}`, `{epoch}`, `{from}` and `{to}` stand for what the plan binds them to.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use toml::Spanned;
use toml::de::DeValue;

use crate::page::Deed;
use crate::written::{Misread, deserialized, length};

/// The operands of a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum With {
    /// The deed takes none.
    Nothing,
    /// Of `run`.
    Run(RunWith),
    /// Of `http`.
    Http(HttpWith),
    /// Of `sql`.
    Sql(SqlWith),
    /// Of `wait`.
    Wait(WaitWith),
    /// Of `notify` and `approve`.
    Text(TextWith),
}

/// A command on the agent's host: never a shell, unless the page names one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunWith {
    /// Program and arguments.
    pub argv: Vec<String>,
    /// Its whole environment, besides PATH.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
}

/// A request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpWith {
    /// `GET` when left out.
    #[serde(default = "get")]
    pub method: String,
    /// Where to.
    pub url: String,
    /// What is sent.
    pub body: Option<String>,
    /// The statuses that are success; 200 when left out.
    #[serde(default = "fine")]
    pub expect: BTreeSet<u16>,
}

/// A statement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SqlWith {
    /// Where.
    pub on: Side,
    /// Which database of the workload; may be left out when there is one.
    pub database: Option<String>,
    /// One statement. It is repeated after a crash, so it must be harmless to repeat.
    pub statement: String,
    /// The first column of the first row, as text, when the step is to succeed; anything when left out.
    pub expect: Option<String>,
}

/// Whose database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Side {
    /// That of the region which is left, or which returns.
    From,
    /// That of the region where the workload lives at the end.
    To,
}

/// A pause.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WaitWith {
    /// How long.
    #[serde(deserialize_with = "length")]
    pub length: Duration,
}

/// What people are told or asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TextWith {
    /// The text.
    pub text: String,
}

fn get() -> String {
    "GET".to_owned()
}

fn fine() -> BTreeSet<u16> {
    BTreeSet::from([200])
}

impl With {
    /// Reads the operands of a deed that stands at `place`.
    pub(crate) fn read(
        deed: Deed,
        place: Range<usize>,
        operands: Option<Spanned<DeValue<'_>>>,
    ) -> Result<Self, Misread> {
        let takes =
            matches!(deed, Deed::Run | Deed::Http | Deed::Sql | Deed::Wait | Deed::Notify | Deed::Approve);
        let Some(operands) = operands else {
            let problem = format!("\"{deed}\" must say `with` what");
            return if takes { Err(Misread { span: place, problem }) } else { Ok(Self::Nothing) };
        };
        match deed {
            Deed::Run => deserialized(operands).map(Self::Run),
            Deed::Http => deserialized(operands).map(Self::Http),
            Deed::Sql => deserialized(operands).map(Self::Sql),
            Deed::Wait => deserialized(operands).map(Self::Wait),
            Deed::Notify | Deed::Approve => deserialized(operands).map(Self::Text),
            _ => Err(Misread { span: operands.span(), problem: format!("\"{deed}\" takes no `with`") }),
        }
    }
}
