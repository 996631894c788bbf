//! One question to one server, one answer that belongs to it.
//!
//! **Invariant:** an answer is taken only from the server that was asked, with the id and the question
//! that were sent; each question has a fresh random id and a fresh port.
//! **Invariant:** nothing is cached, and no more than one message of 64 KiB is held for an answer.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query};
use hickory_proto::rr::{DNSClass, Name, RecordType};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

/// What fits into one unfragmented datagram nearly everywhere (DNS flag day 2020).
pub(crate) const DATAGRAM: u16 = 1232;

/// How often a datagram is sent within the limit before the server counts as silent: one may be lost.
const SENDS: u32 = 3;

/// What is asked.
#[derive(Clone, Debug)]
pub(crate) struct Question {
    pub(crate) name: Name,
    pub(crate) kind: RecordType,
    pub(crate) class: DNSClass,
    /// Resolvers are asked to resolve; authoritative servers are asked for what they hold.
    pub(crate) recursion: bool,
}

/// Why there is no answer.
#[derive(Debug, Error)]
pub(crate) enum AskError {
    #[error("no answer within {0:?}")]
    Silent(Duration),
    #[error("connection refused")]
    Refused,
    #[error("unreachable")]
    Unreachable(#[source] io::Error),
    #[error("malformed answer")]
    Malformed,
}

/// Asks over UDP, and over TCP when the answer did not fit.
pub(crate) async fn ask(
    server: SocketAddr,
    question: &Question,
    limit: Duration,
) -> Result<Message, AskError> {
    match timeout(limit, ask_unlimited(server, question, limit / SENDS)).await {
        Ok(answer) => answer,
        Err(_) => Err(AskError::Silent(limit)),
    }
}

async fn ask_unlimited(
    server: SocketAddr,
    question: &Question,
    patience: Duration,
) -> Result<Message, AskError> {
    let message = question.message();
    let bytes = message.to_vec().map_err(|_| AskError::Malformed)?;
    let answer = over_udp(server, &message, &bytes, patience).await?;
    if answer.truncation { over_tcp(server, &message, &bytes).await } else { Ok(answer) }
}

impl Question {
    pub(crate) fn new(name: Name, kind: RecordType, recursion: bool) -> Self {
        Self { name, kind, class: DNSClass::IN, recursion }
    }

    /// The message that asks it, with a random id.
    pub(crate) fn message(&self) -> Message {
        let mut query = Query::query(self.name.clone(), self.kind);
        query.set_query_class(self.class);
        let mut message = Message::query();
        message.metadata.recursion_desired = self.recursion;
        message.add_query(query);
        let mut edns = Edns::new();
        edns.set_max_payload(DATAGRAM);
        message.set_edns(edns);
        message
    }
}

/// Whether `answer` is a response to `asked`. Some servers leave the question out of an error response.
pub(crate) fn belongs(asked: &Message, answer: &Message) -> bool {
    answer.message_type == MessageType::Response
        && answer.id == asked.id
        && answer.op_code == asked.op_code
        && (answer.queries == asked.queries
            || (answer.queries.is_empty()
                && answer.answers.is_empty()
                && (asked.op_code == OpCode::Update || answer.response_code.low() != 0)))
}

async fn over_udp(
    server: SocketAddr,
    asked: &Message,
    bytes: &[u8],
    patience: Duration,
) -> Result<Message, AskError> {
    let any: IpAddr = match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).await.map_err(AskError::Unreachable)?;
    // A connected socket takes datagrams from this server only, and hears of a closed port.
    socket.connect(server).await.map_err(AskError::of)?;
    let mut buffer = vec![0; 4096];
    loop {
        socket.send(bytes).await.map_err(AskError::of)?;
        match timeout(patience, first_belonging(&socket, asked, &mut buffer)).await {
            Ok(answer) => return answer,
            Err(_) => continue,
        }
    }
}

async fn first_belonging(
    socket: &UdpSocket,
    asked: &Message,
    buffer: &mut [u8],
) -> Result<Message, AskError> {
    loop {
        let length = socket.recv(buffer).await.map_err(AskError::of)?;
        let received = buffer.get(..length).unwrap_or_default();
        // Whatever does not carry our id was not meant for this question: forged or late.
        if received.get(..2) != Some(&asked.id.to_be_bytes()[..]) {
            continue;
        }
        match Message::from_vec(received) {
            Ok(answer) if belongs(asked, &answer) => return Ok(answer),
            Ok(_) => {}
            Err(_) => return Err(AskError::Malformed),
        }
    }
}

async fn over_tcp(server: SocketAddr, asked: &Message, bytes: &[u8]) -> Result<Message, AskError> {
    let mut stream = TcpStream::connect(server).await.map_err(AskError::of)?;
    write_frame(&mut stream, bytes).await.map_err(AskError::of)?;
    let answer = read_frame(&mut stream, usize::from(u16::MAX)).await.map_err(AskError::of)?;
    let answer = answer.and_then(|answer| Message::from_vec(&answer).ok()).ok_or(AskError::Malformed)?;
    if belongs(asked, &answer) { Ok(answer) } else { Err(AskError::Malformed) }
}

/// Writes one message with its length before it (RFC 1035, section 4.2.2), in one piece.
pub(crate) async fn write_frame(stream: &mut (impl AsyncWrite + Unpin), message: &[u8]) -> io::Result<()> {
    let length = u16::try_from(message.len()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    let mut frame = Vec::with_capacity(message.len() + 2);
    frame.extend_from_slice(&length.to_be_bytes());
    frame.extend_from_slice(message);
    stream.write_all(&frame).await
}

/// Reads one message; none at the end of the stream. One longer than `most` is an error, and not read.
pub(crate) async fn read_frame(
    stream: &mut (impl AsyncRead + Unpin),
    most: usize,
) -> io::Result<Option<Vec<u8>>> {
    let mut length = [0; 2];
    match stream.read_exact(&mut length).await {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    }
    let length = usize::from(u16::from_be_bytes(length));
    if length > most {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut message = vec![0; length];
    stream.read_exact(&mut message).await?;
    Ok(Some(message))
}

impl AskError {
    fn of(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset => Self::Refused,
            _ => Self::Unreachable(error),
        }
    }
}
