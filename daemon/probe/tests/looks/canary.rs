//! The canary, through a DNS server of the test's own.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use hickory_proto::op::{Message, MessageType, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, CNAME};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use lifeboat_core::Moment;
use lifeboat_core::outcome::{Fault, FaultKind, Visit};
use lifeboat_engine::clock::Clock;
use lifeboat_engine::ports::Canary;
use lifeboat_probe::{CanaryOptions, HttpCanary, Kit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UdpSocket;
use tokio::task::JoinHandle;

use crate::server::{LIMIT, Server, call, deserted, ok, read_request};
use crate::tls::Authority;

/// A DNS server that answers with what a closure gives, over UDP.
struct Dns {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

type Datagrams = Vec<Vec<u8>>;

impl Dns {
    async fn raw(answer: impl Fn(&Message) -> Datagrams + Send + 'static) -> Self {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = socket.local_addr().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&asked);
        let task = tokio::spawn(async move {
            let mut buffer = vec![0; 4096];
            while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
                let question = Message::from_vec(&buffer[..length]).unwrap();
                log.lock().unwrap().push(question.queries[0].to_string());
                for datagram in answer(&question) {
                    socket.send_to(&datagram, from).await.unwrap();
                }
            }
        });
        Self { address, asked, task }
    }

    async fn with(answer: impl Fn(&Name, RecordType, &mut Message) + Send + 'static) -> Self {
        Self::raw(move |question| vec![reply(question, &answer)]).await
    }

    fn asked(&self) -> usize {
        self.asked.lock().unwrap().len()
    }
}

impl Drop for Dns {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn reply(question: &Message, answer: &impl Fn(&Name, RecordType, &mut Message)) -> Vec<u8> {
    let mut reply = question.clone().into_response();
    reply.metadata.message_type = MessageType::Response;
    reply.metadata.authoritative = true;
    reply.edns = None;
    let query = &question.queries[0];
    answer(&query.name().clone(), query.query_type(), &mut reply);
    reply.to_vec().unwrap()
}

fn name(text: &str) -> Name {
    Name::from_ascii(text).unwrap()
}

fn a(of: &str, address: [u8; 4]) -> Record {
    Record::from_rdata(name(of), 1, RData::A(A(address.into())))
}

fn alias(of: &str, to: &str) -> Record {
    Record::from_rdata(name(of), 1, RData::CNAME(CNAME(name(to))))
}

async fn visit_url(url: String, dns: Option<&Dns>) -> Result<Visit, Fault> {
    let resolver = dns.map(|dns| dns.address);
    let options =
        CanaryOptions { url, resolver, status: 200, body: Some("served".to_owned()), ca_file: None };
    HttpCanary::new(&options, &Kit::new(), Clock::start()).unwrap().visit(&call()).await
}

async fn visit(server: &Server, dns: &Dns) -> Result<Visit, Fault> {
    visit_url(format!("http://shop.dr.example.com:{}/", server.address.port()), Some(dns)).await
}

#[track_caller]
fn assert_fault(visit: Result<Visit, Fault>, kind: FaultKind, detail: &str) {
    let fault = visit.unwrap_err();
    assert_eq!(fault.kind, kind, "{fault}");
    assert!(fault.detail.contains(detail), "{fault} does not contain {detail:?}");
}

#[tokio::test]
async fn the_name_is_asked_of_the_given_server_each_time() {
    let dns = Dns::with(|_, _, reply| {
        reply.add_answer(a("shop.dr.example.com.", [127, 0, 0, 1]));
    })
    .await;
    let server = Server::start(|mut stream| async move {
        let request = read_request(&mut stream).await;
        assert!(request.contains("host: shop.dr.example.com:"), "{request}");
        let _ = stream.write_all(ok("served").as_bytes()).await;
    })
    .await;
    for asked in 1..=2 {
        let visit = visit(&server, &dns).await.unwrap();
        assert_eq!(visit.address, "127.0.0.1");
        assert!(visit.took <= LIMIT);
        assert_eq!(dns.asked(), asked);
    }
}

#[tokio::test]
async fn it_connects_to_where_the_name_leads_and_nowhere_else() {
    let dns = Dns::with(|_, _, reply| {
        reply.add_answer(a("shop.dr.example.com.", [127, 0, 0, 2]));
    })
    .await;
    let server = Server::saying(ok("served")).await;
    assert_fault(visit(&server, &dns).await, FaultKind::Unreachable, "127.0.0.2");
    assert_eq!(server.seen(), 0);
}

#[tokio::test]
async fn aliases_are_followed_within_an_answer_and_beyond() {
    let dns = Dns::with(|asked, _, reply| {
        if *asked == name("shop.dr.example.com.") {
            reply.add_answer(alias("lb.east.example.com.", "node.east.example.com."));
            reply.add_answer(alias("shop.dr.example.com.", "LB.east.example.com."));
        } else {
            assert_eq!(*asked, name("node.east.example.com."));
            reply.add_answer(a("node.east.example.com.", [127, 0, 0, 1]));
        }
    })
    .await;
    let server = Server::saying(ok("served")).await;
    assert_eq!(visit(&server, &dns).await.unwrap().address, "127.0.0.1");
    assert_eq!(dns.asked(), 2);
}

#[tokio::test]
async fn an_alias_into_a_foreign_zone_is_left_to_the_system() {
    let dns = Dns::with(|asked, _, reply| {
        if *asked == name("shop.dr.example.com.") {
            reply.add_answer(alias("shop.dr.example.com.", "localhost."));
        } else {
            reply.metadata.authoritative = false;
            reply.metadata.response_code = ResponseCode::Refused;
        }
    })
    .await;
    let server = Server::saying(ok("served")).await;
    assert_eq!(visit(&server, &dns).await.unwrap().address, "127.0.0.1");
}

#[tokio::test]
async fn an_alias_loop_is_found_out() {
    let dns = Dns::with(|asked, _, reply| {
        let (here, there) = if *asked == name("shop.dr.example.com.") {
            ("shop.dr.example.com.", "b.dr.example.com.")
        } else {
            ("b.dr.example.com.", "shop.dr.example.com.")
        };
        reply.add_answer(alias(here, there));
    })
    .await;
    let server = Server::saying(ok("served")).await;
    assert_fault(visit(&server, &dns).await, FaultKind::Refused, "aliases");
}

#[tokio::test]
async fn ipv6_is_asked_for_when_there_is_no_ipv4() {
    let dns = Dns::with(|_, kind, reply| {
        if kind == RecordType::AAAA {
            let address = RData::AAAA(AAAA(std::net::Ipv6Addr::LOCALHOST));
            reply.add_answer(Record::from_rdata(name("shop.dr.example.com."), 1, address));
        }
    })
    .await;
    let server = Server::on("[::1]:0".parse().unwrap(), |mut stream| async move {
        read_request(&mut stream).await;
        let _ = stream.write_all(ok("served").as_bytes()).await;
    })
    .await;
    assert_eq!(visit(&server, &dns).await.unwrap().address, "::1");
}

#[tokio::test]
async fn a_truncated_answer_is_asked_for_again_over_tcp() {
    let over_tcp = Server::start(|mut stream| async move {
        let length = stream.read_u16().await.unwrap();
        let mut question = vec![0; usize::from(length)];
        stream.read_exact(&mut question).await.unwrap();
        let question = Message::from_vec(&question).unwrap();
        let answer = reply(&question, &|_: &Name, _, reply: &mut Message| {
            reply.add_answer(a("shop.dr.example.com.", [127, 0, 0, 1]));
        });
        stream.write_u16(u16::try_from(answer.len()).unwrap()).await.unwrap();
        stream.write_all(&answer).await.unwrap();
    })
    .await;
    let socket = UdpSocket::bind(over_tcp.address).await.unwrap();
    tokio::spawn(async move {
        let mut buffer = vec![0; 4096];
        let (length, from) = socket.recv_from(&mut buffer).await.unwrap();
        let question = Message::from_vec(&buffer[..length]).unwrap();
        let answer = reply(&question, &|_: &Name, _, reply: &mut Message| reply.metadata.truncation = true);
        socket.send_to(&answer, from).await.unwrap();
    });
    let server = Server::saying(ok("served")).await;
    let url = format!("http://shop.dr.example.com:{}/", server.address.port());
    let options =
        CanaryOptions { url, resolver: Some(over_tcp.address), status: 200, body: None, ca_file: None };
    let canary = HttpCanary::new(&options, &Kit::new(), Clock::start()).unwrap();
    assert_eq!(canary.visit(&call()).await.unwrap().address, "127.0.0.1");
    assert_eq!(over_tcp.seen(), 1);
}

#[tokio::test]
async fn forged_and_late_datagrams_are_passed_over() {
    let dns = Dns::raw(|question| {
        let mut forged = question.clone();
        forged.metadata.id = !question.metadata.id;
        let forged = reply(&forged, &|_: &Name, _, reply: &mut Message| {
            reply.add_answer(a("shop.dr.example.com.", [127, 0, 0, 9]));
        });
        let mut other = question.clone();
        other.queries[0].set_name(name("other.example.com."));
        let other = reply(&other, &|_: &Name, _, reply: &mut Message| {
            reply.add_answer(a("shop.dr.example.com.", [127, 0, 0, 9]));
        });
        let right = reply(question, &|_: &Name, _, reply: &mut Message| {
            reply.add_answer(a("shop.dr.example.com.", [127, 0, 0, 1]));
        });
        vec![Vec::new(), vec![7], forged, other, right]
    })
    .await;
    let server = Server::saying(ok("served")).await;
    assert_eq!(visit(&server, &dns).await.unwrap().address, "127.0.0.1");
}

#[tokio::test]
async fn faults_say_what_to_do_next() {
    let server = Server::saying(ok("served")).await;
    let garbage =
        Dns::raw(|question| vec![[question.metadata.id.to_be_bytes().as_slice(), &[0xff; 40]].concat()])
            .await;
    assert_fault(visit(&server, &garbage).await, FaultKind::Refused, "no DNS message");
    let silent = Dns::raw(|_| Vec::new()).await;
    assert_fault(visit(&server, &silent).await, FaultKind::Unreachable, "gave no answer within 400 ms");
    let empty = Dns::with(|_, _, _| ()).await;
    assert_fault(visit(&server, &empty).await, FaultKind::Unreachable, "knows no address");
    for (code, kind) in [
        (ResponseCode::NXDomain, FaultKind::Unreachable),
        (ResponseCode::ServFail, FaultKind::Unreachable),
        (ResponseCode::Refused, FaultKind::Refused),
    ] {
        let dns = Dns::with(move |_, _, reply| reply.metadata.response_code = code).await;
        assert_fault(visit(&server, &dns).await, kind, "shop.dr.example.com.");
    }
    let dead = Dns { address: deserted().await, asked: Arc::default(), task: tokio::spawn(async {}) };
    assert_fault(visit(&server, &dead).await, FaultKind::Unreachable, "cannot talk to the DNS server");
    assert_eq!(server.seen(), 0);
}

#[tokio::test]
async fn a_workload_that_answers_wrongly_may_still_be_warming_up() {
    let dns = Dns::with(|_, _, reply| {
        reply.add_answer(a("shop.dr.example.com.", [127, 0, 0, 1]));
    })
    .await;
    let server = Server::saying(ok("starting")).await;
    assert_fault(visit(&server, &dns).await, FaultKind::Unreachable, "127.0.0.1");
    let server = Server::saying("HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n").await;
    assert_fault(visit(&server, &dns).await, FaultKind::Unreachable, "status 503");
    let server = Server::saying("HTTP/1.1 302 No\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n").await;
    assert_fault(visit(&server, &dns).await, FaultKind::Unreachable, "a redirect");
    let server = Server::saying("garbage\r\n\r\n").await;
    assert_fault(visit(&server, &dns).await, FaultKind::Refused, "HTTP/1");
}

#[tokio::test]
async fn without_a_resolver_it_uses_the_systems() {
    let server = Server::saying(ok("served")).await;
    let visit = visit_url(format!("http://localhost:{}/", server.address.port()), None).await.unwrap();
    assert_eq!(visit.address, "127.0.0.1");
}

#[tokio::test]
async fn the_certificate_must_be_for_the_workloads_name() {
    let dns = Dns::with(|_, _, reply| {
        reply.add_answer(a("shop.dr.example.com.", [127, 0, 0, 1]));
    })
    .await;
    let authority = Authority::new();
    // 2026-03-01, when the certificates of these tests are valid.
    let clock = Clock::starting_at(Moment::from_millis(1_772_323_200_000));
    for (certified, good) in [("shop.dr.example.com", true), ("other.example.com", false)] {
        let server = authority.server(certified, ok("served")).await;
        let options = CanaryOptions {
            url: format!("https://shop.dr.example.com:{}/", server.address.port()),
            resolver: Some(dns.address),
            status: 200,
            body: Some("served".to_owned()),
            ca_file: Some(authority.file.path().to_owned()),
        };
        let visit = HttpCanary::new(&options, &Kit::new(), clock).unwrap().visit(&call()).await;
        if good {
            assert_eq!(visit.unwrap().address, "127.0.0.1");
        } else {
            assert_fault(visit, FaultKind::Refused, "for another name");
        }
    }
}
