//! Fencing over SQL: read only for every transaction, closed to every session, the sessions ended.
//!
//! `default_transaction_read_only = on` alone fences nobody who does not want to be fenced: `BEGIN READ WRITE`, a
//! `SET`, a role's own setting or a start-up option overrides it, in sessions there are and in new ones. There is no
//! setting that refuses writes for all short of a restart, so nobody may stay or come in:
//!
//! 1. `session_preload_libraries` is set to a library that does not exist. A session loads them after it has
//!    authenticated, so each new one ends with SQLSTATE 58P01 and a message that names lifeboat. Sessions that are
//!    open, ours among them, do not load them, and neither do the senders to standbys, which go on draining.
//! 2. Both settings are made with ALTER SYSTEM, so they hold across restarts, and write no WAL: nothing of the fence
//!    reaches a standby. A base backup or `pg_rewind` *from* the fenced server would copy them; rejoining takes
//!    its configuration from the new primary instead.
//! 3. Every client backend but ours is ended, again and again until there is none.
//! 4. A third setting, `lifeboat.fence_epoch`, says under which epoch it was fenced: the fence may be made in the middle of
//!    a failover, when no heartbeat of that epoch has been committed here, and an older actor must not lift it. It
//!    stays when the fence is lifted, for epochs only rise. A role without the grant for it fences without.
//! 5. The proof: a heartbeat over the session that was open before is refused with SQLSTATE 25006, and a new session is
//!    turned away.
//!
//! Who may still get in, on purpose: a superuser, or a role with SET on that parameter, who logs in with
//! `PGOPTIONS='-c session_preload_libraries='`. That is how lifeboat returns, and how a person lifts the fence:
//! `ALTER SYSTEM RESET session_preload_libraries`, `ALTER SYSTEM RESET default_transaction_read_only`,
//! `SELECT pg_reload_conf()`. Settings of a role or a database that override the first are looked for and are a
//! reason not to believe in the fence; so are enabled subscriptions, whose workers write without a session.
//!
//! What is left, and not proven: a role with REPLICATION may write over a `replication=database` connection by asking
//! for it; a client that was between connecting and authenticating at the moment of the reload (at most
//! `authentication_timeout`) may come in late, and is read only unless it asks otherwise; extensions' background workers
//! are read only unless they ask otherwise. The isolate command leaves none of these.
//!
//! **Invariant:** a server in recovery is not touched, and proves nothing: it is not the old primary, and settings made
//! on it would outlive its promotion.
//! **Invariant:** nothing is touched by a role that is known to lack what the whole fence needs.
//! **Invariant:** nothing is touched when the server has seen a newer epoch.

use std::collections::BTreeSet;
use std::time::Duration;

use lifeboat_core::outcome::FenceProof;
use lifeboat_core::{Epoch, Fault, FaultKind};
use lifeboat_engine::ports::Call;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;

use super::Unproven;
use crate::connect::Session;
use crate::heartbeat::{Beat, HARMLESS_WRITE, Heartbeat};
use crate::member::Member;
use crate::position::not_outranked;
use crate::trouble::{Trouble, within};

/// Between two looks at whether the settings are read, or sessions gone.
const PAUSE: Duration = Duration::from_millis(2);

/// Each by itself: ALTER SYSTEM takes no part in a transaction. The lock on the door comes first.
pub(crate) const SETTINGS: [&str; 2] = [
    "ALTER SYSTEM SET session_preload_libraries = 'fenced_by_lifeboat'",
    "ALTER SYSTEM SET default_transaction_read_only = on",
];

/// What a person does about a fence that is there no longer for a reason.
pub const HOW_TO_LIFT: &str = "to lift it, log in with PGOPTIONS='-c session_preload_libraries=' and run \
 ALTER SYSTEM RESET session_preload_libraries; ALTER SYSTEM RESET default_transaction_read_only; SELECT pg_reload_conf()";

