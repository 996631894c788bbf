//! A relay of DNS questions: the way to a name server, which can be cut, and a resolver that can be told to keep what it
//! knows, whatever its TTL says.
//!
//! **Invariant:** while it keeps, a question it has an answer to is never asked again; while it is cut, nothing is answered.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::task::AbortHandle;

/// The id of a DNS message: its first two bytes.
const ID: usize = 2;
/// What comes before its question.
const HEADER: usize = 12;
/// How long a name server may take.
const ASK: Duration = Duration::from_millis(500);

/// What a relay does with questions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// It asks each.
    Ask,
    /// It answers from what it knows, where it knows anything.
    Keep,
    /// It drops them.
    Cut,
}

/// The relay. It ends when this value is dropped.
#[derive(Debug)]
pub struct Relay {
    address: SocketAddr,
    manner: Arc<AtomicU8>,
    task: AbortHandle,
}

impl Relay {
    /// Opens one on loopback, before that name server.
    ///
    /// # Errors
    /// When no socket is to be had.
    pub async fn start(before: SocketAddr) -> io::Result<Self> {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = socket.local_addr()?;
        let manner = Arc::new(AtomicU8::new(Manner::Ask as u8));
        let task = tokio::spawn(serve(socket, before, Arc::clone(&manner))).abort_handle();
        Ok(Self { address, manner, task })
    }

    /// Where it is asked.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Does this from now on.
    pub fn set(&self, manner: Manner) {
        self.manner.store(manner as u8, Ordering::SeqCst);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(socket: UdpSocket, before: SocketAddr, manner: Arc<AtomicU8>) {
    let socket = Arc::new(socket);
    let (tell, mut told) = tokio::sync::mpsc::channel::<(Vec<u8>, Vec<u8>)>(64);
    let mut known: HashMap<Vec<u8>, Vec<u8>> = HashMap::new();
    let mut buffer = [0; 1232];
    loop {
        let (count, from) = tokio::select! {
            biased;
            Some((question, answer)) = told.recv() => {
                known.insert(question, answer);
                continue;
            }
            received = socket.recv_from(&mut buffer) => match received {
                Ok(received) => received,
                // A socket on loopback fails only for answers that nobody waited for.
                Err(_) => continue,
            },
        };
        let manner = manner.load(Ordering::SeqCst);
        let (Some(id), Some(question)) = (buffer[..count].get(..ID), asked(&buffer[..count])) else {
            continue;
        };
        if manner == Manner::Cut as u8 {
            continue;
        }
        if let Some(kept) = known.get(question).filter(|_| manner == Manner::Keep as u8) {
            let _ = socket.send_to(&[id, kept].concat(), from).await;
            continue;
        }
        // Each question by itself: one that is not answered keeps no other waiting.
        let (socket, tell, question) = (Arc::clone(&socket), tell.clone(), buffer[..count].to_vec());
        tokio::spawn(async move {
            let Some(answer) = ask(before, &question).await else { return };
            let _ = socket.send_to(&answer, from).await;
            if let (Some(question), Some(answer)) = (asked(&question), answer.get(ID..)) {
                let _ = tell.send((question.to_vec(), answer.to_vec())).await;
            }
        });
    }
}

/// What a message asks: the name and the type of its one question, whatever else it says (RFC 1035, section 4.1).
fn asked(message: &[u8]) -> Option<&[u8]> {
    let mut end = HEADER;
    while let length @ 1.. = usize::from(*message.get(end)?) {
        end += length + 1;
    }
    message.get(HEADER..end + 5)
}

async fn ask(server: SocketAddr, question: &[u8]) -> Option<Vec<u8>> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.ok()?;
    socket.connect(server).await.ok()?;
    socket.send(question).await.ok()?;
    let mut buffer = [0; 1232];
    let count = tokio::time::timeout(ASK, socket.recv(&mut buffer)).await.ok()?.ok()?;
    Some(buffer[..count].to_vec())
}
