//! Write leases: renewed against the head, proven over only when they are.

use std::sync::Arc;
use std::time::Duration;

use lifeboat_core::head::{Guarded, Head};
use lifeboat_core::outcome::FenceProof;
use lifeboat_core::{Epoch, FaultKind};
use lifeboat_engine::ports::{Change, Coordination, Renewal, Tenure, WriteLeases};
use lifeboat_lease::etcd::{EtcdLeases, expiry_after};

use crate::agents::{Agent, agent, call, east, elected, head, listen, no_heads, options, records, shop};
use crate::servers::{PATIENCE, Servers};

/// Short, so that a test can see its end; long enough for a busy machine to renew it.
const LENGTH: Duration = Duration::from_secs(2);

/// A guardian that has put a head on record, and the sentry of the eastern region.
struct Scene {
    servers: Servers,
    guardian: Agent,
    tenure: Tenure,
    sentry: EtcdLeases,
    newest: u64,
}

async fn scene() -> Scene {
    let servers = Servers::start(1).await;
    let guardian = agent(&servers, "a");
    let tenure = elected(&guardian).await;
    let sentry = EtcdLeases::new(options("sentry", servers.endpoints()));
    Scene { servers, guardian, tenure, sentry, newest: 0 }
}

impl Scene {
    async fn decide(&mut self, head: Head) {
        self.newest += 1;
        let record = records(self.newest..=self.newest);
        self.guardian.append(self.tenure, &record, &shop(head)).await.expect("appended");
    }

    async fn renew(&self, says: Guarded) -> Renewal {
        self.sentry.renew(&"shop".into(), &east(), LENGTH, says).await.expect("etcd answers")
    }

    async fn expired(&self, epoch: u64, limit: Duration) -> Result<FenceProof, lifeboat_core::Fault> {
        self.guardian.ensure_expired(&call(epoch, limit), &"shop".into(), &east()).await
    }
}

fn held(epoch: u64) -> Renewal {
    Renewal::Held { epoch: Epoch::new(epoch) }
}

fn sentry(says: Option<Guarded>) -> Change {
    Change::Sentry { workload: "shop".into(), region: east(), says }
}

#[tokio::test]
async fn a_lease_is_renewed_while_the_head_says_so_and_what_the_sentry_says_is_told_in_any_case() {
    let mut scene = scene().await;
    let mut ear = listen(&scene.guardian, None);
    ear.all_there_is().await;
    assert_eq!(scene.renew(Guarded::Following).await, Renewal::Unknown);
    assert_eq!(ear.next().await, sentry(Some(Guarded::Following)));
    scene.decide(head(1, "east", false)).await;
    assert_eq!(scene.renew(Guarded::Writing).await, held(1));
    ear.until(&sentry(Some(Guarded::Writing))).await;
    // The head changes between two renewals, which the sentry has not seen.
    scene.decide(head(2, "east", true)).await;
    assert_eq!(scene.renew(Guarded::Writing).await, Renewal::NotOurs(head(2, "east", true)));
    scene.decide(head(2, "west", false)).await;
    assert_eq!(scene.renew(Guarded::Stopped).await, Renewal::NotOurs(head(2, "west", false)));
    ear.until(&sentry(Some(Guarded::Stopped))).await;
    scene.decide(head(3, "east", false)).await;
    assert_eq!(scene.renew(Guarded::Following).await, held(3), "and back");
    // It says nothing more.
    ear.until(&sentry(Some(Guarded::Following))).await;
    ear.until(&sentry(None)).await;
    ear.watch.abort();
    let mut again = listen(&scene.guardian, None);
    assert!(again.all_there_is().await.contains(&sentry(None)), "a new watch does not take it for alive");
}

