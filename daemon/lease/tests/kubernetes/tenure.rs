//! Who decides: one at a time, and another one only after a whole tenure of silence.

use std::time::Duration;

use futures::future::join_all;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use lifeboat_core::testimony::Beat;
use lifeboat_engine::ports::{Coordination as _, CoordinationError, Tenure};
use serde_json::json;
use tokio::time::Instant;

use crate::cluster::{Cluster, RIGHTS, no_heads, until};
use crate::record::{made, started};

#[tokio::test(flavor = "multi_thread")]
async fn of_eight_who_want_the_tenure_one_gets_it() {
    let namespace = Cluster::shared().await.namespace(RIGHTS).await;
    let names: Vec<String> = (0..8).map(|number| format!("agent-{number}")).collect();
    let agents = join_all(names.iter().map(|name| namespace.agent(name, 30))).await;
    let mut terms = Vec::new();
    for round in 1..=5 {
        let answers = join_all(agents.iter().map(|agent| agent.campaign())).await;
        let won: Vec<(usize, Tenure)> = (0..)
            .zip(answers)
            .filter_map(|(number, answer)| answer.expect("nothing is wrong").map(|tenure| (number, tenure)))
            .collect();
        let [(winner, tenure)] = won[..] else { panic!("round {round}: {won:?}") };
        terms.push(tenure.term);
        let holder = namespace.lease().await.spec.and_then(|spec| spec.holder_identity).expect("a holder");
        assert!(holder.starts_with(&format!("agent-{winner}_")), "{holder}");
        agents[winner].resign(tenure).await;
        assert_eq!(namespace.lease().await.spec.and_then(|spec| spec.holder_identity), None);
    }
    assert!(terms.is_sorted_by(|one, next| one < next), "a term is never given twice: {terms:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_guardian_is_followed_after_its_tenure_and_not_before() {
    let namespace = Cluster::shared().await.namespace(RIGHTS).await;
    let (east, west) = (namespace.agent("east", 4).await, namespace.agent("west", 4).await);
    let first = east.campaign().await.expect("nothing is wrong").expect("nobody is there");
    assert_eq!(west.campaign().await, Ok(None));
    // It is renewed for longer than it would last, and west sees that.
    let began = Instant::now();
    let mut count = 0;
    let mut renewed = Instant::now();
    while began.elapsed() < Duration::from_secs(6) {
        count += 1;
        renewed = Instant::now();
        east.renew(first, Beat { term: first.term, count }).await.expect("it is east's");
        assert_eq!(west.campaign().await, Ok(None), "after {:?}", began.elapsed());
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    let second =
        until("west takes over", || async { west.campaign().await.expect("nothing is wrong") }).await;
    assert!(renewed.elapsed() >= Duration::from_secs(4), "after {:?}", renewed.elapsed());
    assert!(second.term > first.term);
    // Whatever east believes of itself, it is over.
    let late = east.renew(first, Beat { term: first.term, count: count + 1 }).await;
    assert!(matches!(late, Err(CoordinationError::Deposed(_))), "{late:?}");
    let late = east.append(first, &made(1..=1), &no_heads()).await;
    assert!(matches!(late, Err(CoordinationError::Deposed(_))), "{late:?}");
    assert_eq!(west.records(0).await, Ok(Vec::new()));
    // And giving it back does not take it from west.
    east.resign(first).await;
    west.renew(second, Beat { term: second.term, count: 1 }).await.expect("it is west's");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_holders_clock_is_of_no_consequence() {
    let namespace = Cluster::shared().await.namespace(RIGHTS).await;
    let (east, west) = (namespace.agent("east", 20).await, namespace.agent("west", 20).await);
    let tenure = east.campaign().await.expect("nothing is wrong").expect("nobody is there");
    // As if east's clock were a year behind: whoever compared it would take the tenure at once.
    let long_ago = Timestamp::now() - Duration::from_secs(365 * 24 * 3600);
    let patch = json!({ "spec": { "renewTime": format!("{long_ago:.6}") } });
    let leases = namespace.leases().await;
    leases.patch("lifeboat", &PatchParams::default(), &Patch::Merge(patch)).await.expect("it is patched");
    assert_eq!(west.campaign().await, Ok(None));
    assert_eq!(west.campaign().await, Ok(None));
    // Somebody else's change of the object does not cost east the tenure.
    east.renew(tenure, Beat { term: tenure.term, count: 1 }).await.expect("it is still east's");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_term_does_not_begin_again_when_the_lease_is_deleted() {
    let namespace = Cluster::shared().await.namespace(RIGHTS).await;
    let (east, west) = (namespace.agent("east", 30).await, namespace.agent("west", 30).await);
    let (first, _) = started(&east, 3).await;
    namespace.leases().await.delete("lifeboat", &Default::default()).await.expect("it is deleted");
    let late = east.renew(first, Beat { term: first.term, count: 1 }).await;
    assert!(matches!(late, Err(CoordinationError::Deposed(_))), "{late:?}");
    let second = west.campaign().await.expect("nothing is wrong").expect("nobody is there");
    assert!(second.term > first.term, "{second:?} after {first:?}");
    let late = east.append(first, &made(4..=4), &no_heads()).await;
    assert!(matches!(late, Err(CoordinationError::Deposed(_))), "{late:?}");
    assert_eq!(west.records(0).await, Ok(made(1..=3)));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_cannot_write_the_record_does_not_keep_the_tenure_from_others() {
    // It may read the record, and have the Lease, and that is all.
    let whole = r#"["get", "list", "watch", "create", "update", "delete"]"#;
    assert!(RIGHTS.contains(whole), "the rights are written in another way");
    let shared = Cluster::shared().await;
    let namespace = shared.namespace(&RIGHTS.replace(whole, r#"["get", "list", "watch"]"#)).await;
    let east = namespace.agent("east", 30).await;
    for _ in 0..2 {
        let refused = east.campaign().await;
        assert!(matches!(refused, Err(CoordinationError::Denied(_))), "{refused:?}");
        assert_eq!(namespace.lease().await.spec.and_then(|spec| spec.holder_identity), None);
    }
}
