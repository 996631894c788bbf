//! What a server says of itself: one row, by one statement.
//!
//! **Invariant:** everything in a sample was read by one statement, so its role and its positions agree.

use std::collections::BTreeSet;

use lifeboat_core::outcome::TargetPosition;
use lifeboat_core::sighting::{DatabaseSample, DatabaseState, StandbyPosition};
use lifeboat_core::{AgentName, DatabaseName, Epoch, Lsn, Moment, SystemIdentifier, Timeline};
use tokio_postgres::Row;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;

use crate::connect::{Parameter, Session};
use crate::trouble::Trouble;

/// The columns of a sample, over the relations `role` (the role, read once: a promotion may come in between)
/// and `beats` (the heartbeat rows).
///
/// - The timeline of a primary is that of the file it writes to; the one in its control file lags until the
///   first checkpoint after a promotion. A standby's is the furthest that its receiver, its control file and its
///   recovery know of.
/// - The name of a standby is what its receiver presents as `application_name`, for that is what
///   `synchronous_standby_names` of the primary is matched against. The connection string is taken apart by the
///   server: it may hold a password.
/// - The heartbeat is the asking agent's own row (`$1`): each is stamped by its agent's clock, and moments of two clocks
///   must not be compared. Epochs may be: the newest is that of all rows.
const COLUMNS: &str = r"
 role.standby,
 (SELECT system_identifier FROM pg_control_system()) AS system,
 CASE WHEN role.standby
   THEN greatest((SELECT timeline_id FROM pg_control_checkpoint()),
                 (SELECT min_recovery_end_timeline FROM pg_control_recovery()),
                 (SELECT received_tli FROM pg_stat_wal_receiver))::int8
   ELSE ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::int8
 END AS timeline,
 CASE WHEN NOT role.standby THEN pg_current_wal_lsn()::text END AS written,
 CASE WHEN role.standby THEN greatest(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn())::text END AS received,
 CASE WHEN role.standby THEN pg_last_wal_replay_lsn()::text END AS replayed,
 role.standby AND EXISTS (SELECT FROM pg_stat_wal_receiver WHERE status = 'streaming') AS streaming,
 CASE WHEN role.standby THEN coalesce(
   (SELECT substring(conninfo from '(?:^|\s)application_name=''?([^''\s]+)') FROM pg_stat_wal_receiver),
   (SELECT substring(conninfo from '(?:^|\s)fallback_application_name=''?([^''\s]+)') FROM pg_stat_wal_receiver),
   (SELECT substring(setting from '(?:^|\s)application_name\s*=\s*''?([^''\s]+)')
      FROM pg_settings WHERE name = 'primary_conninfo')) END AS receiver,
 current_setting('cluster_name') AS cluster,
 CASE WHEN role.standby THEN '{}' ELSE
   ARRAY(SELECT min(application_name) FROM pg_stat_replication GROUP BY lower(application_name)
         HAVING count(*) = 1 AND min(sync_state) IN ('sync', 'quorum')) END AS synchronous,
 current_setting('synchronous_standby_names') AS synchronous_names,
 (SELECT reset_val IN ('on', 'remote_apply') FROM pg_settings WHERE name = 'synchronous_commit')
   AND NOT EXISTS (SELECT FROM pg_db_role_setting, unnest(setconfig) AS setting
     WHERE setting LIKE 'synchronous_commit=%' AND setting NOT IN ('synchronous_commit=on', 'synchronous_commit=remote_apply'))
   AS synchronous_commit,
 (SELECT at_ms FROM beats WHERE agent = $1) AS beat_at,
 (SELECT epoch FROM beats WHERE agent = $1) AS beat_epoch,
 (SELECT max(epoch) FROM beats) AS newest_epoch";

/// The role, read once.
pub(crate) const ROLE: &str = "role AS MATERIALIZED (SELECT pg_is_in_recovery() AS standby)";

/// The heartbeat rows, as they are.
pub(crate) const BEATS: &str = "beats AS MATERIALIZED (SELECT agent, at_ms, epoch FROM lifeboat.heartbeat)";

/// The heartbeat rows of a server that has no such table.
const NO_BEATS: &str =
    "beats AS MATERIALIZED (SELECT ''::text AS agent, 0::int8 AS at_ms, 0::int8 AS epoch WHERE false)";

