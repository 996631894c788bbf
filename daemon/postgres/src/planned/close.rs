//! Closing a primary on purpose, while it works: the fence over SQL, and where its log ended.
//!
//! Clients wait from the reload on, so all that can be refused is refused before it. The end of the log must cover what
//! was acknowledged with `synchronous_commit = off` and is not on disk yet. Waiting until the flushed position has
//! reached the inserted one could last for ever: the inserted position may lie behind a page header that nobody writes
//! until there is another record. So once the last session is gone a record of our own is committed, locally: with it,
//! all that came before is flushed, and its end is the end of the log.
//!
//! **Invariant:** the region is never isolated, and no session of a server in recovery is touched.
//! **Invariant:** nothing that a client was told is after the end that is reported.
//! **Invariant:** settings of the operator's own are not overwritten in a planned move: undoing could not put them back.
//! **Invariant:** an old primary that has returned is closed whatever it has prepared or set: open, it would be a second
//! place that takes writes for as long as nobody looks.

use std::collections::BTreeSet;

use lifeboat_core::outcome::{FenceProof, LogPosition};
use lifeboat_core::{Fault, FaultKind};
use lifeboat_engine::ports::Call;

use super::{Asked, in_time, outranked, position, refused};
use crate::connect::Session;
use crate::fence;
use crate::host::{Act, Done};
use crate::member::Member;
use crate::sample::Sample;
use crate::trouble::Trouble;
use lifeboat_core::sighting::FailureKind;

/// Settings of the fence that somebody else has made with ALTER SYSTEM. Seen with `pg_monitor`.
pub(crate) const NOT_OURS: &str = "SELECT name FROM pg_settings
 WHERE name IN ('session_preload_libraries', 'default_transaction_read_only')
   AND sourcefile LIKE '%postgresql.auto.conf' AND setting NOT LIKE '%fenced_by_lifeboat%'";

/// Two-phase transactions that nobody could commit while the server is closed.
const PREPARED: &str = "SELECT count(*), coalesce(min(gid), '') FROM pg_prepared_xacts";

/// The end of this record; in one transaction, which flushes itself and all before it.
const LAST_RECORD: &str = "SELECT pg_logical_emit_message(true, 'lifeboat', 'closed')::text, set_config('synchronous_commit', 'local', true)";

/// Whether there is time to be asked to tidy up first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Care {
    /// The only primary, in a planned move: refused while anything would suffer.
    Planned,
    /// An old one that has returned.
    Returned,
}

impl Member {
    /// Closes the server over SQL; one that cannot be reached is stopped by its host, if there is a way to it.
    pub(crate) async fn close(&self, call: &Call, care: Care) -> Result<FenceProof, Fault> {
        let done = "closing was begun and is not proven";
        let mut gone = false;
        let closed = in_time(call.limit, done, &mut Asked::default(), async |asked| {
            let reached = match self.reach(&call.agent).await {
                Ok(reached) => reached,
                Err(trouble) => {
                    // Nobody listens there. Any other silence may be the network's.
                    gone = trouble.failure().kind == FailureKind::Refused && trouble.sqlstate().is_none();
                    return Err(trouble.fault());
                }
            };
            self.close_over_sql(call, care, (&reached.session, &reached.sample), asked).await
        })
        .await;
        match closed {
            Err(fault) if gone && self.options.host_command.is_some() => {
                self.stop_on_host(call, &fault).await
            }
            closed => closed,
        }
    }

    async fn close_over_sql(
        &self,
        call: &Call,
        care: Care,
        (session, sample): (&Session, &Sample),
        asked: &mut Asked,
    ) -> Result<FenceProof, Fault> {
        if let Some(newest) = sample.newest_epoch.filter(|newest| *newest > call.epoch) {
            return Err(outranked(newest, call.epoch));
        }
        fence::not_fenced_by_a_newer(session, call.epoch).await?;
        if sample.standby {
            return Err(refused("it is in recovery: there is no primary here to close"));
        }
        match care {
            Care::Planned => {
                nothing_prepared(session, asked).await?;
                nothing_of_others(session).await?;
            }
            Care::Returned => {
                if let Err(fault) = nothing_of_others(session).await {
                    tracing::warn!(region = %self.options.region, reason = fault.detail, "closed all the same");
                }
            }
        }
        asked.0 = true;
        let mut ended = BTreeSet::new();
        self.shut(call, session, &mut ended).await?;
        if care == Care::Planned {
            nothing_prepared(session, asked).await?;
        }
        let sqlstate = self.refusal(call, session).await?;
        let lsn = position(session, LAST_RECORD).await.map_err(|trouble| asked.fault(&trouble))?;
        let end = LogPosition { system: sample.system, timeline: sample.timeline, lsn };
        Ok(FenceProof::Closed { sqlstate, sessions_ended: ended.len() as u64, end })
    }

    async fn stop_on_host(&self, call: &Call, because: &Fault) -> Result<FenceProof, Fault> {
        tracing::warn!(region = %self.options.region, reason = because.detail, "it cannot be closed over SQL, its host is asked to stop it");
        let system = self.options.system.or_else(|| self.witness.last_system());
        let Some(system) = system else {
            let detail = format!("{}; which cluster its host must stop is not known", because.detail);
            return Err(Fault::new(because.kind, detail));
        };
        match self.ask_host(call, system, Act::Stop).await? {
            Done::Stopped { .. } => Ok(FenceProof::Stopped),
            other => {
                Err(Fault::new(FaultKind::Unclear, format!("the host was to stop it and says {other:?}")))
            }
        }
    }
}

async fn nothing_prepared(session: &Session, asked: &Asked) -> Result<(), Fault> {
    let fault = |trouble: Trouble| asked.fault(&trouble);
    let row = session.row(PREPARED, &[]).await.map_err(fault)?;
    let count: i64 = row.try_get(0).map_err(|error| fault(error.into()))?;
    if count == 0 {
        return Ok(());
    }
    let first: &str = row.try_get(1).map_err(|error| fault(error.into()))?;
    let detail = format!(
        "{count} prepared transactions (the first is {first}) could be committed by nobody while it is closed; \
         COMMIT PREPARED or ROLLBACK PREPARED them first"
    );
    Err(refused(detail))
}

/// A fence of ours is no setting of others: the session that found it was let past it, or sees it.
async fn nothing_of_others(session: &Session) -> Result<(), Fault> {
    let fault = |trouble: Trouble| trouble.fault();
    if session.past_the_fence || fence::is_locked(session).await.map_err(fault)? {
        return Ok(());
    }
    let rows = session.rows(NOT_OURS, &[]).await.map_err(fault)?;
    let Some(row) = rows.first() else { return Ok(()) };
    let name: &str = row.try_get(0).map_err(|error| fault(error.into()))?;
    Err(refused(format!(
        "{name} was set with ALTER SYSTEM, and taking the fence back would lose it; \
         move it to postgresql.conf and run ALTER SYSTEM RESET {name}"
    )))
}
