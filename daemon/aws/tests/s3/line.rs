//! A line to a server that misbehaves as ordered: one request a connection, and one order for each request.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// What becomes of a request that arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// It is answered with that status, and goes nowhere.
    Answer(u16),
    /// It is done, and the answer is lost.
    LoseAnswer,
    /// It is done, and the answer ends after so many bytes.
    CutAnswer(usize),
}

/// A line to a server.
pub(crate) struct Line {
    pub(crate) port: u16,
    state: Arc<Mutex<State>>,
    listening: JoinHandle<()>,
}

#[derive(Default)]
struct State {
    /// For the next requests whose first line begins so, in order.
    orders: VecDeque<(&'static str, Order)>,
    /// Conditions of writes are taken out, as by a server that does not know them.
    unconditional: bool,
    /// The first lines of all requests.
    seen: Vec<String>,
}

impl Line {
    pub(crate) async fn to(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let state = Arc::new(Mutex::new(State::default()));
        let shared = state.clone();
        let listening = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(carry(client, SocketAddr::from(([127, 0, 0, 1], server)), shared.clone()));
            }
        });
        Self { port, state, listening }
    }

    /// What becomes of the next requests whose first line begins so.
    pub(crate) fn order(&self, begins: &'static str, orders: &[Order]) {
        let mut state = self.state.lock().expect("whole");
        state.orders.extend(orders.iter().map(|order| (begins, *order)));
    }

    pub(crate) fn unconditional(&self) {
        self.state.lock().expect("whole").unconditional = true;
    }

    /// Orders that nothing has met.
    pub(crate) fn left(&self) -> usize {
        self.state.lock().expect("whole").orders.len()
    }

    /// How many requests began so.
    pub(crate) fn seen(&self, begins: &str) -> usize {
        let state = self.state.lock().expect("whole");
        state.seen.iter().filter(|line| line.starts_with(begins)).count()
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

/// Carries one request and its answer.
async fn carry(mut client: TcpStream, server: SocketAddr, state: Arc<Mutex<State>>) -> Option<()> {
    let (mut head, mut body) = head(&mut client).await?;
    let length: usize = field(&head, "content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
    if field(&head, "expect").is_some() {
        client.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await.ok()?;
    }
    let order = {
        let mut state = state.lock().expect("whole");
        state.seen.push(head.lines().next().unwrap_or_default().to_owned());
        if state.unconditional {
            head = without(&head, "if-none-match");
        }
        match state.orders.front() {
            Some((begins, _)) if head.starts_with(begins) => state.orders.pop_front().map(|(_, order)| order),
            _ => None,
        }
    };
    while body.len() < length {
        if client.read_buf(&mut body).await.ok()? == 0 {
            return None;
        }
    }
    if let Some(Order::Answer(status)) = order {
        let answer =
            format!("HTTP/1.1 {status} As Ordered\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
        return client.write_all(answer.as_bytes()).await.ok();
    }
    let mut far = TcpStream::connect(server).await.ok()?;
    let head = without(&without(&head, "connection"), "expect");
    let head = head.replacen("\r\n\r\n", "\r\nconnection: close\r\n\r\n", 1);
    far.write_all(head.as_bytes()).await.ok()?;
    far.write_all(&body).await.ok()?;
    let mut answer = Vec::new();
    far.read_to_end(&mut answer).await.ok()?;
    match order {
        Some(Order::LoseAnswer) => answer.clear(),
        Some(Order::CutAnswer(after)) => answer.truncate(after),
        _ => {}
    }
    client.write_all(&answer).await.ok()?;
    client.shutdown().await.ok()
}

/// The head of a request, to its empty line, and what came with it of its body.
async fn head(client: &mut TcpStream) -> Option<(String, Vec<u8>)> {
    let mut read = Vec::new();
    loop {
        if client.read_buf(&mut read).await.ok()? == 0 {
            return None;
        }
        if let Some(end) = read.windows(4).position(|four| four == b"\r\n\r\n") {
            let body = read.split_off(end + 4);
            return Some((String::from_utf8(read).ok()?, body));
        }
    }
}

fn field<'h>(head: &'h str, name: &str) -> Option<&'h str> {
    let mut fields = head.lines().filter_map(|line| line.split_once(':'));
    fields.find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
}

fn without(head: &str, name: &str) -> String {
    let kept = |line: &&str| !line.split(':').next().unwrap_or_default().eq_ignore_ascii_case(name);
    head.split("\r\n").filter(kept).collect::<Vec<_>>().join("\r\n")
}
