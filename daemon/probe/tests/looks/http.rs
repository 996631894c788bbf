//! HTTP answers that a healthy or an ill application gives.

use std::net::{Ipv6Addr, SocketAddr};

use lifeboat_core::sighting::FailureKind;
use lifeboat_probe::HttpOptions;
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc;

use crate::server::{Server, assert_answered, assert_failed, deserted, http, http_body, ok, read_request};

#[tokio::test]
async fn the_expected_status_is_enough() {
    let server = Server::saying("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
    assert_answered(http(HttpOptions::new(server.url("/health"))).await);
    let server = Server::saying("HTTP/1.1 204 No Content\r\n\r\n").await;
    assert_answered(http(HttpOptions { status: 204, ..HttpOptions::new(server.url("/")) }).await);
}

#[tokio::test]
async fn another_status_is_a_wrong_answer() {
    let server = Server::saying("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n").await;
    let look = http(HttpOptions::new(server.url("/"))).await;
    assert_failed(look, FailureKind::WrongAnswer, "status 503, expected 200");
}

#[tokio::test]
async fn the_body_must_contain_the_text() {
    let server = Server::saying(ok("all is ok here")).await;
    assert_answered(http_body(server.url("/"), "is ok").await);
    assert_failed(
        http_body(server.url("/"), "is fine").await,
        FailureKind::WrongAnswer,
        "does not contain \"is fine\"",
    );
    assert_answered(http_body(server.url("/"), "").await);
}

#[tokio::test]
async fn the_text_is_found_across_chunks_and_without_a_length() {
    let chunked =
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nall\r\n4\r\n is \r\n3\r\nok!\r\n0\r\n\r\n";
    let server = Server::saying(chunked).await;
    assert_answered(http_body(server.url("/"), "l is ok").await);
    let server = Server::saying("HTTP/1.0 200 OK\r\n\r\nall is ok").await;
    assert_answered(http_body(server.url("/"), "all is ok").await);
    assert_failed(http_body(server.url("/"), "fine").await, FailureKind::WrongAnswer, "9 bytes");
}

#[tokio::test]
async fn the_request_is_small_and_names_the_host() {
    let (heard, mut requests) = mpsc::channel(1);
    let server = Server::start(move |mut stream| {
        let heard = heard.clone();
        async move {
            heard.send(read_request(&mut stream).await).await.unwrap();
            stream.write_all(ok("").as_bytes()).await.unwrap();
        }
    })
    .await;
    assert_answered(http(HttpOptions::new(server.url("/a?b=c"))).await);
    let request = requests.recv().await.unwrap();
    assert!(request.starts_with("GET /a?b=c HTTP/1.1\r\n"), "{request}");
    assert!(request.contains(&format!("host: {}\r\n", server.address)), "{request}");
    assert!(request.contains("connection: close\r\n"), "{request}");
    let named =
        HttpOptions { host: Some("shop.example.com".to_owned()), ..HttpOptions::new(server.url("/")) };
    assert_answered(http(named).await);
    assert!(requests.recv().await.unwrap().contains("host: shop.example.com\r\n"));
}

#[tokio::test]
async fn ipv6_is_reached() {
    let address = SocketAddr::from((Ipv6Addr::LOCALHOST, 0));
    let server = Server::on(address, |mut stream| async move {
        read_request(&mut stream).await;
        let _ = stream.write_all(ok("six").as_bytes()).await;
    })
    .await;
    assert_answered(http_body(server.url("/"), "six").await);
}

#[tokio::test]
async fn every_address_of_a_name_is_tried() {
    // "localhost" is ::1 and 127.0.0.1, in whichever order; this one listens on one of them.
    let server = Server::saying(ok("")).await;
    let url = format!("http://localhost:{}/", server.address.port());
    assert_answered(http(HttpOptions::new(url)).await);
}

#[tokio::test]
async fn nobody_listens() {
    let look = http(HttpOptions::new(format!("http://{}/", deserted().await))).await;
    assert_failed(look, FailureKind::Refused, "cannot connect to 127.0.0.1:");
    // All addresses of the name refuse.
    let look = http(HttpOptions::new(format!("http://localhost:{}/", deserted().await.port()))).await;
    assert_failed(look, FailureKind::Refused, "cannot connect to");
}

#[tokio::test]
async fn a_name_that_does_not_exist_is_unreachable() {
    let look = http(HttpOptions::new("http://nowhere.invalid/")).await;
    assert_failed(look, FailureKind::Unreachable, "nowhere.invalid was not resolved");
}

fn redirect(to: &str) -> String {
    format!("HTTP/1.1 302 Found\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n")
}

#[tokio::test]
async fn redirects_are_followed_as_often_as_allowed() {
    let end = Server::saying(ok("the end")).await;
    let second = Server::saying(redirect(&end.url("/"))).await;
    let first = Server::saying(redirect(&second.url("/x"))).await;
    let options = HttpOptions { body: Some("the end".to_owned()), ..HttpOptions::new(first.url("/")) };
    assert_answered(http(HttpOptions { redirects: 2, ..options.clone() }).await);
    let look = http(HttpOptions { redirects: 1, ..options.clone() }).await;
    assert_failed(look, FailureKind::WrongAnswer, "1 redirects are allowed");
    assert_failed(http(options).await, FailureKind::WrongAnswer, "status 302, a redirect to");
    assert_eq!((first.seen(), second.seen(), end.seen()), (3, 2, 1));
}

#[tokio::test]
async fn a_redirect_may_be_the_expected_answer() {
    let server = Server::saying(redirect("https://shop.example.com/")).await;
    assert_answered(
        http(HttpOptions { status: 302, redirects: 5, ..HttpOptions::new(server.url("/")) }).await,
    );
}

#[tokio::test]
async fn a_redirect_loop_is_found_out() {
    let server = Server::saying(redirect("/")).await;
    let look = http(HttpOptions { redirects: 10, ..HttpOptions::new(server.url("/")) }).await;
    assert_failed(look, FailureKind::WrongAnswer, "redirects in a loop");
    assert_eq!(server.seen(), 1);
    let server = Server::saying(redirect("/b")).await;
    let look = http(HttpOptions { redirects: 10, ..HttpOptions::new(server.url("/a")) }).await;
    assert_failed(look, FailureKind::WrongAnswer, "redirects in a loop");
    assert_eq!(server.seen(), 2);
}

#[tokio::test]
async fn a_redirect_to_nowhere_is_a_failure() {
    let server = Server::saying("HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n").await;
    let look = http(HttpOptions { redirects: 3, ..HttpOptions::new(server.url("/")) }).await;
    assert_failed(look, FailureKind::WrongAnswer, "without saying where to");
    let server = Server::saying(redirect("ftp://a.example/")).await;
    let look = http(HttpOptions { redirects: 3, ..HttpOptions::new(server.url("/")) }).await;
    assert_failed(look, FailureKind::Malformed, "neither http nor https");
}
