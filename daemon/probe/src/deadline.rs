//! One limit over all the stages of a look.
//!
//! **Invariant:** one timer serves a look, so each stage gets what the stages before it left over.

use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::time::Duration;

use lifeboat_core::Failure;
use lifeboat_core::sighting::FailureKind;
use lifeboat_core::time::length;
use tokio::time::Sleep;

/// When a look must be over.
pub(crate) struct Deadline<'a> {
    over: Pin<&'a mut Sleep>,
    limit: Duration,
}

/// What a look waits for; said when the wait was in vain.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Stage<'a> {
    /// The system's resolver.
    Lookup(&'a str),
    /// A DNS server, asked directly.
    Dns(SocketAddr),
    /// A TCP connection.
    Connect(SocketAddr),
    /// The end of the TLS handshake.
    Handshake,
    /// Status and headers.
    Head,
    /// The part of the body that is looked at.
    Body,
}

impl<'a> Deadline<'a> {
    /// A limit that begins when `over` was made.
    pub(crate) fn new(over: Pin<&'a mut Sleep>, limit: Duration) -> Self {
        Self { over, limit }
    }

    /// How long the whole look may take.
    pub(crate) const fn limit(&self) -> Duration {
        self.limit
    }

    /// Waits for `future`, but not past the limit of the look.
    pub(crate) async fn within<F: Future>(
        &mut self,
        stage: Stage<'_>,
        future: F,
    ) -> Result<F::Output, Failure> {
        tokio::select! {
            biased;
            () = self.over.as_mut() => Err(stage.in_vain(self.limit)),
            output = future => Ok(output),
        }
    }
}

impl Stage<'_> {
    /// The failure of having waited for this too long. A name that is not found in time counts as not found.
    fn in_vain(self, limit: Duration) -> Failure {
        let kind = match self {
            Self::Lookup(_) | Self::Dns(_) => FailureKind::Unreachable,
            Self::Connect(_) | Self::Handshake | Self::Head | Self::Body => FailureKind::Silent,
        };
        Failure::new(kind, format!("{self} within {}", length(limit)))
    }
}

impl fmt::Display for Stage<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lookup(host) => write!(f, "the name {host} was not resolved"),
            Self::Dns(server) => write!(f, "the DNS server {server} gave no answer"),
            Self::Connect(address) => write!(f, "no connection to {address}"),
            Self::Handshake => f.write_str("connected, but no end of the TLS handshake"),
            Self::Head => f.write_str("connected, but no complete status and headers"),
            Self::Body => {
                f.write_str("status and headers came, but neither the expected text nor the end of the body")
            }
        }
    }
}
