//! Making a primary ready to be followed, and saying what a follower must know.
//!
//! `pg_rewind` of PostgreSQL 15 reads the source's timeline from its control file, which has the new one only after the
//! first checkpoint on it. The slot comes before that checkpoint: it then keeps the log from an earlier one.
//!
//! **Invariant:** a slot that is there is left as it is; one that has lost its log holds nothing and is made anew.

use lifeboat_core::outcome::Fork;
use lifeboat_core::{Fault, Lsn, RegionName, Source, Timeline};
use lifeboat_engine::ports::Call;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;

use super::{Asked, in_time, refused};
use crate::connect::Session;
use crate::member::Member;
use crate::trouble::Trouble;

/// The longest name a slot may have (`NAMEDATALEN` less its end).
const LONGEST_NAME: usize = 63;

const SLOT: &str =
    "SELECT slot_type = 'physical' AS physical, active, coalesce(wal_status = 'lost', false) AS lost
 FROM pg_replication_slots WHERE slot_name = $1";

const CONTROL_TIMELINE: &str = "SELECT timeline_id::int8 FROM pg_control_checkpoint()";

/// The name of the replication slot that a primary keeps for the server of `region`: in lower case, with `_` for what a
/// slot's name may not have.
pub fn slot_name(region: &RegionName) -> String {
    let fitting = |c: char| {
        let c = c.to_ascii_lowercase();
        if c.is_ascii_lowercase() || c.is_ascii_digit() { c } else { '_' }
    };
    region.as_str().chars().map(fitting).take(LONGEST_NAME).collect()
}

impl Member {
    /// Makes slot and checkpoint for the server of `follower`.
    pub(crate) async fn offer_within_limit(
        &self,
        call: &Call,
        follower: &RegionName,
    ) -> Result<Source, Fault> {
        let done = "a slot or a checkpoint was asked for and is not confirmed";
        in_time(call.limit, done, &mut Asked::default(), async |asked| {
            let reached = self.reach_primary(call).await?;
            let (session, sample) = (reached.session, reached.sample);
            let user = &self.options.user;
            let lineage = lineage(&session, sample.timeline, user).await?;
            let slot = slot_name(follower);
            asked.0 = true;
            ensure_slot(&session, &slot, user, asked).await?;
            ensure_control_timeline(&session, sample.timeline, user, asked).await?;
            let own = || (self.options.host.clone(), self.options.port);
            let (host, port) = self.options.replication.clone().unwrap_or_else(own);
            let region = self.options.region.clone();
            let (system, timeline) = (sample.system, sample.timeline);
            Ok(Source { region, host, port, system, timeline, lineage, slot })
        })
        .await
    }
}

async fn ensure_slot(session: &Session, slot: &str, user: &str, asked: &Asked) -> Result<(), Fault> {
    let fault = |trouble: Trouble| asked.fault(&trouble);
    let column = |error: tokio_postgres::Error| asked.fault(&error.into());
    let rows = session.rows(SLOT, &[(&slot, Type::TEXT)]).await.map_err(fault)?;
    if let Some(row) = rows.first() {
        let flag = |name: &str| row.try_get::<_, bool>(name).map_err(column);
        if !flag("physical")? {
            return Err(refused(format!("the replication slot {slot} is there and is a logical one")));
        }
        if flag("active")? || !flag("lost")? {
            return Ok(());
        }
        session.rows("SELECT pg_drop_replication_slot($1)", &[(&slot, Type::NAME)]).await.map_err(fault)?;
    }
    let create = "SELECT pg_create_physical_replication_slot($1, true)";
    match session.rows(create, &[(&slot, Type::NAME)]).await {
        // Made by another in the same instant.
        Err(trouble) if trouble.sqlstate() == Some(&SqlState::DUPLICATE_OBJECT) => Ok(()),
        Err(trouble) if trouble.sqlstate() == Some(&SqlState::INSUFFICIENT_PRIVILEGE) => {
            Err(refused(format!("this role may not make a replication slot: ALTER ROLE {user} REPLICATION")))
        }
        result => result.map(drop).map_err(fault),
    }
}

/// The control file has the timeline, after a checkpoint if need be.
async fn ensure_control_timeline(
    session: &Session,
    timeline: Timeline,
    user: &str,
    asked: &Asked,
) -> Result<(), Fault> {
    let fault = |trouble: Trouble| asked.fault(&trouble);
    let row = session.row(CONTROL_TIMELINE, &[]).await.map_err(fault)?;
    let written: i64 = row.try_get(0).map_err(|error| fault(error.into()))?;
    if written == i64::from(timeline.get()) {
        return Ok(());
    }
    match session.batch("CHECKPOINT").await {
        Err(trouble) if trouble.sqlstate() == Some(&SqlState::INSUFFICIENT_PRIVILEGE) => {
            Err(refused(format!("this role may not write a checkpoint: GRANT pg_checkpoint TO {user}")))
        }
        result => result.map_err(fault),
    }
}

/// The timelines behind `timeline`, oldest first, from the server's own history file. The first has none.
pub(super) async fn lineage(session: &Session, timeline: Timeline, user: &str) -> Result<Vec<Fork>, Fault> {
    if timeline.get() <= 1 {
        return Ok(Vec::new());
    }
    let file = format!("pg_wal/{:08X}.history", timeline.get());
    let row = match session.row("SELECT pg_read_file($1)", &[(&file, Type::TEXT)]).await {
        Err(trouble) if trouble.sqlstate() == Some(&SqlState::INSUFFICIENT_PRIVILEGE) => {
            let grant = format!("GRANT EXECUTE ON FUNCTION pg_read_file(text) TO {user}");
            return Err(refused(format!("this role may not read {file}: {grant}")));
        }
        row => row.map_err(|trouble| trouble.fault())?,
    };
    let text: &str = row.try_get(0).map_err(|error| Trouble::from(error).fault())?;
    forks(text).ok_or_else(|| refused(format!("{file} cannot be understood")))
}

/// A history file: a timeline, the position where it ended, and why, on each line (PostgreSQL's manual, "Timelines").
fn forks(text: &str) -> Option<Vec<Fork>> {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| {
            let mut words = line.split_whitespace();
            let timeline = Timeline::new(words.next()?.parse().ok()?);
            Some(Fork { timeline, lsn: Lsn::parse(words.next()?)? })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_named_after_its_region() {
        assert_eq!(slot_name(&"eu-West.1".into()), "eu_west_1");
        assert_eq!(slot_name(&RegionName::new("x".repeat(80))).len(), 63);
    }

    #[test]
    fn a_history_is_read_whole_or_not_at_all() {
        let text =
            "1\t0/3000060\tno recovery target specified\n\n# later\n2\t16/B374D848\tbefore 2000-01-01\n";
        let read = forks(text).unwrap();
        assert_eq!(read.len(), 2);
        assert_eq!((read[1].timeline.get(), read[1].lsn), (2, Lsn::parse("16/B374D848").unwrap()));
        assert_eq!(forks("1\t0/3000060\tx\n2\n"), None);
        assert_eq!(forks("one\t0/3000060\n"), None);
    }
}
