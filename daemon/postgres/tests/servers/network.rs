//! Networks that lose answers, and servers that are none.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use lifeboat_core::sighting::FailureKind;
use lifeboat_engine::ports::{Probe, Role};
use lifeboat_postgres::Options;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::pair::{Single, ask, member, until};

/// A relay to `server` that, while told to, drops what the server sends over connections there were.
async fn relay(server: u16, swallow: Arc<AtomicU64>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        for number in 1.. {
            let Ok((client, _)) = listener.accept().await else { return };
            let Ok(server) = TcpStream::connect(("127.0.0.1", server)).await else { continue };
            let (mut from_client, mut to_client) = client.into_split();
            let (mut from_server, mut to_server) = server.into_split();
            tokio::spawn(async move { tokio::io::copy(&mut from_client, &mut to_server).await });
            let swallow = Arc::clone(&swallow);
            tokio::spawn(async move {
                let mut bytes = vec![0; 65536];
                while let Ok(count @ 1..) = from_server.read(&mut bytes).await {
                    let lost = number <= swallow.load(Ordering::SeqCst);
                    if !lost && to_client.write_all(&bytes[..count]).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    port
}

#[tokio::test]
async fn an_answer_lost_on_its_way_is_silence_and_the_session_is_replaced() {
    let single = Single::start().await;
    let swallow = Arc::new(AtomicU64::new(0));
    let port = relay(single.server.port, Arc::clone(&swallow)).await;
    let member = member(Options { port, ..single.server.options() });
    member.look(&ask(Role::Primary, 1)).await.unwrap();
    // As a firewall that has forgotten the connection: new ones work.
    swallow.store(1, Ordering::SeqCst);
    let mut impatient = ask(Role::Primary, 2);
    impatient.limit = Duration::from_millis(1500);
    let found = member.look(&impatient).await.unwrap_err();
    assert_eq!(found.kind, FailureKind::Silent, "a commit that was acknowledged is not silent: {found}");
    member.look(&impatient).await.unwrap();
}

#[tokio::test]
async fn a_server_that_sends_for_ever_is_hung_up_on() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (sent, closed) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let (count, done) = (Arc::clone(&sent), Arc::clone(&closed));
    tokio::spawn(async move {
        let (mut client, _) = listener.accept().await.unwrap();
        // The header of an error response of 1 GiB, and then its text.
        let mut chunk = vec![b'E', 0x40, 0, 0, 0];
        while client.write_all(&chunk).await.is_ok() {
            count.fetch_add(chunk.len() as u64, Ordering::SeqCst);
            chunk = vec![b'x'; 65536];
        }
        done.store(true, Ordering::SeqCst);
    });
    let single = Single::start().await;
    let member = member(Options { port, ..single.server.options() });
    let found = member.look(&ask(Role::Primary, 1)).await.unwrap_err();
    assert_eq!(found.kind, FailureKind::Malformed, "{found}");
    until("the flood has stopped", async || closed.load(Ordering::SeqCst)).await;
    // What was read, and what the kernel's buffers on both sides took.
    assert!(sent.load(Ordering::SeqCst) < 32 << 20, "{} bytes", sent.load(Ordering::SeqCst));
}

#[tokio::test]
async fn something_else_on_the_port_is_malformed() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let (mut client, _) = listener.accept().await.unwrap();
        client.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
        let _ = client.read(&mut [0; 1024]).await;
    });
    let single = Single::start().await;
    let member = member(Options { port, ..single.server.options() });
    let found = member.look(&ask(Role::Primary, 1)).await.unwrap_err();
    assert_eq!(found.kind, FailureKind::Malformed, "{found}");
}

#[tokio::test]
async fn a_name_that_nobody_knows_is_unreachable() {
    let single = Single::start().await;
    let member = member(Options { host: "no-such-host.invalid".to_owned(), ..single.server.options() });
    let found = member.look(&ask(Role::Primary, 1)).await.unwrap_err();
    assert_eq!(found.kind, FailureKind::Unreachable, "{found}");
}
