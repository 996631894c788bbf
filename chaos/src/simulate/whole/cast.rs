//! The agents: three real loops, each with its guardian, its journal and its ports on the scene.
//!
//! **Invariant:** an agent that is killed keeps its journal and nothing else; it is started again from that.

use std::sync::Arc;
use std::time::Duration;

use lifeboat_core::{Guardian, Policy};
use lifeboat_engine::ports::Coordination;
use lifeboat_engine::{EngineError, Guard, Journal, JournalError, Parts, Post, World};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::line::Overheard;
use super::ports::{Hand, Member, Stage};
use super::scene::Scene;
use crate::scenario::Site;
use crate::simulate::setting::{NAMES, TIMEOUT, runbooks};

/// The three.
pub(super) struct Cast {
    pub(super) scene: Arc<Scene>,
    journals: [Journal; 3],
    policies: [Policy; 3],
    tasks: [Option<JoinHandle<Result<(), EngineError>>>; 3],
    killed: [u8; 3],
}

impl Cast {
    /// Nobody is at work yet.
    pub(super) fn new(scene: Arc<Scene>, canary: bool) -> Result<Self, JournalError> {
        let mut policies = scene.change(|state, _| Site::ALL.map(|site| state.setting.policy(site)));
        for policy in &mut policies {
            policy.workloads.values_mut().for_each(|workload| workload.canary = canary);
        }
        let journals = [Journal::in_memory()?, Journal::in_memory()?, Journal::in_memory()?];
        Ok(Self { scene, journals, policies, tasks: [None, None, None], killed: [0; 3] })
    }

    /// An agent starts, on the journal that it left behind when it was there before.
    pub(super) async fn start(&mut self, a: usize) {
        if self.killed[a] > 0 || self.tasks[a].is_some() {
            return;
        }
        let records = match self.journals[a].records(0).await {
            Ok(records) => records,
            Err(error) => {
                let what = format!("agent {a} cannot read its journal: {error}");
                return self.scene.change(|state, now| state.wrong(now, what));
            }
        };
        let guardian = Guardian::restore(self.policies[a].clone(), runbooks(), "0.1.0", &records);
        let line = self.scene.coordinator.line(&NAMES.agents[a]);
        let line: Arc<dyn Coordination> = Arc::new(Overheard { line, scene: self.scene.clone() });
        let guard = Guard::new(Parts {
            guardian,
            journal: self.journals[a].clone(),
            clock: self.scene.clock,
            world: self.world(a),
            coordination: Some(line),
            stop: CancellationToken::new(),
        });
        let inbox = guard.inbox();
        self.scene.change(|state, now| {
            state.trace.line(now, format_args!("agent {a} starts with {} records", records.len()));
            state.inboxes[a] = Some(inbox);
        });
        self.tasks[a] = Some(tokio::spawn(guard.run()));
    }

    fn world(&self, a: usize) -> World {
        let hand = Hand { scene: self.scene.clone(), agent: a };
        let port = Arc::new(hand.clone());
        let mut world = World {
            witnesses: (0..3).map(|_| port.clone() as _).collect(),
            witness_interval: Duration::from_millis(1_000),
            witness_timeout: Duration::from_millis(500),
            notify: vec![port.clone()],
            ..World::default()
        };
        for r in 0..2 {
            let (workload, region) = (NAMES.workload.clone(), NAMES.regions[r].clone());
            let interval = self.policies[a].workloads[&workload].probes[&NAMES.probes[r]].interval;
            world.posts.push(Post {
                workload: workload.clone(),
                region: region.clone(),
                name: NAMES.probes[r].clone(),
                interval,
                timeout: Duration::from_millis(TIMEOUT),
                probe: Arc::new(Stage { hand: hand.clone(), region: r }),
            });
            let member = Arc::new(Member { hand: hand.clone(), region: r });
            world.databases.insert((workload, region, NAMES.database.clone()), member);
        }
        world.names.insert((NAMES.workload.clone(), NAMES.name.clone()), port.clone());
        world.canaries.insert(NAMES.workload.clone(), port);
        world
    }

    /// An agent is killed: its loop is dropped where it is.
    pub(super) async fn kill(&mut self, a: usize) {
        self.killed[a] += 1;
        self.heed(a).await;
        self.scene.change(|state, _| state.inboxes[a] = None);
        if let Some(task) = self.tasks[a].take() {
            task.abort();
            // It was told to end: how does not matter.
            let _ = task.await;
            self.scene.change(|state, now| state.trace.line(now, format_args!("agent {a} is killed")));
        }
    }

    /// What killed it is over.
    pub(super) async fn revive(&mut self, a: usize) {
        self.killed[a] = self.killed[a].saturating_sub(1);
        self.start(a).await;
    }

    /// An agent that ended by itself has no reason to.
    async fn heed(&mut self, a: usize) {
        if !self.tasks[a].as_ref().is_some_and(JoinHandle::is_finished) {
            return;
        }
        if let Some(task) = self.tasks[a].take() {
            let why = match task.await {
                Ok(Ok(())) => "nobody told it to".to_owned(),
                Ok(Err(error)) => error.to_string(),
                Err(error) => error.to_string(),
            };
            self.scene.change(|state, now| {
                state.inboxes[a] = None;
                state.wrong(now, format!("agent {a} ends by itself: {why}"));
            });
        }
    }

    /// Looks after all of them.
    pub(super) async fn heed_all(&mut self) {
        for a in 0..3 {
            self.heed(a).await;
        }
    }

    /// The journal of each is the beginning of the shared record.
    pub(super) async fn compare(&mut self) {
        self.heed_all().await;
        let shared = self.scene.coordinator.records();
        for a in 0..3 {
            let own = self.journals[a].records(0).await.unwrap_or_default();
            let lives = self.tasks[a].is_some();
            self.scene.change(|state, now| {
                if shared.get(..own.len()) != Some(own.as_slice()) {
                    state.wrong(now, format!("the journal of agent {a} is not the beginning of the record"));
                } else if lives && own.len() < shared.len() && state.network.coordinated(a) {
                    let (has, all) = (own.len(), shared.len());
                    state.wrong(now, format!("agent {a} has {has} of {all} records, and reaches everybody"));
                }
            });
        }
    }
}
