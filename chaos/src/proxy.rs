//! A fault proxy: one TCP path of the lab, which can be made slow, silent, or broken.
//!
//! Each pair of places has its own, so a fault on the agent's path to a database leaves replication alone.
//! Proxies live in the lab's process, not in a region, and a path to a region that was lost refuses.
//!
//! **Invariant:** bytes are delayed or held, never changed, reordered or dropped within a connection: what a
//! partition held back arrives when it heals, as TCP does it.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// What is wrong with a path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    #[default]
    None,
    /// Every answer arrives this much later, also on connections that are already open.
    Latency(Duration),
    /// Connections are accepted and never answered; open ones fall silent. What was held back arrives when
    /// the fault is lifted. This is what a partition or a dead machine looks like.
    Blackhole,
    /// Connections are accepted and reset; open ones are reset.
    Drop,
    /// Connections are refused; open ones are reset. This is what a dead process looks like.
    Refuse,
}

impl Fault {
    fn breaks(self) -> bool {
        matches!(self, Fault::Drop | Fault::Refuse)
    }
}

/// A running proxy. It ends when this value is dropped.
#[derive(Debug)]
pub struct Proxy {
    listen: SocketAddr,
    fault: watch::Sender<Fault>,
    stop: CancellationToken,
}

impl Proxy {
    /// Listens on `listen` (port 0: any free one) and passes every connection on to `target`.
    ///
    /// # Errors
    /// When the address cannot be listened on.
    pub async fn start(listen: SocketAddr, target: SocketAddr) -> io::Result<Proxy> {
        let listener = TcpListener::bind(listen).await?;
        let listen = listener.local_addr()?;
        let (fault, faults) = watch::channel(Fault::None);
        let stop = CancellationToken::new();
        tokio::spawn(serve(listener, listen, target, faults, stop.clone()));
        Ok(Proxy { listen, fault, stop })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.listen
    }

    /// Makes the path have this fault, at once and for open connections too. [`Fault::None`] heals it.
    pub fn set(&self, fault: Fault) {
        self.fault.send_replace(fault);
    }

    /// The fault the path has now.
    #[must_use]
    pub fn fault(&self) -> Fault {
        *self.fault.borrow()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn serve(
    listener: TcpListener,
    listen: SocketAddr,
    target: SocketAddr,
    mut faults: watch::Receiver<Fault>,
    stop: CancellationToken,
) {
    let mut listener = Some(listener);
    loop {
        let fault = *faults.borrow_and_update();
        if fault == Fault::Refuse {
            // Only a closed socket refuses.
            listener = None;
        } else if listener.is_none() {
            listener = TcpListener::bind(listen).await.ok();
        }
        let accepted = async {
            match &listener {
                Some(listener) => listener.accept().await,
                None => std::future::pending().await,
            }
        };
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            changed = faults.changed() => match changed {
                Ok(()) => continue,
                Err(_) => return,
            },
            accepted = accepted => accepted,
        };
        if let Ok((client, _)) = accepted {
            let (faults, stop) = (faults.clone(), stop.clone());
            tokio::spawn(connection(client, target, faults, stop));
        }
    }
}

/// Closes with a reset, as a dead process's kernel does.
fn reset(stream: &TcpStream) {
    // Refused only for sockets that are closed already.
    let _ = stream.set_zero_linger();
}

/// Carries one connection to its end. An orderly end is passed on as such; any other end (a fault, a server
/// that is gone) reaches the client as a reset.
async fn connection(
    client: TcpStream,
    target: SocketAddr,
    faults: watch::Receiver<Fault>,
    stop: CancellationToken,
) {
    let mut breaking = faults.clone();
    let server = tokio::select! {
        biased;
        () = stop.cancelled() => None,
        () = broken(&mut breaking) => None,
        server = async { quiet(faults.clone()).await; TcpStream::connect(target).await } => server.ok(),
    };
    let Some(server) = server else { return reset(&client) };
    // Without this small answers wait for an acknowledgement; refused only for sockets that are closed.
    let _ = client.set_nodelay(true).and_then(|()| server.set_nodelay(true));
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let both = async {
        let asked = pass(&mut from_client, &mut to_server, faults.clone(), false);
        let answered = pass(&mut from_server, &mut to_client, faults.clone(), true);
        tokio::try_join!(asked, answered).is_ok()
    };
    let orderly = tokio::select! {
        biased;
        () = stop.cancelled() => false,
        () = broken(&mut breaking) => false,
        orderly = both => orderly,
    };
    if !orderly {
        reset(from_client.as_ref());
        reset(from_server.as_ref());
        // Dropping a write half would send an orderly end first.
        to_client.forget();
        to_server.forget();
    }
}

/// Resolves when the fault is one that breaks connections.
async fn broken(faults: &mut watch::Receiver<Fault>) {
    if faults.wait_for(|fault| fault.breaks()).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Resolves when bytes may move.
async fn quiet(mut faults: watch::Receiver<Fault>) {
    // An error means that the lab is gone; then nothing is held any more.
    let _ = faults.wait_for(|fault| *fault != Fault::Blackhole).await;
}

/// Passes bytes one way. Answers (`delayed`) are stamped when they arrive and delivered when they are due, so
/// latency adds a delay and not a limit on throughput.
async fn pass(
    from: &mut OwnedReadHalf,
    to: &mut OwnedWriteHalf,
    faults: watch::Receiver<Fault>,
    delayed: bool,
) -> io::Result<()> {
    // 256 chunks of 16 KiB are 4 MiB on the way; beyond that the sender waits, as with a full window.
    let (queue, mut due) = mpsc::channel::<(Instant, Bytes)>(256);
    let latency = faults.clone();
    let read = async move {
        let mut buffer = vec![0; 16 * 1024];
        loop {
            let count = from.read(&mut buffer).await?;
            if count == 0 {
                return Ok::<(), io::Error>(());
            }
            let delay = match *latency.borrow() {
                Fault::Latency(delay) if delayed => delay,
                _ => Duration::ZERO,
            };
            if queue.send((Instant::now() + delay, Bytes::copy_from_slice(&buffer[..count]))).await.is_err() {
                return Ok(());
            }
        }
    };
    let write = async move {
        while let Some((at, bytes)) = due.recv().await {
            tokio::time::sleep_until(at).await;
            quiet(faults.clone()).await;
            to.write_all(&bytes).await?;
        }
        to.shutdown().await
    };
    tokio::try_join!(read, write).map(|_| ())
}

#[cfg(test)]
#[path = "proxy/tests.rs"]
mod tests;
