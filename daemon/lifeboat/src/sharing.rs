//! What this agent shares with others: the coordinator, its seal, and the names that follow the record.
//!
//! **Invariant:** what an agent or a sentry says is believed by the key that the configuration lists for it, never by what
//! came with it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use lifeboat_config::Wiring;
use lifeboat_config::wiring::{EtcdWiring, LeaseWiring};
use lifeboat_core::guardian::Guardian;
use lifeboat_core::policy::Policy;
use lifeboat_core::{AgentName, Epoch, RegionName, Stamped, WorkloadName};
use lifeboat_dns::KeptNames;
use lifeboat_engine::Inbox;
use lifeboat_engine::clock::Clock;
use lifeboat_engine::ports::Coordination;
use lifeboat_lease::Promises;
use lifeboat_lease::etcd::{Etcd, EtcdOptions, EtcdTls, EtcdUser};
use lifeboat_lease::seal::{KeyPair, Seals};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::failure::{Exit, Failure};
use crate::plug;

/// What the names of each workload say, and under which epoch.
type Says = BTreeMap<WorkloadName, (RegionName, Epoch)>;

/// How long a name server that starts waits for the coordinator before it answers with what its own journal knows. Others
/// answer meanwhile; when there is no coordinator for anybody, nothing is switched either.
const CATCH_UP: Duration = Duration::from_secs(10);

/// Between two tries.
const AGAIN: Duration = Duration::from_millis(250);

/// One member of etcd is waited for this part of a tenure: of three, one may be silent and one slow.
const DEADLINE_PART: u32 = 4;

/// What an agent that is not alone has.
pub(crate) struct Shared {
    pub(crate) etcd: Arc<Etcd>,
    pub(crate) seal: Arc<Seals>,
    pub(crate) promises: Arc<Promises>,
}

/// What this agent shares with others; none when it is alone. Nothing is connected yet.
pub(crate) fn shared(wiring: &Wiring, clock: Clock) -> Result<Option<Shared>, Failure> {
    let etcd = match &wiring.lease {
        LeaseWiring::Embedded => return Ok(None),
        LeaseWiring::Etcd(etcd) => etcd,
        LeaseWiring::Kubernetes(_) => {
            let text = "lease kind \"kubernetes\" cannot be used by this version";
            return Err(Failure::new(Exit::Config, text).hint("share the record in etcd: kind = \"etcd\""));
        }
    };
    let seal = Arc::new(seals(wiring)?);
    let promises = Arc::new(Promises::default());
    let options = etcd_options(etcd, &wiring.agent.name);
    let etcd = Arc::new(Etcd::new(options, seal.clone(), clock, promises.clone()));
    Ok(Some(Shared { etcd, seal, promises }))
}

/// How etcd is reached, as the adapter wants to know it.
pub(crate) fn etcd_options(wiring: &EtcdWiring, agent: &AgentName) -> EtcdOptions {
    let secure = wiring.endpoints.iter().any(|endpoint| endpoint.secure);
    let tls = wiring.ca_file.clone().filter(|_| secure).map(|ca_file| EtcdTls {
        ca_file,
        cert_file: wiring.identity.as_ref().map(|(cert, _)| cert.clone()),
        key_file: wiring.identity.as_ref().map(|(_, key)| key.clone()),
    });
    EtcdOptions {
        name: wiring.cluster.clone(),
        agent: agent.clone(),
        endpoints: wiring.endpoints.iter().map(ToString::to_string).collect(),
        tls,
        user: wiring.login.as_ref().map(|(name, password_file)| EtcdUser {
            name: name.clone(),
            password_file: password_file.clone(),
        }),
        tenure_ttl: wiring.ttl,
        testimony_ttl: wiring.ttl,
        deadline: deadline(wiring.ttl),
    }
}

fn deadline(ttl: Duration) -> Duration {
    ttl / DEADLINE_PART
}

/// This agent's key, which must be the one that the others know it by, and theirs.
pub(crate) fn seals(wiring: &Wiring) -> Result<Seals, Failure> {
    let file = &wiring.agent.key_file;
    let unusable = |error: &dyn std::error::Error| {
        Failure::because(Exit::Config, format!("the key in {} cannot be used", file.display()), error)
    };
    let own = KeyPair::open(file).map_err(|error| unusable(&error))?;
    let name = &wiring.agent.name;
    let listed = wiring.agents.get(name).map(|agent| agent.key.to_string()).unwrap_or_default();
    if own.public() != listed {
        let text = format!("{} does not hold the key that is listed for {name}", file.display());
        let causes = vec![format!("it is {}, listed is {listed}", own.public())];
        let hint =
            "is it this agent's file?  Then write its key into [[agents]] of every agent: lifeboat key";
        return Err(Failure { causes, ..Failure::new(Exit::Config, text) }.hint(hint));
    }
    let keys: BTreeMap<AgentName, String> =
        wiring.agents.iter().map(|(name, agent)| (name.clone(), agent.key.to_string())).collect();
    Seals::new(own, &keys).map_err(|error| unusable(&error))
}

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
