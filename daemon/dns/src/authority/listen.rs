//! The authority's sockets.
//!
//! **Invariant:** a datagram is answered before the next is read, so nothing queues here; the kernel drops
//! what comes faster.
//! **Invariant:** a connection that is idle, slow or asks too much at once is closed.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::reply::{Transport, reply};
use super::{AuthorityError, KeptNames, Shared};
use crate::exchange::{read_frame, write_frame};

/// Connections at a time, for each address: resolvers use TCP only for what was cut, and each one costs a
/// descriptor and some 10 KiB.
const CONNECTIONS: usize = 128;

/// A connection that asks nothing for this long is closed (RFC 7766, section 6.2.3, asks for seconds).
const IDLE: Duration = Duration::from_secs(5);

/// A connection lives no longer than this, so that all of them cannot be held for good.
const LIFETIME: Duration = Duration::from_secs(60);

/// The longest query we read: a name, an OPT record with options, a signature.
const QUERY: usize = 4096;

/// How long drained connections may take to end.
const DRAIN: Duration = Duration::from_secs(2);

/// After this many failed reads in a row a socket is broken, not unlucky.
const FAILURES: u32 = 1000;

/// Bound sockets, in pairs.
#[derive(Debug)]
pub(crate) struct Sockets {
    addresses: Vec<SocketAddr>,
    pairs: Vec<(UdpSocket, TcpListener)>,
}

impl Sockets {
    pub(crate) async fn bind(listen: &[SocketAddr]) -> Result<Self, AuthorityError> {
        let mut bound = Self { addresses: Vec::new(), pairs: Vec::new() };
        for address in listen {
            let pair = bind_pair(*address)
                .await
                .map_err(|source| AuthorityError::Listen { address: *address, source })?;
            let local = pair.0.local_addr();
            bound
                .addresses
                .push(local.map_err(|source| AuthorityError::Listen { address: *address, source })?);
            bound.pairs.push(pair);
        }
        Ok(bound)
    }

    pub(crate) fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    pub(crate) fn serve(self, zone: Shared) -> Serving {
        let (stop, mut listeners) = (CancellationToken::new(), JoinSet::new());
        for (address, (udp, tcp)) in self.addresses.iter().zip(self.pairs) {
            let name = format!("authority udp {address}");
            let task = serve_udp(udp, zone.clone(), stop.clone());
            listeners.spawn(async move { (name, task.await) });
            let name = format!("authority tcp {address}");
            let task = serve_tcp(tcp, zone.clone(), stop.clone());
            listeners.spawn(async move { (name, task.await) });
        }
        Serving { stop, listeners, addresses: self.addresses, zone }
    }
}

/// UDP and TCP on one port. A free port of one may be taken in the other, so a few are tried.
async fn bind_pair(address: SocketAddr) -> io::Result<(UdpSocket, TcpListener)> {
    let mut tries = 0;
    loop {
        let tcp = TcpListener::bind(address).await?;
        match UdpSocket::bind(tcp.local_addr()?).await {
            Ok(udp) => return Ok((udp, tcp)),
            Err(_) if address.port() == 0 && tries < 16 => tries += 1,
            Err(error) => return Err(error),
        }
    }
}

/// The authority while it answers. Dropping it stops it at once.
#[derive(Debug)]
pub struct Serving {
    stop: CancellationToken,
    listeners: JoinSet<(String, io::Result<()>)>,
    addresses: Vec<SocketAddr>,
    zone: Shared,
}

impl Serving {
    /// The same handle as [`Authority::names`](super::Authority::names).
    pub fn names(&self, resolvers: Vec<SocketAddr>) -> KeptNames {
        KeptNames::new(self.zone.clone(), &self.addresses, resolvers)
    }

    /// The addresses it answers on.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Resolves when a listener has ended without having been asked to, with its name and why. An agent
    /// whose authority is deaf must not go on as if it were not.
    pub async fn ended(&mut self) -> String {
        match self.listeners.join_next().await {
            Some(Ok((name, Err(error)))) => format!("{name}: {error}"),
            Some(Ok((name, Ok(())))) => format!("{name}: ended"),
            Some(Err(error)) => format!("authority: {error}"),
            None => std::future::pending().await,
        }
    }

    /// Takes no new questions, answers those it has, and closes.
    pub async fn drain(mut self) {
        self.stop.cancel();
        while self.listeners.join_next().await.is_some() {}
    }
}

async fn serve_udp(socket: UdpSocket, zone: Shared, stop: CancellationToken) -> io::Result<()> {
    // One byte more than we read of a query tells one that is too long from one that fits.
    let mut buffer = vec![0; QUERY + 1];
    let mut failures = 0;
    loop {
        let received = tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(()),
            received = socket.recv_from(&mut buffer) => received,
        };
        match received {
            Ok((length, client)) => {
                failures = 0;
                let request = buffer.get(..length).filter(|request| request.len() <= QUERY);
                let answer = request.and_then(|request| reply(request, Transport::Udp, &zone.now()));
                if let Some(answer) = answer {
                    // A reply that cannot be sent is a lost datagram: the client asks again.
                    let _ = socket.send_to(&answer, client).await;
                }
            }
            Err(error) if failures >= FAILURES => return Err(error),
            Err(_) => failures += 1,
        }
    }
}

async fn serve_tcp(listener: TcpListener, zone: Shared, stop: CancellationToken) -> io::Result<()> {
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    let connections = TaskTracker::new();
    loop {
        // Waiting for a slot first leaves what is too much in the kernel's own bounded queue.
        let slot = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            slot = Arc::clone(&slots).acquire_owned() => slot.map_err(io::Error::other)?,
        };
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, _)) = accepted else {
            // Out of descriptors, or the client left: a breath, so that this does not spin.
            sleep(Duration::from_millis(10)).await;
            continue;
        };
        let (zone, stop) = (zone.clone(), stop.clone());
        connections.spawn(async move {
            let _ = timeout(LIFETIME, serve_connection(stream, &zone, &stop)).await;
            drop(slot);
        });
    }
    connections.close();
    let _ = timeout(DRAIN, connections.wait()).await;
    Ok(())
}

/// Answers one connection's queries in order, until it ends, idles, or sends what is no query.
async fn serve_connection(mut stream: TcpStream, zone: &Shared, stop: &CancellationToken) -> io::Result<()> {
    stream.set_nodelay(true)?;
    loop {
        let request = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            request = timeout(IDLE, read_frame(&mut stream, QUERY)) => request,
        };
        let Ok(Ok(Some(request))) = request else { break };
        let Some(answer) = reply(&request, Transport::Tcp, &zone.now()) else { break };
        match timeout(IDLE, write_frame(&mut stream, &answer)).await {
            Ok(written) => written?,
            Err(_) => break,
        }
    }
    stream.shutdown().await
}
