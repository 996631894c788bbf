//! Names kept on another server, changed by RFC 2136 updates signed with TSIG (RFC 8945).
//!
//! Beside each name stands a TXT record, `_lifeboat-epoch.NAME`, that says `epoch=N`. One message holds the
//! conditions (the name still reads as it was looked at, and so does its epoch) and the change of both; the
//! server applies all of it or nothing. An agent that slept through an epoch is so refused by the server
//! itself, whatever it believes.
//!
//! Updates go over TCP: a connection that was never made is a server that was never asked, which a lost
//! datagram cannot tell.
//!
//! **Invariant:** nothing is changed but the addresses or the alias of the name, and its epoch.
//! **Invariant:** what came after the update was sent and before its answer was verified is `Unclear`.

mod error;
mod key;
mod message;
mod session;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use hickory_proto::op::ResponseCode;
use lifeboat_core::outcome::{Census, NameSwitched};
use lifeboat_core::{DnsName, Epoch, Fault};
use lifeboat_engine::ports::{Call, NameChange, Names};
use tokio::time::timeout;

pub use error::UpdateError;
pub use key::KeyAlgorithm;

use crate::authority::{foreign, stale};
use crate::census::{self, Servers};
use crate::value::{canonical, ttl_seconds};
use message::{Found, Target};
use session::Session;

/// Where names are kept, and how we may change them.
#[derive(Clone, Debug)]
pub struct Rfc2136Options {
    /// The zone that holds the names.
    pub zone: DnsName,
    /// The primary server, which takes updates.
    pub server: SocketAddr,
    /// The other authoritative servers, for the census.
    pub secondaries: Vec<SocketAddr>,
    /// Resolvers that the census asks.
    pub resolvers: Vec<SocketAddr>,
    /// The key's name, as the server knows it.
    pub key_name: String,
    /// The key's algorithm.
    pub key_algorithm: KeyAlgorithm,
    /// The file with the key: base64, one line. Read at each use, so that a key can be replaced.
    pub key_file: PathBuf,
}

/// What a name says on its primary server, as looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameState {
    /// Its addresses or its alias; empty when it does not exist.
    pub values: BTreeSet<String>,
    /// Its time to live as served; none when it does not exist.
    pub ttl: Option<Duration>,
    /// The epoch that wrote it; none when lifeboat never did.
    pub epoch: Option<Epoch>,
}

/// The names of one zone on one primary server.
#[derive(Clone, Debug)]
pub struct Rfc2136 {
    options: Rfc2136Options,
    servers: Servers,
}

impl Rfc2136 {
    /// Takes the options as they are; nothing is read or asked yet.
    pub fn new(options: Rfc2136Options) -> Self {
        let authoritative = std::iter::once(options.server).chain(options.secondaries.iter().copied());
        let servers = Servers::new(authoritative, options.resolvers.iter().copied());
        Self { options, servers }
    }

    /// Looks at a name over a signed query and changes nothing: shows that the server is there, knows the
    /// key, and holds the zone, before the day it matters.
    pub async fn look(&self, name: &DnsName, limit: Duration) -> Result<NameState, UpdateError> {
        let target = Target::new(&self.options.zone, name)?;
        let looked = async {
            let mut session = Session::open(&self.options).await?;
            Ok(session.look(&target).await?.state())
        };
        timeout(limit, looked).await.unwrap_or(Err(self.silent(limit)))
    }

    /// Sends an update with the conditions of a change and without any change, signed: shows that the server
    /// takes updates for the zone from this key. What the zone allows per record shows only when it is used.
    pub async fn rehearse(&self, name: &DnsName, limit: Duration) -> Result<NameState, UpdateError> {
        let target = Target::new(&self.options.zone, name)?;
        let rehearsed = async {
            let mut session = Session::open(&self.options).await?;
            let found = session.look(&target).await?;
            match session.update(target.rehearsal(&found)).await? {
                ResponseCode::NoError => Ok(found.state()),
                code => Err(self.refused(code)),
            }
        };
        timeout(limit, rehearsed).await.unwrap_or(Err(self.silent(limit)))
    }

