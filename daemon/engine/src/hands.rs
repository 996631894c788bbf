//! Starting what was commanded: one task per command, whose outcome comes back as an event.
//!
//! **Invariant:** a command ends in exactly one outcome, within its limit and a little grace: when the
//! limit passes, the outcome is `Unclear`.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use lifeboat_core::plan::Action;
use lifeboat_core::{AgentName, Command, Epoch, Event, Fault, FaultKind, Outcome, time};

use crate::clock::Clock;
use crate::effects::Effects;
use crate::inbox::Inbox;
use crate::journal::Journal;
use crate::ports::{Call, Coordination};
use crate::report;
use crate::tasks::Tasks;
use crate::world::World;

/// An effect that does not keep to its limit is cut off this much later.
const GRACE: Duration = Duration::from_millis(500);

/// What carries commands out.
#[derive(Clone)]
pub(crate) struct Hands {
    pub(crate) agent: AgentName,
    pub(crate) world: World,
    pub(crate) clock: Clock,
    pub(crate) inbox: Inbox,
    pub(crate) journal: Journal,
    /// What is shared with other agents, when it is.
    pub(crate) coordination: Option<Arc<dyn Coordination>>,
}

impl Hands {
    /// Starts a command under an epoch; the task gives back its name when it ends.
    pub(crate) fn start(&self, command: Command, epoch: Epoch, tasks: &mut Tasks) {
        let hands = self.clone();
        let name = format!("{} of {}", command.step, command.run);
        tasks.start(name, async move {
            let limit = command.limit;
            let done = AssertUnwindSafe(hands.carry_out(&command, epoch)).catch_unwind();
            let done = tokio::time::timeout(limit + GRACE, done).await.map(|done| {
                // What a port had done when it panicked nobody knows.
                done.unwrap_or_else(|panic| Err(Fault::new(FaultKind::Unclear, words_of(panic.as_ref()))))
            });
            let late =
                || Err(Fault::new(FaultKind::Unclear, format!("no outcome within {}", time::length(limit))));
            let outcome = match done.unwrap_or_else(|_| late()) {
                Ok(output) => Outcome::Succeeded(output),
                Err(fault) => Outcome::Failed(fault),
            };
            let ended = command.which();
            // When the loop has ended, the record says that the step was started: the next start looks.
            let _ = hands.inbox.put(Event::StepEnded { ended, outcome }).await;
        });
    }

    async fn carry_out(&self, command: &Command, epoch: Epoch) -> Result<lifeboat_core::Output, Fault> {
        let call = Call { run: command.run.clone(), agent: self.agent.clone(), epoch, limit: command.limit };
        let effects = Effects {
            world: &self.world,
            workload: &command.workload,
            call,
            clock: self.clock,
            coordination: self.coordination.as_deref(),
        };
        match &command.action {
            Action::MeasureLoss { region, databases } => effects.measure(region, databases).await,
            Action::Fence { region, databases, planned: false, expiry, cut_off, .. } => {
                effects.fence(region, databases, *expiry, cut_off.as_ref()).await
            }
            Action::Fence { region, databases, planned: true, returned, .. } => {
                effects.close(region, databases, *returned).await
            }
            Action::Promote { region, databases } => effects.promote(region, databases).await,
            Action::AwaitServing { region, databases, probes } => {
                effects.await_serving(region, databases, probes).await
            }
            Action::SwitchDns { changes } => effects.switch(changes).await,
            Action::Verify { changes, canary } => effects.verify(changes, *canary).await,
            Action::CheckStandby { primary, standby, databases, changes } => {
                effects.check_standby(primary, standby, databases, changes).await
            }
            Action::Drain { region, databases } => effects.drain(region, databases).await,
            Action::Lift { region, databases } => effects.lift(region, databases).await,
            Action::CatchUp { region, goals } => effects.catch_up(region, goals).await,
            Action::Salvage { region, source, databases } => effects.salvage(region, source, databases).await,
            Action::Rejoin { region, source, databases } => effects.rejoin(region, source, databases).await,
            Action::AwaitReplication { primary, standby, databases } => {
                effects.await_replication(primary, standby, databases).await
            }
            Action::Run { argv, env } => effects.run(argv, env).await,
            Action::Http { method, url, body, expect } => {
                effects.request(method, url, body.as_deref(), expect).await
            }
            Action::Sql { region, database, statement, expect } => {
                effects.query(region, database, statement, expect.as_deref()).await
            }
            Action::Wait { length } => effects.wait(*length).await,
            Action::Notify { text } => effects.notify(text).await,
            Action::Approve => Ok(lifeboat_core::Output::Did { said: String::new() }),
            Action::Report => report::write(&self.journal, &self.world.reports, &command.run).await,
        }
    }
}

/// What a panic says, for people.
pub(crate) fn words_of(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("the adapter panicked: {}", text.unwrap_or("without a word"))
}
