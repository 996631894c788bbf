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
    use std::net::Ipv4Addr;
    use std::time::Duration;

    use tokio::net::{TcpListener, TcpSocket};

    use super::*;

    #[tokio::test]
    async fn an_address_that_swallows_packets_leaves_time_for_the_next() {
        let limit = Duration::from_millis(400);
        // A listener whose queue is full: further connections are neither accepted nor refused.
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap();
        let clogged = socket.listen(1).unwrap();
        let swallows = clogged.local_addr().unwrap();
        let mut waiting = Vec::new();
        while let Ok(Ok(stream)) = tokio::time::timeout(limit / 2, TcpStream::connect(swallows)).await {
            waiting.push(stream);
        }
        let open = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let accepts = open.local_addr().unwrap();
        let closed = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let refuses = closed.local_addr().unwrap();
        drop(closed);

        let over = std::pin::pin!(tokio::time::sleep(limit));
        let mut deadline = Deadline::new(over, limit);
        let connected = connect(&[swallows, refuses, accepts], &mut deadline).await.unwrap();
        assert_eq!(connected.peer_addr().unwrap(), accepts);

        let over = std::pin::pin!(tokio::time::sleep(limit));
        let mut deadline = Deadline::new(over, limit);
        let failure = connect(&[swallows, refuses], &mut deadline).await.unwrap_err();
        assert_eq!(failure.kind, FailureKind::Silent);
        for address in [swallows, refuses] {
            assert!(failure.detail.contains(&address.to_string()), "{failure}");
        }
    }

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
