//! The end of the record, and the older parts of it, as ConfigMaps hold them.
//!
//! | entry | in the end | in an older part |
//! |---|---|---|
//! | `format` | `1` | `1` |
//! | `term`, `guardian` | who may append, and since which term | |
//! | `heads` | the head of each workload, JSON | |
//! | `first` | the place of the first record here | the same |
//! | `previous` | where the part before this one begins | the same |
//! | `settled` | rises when an append without an answer is made impossible | |
//! | `record.<20 digits>` | a record, JSON | the same |
//!
//! **Invariant:** a part that is not whole (a gap, a record in the wrong place) is damaged, never cut short.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ConfigMap;
use lifeboat_core::head::Head;
use lifeboat_core::{Stamped, WorkloadName};
use lifeboat_engine::ports::CoordinationError;
use serde::de::DeserializeOwned;

use super::objects::entry;

const FORMAT: &str = "1";
const RECORD: &str = "record.";

/// A part of the record; the newest one with what guards it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Tail {
    /// The term of who may append; zero in an older part.
    pub(super) term: u64,
    /// Who may append.
    pub(super) guardian: String,
    /// The heads.
    pub(super) heads: BTreeMap<WorkloadName, Head>,
    /// The place of the first record here; of the next one, when there is none.
    pub(super) first: u64,
    /// Where the part before this one begins.
    pub(super) previous: Option<u64>,
    /// How often an append without an answer was made impossible.
    pub(super) settled: u64,
    /// The records, as they are written.
    pub(super) lines: Vec<String>,
}

impl Tail {
    /// A record without records.
    pub(super) fn empty(term: u64, guardian: &str) -> Self {
        Self {
            term,
            guardian: guardian.to_owned(),
            heads: BTreeMap::new(),
            first: 1,
            previous: None,
            settled: 0,
            lines: Vec::new(),
        }
    }

    /// Reads it.
    pub(super) fn read(object: &ConfigMap) -> Result<Self, CoordinationError> {
        let name = object.metadata.name.as_deref().unwrap_or_default();
        let damaged = |what: String| CoordinationError::Damaged(format!("{name}: {what}"));
        match entry(object, "format") {
            Some(FORMAT) => {}
            other => return Err(damaged(format!("its format is {other:?}, and {FORMAT} is known here"))),
        }
        let number = |key: &str| match entry(object, key) {
            Some(text) => text.parse::<u64>().map_err(|error| damaged(format!("{key} is {text:?}: {error}"))),
            None => Ok(0),
        };
        let first = number("first")?;
        if first == 0 {
            return Err(damaged("the place of its first record is missing".to_owned()));
        }
        let previous = Some(number("previous")?).filter(|previous| *previous != 0);
        if previous.is_some_and(|previous| previous >= first) || previous.is_none() != (first == 1) {
            return Err(damaged(format!("it begins at {first}, and the part before it at {previous:?}")));
        }
        let heads = entry(object, "heads").unwrap_or("{}");
        let heads = serde_json::from_str(heads).map_err(|error| damaged(format!("heads: {error}")))?;
        let mut lines = Vec::new();
        // The keys are in order: the places have leading zeros.
        let records = object.data.iter().flatten().filter(|(key, _)| key.starts_with(RECORD));
        for ((key, line), place) in records.zip(first..) {
            if *key != record_key(place) {
                return Err(damaged(format!("{key} is where {} should be", record_key(place))));
            }
            lines.push(line.clone());
        }
        Ok(Self {
            term: number("term")?,
            guardian: entry(object, "guardian").unwrap_or_default().to_owned(),
            heads,
            first,
            previous,
            settled: number("settled")?,
            lines,
        })
    }

    /// Writes it into an object.
    pub(super) fn write(&self, object: &mut ConfigMap) -> Result<(), CoordinationError> {
        let heads = serde_json::to_string(&self.heads)
            .map_err(|error| CoordinationError::Damaged(format!("heads cannot be written: {error}")))?;
        let mut data = BTreeMap::new();
        let mut put = |key: &str, value: String| data.insert(key.to_owned(), value);
        put("format", FORMAT.to_owned());
        put("first", self.first.to_string());
        if let Some(previous) = self.previous {
            put("previous", previous.to_string());
        }
        if self.term != 0 {
            put("term", self.term.to_string());
            put("guardian", self.guardian.clone());
            put("settled", self.settled.to_string());
            put("heads", heads);
        }
        for (place, line) in (self.first..).zip(&self.lines) {
            put(&record_key(place), line.clone());
        }
        object.data = Some(data);
        Ok(())
    }

    /// The place of the newest record; of the one before the first, when there is none here.
    pub(super) fn newest(&self) -> u64 {
        // A ConfigMap holds fewer records than a number can count.
        self.first - 1 + u64::try_from(self.lines.len()).unwrap_or(u64::MAX - self.first)
    }

    /// How many bytes its records take, keys included.
    pub(super) fn size(&self) -> usize {
        self.lines.iter().map(|line| line.len() + record_key(0).len()).sum()
    }

    /// The records after that place.
    pub(super) fn after(&self, place: u64) -> Result<Vec<Stamped>, CoordinationError> {
        let lines = (self.first..).zip(&self.lines).filter(|(at, _)| *at > place);
        lines.map(|(at, line)| parsed(at, line)).collect()
    }

    /// The record at that place, if it is here.
    pub(super) fn at(&self, place: u64) -> Result<Option<Stamped>, CoordinationError> {
        let index = place.checked_sub(self.first).and_then(|index| usize::try_from(index).ok());
        index.and_then(|index| self.lines.get(index)).map(|line| parsed(place, line)).transpose()
    }

    /// Adds records; they are the next ones.
    pub(super) fn add(&mut self, records: &[Stamped]) -> Result<(), CoordinationError> {
        for stamped in records {
            let next = self.newest() + 1;
            let line = serde_json::to_string(stamped).map_err(|error| {
                CoordinationError::Damaged(format!("record {next} cannot be written: {error}"))
            })?;
            if stamped.sequence != next {
                return Err(CoordinationError::Damaged(format!(
                    "record {} was to be appended at {next}",
                    stamped.sequence
                )));
            }
            self.lines.push(line);
        }
        Ok(())
    }

    /// The same records, as an older part.
    pub(super) fn sealed(&self) -> Self {
        let lines = self.lines.clone();
        Self { lines, first: self.first, previous: self.previous, ..Self::empty(0, "") }
    }

    /// Lets go of what an older part holds, which must be the same as what is here.
    pub(super) fn shortened(&self, sealed: &Self) -> Option<Self> {
        let same = sealed.first == self.first
            && sealed.previous == self.previous
            && !sealed.lines.is_empty()
            && self.lines.starts_with(&sealed.lines);
        same.then(|| Self {
            first: sealed.newest() + 1,
            previous: Some(sealed.first),
            lines: self.lines.iter().skip(sealed.lines.len()).cloned().collect(),
            ..self.clone()
        })
    }
}

fn record_key(place: u64) -> String {
    format!("{RECORD}{place:020}")
}

fn parsed(place: u64, line: &str) -> Result<Stamped, CoordinationError> {
    let stamped: Stamped =
        json(line).map_err(|error| CoordinationError::Damaged(format!("record {place}: {error}")))?;
    if stamped.sequence != place {
        return Err(CoordinationError::Damaged(format!("record {} is in place {place}", stamped.sequence)));
    }
    Ok(stamped)
}

fn json<T: DeserializeOwned>(text: &str) -> Result<T, serde_json::Error> {
    serde_json::from_str(text)
}
