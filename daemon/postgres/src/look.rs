//! Looking at a server: the probes "PostgreSQL read" and "PostgreSQL write".
//!
//! A steady look is one round trip over the witness session. When the answer does not come, a second session is
//! opened to ask the server what the first one is waiting for: a commit that hangs while reads are answered is a
//! fact about the server, an answer lost on its way is not.
//!
//! **Invariant:** a server that is expected to be a standby is never written to.
//! **Invariant:** a look takes no longer than its limit, and leaves no more than the witness session behind.

use std::sync::Arc;

use lifeboat_core::sighting::FailureKind;
use lifeboat_core::{AgentName, DatabaseName, Evidence, Failure, Look};
use lifeboat_engine::ports::{Ask, Role};
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;

use futures::FutureExt;

use crate::connect::Session;
use crate::fence;
use crate::heartbeat::{Beat, Heartbeat};
use crate::member::Member;
use crate::sample::Sample;
use crate::trouble::Trouble;
use crate::witness::Question;

/// What is known of a backend that owes an answer.
const WAITING_FOR: &str =
    "SELECT state = 'active', coalesce(wait_event_type || '/' || wait_event, 'nothing known')
 FROM pg_stat_activity WHERE pid = $1";

impl Member {
    /// Looks once, within the ask's limit.
    pub(crate) async fn look_within_limit(&self, ask: &Ask) -> Look {
        let looking = async {
            let _turn = self.turn.lock().await;
            self.look_once(ask).await
        };
        let silent = |_| Err(Trouble::Silent(ask.limit).failure());
        tokio::time::timeout(ask.limit, looking).await.unwrap_or_else(silent)
    }

    async fn look_once(&self, ask: &Ask) -> Look {
        if let Some(question) = self.witness.unanswered() {
            return self.second_opinion(&question).await;
        }
        let session = self.witness.attend(&self.options).await.map_err(|trouble| trouble.failure())?;
        let writes = ask.expect == Role::Primary && self.options.heartbeat;
        let database = self.options.database.clone();
        let heartbeat = writes.then(|| Heartbeat { agent: ask.agent.clone(), epoch: ask.epoch, at: ask.at });
        let (expect, agent) = (ask.expect, ask.agent.clone());
        let question = self.witness.ask(writes, async move {
            match heartbeat {
                Some(heartbeat) => write(&session, &database, &heartbeat).await,
                None => read(&session, &database, &agent, expect).await,
            }
        });
        // The last third is for asking why there is no answer.
        match tokio::time::timeout(ask.limit * 2 / 3, question.answer.clone()).await {
            Ok(look) => look,
            Err(_) => self.second_opinion(&question).await,
        }
    }

    /// Asks over another session what became of `question`.
    async fn second_opinion(&self, question: &Question) -> Look {
        let Some(first) = self.witness.session() else {
            return question.answer.clone().await;
        };
        let other = Session::open(&self.options, &self.witness.ended).await;
        let other = other.map_err(|trouble| trouble.failure())?;
        let backend = first.backend;
        let rows = other.rows(WAITING_FOR, &[(&backend, Type::INT4)]).await;
        let rows = rows.map_err(|trouble| trouble.failure())?;
        if let Some(look) = question.answer.clone().now_or_never() {
            return look;
        }
        let row = rows.first();
        let column = |error: tokio_postgres::Error| Trouble::from(error).failure();
        let active = row.map(|row| row.try_get::<_, Option<bool>>(0)).transpose().map_err(column)?.flatten();
        let event: Option<&str> = row.map(|row| row.try_get(1)).transpose().map_err(column)?;
        let event = event.unwrap_or_default();
        Err(match (active, question.writes) {
            (Some(true), true) => {
                let detail = format!("reads are answered, the heartbeat is not; it waits for {event}");
                Failure::new(FailureKind::CommitSilent, detail)
            }
            (Some(true), false) => {
                let detail =
                    format!("a new session is answered, the one that is kept is not; it waits for {event}");
                Failure::new(FailureKind::Silent, detail)
            }
            _ => {
                // The server has answered, or knows nothing of us: the connection between is gone.
                self.witness.keep(other);
                Failure::new(FailureKind::Silent, "an answer was lost on its way; a new session is open")
            }
        })
    }
}

async fn read(session: &Arc<Session>, database: &DatabaseName, agent: &AgentName, expect: Role) -> Look {
    match Sample::read(session, agent).await {
        Ok(sample) if sample.standby && expect == Role::Primary => Err(in_recovery()),
        Ok(sample) => Ok(Evidence::Database(sample.report(database, None))),
        Err(trouble) => Err(trouble.failure()),
    }
}

async fn write(session: &Arc<Session>, database: &DatabaseName, heartbeat: &Heartbeat) -> Look {
    match heartbeat.write(session).await {
        Ok(Beat::Committed(sample)) => Ok(Evidence::Database(sample.report(database, Some(heartbeat.at)))),
        Ok(Beat::Outranked(found)) => {
            let detail =
                format!("the heartbeat table has epoch {found}, this agent acts under {}", heartbeat.epoch);
            Err(Failure::new(FailureKind::WrongRole, detail))
        }
        Err(trouble) if trouble.sqlstate() == Some(&SqlState::READ_ONLY_SQL_TRANSACTION) => {
            Err(read_only(session, &heartbeat.agent, &trouble).await)
        }
        Err(trouble) if trouble.sqlstate() == Some(&SqlState::QUERY_CANCELED) => {
            Err(Failure::new(FailureKind::CommitSilent, format!("the heartbeat was cancelled: {trouble}")))
        }
        Err(trouble) if trouble.cannot_commit() => {
            Err(Failure::new(FailureKind::CannotCommit, format!("the heartbeat was refused: {trouble}")))
        }
        Err(trouble) => Err(trouble.failure()),
    }
}

/// What it means that the server takes no writes: it follows, we have fenced it, or somebody is at work.
/// None of these is a server that fails.
async fn read_only(session: &Arc<Session>, agent: &AgentName, trouble: &Trouble) -> Failure {
    let sample = match Sample::read(session, agent).await {
        Ok(sample) => sample,
        Err(_) => return trouble.failure(),
    };
    if sample.standby {
        return in_recovery();
    }
    let locked = session.past_the_fence || fence::is_locked(session).await.unwrap_or(false);
    let detail = if locked {
        format!("fenced by lifeboat: {trouble}; {}", fence::HOW_TO_LIFT)
    } else {
        format!("default_transaction_read_only is on, set by somebody else: {trouble}")
    };
    Failure::new(FailureKind::WrongRole, detail)
}

fn in_recovery() -> Failure {
    Failure::new(FailureKind::WrongRole, "it is in recovery, a standby, and was expected to be the primary")
}
