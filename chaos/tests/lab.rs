//! The lab without lifeboat: a real pair is lost and promoted by hand, and every acknowledged order is
//! accounted for. What the lab says must be true before it may judge anything else.

#![expect(clippy::unwrap_used, reason = "a test ends where something is not as it must be")]

#[path = "lab/name_server.rs"]
mod name_server;

use std::path::PathBuf;
use std::time::Duration;

use lifeboat_chaos::postgres::Setup;
use lifeboat_chaos::{CanaryOptions, Fault, From, Lab, LabOptions, Region, To, power, process};
use name_server::name_server;

fn options() -> LabOptions {
    LabOptions { chaos: Some(PathBuf::from(env!("CARGO_BIN_EXE_chaos"))), ..LabOptions::default() }
}

async fn until(what: &str, met: impl AsyncFn() -> bool) {
    let wait = async {
        while !met().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), wait).await.unwrap_or_else(|_| panic!("{what}"));
}

/// What `GET /health` of a region's shop answers.
async fn health(lab: &Lab, region: Region) -> u16 {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let door = lab.network().door(To::Shop(region));
    let Ok(mut shop) = tokio::net::TcpStream::connect(door).await else { return 0 };
    let request = b"GET /health HTTP/1.1\r\nhost: shop\r\nconnection: close\r\n\r\n";
    let mut answer = String::new();
    if shop.write_all(request).await.is_err() || shop.read_to_string(&mut answer).await.is_err() {
        return 0;
    }
    answer.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0)
}

#[tokio::test]
async fn a_lost_region_is_promoted_by_hand_and_every_order_is_accounted_for() {
    let lab = Lab::start(options()).await.unwrap();
    let says = name_server(&lab).await;
    assert_eq!((health(&lab, Region::East).await, health(&lab, Region::West).await), (200, 503));
    let reference = lab.reference(Region::East).await.unwrap();
    let canary = lab.canary("hand");
    until("east takes orders", async || canary.look(|ledger| ledger.taken_by(Region::East) >= 100)).await;

    // Orders after the cut are acknowledged by east alone: they must come out as lost.
    lab.cut_replication(Region::West);
    let before = canary.look(|ledger| ledger.taken_by(Region::East));
    until("east goes on alone", async || canary.look(|ledger| ledger.taken_by(Region::East) >= before + 50))
        .await;
    let lost_at = lab.lose(Region::East).unwrap();
    assert_eq!(process::within(&Region::East.folder(lab.folder())).unwrap(), Vec::<i32>::new());
    assert_eq!(health(&lab, Region::East).await, 0);

    lab.promote(Region::West).await.unwrap();
    until("west's shop is well", async || health(&lab, Region::West).await == 200).await;
    *says.lock().unwrap() = Region::West;
    until("west takes orders", async || canary.look(|ledger| ledger.taken_by(Region::West) >= 20)).await;

    let ledger = canary.stop().await;
    let loss = ledger.loss(Region::East, &lab.orders(Region::West).await.unwrap());
    assert!(loss.lost >= 40, "{loss:?}: the orders after the cut are not on west");
    assert!((loss.lost as usize) < ledger.taken_by(Region::East), "{loss:?}: those before it are");
    assert!(loss.rpo_held_ms >= 300, "{loss:?}: 50 orders at one every 10 ms");
    assert!(ledger.first_from(Region::West, lost_at).is_some());
    assert!(
        ledger
            .acknowledged
            .iter()
            .all(|order| order.region != Region::East || order.acknowledged_ms <= lost_at + 50)
    );
    assert_eq!(lab.reference(Region::West).await.unwrap(), reference);
}

#[tokio::test]
async fn with_a_synchronous_standby_nothing_acknowledged_is_lost() {
    let setup = Setup { sync: true, stall: false };
    let lab = Lab::start(LabOptions { setup, ..options() }).await.unwrap();
    let _says = name_server(&lab).await;
    let canary = lab.canary("sync");
    until("east takes orders", async || canary.look(|ledger| ledger.taken_by(Region::East) >= 200)).await;
    lab.lose(Region::East).unwrap();
    lab.promote(Region::West).await.unwrap();
    let ledger = canary.stop().await;
    let loss = ledger.loss(Region::East, &lab.orders(Region::West).await.unwrap());
    assert_eq!((loss.lost, loss.rpo_held_ms), (0, 0));
}

#[tokio::test]
async fn commits_can_hang_while_reads_and_health_go_on() {
    let lab = Lab::start(options()).await.unwrap();
    let _says = name_server(&lab).await;
    lab.break_commits(Region::East).await.unwrap();
    let mut options = CanaryOptions::new("hang", "shop.lab.test.", lab.network().shop, lab.authorities());
    options.every = Duration::from_millis(100);
    let canary = lifeboat_chaos::Canary::start(options);
    until("orders fall silent", async || canary.look(|ledger| ledger.failed.len() >= 3)).await;
    assert_eq!(health(&lab, Region::East).await, 200);
    assert!(canary.look(|ledger| ledger.acknowledged.is_empty()));
    lab.mend_commits(Region::East).await.unwrap();
    until("orders are taken", async || canary.look(|ledger| ledger.taken_by(Region::East) >= 3)).await;
}

#[tokio::test]
async fn a_target_crashes_in_the_middle_of_its_promotion() {
    let lab = Lab::start(options()).await.unwrap();
    lab.crash_on_promotion(Region::West).await.unwrap();
    lab.lose(Region::East).unwrap();
    let failed = lab.promote(Region::West).await.unwrap_err();
    until("west is down", async || lab.orders(Region::West).await.is_err()).await;
    let log = lab.server(Region::West).log_tail();
    assert!(log.contains("received promote request"), "{failed}: {log}");
    assert!(!log.contains("ready to accept connections"), "{log}");
    lab.survive_promotion(Region::West).unwrap();
}

#[tokio::test]
async fn a_frozen_region_is_silent_until_it_is_powered_off_and_then_stays_off() {
    let lab = Lab::start(options()).await.unwrap();
    lab.freeze(Region::East).unwrap();
    let silent = tokio::time::timeout(Duration::from_millis(300), health(&lab, Region::East)).await;
    assert!(silent.is_err(), "{silent:?}");
    assert_eq!(lab.proxy(From::Agent, To::Shop(Region::East)).fault(), Fault::Blackhole);
    let killed = power::off(lab.folder(), Region::East, 2).unwrap();
    assert!(killed.len() >= 3, "the postmaster, its children and the shop: {killed:?}");
    assert_eq!(process::within(&Region::East.folder(lab.folder())).unwrap(), Vec::<i32>::new());
    let refused = lab.restart(Region::East).await.unwrap_err().to_string();
    assert!(refused.contains("powered off"), "{refused}");
    power::on(lab.folder(), Region::East).unwrap();
    lab.restart(Region::East).await.unwrap();
    until("east is back", async || health(&lab, Region::East).await == 200).await;
}

#[tokio::test]
async fn nothing_is_left_of_a_lab() {
    let lab = Lab::start(options()).await.unwrap();
    let folder = lab.folder().to_owned();
    assert!(process::within(&folder).unwrap().len() >= 8);
    drop(lab);
    assert_eq!(process::within(&folder).unwrap(), Vec::<i32>::new());
    assert!(!folder.exists());
}