/// No row when the role may not see the setting.
const LOCK: &str = "SELECT setting LIKE '%fenced_by_lifeboat%' FROM pg_settings
 WHERE name = 'session_preload_libraries'";

const RELOAD: &str = "SELECT clock_timestamp()::text AS at, pg_reload_conf()";

/// A session reads the settings again when it is between two statements, and the server before it starts another.
const RELOADED: &str = "SELECT pg_conf_load_time() >= $1::text::timestamptz";

/// What would let a session in, or write without one.
pub(crate) const LOOPHOLES: &str = "SELECT format('%s of role %s, database %s', split_part(setting, '=', 1),
   coalesce(pg_get_userbyid(nullif(setrole, 0)), 'any'), coalesce(datname, 'any'))
 FROM pg_db_role_setting CROSS JOIN unnest(setconfig) AS setting
   LEFT JOIN pg_database ON pg_database.oid = setdatabase
 WHERE setting LIKE 'session_preload_libraries=%'
 UNION ALL SELECT format('subscription %s', subname) FROM pg_subscription WHERE subenabled";

/// Whether the role needs no grants, and whether there are grants for ALTER SYSTEM (PostgreSQL 15).
const MIGHT: &str = "SELECT (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) AS super,
 current_setting('server_version_num')::int >= 150000 AS grants";

/// What a role that is no superuser lacks, for the settings, to see every session, and to end each there is.
const LACKS: &str = "SELECT lacks FROM (VALUES
   (has_parameter_privilege('session_preload_libraries', 'ALTER SYSTEM'), 'ALTER SYSTEM on session_preload_libraries'),
   (has_parameter_privilege('session_preload_libraries', 'SET'), 'SET on session_preload_libraries'),
   (has_parameter_privilege('default_transaction_read_only', 'ALTER SYSTEM'),
    'ALTER SYSTEM on default_transaction_read_only'),
   (has_function_privilege('pg_reload_conf()', 'EXECUTE'), 'EXECUTE on pg_reload_conf'),
   (pg_has_role('pg_read_all_stats', 'USAGE'), 'pg_monitor')) AS needs (held, lacks)
 WHERE NOT held
 UNION ALL SELECT format('the right to end the session %s of role %s', pid, usename) FROM pg_stat_activity
   LEFT JOIN pg_roles ON pg_roles.oid = usesysid
 WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() AND (coalesce(rolsuper, true)
   OR NOT (pg_has_role('pg_signal_backend', 'USAGE') OR pg_has_role(usesysid, 'USAGE')))";

pub(crate) const END_SESSIONS: &str = "SELECT pid, pg_terminate_backend(pid) FROM pg_stat_activity
 WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()";

/// Under which epoch it was fenced last. A setting that was never made has no value.
const FENCED_BY: &str = "SELECT nullif(current_setting('lifeboat.fence_epoch', true), '')";

/// Whether the role may say so; before PostgreSQL 15 nobody but a superuser makes any setting.
const MAY_SIGN: &str = "SELECT has_parameter_privilege('lifeboat.fence_epoch', 'ALTER SYSTEM')";

/// Whether lifeboat's lock is on the door, as `session` sees it: one that was let past it does not.
pub(crate) async fn is_locked(session: &Session) -> Result<bool, Trouble> {
    let rows = session.rows(LOCK, &[]).await?;
    Ok(rows.first().map(|row| row.try_get(0)).transpose()?.unwrap_or(false))
}