    async fn switch(
        &self,
        call: &Call,
        change: &NameChange,
        sent: &AtomicBool,
    ) -> Result<NameSwitched, Fault> {
        let name = change.name.as_str();
        let target = Target::new(&self.options.zone, &change.name)?;
        let from = canonical(&change.from).map_err(UpdateError::from)?;
        let to = canonical(&change.to).map_err(UpdateError::from)?;
        let mut session = Session::open(&self.options).await?;
        let found = session.look(&target).await?;
        may_change(name, &found, call.epoch, &from, &to)?;
        let already = found.values() == to;
        if already && found.epoch() == Some(call.epoch) && found.ttl() == Some(ttl_seconds(change.ttl)) {
            return Ok(NameSwitched { values: to, already });
        }

        let update = target.update(&found, call.epoch, change)?;
        sent.store(true, Ordering::Relaxed);
        let code = session.update(update).await?;
        // From here on the server has spoken: whether it said yes or no, a look tells what is so.
        match code {
            ResponseCode::NoError => {}
            ResponseCode::NXRRSet
            | ResponseCode::YXRRSet
            | ResponseCode::NXDomain
            | ResponseCode::YXDomain => {
                sent.store(false, Ordering::Relaxed);
                let now = session.look(&target).await?;
                may_change(name, &now, call.epoch, &from, &to)?;
                // An earlier attempt of ours, still on its way when we looked, got there first.
                if now.values() == to && now.epoch() == Some(call.epoch) {
                    return Ok(NameSwitched { values: to, already: true });
                }
                return Err(UpdateError::Overtaken { name: change.name.clone(), code }.into());
            }
            code => return Err(self.refused(code).into()),
        }
        let now = session.look(&target).await?;
        if now.values() == to && now.epoch() == Some(call.epoch) {
            return Ok(NameSwitched { values: to, already });
        }
        may_change(name, &now, call.epoch, &from, &to)?;
        Err(UpdateError::NotApplied { server: self.options.server, name: change.name.clone() }.into())
    }

    fn silent(&self, limit: Duration) -> UpdateError {
        UpdateError::Silent { server: self.options.server, limit }
    }

    fn refused(&self, code: ResponseCode) -> UpdateError {
        let (server, zone) = (self.options.server, self.options.zone.clone());
        match code {
            ResponseCode::Refused | ResponseCode::NotAuth | ResponseCode::NotZone | ResponseCode::NotImp => {
                UpdateError::ZoneRefused { server, zone, code }
            }
            code => UpdateError::Failed { server, zone, code },
        }
    }
}

/// Whether the name may be changed under `epoch`: nobody newer wrote it, and it says what we expect.
fn may_change(
    name: &str,
    found: &Found,
    epoch: Epoch,
    from: &BTreeSet<String>,
    to: &BTreeSet<String>,
) -> Result<(), Fault> {
    match found.epoch() {
        Some(written) if written > epoch => Err(stale(name, written, epoch)),
        _ if found.values() != *from && found.values() != *to => {
            Err(foreign(name, &found.values(), from, to))
        }
        _ => Ok(()),
    }
}

#[async_trait]
impl Names for Rfc2136 {
    async fn ensure_record(&self, call: &Call, change: &NameChange) -> Result<NameSwitched, Fault> {
        let sent = AtomicBool::new(false);
        match timeout(call.limit, self.switch(call, change, &sent)).await {
            Ok(outcome) => outcome,
            Err(_) if sent.load(Ordering::Relaxed) => {
                Err(UpdateError::Unanswered { server: self.options.server, limit: call.limit }.into())
            }
            Err(_) => Err(self.silent(call.limit).into()),
        }
    }

    async fn census(&self, call: &Call, change: &NameChange) -> Result<Census, Fault> {
        census::take(&self.servers, change, call.limit).await
    }
}
