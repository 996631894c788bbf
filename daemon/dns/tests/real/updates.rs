//! Updates on each of the three servers: the same promises, kept by three different programs.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use lifeboat_core::FaultKind;
use lifeboat_dns::{KeyAlgorithm, Rfc2136, Rfc2136Options};
use lifeboat_engine::ports::Names;

use crate::servers::{self, KEY_NAME, OTHER, SECRET, Server, ZONE, dig, free_address};
use crate::{call, change, set};

/// Names of the server's zone, changed with the key in `secret`.
pub(crate) fn names(server: &Server, zone: &str, secret: &str) -> Rfc2136 {
    Rfc2136::new(options(server, zone, secret))
}

pub(crate) fn options(server: &Server, zone: &str, secret: &str) -> Rfc2136Options {
    Rfc2136Options {
        zone: zone.into(),
        server: server.address,
        secondaries: Vec::new(),
        resolvers: Vec::new(),
        key_name: KEY_NAME.to_owned(),
        key_algorithm: KeyAlgorithm::HmacSha256,
        key_file: key_file(server, secret),
    }
}

fn key_file(server: &Server, secret: &str) -> PathBuf {
    let path = server.folder.path().join(format!("key-{}", secret.len() + usize::from(secret.as_bytes()[0])));
    fs::write(&path, format!("{secret}\n")).unwrap();
    path
}

