//! The world as it is plugged in: which adapter stands behind which name.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use lifeboat_core::{DatabaseName, DnsName, ProbeName, RegionName, WorkloadName};

use crate::ports::{Canary, Database, Messenger, Names, Notify, Probe, Witness};

/// A probe at its post.
#[derive(Clone)]
pub struct Post {
    /// The workload it looks after.
    pub workload: WorkloadName,
    /// The region it looks at.
    pub region: RegionName,
    /// Its name.
    pub name: ProbeName,
    /// Time between the starts of two looks.
    pub interval: Duration,
    /// How long a look may take.
    pub timeout: Duration,
    /// What looks.
    pub probe: Arc<dyn Probe>,
}

/// Every adapter, by what it stands for.
#[derive(Clone, Default)]
pub struct World {
    /// The probes.
    pub posts: Vec<Post>,
    /// The members of the databases.
    pub databases: BTreeMap<(WorkloadName, RegionName, DatabaseName), Arc<dyn Database>>,
    /// The DNS names.
    pub names: BTreeMap<(WorkloadName, DnsName), Arc<dyn Names>>,
    /// The canaries.
    pub canaries: BTreeMap<WorkloadName, Arc<dyn Canary>>,
    /// Who is asked whether this agent's own network works.
    pub witnesses: Vec<Arc<dyn Witness>>,
    /// Time between two askings.
    pub witness_interval: Duration,
    /// How long a witness may take.
    pub witness_timeout: Duration,
    /// Who sends the requests of the operator's own steps.
    pub messenger: Option<Arc<dyn Messenger>>,
    /// Ways to tell people.
    pub notify: Vec<Arc<dyn Notify>>,
    /// Where reports of runs are written; nowhere when it has no name.
    pub reports: PathBuf,
}
