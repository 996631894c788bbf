//! Each action, done to all that it names at the same time.
//!
//! **Invariant:** an action succeeds only when it did for everything it names; the gravest fault of its
//! parts is its fault.

mod fence;
mod own;
mod planned;

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::{BoxFuture, join_all};
use lifeboat_core::outcome::{Census, Visit};
use lifeboat_core::plan::NameChange;
use lifeboat_core::{
    DatabaseName, DnsName, Fault, FaultKind, Output, ProbeName, RegionName, SystemIdentifier, WorkloadName,
};

use crate::clock::Clock;
use crate::ports::{Ask, Call, Coordination, Database, Names, Role};
use crate::world::World;

/// How long to wait before a place that does not serve yet is looked at again.
const AGAIN: Duration = Duration::from_millis(50);

/// How long a name server may be silent before the census goes on without it, and names it.
const PATIENCE_WITH_SILENCE: Duration = Duration::from_secs(5);

/// What the actions of one command are done with.
pub(crate) struct Effects<'a> {
    pub(crate) world: &'a World,
    pub(crate) workload: &'a WorkloadName,
    pub(crate) call: Call,
    pub(crate) clock: Clock,
    /// What is shared with other agents, when it is.
    pub(crate) coordination: Option<&'a dyn Coordination>,
}

impl Effects<'_> {
    pub(crate) async fn measure(
        &self,
        region: &RegionName,
        databases: &BTreeSet<DatabaseName>,
    ) -> Result<Output, Fault> {
        let positions =
            self.each(region, databases, |d, call| async move { d.measure(&call).await }.boxed()).await?;
        Ok(Output::Positions { positions })
    }

    pub(crate) async fn promote(
        &self,
        region: &RegionName,
        databases: &BTreeMap<DatabaseName, SystemIdentifier>,
    ) -> Result<Output, Fault> {
        let promotions = databases.iter().map(|(name, system)| async move {
            let database = self.database(region, name)?;
            let promotion =
                database.ensure_promoted(&self.call, *system).await.map_err(|f| f.in_region(region))?;
            Ok((name.clone(), promotion))
        });
        Ok(Output::Promoted { promotions: all(join_all(promotions).await)? })
    }

    pub(crate) async fn await_serving(
        &self,
        region: &RegionName,
        databases: &BTreeSet<DatabaseName>,
        probes: &BTreeSet<ProbeName>,
    ) -> Result<Output, Fault> {
        // At the same time, so that both keep within the one limit.
        let writes =
            self.each(region, databases, |d, call| async move { d.ensure_writable(&call).await }.boxed());
        let answers = join_all(probes.iter().map(|probe| self.until_answered(region, probe)));
        let (writes, answers) = tokio::join!(writes, answers);
        let writes = writes?;
        all::<(), ()>(answers.into_iter().map(|r| r.map(|()| ((), ()))).collect())?;
        Ok(Output::Serving { first_write: writes.into_values().max().unwrap_or_default() })
    }

    /// Looks through a probe until it is answered, or this call's time is nearly up.
    async fn until_answered(&self, region: &RegionName, name: &ProbeName) -> Result<(), Fault> {
        let mut posts = self.world.posts.iter();
        let post = posts.find(|p| p.workload == *self.workload && p.name == *name && p.region == *region);
        let Some(post) = post else {
            return Err(Fault::new(FaultKind::Refused, format!("no probe {name} is wired")).in_region(region));
        };
        let look = || async {
            let ask = Ask {
                agent: self.call.agent.clone(),
                at: self.clock.now(),
                epoch: self.call.epoch,
                expect: Role::Primary,
                limit: post.timeout,
            };
            let look = post.probe.look(&ask).await;
            look.map(|_| ())
                .map_err(|failure| Fault::new(FaultKind::Unreachable, format!("{name}: {failure}")))
        };
        self.until(look).await.map_err(|fault| fault.in_region(region))
    }

    pub(crate) async fn switch(&self, changes: &[NameChange]) -> Result<Output, Fault> {
        let switched = changes.iter().map(|change| async move {
            let names = self.names(&change.name)?;
            Ok((change.name.clone(), names.ensure_record(&self.call, change).await?))
        });
        Ok(Output::Switched { names: all(join_all(switched).await)? })
    }

    pub(crate) async fn verify(&self, changes: &[NameChange], canary: bool) -> Result<Output, Fault> {
        let censuses = join_all(changes.iter().map(|change| self.until_agreed(change)));
        let visit = async { if canary { self.until_visited().await.map(Some) } else { Ok(None) } };
        let (censuses, visit) = tokio::join!(censuses, visit);
        Ok(Output::Verified { censuses: all(censuses)?, canary: visit? })
    }

    async fn until_agreed(&self, change: &NameChange) -> Result<(DnsName, Census), Fault> {
        let names = self.names(&change.name)?;
        // A server that died with the region never answers again; one that is only slow gets this long.
        let patient_until = self.clock.now() + self.call.limit.min(PATIENCE_WITH_SILENCE);
        let count = || async {
            let census = names.census(&self.call, change).await?;
            let waited = census.silent.is_empty() || self.clock.now() >= patient_until;
            let agreed = census.disagree.is_empty() && !census.agree.is_empty();
            if agreed && waited {
                Ok((change.name.clone(), census))
            } else {
                Err(disagreement(&change.name, &census))
            }
        };
        self.until(count).await
    }

    async fn until_visited(&self) -> Result<Visit, Fault> {
        let canary = self.world.canaries.get(self.workload);
        let canary = canary.ok_or_else(|| Fault::new(FaultKind::Refused, "no canary is wired"))?;
        self.until(|| canary.visit(&self.call)).await
    }

    /// Tries until it succeeds, the fault says that trying again changes nothing, or nine tenths of this
    /// call's time are gone; then gives the last fault.
    async fn until<T, F: Future<Output = Result<T, Fault>>>(
        &self,
        mut look: impl FnMut() -> F,
    ) -> Result<T, Fault> {
        let ends = self.clock.now() + self.call.limit.mul_f64(0.9);
        loop {
            let fault = match look().await {
                Ok(found) => return Ok(found),
                Err(fault) => fault,
            };
            let again = self.clock.now() + AGAIN;
            if again >= ends || fault.kind == FaultKind::Stale {
                return Err(fault);
            }
            self.clock.sleep_until(again).await;
        }
    }

    async fn each<T>(
        &self,
        region: &RegionName,
        databases: &BTreeSet<DatabaseName>,
        act: impl Fn(Arc<dyn Database>, Call) -> BoxFuture<'static, Result<T, Fault>>,
    ) -> Result<BTreeMap<DatabaseName, T>, Fault> {
        let acts = databases.iter().map(|name| {
            let begun = self.database(region, name).map(|database| act(database, self.call.clone()));
            async move { Ok((name.clone(), begun?.await.map_err(|fault| fault.in_region(region))?)) }
        });
        all(join_all(acts).await)
    }

    fn database(&self, region: &RegionName, name: &DatabaseName) -> Result<Arc<dyn Database>, Fault> {
        let key = (self.workload.clone(), region.clone(), name.clone());
        let known = self.world.databases.get(&key).cloned();
        known.ok_or_else(|| {
            Fault::new(FaultKind::Refused, format!("no database {name} is wired")).in_region(region)
        })
    }

    fn names(&self, name: &DnsName) -> Result<Arc<dyn Names>, Fault> {
        let known = self.world.names.get(&(self.workload.clone(), name.clone())).cloned();
        known.ok_or_else(|| Fault::new(FaultKind::Refused, format!("no name {name} is wired")))
    }
}