fn short(server: &Server, name: &str, kind: &str) -> Vec<String> {
    let mut lines: Vec<_> =
        dig(server.address, &["+short", "+norec", name, kind]).lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

async fn a_switch_is_visible_and_repeating_it_changes_nothing(server: Server) {
    let names = names(&server, ZONE, SECRET);
    let there = change("shop.example.test.", &["192.0.2.80"], &["198.51.100.80", "198.51.100.81"]);
    let switched = names.ensure_record(&call(7), &there).await.unwrap();
    assert!(!switched.already);
    assert_eq!(switched.values, there.to);
    assert_eq!(short(&server, "shop.example.test.", "A"), ["198.51.100.80", "198.51.100.81"]);
    assert_eq!(short(&server, "_lifeboat-epoch.shop.example.test.", "TXT"), ["\"epoch=7\""]);

    let serial = short(&server, ZONE, "SOA");
    assert!(names.ensure_record(&call(7), &there).await.unwrap().already);
    assert_eq!(short(&server, ZONE, "SOA"), serial, "a repeated call must send nothing");

    // The next epoch takes over what the last one wrote, though the values are there already.
    assert!(names.ensure_record(&call(8), &there).await.unwrap().already);
    assert_eq!(short(&server, "_lifeboat-epoch.shop.example.test.", "TXT"), ["\"epoch=8\""]);
    let state = names.look(&"shop.example.test.".into(), Duration::from_secs(5)).await.unwrap();
    assert_eq!(state.values, there.to);
    assert_eq!((state.ttl, state.epoch.map(|e| e.get())), (Some(Duration::from_secs(10)), Some(8)));
}

async fn a_name_is_created_and_changes_kind(server: Server) {
    let names = names(&server, ZONE, SECRET);
    let new = change("new.example.test.", &[], &["2001:db8::1", "192.0.2.1"]);
    assert!(!names.ensure_record(&call(1), &new).await.unwrap().already);
    assert_eq!(short(&server, "new.example.test.", "AAAA"), ["2001:db8::1"]);

    let alias = change("new.example.test.", &["192.0.2.1", "2001:db8::1"], &["Shop.example.test"]);
    names.ensure_record(&call(2), &alias).await.unwrap();
    assert_eq!(short(&server, "new.example.test.", "CNAME"), ["shop.example.test."]);
    assert!(names.ensure_record(&call(2), &alias).await.unwrap().already);

    let back = change("new.example.test.", &["shop.example.test."], &["192.0.2.9"]);
    names.ensure_record(&call(3), &back).await.unwrap();
    assert_eq!(short(&server, "new.example.test.", "A"), ["192.0.2.9"]);
    assert_eq!(short(&server, "new.example.test.", "CNAME"), Vec::<String>::new());
    assert_eq!(short(&server, "shop.example.test.", "A"), ["192.0.2.80"], "other names stay as they were");
}

async fn a_stale_epoch_and_a_foreign_value_are_refused(server: Server) {
    let names = names(&server, ZONE, SECRET);
    let there = change("shop.example.test.", &["192.0.2.80"], &["198.51.100.80"]);
    names.ensure_record(&call(7), &there).await.unwrap();

    let back = change("shop.example.test.", &["198.51.100.80"], &["192.0.2.80"]);
    let fault = names.ensure_record(&call(6), &back).await.unwrap_err();
    assert_eq!(fault.kind, FaultKind::Stale, "{fault}");
    assert_eq!(fault.detail, "shop.example.test. was written under epoch 7, newer than epoch 6");

    let other = change("shop.example.test.", &["203.0.113.1"], &["203.0.113.2"]);
    let fault = names.ensure_record(&call(8), &other).await.unwrap_err();
    assert_eq!(fault.kind, FaultKind::Refused, "{fault}");
    assert_eq!(
        fault.detail,
        "shop.example.test. says 198.51.100.80, neither 203.0.113.1 nor 203.0.113.2: it is left as it is"
    );
    // A name that is gone was not expected to be gone.
    let gone = change("gone.example.test.", &["192.0.2.80"], &["198.51.100.80"]);
    assert_eq!(names.ensure_record(&call(8), &gone).await.unwrap_err().kind, FaultKind::Refused);
    assert_eq!(short(&server, "shop.example.test.", "A"), ["198.51.100.80"]);
    assert_eq!(short(&server, "_lifeboat-epoch.shop.example.test.", "TXT"), ["\"epoch=7\""]);
}

/// Two agents look at the same moment; the slower one acts on what is no longer so. A proxy in front of the
/// server holds its update back until the other is done: only the server itself can refuse it.
async fn the_server_itself_refuses_the_slower_of_two(server: Server) {
    let proxy = Holding::start(server.address).await;
    let mut slow = options(&server, ZONE, SECRET);
    slow.server = proxy.address;
    let (slow, fast) = (Rfc2136::new(slow), names(&server, ZONE, SECRET));

    let old = change("shop.example.test.", &["192.0.2.80"], &["203.0.113.6"]);
    let new = change("shop.example.test.", &["192.0.2.80"], &["198.51.100.80"]);
    let slow = tokio::spawn(async move { slow.ensure_record(&call(6), &old).await });
    proxy.held().await;
    fast.ensure_record(&call(7), &new).await.unwrap();
    proxy.release();
    let fault = slow.await.unwrap().unwrap_err();
    assert_eq!(fault.kind, FaultKind::Stale, "{fault}");
    assert_eq!(short(&server, "shop.example.test.", "A"), ["198.51.100.80"]);
    assert_eq!(short(&server, "_lifeboat-epoch.shop.example.test.", "TXT"), ["\"epoch=7\""]);
}

/// The values are the same as when the slower one looked: the epoch alone tells that it is too late.
async fn the_epoch_alone_stops_the_slower_of_two(server: Server) {
    let first = change("shop.example.test.", &["192.0.2.80"], &["198.51.100.80"]);
    names(&server, ZONE, SECRET).ensure_record(&call(5), &first).await.unwrap();
    let proxy = Holding::start(server.address).await;
    let mut slow = options(&server, ZONE, SECRET);
    slow.server = proxy.address;
    let (slow, fast) = (Rfc2136::new(slow), names(&server, ZONE, SECRET));
    let old = change("shop.example.test.", &["198.51.100.80"], &["203.0.113.6"]);
    let slow = tokio::spawn(async move { slow.ensure_record(&call(6), &old).await });
    proxy.held().await;
    fast.ensure_record(&call(7), &first).await.unwrap();
    proxy.release();
    let fault = slow.await.unwrap().unwrap_err();
    assert_eq!(fault.kind, FaultKind::Stale, "{fault}");
    assert_eq!(short(&server, "shop.example.test.", "A"), ["198.51.100.80"]);
}

async fn wrong_key_refused_zone_and_dead_server_read_differently(server: Server) {
    let there = change("shop.example.test.", &["192.0.2.80"], &["198.51.100.80"]);
    let address = server.address;

    let fault = names(&server, ZONE, OTHER).ensure_record(&call(7), &there).await.unwrap_err();
    assert_eq!(fault.kind, FaultKind::Refused);
    let key_refused = |text: &str| {
        text.starts_with(&format!("key refused by {address} ("))
            && text.ends_with("): check key_name, key_algorithm, key_file")
    };
    assert!(key_refused(&fault.detail), "{fault}");
    let mut unknown = options(&server, ZONE, SECRET);
    unknown.key_name = "nobody.".to_owned();
    let fault = Rfc2136::new(unknown).ensure_record(&call(7), &there).await.unwrap_err();
    assert_eq!(fault.kind, FaultKind::Refused);
    assert!(key_refused(&fault.detail), "{fault}");

    let locked = change("shop.locked.test.", &["192.0.2.80"], &["198.51.100.80"]);
    let fault = names(&server, "locked.test.", SECRET).ensure_record(&call(7), &locked).await.unwrap_err();
    assert_eq!(fault.kind, FaultKind::Refused);
    // Knot looks for the key among those with rights on the zone, and says that it knows no such key.
    let no_rights = fault.detail.contains("BADKEY: unknown there, or without rights on the zone");
    let refused = fault.detail.starts_with(&format!("{address} refuses zone locked.test. ("));
    assert!(refused || no_rights, "{fault}");
    let rehearsed = names(&server, ZONE, SECRET).rehearse(&there.name, Duration::from_secs(5)).await.unwrap();
    assert_eq!((rehearsed.values, rehearsed.epoch), (set(&["192.0.2.80"]), None));
    let unknown = change("shop.nowhere.test.", &["192.0.2.80"], &["198.51.100.80"]);
    let fault = names(&server, "nowhere.test.", SECRET).ensure_record(&call(7), &unknown).await.unwrap_err();
    assert_eq!(fault.kind, FaultKind::Refused);
    assert!(fault.detail.starts_with(&format!("{address} refuses zone nowhere.test. (")), "{fault}");

    let mut dead = options(&server, ZONE, SECRET);
    dead.server = free_address();
    let fault = Rfc2136::new(dead.clone()).ensure_record(&call(7), &there).await.unwrap_err();
    assert_eq!(fault.kind, FaultKind::Unreachable);
    assert!(fault.detail.starts_with(&format!("{} cannot be reached: ", dead.server)), "{fault}");
    assert_eq!(short(&server, "shop.example.test.", "A"), ["192.0.2.80"]);
}

/// A server that stops between the look and the answer: nobody knows, and the next attempt finds out.
async fn an_update_without_an_answer_is_unclear_and_the_next_attempt_looks(server: Server) {
    let proxy = Holding::start(server.address).await;
    let mut held = options(&server, ZONE, SECRET);
    held.server = proxy.address;
    let held = Rfc2136::new(held);
    let there = change("shop.example.test.", &["192.0.2.80"], &["198.51.100.80"]);
    let mut hurried = call(7);
    hurried.limit = Duration::from_millis(700);
    let fault = held.ensure_record(&hurried, &there).await.unwrap_err();
    assert_eq!(fault.kind, FaultKind::Unclear, "{fault}");
    proxy.release();
    assert_eq!(held.ensure_record(&call(7), &there).await.unwrap().values, there.to);
    assert_eq!(short(&server, "shop.example.test.", "A"), ["198.51.100.80"]);
}

/// Forwards connections to a server, and holds back the first UPDATE until it is released.
struct Holding {
    address: std::net::SocketAddr,
    held: tokio::sync::watch::Receiver<bool>,
    release: tokio::sync::watch::Sender<bool>,
}

impl Holding {
    async fn start(server: std::net::SocketAddr) -> Self {
        let listener = tokio::net::TcpListener::bind((server.ip(), 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (hold, held) = tokio::sync::watch::channel(false);
        let (release, released) = tokio::sync::watch::channel(false);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let upstream = tokio::net::TcpStream::connect(server).await.unwrap();
                tokio::spawn(forward(client, upstream, hold.clone(), released.clone()));
            }
        });
        Self { address, held, release }
    }

    async fn held(&self) {
        self.held.clone().wait_for(|held| *held).await.unwrap();
    }

    fn release(&self) {
        self.release.send(true).unwrap();
    }
}

