//! The heartbeat: one row per agent, committed by the primary, replayed by its standbys.
//!
//! It proves that the primary commits, dates what a standby has replayed, and carries the epoch: a server that
//! holds a higher one than an actor's has been taken over, and the actor is told so.
//!
//! **Invariant:** an epoch in the table is never lowered, and no row is written beneath a higher one.

use lifeboat_core::{AgentName, Epoch, Moment};
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;

use crate::connect::Session;
use crate::sample::{Sample, epoch_to_sql, moment_to_sql, no_table};
use crate::trouble::Trouble;

/// `fillfactor`: the row is rewritten at each look; with room on its page no index entry ever is.
pub(crate) const CREATE: &str = "CREATE SCHEMA IF NOT EXISTS lifeboat;
CREATE TABLE IF NOT EXISTS lifeboat.heartbeat (
  agent text PRIMARY KEY, epoch bigint NOT NULL, at_ms bigint NOT NULL) WITH (fillfactor = 50)";

const BEAT: &str = "beat AS (INSERT INTO lifeboat.heartbeat AS h (agent, epoch, at_ms)
 SELECT $1, $2, $3 WHERE NOT EXISTS (SELECT FROM lifeboat.heartbeat WHERE epoch > $2)
 ON CONFLICT (agent) DO UPDATE SET epoch = excluded.epoch, at_ms = excluded.at_ms WHERE h.epoch <= excluded.epoch
 RETURNING at_ms), ";

/// A write that needs no table and, where it is accepted, changes nothing.
pub(crate) const HARMLESS_WRITE: &str = "DROP SCHEMA IF EXISTS lifeboat_never_there";

/// A commit that must reach the log, and the standbys it waits for, without a table.
const EMPTY_COMMIT: &str = "SELECT pg_logical_emit_message(true, 'lifeboat', '')";

/// A heartbeat to be written.
#[derive(Clone, Debug)]
pub(crate) struct Heartbeat {
    /// Whose.
    pub(crate) agent: AgentName,
    /// Under which epoch.
    pub(crate) epoch: Epoch,
    /// When, on the agent's clock.
    pub(crate) at: Moment,
}

/// What came of writing one.
#[derive(Debug)]
pub(crate) enum Beat {
    /// It is committed; what the server was, as its transaction saw it.
    Committed(Sample),
    /// The table holds a higher epoch.
    Outranked(Epoch),
}

impl Heartbeat {
    /// Commits it, and samples the server in the same round trip. The first one ever makes the table.
    pub(crate) async fn write(&self, session: &Session) -> Result<Beat, Trouble> {
        match self.try_write(session).await {
            Err(error) if no_table(&error) => {
                create(session).await?;
                self.try_write(session).await
            }
            beat => beat,
        }
    }

    async fn try_write(&self, session: &Session) -> Result<Beat, Trouble> {
        let (epoch, at) = (epoch_to_sql(self.epoch), moment_to_sql(self.at));
        let agent = self.agent.as_str();
        let parameters = [(&agent as _, Type::TEXT), (&epoch as _, Type::INT8), (&at as _, Type::INT8)];
        let committed = ", (SELECT at_ms FROM beat) AS committed";
        let (sample, row) = Sample::read_with(session, BEAT, committed, &parameters).await?;
        match row.try_get::<_, Option<i64>>("committed")? {
            Some(_) => Ok(Beat::Committed(sample)),
            // A row of a higher epoch that came in between is not in this statement's snapshot.
            None => Ok(Beat::Outranked(sample.newest_epoch.unwrap_or_default().max(self.epoch))),
        }
    }
}

async fn create(session: &Session) -> Result<(), Trouble> {
    match session.batch(CREATE).await {
        // Another agent made it in the same instant: IF NOT EXISTS does not guard against that.
        Err(error) if lost_the_race(&error) => Ok(()),
        result => result,
    }
}

fn lost_the_race(error: &Trouble) -> bool {
    let lost = [
        &SqlState::UNIQUE_VIOLATION,
        &SqlState::DUPLICATE_SCHEMA,
        &SqlState::DUPLICATE_TABLE,
        &SqlState::DUPLICATE_OBJECT,
    ];
    error.sqlstate().is_some_and(|state| lost.contains(&state))
}

/// Commits something that has no row, for members that keep no heartbeat. Fails when transactions are read only,
/// which this commit alone would not notice.
pub(crate) async fn commit_without_row(session: &Session) -> Result<(), Trouble> {
    session.batch(HARMLESS_WRITE).await?;
    session.rows(EMPTY_COMMIT, &[]).await.map(drop)
}
