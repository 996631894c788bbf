//! The records of one append, as one value: a line each, with its version, its place, its moment and a sum over all.
//!
//! They are one value because etcd takes 128 operations in a transaction, and a decision may have more records.
//!
//! **Invariant:** what is read is what was written, or an error: the sum is that of the journal (`engine/src/journal.rs`).

use lifeboat_core::{Moment, Record, Stamped};

/// The version of the records that this lifeboat writes, and the newest it reads.
const VERSION: u32 = 1;

/// The most bytes of one append: etcd refuses a request of more than 1.5 MiB (`--max-request-bytes`).
pub(super) const MOST: usize = 1024 * 1024;

/// The records as text.
pub(super) fn encode(records: &[Stamped]) -> Result<Vec<u8>, serde_json::Error> {
    let mut text = String::new();
    for Stamped { sequence, at, record } in records {
        // JSON has no line breaks of its own unless it is asked for them.
        let body = serde_json::to_string(record)?;
        let sum = sum(*sequence, *at, VERSION, &body);
        text.push_str(&format!("{VERSION} {sequence} {} {sum:08x} {body}\n", at.millis()));
    }
    Ok(text.into_bytes())
}

/// The records of a batch that begins with the record of that place; says what is wrong otherwise.
pub(super) fn decode(first: u64, value: &[u8]) -> Result<Vec<Stamped>, String> {
    let text = std::str::from_utf8(value).map_err(|_| format!("the batch at {first} is no text"))?;
    let records: Vec<Stamped> =
        (first..).zip(text.lines()).map(|(place, line)| read(place, line)).collect::<Result<_, _>>()?;
    if records.is_empty() { Err(format!("the batch at {first} is empty")) } else { Ok(records) }
}

fn read(place: u64, line: &str) -> Result<Stamped, String> {
    let damaged = || format!("record {place} is not written as a record");
    let mut parts = line.splitn(5, ' ');
    let mut part = || parts.next().ok_or_else(damaged);
    let version: u32 = part()?.parse().map_err(|_| damaged())?;
    let sequence: u64 = part()?.parse().map_err(|_| damaged())?;
    let at = Moment::from_millis(part()?.parse().map_err(|_| damaged())?);
    let expected = u32::from_str_radix(part()?, 16).map_err(|_| damaged())?;
    let body = part()?;
    let found = sum(sequence, at, version, body);
    if found != expected {
        return Err(format!("the sum of record {place} is {found:08x}, not {expected:08x}"));
    }
    if sequence != place {
        return Err(format!("record {place} is missing; there is {sequence} in its place"));
    }
    if version > VERSION {
        return Err(format!(
            "record {place} has version {version}; this lifeboat reads up to {VERSION}. Install the newer lifeboat"
        ));
    }
    let record: Record = serde_json::from_str(body)
        .map_err(|error| format!("record {place} cannot be understood: {error}"))?;
    Ok(Stamped { sequence, at, record })
}

/// The sum over everything that a record consists of.
fn sum(sequence: u64, at: Moment, version: u32, body: &str) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&sequence.to_le_bytes());
    hasher.update(&at.millis().to_le_bytes());
    hasher.update(&version.to_le_bytes());
    hasher.update(body.as_bytes());
    hasher.finalize()
}

#[cfg(test)]
mod tests;
