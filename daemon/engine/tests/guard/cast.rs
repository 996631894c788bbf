//! Three agents in one process, which share a pretend coordinator and look at one scene.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use lifeboat_core::{AgentName, Policy, RegionName, Stamped};
use lifeboat_engine::clock::Clock;
use lifeboat_engine::ports::Coordination;
use lifeboat_engine::pretend::Coordinator;

use crate::crash::opened;
use crate::pretend::Scene;
use crate::setting::{Agent, START, policy, story, world};

/// How long a tenure lasts.
pub(crate) const TTL: Duration = Duration::from_secs(6);

/// The agents, in the order in which they should decide while the workload lives in `east`: west, witness, east.
pub(crate) const AGENTS: [(&str, &str); 3] = [("a-east", "east"), ("b-west", "west"), ("c-witness", "north")];

/// Everybody.
pub(crate) struct Cast {
    pub(crate) scene: Arc<Scene>,
    pub(crate) coordinator: Coordinator,
    pub(crate) clock: Clock,
    folder: tempfile::TempDir,
    /// What the operator of this cast wrote otherwise.
    pub(crate) tweak: fn(&mut Policy),
    pub(crate) agents: BTreeMap<AgentName, Agent>,
}

impl Cast {
    /// Nobody is at work yet.
    pub(crate) fn empty() -> Self {
        let clock = Clock::starting_at(START);
        Self {
            scene: Scene::quiet(),
            coordinator: Coordinator::new(clock, TTL),
            clock,
            folder: tempfile::tempdir().expect("a scratch folder"),
            tweak: |_| {},
            agents: BTreeMap::new(),
        }
    }

    /// All three are at work, and one decides.
    pub(crate) async fn at_work() -> Self {
        Self::with(|_| {}).await
    }

    /// All three are at work under this policy, and one decides.
    pub(crate) async fn with(tweak: fn(&mut Policy)) -> Self {
        let mut cast = Self { tweak, ..Self::empty() };
        for (name, _) in AGENTS {
            cast.start(name).await;
        }
        cast.decided(Duration::from_secs(10)).await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        cast
    }

    pub(crate) fn folder(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// What the operator wrote for this agent.
    pub(crate) fn policy(&self, name: &str) -> Policy {
        let agents = AGENTS.map(|(agent, place)| (AgentName::new(agent), RegionName::new(place)));
        let mut policy = Policy { agent: name.into(), agents: agents.into(), ..policy(0) };
        for workload in policy.workloads.values_mut() {
            (workload.failover.quorum, workload.failover.outside) = (2, 1);
        }
        (self.tweak)(&mut policy);
        policy
    }

    /// An agent starts, on the state that it left behind when it was there before.
    pub(crate) async fn start(&mut self, name: &str) {
        let (policy, folder) = (self.policy(name), self.folder(name));
        let world = world(&policy, &self.scene, &folder);
        let line: Arc<dyn Coordination> = self.coordinator.line(&name.into());
        let journal = opened(&folder).await;
        let agent = Agent::sharing(&policy, world, self.clock, journal, Some(line));
        self.agents.insert(name.into(), agent);
    }

    /// Kills an agent.
    pub(crate) async fn kill(&mut self, name: &str) {
        let agent = self.agents.remove(&AgentName::new(name)).expect("it is at work");
        agent.killed().await;
    }

    pub(crate) fn agent(&self, name: &str) -> &Agent {
        &self.agents[&AgentName::new(name)]
    }

    /// Who decides now, by the coordinator's word.
    pub(crate) fn decider(&self) -> Option<String> {
        self.coordinator.seat().map(|seat| seat.agent.as_str().to_owned())
    }

    /// Waits until somebody decides, and says who.
    pub(crate) async fn decided(&self, limit: Duration) -> String {
        self.until(limit, "nobody decides", || self.decider().is_some()).await;
        self.decider().expect("somebody decides")
    }

    /// Waits until something is so.
    pub(crate) async fn until(&self, limit: Duration, otherwise: &str, holds: impl Fn() -> bool) {
        let waited = tokio::time::timeout(limit, async {
            while !holds() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        if waited.await.is_err() {
            panic!("{otherwise} after {limit:?}: {}", story(&self.coordinator.records()));
        }
    }

    /// Waits until the workload lives in a region and no run is open, by the word of this agent.
    pub(crate) async fn moved(&self, by: &str, region: &str, limit: Duration) {
        let region = RegionName::new(region);
        self.agent(by).until(limit, |s| s.primary == region && s.run.is_none()).await;
    }

    /// Waits until every agent at work has the whole shared record in its own journal, and compares the bytes.
    pub(crate) async fn all_have_the_record(&self) {
        let waited = tokio::time::timeout(Duration::from_secs(20), async {
            loop {
                let shared = self.coordinator.records();
                let mut same = true;
                for agent in self.agents.values() {
                    same &= agent.records().await.len() == shared.len();
                }
                if same && shared.len() == self.coordinator.records().len() {
                    return shared;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        let shared = waited.await.expect("the record follows to all journals");
        for (name, agent) in &self.agents {
            assert_eq!(bytes(&agent.records().await), bytes(&shared), "the journal of {name}");
        }
    }

    /// Each effect of a failover happened once.
    pub(crate) fn one_failover(&self, when: &str) {
        for kind in ["fence", "promote", "names"] {
            let records = self.coordinator.records();
            assert_eq!(self.scene.effects(kind), 1, "{kind}, {when}: {}", story(&records));
        }
    }

    /// Lets the line of an agent misbehave.
    pub(crate) fn fault(&self, name: &str, change: impl FnOnce(&mut lifeboat_engine::pretend::Fault)) {
        self.coordinator.fault(&name.into(), change);
    }

    /// What people were told, in words.
    pub(crate) fn told(&self) -> Vec<String> {
        self.scene.state().notices.iter().map(|notice| notice.reason.to_string()).collect()
    }
}

/// A record as it is written.
pub(crate) fn bytes(records: &[Stamped]) -> Vec<String> {
    records.iter().map(|stamped| serde_json::to_string(stamped).expect("a record is JSON")).collect()
}
