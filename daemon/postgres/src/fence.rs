//! Fencing an old primary: it accepts no more writes, and that is proven.
//!
//! Two ways. The first is over SQL ([`read_only`]): every new transaction is read only, every new session is turned
//! away, every session there is is ended. The second is the operator's command that powers the region off or isolates
//! it (STONITH); it is run when the first did not prove it, and then looked for contradictions: the session that was
//! open before and a new one must not be able to write.
//!
//! **Invariant:** no answer is never taken as yes. Silence after the command is not the proof; its exit code 0 is,
//! and an answer that accepts a write, or one that we cannot explain, refutes it.

mod read_only;

use std::sync::Arc;
use std::time::Duration;

use lifeboat_core::outcome::FenceProof;
use lifeboat_core::sighting::FailureKind;
use lifeboat_core::{Fault, FaultKind};
use lifeboat_engine::ports::Call;
use tokio_postgres::error::SqlState;

use crate::command;
use crate::connect::Session;
use crate::heartbeat::HARMLESS_WRITE;
use crate::member::Member;
use crate::options::FenceCommand;
use crate::trouble::{Trouble, within};

/// How long the server may take for its first answer before the command is run. A lost region must not cost more.
const FIRST_ANSWER: Duration = Duration::from_secs(1);

/// How long fencing over SQL may take in all when there is a command to fall back on.
const OVER_SQL: Duration = Duration::from_secs(10);

/// How long the sessions are given to contradict the command.
const CONTRADICTION: Duration = Duration::from_secs(1);

/// Why the server was not fenced over SQL.
struct Unproven {
    fault: Fault,
    /// Whether isolating the region would be wrong, too: someone newer is in charge, or it is another cluster.
    final_word: bool,
}

impl Unproven {
    fn new(fault: Fault) -> Self {
        Self { fault, final_word: false }
    }
}

impl Member {
    /// Fences the server, in the first way that can be proven.
    pub(crate) async fn fence(&self, call: &Call) -> Result<FenceProof, Fault> {
        let fencing = async {
            match &self.options.fence {
                Some(command) => self.fence_in_two_ways(call, command).await,
                None => self.fence_over_sql(call, call.limit / 2).await.map_err(|unproven| unproven.fault),
            }
        };
        let too_late = |_| {
            let detail = format!("fencing was begun and not proven within {} ms", call.limit.as_millis());
            Err(Fault::new(FaultKind::Unclear, detail))
        };
        // Boxed: the whole of both ways is a large state to carry on a stack.
        tokio::time::timeout(call.limit, Box::pin(fencing)).await.unwrap_or_else(too_late)
    }

    async fn fence_in_two_ways(&self, call: &Call, command: &FenceCommand) -> Result<FenceProof, Fault> {
        let begun = self.clock.now();
        // Taken now: that it is open before anything is done is what makes its fate a proof.
        let before = self.witness.session();
        let bound = OVER_SQL.min(call.limit / 2);
        let over_sql = self.fence_over_sql(call, FIRST_ANSWER.min(bound));
        let unproven = match tokio::time::timeout(bound, over_sql).await {
            Ok(Ok(proof)) => return Ok(proof),
            Ok(Err(unproven)) if unproven.final_word => return Err(unproven.fault),
            Ok(Err(unproven)) => unproven.fault.detail,
            Err(_) => format!("not proven within {} ms", bound.as_millis()),
        };
        tracing::warn!(region = %self.options.region, reason = unproven, "not fenced over SQL, isolating the region");
        let argv = command::argv(command, &self.options.region, call.epoch);
        let spent = self.clock.now().since(begun) + CONTRADICTION;
        let limit = command.timeout.min(call.limit.saturating_sub(spent));
        let isolated = command::run(&argv, &self.options.region, call.epoch, limit).await;
        isolated
            .map_err(|fault| Fault::new(fault.kind, format!("{}; over SQL: {unproven}", fault.detail)))?;
        let (old, new) = futures::join!(fate_of(before), self.fate_of_a_newcomer());
        let session = format!("{}; {}", old?, new?);
        Ok(FenceProof::Isolated { command: argv, session })
    }

    async fn fate_of_a_newcomer(&self) -> Result<String, Fault> {
        let trying = async {
            let session = Session::open(&self.options, &self.witness.ended).await?;
            session.batch(HARMLESS_WRITE).await
        };
        fate("a new session", within(CONTRADICTION, trying).await)
    }
}

async fn fate_of(before: Option<Arc<Session>>) -> Result<String, Fault> {
    let Some(session) = before else {
        return Ok("no session was open before".to_owned());
    };
    let trying = async {
        match session.end() {
            Some(end) => Err(Trouble::Ended(end)),
            None => session.batch(HARMLESS_WRITE).await,
        }
    };
    fate("the session opened before", within(CONTRADICTION, trying).await)
}

/// What `attempt` to write says of an isolated server: a sentence, or a contradiction.
fn fate(who: &str, attempt: Result<(), Trouble>) -> Result<String, Fault> {
    let refuted = |why: String| {
        Err(Fault::new(FaultKind::Refused, format!("the isolate command said done, but {why}")))
    };
    match attempt {
        Ok(()) => refuted(format!("{who} may still write")),
        Err(trouble) if trouble.sqlstate() == Some(&SqlState::READ_ONLY_SQL_TRANSACTION) => {
            Ok(format!("{who} may not write: {trouble}"))
        }
        Err(trouble) => match trouble.failure().kind {
            FailureKind::Refused => Ok(format!("{who} is closed: {trouble}")),
            FailureKind::Silent | FailureKind::Unreachable => Ok(format!("{who} gets nowhere: {trouble}")),
            _ => refuted(format!("{who} got an answer: {trouble}")),
        },
    }
}