fn disagreement(name: &DnsName, census: &Census) -> Fault {
    let said = census.disagree.iter().map(|(server, said)| format!("{server} says {said}"));
    let silent = census.silent.iter().map(|(server, why)| format!("{server} is silent ({why})"));
    let others: Vec<String> = said.chain(silent).collect();
    let text = if others.is_empty() { "no server was asked".to_owned() } else { others.join("; ") };
    Fault::new(FaultKind::Unclear, format!("{name} is not yet the same everywhere: {text}"))
}

/// All of them, or the gravest fault: stale before refused before unclear before unreachable.
fn all<K: Ord, T>(results: Vec<Result<(K, T), Fault>>) -> Result<BTreeMap<K, T>, Fault> {
    let mut done = BTreeMap::new();
    let mut gravest: Option<Fault> = None;
    for result in results {
        match result {
            Ok((key, value)) => {
                done.insert(key, value);
            }
            Err(fault) if gravest.as_ref().is_none_or(|known| grave(fault.kind) > grave(known.kind)) => {
                gravest = Some(fault);
            }
            Err(_) => {}
        }
    }
    gravest.map_or(Ok(done), Err)
}

const fn grave(kind: FaultKind) -> u8 {
    match kind {
        FaultKind::Unreachable => 0,
        FaultKind::Unclear => 1,
        FaultKind::Refused => 2,
        FaultKind::Stale => 3,
    }
}
