//! The effects of planned moves and of a region that returns: two sides of one database work together.
//!
//! **Invariant:** what one side must know of the other is asked of the other, never remembered.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures::FutureExt;
use futures::future::{BoxFuture, join_all};
use lifeboat_core::outcome::LogPosition;
use lifeboat_core::plan::NameChange;
use lifeboat_core::{DatabaseName, Fault, FaultKind, Output, RegionName, Source, SystemIdentifier};

use super::{Effects, all};
use crate::ports::{Call, Database};

impl Effects<'_> {
    pub(crate) async fn check_standby(
        &self,
        primary: &RegionName,
        standby: &RegionName,
        databases: &BTreeMap<DatabaseName, SystemIdentifier>,
        changes: &[NameChange],
    ) -> Result<Output, Fault> {
        let begun = self.clock.now();
        let fit = databases.iter().map(|(name, system)| async move {
            let database = self.database(standby, name)?;
            let fit = database.fit(&self.call, *system).await;
            fit.map(|()| (name.clone(), ())).map_err(|fault| fault.in_region(standby))
        });
        all(join_all(fit).await)?;
        self.followed(primary, standby, databases.keys()).await?;
        let behind = self.clock.now().since(begun);
        let names = changes.iter().map(|change| self.still_says_from(change));
        all(join_all(names).await)?;
        Ok(Output::Ready { behind })
    }

    /// What a name says is looked at before anything moves: nobody may be stranded on it afterwards.
    async fn still_says_from(&self, change: &NameChange) -> Result<(lifeboat_core::DnsName, ()), Fault> {
        let before = NameChange { from: change.to.clone(), to: change.from.clone(), ..change.clone() };
        let census = self.names(&change.name)?.census(&self.call, &before).await?;
        match census.disagree.iter().next() {
            Some((server, said)) => {
                let detail =
                    format!("{server} says {said} for {}, which is not what is to be changed", change.name);
                Err(Fault::new(FaultKind::Refused, detail))
            }
            None if census.agree.is_empty() => {
                Err(Fault::new(FaultKind::Unreachable, format!("no server answers for {}", change.name)))
            }
            None => Ok((change.name.clone(), ())),
        }
    }

    /// A commit of each primary is replayed by its standby.
    async fn followed<'d>(
        &self,
        primary: &RegionName,
        standby: &RegionName,
        databases: impl Iterator<Item = &'d DatabaseName>,
    ) -> Result<BTreeMap<DatabaseName, LogPosition>, Fault> {
        let each = databases.map(|name| async move {
            let (leader, follower) = (self.database(primary, name)?, self.database(standby, name)?);
            let mark = leader.mark(&self.call).await.map_err(|fault| fault.in_region(primary))?;
            let reached = follower.catch_up(&self.call, &mark).await;
            Ok((name.clone(), reached.map_err(|fault| fault.in_region(standby))?))
        });
        all(join_all(each).await)
    }

    pub(crate) async fn drain(
        &self,
        region: &RegionName,
        databases: &BTreeSet<DatabaseName>,
    ) -> Result<Output, Fault> {
        self.each(region, databases, |d, call| async move { d.drain(&call).await }.boxed()).await?;
        Ok(Output::Drained)
    }

    pub(crate) async fn close(
        &self,
        region: &RegionName,
        databases: &BTreeSet<DatabaseName>,
        returned: bool,
    ) -> Result<Output, Fault> {
        let close = |d: Arc<dyn Database>, call: Call| {
            async move {
                if returned { d.ensure_shut_out(&call).await } else { d.ensure_closed(&call).await }
            }
            .boxed()
        };
        let proofs = self.each(region, databases, close).await?;
        Ok(Output::Fenced { proofs })
    }

    pub(crate) async fn lift(
        &self,
        region: &RegionName,
        databases: &BTreeSet<DatabaseName>,
    ) -> Result<Output, Fault> {
        self.each(region, databases, |d, call| async move { d.ensure_open(&call).await }.boxed()).await?;
        Ok(Output::Lifted)
    }

    pub(crate) async fn catch_up(
        &self,
        region: &RegionName,
        goals: &BTreeMap<DatabaseName, LogPosition>,
    ) -> Result<Output, Fault> {
        if goals.is_empty() {
            return Err(Fault::new(FaultKind::Refused, "the fence did not say where the log ends"));
        }
        let each = goals.iter().map(|(name, goal)| async move {
            let reached = self.database(region, name)?.catch_up(&self.call, goal).await;
            Ok((name.clone(), reached.map_err(|fault| fault.in_region(region))?))
        });
        Ok(Output::CaughtUp { positions: all(join_all(each).await)? })
    }

    pub(crate) async fn salvage(
        &self,
        region: &RegionName,
        source: &RegionName,
        databases: &BTreeMap<DatabaseName, SystemIdentifier>,
    ) -> Result<Output, Fault> {
        let salvage = |returned: Arc<dyn Database>, call: Call, offered: Source| {
            async move { returned.salvage(&call, &offered).await }.boxed()
        };
        Ok(Output::Salvaged { salvages: self.returned(region, source, databases, salvage).await? })
    }

    pub(crate) async fn rejoin(
        &self,
        region: &RegionName,
        source: &RegionName,
        databases: &BTreeMap<DatabaseName, SystemIdentifier>,
    ) -> Result<Output, Fault> {
        let rejoin = |returned: Arc<dyn Database>, call: Call, offered: Source| {
            async move { returned.ensure_rejoined(&call, &offered).await }.boxed()
        };
        Ok(Output::Rejoined { rejoins: self.returned(region, source, databases, rejoin).await? })
    }

    /// Does something to each server of `region` that is to follow the one in `source`, with what that one offers it.
    async fn returned<T>(
        &self,
        region: &RegionName,
        source: &RegionName,
        databases: &BTreeMap<DatabaseName, SystemIdentifier>,
        act: impl Fn(Arc<dyn Database>, Call, Source) -> BoxFuture<'static, Result<T, Fault>>,
    ) -> Result<BTreeMap<DatabaseName, T>, Fault> {
        let act = &act;
        let each = databases.iter().map(|(name, system)| async move {
            let (returned, offered) = self.offered(region, source, name, *system).await?;
            let done = act(returned, self.call.clone(), offered).await;
            Ok((name.clone(), done.map_err(|fault| fault.in_region(region))?))
        });
        all(join_all(each).await)
    }

    /// The server in `region`, and what the one in `source` offers it; that one must be the cluster that is expected.
    async fn offered(
        &self,
        region: &RegionName,
        source: &RegionName,
        name: &DatabaseName,
        system: SystemIdentifier,
    ) -> Result<(Arc<dyn Database>, Source), Fault> {
        let (returned, leader) = (self.database(region, name)?, self.database(source, name)?);
        let offered = leader.offer(&self.call, region).await.map_err(|fault| fault.in_region(source))?;
        if offered.system != system {
            let detail = format!("the primary belongs to cluster {}, not {system}", offered.system);
            return Err(Fault::new(FaultKind::Refused, detail).in_region(source));
        }
        Ok((returned, offered))
    }

    pub(crate) async fn await_replication(
        &self,
        primary: &RegionName,
        standby: &RegionName,
        databases: &BTreeSet<DatabaseName>,
    ) -> Result<Output, Fault> {
        Ok(Output::Replicating { positions: self.followed(primary, standby, databases.iter()).await? })
    }
}
