//! Requests of a runbook's own.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use lifeboat_core::{Epoch, FaultKind, Moment, RunId, WorkloadName};
use lifeboat_engine::ports::{Call, Errand, Messenger};
use lifeboat_probe::{HttpMessenger, Kit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::server::{LIMIT, Server};

fn call() -> Call {
    let run = RunId::of(&WorkloadName::new("shop"), Epoch::new(3));
    Call { run, agent: "bastion".into(), epoch: Epoch::new(3), limit: LIMIT }
}

async fn send(url: &str, method: &str, body: Option<&str>) -> Result<String, lifeboat_core::Fault> {
    let expect = BTreeSet::from([200, 202]);
    let errand = Errand { method, url, body, expect: &expect };
    let at = Moment::from_millis(1_795_252_486_000);
    HttpMessenger::new(&Kit::new()).send(&call(), at, &errand).await
}

#[tokio::test]
async fn what_is_sent_arrives_and_the_answer_is_kept_on_one_line() {
    let seen = Arc::new(Mutex::new(String::new()));
    let kept = Arc::clone(&seen);
    let server = Server::start(move |mut stream| {
        let kept = Arc::clone(&kept);
        async move {
            let mut text = Vec::new();
            while !String::from_utf8_lossy(&text).contains("the body") {
                let mut part = [0; 1024];
                let read = stream.read(&mut part).await.unwrap();
                text.extend_from_slice(&part[..read]);
            }
            *kept.lock().unwrap() = String::from_utf8(text).unwrap();
            let _ = stream.write_all(b"HTTP/1.1 202 Accepted\r\ncontent-length: 9\r\n\r\nall\nright").await;
        }
    })
    .await;
    let said = send(&format!("http://{}/hook", server.address), "POST", Some("the body")).await;
    assert_eq!(said.unwrap(), "status 202: all right");
    let seen = seen.lock().unwrap();
    assert!(seen.starts_with("POST /hook HTTP/1.1\r\n") && seen.ends_with("\r\n\r\nthe body"), "{seen}");
}

#[tokio::test]
async fn faults_say_what_to_do_next() {
    for (status, kind) in [("404 Not Found", FaultKind::Refused), ("503 Busy", FaultKind::Unclear)] {
        let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n");
        let server = Server::saying(answer).await;
        let fault = send(&format!("http://{}/", server.address), "GET", None).await.unwrap_err();
        assert_eq!(fault.kind, kind, "{fault}");
        assert!(fault.detail.contains("expected 200 or 202"), "{fault}");
    }
    let closed = Server::saying("").await;
    let fault = send(&format!("http://{}/", closed.address), "PUT", None).await.unwrap_err();
    assert_eq!(fault.kind, FaultKind::Unclear, "the request may have arrived: {fault}");
    let nobody = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let fault = send(&format!("http://{nobody}/"), "GET", None).await.unwrap_err();
    assert_eq!(fault.kind, FaultKind::Unreachable, "{fault}");
    assert_eq!(send("no url", "GET", None).await.unwrap_err().kind, FaultKind::Refused);
    assert_eq!(send("http://127.0.0.1:1/", "G T", None).await.unwrap_err().kind, FaultKind::Refused);
}
