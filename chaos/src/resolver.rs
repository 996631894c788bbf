//! A stub resolver that keeps an answer exactly as long as its TTL says.
//!
//! It knows one name server or several, as `resolv.conf` does: the one that answered last is asked first, and one that is
//! silent or does not know is passed over.
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

/// How long one datagram is waited for, and how often one is sent: within an order's time limit.
const ATTEMPT: Duration = Duration::from_millis(250);
const ATTEMPTS: usize = 3;

pub(crate) struct Resolver {
    servers: Vec<SocketAddr>,
    name: Option<Name>,
    // One lookup at a time: the orders that need its answer wait for it.
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    answer: Option<(Ipv4Addr, Instant)>,
    /// The place of the server that is asked first.
    asked: usize,
}

impl Resolver {
    pub(crate) fn new(servers: &[SocketAddr], name: &str) -> Resolver {
        Resolver { servers: servers.to_vec(), name: Name::from_str(name).ok(), kept: Mutex::default() }
    }

    /// The first A record of the name; none when it does not resolve.
    pub(crate) async fn address(&self) -> Option<Ipv4Addr> {
        let mut kept = self.kept.lock().await;
        if let Some((address, until)) = kept.answer
            && Instant::now() < until
        {
            return Some(address);
        }
        kept.answer = None;
        for _ in 0..ATTEMPTS {
            let server = *self.servers.get(kept.asked % self.servers.len().max(1))?;
            let asked = Instant::now();
            if let Ok(Some((address, ttl))) = tokio::time::timeout(ATTEMPT, self.ask(server)).await {
                kept.answer = Some((address, asked + ttl));
                return Some(address);
            }
            kept.asked += 1;
        }
        None
    }

    async fn ask(&self, server: SocketAddr) -> Option<(Ipv4Addr, Duration)> {
        let mut question = Message::query();
        question.metadata.recursion_desired = true;
        question.add_query(Query::query(self.name.clone()?, RecordType::A));
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.ok()?;
        socket.connect(server).await.ok()?;
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
#[derive(Clone, Debug)]
pub struct Names {
    pub(crate) servers: Vec<SocketAddr>,
    pub(crate) hosts: [(Ipv4Addr, Region); 2],
}

impl Names {
    /// Where it is now; none while no name server says anything.
    pub async fn shop_is_in(&self) -> Option<Region> {
        let address = Resolver::new(&self.servers, SHOP_NAME).address().await?;
        self.hosts.iter().find(|(host, _)| *host == address).map(|(_, region)| *region)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hickory_proto::op::OpCode;
    use hickory_proto::rr::{Record, rdata::A};

    /// A name server that says this address once for each question.
    async fn server(address: Ipv4Addr) -> SocketAddr {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let listens = socket.local_addr().unwrap();
        tokio::spawn(async move {
            let mut buffer = [0; 512];
            while let Ok((count, from)) = socket.recv_from(&mut buffer).await {
                let question = Message::from_vec(&buffer[..count]).unwrap();
                let mut answer = Message::response(question.metadata.id, OpCode::Query);
                answer.add_query(question.queries[0].clone());
                let name = question.queries[0].name().clone();
                answer.add_answer(Record::from_rdata(name, 0, RData::A(A(address))));
                socket.send_to(&answer.to_vec().unwrap(), from).await.unwrap();
            }
        });
        listens
    }

    #[tokio::test]
    async fn a_dead_or_silent_name_server_is_passed_over_and_the_one_that_answers_is_kept_to() {
        let silent = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let dead = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap().local_addr().unwrap();
        let (one, two) = (Ipv4Addr::new(127, 0, 1, 1), Ipv4Addr::new(127, 0, 1, 2));
        let servers = [silent.local_addr().unwrap(), dead, server(one).await, server(two).await];
        let resolver = Resolver::new(&servers, SHOP_NAME);
        assert_eq!(resolver.address().await, Some(one));
        let again = Instant::now();
        assert_eq!(resolver.address().await, Some(one), "the last that answered is asked first");
        assert!(again.elapsed() < ATTEMPT, "and nobody else before it");
        assert_eq!(Resolver::new(&[dead], SHOP_NAME).address().await, None);
        assert_eq!(Resolver::new(&[], SHOP_NAME).address().await, None);
    }
}
