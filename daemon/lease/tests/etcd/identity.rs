//! Who we are for etcd, and who etcd is for us: certificates and passwords.

use std::path::{Path, PathBuf};

use etcd_client::{Certificate, ConnectOptions, Identity, Permission, TlsOptions};
use lifeboat_engine::ports::{Coordination, CoordinationError};
use lifeboat_lease::etcd::{EtcdOptions, EtcdTls, EtcdUser};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

use crate::agents::{Agent, agent_with, elected, no_heads, options, records};
use crate::servers::{Servers, Setting};

/// Certificates in a folder: two authorities, and for each a server and a client.
struct Papers {
    folder: tempfile::TempDir,
}

impl Papers {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        for authority in ["ours", "theirs"] {
            let key = KeyPair::generate().expect("a key");
            let mut params = CertificateParams::new(Vec::new()).expect("parameters");
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.distinguished_name.push(DnType::CommonName, authority);
            let certificate = params.self_signed(&key).expect("a certificate");
            write(&folder.path().join(format!("{authority}.pem")), &certificate.pem());
            let issuer = Issuer::new(params, key);
            let key = KeyPair::generate().expect("a key");
            let params = CertificateParams::new(["127.0.0.1".to_owned()]).expect("parameters");
            let signed = params.signed_by(&key, &issuer).expect("a certificate");
            write(&folder.path().join(format!("{authority}-leaf.pem")), &signed.pem());
            write(&folder.path().join(format!("{authority}-leaf.key")), &key.serialize_pem());
        }
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).expect("read")
    }

    fn tls(&self, authority: &str, leaf: Option<&str>) -> EtcdTls {
        EtcdTls {
            ca_file: self.path(&format!("{authority}.pem")),
            cert_file: leaf.map(|leaf| self.path(&format!("{leaf}-leaf.pem"))),
            key_file: leaf.map(|leaf| self.path(&format!("{leaf}-leaf.key"))),
        }
    }
}

fn write(path: &Path, text: &str) {
    std::fs::write(path, text).expect("written");
}

#[tokio::test]
async fn certificates_are_checked_on_both_sides() {
    let papers = Papers::new();
    let path = |name: &str| papers.path(name).to_str().expect("text").to_owned();
    let ours = TlsOptions::new()
        .ca_certificate(Certificate::from_pem(papers.text("ours.pem")))
        .identity(Identity::from_pem(papers.text("ours-leaf.pem"), papers.text("ours-leaf.key")));
    let setting = Setting {
        options: vec![
            "--cert-file".to_owned(),
            path("ours-leaf.pem"),
            "--key-file".to_owned(),
            path("ours-leaf.key"),
            "--trusted-ca-file".to_owned(),
            path("ours.pem"),
            "--client-cert-auth".to_owned(),
        ],
        tls: true,
        connect: Some(ConnectOptions::new().with_tls(ours)),
    };
    let servers = Servers::start_with(1, setting).await;
    let agent = |tls: EtcdTls| {
        let options = EtcdOptions { tls: Some(tls), ..options("a", servers.endpoints()) };
        agent_with(servers.folder.path(), options)
    };
    let right = agent(papers.tls("ours", Some("ours")));
    let tenure = elected(&right).await;
    right.append(tenure, &records(1..=1), &no_heads()).await.expect("appended");

    for (who, tls) in [
        ("an authority that has not signed for etcd", papers.tls("theirs", Some("ours"))),
        ("a certificate of somebody else's authority", papers.tls("ours", Some("theirs"))),
        ("no certificate", papers.tls("ours", None)),
    ] {
        let wrong = agent(tls);
        for said in [wrong.records(0).await.map(drop), wrong.campaign().await.map(drop)] {
            assert!(matches!(&said, Err(CoordinationError::Denied(_))), "{who}: {said:?}");
        }
    }
    let missing = agent(EtcdTls { ca_file: papers.path("nowhere.pem"), cert_file: None, key_file: None });
    let said = missing.records(0).await;
    assert!(matches!(&said, Err(CoordinationError::Denied(why)) if why.contains("nowhere.pem")), "{said:?}");
}

/// An etcd that knows the users root and lifeboat, who may use its own keys alone.
async fn guarded() -> Servers {
    let servers = Servers::start(1).await;
    let mut client = servers.client(0).await;
    client.role_add("lifeboat").await.expect("a role");
    let own = Permission::read_write("/lifeboat/test/").with_prefix();
    client.role_grant_permission("lifeboat", own).await.expect("granted");
    for (user, role) in [("root", "root"), ("lifeboat", "lifeboat")] {
        if role == "root" {
            client.role_add("root").await.expect("a role");
        }
        client.user_add(user, "right", None).await.expect("a user");
        client.user_grant_role(user, role).await.expect("granted");
    }
    client.auth_enable().await.expect("enabled");
    servers
}

fn user(servers: &Servers, name: &str, lifeboat: &str, password: &Path) -> Agent {
    let user = EtcdUser { name: name.to_owned(), password_file: password.to_owned() };
    let options =
        EtcdOptions { name: lifeboat.to_owned(), user: Some(user), ..options("a", servers.endpoints()) };
    agent_with(servers.folder.path(), options)
}

#[tokio::test]
async fn a_password_is_read_when_it_is_used_and_a_wrong_one_is_said() {
    let mut servers = guarded().await;
    let password = servers.folder.path().join("password");
    write(&password, "wrong\n");
    let a = user(&servers, "lifeboat", "test", &password);
    for said in [a.records(0).await.map(drop), a.campaign().await.map(drop)] {
        assert!(matches!(&said, Err(CoordinationError::Denied(_))), "{said:?}");
    }
    write(&password, "right\n");
    let tenure = elected(&a).await;
    a.append(tenure, &records(1..=1), &no_heads()).await.expect("appended");

    let nobody = EtcdOptions { user: None, ..options("a", servers.endpoints()) };
    let elsewhere = user(&servers, "lifeboat", "other", &password);
    for wrong in [agent_with(servers.folder.path(), nobody), elsewhere] {
        for said in [wrong.records(0).await.map(drop), wrong.campaign().await.map(drop)] {
            assert!(matches!(&said, Err(CoordinationError::Denied(_))), "{said:?}");
        }
    }
    std::fs::remove_file(&password).expect("removed");
    a.append(tenure, &records(2..=2), &no_heads()).await.expect("who is known already is not asked");

    // Restarted, etcd has forgotten who is who.
    write(&password, "right");
    servers.list[0].kill();
    servers.start_again(0).await;
    crate::agents::eventually("a read", async || a.records(0).await.ok()).await;
    a.append(tenure, &records(3..=3), &no_heads()).await.expect("appended");
}
