//! HTTPS, with certificates that are good, and bad in each way.

use std::sync::Arc;

use lifeboat_core::Moment;
use lifeboat_core::sighting::{FailureKind, Look};
use lifeboat_probe::{HttpOptions, HttpProbe, Kit, SetupError};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd};
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tempfile::NamedTempFile;
use tokio::io::AsyncWriteExt;
use tokio_rustls::TlsAcceptor;

use crate::server::{Server, assert_answered, assert_failed, look_at, ok, read_request};

const DAY: u64 = 86_400_000;

/// 2026-07-01T00:00:00Z, when the certificates of these tests expire.
const EXPIRES: u64 = 1_782_864_000_000;

/// A certificate authority with its file of anchors.
pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    pub(crate) file: NamedTempFile,
}

impl Authority {
    pub(crate) fn new() -> Self {
        Self::named("the test's own authority")
    }

    fn named(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let file = NamedTempFile::new().unwrap();
        std::fs::write(file.path(), issuer.pem()).unwrap();
        Self { issuer, file }
    }

    /// A server with a certificate for `name`, valid in the first half of 2026, that answers `answer`.
    pub(crate) async fn server(&self, name: &str, answer: String) -> Server {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.not_before = date_time_ymd(2026, 1, 1);
        params.not_after = date_time_ymd(2026, 7, 1);
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let acceptor = acceptor(certificate.der().clone(), &key);
        let answer = Arc::new(answer);
        Server::start(move |stream| {
            let (acceptor, answer) = (acceptor.clone(), Arc::clone(&answer));
            async move {
                let Ok(mut stream) = acceptor.accept(stream).await else { return };
                read_request(&mut stream).await;
                let _ = stream.write_all(answer.as_bytes()).await;
                let _ = stream.shutdown().await;
            }
        })
        .await
    }

    fn options(&self, server: &Server) -> HttpOptions {
        let url = format!("https://{}/", server.address);
        HttpOptions { ca_file: Some(self.file.path().to_owned()), ..HttpOptions::new(url) }
    }
}

fn acceptor(certificate: CertificateDer<'static>, key: &KeyPair) -> TlsAcceptor {
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    TlsAcceptor::from(Arc::new(config))
}

/// One look, so many days before the certificate expires.
async fn look_days_before(options: &HttpOptions, days: u64) -> Look {
    let probe = HttpProbe::new(options, &Kit::new()).unwrap();
    look_at(&probe, Moment::from_millis(EXPIRES - days * DAY)).await
}

#[tokio::test]
async fn a_good_certificate_is_taken() {
    let authority = Authority::new();
    let server = authority.server("127.0.0.1", ok("secure")).await;
    let options = HttpOptions { body: Some("secure".to_owned()), ..authority.options(&server) };
    assert_answered(look_days_before(&options, 60).await);
    let missing = HttpOptions { body: Some("absent".to_owned()), ..options };
    assert_failed(look_days_before(&missing, 60).await, FailureKind::WrongAnswer, "does not contain");
}

#[tokio::test]
async fn a_certificate_that_expires_soon_is_a_failure() {
    let authority = Authority::new();
    let server = authority.server("127.0.0.1", ok("")).await;
    let options = authority.options(&server);
    let look = look_days_before(&options, 3).await;
    assert_failed(look, FailureKind::Certificate, "valid for 3 more days, at least 14 are expected");
    assert_answered(look_days_before(&options, 14).await);
    assert_failed(look_days_before(&options, 13).await, FailureKind::Certificate, "13 more days");
    assert_answered(look_days_before(&HttpOptions { certificate_days: 3, ..options.clone() }, 3).await);
    assert_answered(look_days_before(&HttpOptions { certificate_days: 0, ..options }, 1).await);
}

