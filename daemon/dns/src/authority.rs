//! lifeboat's own name server for a delegated sub-zone: no third party stands in the way of a switch.
//!
//! Configured, bound, started and drained are four moments: [`ZoneOptions`], [`Authority::bind`],
//! [`Authority::start`], [`Serving::drain`]. The names kept in it are changed through [`KeptNames`].
//!
//! It answers for its zone and refuses everything else: no recursion, no transfers, no updates from
//! outside, no wildcards, no delegations below it, no signatures.
//!
//! **Invariant:** it answers from its first packet on, with records that were given before it was bound.
//! **Invariant:** memory does not grow with what is sent to it: datagrams are answered one by one, and
//! connections are bounded in number, size and idle time.

mod kept;
mod listen;
mod reply;
mod zone;

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use lifeboat_core::{DnsName, Epoch};
use thiserror::Error;

pub use kept::KeptNames;
pub(crate) use kept::{foreign, stale};
pub use listen::Serving;

use crate::value::{RecordKind, ValueError};
use listen::Sockets;
use zone::Zone;

/// How the authority is configured.
#[derive(Clone, Debug)]
pub struct ZoneOptions {
    /// The sub-zone that is delegated to these agents.
    pub zone: DnsName,
    /// Where it listens, on UDP and TCP. Port 0 takes a free one. On a host with several addresses, name
    /// each address: a reply from a socket bound to `0.0.0.0` leaves with whatever source the route has.
    pub listen: Vec<SocketAddr>,
    /// The NS records; the first is the SOA's MNAME.
    pub nameservers: Vec<DnsName>,
    /// The SOA's RNAME; `hostmaster` in the zone by default.
    pub hostmaster: Option<DnsName>,
    /// How long a "no" may be believed (SOA MINIMUM).
    pub negative_ttl: Duration,
    /// Records beside the workloads' names.
    pub fixed: Vec<FixedRecord>,
}

/// A record set that never changes while the agent runs.
#[derive(Clone, Debug)]
pub struct FixedRecord {
    /// Its name, in the zone.
    pub name: DnsName,
    /// A, AAAA, CNAME or TXT.
    pub kind: RecordKind,
    /// Its values, at least one.
    pub values: Vec<String>,
    /// Its time to live, in whole seconds.
    pub ttl: Duration,
}

/// A name that is switched, and what it says as of an epoch.
#[derive(Clone, Debug)]
pub struct KeptName {
    /// The name, in the zone.
    pub name: DnsName,
    /// Addresses, or one host name.
    pub values: BTreeSet<String>,
    /// Time to live, in whole seconds.
    pub ttl: Duration,
    /// The epoch that made it so.
    pub epoch: Epoch,
}

/// Why the authority cannot serve.
#[derive(Debug, Error)]
pub enum AuthorityError {
    /// A zone needs a name server.
    #[error("the zone has no name server")]
    NoNameserver,
    /// A name with `hostmaster` before it would be longer than DNS allows.
    #[error("the zone's name {0} is too long")]
    TooLong(DnsName),
    /// A name that the zone does not hold.
    #[error("{name} is not in the zone {zone}")]
    Outside {
        /// The name.
        name: DnsName,
        /// The zone.
        zone: DnsName,
    },
    /// Two record sets of a kind at one name, or something beside a CNAME.
    #[error("{0} is given twice, or a CNAME is given beside other records")]
    Twice(DnsName),
    /// The zone's own name holds SOA and NS records, so it cannot be an alias (RFC 1912, section 2.4).
    #[error("{0} is the zone's own name and cannot be a CNAME")]
    AliasAtApex(DnsName),
    /// Text that is no value.
    #[error(transparent)]
    Value(#[from] ValueError),
    /// An address that cannot be listened on.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// The zone as all listeners see it.
#[derive(Clone, Debug)]
pub(crate) struct Shared(Arc<RwLock<Arc<Zone>>>);

impl Shared {
    fn new(zone: Zone) -> Self {
        Self(Arc::new(RwLock::new(Arc::new(zone))))
    }

    /// The zone as it is now. A writer replaces the whole value, so a poisoned lock still holds a good one.
    pub(crate) fn now(&self) -> Arc<Zone> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Looks and changes in one step: no other change comes between.
    pub(crate) fn change<T, E>(&self, change: impl FnOnce(&mut Zone) -> Result<T, E>) -> Result<T, E> {
        let mut current = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let mut next = Zone::clone(&current);
        let outcome = change(&mut next)?;
        *current = Arc::new(next);
        Ok(outcome)
    }
}

/// The authority, bound to its addresses and not yet answering.
#[derive(Debug)]
pub struct Authority {
    zone: Shared,
    sockets: Sockets,
}

impl Authority {
    /// Builds the zone and binds every address, over UDP and TCP. `kept` is where each workload lives now.
    pub async fn bind(options: ZoneOptions, kept: Vec<KeptName>) -> Result<Self, AuthorityError> {
        let zone = Zone::build(&options, kept)?;
        Ok(Self { zone: Shared::new(zone), sockets: Sockets::bind(&options.listen).await? })
    }

    /// The addresses it is bound to, in the order they were given.
    pub fn addresses(&self) -> &[SocketAddr] {
        self.sockets.addresses()
    }

    /// A handle to change and count what the kept names say; `resolvers` are asked by its census, beside
    /// the authority's own addresses.
    pub fn names(&self, resolvers: Vec<SocketAddr>) -> KeptNames {
        KeptNames::new(self.zone.clone(), self.sockets.addresses(), resolvers)
    }

    /// Starts to answer.
    pub fn start(self) -> Serving {
        self.sockets.serve(self.zone)
    }
}
