//! TCP probes and witnesses.

use std::net::{Ipv4Addr, SocketAddr};

use lifeboat_core::sighting::FailureKind;
use lifeboat_engine::ports::Witness;
use lifeboat_probe::{Kit, SetupError, TcpProbe, TcpWitness};
use tokio::net::{TcpSocket, TcpStream};

use crate::server::{LIMIT, Server, assert_answered, assert_failed, deserted, look};

/// A listener whose queue is full: further connections are neither accepted nor refused.
struct Clogged {
    address: SocketAddr,
    _listener: tokio::net::TcpListener,
    _waiting: Vec<TcpStream>,
}

impl Clogged {
    async fn new() -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap();
        let listener = socket.listen(1).unwrap();
        let address = listener.local_addr().unwrap();
        let mut waiting = Vec::new();
        while let Ok(Ok(stream)) = tokio::time::timeout(LIMIT / 2, TcpStream::connect(address)).await {
            waiting.push(stream);
        }
        Self { address, _listener: listener, _waiting: waiting }
    }
}

#[tokio::test]
async fn an_accepted_connection_is_an_answer() {
    let server = Server::start(|stream| async move { drop(stream) }).await;
    let kit = Kit::new();
    assert_answered(look(&TcpProbe::new(&server.address.to_string(), &kit).unwrap()).await);
    let by_name = format!("localhost:{}", server.address.port());
    assert_answered(look(&TcpProbe::new(&by_name, &kit).unwrap()).await);
    let witness = TcpWitness::new(&by_name, &kit).unwrap();
    assert!(witness.answers(LIMIT).await);
    assert_eq!(witness.name(), by_name);
}

#[tokio::test]
async fn a_refusal_is_a_failure_and_no_witness() {
    let nobody = deserted().await.to_string();
    assert_failed(look(&TcpProbe::new(&nobody, &Kit::new()).unwrap()).await, FailureKind::Refused, &nobody);
    assert!(!TcpWitness::new(&nobody, &Kit::new()).unwrap().answers(LIMIT).await);
}

#[tokio::test]
async fn swallowed_packets_are_silence() {
    let clogged = Clogged::new().await;
    let address = clogged.address.to_string();
    let probe = TcpProbe::new(&address, &Kit::new()).unwrap();
    assert_failed(look(&probe).await, FailureKind::Silent, "no connection to");
    assert!(!TcpWitness::new(&address, &Kit::new()).unwrap().answers(LIMIT).await);
}

#[test]
fn addresses_that_are_none_are_refused() {
    for bad in ["localhost", "::1:53", "host:99999", ""] {
        assert!(matches!(TcpProbe::new(bad, &Kit::new()), Err(SetupError::Address { .. })), "{bad}");
        assert!(matches!(TcpWitness::new(bad, &Kit::new()), Err(SetupError::Address { .. })), "{bad}");
    }
}
