//! The names that this agent's own name server says, while another agent decides.
//!
//! **Invariant:** a name server that starts does not answer with what an old journal knows while the record can be read.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use lifeboat_config::Wiring;
use lifeboat_core::guardian::Guardian;
use lifeboat_core::policy::Policy;
use lifeboat_core::{Epoch, RegionName, Stamped, WorkloadName};
use lifeboat_dns::KeptNames;
use lifeboat_engine::Inbox;
use lifeboat_engine::ports::Coordination;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::plug;

/// What the names of each workload say, and under which epoch.
type Says = BTreeMap<WorkloadName, (RegionName, Epoch)>;

/// How long a name server that starts waits for the coordinator before it answers with what its own journal knows. Others
/// answer meanwhile; when there is no coordinator for anybody, nothing is switched either.
const CATCH_UP: Duration = Duration::from_secs(10);

/// Between two tries.
const AGAIN: Duration = Duration::from_millis(250);

/// Keeps this agent's own name server with the record, while another agent decides.
///
/// What this agent switches itself, as the one who decides, is not followed: the switch is in the zone before it is on record.
pub(crate) struct Follower {
    pub(crate) names: KeptNames,
    pub(crate) says: watch::Receiver<Says>,
    pub(crate) inbox: Inbox,
    pub(crate) coordination: Arc<dyn Coordination>,
    pub(crate) wiring: Wiring,
    pub(crate) policy: Policy,
}

impl Follower {
    /// Reads what others wrote while this agent was away, for the name server alone: it must not send clients to where the
    /// workload lived then.
    pub(crate) async fn catch_up(&self, mut known: Guardian, mut records: Vec<Stamped>) {
        let after = records.last().map_or(0, |stamped| stamped.sequence);
        let read = async {
            loop {
                match self.coordination.records(after).await {
                    Ok(records) => return records,
                    Err(error) => debug!(%error, "the newest records cannot be read yet"),
                }
                tokio::time::sleep(AGAIN).await;
            }
        };
        match tokio::time::timeout(CATCH_UP, read).await {
            Ok(missing) if missing.is_empty() => {}
            Ok(missing) => {
                records.extend(missing);
                known.reread(&records);
                self.place(known.names_say());
            }
            Err(_) => warn!(
                "the coordinator cannot be reached: this agent's name server answers with what its own journal knows, \
                 which may be old"
            ),
        }
    }

    /// Sets each name to what the record says, whenever that changes.
    pub(crate) async fn follow(mut self, stop: CancellationToken) {
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                changed = self.says.changed() => if changed.is_err() { return },
            }
            let Ok(status) = self.inbox.status().await else { return };
            if status.decider.is_some_and(|decider| decider.here) {
                continue;
            }
            let says = self.says.borrow_and_update().clone();
            self.place(says);
        }
    }

    fn place(&self, says: Says) {
        match plug::kept(&self.wiring, &self.policy, says) {
            Ok(kept) => {
                for name in kept {
                    if let Err(fault) = self.names.place(&name) {
                        warn!(name = %name.name, %fault, "the name server here does not follow the record");
                    }
                }
            }
            Err(failure) => warn!(%failure, "the name server here cannot follow the record"),
        }
    }
}
