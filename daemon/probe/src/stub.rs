//! A stub resolver without a memory: asks one given DNS server for the addresses of a name.
//!
//! **Invariant:** nothing is cached, and no other server is asked for the name itself.
//! **Invariant:** over UDP only an answer from that server, to this very question, is read (RFC 5452).

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, RecordType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};

/// CNAMEs that are followed; more are taken for a loop.
const MOST_ALIASES: usize = 8;

/// Bytes of a UDP answer that is asked for, which passes unfragmented (DNS Flag Day 2020).
const UDP_PAYLOAD: u16 = 1232;

/// After this long without an answer the datagram is taken for lost and sent again, then after twice this.
const RESEND_AFTER: Duration = Duration::from_millis(500);

/// Where a name leads, as one server says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Leads {
    /// To these addresses.
    To(Vec<IpAddr>),
    /// To another name, for which this server is not the one to ask.
    Elsewhere(Name),
}

/// Why no address was found.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StubError {
    #[error("cannot talk to the DNS server {server}")]
    Socket { server: SocketAddr, source: io::Error },
    #[error("the DNS server {server} answers {code} for {name}")]
    Code { server: SocketAddr, name: Name, code: ResponseCode },
    #[error("the DNS server {server} knows no address for {name}")]
    NoAddress { server: SocketAddr, name: Name },
    #[error("the DNS server {server} gives more than {MOST_ALIASES} aliases for {name}")]
    Aliases { server: SocketAddr, name: Name },
    #[error("the DNS server {server} sends something that is no DNS message")]
    Malformed { server: SocketAddr },
}

/// Asks `server` where `name` leads: A first, and AAAA when there is none, each through all its aliases.
/// Waits for ever; the caller has the limit.
pub(crate) async fn resolve(server: SocketAddr, name: &Name) -> Result<Leads, StubError> {
    match resolve_kind(server, name, RecordType::A).await {
        Err(StubError::NoAddress { .. }) => resolve_kind(server, name, RecordType::AAAA).await,
        other => other,
    }
}

async fn resolve_kind(server: SocketAddr, name: &Name, kind: RecordType) -> Result<Leads, StubError> {
    let mut current = name.clone();
    for asked in 0..=MOST_ALIASES {
        let answer = query(server, &current, kind).await?;
        let end = last_alias(&answer, &current);
        let addresses = addresses(&answer, &end);
        if !addresses.is_empty() {
            return Ok(Leads::To(addresses));
        }
        let code = answer.metadata.response_code;
        // An authority answers for its own zone only; a client's resolver would go on to another server here.
        let of_others = code == ResponseCode::Refused
            || !(answer.metadata.authoritative || answer.metadata.recursion_available);
        if asked > 0 && end == current && of_others {
            return Ok(Leads::Elsewhere(end));
        }
        if code != ResponseCode::NoError {
            return Err(StubError::Code { server, name: end, code });
        }
        if end == current {
            return Err(StubError::NoAddress { server, name: end });
        }
        current = end;
    }
    Err(StubError::Aliases { server, name: name.clone() })
}

/// Where the aliases in an answer end that begin at `name`.
fn last_alias(answer: &Message, name: &Name) -> Name {
    let mut current = name;
    // There are no more aliases than records; an alias of itself ends here, and is found out by the caller.
    for _ in 0..answer.answers.len() {
        let next = answer.answers.iter().find_map(|record| match &record.data {
            RData::CNAME(to) if record.name == *current => Some(&to.0),
            _ => None,
        });
        match next {
            Some(next) => current = next,
            None => break,
        }
    }
    current.clone()
}

fn addresses(answer: &Message, name: &Name) -> Vec<IpAddr> {
    let of_name = answer.answers.iter().filter(|record| record.name == *name);
    of_name
        .filter_map(|record| match &record.data {
            RData::A(address) => Some(IpAddr::V4(address.0)),
            RData::AAAA(address) => Some(IpAddr::V6(address.0)),
            _ => None,
        })
        .collect()
}

async fn query(server: SocketAddr, name: &Name, kind: RecordType) -> Result<Message, StubError> {
    let mut question = Message::query();
    question.metadata.recursion_desired = true;
    question.add_query(Query::query(name.clone(), kind));
    let mut edns = Edns::new();
    edns.set_max_payload(UDP_PAYLOAD);
    question.set_edns(edns);
    let bytes = question.to_vec().map_err(|_| StubError::Malformed { server })?;
    let answer = over_udp(server, &question, &bytes).await?;
    if answer.metadata.truncation { over_tcp(server, &question, &bytes).await } else { Ok(answer) }
}

async fn over_udp(server: SocketAddr, question: &Message, bytes: &[u8]) -> Result<Message, StubError> {
    let failed = |source| StubError::Socket { server, source };
    let any: IpAddr =
        if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).await.map_err(failed)?;
    // From now on the kernel drops what comes from anywhere else.
    socket.connect(server).await.map_err(failed)?;
    let mut buffer = vec![0; usize::from(UDP_PAYLOAD)];
    let mut wait = RESEND_AFTER;
    loop {
        socket.send(bytes).await.map_err(failed)?;
        let answer = tokio::time::timeout(wait, receive(&socket, &mut buffer, server, question)).await;
        if let Ok(answer) = answer {
            return answer;
        }
        wait *= 2;
    }
}

/// Waits for the datagram that answers; others, late or forged, are passed over.
async fn receive(
    socket: &UdpSocket,
    buffer: &mut [u8],
    server: SocketAddr,
    question: &Message,
) -> Result<Message, StubError> {
    loop {
        let length = socket.recv(buffer).await.map_err(|source| StubError::Socket { server, source })?;
        let bytes = &buffer[..length];
        if !bytes.starts_with(&question.metadata.id.to_be_bytes()) {
            continue;
        }
        let answer = Message::from_vec(bytes).map_err(|_| StubError::Malformed { server })?;
        if answers(&answer, question) {
            return Ok(answer);
        }
    }
}

async fn over_tcp(server: SocketAddr, question: &Message, bytes: &[u8]) -> Result<Message, StubError> {
    let failed = |source| StubError::Socket { server, source };
    let length = u16::try_from(bytes.len()).map_err(|_| StubError::Malformed { server })?;
    let mut stream = TcpStream::connect(server).await.map_err(failed)?;
    let framed = [&length.to_be_bytes(), bytes].concat();
    stream.write_all(&framed).await.map_err(failed)?;
    let length = stream.read_u16().await.map_err(failed)?;
    let mut buffer = vec![0; usize::from(length)];
    stream.read_exact(&mut buffer).await.map_err(failed)?;
    let answer = Message::from_vec(&buffer).map_err(|_| StubError::Malformed { server })?;
    if answers(&answer, question) { Ok(answer) } else { Err(StubError::Malformed { server }) }
}

/// Whether a message answers this question. Servers that could not read it may leave it out of their refusal.
fn answers(answer: &Message, question: &Message) -> bool {
    let (got, asked) = (&answer.metadata, &question.metadata);
    let same_question = answer.queries == question.queries
        || (answer.queries.is_empty() && got.response_code != ResponseCode::NoError);
    got.id == asked.id
        && got.message_type == MessageType::Response
        && got.op_code == OpCode::Query
        && same_question
}