async fn forward(
    client: tokio::net::TcpStream,
    upstream: tokio::net::TcpStream,
    hold: tokio::sync::watch::Sender<bool>,
    mut released: tokio::sync::watch::Receiver<bool>,
) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = upstream.into_split();
    tokio::spawn(async move { tokio::io::copy(&mut from_server, &mut to_client).await });
    while let Ok(length) = from_client.read_u16().await {
        let mut message = vec![0; usize::from(length)];
        from_client.read_exact(&mut message).await.unwrap();
        if (message[2] >> 3) & 0x0F == 5 {
            hold.send_replace(true);
            let _ = released.wait_for(|released| *released).await;
        }
        if to_server.write_u16(length).await.is_err() || to_server.write_all(&message).await.is_err() {
            return;
        }
    }
}

/// Someone who sits on the wire and says yes to everything, unsigned or with a signature of their own making.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_yes_without_the_right_signature_is_not_taken() {
    let server = servers::bind(None);
    let there = change("shop.example.test.", &["192.0.2.80"], &["198.51.100.80"]);
    // The second epoch has something to say again: the server took the first one, whoever answered for it.
    for (epoch, flip, wanted) in [(7, false, "the answer is not signed"), (8, true, "its signature is wrong")]
    {
        let liar = lying(server.address, flip).await;
        let mut with = options(&server, ZONE, SECRET);
        with.server = liar;
        let fault = Rfc2136::new(with).ensure_record(&call(epoch), &there).await.unwrap_err();
        assert_eq!(fault.kind, FaultKind::Unclear, "{fault}");
        assert_eq!(fault.detail, format!("{liar} answered, but {wanted}"));
    }
}

