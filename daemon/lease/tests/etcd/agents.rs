//! Agents that share a real etcd, and what they hear.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use lifeboat_core::head::Head;
use lifeboat_core::record::Record;
use lifeboat_core::testimony::Testimony;
use lifeboat_core::{AgentName, Epoch, Moment, RegionName, RunId, Stamped, WorkloadName};
use lifeboat_engine::clock::Clock;
use lifeboat_engine::ports::{Call, Change, Coordination, CoordinationError, Tenure};
use lifeboat_lease::Promises;
use lifeboat_lease::etcd::{Etcd, EtcdOptions};
use lifeboat_lease::seal::{KeyPair, Seals};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::servers::{PATIENCE, Servers};

/// One agent.
#[derive(Clone)]
pub(crate) struct Agent {
    pub(crate) etcd: Arc<Etcd>,
    pub(crate) promises: Arc<Promises>,
    pub(crate) clock: Clock,
}

impl std::ops::Deref for Agent {
    type Target = Etcd;

    fn deref(&self) -> &Etcd {
        &self.etcd
    }
}

pub(crate) fn options(agent: &str, endpoints: Vec<String>) -> EtcdOptions {
    EtcdOptions {
        name: "test".to_owned(),
        agent: agent.into(),
        endpoints,
        tls: None,
        user: None,
        tenure_ttl: Duration::from_secs(20),
        testimony_ttl: Duration::from_secs(20),
        deadline: Duration::from_secs(5),
    }
}

/// The agents `a`, `b` and `c` know each other's keys, which are in that folder; `d` is not known to them.
pub(crate) fn seals(folder: &Path, agent: &str) -> Seals {
    let key = |name: &str| KeyPair::open(&folder.join(format!("{name}.key"))).expect("a key");
    let known = ["a", "b", "c"].map(|name| (AgentName::new(name), key(name).public()));
    Seals::new(key(agent), &BTreeMap::from(known)).expect("keys")
}

pub(crate) fn agent_with(folder: &Path, options: EtcdOptions) -> Agent {
    let clock = Clock::start();
    let promises = Arc::new(Promises::default());
    let seal = Arc::new(seals(folder, options.agent.as_str()));
    let etcd = Arc::new(Etcd::new(options, seal, clock, Arc::clone(&promises)));
    Agent { etcd, promises, clock }
}

pub(crate) fn agent(servers: &Servers, name: &str) -> Agent {
    agent_with(servers.folder.path(), options(name, servers.endpoints()))
}

/// Becomes the guardian.
pub(crate) async fn elected(agent: &Agent) -> Tenure {
    agent.campaign().await.expect("etcd answers").expect("nobody else decides")
}

pub(crate) fn record(sequence: u64, text: &str) -> Stamped {
    let record = Record::AgentStarted { agent: "a".into(), version: text.to_owned() };
    Stamped { sequence, at: Moment::from_millis(1_795_252_486_000 + sequence), record }
}

pub(crate) fn records(range: std::ops::RangeInclusive<u64>) -> Vec<Stamped> {
    range.map(|sequence| record(sequence, "1.0")).collect()
}

pub(crate) fn head(epoch: u64, holder: &str, closing: bool) -> Head {
    Head { epoch: Epoch::new(epoch), holder: holder.into(), closing, coming: None, tended: None }
}

pub(crate) fn shop(head: Head) -> BTreeMap<WorkloadName, Head> {
    BTreeMap::from([("shop".into(), head)])
}

pub(crate) fn no_heads() -> BTreeMap<WorkloadName, Head> {
    BTreeMap::new()
}

pub(crate) fn testimony(vantage: &str, sequence: u64) -> Testimony {
    Testimony { vantage: vantage.into(), sequence, echo: None, connected: true, regions: BTreeMap::new() }
}

pub(crate) fn call(epoch: u64, limit: Duration) -> Call {
    let epoch = Epoch::new(epoch);
    Call { run: RunId::of(&"shop".into(), epoch), agent: "a".into(), epoch, limit }
}

pub(crate) fn east() -> RegionName {
    "east".into()
}

/// What a watch hears.
pub(crate) struct Ear {
    changes: mpsc::Receiver<Change>,
    pub(crate) watch: JoinHandle<CoordinationError>,
}

pub(crate) fn listen(agent: &Agent, known: Option<Stamped>) -> Ear {
    let (sender, changes) = mpsc::channel(64);
    let etcd = Arc::clone(&agent.etcd);
    let watch = tokio::spawn(async move { etcd.watch(known.as_ref(), &sender).await });
    Ear { changes, watch }
}

impl Ear {
    pub(crate) async fn next(&mut self) -> Change {
        let next = tokio::time::timeout(PATIENCE, self.changes.recv()).await.expect("a change in time");
        match next {
            Some(change) => change,
            None => panic!("the watch ended: {:?}", (&mut self.watch).await),
        }
    }

    /// The next change; none when the watch has ended.
    pub(crate) async fn next_or_end(&mut self) -> Result<Change, ()> {
        self.changes.recv().await.ok_or(())
    }

    /// The first change that `wanted` makes something of.
    pub(crate) async fn first<T>(&mut self, wanted: impl Fn(&Change) -> Option<T>) -> T {
        loop {
            if let Some(found) = wanted(&self.next().await) {
                return found;
            }
        }
    }

    pub(crate) async fn until(&mut self, wanted: &Change) {
        self.first(|change| (change == wanted).then_some(())).await;
    }

    /// All up to and without [`Change::CaughtUp`].
    pub(crate) async fn all_there_is(&mut self) -> Vec<Change> {
        let mut all = Vec::new();
        loop {
            match self.next().await {
                Change::CaughtUp => return all,
                change => all.push(change),
            }
        }
    }

    /// Why the watch ended.
    pub(crate) async fn end(mut self) -> CoordinationError {
        let end = async {
            while self.changes.recv().await.is_some() {}
            self.watch.await.expect("the watch does not panic")
        };
        tokio::time::timeout(PATIENCE, end).await.expect("the watch ends in time")
    }
}

/// Asks until the answer is as it should be.
pub(crate) async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, ask: impl Fn() -> F) -> T {
    let asking = async {
        loop {
            if let Some(answer) = ask().await {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, asking).await.unwrap_or_else(|_| panic!("{what} in time"))
}
