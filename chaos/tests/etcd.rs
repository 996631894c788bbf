//! The lab's etcd: real members, really cut off from each other. What is said of partitions in other tests rests on
//! what is shown here.

#![expect(clippy::unwrap_used, reason = "a test ends where something is not as it must be")]

use std::time::Duration;

use lifeboat_chaos::etcd::Etcd;
use lifeboat_chaos::network::Network;
use lifeboat_chaos::process::{self, Nursery};
use lifeboat_chaos::rules::Rules;
use lifeboat_chaos::{Fault, Place, Site};

/// Dropped first to last: the processes end before their folder goes.
struct Cluster {
    nursery: Nursery,
    etcd: Etcd,
    rules: Rules,
    folder: tempfile::TempDir,
    _network: Network,
}

async fn cluster() -> Cluster {
    let folder = tempfile::tempdir().unwrap();
    let (network, nursery) = (Network::claim().unwrap(), Nursery::open().unwrap());
    let etcd = Etcd::start(&folder.path().canonicalize().unwrap(), &network, &nursery).await.unwrap();
    Cluster { nursery, etcd, rules: Rules::default(), folder, _network: network }
}

impl Cluster {
    fn rule(&self, from: Site, to: Site, fault: Fault) {
        self.rules.set(Place::Site(from), Place::Site(to), fault);
        self.etcd.obey(&self.rules);
    }

    fn cut(&self, one: Site, other: Site, fault: Fault) {
        self.rule(one, other, fault);
        self.rule(other, one, fault);
    }

    /// Waits until each of these says the same leader, one of `allowed`.
    async fn agree(&self, asked: &[Site], allowed: &[Site]) -> Site {
        until("the members agree on a leader", async || {
            let first = self.etcd.leader(asked[0]).await?;
            for site in asked {
                if self.etcd.leader(*site).await? != first {
                    return None;
                }
            }
            allowed.contains(&first).then_some(first)
        })
        .await
    }
}

async fn until<T>(what: &str, met: impl AsyncFn() -> Option<T>) -> T {
    let wait = async {
        loop {
            if let Some(value) = met().await {
                return value;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), wait).await.unwrap_or_else(|_| panic!("{what}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_cut_off_serves_no_linearizable_read_and_is_replaced() {
    let cluster = cluster().await;
    let etcd = &cluster.etcd;
    let old = cluster.agree(&Site::ALL, &Site::ALL).await;
    assert!(etcd.write(old, "k", "1").await);
    let others: Vec<Site> = old.others().collect();
    others.iter().for_each(|other| cluster.cut(old, *other, Fault::Blackhole));
    let new = cluster.agree(&others, &others).await;
    assert!(etcd.write(new, "k", "2").await);
    assert_eq!(etcd.read(new, "k").await, Some(2));
    assert_eq!(etcd.read(old, "k").await, None, "nothing old is told as new");
    assert!(!etcd.write(old, "k", "of nobody").await);

    others.iter().for_each(|other| cluster.cut(old, *other, Fault::None));
    cluster.agree(&Site::ALL, &Site::ALL).await;
    for site in Site::ALL {
        until("the healed members have what was written", async || {
            (etcd.read(site, "k").await? >= 2).then_some(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_only_east_and_west_are_cut_apart_the_quorum_goes_through_the_witness() {
    for fault in [Fault::Blackhole, Fault::Refuse] {
        let cluster = cluster().await;
        let etcd = &cluster.etcd;
        cluster.cut(Site::East, Site::West, fault);
        // Whoever leads, each side has the witness, and one of the two is without a leader or follows through it.
        for (count, through) in [(1, Site::Witness), (2, Site::Witness), (3, Site::Witness)] {
            until("a write through the witness", async || etcd.write(through, "k", "x").await.then_some(()))
                .await;
            until("it can be read there", async || (etcd.read(through, "k").await? >= count).then_some(()))
                .await;
        }
        cluster.cut(Site::East, Site::West, Fault::None);
        let leader = cluster.agree(&Site::ALL, &Site::ALL).await;
        let written = etcd.read(leader, "k").await.unwrap();
        for site in Site::ALL {
            assert_eq!(etcd.read(site, "k").await, Some(written), "{fault:?}: {site} does not agree");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_hears_nobody_is_left_behind_though_it_can_speak() {
    let cluster = cluster().await;
    let etcd = &cluster.etcd;
    let deaf = cluster.agree(&Site::ALL, &Site::ALL).await;
    let others: Vec<Site> = deaf.others().collect();
    others.iter().for_each(|other| cluster.rule(*other, deaf, Fault::Blackhole));
    // What it sends still arrives: as a leader it would be believed, if it did not step down for want of answers.
    let wrote = until("the others take writes without it", async || {
        etcd.write(others[0], "k", "1").await.then_some(etcd.read(others[0], "k").await).flatten()
    })
    .await;
    assert!(wrote >= 1);
    assert_eq!(etcd.read(deaf, "k").await, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_member_comes_back_with_its_data_and_a_frozen_one_wakes_behind() {
    let cluster = cluster().await;
    let etcd = &cluster.etcd;
    let site = cluster.agree(&Site::ALL, &Site::ALL).await;
    etcd.kill(site).unwrap();
    assert_eq!(process::within(&etcd.folder(site)).unwrap(), Vec::<i32>::new());
    assert_eq!(etcd.read(site, "k").await, None);
    let others: Vec<Site> = site.others().collect();
    let new = cluster.agree(&others, &others).await;
    assert!(etcd.write(new, "k", "1").await);
    etcd.restart(site, &cluster.nursery).await.unwrap();
    assert_eq!(etcd.read(site, "k").await, Some(1));

    let leader = cluster.agree(&Site::ALL, &Site::ALL).await;
    etcd.freeze(leader, true).unwrap();
    let others: Vec<Site> = leader.others().collect();
    let new = cluster.agree(&others, &others).await;
    assert!(etcd.write(new, "k", "2").await);
    etcd.freeze(leader, false).unwrap();
    until("the woken one has caught up", async || (etcd.read(leader, "k").await? == 2).then_some(())).await;

    let folder = cluster.folder.path().canonicalize().unwrap();
    drop(cluster.nursery);
    assert_eq!(process::within(&folder).unwrap(), Vec::<i32>::new());
}
