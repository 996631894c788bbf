//! What several agents share, kept in etcd.
//!
//! Every key is under `/lifeboat/NAME/`:
//!
//! | key | value | who writes it |
//! |---|---|---|
//! | `guardian` | who decides, and its newest beat; bound to an etcd lease; its create revision is the term | who finds none; then its holder |
//! | `record/<20 digits>` | the records of one append, named after the first; a line each, with version and sum | the holder of the tenure |
//! | `newest` | the place of the newest record | in the same transaction |
//! | `head/<workload>` | epoch, holder, closing, coming, tended | in the same transaction |
//! | `testimony/<agent>` | `{body, seal}`; bound to an etcd lease | that agent |
//! | `order/<id>` | `{body, seal}`; bound to an etcd lease | the agent that was given the order |
//! | `answer/<id>` | the answer; bound to the lease of the order | the holder of the tenure |
//! | `write/<workload>/<region>` | how often the write lease was renewed, its length, what the sentry says | the sentry, comparing the head |
//!
//! What the holder of the tenure writes compares the guardian's create revision and its etcd lease, which together are never
//! the same again, not even in an etcd that was restored from a backup. A call that may have been taken in without an answer
//! is sent again through another member: each write compares something that it changes itself, so of two of them one counts.
//!
//! etcd must compact its history (`--auto-compaction-retention=10m`), or beats and testimonies fill it in some days.
//!
//! **Invariant:** no write is made without a comparison in its transaction.
//! **Invariant:** nothing is connected before it is used, and no call waits longer than one deadline for each endpoint.
//! **Invariant:** whatever size a value has that somebody else has written, a bounded amount of it is taken in.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use lifeboat_core::head::{Guarded, Head};
use lifeboat_core::outcome::FenceProof;
use lifeboat_core::testimony::{Beat, Testimony};
use lifeboat_core::{AgentName, Answer, Fault, Order, RegionName, Stamped, WorkloadName};
use lifeboat_engine::clock::Clock;
use lifeboat_engine::ports::{
    Call, Change, Coordination, CoordinationError, Renewal, Seal, Tenure, WriteLeases,
};
use tokio::sync::mpsc;

use crate::Promises;

mod batch;
mod envelope;
mod expiry;
mod handshake;
mod keys;
mod members;
mod orders;
mod record;
mod survey;
mod tenure;
mod testimony;
mod trouble;
mod watching;
mod writes;

pub use expiry::expiry_after;
pub use survey::{MemberLook, survey};
pub use writes::EtcdLeases;

/// Where etcd is, and who we are there.
#[derive(Clone, Debug)]
pub struct EtcdOptions {
    /// The name of this lifeboat: several can share one etcd.
    pub name: String,
    /// This agent.
    pub agent: AgentName,
    /// The members, the nearest first: `https://etcd-1.example:2379`.
    pub endpoints: Vec<String>,
    /// Certificates; none for an etcd that is reached over `http`.
    pub tls: Option<EtcdTls>,
    /// Who we say we are; none when etcd knows no users, or takes the name from the certificate.
    pub user: Option<EtcdUser>,
    /// How long a tenure lasts without being renewed. etcd counts whole seconds, and at least one and a half election
    /// time-outs.
    pub tenure_ttl: Duration,
    /// How long a testimony lasts without being said again; whole seconds, as above.
    pub testimony_ttl: Duration,
    /// How long one member is waited for; a quarter of the tenure when that is less.
    pub deadline: Duration,
}

/// Certificates, as files that are read when they are used.
#[derive(Clone, Debug)]
pub struct EtcdTls {
    /// Who vouches for etcd.
    pub ca_file: PathBuf,
    /// Our own certificate, when etcd asks for one.
    pub cert_file: Option<PathBuf>,
    /// Its key.
    pub key_file: Option<PathBuf>,
}

/// A user of etcd.
#[derive(Clone, Debug)]
pub struct EtcdUser {
    /// Its name.
    pub name: String,
    /// The file with its password, read when it is used.
    pub password_file: PathBuf,
}

