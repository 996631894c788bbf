//! The canary against a little DNS server and little shops, all real sockets.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use axum::Router;
use axum::http::StatusCode;
use axum::routing::post;
use hickory_proto::op::{Message, OpCode};
use hickory_proto::rr::{RData, Record, rdata::A};
use tokio::net::{TcpListener, UdpSocket};

use super::*;
use crate::region::Region;
use crate::shop::REGION_HEADER;

struct Dns {
    address: SocketAddr,
    last: Arc<AtomicU32>,
    asked: Arc<AtomicUsize>,
}

/// A DNS server whose one name says 127.0.0.`last`, with a TTL in seconds.
async fn dns(last: u8, ttl: u32) -> Dns {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let server = Dns {
        address: socket.local_addr().unwrap(),
        last: Arc::new(AtomicU32::new(last.into())),
        asked: Arc::default(),
    };
    let (last, asked) = (Arc::clone(&server.last), Arc::clone(&server.asked));
    tokio::spawn(async move {
        let mut buffer = [0; 512];
        while let Ok((count, from)) = socket.recv_from(&mut buffer).await {
            let question = Message::from_vec(&buffer[..count]).unwrap();
            asked.fetch_add(1, Ordering::SeqCst);
            let mut answer = Message::response(question.metadata.id, OpCode::Query);
            let name = question.queries[0].name().clone();
            answer.add_query(question.queries[0].clone());
            let address = Ipv4Addr::new(127, 0, 0, u8::try_from(last.load(Ordering::SeqCst)).unwrap());
            answer.add_answer(Record::from_rdata(name, ttl, RData::A(A(address))));
            socket.send_to(&answer.to_vec().unwrap(), from).await.unwrap();
        }
    });
    server
}

/// A shop of a region which acknowledges everything, on 127.0.0.`last`.
async fn shop(last: u8, port: u16, region: Region, status: StatusCode) -> (u16, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind((Ipv4Addr::new(127, 0, 0, last), port)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let router = Router::new()
        .route("/orders", post(move || async move { (status, [(REGION_HEADER, region.name())]) }));
    (port, tokio::spawn(async move { axum::serve(listener, router).await.unwrap() }))
}

async fn until(canary: &Canary, met: impl Fn(&Ledger) -> bool) {
    let wait = async {
        while !canary.look(&met) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), wait).await.expect("the canary gets there");
}

fn options(port: u16, dns: &Dns) -> CanaryOptions {
    CanaryOptions::new("t", "shop.lab.test.", port, [dns.address])
}

#[tokio::test]
async fn every_order_is_written_down_once_and_half_of_them_are_pooled() {
    let dns = dns(41, 60).await;
    let (port, _shop) = shop(41, 0, Region::East, StatusCode::CREATED).await;
    let canary = Canary::start(options(port, &dns));
    until(&canary, |ledger| ledger.acknowledged.len() >= 20).await;
    let ledger = canary.stop().await;
    let ids: std::collections::HashSet<_> = ledger.acknowledged.iter().map(|order| &order.id).collect();
    assert_eq!(ids.len(), ledger.acknowledged.len());
    let pooled = ledger.acknowledged.iter().filter(|order| order.way == Way::Pooled).count();
    assert!(pooled * 2 + 2 >= ids.len() && pooled < ids.len(), "{pooled} of {}", ids.len());
    assert!(ledger.acknowledged.iter().all(|order| order.region == Region::East));
    assert_eq!(dns.asked.load(Ordering::SeqCst), 1, "the answer was kept for its TTL");
}

#[tokio::test]
async fn it_follows_dns_after_the_ttl_and_an_answer_that_is_not_201_is_no_acknowledgement() {
    let dns = dns(42, 1).await;
    let (port, _refusing) = shop(42, 0, Region::East, StatusCode::SERVICE_UNAVAILABLE).await;
    let (_, _taking) = shop(43, port, Region::West, StatusCode::CREATED).await;
    let canary = Canary::start(options(port, &dns));
    until(&canary, |ledger| ledger.failed.len() >= 5).await;
    assert!(canary.look(|ledger| ledger.acknowledged.is_empty()));
    dns.last.store(43, Ordering::SeqCst);
    let moved = now_ms();
    until(&canary, |ledger| ledger.taken_by(Region::West) > 0).await;
    let ledger = canary.stop().await;
    assert!(ledger.first_from(Region::West, 0).unwrap().acknowledged_ms <= moved + 1500);
    assert!(ledger.failed.iter().all(|order| order.failure == Failure::Refused));
}

#[tokio::test]
async fn a_silent_shop_does_not_stop_the_cadence() {
    let dns = dns(44, 60).await;
    // Accepted by the kernel, never answered.
    let silent = TcpListener::bind("127.0.0.44:0").await.unwrap();
    let mut options = options(silent.local_addr().unwrap().port(), &dns);
    options.timeout = Duration::from_millis(300);
    options.in_flight = 10;
    let canary = Canary::start(options);
    until(&canary, |ledger| ledger.failed.len() >= 10 && ledger.missed_beats >= 10).await;
    assert!(canary.stop().await.failed.iter().all(|order| order.failure == Failure::Silent));
}

#[tokio::test]
async fn a_dead_shop_and_a_dead_name_are_told_apart() {
    let dns = dns(45, 60).await;
    let canary = Canary::start(options(1, &dns));
    until(&canary, |ledger| !ledger.failed.is_empty()).await;
    assert_eq!(canary.stop().await.failed[0].failure, Failure::Connection);
    let nobody = UdpSocket::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let canary = Canary::start(CanaryOptions::new("t", "shop.lab.test.", 1, [nobody]));
    until(&canary, |ledger| !ledger.failed.is_empty()).await;
    assert_eq!(canary.stop().await.failed[0].failure, Failure::Name);
}
