//! Servers that say exactly what a test wants them to say, on loopback.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use lifeboat_core::sighting::{Evidence, Failure, FailureKind, Look};
use lifeboat_core::{AgentName, Epoch, Moment, RunId};
use lifeboat_engine::ports::{Ask, Call, Probe, Role};
use lifeboat_probe::{HttpOptions, HttpProbe, Kit};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// How long looks may take in tests.
pub(crate) const LIMIT: Duration = Duration::from_millis(400);

/// A probe that keeps to its limit is back by then, on a machine that is busy with other tests too.
const AT_MOST: Duration = Duration::from_millis(1_500);

/// A listener whose connections are each served by one closure.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) connections: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

impl Server {
    pub(crate) async fn start<F, S>(serve: F) -> Self
    where
        F: Fn(TcpStream) -> S + Send + 'static,
        S: Future<Output = ()> + Send + 'static,
    {
        Self::on(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), serve).await
    }

    pub(crate) async fn on<F, S>(address: SocketAddr, serve: F) -> Self
    where
        F: Fn(TcpStream) -> S + Send + 'static,
        S: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&connections);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(serve(stream));
            }
        });
        Self { address, connections, task }
    }

    /// Answers each request with these bytes, and closes.
    pub(crate) async fn saying(answer: impl Into<Vec<u8>>) -> Self {
        let answer = Arc::new(answer.into());
        Self::start(move |mut stream| {
            let answer = Arc::clone(&answer);
            async move {
                read_request(&mut stream).await;
                let _ = stream.write_all(&answer).await;
            }
        })
        .await
    }

    /// Answers with a head, and then with `piece` until nobody listens any more, at most a gibibyte.
    pub(crate) async fn flooding(head: &'static str, piece: &'static str) -> (Self, Flood) {
        let (said, flood) = watch::channel(None);
        let server = Self::start(move |mut stream| {
            let said = said.clone();
            async move {
                read_request(&mut stream).await;
                let _ = stream.write_all(head.as_bytes()).await;
                said.send_replace(Some(flood_with(&mut stream, piece).await));
            }
        })
        .await;
        (server, Flood(flood))
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub(crate) fn seen(&self) -> u64 {
        self.connections.load(Ordering::SeqCst)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// How much a flooding server could send.
pub(crate) struct Flood(watch::Receiver<Option<u64>>);

impl Flood {
    /// Bytes until nobody listened any more.
    pub(crate) async fn sent(&mut self) -> u64 {
        self.0.wait_for(Option::is_some).await.unwrap().unwrap()
    }
}

async fn flood_with(stream: &mut TcpStream, piece: &str) -> u64 {
    let block = piece.repeat((64 << 10) / piece.len());
    let mut sent = 0;
    while sent < 1 << 30 {
        // A partial write goes on where it stopped, or it would tear a piece.
        let rest = &block.as_bytes()[usize::try_from(sent).unwrap() % block.len()..];
        match stream.write(rest).await {
            Ok(written) => sent += written as u64,
            Err(_) => break,
        }
    }
    sent
}

/// Reads until the empty line that ends a request without a body, and gives what was read.
pub(crate) async fn read_request<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S) -> String {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => request.push(byte),
            Err(_) => break,
        }
    }
    String::from_utf8(request).unwrap()
}

/// A 200 with this body.
pub(crate) fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

pub(crate) fn ask_at(at: Moment) -> Ask {
    Ask { agent: AgentName::new("a"), at, epoch: Epoch::new(1), expect: Role::Primary, limit: LIMIT }
}

pub(crate) fn call() -> Call {
    Call { run: RunId::new("shop-e1"), agent: AgentName::new("a"), epoch: Epoch::new(1), limit: LIMIT }
}

/// One look, which must be back in time.
pub(crate) async fn look(probe: &dyn Probe) -> Look {
    look_at(probe, Moment::from_millis(1_772_323_200_000)).await
}

pub(crate) async fn look_at(probe: &dyn Probe, at: Moment) -> Look {
    let started = Instant::now();
    let look = probe.look(&ask_at(at)).await;
    assert!(started.elapsed() < AT_MOST, "{look:?} after {:?}", started.elapsed());
    look
}

/// One look with an HTTP probe.
pub(crate) async fn http(options: HttpOptions) -> Look {
    look(&HttpProbe::new(&options, &Kit::new()).unwrap()).await
}

/// One look with an HTTP probe that wants `body`.
pub(crate) async fn http_body(url: String, body: &str) -> Look {
    http(HttpOptions { body: Some(body.to_owned()), ..HttpOptions::new(url) }).await
}

/// Checks that a look failed in this way, with this said.
#[track_caller]
pub(crate) fn assert_failed(look: Look, kind: FailureKind, detail: &str) {
    match look {
        Err(Failure { kind: was, detail: said }) => {
            assert_eq!(was, kind, "{said}");
            assert!(said.contains(detail), "{said:?} does not contain {detail:?}");
        }
        Ok(evidence) => panic!("{evidence:?}, expected {kind:?}"),
    }
}

#[track_caller]
pub(crate) fn assert_answered(look: Look) {
    assert_eq!(look, Ok(Evidence::Answered));
}

/// An address on which nothing listens.
pub(crate) async fn deserted() -> SocketAddr {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap().local_addr().unwrap()
}