#[tokio::test]
async fn two_renewals_at_once_do_not_pass_a_head_that_closes() {
    let mut scene = scene().await;
    scene.decide(head(1, "east", false)).await;
    let renewals = |value: &[u8]| {
        let value: serde_json::Value = serde_json::from_slice(value).expect("JSON");
        value["renewals"].as_u64().expect("a number")
    };
    let sentry = Arc::new(EtcdLeases::new(options("sentry", scene.servers.endpoints())));
    let renewing = {
        let sentry = Arc::clone(&sentry);
        tokio::spawn(async move {
            let mut held = 0;
            while let Renewal::Held { .. } =
                sentry.renew(&"shop".into(), &east(), LENGTH, Guarded::Writing).await.expect("etcd answers")
            {
                held += 1;
            }
            held
        })
    };
    let mut client = scene.servers.client(0).await;
    let key = "/lifeboat/test/write/shop/east";
    // It is closed while renewals are under way.
    crate::agents::eventually("ten renewals", async || {
        let got = client.clone().get(key, None).await.expect("read");
        got.kvs().first().filter(|kv| renewals(kv.value()) >= 10).map(|_| ())
    })
    .await;
    scene.decide(head(2, "east", true)).await;
    let count = async |client: &mut etcd_client::Client| {
        renewals(client.get(key, None).await.expect("read").kvs()[0].value())
    };
    let closed_at = count(&mut client).await;
    let held = tokio::time::timeout(PATIENCE, renewing).await.expect("it ends").expect("joined");
    assert_eq!(count(&mut client).await, closed_at, "none after the head was closed");
    assert_eq!(held, closed_at, "each that was said to be held was written, and no other");
}

#[tokio::test]
async fn no_lease_is_over_where_none_was_ever_held() {
    let mut scene = scene().await;
    scene.decide(head(2, "east", true)).await;
    let never = scene.expired(2, PATIENCE).await.expect_err("no proof");
    assert_eq!(never.kind, FaultKind::Refused);
    // A sentry of a standby says something there, and holds nothing.
    assert_eq!(scene.renew(Guarded::Following).await, Renewal::NotOurs(head(2, "east", true)));
    let never = scene.expired(2, PATIENCE).await.expect_err("no proof");
    assert_eq!(never.kind, FaultKind::Refused);
    assert!(never.detail.contains("ever held"), "{never}");
}

#[tokio::test]
async fn an_expiry_is_proven_after_the_whole_lease_and_its_margins() {
    let mut scene = scene().await;
    scene.decide(head(1, "east", false)).await;
    let mut ear = listen(&scene.guardian, None);
    ear.all_there_is().await;
    let sent = scene.guardian.clock.now();
    assert_eq!(scene.renew(Guarded::Writing).await, held(1));
    ear.until(&sentry(Some(Guarded::Writing))).await;

    let open = scene.expired(1, PATIENCE).await.expect_err("it can be renewed");
    assert_eq!(open.kind, FaultKind::Refused);
    scene.decide(head(2, "east", true)).await;
    let early = scene.expired(2, Duration::from_millis(300)).await.expect_err("too early");
    assert_eq!(early.kind, FaultKind::Unclear);
    let stale = scene.expired(1, PATIENCE).await.expect_err("an old epoch");
    assert_eq!(stale.kind, FaultKind::Stale);

    let proof = scene.expired(2, PATIENCE).await.expect("a proof");
    let took = scene.guardian.clock.now().since(sent);
    assert!(took >= expiry_after(LENGTH), "{took:?}");
    assert!(expiry_after(LENGTH) > LENGTH);
    let FenceProof::Expired { lease, waited } = proof else { panic!("{proof:?}") };
    assert_eq!(lease, LENGTH);
    assert!(waited >= expiry_after(LENGTH) && waited <= took, "{waited:?} of {took:?}");
}

#[tokio::test]
async fn who_has_not_watched_counts_from_its_own_beginning() {
    let mut scene = scene().await;
    scene.decide(head(1, "east", false)).await;
    assert_eq!(scene.renew(Guarded::Writing).await, held(1));
    scene.decide(head(2, "west", false)).await;
    scene.guardian.clock.sleep_until(scene.guardian.clock.now() + expiry_after(LENGTH)).await;
    // It was made long ago, and this agent cannot know that.
    let newcomer = agent(&scene.servers, "b");
    let begun = newcomer.clock.now();
    newcomer.ensure_expired(&call(2, PATIENCE), &"shop".into(), &east()).await.expect("a proof");
    let took = newcomer.clock.now().since(begun);
    assert!(took >= expiry_after(LENGTH), "{took:?}");
}

