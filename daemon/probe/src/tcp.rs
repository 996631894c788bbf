//! The TCP probe and the TCP witness: a connection that is accepted, and closed again.
//!
//! **Invariant:** only a connection that was accepted proves anything for a witness. A refusal may come from a
//! packet filter on this very machine, which answers just as well when the network is gone.

use std::time::Duration;

use async_trait::async_trait;
use lifeboat_core::sighting::{Evidence, Failure, Look};
use lifeboat_engine::ports::{Ask, Probe, Witness};
use url::Host;

use crate::deadline::Deadline;
use crate::dial;
use crate::kit::Kit;
use crate::setup::SetupError;
use crate::target::parse_place;

/// Connects, and closes.
#[derive(Debug)]
pub struct TcpProbe {
    place: Place,
}

/// Answers when it accepts a connection.
#[derive(Debug)]
pub struct TcpWitness {
    name: String,
    place: Place,
}

/// A host and a port to connect to.
#[derive(Debug)]
struct Place {
    host: Host<String>,
    port: u16,
    kit: Kit,
}

impl TcpProbe {
    /// A probe of `address`, `HOST:PORT`; an IPv6 address stands in brackets.
    ///
    /// # Errors
    ///
    /// When the address is not of that form.
    pub fn new(address: &str, kit: &Kit) -> Result<Self, SetupError> {
        Ok(Self { place: Place::new(address, kit)? })
    }
}

impl TcpWitness {
    /// The witness at `address`, `HOST:PORT`; an IPv6 address stands in brackets.
    ///
    /// # Errors
    ///
    /// When the address is not of that form.
    pub fn new(address: &str, kit: &Kit) -> Result<Self, SetupError> {
        Ok(Self { name: address.to_owned(), place: Place::new(address, kit)? })
    }
}

impl Place {
    fn new(address: &str, kit: &Kit) -> Result<Self, SetupError> {
        let (host, port) =
            parse_place(address).ok_or_else(|| SetupError::Address { address: address.to_owned() })?;
        Ok(Self { host, port, kit: kit.clone() })
    }

    async fn accepts(&self, limit: Duration) -> Result<(), Failure> {
        let over = std::pin::pin!(tokio::time::sleep(limit));
        let mut deadline = Deadline::new(over, limit);
        let addresses = self.kit.resolve(&self.host, self.port, &mut deadline).await?;
        dial::connect(&addresses, &mut deadline).await.map(drop)
    }
}

#[async_trait]
impl Probe for TcpProbe {
    async fn look(&self, ask: &Ask) -> Look {
        self.place.accepts(ask.limit).await.map(|()| Evidence::Answered)
    }
}

#[async_trait]
impl Witness for TcpWitness {
    fn name(&self) -> &str {
        &self.name
    }

    async fn answers(&self, limit: Duration) -> bool {
        self.place.accepts(limit).await.is_ok()
    }
}
