//! The three sites of a lab, without lifeboat: what is cut off is cut off for everything of a site, what is frozen is
//! frozen as one, and a part that dies or hangs leaves the rest of its site alone.

#![expect(clippy::unwrap_used, reason = "a test ends where something is not as it must be")]

use std::path::PathBuf;
use std::time::Duration;

use lifeboat_chaos::holdout::Holdout;
use lifeboat_chaos::{Fault, From, Lab, LabOptions, Part, Place, Region, Site, To, process};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

async fn lab() -> Lab {
    let chaos = Some(PathBuf::from(env!("CARGO_BIN_EXE_chaos")));
    Lab::start(LabOptions { chaos, sites: true, ..LabOptions::default() }).await.unwrap()
}

async fn until(what: &str, met: impl AsyncFn() -> bool) {
    let wait = async {
        while !met().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), wait).await.unwrap_or_else(|_| panic!("{what}"));
}

/// Whether a witness of the connection says hello to a site within half a second.
async fn greeted(lab: &Lab, from: Site) -> bool {
    let path = lab.network().path(From::Site(from), To::Witness(0));
    let hello = async { TcpStream::connect(path).await.ok()?.read_u8().await.ok() };
    matches!(tokio::time::timeout(Duration::from_millis(500), hello).await, Ok(Some(_)))
}

/// Whether the path from a site to a member of etcd answers HTTP within half a second.
async fn asked(lab: &Lab, from: Site, to: Site) -> bool {
    let path = lab.network().path(From::Site(from), To::Etcd(to));
    let answer = async {
        let mut stream = TcpStream::connect(path).await.ok()?;
        let request = b"GET /version HTTP/1.0\r\n\r\n";
        tokio::io::AsyncWriteExt::write_all(&mut stream, request).await.ok()?;
        stream.read_u8().await.ok()
    };
    matches!(tokio::time::timeout(Duration::from_millis(500), answer).await, Ok(Some(_)))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_site_that_is_cut_off_reaches_nobody_and_its_clients_still_reach_it() {
    let lab = lab().await;
    let holdout = Holdout::start(&lab.login_at(Region::East), "near", Region::East).await.unwrap();
    for from in Site::ALL {
        assert!(greeted(&lab, from).await);
        for to in Site::ALL {
            assert!(asked(&lab, from, to).await, "{from} to {to}");
        }
    }

    lab.isolate(Site::East, Fault::Blackhole);
    assert!(!greeted(&lab, Site::East).await && greeted(&lab, Site::Witness).await);
    assert!(asked(&lab, Site::East, Site::East).await, "within a place nothing is cut");
    assert!(!asked(&lab, Site::East, Site::West).await && !asked(&lab, Site::West, Site::East).await);
    assert!(asked(&lab, Site::Witness, Site::West).await);
    until("the two others elect without it", async || {
        lab.etcd().leader(Site::West).await.is_some_and(|leader| leader != Site::East)
    })
    .await;
    assert_eq!(lab.etcd().read(Site::East, "k").await, None, "its member is alone");
    let before = holdout.look(|told| told.acknowledged.len());
    until("a client near it writes", async || holdout.look(|told| told.acknowledged.len()) > before + 50)
        .await;
    let newest = "SELECT max(id) FROM entry WHERE load = 'near'";
    let west = lab.server(Region::West).connect("lifeboat").await.unwrap();
    // None, when it was cut off before the first came over.
    let copied: Option<i64> = west.query_one(newest, &[]).await.unwrap().get(0);
    let copied = copied.unwrap_or_default();
    assert!(copied < i64::try_from(before).unwrap() + 40, "the standby follows a region that is cut off");

    lab.heal();
    until("all agree", async || {
        let leaders = [lab.etcd().leader(Site::East).await, lab.etcd().leader(Site::West).await];
        leaders[0].is_some() && leaders[0] == leaders[1]
    })
    .await;
    until("the standby follows again", async || {
        west.query_one(newest, &[]).await.unwrap().get::<_, Option<i64>>(0) > Some(copied + 50)
    })
    .await;

    lab.between(Place::Site(Site::East), Place::Site(Site::West), Fault::Refuse);
    assert!(!asked(&lab, Site::East, Site::West).await && asked(&lab, Site::East, Site::Witness).await);
    assert!(greeted(&lab, Site::East).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_site_freezes_wakes_and_dies_as_one_and_its_parts_alone() {
    let lab = lab().await;
    let holdout = Holdout::start(&lab.login_at(Region::East), "near", Region::East).await.unwrap();
    let written = || holdout.look(|told| told.acknowledged.len());
    until("it writes", async || written() > 50).await;

    // The member alone: the database does not notice.
    assert_eq!(lab.suspend(Site::East, Part::Etcd).unwrap().len(), 1);
    let before = written();
    until("it writes on", async || written() > before + 50).await;
    assert_eq!(lab.etcd().read(Site::East, "k").await, None);
    lab.resume(Site::East, Part::Etcd).unwrap();
    until("the member is back", async || lab.etcd().read(Site::East, "k").await.is_some()).await;

    // All of it: nothing is acknowledged, and nothing is lost by it.
    lab.freeze_site(Site::East).unwrap();
    let stopped = process::within(&Site::East.folder(lab.folder())).unwrap();
    assert!(stopped.len() >= 8, "a host, a shop, a member and a database: {stopped:?}");
    for pid in stopped {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        assert!(stat.rsplit_once(") ").unwrap().1.starts_with('T'), "{stat}");
    }
    assert_eq!(lab.etcd().read(Site::East, "k").await, None);
    until("the others have a leader", async || lab.etcd().read(Site::West, "k").await.is_some()).await;
    let frozen = written();
    lab.thaw_site(Site::East).unwrap();
    until("it writes on", async || written() > frozen + 50).await;

    // The database alone, by kill -9; then the rest.
    assert!(!lab.kill(Site::East, Part::Database).unwrap().is_empty());
    until("its client's session ends", async || holdout.look(|told| told.ended.is_some())).await;
    assert!(lab.etcd().read(Site::East, "k").await.is_some());
    lab.power_off(Site::East).unwrap();
    assert_eq!(process::within(&Site::East.folder(lab.folder())).unwrap(), Vec::<i32>::new());
    assert!(!asked(&lab, Site::West, Site::East).await);
    assert!(lab.etcd().read(Site::Witness, "k").await.is_some());
}
