//! Servers that would keep a careless client for ever, or fill its memory.

use std::time::Duration;

use lifeboat_core::sighting::FailureKind;
use lifeboat_probe::HttpOptions;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::interval;

use crate::server::{Server, assert_answered, assert_failed, http, http_body, read_request};
use crate::tls::Authority;

/// What the kernel's buffers of a loopback connection may take (`tcp_wmem` and `tcp_rmem` are 4 and 6 MiB),
/// beside the little that the probe reads.
const BUFFERED: u64 = 16 << 20;

const BIG: &str = "HTTP/1.1 200 OK\r\nContent-Length: 1073741824\r\n\r\n";

#[tokio::test]
async fn a_gigabyte_of_body_is_not_read() {
    let (server, mut flood) = Server::flooding(BIG, "x").await;
    let look = http_body(server.url("/"), "needle").await;
    assert_failed(look, FailureKind::WrongAnswer, "65536 bytes of it were looked at");
    assert!(flood.sent().await < BUFFERED);
}

#[tokio::test]
async fn a_body_nobody_asked_about_is_not_read() {
    let (server, mut flood) = Server::flooding(BIG, "x").await;
    assert_answered(http(HttpOptions::new(server.url("/"))).await);
    assert!(flood.sent().await < BUFFERED);
}

#[tokio::test]
async fn an_endless_stream_is_left_when_the_text_was_seen() {
    let (server, mut flood) = Server::flooding("HTTP/1.1 200 OK\r\n\r\n", "data: tick\n").await;
    assert_answered(http_body(server.url("/"), "tick").await);
    assert!(flood.sent().await < BUFFERED);
    let look = http_body(server.url("/"), "tock").await;
    assert_failed(look, FailureKind::WrongAnswer, "65536 bytes of it were looked at");
}

#[tokio::test]
async fn a_gigabyte_of_headers_is_too_much() {
    let (server, mut flood) = Server::flooding("HTTP/1.1 200 OK\r\n", "X-A: 0123456789\r\n").await;
    assert_failed(http(HttpOptions::new(server.url("/"))).await, FailureKind::Malformed, "HTTP/1");
    assert!(flood.sent().await < BUFFERED);
}

#[tokio::test]
async fn one_header_of_a_gigabyte_is_too_much() {
    let (server, mut flood) = Server::flooding("HTTP/1.1 200 OK\r\nX-A: ", "0123456789").await;
    assert_failed(http(HttpOptions::new(server.url("/"))).await, FailureKind::Malformed, "HTTP/1");
    assert!(flood.sent().await < BUFFERED);
}

#[tokio::test]
async fn a_chunk_with_endless_extensions_is_too_much() {
    let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;";
    let (server, mut flood) = Server::flooding(head, "0123456789").await;
    assert_failed(http_body(server.url("/"), "needle").await, FailureKind::Malformed, "");
    assert!(flood.sent().await < BUFFERED);
}

#[tokio::test]
async fn chunks_that_are_no_chunks_are_malformed() {
    let server = Server::saying("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nhello\r\n").await;
    assert_failed(http_body(server.url("/"), "hello").await, FailureKind::Malformed, "");
}

#[tokio::test]
async fn endless_interim_answers_end_with_the_limit() {
    let (server, mut flood) =
        Server::flooding("HTTP/1.1 100 Continue\r\n\r\n", "HTTP/1.1 100 Continue\r\n\r\n").await;
    assert_failed(http(HttpOptions::new(server.url("/"))).await, FailureKind::Silent, "no complete status");
    assert!(flood.sent().await < 1 << 30);
}

#[tokio::test]
async fn a_drip_is_silence() {
    let server = Server::start(|mut stream| async move {
        read_request(&mut stream).await;
        let mut tick = interval(Duration::from_millis(50));
        for byte in "HTTP/1.1 200 OK\r\nX-Slow: yes yes yes yes yes yes yes yes yes yes".bytes() {
            tick.tick().await;
            if stream.write_all(&[byte]).await.is_err() {
                return;
            }
        }
    })
    .await;
    assert_failed(http(HttpOptions::new(server.url("/"))).await, FailureKind::Silent, "within 400 ms");
}

#[tokio::test]
async fn a_dripping_body_is_silence() {
    let server = Server::start(|mut stream| async move {
        read_request(&mut stream).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n").await;
        let mut tick = interval(Duration::from_millis(50));
        while stream.write_all(b".").await.is_ok() {
            tick.tick().await;
        }
    })
    .await;
    assert_failed(http_body(server.url("/"), "ok").await, FailureKind::Silent, "status and headers came");
}

#[tokio::test]
async fn a_server_that_says_nothing_is_silent() {
    let server = Server::start(|mut stream| async move {
        // Until the probe hangs up.
        let mut all = Vec::new();
        let _ = stream.read_to_end(&mut all).await;
    })
    .await;
    assert_failed(http(HttpOptions::new(server.url("/"))).await, FailureKind::Silent, "no complete status");
    let mut secure = HttpOptions::new(format!("https://{}/", server.address));
    let authority = Authority::new();
    secure.ca_file = Some(authority.file.path().to_owned());
    assert_failed(http(secure).await, FailureKind::Silent, "TLS handshake");
}

#[tokio::test]
async fn garbage_is_malformed() {
    for garbage in [
        "\u{0}\u{1}\u{2}\u{3}\r\n\r\n",
        "SSH-2.0-OpenSSH_9.2\r\n",
        "HTTP/1.1 9999 What\r\n\r\n",
        "\r\n\r\n<html>",
    ] {
        let server = Server::saying(garbage).await;
        assert_failed(http(HttpOptions::new(server.url("/"))).await, FailureKind::Malformed, "HTTP/1");
    }
}

#[tokio::test]
async fn a_connection_that_is_closed_early_has_no_answer() {
    let server = Server::saying("").await;
    assert_failed(
        http(HttpOptions::new(server.url("/"))).await,
        FailureKind::Refused,
        "before there was an answer",
    );
    let server = Server::saying("HTTP/1.1 200 OK\r\nContent-Len").await;
    assert_failed(
        http(HttpOptions::new(server.url("/"))).await,
        FailureKind::Refused,
        "before there was an answer",
    );
    let server = Server::saying("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort").await;
    assert_failed(http_body(server.url("/"), "ok").await, FailureKind::Malformed, "");
}

#[tokio::test]
async fn a_reset_is_a_refusal() {
    // Closing a socket with unread data in it resets the connection.
    let server = Server::start(|mut stream| async move {
        let _ = stream.read_u8().await;
        let _ = stream.set_zero_linger();
    })
    .await;
    assert_failed(http(HttpOptions::new(server.url("/"))).await, FailureKind::Refused, "");
}