#[tokio::test]
async fn a_lease_that_is_renewed_meanwhile_is_not_over() {
    let mut scene = scene().await;
    scene.decide(head(1, "east", false)).await;
    assert_eq!(scene.renew(Guarded::Writing).await, held(1));
    scene.decide(head(2, "east", true)).await;
    let guardian = scene.guardian.clone();
    let proving = tokio::spawn(async move {
        let proof = guardian.ensure_expired(&call(3, PATIENCE), &"shop".into(), &east()).await;
        (proof, guardian.clock.now())
    });
    // Nobody watches; the region is opened, renews once, and is closed again, while the proof waits.
    let half = scene.guardian.clock.now() + LENGTH / 2;
    scene.guardian.clock.sleep_until(half).await;
    scene.decide(head(3, "east", false)).await;
    let sent = scene.guardian.clock.now();
    assert_eq!(scene.renew(Guarded::Writing).await, held(3));
    scene.decide(head(3, "east", true)).await;
    let (proof, at) = proving.await.expect("joined");
    proof.expect("a proof in the end");
    assert!(at.since(sent) >= expiry_after(LENGTH), "{:?} after the last renewal", at.since(sent));
}

#[tokio::test]
async fn a_lease_is_not_over_while_a_promise_stands() {
    let mut scene = scene().await;
    scene.decide(head(1, "east", false)).await;
    assert_eq!(scene.renew(Guarded::Writing).await, held(1));
    scene.decide(head(2, "east", true)).await;
    let until = scene.guardian.clock.now() + 2 * expiry_after(LENGTH);
    scene.guardian.promises.note(&"shop".into(), &east(), until);
    let early = scene.expired(2, expiry_after(LENGTH)).await.expect_err("promised");
    assert_eq!(early.kind, FaultKind::Unclear);
    scene.expired(2, PATIENCE).await.expect("a proof");
    assert!(scene.guardian.clock.now() > until);
}

#[tokio::test]
async fn nothing_is_proven_while_etcd_cannot_be_asked() {
    let mut scene = scene().await;
    scene.decide(head(1, "east", false)).await;
    assert_eq!(scene.renew(Guarded::Writing).await, held(1));
    scene.decide(head(2, "east", true)).await;
    assert!(scene.expired(2, Duration::from_millis(100)).await.is_err());
    scene.servers.list[0].kill();
    let after = scene.guardian.clock.now() + expiry_after(LENGTH);
    scene.guardian.clock.sleep_until(after).await;
    let silent = scene.expired(2, Duration::from_millis(500)).await.expect_err("no proof");
    assert_eq!(silent.kind, FaultKind::Unreachable);
    scene.servers.start_again(0).await;
    scene.expired(2, PATIENCE).await.expect("the time has passed, and now it can be read");
    let next = scene.guardian.append(scene.tenure, &records(3..=3), &no_heads()).await;
    next.expect("the tenure outlived the restart");
}

#[tokio::test]
async fn what_no_sentry_could_have_written_proves_nothing() {
    let mut scene = scene().await;
    scene.decide(head(1, "east", false)).await;
    assert_eq!(scene.renew(Guarded::Writing).await, held(1));
    scene.decide(head(2, "east", true)).await;
    let mut ear = listen(&scene.guardian, None);
    ear.until(&Change::CaughtUp).await;
    let mut client = scene.servers.client(0).await;
    for garbage in [b"{}".to_vec(), vec![b'1'; 1_000_000]] {
        client.put("/lifeboat/test/write/shop/east", garbage, None).await.expect("put");
        ear.until(&sentry(None)).await;
        let fault = scene.expired(2, PATIENCE).await.expect_err("no proof");
        assert_eq!(fault.kind, FaultKind::Unclear);
    }
    // The sentry writes again, and its time is counted from there.
    let sent = scene.guardian.clock.now();
    scene.decide(head(3, "east", false)).await;
    assert_eq!(scene.renew(Guarded::Writing).await, held(3));
    scene.decide(head(3, "east", true)).await;
    scene.expired(3, PATIENCE).await.expect("a proof");
    assert!(scene.guardian.clock.now().since(sent) >= expiry_after(LENGTH));
}

