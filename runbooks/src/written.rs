//! Reading: from the text of a page to its steps, without judging what they mean together.
//!
//! **Invariant:** each step is read by itself, so that one that cannot be read hides nothing about the others.
//! **Invariant:** unknown keys are errors, at every depth; lengths of time carry a unit.

use std::collections::BTreeSet;
use std::ops::Range;
use std::time::Duration;

use serde::Deserialize;
use serde::de::{DeserializeOwned, Deserializer, Error};
use toml::Spanned;
use toml::de::{DeTable, DeValue, ValueDeserializer};

use crate::flaw::{Flaw, FlawKind};
use crate::page::{Deed, Fact, Kind, Runbook, Step, Undo, When};
use crate::place::Places;
use crate::with::With;

/// What could be read of a page, and what could not.
pub(crate) struct Reading {
    /// The page, when all of it could be read.
    pub(crate) page: Option<Runbook>,
    /// Its kind, and each step that could be read with its place on the page.
    pub(crate) steps: Option<(Kind, Vec<(usize, Step)>)>,
    /// What could not be read.
    pub(crate) flaws: Vec<Flaw>,
}

/// A part of a page that is not what it should be.
pub(crate) struct Misread {
    /// Where it stands, in bytes.
    pub(crate) span: Range<usize>,
    /// What the reader says.
    pub(crate) problem: String,
}

/// What stands above the steps.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    name: String,
    kind: Kind,
    title: String,
    prose: String,
    #[serde(default, deserialize_with = "maybe_length")]
    deadline: Option<Duration>,
}

/// A step as it stands on the page, but for its operands.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    name: String,
    title: String,
    #[serde(rename = "do")]
    deed: Deed,
    #[serde(default)]
    needs: BTreeSet<Fact>,
    #[serde(default)]
    gives: BTreeSet<Fact>,
    after: Option<BTreeSet<String>>,
    parallel: Option<String>,
    #[serde(deserialize_with = "length")]
    timeout: Duration,
    retry: Option<Retry>,
    #[serde(default)]
    when: BTreeSet<When>,
    undo: Option<WrittenUndo>,
    approve: Option<String>,
    #[serde(default)]
    point_of_no_return: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Retry {
    attempts: u32,
    #[serde(deserialize_with = "length")]
    pause: Duration,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenUndo {
    #[serde(rename = "do")]
    deed: Deed,
}

/// Reads a page.
pub(crate) fn read(text: &str) -> Reading {
    let (document, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        let flaws = errors.into_iter().map(|error| misread(error, 0..0).flaw(text)).collect();
        return Reading { page: None, steps: None, flaws };
    }
    let (span, mut table) = (document.span(), document.into_inner());
    let mut flaws = Vec::new();
    let steps = match table.remove("step") {
        None => Vec::new(),
        Some(value) => entries(text, value, &mut flaws),
    };
    let header: Option<Header> =
        keep(text, deserialized(Spanned::new(span, DeValue::Table(table))), &mut flaws);
    let written = steps.len();
    let steps: Vec<(usize, Step)> = (0..)
        .zip(steps)
        .filter_map(|(index, value)| Some((index, keep(text, step(value), &mut flaws)?)))
        .collect();
    let Some(header) = header else { return Reading { page: None, steps: None, flaws } };
    let kind = header.kind;
    let whole = flaws.is_empty() && steps.len() == written;
    let page = whole.then(|| header.over(steps.iter().map(|(_, step)| step.clone()).collect()));
    Reading { page, steps: Some((kind, steps)), flaws }
}

impl Header {
    fn over(self, steps: Vec<Step>) -> Runbook {
        let Self { name, kind, title, prose, deadline } = self;
        Runbook { name, kind, title, prose, deadline, steps }
    }
}

/// The tables of the steps.
fn entries<'t>(text: &str, value: Spanned<DeValue<'t>>, flaws: &mut Vec<Flaw>) -> Vec<Spanned<DeValue<'t>>> {
    let span = value.span();
    match value.into_inner() {
        DeValue::Array(steps) => steps.into_iter().collect(),
        _ => {
            let problem = "steps begin with [[step]]".to_owned();
            flaws.push(Flaw::at(text, span, FlawKind::Unreadable { problem }));
            Vec::new()
        }
    }
}

