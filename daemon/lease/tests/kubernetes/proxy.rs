//! A way to the API server that can lose an answer, or keep a request back.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// What the proxy does to what passes.
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    state: Arc<State>,
    task: tokio::task::JoinHandle<()>,
}

struct State {
    /// How many answers from now the one is that is not given: the connection is cut instead; zero for none.
    loses: AtomicUsize,
    /// How many answers were lost.
    lost: AtomicUsize,
    /// Requests wait here while this is true, over the connections with a lower number than that.
    holds: watch::Sender<bool>,
    below: AtomicUsize,
    /// How many connections there were.
    connections: AtomicUsize,
    /// How many requests wait, or have waited.
    held: AtomicUsize,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Proxy {
    pub(crate) async fn to(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("its address");
        let state = Arc::new(State {
            loses: AtomicUsize::new(0),
            lost: AtomicUsize::new(0),
            holds: watch::Sender::new(false),
            below: AtomicUsize::new(0),
            connections: AtomicUsize::new(0),
            held: AtomicUsize::new(0),
        });
        let shared = state.clone();
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let Ok(server) = TcpStream::connect(server).await else { continue };
                let (from_client, to_client) = client.into_split();
                let (from_server, to_server) = server.into_split();
                tokio::spawn(requests(from_client, to_server, shared.clone()));
                tokio::spawn(answers(from_server, to_client, shared.clone()));
            }
        });
        Self { address, state, task }
    }

    /// The answer to the next request over a connection that is there is lost.
    pub(crate) fn lose_an_answer(&self) {
        self.lose_the_answer_after(0);
    }

    /// The same, after so many answers that are given.
    pub(crate) fn lose_the_answer_after(&self, given: usize) {
        self.state.loses.store(given + 1, Ordering::SeqCst);
    }

    pub(crate) fn lost(&self) -> usize {
        self.state.lost.load(Ordering::SeqCst)
    }

    /// From now on requests are kept back, over all connections that are there.
    pub(crate) fn hold(&self) {
        self.state.below.store(usize::MAX, Ordering::SeqCst);
        self.state.holds.send_replace(true);
    }

    /// Requests over connections that are made from now on are not kept back.
    pub(crate) fn pass_new_ones(&self) {
        self.state.below.store(self.state.connections.load(Ordering::SeqCst), Ordering::SeqCst);
    }

    /// What was kept back is sent on, whoever still waits for it.
    pub(crate) fn release(&self) {
        self.state.holds.send_replace(false);
    }

    pub(crate) fn held(&self) -> usize {
        self.state.held.load(Ordering::SeqCst)
    }
}

async fn requests(mut client: OwnedReadHalf, mut server: OwnedWriteHalf, state: Arc<State>) {
    let mut holds = state.holds.subscribe();
    let mut bytes = vec![0; 64 * 1024];
    let mut was_held = false;
    let number = state.connections.fetch_add(1, Ordering::SeqCst);
    while let Ok(read) = client.read(&mut bytes).await {
        let part = bytes.get(..read).unwrap_or_default();
        if part.is_empty() {
            break;
        }
        let kept = number < state.below.load(Ordering::SeqCst) && *holds.borrow();
        if kept {
            was_held = true;
            state.held.fetch_add(1, Ordering::SeqCst);
            let _ = holds.wait_for(|holds| !holds).await;
        }
        if server.write_all(part).await.is_err() {
            break;
        }
    }
    if was_held {
        // Like a network that has lost the client: the server is not told that nobody waits any more.
        std::future::pending::<()>().await;
    }
}

async fn answers(mut server: OwnedReadHalf, mut client: OwnedWriteHalf, state: Arc<State>) {
    let mut bytes = vec![0; 64 * 1024];
    while let Ok(read) = server.read(&mut bytes).await {
        if read == 0 {
            break;
        }
        let left = state.loses.try_update(Ordering::SeqCst, Ordering::SeqCst, |loses| loses.checked_sub(1));
        if left == Ok(1) {
            state.lost.fetch_add(1, Ordering::SeqCst);
            break;
        }
        let part = bytes.get(..read).unwrap_or_default();
        // A client that has gone: what the server still has to say is read, so that it does what it was asked to.
        let _ = client.write_all(part).await;
    }
    let _ = client.shutdown().await;
}