impl Member {
    /// Fences the server over a session, if it answers within `first_answer`; the caller bounds the whole.
    pub(super) async fn fence_over_sql(
        &self,
        call: &Call,
        first_answer: Duration,
    ) -> Result<FenceProof, Unproven> {
        let reached = within(first_answer, self.reach(&call.agent)).await.map_err(|trouble| Unproven {
            final_word: matches!(trouble, Trouble::Stranger { .. }),
            fault: trouble.fault(),
        })?;
        let (session, sample) = (reached.session, reached.sample);
        let newer = |fault| Unproven { fault, final_word: true };
        not_outranked(&sample, call.epoch).map_err(newer)?;
        not_fenced_by_a_newer(&session, call.epoch).await.map_err(newer)?;
        if !reached.before {
            tracing::warn!(region = %self.options.region, "no session was open; the fence is proven over one opened now");
        }
        if sample.standby {
            // Its refusal of writes is its own. The old primary may be elsewhere, and alive: an address moves, and a
            // standby may be promoted by somebody else.
            let detail = "in recovery: this is not the old primary, and proves nothing of it";
            return Err(Unproven::new(Fault::new(FaultKind::Unclear, detail)));
        }
        let mut ended = BTreeSet::new();
        self.shut(call, &session, &mut ended).await.map_err(Unproven::new)?;
        let sqlstate = self.refusal(call, &session).await.map_err(Unproven::new)?;
        Ok(FenceProof::WriteRefused { sqlstate, sessions_ended: ended.len() as u64 })
    }

    /// Makes the settings and ends the sessions; who was ended is in `ended`, also after a fault.
    pub(crate) async fn shut(
        &self,
        call: &Call,
        session: &Session,
        ended: &mut BTreeSet<i32>,
    ) -> Result<(), Fault> {
        let after_asking = |trouble: Trouble| trouble.fault_after_asking();
        self.may_be_shut(session).await?;
        self.sign(call, session).await.map_err(after_asking)?;
        for setting in SETTINGS {
            session.batch(setting).await.map_err(after_asking)?;
        }
        reload(session).await.map_err(after_asking)?;
        while end_sessions(session, ended).await.map_err(after_asking)? {
            tokio::time::sleep(PAUSE).await;
        }
        self.turned_away().await?;
        // One that was on its way in when the settings were read.
        while end_sessions(session, ended).await.map_err(after_asking)? {
            tokio::time::sleep(PAUSE).await;
        }
        Ok(())
    }

    /// Refuses while nothing is touched what would leave a hole, or stop half-way.
    async fn may_be_shut(&self, session: &Session) -> Result<(), Fault> {
        let before_asking = |trouble: Trouble| trouble.fault();
        let loopholes = session.rows(LOOPHOLES, &[]).await.map_err(before_asking)?;
        if let Some(row) = loopholes.first() {
            let what: &str = row.try_get(0).map_err(|error| before_asking(error.into()))?;
            let detail = format!("it cannot be fenced over SQL: {what} would get past the fence");
            return Err(Fault::new(FaultKind::Refused, detail));
        }
        if let Some(lacks) = lacks(session).await.map_err(before_asking)? {
            let detail = format!("it cannot be fenced over SQL: role {} lacks {lacks}", self.options.user);
            return Err(Fault::new(FaultKind::Refused, detail));
        }
        Ok(())
    }

    /// Writes the epoch beside the fence. A setting of our own must be known to the session before it can be made.
    async fn sign(&self, call: &Call, session: &Session) -> Result<(), Trouble> {
        let superuser = session.row(MIGHT, &[]).await?.try_get::<_, Option<bool>>("super")?.unwrap_or(false);
        if !superuser && !session.row(MAY_SIGN, &[]).await?.try_get::<_, bool>(0)? {
            let user = &self.options.user;
            tracing::warn!(region = %self.options.region,
                "the fence carries no epoch: GRANT ALTER SYSTEM ON PARAMETER \"lifeboat.fence_epoch\" TO {user}");
            return Ok(());
        }
        let epoch = call.epoch;
        session.batch(&format!("SET lifeboat.fence_epoch = '{epoch}'")).await?;
        session.batch(&format!("ALTER SYSTEM SET lifeboat.fence_epoch = '{epoch}'")).await?;
        // Else this session would never see the epoch of another.
        session.batch("RESET lifeboat.fence_epoch").await
    }

