//! That a standby follows: a mark is committed on the primary, and replayed by the standby.
//!
//! **Invariant:** a standby that was reached has replayed the goal on the goal's own timeline: a position alone, on a
//! timeline that parted from it, proves nothing.

use std::time::Duration;

use lifeboat_core::outcome::LogPosition;
use lifeboat_core::{Fault, FaultKind, SystemIdentifier, Timeline};
use lifeboat_engine::ports::Call;
use tokio_postgres::error::SqlState;

use super::offer::lineage;
use super::{Asked, in_time, position, refused, same_cluster};
use crate::connect::Session;
use crate::member::Member;
use crate::position::{fit_to_take_over, startup_waits_for};
use crate::promote::end_of_recovery;
use crate::sample::Sample;
use crate::trouble::Trouble;

/// Between two looks at a standby that replays: clients wait for the last of them in a planned move.
const PAUSE: Duration = Duration::from_millis(2);

/// The timeline a server has replayed on. What its receiver asks for is another thing until the receiver streams.
const REPLAYED_ON: &str = "SELECT greatest((SELECT timeline_id FROM pg_control_checkpoint()),
 (SELECT min_recovery_end_timeline FROM pg_control_recovery()))::int8";

/// How far a standby was when it was looked at last.
#[derive(Default)]
struct Behind(Option<String>);

impl Member {
    /// Commits a heartbeat, and reads where the log ends after it.
    pub(crate) async fn mark_within_limit(&self, call: &Call) -> Result<LogPosition, Fault> {
        let done = "a commit was asked for and is not acknowledged";
        in_time(call.limit, done, &mut Asked::default(), async |asked| {
            let reached = self.reach_primary(call).await?;
            asked.0 = true;
            self.commit(call, &reached.session, asked).await?;
            let lsn = position(&reached.session, "SELECT pg_current_wal_flush_lsn()::text").await;
            let lsn = lsn.map_err(|trouble| asked.fault(&trouble))?;
            let Sample { system, timeline, .. } = reached.sample;
            Ok(LogPosition { system, timeline, lsn })
        })
        .await
    }

    /// Whether it could be promoted and serve. Changes nothing.
    pub(crate) async fn fit_within_limit(&self, call: &Call, system: SystemIdentifier) -> Result<(), Fault> {
        in_time(call.limit, "", &mut Asked::default(), async |_| {
            let reached = self.reach_for(call).await?;
            same_cluster(&reached.sample, system)?;
            fit_to_take_over(&reached.session, &reached.sample, call.epoch).await
        })
        .await
    }

    /// Waits until it has replayed up to `goal`.
    pub(crate) async fn catch_up_within_limit(
        &self,
        call: &Call,
        goal: &LogPosition,
    ) -> Result<LogPosition, Fault> {
        let mut behind = Behind::default();
        match tokio::time::timeout(call.limit, self.catch_up_to(call, goal, &mut behind)).await {
            Ok(reached) => reached,
            Err(_) => Err(match behind.0 {
                None => Trouble::Silent(call.limit).fault(),
                Some(how) => {
                    let detail = format!("{how}, after {} ms", call.limit.as_millis());
                    Fault::new(FaultKind::Unclear, detail)
                }
            }),
        }
    }

    async fn catch_up_to(
        &self,
        call: &Call,
        goal: &LogPosition,
        behind: &mut Behind,
    ) -> Result<LogPosition, Fault> {
        let fault = |trouble: Trouble| trouble.fault();
        let reached = self.reach_for(call).await?;
        let (session, mut sample) = (reached.session, reached.sample);
        same_cluster(&sample, goal.system)?;
        loop {
            if !sample.standby {
                return self.began_at(call, &session, &sample, goal).await;
            }
            let timeline = replays_on(&session, &sample).await.map_err(fault)?;
            if timeline > goal.timeline {
                let detail = format!("it follows timeline {timeline}, the goal is on {}", goal.timeline);
                return Err(refused(detail));
            }
            if timeline == goal.timeline && sample.replayed() >= goal.lsn {
                return Ok(LogPosition { system: sample.system, timeline, lsn: sample.replayed() });
            }
            behind.0 = Some(how_far(&session, &sample, timeline, goal).await.map_err(fault)?);
            tokio::time::sleep(PAUSE).await;
            sample = Sample::read(&session, &call.agent).await.map_err(fault)?;
        }
    }

    /// Of a server that is a primary by now: where its own log began, if this run has promoted it.
    async fn began_at(
        &self,
        call: &Call,
        session: &Session,
        sample: &Sample,
        goal: &LogPosition,
    ) -> Result<LogPosition, Fault> {
        let this_run = sample.newest_epoch == Some(call.epoch) || !self.options.heartbeat;
        if !this_run || sample.timeline <= goal.timeline {
            return Err(refused("it is a primary already, and not by this run"));
        }
        // A server that was restarted since has forgotten; its history has not.
        let lsn = match end_of_recovery(session).await.map_err(|trouble| trouble.fault())? {
            Some(lsn) => Some(lsn),
            None => lineage(session, sample.timeline, &self.options.user).await?.last().map(|fork| fork.lsn),
        };
        let Some(lsn) = lsn else {
            return Err(refused("it is a primary already, and does not say since where"));
        };
        let began = LogPosition { system: sample.system, timeline: sample.timeline, lsn };
        if began.reaches(goal) {
            return Ok(began);
        }
        let lost = goal.lsn.ahead_of(lsn);
        Err(refused(format!("it was promoted at {lsn}, {lost} bytes before the goal at {}", goal.lsn)))
    }
}

/// The timeline that its position counts on. The sample's is what the receiver asks for, granted or not.
pub(crate) async fn replays_on(session: &Session, sample: &Sample) -> Result<Timeline, Trouble> {
    if sample.streaming() {
        return Ok(sample.timeline);
    }
    let row = session.row(REPLAYED_ON, &[]).await?;
    let timeline = row.try_get::<_, Option<i64>>(0)?.and_then(|timeline| u32::try_from(timeline).ok());
    timeline.map(Timeline::new).ok_or(Trouble::Malformed("not a timeline"))
}

async fn how_far(
    session: &Session,
    sample: &Sample,
    timeline: Timeline,
    goal: &LogPosition,
) -> Result<String, Trouble> {
    let event = startup_waits_for(session).await?.unwrap_or_else(|| "nothing known".to_owned());
    let bytes = goal.lsn.ahead_of(sample.replayed());
    let streams = if sample.streaming() { "it streams" } else { "it does not stream" };
    let elsewhere = if timeline == goal.timeline {
        String::new()
    } else {
        format!(" on timeline {timeline}, not {}", goal.timeline)
    };
    Ok(format!("{bytes} bytes are missing: {streams}{elsewhere}, and replay waits for {event}"))
}

impl Member {
    /// Writes a checkpoint, so that the one at the end of the move has little to do. Only speed hangs on it.
    pub(crate) async fn drain_within_limit(&self, call: &Call) -> Result<(), Fault> {
        let done = "a checkpoint was asked for and is not done";
        in_time(call.limit, done, &mut Asked::default(), async |asked| {
            let reached = self.reach_primary(call).await?;
            asked.0 = true;
            match reached.session.batch("CHECKPOINT").await {
                Err(trouble) if trouble.sqlstate() == Some(&SqlState::INSUFFICIENT_PRIVILEGE) => {
                    let user = &self.options.user;
                    tracing::warn!(region = %self.options.region, "no checkpoint: GRANT pg_checkpoint TO {user}");
                    Ok(())
                }
                result => result.map_err(|trouble| asked.fault(&trouble)),
            }
        })
        .await
    }
}
