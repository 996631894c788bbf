//! The TCP stream under a session, with an allowance of bytes.
//!
//! **Invariant:** no more bytes are taken from a server than its session allows between two requests.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures::future::{FutureExt, select_ok};
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, lookup_host};

use crate::trouble::Trouble;

/// Bytes a server may send in answer to one request. The largest honest answer, the row of a sample,
/// has under 4 KiB; a certificate chain has under 64.
const ALLOWANCE: u64 = 1 << 20;

/// Addresses of one name that are tried, at most.
const MOST_ADDRESSES: usize = 4;

/// Silence after which the kernel asks whether the other side is still there.
const KEEPALIVE: Duration = Duration::from_secs(5);

/// How long sent bytes may go unconfirmed before the kernel gives the connection up. Longer than the slow
/// network that must not look dead (10 s), so that a session outlives it.
const UNCONFIRMED: Duration = Duration::from_secs(30);

/// What a session may still receive.
#[derive(Clone, Debug)]
pub(crate) struct Allowance(Arc<AtomicU64>);

impl Allowance {
    fn new() -> Self {
        Self(Arc::new(AtomicU64::new(ALLOWANCE)))
    }

    /// Makes room for the answer to one more request.
    pub(crate) fn refill(&self) {
        self.0.store(ALLOWANCE, Ordering::Relaxed);
    }

    fn take(&self, bytes: usize) -> io::Result<()> {
        let left = self.0.load(Ordering::Relaxed).checked_sub(bytes as u64);
        let left = left.ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidData, format!("an answer of more than {ALLOWANCE} bytes"))
        })?;
        self.0.store(left, Ordering::Relaxed);
        Ok(())
    }
}

/// A TCP stream that fails when more was received than is allowed.
pub(crate) struct Metered {
    inner: TcpStream,
    allowance: Allowance,
}

/// Connects to the first address of `host` that answers, with an allowance.
pub(crate) async fn dial(host: &str, port: u16) -> Result<(Metered, Allowance), Trouble> {
    let inner = connect(host, port).await?;
    let allowance = Allowance::new();
    Ok((Metered { inner, allowance: allowance.clone() }, allowance))
}

/// Connects to the first address of `host` that answers.
pub(crate) async fn connect(host: &str, port: u16) -> Result<TcpStream, Trouble> {
    let unresolved = |source| Trouble::Unresolved { host: host.to_owned(), source };
    let addresses = lookup_host((host, port)).await.map_err(unresolved)?;
    // All at once: an address that swallows packets must not use up the time of the next one.
    let attempts: Vec<_> = addresses.take(MOST_ADDRESSES).map(|a| TcpStream::connect(a).boxed()).collect();
    if attempts.is_empty() {
        return Err(unresolved(io::Error::new(io::ErrorKind::NotFound, "the name has no address")));
    }
    let unconnected = |source| Trouble::Unconnected { address: format!("{host}:{port}"), source };
    let (stream, _) = select_ok(attempts).await.map_err(unconnected)?;
    tune(&stream).map_err(unconnected)?;
    Ok(stream)
}

fn tune(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE))?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(UNCONFIRMED))?;
    Ok(())
}

impl AsyncRead for Metered {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.inner).poll_read(cx, buffer))?;
        Poll::Ready(self.allowance.take(buffer.filled().len() - before))
    }
}

impl AsyncWrite for Metered {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