/// One sample.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sample {
    /// Whether it is in recovery.
    pub(crate) standby: bool,
    /// Its cluster.
    pub(crate) system: SystemIdentifier,
    /// Its timeline.
    pub(crate) timeline: Timeline,
    /// The highest epoch among its heartbeats.
    pub(crate) newest_epoch: Option<Epoch>,
    written: Option<Lsn>,
    received: Option<Lsn>,
    replayed: Option<Lsn>,
    streaming: bool,
    name: String,
    synchronous: BTreeSet<String>,
    beat: Option<(Moment, Epoch)>,
}

impl Sample {
    /// Reads one for `agent`, whose own heartbeat it tells; in two round trips when there is no heartbeat table, else in one.
    pub(crate) async fn read(session: &Session, agent: &AgentName) -> Result<Self, Trouble> {
        let agent = agent.as_str();
        let parameters: [Parameter<'_>; 1] = [(&agent, Type::TEXT)];
        let row = match session.row(&statement("", BEATS, ""), &parameters).await {
            Err(error) if no_table(&error) => session.row(&statement("", NO_BEATS, ""), &parameters).await?,
            row => row?,
        };
        Self::of(&row)
    }

    /// Reads one together with the column `extra`, which `first` (further `WITH` items) gives. The first parameter is the
    /// asking agent.
    pub(crate) async fn read_with(
        session: &Session,
        first: &str,
        extra: &str,
        parameters: &[Parameter<'_>],
    ) -> Result<(Self, Row), Trouble> {
        let row = session.row(&statement(first, BEATS, extra), parameters).await?;
        Ok((Self::of(&row)?, row))
    }

    fn of(row: &Row) -> Result<Self, Trouble> {
        let lsn = |column| {
            let text: Option<&str> = row.try_get(column)?;
            text.map(|text| Lsn::parse(text).ok_or(Trouble::Malformed("not a log position"))).transpose()
        };
        let timeline: Option<i64> = row.try_get("timeline")?;
        let timeline =
            timeline.and_then(|t| u32::try_from(t).ok()).ok_or(Trouble::Malformed("not a timeline"))?;
        let beat_at: Option<i64> = row.try_get("beat_at")?;
        let beat_epoch: Option<i64> = row.try_get("beat_epoch")?;
        let receiver: Option<String> = row.try_get("receiver")?;
        let cluster: String = row.try_get("cluster")?;
        Ok(Self {
            standby: row.try_get("standby")?,
            system: SystemIdentifier::new(row.try_get::<_, i64>("system")?.cast_unsigned()),
            timeline: Timeline::new(timeline),
            newest_epoch: row.try_get::<_, Option<i64>>("newest_epoch")?.map(epoch_from_sql),
            written: lsn("written")?,
            received: lsn("received")?,
            replayed: lsn("replayed")?,
            streaming: row.try_get("streaming")?,
            name: receiver.unwrap_or(cluster),
            synchronous: if row.try_get::<_, Option<bool>>("synchronous_commit")?.unwrap_or(false) {
                let needed = needed_by_every_commit(row.try_get("synchronous_names")?);
                let names = row.try_get::<_, Vec<String>>("synchronous")?.into_iter();
                names.filter(|name| needed.contains(&name.to_lowercase())).collect()
            } else {
                BTreeSet::new()
            },
            beat: beat_at.zip(beat_epoch).map(|(at, epoch)| (moment_from_sql(at), epoch_from_sql(epoch))),
        })
    }

    /// What a look reports; `heartbeat` is what the look committed.
    pub(crate) fn report(self, database: &DatabaseName, heartbeat: Option<Moment>) -> DatabaseSample {
        let state = if self.standby {
            DatabaseState::Standby(self.position())
        } else {
            let written = self.written.unwrap_or_default();
            DatabaseState::Primary { written, heartbeat, synchronous: self.synchronous.clone() }
        };
        DatabaseSample { database: database.clone(), system: self.system, timeline: self.timeline, state }
    }

    /// What measuring reports. A primary has received and replayed all that it wrote.
    pub(crate) fn target(&self) -> TargetPosition {
        TargetPosition { system: self.system, timeline: self.timeline, position: self.position() }
    }

    /// How much of what was received is not replayed yet, in bytes.
    pub(crate) fn to_replay(&self) -> u64 {
        self.received().ahead_of(self.replayed())
    }

    /// End of what was received, or written.
    pub(crate) fn received(&self) -> Lsn {
        self.received.or(self.written).unwrap_or_default()
    }

    /// End of what was replayed, or written.
    pub(crate) fn replayed(&self) -> Lsn {
        self.replayed.or(self.written).unwrap_or_default()
    }

    /// What it is called at its primary.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Whether its receiver is connected to a primary.
    pub(crate) fn streaming(&self) -> bool {
        self.streaming
    }

    fn position(&self) -> StandbyPosition {
        StandbyPosition {
            received: self.received(),
            replayed: self.replayed(),
            heartbeat: self.beat.map(|(at, _)| at),
            epoch: self.beat.map(|(_, epoch)| epoch),
            streaming: self.streaming,
            name: self.name.clone(),
        }
    }
}

fn statement(first: &str, beats: &str, extra: &str) -> String {
    format!("WITH {first}{ROLE}, {beats} SELECT {COLUMNS}{extra} FROM role")
}

/// Whether the heartbeat table, or its schema, is not there.
pub(crate) fn no_table(error: &Trouble) -> bool {
    let state = error.sqlstate();
    state == Some(&SqlState::UNDEFINED_TABLE) || state == Some(&SqlState::INVALID_SCHEMA_NAME)
}

/// A moment as a `bigint` of milliseconds; the far future stays there.
pub(crate) fn moment_to_sql(moment: Moment) -> i64 {
    i64::try_from(moment.millis()).unwrap_or(i64::MAX)
}

/// An epoch as a `bigint`.
pub(crate) fn epoch_to_sql(epoch: Epoch) -> i64 {
    i64::try_from(epoch.get()).unwrap_or(i64::MAX)
}

fn moment_from_sql(millis: i64) -> Moment {
    Moment::from_millis(u64::try_from(millis).unwrap_or(0))
}

fn epoch_from_sql(epoch: i64) -> Epoch {
    Epoch::new(u64::try_from(epoch).unwrap_or(0))
}

/// The standbys, in lower case, without each of whose word no commit is acknowledged: all that
/// `synchronous_standby_names` lists, when it waits for as many. Where it waits for fewer, another may have
/// given its word in a standby's place, now or a moment after this look. What cannot be read gives none.
/// Source: PostgreSQL's manual, "synchronous_standby_names".
fn needed_by_every_commit(setting: &str) -> BTreeSet<String> {
    let text = setting.trim();
    let (count, list) = match text.split_once('(') {
        None => (Some(1), Some(text)),
        Some((head, rest)) => {
            let count = head.split_whitespace().last().and_then(|number| number.parse::<usize>().ok());
            (count, rest.trim_end().strip_suffix(')'))
        }
    };
    let named = |name: &str| {
        let bare = name.trim();
        let bare = bare.strip_prefix('"').and_then(|b| b.strip_suffix('"')).unwrap_or(bare);
        let odd = bare.is_empty() || bare.contains(['"', '*', '(', ')']);
        (!odd).then(|| bare.to_lowercase())
    };
    let names: Option<BTreeSet<String>> = list.and_then(|list| list.split(',').map(named).collect());
    names.filter(|names| count == Some(names.len())).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::needed_by_every_commit;

    #[test]
    fn only_a_standby_that_every_commit_waits_for_is_synchronous() {
        for (setting, needed) in [
            ("", ""),
            ("west", "west"),
            ("\"West\"", "west"),
            ("FIRST 1 (west)", "west"),
            ("2 (west, north)", "north west"),
            ("any 2 (west, \"north\")", "north west"),
            ("west, north", ""),
            ("FIRST 1 (west, north)", ""),
            ("ANY 1 (west, north)", ""),
            ("ANY 1 (*)", ""),
            ("*", ""),
            ("FIRST x (west)", ""),
            ("FIRST 1 (west", ""),
        ] {
            let found: Vec<String> = needed_by_every_commit(setting).into_iter().collect();
            assert_eq!(found.join(" "), needed, "{setting}");
        }
    }
}
