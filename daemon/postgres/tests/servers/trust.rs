//! Passwords and certificates.

use std::fs;

use lifeboat_core::sighting::FailureKind;
use lifeboat_engine::ports::{Probe, Role};
use lifeboat_postgres::{Options, Tls};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

use crate::pair::{Single, ask, member};

#[tokio::test]
async fn a_password_comes_from_its_file_and_goes_nowhere_else() {
    let single = Single::start().await;
    let file = single.folder().join("password");
    let options =
        Options { user: "guarded".to_owned(), password_file: Some(file.clone()), ..single.server.options() };
    fs::write(&file, "open sesame\n").unwrap();
    member(options.clone()).look(&ask(Role::Primary, 1)).await.unwrap();

    fs::write(&file, "simsalabim\n").unwrap();
    let found = member(options.clone()).look(&ask(Role::Primary, 2)).await.unwrap_err();
    assert_eq!(found.kind, FailureKind::WrongIdentity, "{found}");
    assert!(found.detail.contains("28P01"), "{found}");
    assert!(!format!("{found} {found:?} {options:?}").contains("simsalabim"));

    fs::remove_file(&file).unwrap();
    let found = member(options).look(&ask(Role::Primary, 3)).await.unwrap_err();
    assert_eq!(found.kind, FailureKind::WrongIdentity, "{found}");
    assert!(found.detail.contains(&*file.to_string_lossy()), "{found}");
}

#[tokio::test]
async fn a_missing_password_file_does_not_end_a_session_that_is_open() {
    let single = Single::start().await;
    let file = single.folder().join("password");
    let options =
        Options { user: "guarded".to_owned(), password_file: Some(file.clone()), ..single.server.options() };
    fs::write(&file, "open sesame\n").unwrap();
    let member = member(options);
    member.look(&ask(Role::Primary, 1)).await.unwrap();
    fs::remove_file(&file).unwrap();
    member.look(&ask(Role::Primary, 2)).await.unwrap();
}

fn authority() -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

#[tokio::test]
async fn the_servers_certificate_and_name_are_verified() {
    let single = Single::start().await;
    let (ours, other) = (authority(), authority());
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(vec!["localhost".to_owned()]).unwrap().signed_by(&key, &ours).unwrap();
    single.server.put("server.crt", &leaf.pem());
    single.server.put("server.key", &key.serialize_pem());

    let (ca, wrong) = (single.folder().join("ca.pem"), single.folder().join("wrong.pem"));
    fs::write(&ca, ours.pem()).unwrap();
    fs::write(&wrong, other.pem()).unwrap();
    let with = |host: &str, ca_file: &std::path::Path| {
        let tls = Tls::VerifyFull { ca_file: Some(ca_file.to_owned()) };
        member(Options { host: host.to_owned(), tls, ..single.server.options() })
    };
    // A server without TLS is not talked to in plain text.
    let found = with("localhost", &ca).look(&ask(Role::Primary, 1)).await.unwrap_err();
    assert_ne!(found.kind, FailureKind::Silent, "{found}");

    single.server.set("ssl", "on").await;
    let encrypted = with("localhost", &ca);
    encrypted.look(&ask(Role::Primary, 2)).await.unwrap();
    let sql = "SELECT bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE application_name = 'lifeboat'";
    assert_eq!(single.server.value(sql).await, "true");

    let found = with("localhost", &wrong).look(&ask(Role::Primary, 3)).await.unwrap_err();
    assert_eq!(found.kind, FailureKind::Certificate, "{found}");
    let found = with("127.0.0.1", &ca).look(&ask(Role::Primary, 4)).await.unwrap_err();
    assert_eq!(found.kind, FailureKind::Certificate, "a certificate for another name: {found}");
    let none = single.folder().join("none.pem");
    let found = with("localhost", &none).look(&ask(Role::Primary, 5)).await.unwrap_err();
    assert!(found.detail.contains("none.pem"), "{found}");
}
