//! A fault proxy: one TCP path of the lab, which can be made slow, silent, or broken.
//!
//! Each pair of places has its own, so a fault on the agent's path to a database leaves replication alone.
//! Proxies live in the lab's process, not in a region, and a path to a region that was lost refuses.
//!
//! A path has a fault of its own, and obeys two rules of the network: one for each direction of its bytes. A
//! connection needs both directions to be made; an open one goes on in the direction that is left.
//!
//! **Invariant:** bytes are delayed or held, never changed, reordered or dropped within a connection: what a
//! partition held back arrives when it heals, as TCP does it.

pub mod junction;

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

pub use junction::Junction;

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

/// A direction of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Heading {
    /// From who connected.
    There,
    /// To who connected.
    Back,
}

/// All that is wrong with a path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct State {
    /// The path itself.
    path: Fault,
    /// The network, from who connects to what is connected to.
    there: Fault,
    /// The network, the other way.
    back: Fault,
}

impl State {
    fn any(self, is: impl Fn(Fault) -> bool) -> bool {
        [self.path, self.there, self.back].into_iter().any(is)
    }

    fn breaks(self) -> bool {
        self.any(Fault::breaks)
    }

    fn refuses(self) -> bool {
        self.any(|fault| fault == Fault::Refuse)
    }

    fn of(self, heading: Heading) -> Fault {
        match heading {
            Heading::There => self.there,
            Heading::Back => self.back,
        }
    }

    fn holds(self, heading: Heading) -> bool {
        self.path == Fault::Blackhole || self.of(heading) == Fault::Blackhole
    }

    /// Whether a connection can be made: its greeting goes both ways.
    fn connects(self) -> bool {
        !self.holds(Heading::There) && !self.holds(Heading::Back)
    }

    fn delay(self, heading: Heading) -> Duration {
        let latency = |fault| match fault {
            Fault::Latency(delay) => delay,
            _ => Duration::ZERO,
        };
        let path = if heading == Heading::Back { latency(self.path) } else { Duration::ZERO };
        path + latency(self.of(heading))
    }
}

/// A running proxy. It ends when this value is dropped.
#[derive(Debug)]
pub struct Proxy {
    listen: SocketAddr,
    state: watch::Sender<State>,
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
        let (state, states) = watch::channel(State::default());
        let stop = CancellationToken::new();
        tokio::spawn(serve(listener, listen, target, states, stop.clone()));
        Ok(Proxy { listen, state, stop })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.listen
    }

    /// Makes the path have this fault, at once and for open connections too. [`Fault::None`] heals it.
    pub fn set(&self, fault: Fault) {
        self.state.send_modify(|state| state.path = fault);
    }

    /// The fault the path has now, rules apart.
    #[must_use]
    pub fn fault(&self) -> Fault {
        self.state.borrow().path
    }

    /// Makes the path obey these rules of the network, at once and on open connections too: one for the bytes that go
    /// to what is connected to, one for those that come back.
    pub fn obey(&self, there: Fault, back: Fault) {
        self.state.send_modify(|state| (state.there, state.back) = (there, back));
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
    mut states: watch::Receiver<State>,
    stop: CancellationToken,
) {
    let mut listener = Some(listener);
    loop {
        let state = *states.borrow_and_update();
        if state.refuses() {
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
            changed = states.changed() => match changed {
                Ok(()) => continue,
                Err(_) => return,
            },
            accepted = accepted => accepted,
        };
        if let Ok((client, _)) = accepted {
            let (states, stop) = (states.clone(), stop.clone());
            tokio::spawn(connection(client, target, states, stop));
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
    states: watch::Receiver<State>,
    stop: CancellationToken,
) {
    let mut breaking = states.clone();
    let server = tokio::select! {
        biased;
        () = stop.cancelled() => None,
        () = broken(&mut breaking) => None,
        server = async {
            quiet(states.clone(), State::connects).await;
            TcpStream::connect(target).await
        } => server.ok(),
    };
    let Some(server) = server else { return reset(&client) };
    // Without this small answers wait for an acknowledgement; refused only for sockets that are closed.
    let _ = client.set_nodelay(true).and_then(|()| server.set_nodelay(true));
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let both = async {
        let asked = pass(&mut from_client, &mut to_server, states.clone(), Heading::There);
        let answered = pass(&mut from_server, &mut to_client, states.clone(), Heading::Back);
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
async fn broken(states: &mut watch::Receiver<State>) {
    if states.wait_for(|state| state.breaks()).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Resolves when the path lets something through.
async fn quiet(mut states: watch::Receiver<State>, open: impl Fn(State) -> bool) {
    // An error means that the lab is gone; then nothing is held any more.
    let _ = states.wait_for(|state| open(*state)).await;
}

/// Passes bytes one way. They are stamped when they arrive and delivered when they are due, so latency adds a delay
/// and not a limit on throughput.
async fn pass(
    from: &mut OwnedReadHalf,
    to: &mut OwnedWriteHalf,
    states: watch::Receiver<State>,
    heading: Heading,
) -> io::Result<()> {
    // 256 chunks of 16 KiB are 4 MiB on the way; beyond that the sender waits, as with a full window.
    let (queue, mut due) = mpsc::channel::<(Instant, Bytes)>(256);
    let arrived = states.clone();
    let read = async move {
        let mut buffer = vec![0; 16 * 1024];
        loop {
            let count = match from.read(&mut buffer).await {
                Ok(count) => count,
                Err(error) => {
                    // A reset is held like everything else.
                    quiet(arrived, |state| !state.holds(heading)).await;
                    return Err(error);
                }
            };
            if count == 0 {
                return Ok::<(), io::Error>(());
            }
            let delay = arrived.borrow().delay(heading);
            if queue.send((Instant::now() + delay, Bytes::copy_from_slice(&buffer[..count]))).await.is_err() {
                return Ok(());
            }
        }
    };
    let write = async move {
        while let Some((at, bytes)) = due.recv().await {
            tokio::time::sleep_until(at).await;
            quiet(states.clone(), |state| !state.holds(heading)).await;
            to.write_all(&bytes).await?;
        }
        quiet(states, |state| !state.holds(heading)).await;
        to.shutdown().await
    };
    tokio::try_join!(read, write).map(|_| ())
}

#[cfg(test)]
#[path = "proxy/tests.rs"]
mod tests;
