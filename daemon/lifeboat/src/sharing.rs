//! What this agent shares with others: the coordinator, its seal, its ear for sentries, and the names that follow the record.
//!
//! **Invariant:** what an agent or a sentry says is believed by the key that the configuration lists for it, never by what
//! came with it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use lifeboat_config::Wiring;
use lifeboat_config::wiring::{EtcdWiring, KubernetesWiring, LeaseWiring};
use lifeboat_core::head::Head;
use lifeboat_core::{AgentName, RegionName, WorkloadName};
use lifeboat_engine::clock::Clock;
use lifeboat_engine::ports::Coordination;
use lifeboat_lease::Promises;
use lifeboat_lease::etcd::{Etcd, EtcdOptions, EtcdTls, EtcdUser};
use lifeboat_lease::kubernetes::{Kubernetes, KubernetesOptions};
use lifeboat_lease::seal::{KeyPair, Seals};

use lifeboat_sentry::failsafe::{self, Listener, Outlook, Station};
use lifeboat_sentry::settings;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::failure::{Exit, Failure};

mod names;

pub(crate) use names::Follower;

/// The most that a sentry is promised at once whose lease this agent has not seen; otherwise its length. A sentry asks for no
/// more than it was last granted, which is what a restarted agent, without memory of its promise, waits for again.
const LONGEST_PROMISE: Duration = Duration::from_secs(60);

/// One member of etcd is waited for this part of a tenure: of three, one may be silent and one slow.
const DEADLINE_PART: u32 = 4;

/// What an agent that is not alone has.
pub(crate) struct Shared {
    pub(crate) coordination: Arc<dyn Coordination>,
    seal: Arc<Seals>,
    /// What sentries hold, and were promised; none where there can be no sentries.
    leases: Option<(Arc<Etcd>, Arc<Promises>)>,
}

/// What this agent shares with others; none when it is alone. Nothing is connected yet.
pub(crate) async fn shared(wiring: &Wiring, clock: Clock) -> Result<Option<Shared>, Failure> {
    match &wiring.lease {
        LeaseWiring::Embedded => Ok(None),
        LeaseWiring::Etcd(etcd) => {
            let seal = Arc::new(seals(wiring)?);
            let promises = Arc::new(Promises::default());
            let options = etcd_options(etcd, &wiring.agent.name);
            let coordination = Arc::new(Etcd::new(options, seal.clone(), clock, promises.clone()));
            let leases = Some((Arc::clone(&coordination), promises));
            Ok(Some(Shared { coordination, seal, leases }))
        }
        LeaseWiring::Kubernetes(kubernetes) => {
            let seal = Arc::new(seals(wiring)?);
            let coordination = Arc::new(cluster(kubernetes, &wiring.agent.name, seal.clone()).await?);
            Ok(Some(Shared { coordination, seal, leases: None }))
        }
    }
}

/// The Kubernetes API, with the credentials read.
pub(crate) async fn cluster(
    wiring: &KubernetesWiring,
    agent: &AgentName,
    seal: Arc<Seals>,
) -> Result<Kubernetes, Failure> {
    let options = KubernetesOptions {
        name: wiring.name.clone(),
        agent: agent.clone(),
        namespace: Some(wiring.namespace.clone()),
        kubeconfig: wiring.kubeconfig.clone(),
        tenure_ttl: wiring.ttl,
        testimony_ttl: wiring.ttl,
        deadline: deadline(wiring.ttl),
    };
    Kubernetes::open(options, seal).await.map_err(|error| {
        let text = "the Kubernetes API cannot be used";
        let hint =
            "in a pod: is its service account mounted?  Elsewhere: set `lease.kubeconfig`; then `lifeboat check --environment`";
        Failure::because(Exit::Config, text.to_owned(), &error).hint(hint)
    })
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
    let agents = wiring.agents.iter().map(|(name, agent)| (name.clone(), agent.key.to_string()));
    let sentries = wiring.workloads.values().flat_map(|workload| &workload.sentries);
    let sentries = sentries.map(|(region, key)| (settings::name(region), key.to_string()));
    let keys: BTreeMap<AgentName, String> = agents.chain(sentries).collect();
    Seals::new(own, &keys).map_err(|error| unusable(&error))
}

/// Keeps the promises that are given to sentries where those who count expiries look.
struct Kept {
    etcd: Arc<Etcd>,
    promises: Arc<Promises>,
    clock: Clock,
}

impl failsafe::Promises for Kept {
    fn promise(&self, workload: &WorkloadName, region: &RegionName, length: Duration) {
        self.promises.note(workload, region, self.clock.now() + length);
    }

    fn length(&self, workload: &WorkloadName, region: &RegionName) -> Option<Duration> {
        self.etcd.lease_length(workload, region)
    }
}

/// This agent's ear for sentries, bound to its address; none when it listens nowhere, or there can be no sentries. It
/// answers when it is served.
pub(crate) async fn listener(
    shared: &Shared,
    wiring: &Wiring,
    outlook: watch::Receiver<Outlook>,
    clock: Clock,
) -> Result<Option<Listener>, Failure> {
    let Some((address, (etcd, promises))) = wiring.agent.listen.zip(shared.leases.clone()) else {
        return Ok(None);
    };
    let mut sentries = failsafe::Sentries::new();
    for (name, workload) in &wiring.workloads {
        for region in workload.sentries.keys() {
            sentries.entry(settings::name(region)).or_default().insert((name.clone(), region.clone()));
        }
    }
    let station = Station {
        agent: wiring.agent.name.clone(),
        agents: wiring.agents.keys().cloned().collect(),
        seal: shared.seal.clone(),
        sentries,
        outlook,
        promises: Arc::new(Kept { etcd, promises, clock }),
        most: LONGEST_PROMISE,
    };
    let bound = Listener::bind(address, station).await;
    bound.map(Some).map_err(|error| {
        Failure::because(Exit::Failed, format!("cannot listen to sentries on {address}"), &error)
            .hint("is another agent listening there?  `ss -ltnp` shows it")
    })
}

/// What a sentry's question is judged by, as it changes.
pub(crate) async fn look_out(
    outlook: watch::Sender<Outlook>,
    mut reached: watch::Receiver<bool>,
    mut heads: watch::Receiver<BTreeMap<WorkloadName, Head>>,
    stop: CancellationToken,
) {
    loop {
        let reachable = *reached.borrow_and_update();
        let newest = heads.borrow_and_update().clone();
        outlook.send_replace(Outlook { reachable, heads: newest });
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            changed = reached.changed() => if changed.is_err() { return },
            changed = heads.changed() => if changed.is_err() { return },
        }
    }
}
