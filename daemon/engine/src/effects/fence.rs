//! The fence of a failover: three ways to prove that the old primary takes no more writes, by rank.
//!
//! **Invariant:** a proof is taken for the database it was given for; a way that failed never counts as one that did not.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::time::Duration;

use futures::FutureExt;
use futures::future::join_all;
use lifeboat_core::outcome::FenceProof;
use lifeboat_core::{DatabaseName, Fault, FaultKind, Output, RegionName, time};

use super::{Effects, all, grave};

/// How long the confirmed way is waited for before the standby is cut off, which the old primary's clients feel.
const PATIENCE: Duration = Duration::from_secs(1);

impl Effects<'_> {
    /// Fences each database of the region: confirmed at the old primary, and as far as it is allowed by the end of its
    /// write lease and by cutting off its standby in another region. The first proof of each database wins.
    pub(crate) async fn fence(
        &self,
        region: &RegionName,
        databases: &BTreeSet<DatabaseName>,
        expiry: bool,
        cut_off: Option<&RegionName>,
    ) -> Result<Output, Fault> {
        let expired = self.expired(region, expiry).shared();
        let each = databases.iter().map(|name| {
            let expired = expired.clone();
            async move { Ok((name.clone(), self.proven(region, name, expired, cut_off).await?)) }
        });
        Ok(Output::Fenced { proofs: all(join_all(each).await)? })
    }

    async fn proven(
        &self,
        region: &RegionName,
        name: &DatabaseName,
        expired: impl Future<Output = Option<Result<FenceProof, Fault>>>,
        cut_off: Option<&RegionName>,
    ) -> Result<FenceProof, Fault> {
        let confirmed = self.confirmed(region, name).fuse();
        let cut = self.cut_off(name, cut_off).fuse();
        let expired = expired.fuse();
        tokio::pin!(confirmed, cut, expired);
        let mut faults: BTreeMap<&str, Fault> = BTreeMap::new();
        let mut open = 3_u8;
        while open > 0 {
            // In the order of their ranks: of several that are there at the same time the best is taken.
            let (way, result) = futures::select_biased! {
                result = confirmed => ("confirmed", Some(result)),
                result = cut => ("cut off", result),
                result = expired => ("expired", result),
            };
            open -= 1;
            match result {
                Some(Ok(proof)) => return Ok(proof),
                // Somebody newer is in charge: no other way makes this one right.
                Some(Err(fault)) if fault.kind == FaultKind::Stale => return Err(fault),
                Some(Err(fault)) => {
                    faults.insert(way, fault);
                }
                None => {}
            }
        }
        Err(gravest(&faults).in_region(region))
    }

    async fn confirmed(&self, region: &RegionName, name: &DatabaseName) -> Result<FenceProof, Fault> {
        let database = self.database(region, name)?;
        self.within(database.ensure_fenced(&self.call)).await.map_err(|fault| fault.in_region(region))
    }

    async fn cut_off(
        &self,
        name: &DatabaseName,
        target: Option<&RegionName>,
    ) -> Option<Result<FenceProof, Fault>> {
        let target = target?;
        self.clock.sleep_until(self.clock.now() + PATIENCE).await;
        let database = match self.database(target, name) {
            Ok(database) => database,
            Err(fault) => return Some(Err(fault)),
        };
        let cut = self.within(database.ensure_cut_off(&self.call)).await;
        Some(cut.map_err(|fault| fault.in_region(target)))
    }

    async fn expired(&self, region: &RegionName, allowed: bool) -> Option<Result<FenceProof, Fault>> {
        if !allowed {
            return None;
        }
        let Some(coordination) = self.coordination else {
            return Some(Err(Fault::new(FaultKind::Refused, "this agent is alone: nobody keeps a lease")));
        };
        Some(self.within(coordination.ensure_expired(&self.call, self.workload, region)).await)
    }

    /// A way that does not keep to the limit must not hide what came of the others.
    async fn within(
        &self,
        way: impl Future<Output = Result<FenceProof, Fault>>,
    ) -> Result<FenceProof, Fault> {
        let limit = self.call.limit;
        let late = || Fault::new(FaultKind::Unclear, format!("no outcome within {}", time::length(limit)));
        tokio::time::timeout(limit, way).await.unwrap_or_else(|_| Err(late()))
    }
}

/// The gravest of them, with the words of all.
fn gravest(faults: &BTreeMap<&str, Fault>) -> Fault {
    let kind = faults.values().map(|fault| fault.kind).max_by_key(|kind| grave(*kind));
    let detail = match faults.len() {
        // Only one way was allowed: its name says nothing.
        1 => faults.values().map(|fault| fault.detail.clone()).collect(),
        _ => faults.iter().map(|(way, fault)| format!("{way}: {fault}")).collect::<Vec<_>>().join("; "),
    };
    Fault::new(kind.unwrap_or(FaultKind::Refused), detail)
}