/// The sentry of a region that comes leaves its database alone for the length of a lease: that counts like one.
#[tokio::test]
async fn a_region_that_was_spared_is_not_over_before_a_whole_lease() {
    for spare in ["coming", "tended"] {
        let mut scene = scene().await;
        let mut ear = listen(&scene.guardian, None);
        ear.all_there_is().await;
        scene.decide(head(1, "east", false)).await;
        assert_eq!(scene.renew(Guarded::Writing).await, held(1));
        scene.decide(head(2, "west", false)).await;
        scene.expired(2, PATIENCE).await.expect("it was held once, long ago");

        let named = Some(east());
        let spared = match spare {
            "coming" => Head { coming: named, ..head(3, "west", false) },
            _ => Head { tended: named, ..head(3, "west", false) },
        };
        scene.decide(spared.clone()).await;
        let open = scene.expired(3, PATIENCE).await.expect_err("its sentry leaves it alone");
        assert_eq!(open.kind, FaultKind::Refused);
        let sent = scene.guardian.clock.now();
        assert_eq!(scene.renew(Guarded::Following).await, Renewal::NotOurs(spared));
        scene.decide(head(4, "west", false)).await;
        scene.expired(4, PATIENCE).await.expect("a proof in the end");
        let took = scene.guardian.clock.now().since(sent);
        assert!(took >= expiry_after(LENGTH), "{spare}: {took:?}");
    }
}

/// A database that was promoted while its sentry heard nothing may go on for the length of a lease.
#[tokio::test]
async fn a_region_that_was_just_named_is_not_over_before_a_whole_lease() {
    let mut scene = scene().await;
    let mut ear = listen(&scene.guardian, None);
    ear.all_there_is().await;
    scene.decide(head(1, "east", false)).await;
    assert_eq!(scene.renew(Guarded::Writing).await, held(1));
    scene.decide(head(2, "west", false)).await;
    scene.expired(2, PATIENCE).await.expect("it was held once, long ago");
    let named = scene.guardian.clock.now();
    scene.decide(head(3, "east", false)).await;
    scene.decide(head(4, "east", true)).await;
    scene.expired(4, PATIENCE).await.expect("a proof in the end");
    let took = scene.guardian.clock.now().since(named);
    assert!(took >= expiry_after(LENGTH), "{took:?}");
}

/// A renewal that gets no answer leaves the sentry on the longer one that a process before it was granted.
#[tokio::test]
async fn a_shorter_length_is_written_when_one_was_answered() {
    let mut scene = scene().await;
    scene.decide(head(1, "east", false)).await;
    assert_eq!(scene.renew(Guarded::Writing).await, held(1));
    let mut client = scene.servers.client(0).await;
    let mut written = async || {
        let got = client.get("/lifeboat/test/write/shop/east", None).await.expect("read");
        let value: serde_json::Value = serde_json::from_slice(got.kvs()[0].value()).expect("JSON");
        Duration::from_millis(value["length"].as_u64().expect("a number"))
    };
    assert_eq!(written().await, LENGTH);
    let next = EtcdLeases::new(options("sentry", scene.servers.endpoints()));
    for length in [LENGTH, LENGTH / 4] {
        let renewed = next.renew(&"shop".into(), &east(), LENGTH / 4, Guarded::Writing).await;
        assert_eq!(renewed.expect("etcd answers"), held(1));
        assert_eq!(written().await, length);
    }
}