#[tokio::test]
async fn each_bad_certificate_says_what_is_wrong() {
    let authority = Authority::new();
    let server = authority.server("127.0.0.1", ok("")).await;
    let options = authority.options(&server);
    let kit = Kit::new();
    let probe = HttpProbe::new(&options, &kit).unwrap();
    let expired = look_at(&probe, Moment::from_millis(EXPIRES + 2 * DAY)).await;
    assert_failed(expired, FailureKind::Certificate, "has expired, 2 days ago");
    // The same probe sees each certificate anew.
    assert_answered(look_at(&probe, Moment::from_millis(EXPIRES - 60 * DAY)).await);
    let early = look_at(&probe, Moment::from_millis(EXPIRES - 300 * DAY)).await;
    assert_failed(early, FailureKind::Certificate, "not valid yet");

    let named = HttpOptions { host: Some("shop.example.com".to_owned()), ..options.clone() };
    let look = look_days_before(&named, 60).await;
    assert_failed(look, FailureKind::Certificate, "for another name: expected shop.example.com, got");

    let stranger = Authority::named("a stranger");
    let untrusted = HttpOptions { ca_file: Some(stranger.file.path().to_owned()), ..options.clone() };
    let look = look_days_before(&untrusted, 60).await;
    assert_failed(look, FailureKind::Certificate, "not signed by a trusted authority");
}

#[tokio::test]
async fn the_systems_anchors_do_not_trust_a_stranger() {
    let authority = Authority::new();
    let server = authority.server("127.0.0.1", ok("")).await;
    let options = HttpOptions { ca_file: None, ..authority.options(&server) };
    let look = look_days_before(&options, 60).await;
    assert_failed(look, FailureKind::Certificate, "not signed by a trusted authority");
}

#[tokio::test]
async fn the_host_header_names_the_certificate() {
    let authority = Authority::new();
    let server = authority.server("shop.example.com", ok("")).await;
    let named = HttpOptions { host: Some("shop.example.com:8443".to_owned()), ..authority.options(&server) };
    assert_answered(look_days_before(&named, 60).await);
    let look = look_days_before(&authority.options(&server), 60).await;
    assert_failed(look, FailureKind::Certificate, "for another name");
}

#[tokio::test]
async fn a_redirect_into_https_is_followed() {
    let authority = Authority::new();
    let server = authority.server("127.0.0.1", ok("")).await;
    let to = format!("https://{}/", server.address);
    let plain =
        Server::saying(format!("HTTP/1.1 301 Moved\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n")).await;
    let options = HttpOptions { url: plain.url("/"), redirects: 1, ..authority.options(&server) };
    assert_answered(look_days_before(&options, 60).await);
    assert_failed(look_days_before(&options, 3).await, FailureKind::Certificate, "3 more days");
}

#[tokio::test]
async fn a_server_without_tls_is_malformed() {
    let authority = Authority::new();
    let server = Server::start(|mut stream| async move {
        let _ = stream.write_all(b"220 mail.example.com ESMTP\r\n").await;
        read_request(&mut stream).await;
    })
    .await;
    assert_failed(look_days_before(&authority.options(&server), 60).await, FailureKind::Malformed, "TLS");
}

#[test]
fn trust_anchors_that_cannot_be_used_are_found_at_start() {
    let options = |path: &std::path::Path| HttpOptions {
        ca_file: Some(path.to_owned()),
        ..HttpOptions::new("https://127.0.0.1/")
    };
    let probe = |path: &std::path::Path| HttpProbe::new(&options(path), &Kit::new()).map(drop);
    let folder = tempfile::tempdir().unwrap();
    assert!(matches!(probe(&folder.path().join("absent")), Err(SetupError::ReadAnchors { .. })));
    assert!(matches!(probe(folder.path()), Err(SetupError::ReadAnchors { .. })));
    let file = NamedTempFile::new().unwrap();
    assert!(matches!(probe(file.path()), Err(SetupError::NoAnchors { .. })));
    std::fs::write(file.path(), "-----BEGIN CERTIFICATE-----\n%%%\n-----END CERTIFICATE-----\n").unwrap();
    assert!(matches!(probe(file.path()), Err(SetupError::ParseAnchors { .. })));
    // A probe that needs none does not read them.
    let plain = HttpOptions { url: "http://127.0.0.1/".to_owned(), ..options(folder.path()) };
    assert!(HttpProbe::new(&plain, &Kit::new()).is_ok());
}
