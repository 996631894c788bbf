//! Who gets in, and by what proof.

use std::fs;
use std::path::PathBuf;

use lifeboat_core::{SystemIdentifier, Timeline};
use lifeboat_postgres::Tls;
use lifeboat_postgres::replication::{Endpoint, Error, Remedy, Replication};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, PKCS_ECDSA_P384_SHA384};

use crate::cluster::Cluster;

const PASSWORD: &str = "open sesame 'ñ'";

async fn guarded(settings: &str) -> Cluster {
    let cluster = Cluster::start(settings).await;
    for (role, kind) in [("scram", "scram-sha-256"), ("md5", "md5"), ("plain", "scram-sha-256")] {
        let quoted = PASSWORD.replace('\'', "''");
        let sql = format!(
            "SET password_encryption = '{kind}'; CREATE ROLE {role} LOGIN REPLICATION PASSWORD '{quoted}'"
        );
        cluster.run(&sql).await;
    }
    cluster
}

fn file(cluster: &Cluster, content: &str) -> PathBuf {
    let path = cluster.folder().join("password");
    fs::write(&path, content).unwrap();
    path
}

fn user(cluster: &Cluster, user: &str, password: &str) -> Endpoint {
    let password_file = Some(file(cluster, password));
    Endpoint { user: user.to_owned(), password_file, ..cluster.endpoint() }
}

#[tokio::test]
async fn every_kind_of_password_is_understood_and_a_wrong_one_is_refused() {
    let cluster = guarded("").await;
    for role in ["scram", "md5", "plain"] {
        let endpoint = user(&cluster, role, PASSWORD);
        let mut connection = Replication::connect(endpoint).await.unwrap();
        let identity = connection.identify().await.unwrap();
        let sql = "SELECT system_identifier FROM pg_control_system()";
        assert_eq!(identity.system.get().to_string(), cluster.value(sql).await);
        assert_eq!(identity.timeline, Timeline::new(1));
        let version = cluster.value("current_setting('server_version_num')").await;
        assert_eq!(identity.server_version_num.to_string(), version);

        let error = Replication::connect(user(&cluster, role, "simsalabim")).await.err().unwrap();
        assert!(
            matches!(&error, Error::Refused { said, .. } if said.sqlstate == "28P01"),
            "{role}: {error:?}"
        );
        assert_eq!(error.remedy(), Remedy::Person);
        assert!(!format!("{error} {error:?}").contains("simsalabim"));
        let without = Endpoint { password_file: None, ..user(&cluster, role, PASSWORD) };
        assert!(matches!(Replication::connect(without).await.err(), Some(Error::Local(_))), "{role}");
    }
}

#[tokio::test]
async fn a_unix_socket_leads_to_it_too() {
    let cluster = Cluster::start("").await;
    let host = cluster.folder().to_str().unwrap().to_owned();
    let mut connection = Replication::connect(Endpoint { host, ..cluster.endpoint() }).await.unwrap();
    assert_eq!(connection.show("wal_segment_size").await.unwrap(), "1MB");
    assert_eq!(connection.show("data_checksums").await.unwrap(), "on");
    // A no does not spoil the connection.
    assert!(matches!(connection.show("no_such_setting").await, Err(Error::Refused { .. })));
    assert!(matches!(connection.show("x; DROP").await, Err(Error::Misuse(_))));
    assert_eq!(connection.show("data_directory_mode").await.unwrap(), "0700");
}

#[tokio::test]
async fn what_is_not_there_or_not_ours_is_named() {
    let mut cluster = Cluster::start("").await;
    let stranger = Endpoint { system: Some(SystemIdentifier::new(7)), ..cluster.endpoint() };
    let error = Replication::connect(stranger).await.err().unwrap();
    assert!(matches!(error, Error::Stranger { expected, .. } if expected.get() == 7), "{error:?}");
    cluster.run("CREATE ROLE nobody LOGIN").await;
    let error = Replication::connect(user(&cluster, "nobody", "x")).await.err().unwrap();
    assert!(matches!(error, Error::Refused { .. }), "{error:?}");
    let endpoint = cluster.endpoint();
    cluster.kill();
    let error = Replication::connect(endpoint).await.err().unwrap();
    assert!(matches!(error, Error::Unreachable { .. }), "{error:?}");
    assert_eq!(error.remedy(), Remedy::Again);
}

#[tokio::test]
async fn over_tls_the_certificate_is_verified_and_the_login_is_bound_to_it() {
    let cluster = guarded("").await;
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    // Its signatures are of SHA-384, so that the digest for the binding is not the usual one.
    let key = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap();
    let authority = CertifiedIssuer::self_signed(params, key).unwrap();
    let key = KeyPair::generate().unwrap();
    let names = vec!["localhost".to_owned()];
    let leaf = CertificateParams::new(names).unwrap().signed_by(&key, &authority).unwrap();
    cluster.put("server.crt", leaf.pem().as_bytes());
    cluster.put("server.key", key.serialize_pem().as_bytes());
    let ca = cluster.folder().join("ca.pem");
    fs::write(&ca, authority.pem()).unwrap();
    let tls = Tls::VerifyFull { ca_file: Some(ca) };
    let endpoint = Endpoint { host: "localhost".to_owned(), tls, ..user(&cluster, "scram", PASSWORD) };

    // A server without TLS is told nothing.
    let error = Replication::connect(endpoint.clone()).await.err().unwrap();
    assert!(matches!(error, Error::Unreachable { .. }), "{error:?}");

    cluster.run("ALTER SYSTEM SET ssl = on").await;
    cluster.value("pg_reload_conf()").await;
    crate::cluster::until("it speaks TLS", async || Replication::connect(endpoint.clone()).await.is_ok())
        .await;
    let mut connection = Replication::connect(endpoint.clone()).await.unwrap();
    connection.identify().await.unwrap();
    let sql = "SELECT count(*) FROM pg_stat_ssl JOIN pg_stat_replication USING (pid) WHERE ssl";
    assert_eq!(cluster.value(sql).await, "1");

    let stranger = Endpoint { host: "127.0.0.1".to_owned(), ..endpoint };
    let error = Replication::connect(stranger).await.err().unwrap();
    assert!(matches!(error, Error::Unreachable { .. }), "{error:?}");
}

#[tokio::test]
async fn a_server_that_is_fenced_can_still_be_copied() {
    let cluster = Cluster::start("").await;
    let mut before = cluster.replication().await;
    let now = before.identify().await.unwrap();
    // As the fence over SQL does it: no new session comes past a library that is not there.
    cluster.run("ALTER SYSTEM SET session_preload_libraries = 'lifeboat_fence'").await;
    cluster.value("pg_reload_conf()").await;
    crate::cluster::until("it is fenced", async || cluster.is_closed().await).await;
    let mut after = cluster.replication().await;
    assert_eq!(after.identify().await.unwrap().system, now.system);
    after.create_slot("archive", false).await.unwrap();
    assert!(after.slot("archive").await.unwrap().is_some());
    after.wal(Some("archive"), now.timeline, now.flushed).await.unwrap();
}
