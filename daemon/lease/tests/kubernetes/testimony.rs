//! What vantages say: under their own seal, newest in the place of older.

use std::collections::BTreeMap;

use kube::api::{Patch, PatchParams};
use lifeboat_core::AgentName;
use lifeboat_core::testimony::{Beat, Testimony};
use lifeboat_engine::ports::{Change, Coordination as _};
use serde_json::json;

use crate::cluster::{Cluster, RIGHTS};
use crate::watching::Watch;

pub(crate) fn said(vantage: &str, sequence: u64) -> Testimony {
    let echo = Some(Beat { term: 1, count: sequence });
    Testimony { vantage: AgentName::new(vantage), sequence, echo, connected: true, regions: BTreeMap::new() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_testimony_is_told_and_its_end_too() {
    let namespace = Cluster::shared().await.namespace(RIGHTS).await;
    let (east, west) = (namespace.agent("east", 3).await, namespace.agent("West.1", 3).await);
    west.testify(&said("West.1", 1)).await.expect("it is said");
    let mut watch = Watch::of(east, None);
    assert_eq!(watch.next().await, Change::Testimony(said("West.1", 1)));
    assert_eq!(watch.next().await, Change::CaughtUp);
    for sequence in 2..=4 {
        west.testify(&said("West.1", sequence)).await.expect("it is said");
        assert_eq!(watch.next().await, Change::Testimony(said("West.1", sequence)));
    }
    // A label is no sign of life.
    let maps = namespace.maps().await;
    let patch = json!({ "metadata": { "labels": { "colour": "green" } } });
    maps.patch("lifeboat-testimony.576573742e31", &PatchParams::default(), &Patch::Merge(patch))
        .await
        .expect("it is patched");
    assert_eq!(watch.next().await, Change::Silent(AgentName::new("West.1")));
    west.testify(&said("West.1", 5)).await.expect("it is said");
    assert_eq!(watch.next().await, Change::Testimony(said("West.1", 5)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_testimony_that_its_vantage_did_not_seal_is_forged() {
    let namespace = Cluster::shared().await.namespace(RIGHTS).await;
    let (east, west) = (namespace.agent("east", 30).await, namespace.agent("west", 30).await);
    let mut watch = Watch::of(east, None);
    assert_eq!(watch.next().await, Change::CaughtUp);
    // Of another, under its own seal.
    west.testify(&said("north", 1)).await.expect("it is written");
    assert!(matches!(watch.next().await, Change::Forged { vantage, .. } if vantage.as_str() == "north"));
    // Changed after it was sealed.
    west.testify(&said("west", 1)).await.expect("it is said");
    assert_eq!(watch.next().await, Change::Testimony(said("west", 1)));
    let text = serde_json::to_string(&said("west", 9)).expect("JSON");
    let patch = json!({ "data": { "testimony": text } });
    let maps = namespace.maps().await;
    maps.patch("lifeboat-testimony-west", &PatchParams::default(), &Patch::Merge(patch))
        .await
        .expect("patched");
    assert!(matches!(watch.next().await, Change::Forged { vantage, .. } if vantage.as_str() == "west"));
    // Its vantage says the next one all the same.
    west.testify(&said("west", 2)).await.expect("it is said");
    assert_eq!(watch.next().await, Change::Testimony(said("west", 2)));
    // A true one in another's place.
    let mut copy = maps.get("lifeboat-testimony-west").await.expect("it is there");
    copy.metadata.name = Some("lifeboat-testimony-south".to_owned());
    copy.metadata.resource_version = None;
    copy.metadata.uid = None;
    maps.create(&Default::default(), &copy).await.expect("it is made");
    assert!(matches!(watch.next().await, Change::Forged { vantage, .. } if vantage.as_str() == "west"));
}
