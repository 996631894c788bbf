//! Changing and counting what the authority's own names say.
//!
//! **Invariant:** a name's epoch only rises; what an older epoch asks for is `Stale`.
//! **Invariant:** looking at a name and changing it is one step.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use async_trait::async_trait;
use hickory_proto::rr::LowerName;
use lifeboat_core::outcome::{Census, NameSwitched};
use lifeboat_core::{Fault, FaultKind};
use lifeboat_engine::ports::{Call, NameChange, Names};

use super::{KeptName, Shared};
use crate::census::{self, Servers};
use crate::value::{canonical, listed, ttl_seconds};

/// A handle to the names kept in the authority.
#[derive(Clone, Debug)]
pub struct KeptNames {
    zone: Shared,
    servers: Servers,
}

impl KeptNames {
    pub(crate) fn new(zone: Shared, listen: &[SocketAddr], resolvers: Vec<SocketAddr>) -> Self {
        let authoritative = listen.iter().map(|address| SocketAddr::new(reach(address.ip()), address.port()));
        Self { zone, servers: Servers::new(authoritative, resolvers) }
    }

    /// Sets what a name says, from where the workload lives now: what the record of past runs knows. What
    /// the authority holds under a newer epoch stays, as `Stale`. A name it did not keep is kept from now on.
    pub fn place(&self, kept: &KeptName) -> Result<(), Fault> {
        self.zone.change(|zone| {
            let owner = zone.owner(kept.name.as_str()).map_err(refused)?;
            match zone.kept(&LowerName::new(&owner)) {
                Some(now) if now.epoch > kept.epoch => Err(stale(kept.name.as_str(), now.epoch, kept.epoch)),
                _ => zone.place(kept).map_err(refused),
            }
        })
    }

    fn switch(&self, call: &Call, change: &NameChange) -> Result<NameSwitched, Fault> {
        let name = change.name.as_str();
        let (from, to) = (canonical(&change.from).map_err(refused)?, canonical(&change.to).map_err(refused)?);
        self.zone.change(|zone| {
            let owner = zone.owner(name).map_err(refused)?;
            let Some(now) = zone.kept(&LowerName::new(&owner)) else {
                return Err(Fault::new(FaultKind::Refused, format!("{name} is not kept by the authority")));
            };
            if now.epoch > call.epoch {
                return Err(stale(name, now.epoch, call.epoch));
            }
            if now.values != from && now.values != to {
                return Err(foreign(name, &now.values, &from, &to));
            }
            let already = now.values == to;
            if !already || now.epoch != call.epoch || now.ttl != ttl_seconds(change.ttl) {
                let next = KeptName {
                    name: change.name.clone(),
                    values: change.to.clone(),
                    ttl: change.ttl,
                    epoch: call.epoch,
                };
                zone.place(&next).map_err(refused)?;
            }
            Ok(NameSwitched { values: to.clone(), already })
        })
    }
}

#[async_trait]
impl Names for KeptNames {
    async fn ensure_record(&self, call: &Call, change: &NameChange) -> Result<NameSwitched, Fault> {
        self.switch(call, change)
    }

    async fn census(&self, call: &Call, change: &NameChange) -> Result<Census, Fault> {
        census::take(&self.servers, change, call.limit).await
    }
}

/// Where a socket bound to `ip` is reached from this host.
fn reach(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(v4) if v4.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(v6) if v6.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        other => other,
    }
}

fn refused(error: impl std::fmt::Display) -> Fault {
    Fault::new(FaultKind::Refused, error.to_string())
}

/// A newer epoch has written the name.
pub(crate) fn stale(name: &str, written: lifeboat_core::Epoch, ours: lifeboat_core::Epoch) -> Fault {
    Fault::new(FaultKind::Stale, format!("{name} was written under epoch {written}, newer than epoch {ours}"))
}

/// The name says what nobody here has said.
pub(crate) fn foreign(
    name: &str,
    now: &BTreeSet<String>,
    from: &BTreeSet<String>,
    to: &BTreeSet<String>,
) -> Fault {
    let (now, from, to) = (listed(now), listed(from), listed(to));
    Fault::new(FaultKind::Refused, format!("{name} says {now}, neither {from} nor {to}: it is left as it is"))
}
