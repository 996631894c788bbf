//! What goes wrong, and how it is called: nothing is said to be unwritten that may be written.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::ResourceQuota;
use kube::Api;
use kube::api::{Patch, PatchParams};
use lifeboat_core::testimony::Beat;
use lifeboat_core::{AgentName, Epoch, FaultKind, Record};
use lifeboat_engine::ports::{Call, Coordination as _, CoordinationError};
use serde_json::json;

use crate::cluster::{Cluster, RIGHTS, no_heads, until};
use crate::proxy::Proxy;
use crate::record::{made, of_size, started};
use crate::testimony::said;
use crate::watching::Watch;

#[tokio::test(flavor = "multi_thread")]
async fn an_append_whose_answer_is_lost_is_found_by_reading() {
    let cluster = Cluster::shared().await;
    let namespace = cluster.namespace(RIGHTS).await;
    let proxy = Proxy::to(cluster.address).await;
    let east = namespace.agent_over("east", 60, proxy.address).await;
    let (tenure, _) = started(&east, 2).await;
    for place in 3..6 {
        proxy.lose_an_answer();
        let unclear = east.append(tenure, &made(place..=place), &no_heads()).await;
        assert!(matches!(unclear, Err(CoordinationError::Unclear(_))), "{unclear:?}");
        assert_eq!(east.records(0).await, Ok(made(1..=place)));
        // Said again it is found, not made twice.
        assert_eq!(east.append(tenure, &made(place..=place), &no_heads()).await, Ok(()));
    }
    assert_eq!(proxy.lost(), 3);
    assert_eq!(east.append(tenure, &made(6..=6), &no_heads()).await, Ok(()));
    assert_eq!(east.records(0).await, Ok(made(1..=6)));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_append_that_was_read_as_missing_does_not_come_later() {
    held_back(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nor_does_one_that_nobody_waited_for() {
    held_back(true).await;
}

async fn held_back(given_up: bool) {
    let cluster = Cluster::shared().await;
    let namespace = cluster.namespace(RIGHTS).await;
    let proxy = Proxy::to(cluster.address).await;
    let east = Arc::new(namespace.agent_over("east", 60, proxy.address).await);
    let (tenure, _) = started(&*east, 2).await;
    let before = namespace.maps().await.get("lifeboat-record").await.expect("the end");
    proxy.hold();
    let agent = east.clone();
    let append = tokio::spawn(async move { agent.append(tenure, &made(3..=3), &no_heads()).await });
    until("the append is on its way", || async { (proxy.held() > 0).then_some(()) }).await;
    if given_up {
        append.abort();
        assert!(append.await.is_err_and(|error| error.is_cancelled()));
    } else {
        let unclear = append.await.expect("it ends");
        assert!(matches!(unclear, Err(CoordinationError::Unclear(_))), "{unclear:?}");
    }
    assert_eq!(proxy.held(), 1);
    // The connection of the append is held back for good, and another one is not: what is read goes over that.
    proxy.pass_new_ones();
    assert_eq!(east.records(0).await, Ok(made(1..=2)));
    let settled = namespace.maps().await.get("lifeboat-record").await.expect("the end");
    assert_ne!(settled.metadata.resource_version, before.metadata.resource_version);
    // Now it comes. The API server counts it as a conflict.
    let conflicts = async || {
        let metrics = crate::cluster::metrics(&namespace.admin().await).await;
        let lines = metrics.lines().filter(|line| line.starts_with("apiserver_request_total"));
        let lines = lines.filter(|line| {
            [r#"code="409""#, r#"resource="configmaps""#, r#"verb="PUT""#]
                .iter()
                .all(|part| line.contains(part))
        });
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum::<u64>()
    };
    let earlier = conflicts().await;
    proxy.release();
    until("the late append is refused", || async { (conflicts().await > earlier).then_some(()) }).await;
    assert_eq!(east.records(0).await, Ok(made(1..=2)));
    assert_eq!(east.append(tenure, &[of_size(3, 9)], &no_heads()).await, Ok(()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenure_whose_answer_is_lost_is_had_by_asking_again() {
    let cluster = Cluster::shared().await;
    let namespace = cluster.namespace(RIGHTS).await;
    let proxy = Proxy::to(cluster.address).await;
    let east = namespace.agent_over("east", 60, proxy.address).await;
    assert_eq!(east.records(0).await, Ok(Vec::new()));
    let first = east.campaign().await.expect("nothing is wrong").expect("nobody is there");
    proxy.lose_an_answer();
    let unclear = east.renew(first, Beat { term: first.term, count: 1 }).await;
    assert!(matches!(unclear, Err(CoordinationError::Unclear(_))), "{unclear:?}");
    east.renew(first, Beat { term: first.term, count: 2 }).await.expect("it is still east's");
    east.resign(first).await;
    // It is written, and the answer is lost: nobody else has it, and who asks again has it at once.
    proxy.lose_the_answer_after(2);
    let unclear = east.campaign().await;
    assert!(matches!(unclear, Err(CoordinationError::Unclear(_))), "{unclear:?}");
    let west = namespace.agent("west", 60).await;
    assert_eq!(west.campaign().await, Ok(None));
    let second = east.campaign().await.expect("nothing is wrong").expect("it is east's own");
    assert!(second.term > first.term);
    assert_eq!(east.append(second, &made(1..=1), &no_heads()).await, Ok(()));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_forbidden_is_denied_by_verb_and_resource() {
    let cluster = Cluster::shared().await;
    let whole = r#"["get", "list", "watch", "create", "update", "delete"]"#;
    for (verb, rest) in [
        ("create", r#"["get", "list", "watch", "update", "delete"]"#),
        ("get", r#"["list", "watch", "create", "update", "delete"]"#),
        ("update", r#"["get", "list", "watch", "create", "delete"]"#),
        ("list", r#"["get", "watch", "create", "update", "delete"]"#),
        ("watch", r#"["get", "list", "create", "update", "delete"]"#),
    ] {
        let namespace = cluster.namespace(&RIGHTS.replace(whole, rest)).await;
        let east = namespace.agent("east", 30).await;
        let refused = match verb {
            "list" | "watch" => Watch::of(east, None).end().await,
            _ => {
                let first = east.testify(&said("east", 1)).await;
                let refused = if verb == "update" { east.testify(&said("east", 2)).await } else { first };
                refused.expect_err("it is forbidden")
            }
        };
        let CoordinationError::Denied(text) = refused else { panic!("{verb}: {refused:?}") };
        assert!(text.starts_with(&format!("{verb} configmaps")), "{text}");
        assert!(text.contains(&namespace.name), "{text}");
    }
    // The Lease likewise, and one with another name is none of ours.
    let other = RIGHTS.replace(r#"resourceNames: ["lifeboat"]"#, r#"resourceNames: ["another"]"#);
    let namespace = cluster.namespace(&other).await;
    let refused = namespace.agent("east", 30).await.campaign().await;
    let Err(CoordinationError::Denied(text)) = refused else { panic!("{refused:?}") };
    assert!(text.starts_with("get leases lifeboat"), "{text}");
    // And who the API server does not know is told so.
    let stranger = namespace.stranger().await;
    let refused = stranger.campaign().await;
    assert!(matches!(&refused, Err(CoordinationError::Denied(text)) if text.contains("401")), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_fit_is_full_and_nothing_of_it_is_there() {
    let cluster = Cluster::shared().await;
    let namespace = cluster.namespace(RIGHTS).await;
    let east = namespace.agent("east", 60).await;
    let (tenure, record) = started(&east, 2).await;
    let full = east.append(tenure, &[of_size(3, 600_000), of_size(4, 600_000)], &no_heads()).await;
    assert!(matches!(full, Err(CoordinationError::Full(_))), "{full:?}");
    assert_eq!(east.records(0).await.as_ref(), Ok(&record));
    assert_eq!(east.append(tenure, &[of_size(3, 600_000)], &no_heads()).await, Ok(()));
    // A quota that is used up. There is no controller here that would count it.
    let quotas: Api<ResourceQuota> = Api::namespaced(namespace.admin().await, &namespace.name);
    let quota = json!({ "metadata": { "name": "few" }, "spec": { "hard": { "configmaps": "2" } } });
    let quota = serde_json::from_value(quota).expect("a quota");
    quotas.create(&Default::default(), &quota).await.expect("it is made");
    let counted = json!({ "status": { "hard": { "configmaps": "2" }, "used": { "configmaps": "2" } } });
    quotas.patch_status("few", &PatchParams::default(), &Patch::Merge(counted)).await.expect("it is counted");
    let full = until("the quota is known", || async { east.testify(&said("east", 1)).await.err() }).await;
    assert!(
        matches!(&full, CoordinationError::Full(text) if text.starts_with("create configmaps")),
        "{full:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_server_that_is_down_is_unreachable_and_nothing_was_written() {
    let cluster = Arc::new(Cluster::start(&[]).await);
    let namespace = cluster.namespace(RIGHTS).await;
    let east = namespace.agent("east", 8).await;
    let (tenure, _) = started(&east, 2).await;
    let mut watch = Watch::of(namespace.agent("west", 8).await, None);
    while watch.next().await != lifeboat_engine::ports::Change::CaughtUp {}
    cluster.stop();
    let ended = watch.end().await;
    assert!(matches!(ended, CoordinationError::Unreachable(_)), "{ended:?}");
    // The first may find a connection that was there and is cut; then none is there.
    let _ = east.records(0).await;
    let unreachable = |error: Option<CoordinationError>| {
        assert!(matches!(error, Some(CoordinationError::Unreachable(_))), "{error:?}");
    };
    unreachable(east.records(0).await.err());
    unreachable(east.append(tenure, &made(3..=3), &no_heads()).await.err());
    unreachable(east.renew(tenure, Beat { term: tenure.term, count: 1 }).await.err());
    unreachable(east.campaign().await.err());
    east.resign(tenure).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_write_lease_is_ever_said_to_be_over() {
    let namespace = Cluster::shared().await.namespace(RIGHTS).await;
    let east = namespace.agent("east", 30).await;
    let call = Call {
        run: "shop-e2".into(),
        agent: AgentName::new("east"),
        epoch: Epoch::new(2),
        limit: Duration::from_secs(1),
    };
    let refused =
        east.ensure_expired(&call, &"shop".into(), &"west".into()).await.expect_err("it is refused");
    assert_eq!(refused.kind, FaultKind::Refused);
    assert_eq!(refused.region, Some("west".into()));
    assert!(refused.detail.contains("etcd"), "{}", refused.detail);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_somebody_has_edited_is_damaged() {
    let namespace = Cluster::shared().await.namespace(RIGHTS).await;
    let east = namespace.agent("east", 30).await;
    started(&east, 3).await;
    let maps = namespace.maps().await;
    let second = "record.00000000000000000002";
    let whole = maps.get("lifeboat-record").await.expect("the end");
    let line = |key: &str| whole.data.as_ref().and_then(|data| data.get(key)).cloned();
    for (key, value) in [
        (second, None),
        (second, Some("{}".to_owned())),
        (second, line("record.00000000000000000003")),
        ("format", Some("2".to_owned())),
        ("first", Some("2".to_owned())),
        ("term", Some("many".to_owned())),
    ] {
        let patch = json!({ "data": { key: value } });
        maps.patch("lifeboat-record", &PatchParams::default(), &Patch::Merge(patch)).await.expect("patched");
        let damaged = east.records(0).await;
        assert!(matches!(damaged, Err(CoordinationError::Damaged(_))), "{key} {value:?}: {damaged:?}");
        let patch = json!({ "data": { key: line(key) } });
        maps.patch("lifeboat-record", &PatchParams::default(), &Patch::Merge(patch)).await.expect("patched");
        let records = east.records(0).await.expect("it is whole again");
        assert!(matches!(records[1].record, Record::AgentStarted { .. }) && records == made(1..=3));
    }
}