/// Forwards a connection, and tampers with the answer to its UPDATE: without its signature, or with a letter
/// of its signature changed.
async fn lying(server: std::net::SocketAddr, flip: bool) -> std::net::SocketAddr {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = tokio::net::TcpListener::bind((server.ip(), 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (client, _) = listener.accept().await.unwrap();
        let (mut from_client, mut to_client) = client.into_split();
        let (mut from_server, mut to_server) =
            tokio::net::TcpStream::connect(server).await.unwrap().into_split();
        tokio::spawn(async move { tokio::io::copy(&mut from_client, &mut to_server).await });
        while let Ok(length) = from_server.read_u16().await {
            let mut message = vec![0; usize::from(length)];
            from_server.read_exact(&mut message).await.unwrap();
            if (message[2] >> 3) & 0x0F == 5 && flip {
                // The last six bytes are the original id, the error and no other data; the MAC is before them.
                let at = message.len() - 10;
                message[at] ^= 1;
            } else if (message[2] >> 3) & 0x0F == 5 {
                message.truncate(12);
                message[4..12].fill(0);
            }
            to_client.write_u16(u16::try_from(message.len()).unwrap()).await.unwrap();
            to_client.write_all(&message).await.unwrap();
        }
    });
    address
}

macro_rules! on_each_server {
    ($($promise:ident),* $(,)?) => {
        mod bind {$(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $promise() { super::$promise(super::servers::bind(None)).await }
        )*}
        mod knot {$(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $promise() { super::$promise(super::servers::knot()).await }
        )*}
        mod powerdns {$(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $promise() { super::$promise(super::servers::powerdns("")).await }
        )*}
    };
}

on_each_server!(
    a_switch_is_visible_and_repeating_it_changes_nothing,
    a_name_is_created_and_changes_kind,
    a_stale_epoch_and_a_foreign_value_are_refused,
    the_server_itself_refuses_the_slower_of_two,
    the_epoch_alone_stops_the_slower_of_two,
    wrong_key_refused_zone_and_dead_server_read_differently,
    an_update_without_an_answer_is_unclear_and_the_next_attempt_looks,
);
