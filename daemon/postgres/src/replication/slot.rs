//! Replication slots: the server keeps its log from there on for us.
//!
//! **Invariant:** a slot's name goes into a command only when it is one that PostgreSQL allows.

use lifeboat_core::{Lsn, Timeline};

use super::error::Error;
use super::login;
use super::options::Endpoint;
use super::wire::Row;

/// A physical slot, as the server has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slot {
    /// The oldest log it keeps; none when it keeps nothing: it was invalidated, or never reserved any.
    pub kept_from: Option<Lsn>,
    /// The timeline of that log, when the server says so (15 and newer).
    pub timeline: Option<Timeline>,
}

/// PostgreSQL's own rule.
pub(super) fn check(name: &str) -> Result<(), Error> {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    if (1..=63).contains(&name.len()) && name.chars().all(plain) {
        Ok(())
    } else {
        Err(Error::Misuse("the name of a slot has 1 to 63 of the characters a-z, 0-9 and _"))
    }
}

/// What `READ_REPLICATION_SLOT` or the same question in SQL gave: kind, position, timeline.
pub(super) fn read(name: &str, row: Option<&Row>) -> Result<Option<Slot>, Error> {
    let Some(row) = row else { return Ok(None) };
    match row.text(0) {
        None => return Ok(None),
        Some("physical") => {}
        Some(_) => return Err(Error::SlotLogical { slot: name.to_owned() }),
    }
    let kept_from =
        row.text(1).map(|text| Lsn::parse(text).ok_or(Error::Protocol("a slot without a position")));
    Ok(Some(Slot { kept_from: kept_from.transpose()?, timeline: row.number(2).map(Timeline::new) }))
}

/// Asks over SQL, on a connection of its own: before 15 there is no replication command for it.
pub(super) async fn look(endpoint: &Endpoint, name: &str) -> Result<Option<Slot>, Error> {
    let mut wire = login::open(endpoint, Some(&endpoint.dbname)).await?;
    let sql = format!("SELECT slot_type, restart_lsn FROM pg_replication_slots WHERE slot_name = '{name}'");
    let rows = wire.ask("a look at the slot", &sql).await?;
    read(name, rows.first())
}