/// One step with its operands, each read where it stands.
fn step(mut value: Spanned<DeValue<'_>>) -> Result<Step, Misread> {
    let place = place_of(&value, "do");
    let with = taken(&mut value, "with");
    let (undo_place, undo_with) = match value.get_mut() {
        DeValue::Table(step) => step.get_mut("undo").map(|undo| (undo.span(), taken(undo, "with"))),
        _ => None,
    }
    .unwrap_or((place.clone(), None));
    let written: Written = deserialized(value)?;
    let retry = written.retry.unwrap_or(Retry { attempts: 1, pause: Duration::ZERO });
    let undo = match written.undo {
        Some(undo) => Some(Undo { deed: undo.deed, with: With::read(undo.deed, undo_place, undo_with)? }),
        None => None,
    };
    Ok(Step {
        with: With::read(written.deed, place, with)?,
        undo,
        name: written.name,
        title: written.title,
        deed: written.deed,
        needs: written.needs,
        gives: written.gives,
        after: written.after,
        parallel: written.parallel,
        timeout: written.timeout,
        attempts: retry.attempts,
        pause: retry.pause,
        when: written.when,
        approve: written.approve,
        point_of_no_return: written.point_of_no_return,
    })
}

fn place_of(value: &Spanned<DeValue<'_>>, key: &str) -> Range<usize> {
    match value.get_ref() {
        DeValue::Table(table) => table.get(key).map_or_else(|| value.span(), Spanned::span),
        _ => value.span(),
    }
}

fn taken<'t>(value: &mut Spanned<DeValue<'t>>, key: &str) -> Option<Spanned<DeValue<'t>>> {
    match value.get_mut() {
        DeValue::Table(table) => table.remove(key),
        _ => None,
    }
}

/// The value read as what it is to be; an error knows where it stands.
pub(crate) fn deserialized<T: DeserializeOwned>(value: Spanned<DeValue<'_>>) -> Result<T, Misread> {
    let span = value.span();
    T::deserialize(ValueDeserializer::from(value)).map_err(|error| misread(error, span))
}

fn misread(error: toml::de::Error, around: Range<usize>) -> Misread {
    Misread { span: error.span().unwrap_or(around), problem: error.message().to_owned() }
}

impl Misread {
    fn flaw(self, text: &str) -> Flaw {
        Flaw::at(text, self.span, FlawKind::Unreadable { problem: self.problem })
    }
}

fn keep<T>(text: &str, read: Result<T, Misread>, flaws: &mut Vec<Flaw>) -> Option<T> {
    read.map_err(|misread| flaws.push(misread.flaw(text))).ok()
}

/// Where everything stands on a page that could be read.
pub(crate) fn places(text: &str) -> Places<'_> {
    let (document, _) = DeTable::parse_recoverable(text);
    Places::new(text, document.into_inner())
}

/// `250ms`, `5s` or `2m`.
pub(crate) fn length<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 =
        number.parse().map_err(|_| D::Error::custom(format!("{text:?} does not begin with a number")))?;
    let millis = match unit {
        "ms" => Some(number),
        "s" => number.checked_mul(1000),
        "m" => number.checked_mul(60_000),
        "h" => number.checked_mul(3_600_000),
        _ => return Err(D::Error::custom(format!("{text:?} needs a unit: \"ms\", \"s\", \"m\" or \"h\""))),
    };
    millis.map(Duration::from_millis).ok_or_else(|| D::Error::custom(format!("{text:?} is too long")))
}

fn maybe_length<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    length(deserializer).map(Some)
}