    /// Sees that a new session is turned away.
    async fn turned_away(&self) -> Result<(), Fault> {
        match Session::open_as_client(&self.options, &self.witness.ended).await {
            Err(trouble) if trouble.sqlstate() == Some(&SqlState::UNDEFINED_FILE) => Ok(()),
            Err(trouble) => {
                let detail =
                    format!("a new session is turned away for another reason than the fence: {trouble}");
                Err(Fault::new(FaultKind::Unclear, detail))
            }
            Ok(_) => Err(Fault::new(FaultKind::Refused, "a new session still gets past the fence")),
        }
    }

    /// Tries to write over `session`; the SQLSTATE of the refusal.
    pub(crate) async fn refusal(&self, call: &Call, session: &Session) -> Result<String, Fault> {
        let attempt = if self.options.heartbeat {
            let heartbeat = Heartbeat { agent: call.agent.clone(), epoch: call.epoch, at: self.clock.now() };
            heartbeat.write(session).await
        } else {
            session.batch(HARMLESS_WRITE).await.map(|()| Beat::Outranked(call.epoch))
        };
        match attempt {
            Err(trouble) if trouble.sqlstate() == Some(&SqlState::READ_ONLY_SQL_TRANSACTION) => {
                Ok(SqlState::READ_ONLY_SQL_TRANSACTION.code().to_owned())
            }
            Err(trouble) => Err(trouble.fault_after_asking()),
            Ok(_) => Err(Fault::new(FaultKind::Refused, "it was made read only, and still accepts a write")),
        }
    }
}

/// What the role would fail for want of half-way, if anything.
async fn lacks(session: &Session) -> Result<Option<String>, Trouble> {
    let row = session.row(MIGHT, &[]).await?;
    if row.try_get::<_, Option<bool>>("super")?.unwrap_or(false) {
        return Ok(None);
    }
    if !row.try_get::<_, bool>("grants")? {
        return Ok(Some("SUPERUSER, which ALTER SYSTEM needs before PostgreSQL 15".to_owned()));
    }
    let rows = session.rows(LACKS, &[]).await?;
    Ok(rows.first().map(|row| row.try_get(0)).transpose()?)
}

/// Stops an actor whose epoch is older than the one that the server was fenced under.
pub(crate) async fn not_fenced_by_a_newer(session: &Session, epoch: Epoch) -> Result<(), Fault> {
    let fault = |trouble: Trouble| trouble.fault();
    let row = session.row(FENCED_BY, &[]).await.map_err(fault)?;
    let text: Option<&str> = row.try_get(0).map_err(|error| fault(error.into()))?;
    match text.and_then(|text| text.parse().ok()).map(Epoch::new) {
        Some(newest) if newest > epoch => {
            let detail = format!("the server was fenced under epoch {newest}, this call is of epoch {epoch}");
            Err(Fault::new(FaultKind::Stale, detail))
        }
        _ => Ok(()),
    }
}

/// Has the settings read, and waits until they are; the caller bounds the time.
pub(crate) async fn reload(session: &Session) -> Result<(), Trouble> {
    let row = session.row(RELOAD, &[]).await?;
    let at: &str = row.try_get("at")?;
    while !reloaded(session, at).await? {
        tokio::time::sleep(PAUSE).await;
    }
    Ok(())
}

async fn reloaded(session: &Session, at: &str) -> Result<bool, Trouble> {
    Ok(session.row(RELOADED, &[(&at, Type::TEXT)]).await?.try_get(0)?)
}

/// Ends the sessions there are; whether there were any.
async fn end_sessions(session: &Session, ended: &mut BTreeSet<i32>) -> Result<bool, Trouble> {
    let rows = session.rows(END_SESSIONS, &[]).await?;
    for row in &rows {
        ended.insert(row.try_get(0)?);
    }
    Ok(!rows.is_empty())
}
