//! What an old primary that returns is asked through its host: to be salvaged, and to follow.
//!
//! **Invariant:** that it follows is the server's own word, over a session, after the host's.

use std::time::Duration;

use lifeboat_core::outcome::{Rejoined, Salvage};
use lifeboat_core::{Fault, FaultKind, Source, SystemIdentifier};
use lifeboat_engine::ports::Call;

use super::{Asked, in_time, refused, same_cluster};
use crate::host::{Act, Done, Request, VERSION};
use crate::member::Member;
use crate::trouble::Trouble;

/// Between two looks at a standby that is about to stream.
const PAUSE: Duration = Duration::from_millis(20);

impl Member {
    /// Has what only this server has kept.
    pub(crate) async fn salvage_on_host(&self, call: &Call, source: &Source) -> Result<Salvage, Fault> {
        match self.ask_host(call, source.system, Act::Salvage { source: source.clone() }).await? {
            Done::Salvaged(salvage) => Ok(salvage),
            other => Err(beside_the_point(&other)),
        }
    }

    /// Has it made a standby, and sees that it is one.
    pub(crate) async fn rejoin_on_host(&self, call: &Call, source: &Source) -> Result<Rejoined, Fault> {
        let begun = self.clock.now();
        let act = Act::Rejoin { source: source.clone(), drop_slots: self.options.slots.clone() };
        let rejoined = match self.ask_host(call, source.system, act).await? {
            Done::Rejoined(rejoined) => rejoined,
            other => return Err(beside_the_point(&other)),
        };
        let left = call.limit.saturating_sub(self.clock.now().since(begun));
        let done = "the host says that it follows, and the server does not stream";
        in_time(left, done, &mut Asked(true), async |asked| {
            while !self.streams_from(call, source, asked).await? {
                tokio::time::sleep(PAUSE).await;
            }
            Ok(rejoined)
        })
        .await
    }

    /// Whether it streams. A server that has just been started may not answer at first.
    async fn streams_from(&self, call: &Call, source: &Source, asked: &Asked) -> Result<bool, Fault> {
        let reached = match self.reach_for(call).await {
            Ok(reached) => reached,
            Err(fault) if fault.kind == FaultKind::Unreachable => return Ok(false),
            Err(fault) => return Err(fault),
        };
        same_cluster(&reached.sample, source.system)?;
        if !reached.sample.standby {
            return Err(refused("the host says that it follows, and it is a primary"));
        }
        let fault = |trouble: &Trouble| asked.fault(trouble);
        let timeline = super::follow::replays_on(&reached.session, &reached.sample).await;
        let timeline = timeline.map_err(|trouble| fault(&trouble))?;
        Ok(reached.sample.streaming() && timeline == source.timeline)
    }

    /// Asks the host of the server for one act.
    pub(super) async fn ask_host(
        &self,
        call: &Call,
        system: SystemIdentifier,
        act: Act,
    ) -> Result<Done, Fault> {
        let Some(command) = &self.options.host_command else {
            return Err(refused("no command for its host is configured"));
        };
        let limit = call.limit.min(command.timeout);
        let request = Request {
            version: VERSION,
            workload: self.options.workload.clone(),
            database: self.options.database.clone(),
            region: self.options.region.clone(),
            run: call.run.clone(),
            agent: call.agent.clone(),
            epoch: call.epoch,
            system,
            limit_ms: u64::try_from(limit.as_millis()).unwrap_or(u64::MAX),
            act,
        };
        let asking = tokio::time::timeout(limit, Box::pin(command.ask(&request))).await;
        asking.unwrap_or_else(|_| {
            let detail = format!("its host did not answer within {} ms", limit.as_millis());
            Err(Fault::new(FaultKind::Unclear, detail))
        })
    }
}

fn beside_the_point(done: &Done) -> Fault {
    Fault::new(FaultKind::Unclear, format!("the host did something else: {done:?}"))
}
