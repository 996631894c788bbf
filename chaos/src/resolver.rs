//! A stub resolver that keeps an answer exactly as long as its TTL says.
//!
//! **Invariant:** an answer is never used past its TTL, and never asked for again before it.
//! **Invariant:** a datagram is an answer only if it comes from the server asked and repeats id and question.

use std::net::{Ipv4Addr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

use hickory_proto::op::{Message, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, RecordType};
use tokio::net::UdpSocket;
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::agent::SHOP_NAME;
use crate::region::Region;

/// How long one datagram is waited for, and how often it is sent: within an order's time limit.
const ATTEMPT: Duration = Duration::from_millis(250);
const ATTEMPTS: usize = 3;

pub(crate) struct Resolver {
    server: SocketAddr,
    name: Option<Name>,
    // One lookup at a time: the orders that need its answer wait for it.
    kept: Mutex<Option<(Ipv4Addr, Instant)>>,
}

impl Resolver {
    pub(crate) fn new(server: SocketAddr, name: &str) -> Resolver {
        Resolver { server, name: Name::from_str(name).ok(), kept: Mutex::new(None) }
    }

    /// The first A record of the name; none when it does not resolve.
    pub(crate) async fn address(&self) -> Option<Ipv4Addr> {
        let mut kept = self.kept.lock().await;
        if let Some((address, until)) = *kept
            && Instant::now() < until
        {
            return Some(address);
        }
        for _ in 0..ATTEMPTS {
            let asked = Instant::now();
            if let Ok(Some((address, ttl))) = tokio::time::timeout(ATTEMPT, self.ask()).await {
                *kept = Some((address, asked + ttl));
                return Some(address);
            }
        }
        *kept = None;
        None
    }

    async fn ask(&self) -> Option<(Ipv4Addr, Duration)> {
        let mut question = Message::query();
        question.metadata.recursion_desired = true;
        question.add_query(Query::query(self.name.clone()?, RecordType::A));
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.ok()?;
        socket.connect(self.server).await.ok()?;
        socket.send(&question.to_vec().ok()?).await.ok()?;
        let mut buffer = [0; 1232];
        loop {
            let count = socket.recv(&mut buffer).await.ok()?;
            let Ok(answer) = Message::from_vec(&buffer[..count]) else { continue };
            if answer.metadata.id != question.metadata.id || answer.queries != question.queries {
                continue;
            }
            if answer.metadata.response_code != ResponseCode::NoError {
                return None;
            }
            return answer.answers.iter().find_map(|record| match &record.data {
                RData::A(address) => Some((address.0, Duration::from_secs(record.ttl.into()))),
                _ => None,
            });
        }
    }
}

/// Asks where the shop is.
#[derive(Clone, Copy, Debug)]
pub struct Names {
    pub(crate) server: SocketAddr,
    pub(crate) hosts: [(Ipv4Addr, Region); 2],
}

impl Names {
    /// Where it is now; none while the name server says nothing.
    pub async fn shop_is_in(&self) -> Option<Region> {
        let address = Resolver::new(self.server, SHOP_NAME).address().await?;
        self.hosts.iter().find(|(host, _)| *host == address).map(|(_, region)| *region)
    }
}
