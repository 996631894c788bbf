//! A TCP connection to the first address that takes it.
//!
//! **Invariant:** an address that swallows packets leaves time for the ones after it.

use std::net::SocketAddr;

use lifeboat_core::sighting::{Failure, FailureKind};
use tokio::net::TcpStream;

use crate::deadline::{Deadline, Stage};
use crate::failure;

/// Addresses of one name that are tried; a name with more is no reason to try for ever.
const MOST_ADDRESSES: usize = 8;

/// Connects to the addresses in turn, and gives the first connection. Each address but the last may take
/// its share of the limit. When all fail, the failure says each, and its kind is the one that proves least:
/// a silent address may still be alive when another one refuses.
pub(crate) async fn connect(
    addresses: &[SocketAddr],
    deadline: &mut Deadline<'_>,
) -> Result<TcpStream, Failure> {
    let addresses = &addresses[..addresses.len().min(MOST_ADDRESSES)];
    if let [address] = addresses {
        let connected = deadline.within(Stage::Connect(*address), TcpStream::connect(address)).await?;
        return connected.map_err(|error| {
            Failure::new(failure::kind_of_io(error.kind()), format!("cannot connect to {address}: {error}"))
        });
    }
    connect_in_turn(addresses, deadline).await
}

async fn connect_in_turn(
    addresses: &[SocketAddr],
    deadline: &mut Deadline<'_>,
) -> Result<TcpStream, Failure> {
    let share = deadline.limit() / u32::try_from(addresses.len().max(1)).unwrap_or(u32::MAX);
    let mut kind = FailureKind::Unreachable;
    let mut details = Vec::with_capacity(addresses.len());
    for address in addresses {
        let trying = tokio::time::timeout(share, TcpStream::connect(address));
        let (this, detail) = match deadline.within(Stage::Connect(*address), trying).await? {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => (failure::kind_of_io(error.kind()), format!("{address}: {error}")),
            Err(_elapsed) => (FailureKind::Silent, format!("{address}: no answer")),
        };
        kind = weaker(kind, this);
        details.push(detail);
    }
    Err(Failure::new(kind, format!("cannot connect to any address: {}", details.join("; "))))
}

/// The kind of two that proves less about the host: silence before refusal. An address that cannot be
/// reached from here at all (IPv6 without IPv6) says nothing beside one that answered.
fn weaker(one: FailureKind, other: FailureKind) -> FailureKind {
    match (one, other) {
        (FailureKind::Silent, _) | (_, FailureKind::Silent) => FailureKind::Silent,
        (FailureKind::Unreachable, kind) | (kind, _) => kind,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kind_that_proves_least_is_reported() {
        use FailureKind::{Refused, Silent, Unreachable};
        assert_eq!(weaker(Refused, Silent), Silent);
        assert_eq!(weaker(Silent, Unreachable), Silent);
        assert_eq!(weaker(Unreachable, Refused), Refused);
        assert_eq!(weaker(Refused, Unreachable), Refused);
        assert_eq!(weaker(Unreachable, Unreachable), Unreachable);
    }
}