/// What several agents share.
pub struct Etcd {
    options: EtcdOptions,
    keys: keys::Keys,
    members: Arc<members::Members>,
    seal: Arc<dyn Seal>,
    clock: Clock,
    promises: Arc<Promises>,
    leases: EtcdLeases,
    /// The tenure that this agent holds, as far as it knows.
    held: Mutex<Option<tenure::Held>>,
    /// Where this agent's own testimony is; one is said at a time.
    said: tokio::sync::Mutex<testimony::Said>,
    /// The number of the newest testimony that was heard of each vantage, over all watches.
    heard: Mutex<BTreeMap<AgentName, u64>>,
    /// The orders that were told of, over all watches: none is told twice.
    told: Mutex<BTreeSet<String>>,
    /// The write leases, as they were seen to change, over all watches.
    renewals: expiry::Renewals,
}

impl Etcd {
    /// Connects to nothing yet. `promises` is the same one that the failsafe listener notes its promises in.
    pub fn new(options: EtcdOptions, seal: Arc<dyn Seal>, clock: Clock, promises: Arc<Promises>) -> Self {
        let leases = EtcdLeases::new(options.clone());
        Self {
            keys: leases.keys.clone(),
            members: Arc::clone(&leases.members),
            options,
            seal,
            clock,
            promises,
            leases,
            held: Mutex::default(),
            said: tokio::sync::Mutex::default(),
            heard: Mutex::default(),
            told: Mutex::default(),
            renewals: expiry::Renewals::default(),
        }
    }

    /// How long the write lease of that region lasts, as it was last seen renewed; none when it was not.
    pub fn lease_length(&self, workload: &WorkloadName, region: &RegionName) -> Option<Duration> {
        self.renewals.length(workload, region)
    }
}

/// What is behind a lock is sound after a panic: it is changed in one step.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[async_trait]
impl Coordination for Etcd {
    fn tenure_ttl(&self) -> Duration {
        Duration::from_secs(
            u64::try_from(members::whole_seconds(self.options.tenure_ttl)).unwrap_or(u64::MAX),
        )
    }

    async fn watch(&self, known: Option<&Stamped>, changes: &mpsc::Sender<Change>) -> CoordinationError {
        self.watch_until(known, changes).await
    }

    async fn campaign(&self) -> Result<Option<Tenure>, CoordinationError> {
        self.stand().await
    }

    async fn renew(&self, tenure: Tenure, beat: Beat) -> Result<(), CoordinationError> {
        self.keep_tenure(tenure, beat).await
    }

    async fn resign(&self, tenure: Tenure) {
        self.give_back(tenure).await;
    }

    async fn records(&self, after: u64) -> Result<Vec<Stamped>, CoordinationError> {
        self.records_after(after).await
    }

    async fn append(
        &self,
        tenure: Tenure,
        records: &[Stamped],
        heads: &BTreeMap<WorkloadName, Head>,
    ) -> Result<(), CoordinationError> {
        self.put_records(tenure, records, heads).await
    }

    async fn testify(&self, testimony: &Testimony) -> Result<(), CoordinationError> {
        self.say(testimony).await
    }

    async fn order(&self, order: &Order, limit: Duration) -> Result<Answer, CoordinationError> {
        self.give_order(order, limit).await
    }

    async fn answer(&self, tenure: Tenure, id: &str, answer: &Answer) -> Result<(), CoordinationError> {
        self.give_answer(tenure, id, answer).await
    }

    async fn ensure_expired(
        &self,
        call: &Call,
        workload: &WorkloadName,
        region: &RegionName,
    ) -> Result<FenceProof, Fault> {
        self.prove_expired(call, workload, region).await
    }
}

#[async_trait]
impl WriteLeases for Etcd {
    async fn renew(
        &self,
        workload: &WorkloadName,
        region: &RegionName,
        length: Duration,
        says: Guarded,
    ) -> Result<Renewal, CoordinationError> {
        self.leases.renew(workload, region, length, says).await
    }
}
