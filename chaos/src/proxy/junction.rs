//! A proxy that several places share: where a connection comes from is found out when it is made.
//!
//! The members of an etcd cluster know each other by one address each, so connections to a member come from all the
//! others by the same door. Every one of them is a process of this machine, and the kernel says which process a
//! socket belongs to.
//!
//! **Invariant:** a connection of unknown origin is reset, never passed on.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{Fault, State, connection, reset};
use crate::region::Site;

/// Which process is whose; it changes when one is started again.
pub type Owners = Arc<Mutex<BTreeMap<Site, i32>>>;

/// A running junction. It ends when this value is dropped.
#[derive(Debug)]
pub struct Junction {
    sides: Arc<BTreeMap<Site, watch::Sender<State>>>,
    stop: CancellationToken,
}

impl Junction {
    /// Listens on `listen` and passes the connections of these processes on to `target`.
    ///
    /// # Errors
    /// When the address cannot be listened on.
    pub async fn start(listen: SocketAddr, target: SocketAddr, owners: Owners) -> io::Result<Junction> {
        let listener = TcpListener::bind(listen).await?;
        let sides = Site::ALL.map(|site| (site, watch::channel(State::default()).0));
        let sides = Arc::new(BTreeMap::from(sides));
        let stop = CancellationToken::new();
        tokio::spawn(serve(listener, target, Arc::clone(&sides), owners, stop.clone()));
        Ok(Junction { sides, stop })
    }

    /// Makes the connections from a site obey these rules, as [`super::Proxy::obey`].
    pub fn obey(&self, from: Site, there: Fault, back: Fault) {
        self.sides[&from].send_modify(|state| (state.there, state.back) = (there, back));
    }
}

impl Drop for Junction {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn serve(
    listener: TcpListener,
    target: SocketAddr,
    sides: Arc<BTreeMap<Site, watch::Sender<State>>>,
    owners: Owners,
    stop: CancellationToken,
) {
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let Ok((client, from)) = accepted else { continue };
        let (sides, owners, stop) = (Arc::clone(&sides), Arc::clone(&owners), stop.clone());
        tokio::spawn(async move {
            let from = tokio::task::spawn_blocking(move || origin(from, &owners)).await;
            carry(client, target, from.ok().flatten().and_then(|site| sides.get(&site)), stop).await;
        });
    }
}

async fn carry(
    client: TcpStream,
    target: SocketAddr,
    side: Option<&watch::Sender<State>>,
    stop: CancellationToken,
) {
    match side {
        Some(side) => connection(client, target, side.subscribe(), stop).await,
        None => reset(&client),
    }
}

/// The site whose process has the socket at that end of a connection; none when it is a stranger's, or closed.
fn origin(end: SocketAddr, owners: &Owners) -> Option<Site> {
    let SocketAddr::V4(end) = end else { return None };
    let table = fs::read_to_string("/proc/net/tcp").ok()?;
    let socket = format!("socket:[{}]", inode(&table, end)?);
    let owners = owners.lock().unwrap_or_else(PoisonError::into_inner).clone();
    owners.into_iter().find(|(_, pid)| has(*pid, &socket)).map(|(site, _)| site)
}

/// The inode of the socket with that local address in `/proc/net/tcp` (proc(5)): its second column is the local
/// address, the bytes of the host part in the machine's order, the tenth the inode.
fn inode(table: &str, local: SocketAddrV4) -> Option<u64> {
    table.lines().skip(1).find_map(|line| {
        let mut columns = line.split_ascii_whitespace();
        let (host, port) = columns.nth(1)?.split_once(':')?;
        let host = Ipv4Addr::from(u32::from_str_radix(host, 16).ok()?.to_ne_bytes());
        let port = u16::from_str_radix(port, 16).ok()?;
        let inode = columns.nth(7)?.parse().ok()?;
        // One that is closed has no inode any more.
        (SocketAddrV4::new(host, port) == local && inode != 0).then_some(inode)
    })
}

fn has(pid: i32, socket: &str) -> bool {
    let Ok(files) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    files.flatten().any(|file| fs::read_link(file.path()).is_ok_and(|target| target == Path::new(socket)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test]
    async fn connections_of_known_processes_obey_their_own_rules_and_strangers_are_reset() {
        let door = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = door.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = door.accept().await {
                tokio::spawn(async move {
                    let (mut read, mut write) = stream.split();
                    tokio::io::copy(&mut read, &mut write).await
                });
            }
        });
        let here = i32::try_from(std::process::id()).unwrap();
        let owners: Owners = Arc::new(Mutex::new(BTreeMap::from([(Site::West, here)])));
        let listen: SocketAddr = {
            let spare = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            spare.local_addr().unwrap()
        };
        let junction = Junction::start(listen, target, Arc::clone(&owners)).await.unwrap();
        let echoed = async |stream: &mut TcpStream| {
            stream.write_all(b"x").await?;
            stream.read_u8().await
        };
        junction.obey(Site::East, Fault::Refuse, Fault::Refuse);
        let mut stream = TcpStream::connect(listen).await.unwrap();
        assert_eq!(echoed(&mut stream).await.unwrap(), b'x', "the rule of another site");
        junction.obey(Site::West, Fault::Refuse, Fault::None);
        assert!(echoed(&mut stream).await.is_err(), "an open connection obeys at once");
        junction.obey(Site::West, Fault::None, Fault::None);
        owners.lock().unwrap().clear();
        let mut stranger = TcpStream::connect(listen).await.unwrap();
        assert!(echoed(&mut stranger).await.is_err(), "nobody's connection");
    }

    #[test]
    fn a_socket_is_found_by_its_local_address() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
             0: 0100007F:1F90 0100407F:4E20 01 00000000:00000000 00:00000000 00000000     0        0 4242 1 0 20 4 30 10 -1\n\
             1: 0100407F:4E20 0100007F:1F90 06 00000000:00000000 03:00000000 00000000     0        0 0 3 0\n";
        assert_eq!(inode(table, "127.0.0.1:8080".parse().unwrap()), Some(4242));
        assert_eq!(inode(table, "127.64.0.1:20000".parse().unwrap()), None, "a closed one");
        assert_eq!(inode(table, "127.0.0.1:8081".parse().unwrap()), None);
    }
}
