//! Making a standby a primary, and seeing it commit.
//!
//! `pg_promote` only sends a signal. The startup process looks for it in two places of
//! `WaitForWALToBecomeAvailable` (PostgreSQL 15, `xlogrecovery.c`), and in the instant a primary dies it may see it
//! in the wrong one: while it waits for a receiver it has just restarted. It takes that as "streaming failed", and
//! because streaming had failed already a moment ago, it sleeps for the rest of `wal_retrieve_retry_interval` (5 s by
//! default) before it acts on the promotion, with the wake-up of the signal used up. Every further promotion signal
//! wakes it again, so asking again while it is in recovery ends the sleep. Nothing is set on the server for
//! this, so nothing has to be put back.
//!
//! **Invariant:** nothing is promoted whose cluster is not the one that was asked for.

use std::time::Duration;

use lifeboat_core::outcome::Promotion;
use lifeboat_core::{Fault, FaultKind, Lsn, SystemIdentifier};
use lifeboat_engine::ports::Call;
use tokio_postgres::error::SqlState;

use crate::connect::Session;
use crate::heartbeat::{self, Beat, Heartbeat};
use crate::member::Member;
use crate::position::not_outranked;
use crate::sample::Sample;
use crate::trouble::Trouble;

/// Between two looks at whether a server is still in recovery.
const PAUSE: Duration = Duration::from_millis(5);

/// Looks between two promotion signals: 50 ms, well under what a person or a client notices.
const LOOKS_PER_SIGNAL: u32 = 10;

impl Member {
    /// Promotes the server if it is a standby of `system`.
    pub(crate) async fn promote(&self, call: &Call, system: SystemIdentifier) -> Result<Promotion, Fault> {
        let mut asked = false;
        let promoting = self.promote_server(call, system, &mut asked);
        match tokio::time::timeout(call.limit, promoting).await {
            Ok(promotion) => promotion,
            Err(_) => Err(too_late(call.limit, asked, "it was told to promote and is still in recovery")),
        }
    }

    async fn promote_server(
        &self,
        call: &Call,
        system: SystemIdentifier,
        asked: &mut bool,
    ) -> Result<Promotion, Fault> {
        let reached = self.reach(&call.agent).await.map_err(|trouble| trouble.fault())?;
        let (session, sample) = (reached.session, reached.sample);
        if sample.system != system {
            let detail =
                format!("the server belongs to cluster {}, not {system}; it is left alone", sample.system);
            return Err(Fault::new(FaultKind::Refused, detail));
        }
        not_outranked(&sample, call.epoch)?;
        let already = !sample.standby;
        if !already {
            *asked = true;
            leave_recovery(&session).await.map_err(|trouble| trouble.fault_after_asking())?;
        }
        let sample =
            Sample::read(&session, &call.agent).await.map_err(|trouble| trouble.fault_after_asking())?;
        let switched_at = end_of_recovery(&session).await.map_err(|trouble| trouble.fault_after_asking())?;
        Ok(Promotion { timeline: sample.timeline, switched_at, already })
    }

    /// Waits until the server is out of recovery and has committed something, over a new session.
    pub(crate) async fn first_write(&self, call: &Call) -> Result<Duration, Fault> {
        let begun = self.clock.now();
        let mut asked = false;
        match tokio::time::timeout(call.limit, self.write_once(call, &mut asked)).await {
            Ok(written) => written.map(|()| self.clock.now().since(begun)),
            Err(_) => Err(too_late(call.limit, asked, "a commit was asked for and is not acknowledged")),
        }
    }

    async fn write_once(&self, call: &Call, asked: &mut bool) -> Result<(), Fault> {
        let session =
            Session::open(&self.options, &self.witness.ended).await.map_err(|trouble| trouble.fault())?;
        while in_recovery(&session).await.map_err(|trouble| trouble.fault())? {
            tokio::time::sleep(PAUSE).await;
        }
        *asked = true;
        if !self.options.heartbeat {
            return heartbeat::commit_without_row(&session)
                .await
                .map_err(|trouble| trouble.fault_after_asking());
        }
        let heartbeat = Heartbeat { agent: call.agent.clone(), epoch: call.epoch, at: self.clock.now() };
        match heartbeat.write(&session).await {
            Ok(Beat::Committed(_)) => Ok(()),
            Ok(Beat::Outranked(newest)) => {
                let detail =
                    format!("the server has a heartbeat of epoch {newest}, this call is of {}", call.epoch);
                Err(Fault::new(FaultKind::Stale, detail))
            }
            Err(trouble) => Err(trouble.fault_after_asking()),
        }
    }
}

/// Signals the promotion until the server is out of recovery; the caller bounds the time.
async fn leave_recovery(session: &Session) -> Result<(), Trouble> {
    loop {
        match session.rows("SELECT pg_promote(false)", &[]).await {
            // "recovery is not in progress": it ended since we looked.
            Err(error) if error.sqlstate() == Some(&SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE) => {
                return Ok(());
            }
            result => drop(result?),
        }
        for _ in 0..LOOKS_PER_SIGNAL {
            if !in_recovery(session).await? {
                return Ok(());
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

async fn in_recovery(session: &Session) -> Result<bool, Trouble> {
    Ok(session.row("SELECT pg_is_in_recovery()", &[]).await?.try_get(0)?)
}

/// Where replay ended, which a promoted server knows until it is restarted.
pub(crate) async fn end_of_recovery(session: &Session) -> Result<Option<Lsn>, Trouble> {
    let row = session.row("SELECT pg_last_wal_replay_lsn()::text", &[]).await?;
    Ok(row.try_get::<_, Option<&str>>(0)?.and_then(Lsn::parse))
}

/// What running out of time means: nothing, until something was asked for.
pub(crate) fn too_late(limit: Duration, asked: bool, done: &str) -> Fault {
    let millis = limit.as_millis();
    if asked {
        Fault::new(FaultKind::Unclear, format!("{done} after {millis} ms"))
    } else {
        Fault::new(FaultKind::Unreachable, format!("nothing could be asked of it within {millis} ms"))
    }
}
