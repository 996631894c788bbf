//! What all probes of one agent share.
//!
//! **Invariant:** at most [`LOOKUP_THREADS`] name look-ups run at a time, also when nobody waits for them any more.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;

use lifeboat_core::sighting::{Failure, FailureKind};
use tokio::sync::Semaphore;
use url::Host;

use crate::deadline::{Deadline, Stage};
use crate::trust::Trust;

/// Name look-ups at a time. `getaddrinfo` blocks a thread for as long as the system's resolver takes, 10 s
/// and more when DNS is down, and cannot be cancelled: without a bound a thousand probes by name would pile
/// up threads just when everything else is failing. 16 threads do 3,000 look-ups of 5 ms in a second.
const LOOKUP_THREADS: usize = 16;

/// What all probes of one agent share; make one, clone it freely.
#[derive(Clone, Debug)]
pub struct Kit {
    lookups: Arc<Semaphore>,
    trust: Arc<Trust>,
}

impl Kit {
    /// An empty kit; trust anchors are loaded when the first probe needs them.
    #[must_use]
    pub fn new() -> Self {
        Self { lookups: Arc::new(Semaphore::new(LOOKUP_THREADS)), trust: Arc::new(Trust::new()) }
    }

    /// TLS configurations.
    pub(crate) fn trust(&self) -> &Trust {
        &self.trust
    }

    /// The addresses of `host`, asked of the system's resolver. Literal addresses are not looked up.
    pub(crate) async fn resolve(
        &self,
        host: &Host<String>,
        port: u16,
        deadline: &mut Deadline<'_>,
    ) -> Result<Vec<SocketAddr>, Failure> {
        match host {
            Host::Ipv4(address) => Ok(vec![SocketAddr::from((*address, port))]),
            Host::Ipv6(address) => Ok(vec![SocketAddr::from((*address, port))]),
            Host::Domain(name) => {
                let found = deadline.within(Stage::Lookup(name), self.lookup(name.clone(), port)).await?;
                let unresolved = |why: String| {
                    Failure::new(FailureKind::Unreachable, format!("the name {name} was not resolved: {why}"))
                };
                let addresses = found.map_err(|error| unresolved(error.to_string()))?;
                if addresses.is_empty() {
                    return Err(unresolved("it has no address".to_owned()));
                }
                Ok(addresses)
            }
        }
    }

    /// `getaddrinfo` on a thread of its own. The permit goes with it, and not with the waiting look, which
    /// may be gone by the time it returns.
    async fn lookup(&self, name: String, port: u16) -> io::Result<Vec<SocketAddr>> {
        let permit = Arc::clone(&self.lookups).acquire_owned().await.map_err(io::Error::other)?;
        let looking = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            (name.as_str(), port).to_socket_addrs().map(Iterator::collect)
        });
        looking.await.map_err(io::Error::other)?
    }
}

impl Default for Kit {
    fn default() -> Self {
        Self::new()
    }
}
