//! Fencing an old primary: it accepts no more writes, and that is proven.
//!
//! Two ways. The first is over SQL ([`read_only`]): every new transaction is read only, every new session is turned
//! away, every session there is is ended. The second is the operator's command that powers the region off or isolates
//! it (STONITH); it is run when the first did not prove it, and then looked for contradictions: the session that was
//! open before and a new one must not be able to write.
//!
//! **Invariant:** no answer is never taken as yes. Silence after the command is not the proof; its exit code 0 is,
//! and any answer of a server refutes it, a refusal as well: "read only" may be our own half-done fence, "full" and
//! "starting up" are said by a server that will take writes in a moment.

mod read_only;

pub use read_only::HOW_TO_LIFT;
pub(crate) use read_only::{END_SESSIONS, LOOPHOLES, SETTINGS, is_locked, not_fenced_by_a_newer, reload};

use std::sync::Arc;
use std::time::Duration;

use lifeboat_core::outcome::FenceProof;
use lifeboat_core::sighting::FailureKind;
use lifeboat_core::{Fault, FaultKind};
use lifeboat_engine::ports::Call;

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
        let argv = command::argv(&command.argv, &self.options.region, call.epoch);
        let spent = self.clock.now().since(begun) + CONTRADICTION;
        let limit = command.timeout.min(call.limit.saturating_sub(spent));
        let isolated = command::run(&argv, &self.options.region, call.epoch, limit).await;
        isolated
            .map_err(|fault| Fault::new(fault.kind, format!("{}; over SQL: {unproven}", fault.detail)))?;
        let (old, new) = futures::join!(fate_of(before), self.fate_of_a_newcomer());
        let session = format!("{}; {}", old?, new?);
        Ok(FenceProof::Isolated { command: argv, session })
    }

    /// That a new session opens at all refutes the command, whatever it may do then.
    async fn fate_of_a_newcomer(&self) -> Result<String, Fault> {
        let session = match within(CONTRADICTION, Session::open(&self.options, &self.witness.ended)).await {
            Ok(session) => session,
            Err(trouble) => return Ok(format!("a new session {}", gone("a new session", &trouble)?)),
        };
        match within(CONTRADICTION, session.batch(HARMLESS_WRITE)).await {
            Ok(()) => Err(still_writes("a new session")),
            Err(trouble) => Err(refuted(FaultKind::Refused, &format!("a new session got in: {trouble}"))),
        }
    }
}

/// What became of the session that was open before, as the end of a sentence about it.
async fn fate_of(before: Option<Arc<Session>>) -> Result<String, Fault> {
    let Some(session) = before else {
        return Ok("did not exist, for none was open".to_owned());
    };
    let trying = async {
        match session.end() {
            Some(end) => Err(Trouble::Ended(end)),
            None => session.batch(HARMLESS_WRITE).await,
        }
    };
    let who = "the session opened before";
    match within(CONTRADICTION, trying).await {
        Ok(()) => Err(still_writes(who)),
        // Its last word was that it is ended: so it is, whoever ended it. Whether others get in, the newcomer tells.
        Err(trouble) if trouble.ends_session() => Ok(format!("is closed: {trouble}")),
        Err(trouble) => gone(who, &trouble),
    }
}

/// How nothing is heard from the server any longer, or the contradiction that something is. A server that answers
/// is there, whatever it answers: that it is full, starting, or read only (by our own hand, perhaps).
fn gone(who: &str, trouble: &Trouble) -> Result<String, Fault> {
    if trouble.sqlstate().is_none() {
        match trouble.failure().kind {
            FailureKind::Refused => return Ok(format!("is closed: {trouble}")),
            FailureKind::Silent | FailureKind::Unreachable => return Ok(format!("gets nowhere: {trouble}")),
            _ => {}
        }
    }
    // Not ready may be a server on its way down: worth another look, and no proof.
    let kind = match trouble.failure().kind {
        FailureKind::NotReady => FaultKind::Unclear,
        _ => FaultKind::Refused,
    };
    Err(refuted(kind, &format!("{who} got an answer: {trouble}")))
}

fn still_writes(who: &str) -> Fault {
    refuted(FaultKind::Refused, &format!("{who} may still write"))
}

fn refuted(kind: FaultKind, why: &str) -> Fault {
    Fault::new(kind, format!("the isolate command said done, but {why}"))
}
