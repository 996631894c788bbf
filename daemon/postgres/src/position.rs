//! How far a standby has come, when all it received is replayed.
//!
//! **Invariant:** measuring changes nothing on the server.

use std::time::Duration;

use lifeboat_core::outcome::TargetPosition;
use lifeboat_core::{Epoch, Fault, FaultKind, Lsn};
use lifeboat_engine::ports::Call;

use crate::connect::Session;
use crate::fence::HOW_TO_LIFT;
use crate::member::Member;
use crate::sample::Sample;
use crate::trouble::Trouble;

/// Between two looks at a standby that replays.
const PAUSE: Duration = Duration::from_millis(5);

/// Looks in a row at which the startup process must want more log, without having moved, before the rest of what
/// was received is taken for an unfinished record. Ten, 50 ms, for a busy machine wakes it late.
const IDLE_LOOKS: u32 = 10;

/// What the startup process waits for. The names are PostgreSQL's (monitoring, "Wait Events"); they are read with
/// `pg_monitor`, else null.
const STARTUP_WAITS_FOR: &str = "SELECT wait_event FROM pg_stat_activity WHERE backend_type = 'startup'";

/// The wait events of a startup process that has replayed all the log there is and waits for more.
const WANTS_MORE: [&str; 2] = ["RecoveryWalStream", "RecoveryRetrieveRetryInterval"];

/// Whether clients could not write after a promotion, and whether this role may order one.
const FITNESS: &str = "SELECT current_setting('default_transaction_read_only') = 'on' AS read_only,
 has_function_privilege('pg_promote(boolean, integer)', 'EXECUTE') AS may_promote";

/// Refuses a target that could not serve or be promoted, before anything is done to the old primary.
pub(crate) async fn fit_to_take_over(session: &Session, sample: &Sample, epoch: Epoch) -> Result<(), Fault> {
    let refused = |detail: String| Err(Fault::new(FaultKind::Refused, detail));
    if !sample.standby && sample.newest_epoch != Some(epoch) {
        return refused("it is a primary already, and not by this run".to_owned());
    }
    let fitness = session.row(FITNESS, &[]).await.map_err(|trouble| trouble.fault())?;
    let (read_only, may_promote): (bool, bool) = (
        fitness.try_get("read_only").map_err(|error| Trouble::from(error).fault())?,
        fitness.try_get("may_promote").map_err(|error| Trouble::from(error).fault())?,
    );
    if session.past_the_fence || read_only {
        return refused(format!(
            "it still carries a fence: clients could not write after a promotion; {HOW_TO_LIFT}"
        ));
    }
    if !may_promote {
        let grant = "GRANT EXECUTE ON FUNCTION pg_promote(boolean, integer)";
        return refused(format!("this role may not promote it: {grant}"));
    }
    Ok(())
}

impl Member {
    /// Waits, within the call's limit, until what was received when it began is replayed.
    pub(crate) async fn measure_within_limit(&self, call: &Call) -> Result<TargetPosition, Fault> {
        let mut behind = None;
        match tokio::time::timeout(call.limit, self.measure_until_replayed(call, &mut behind)).await {
            Ok(measured) => measured,
            Err(_) => Err(match behind {
                None => Trouble::Silent(call.limit).fault(),
                Some((bytes, event)) => {
                    let event = event.unwrap_or_else(|| "nothing known".to_owned());
                    let detail = format!(
                        "{bytes} bytes that were received are not replayed after {} ms; replay waits for {event}",
                        call.limit.as_millis()
                    );
                    Fault::new(FaultKind::Unclear, detail)
                }
            }),
        }
    }

    async fn measure_until_replayed(
        &self,
        call: &Call,
        behind: &mut Option<(u64, Option<String>)>,
    ) -> Result<TargetPosition, Fault> {
        let reached = self.reach(&call.agent).await.map_err(|trouble| trouble.fault())?;
        let (session, mut sample) = (reached.session, reached.sample);
        not_outranked(&sample, call.epoch)?;
        fit_to_take_over(&session, &sample, call.epoch).await?;
        // With a primary that still sends, the end of the log moves on; what there was at first is enough.
        let goal = sample.received();
        let (mut idle_looks, mut idle_at) = (0, Lsn::default());
        loop {
            if sample.replayed() >= goal && (sample.streaming() || sample.to_replay() == 0) {
                return Ok(sample.target());
            }
            let event = startup_waits_for(&session).await.map_err(|trouble| trouble.fault())?;
            let wants_more = event.as_deref().is_some_and(|event| WANTS_MORE.contains(&event));
            idle_looks = if wants_more && sample.replayed() == idle_at { idle_looks + 1 } else { 0 };
            idle_at = sample.replayed();
            // The log was cut in the middle of a record, which nobody can ever replay.
            if idle_looks >= IDLE_LOOKS {
                return Ok(sample.target());
            }
            *behind = Some((sample.to_replay(), event));
            tokio::time::sleep(PAUSE).await;
            sample = Sample::read(&session, &call.agent).await.map_err(|trouble| trouble.fault())?;
        }
    }
}

/// What the startup process waits for; none when the role may not see it.
pub(crate) async fn startup_waits_for(session: &Session) -> Result<Option<String>, Trouble> {
    let rows = session.rows(STARTUP_WAITS_FOR, &[]).await?;
    Ok(rows.first().map(|row| row.try_get(0)).transpose()?.flatten())
}

/// Stops an actor whose epoch is older than what the server has seen.
pub(crate) fn not_outranked(sample: &Sample, epoch: Epoch) -> Result<(), Fault> {
    match sample.newest_epoch {
        Some(newest) if newest > epoch => {
            let detail =
                format!("the server has a heartbeat of epoch {newest}, this call is of epoch {epoch}");
            Err(Fault::new(FaultKind::Stale, detail))
        }
        _ => Ok(()),
    }
}
