//! The record: one, whoever appends, and whole, however long.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use futures::future::join_all;
use kube::ResourceExt as _;
use kube::api::{ListParams, Patch, PatchParams};
use lifeboat_core::head::Head;
use lifeboat_core::{AgentName, Epoch, Moment, Record, Stamped, WorkloadName};
use lifeboat_engine::ports::{Coordination, CoordinationError, Tenure};
use serde_json::json;

use crate::cluster::{Cluster, RIGHTS, no_heads};

/// A record at that place, with that many letters in it.
pub(crate) fn of_size(sequence: u64, letters: usize) -> Stamped {
    let version = "v".repeat(letters);
    let record = Record::AgentStarted { agent: AgentName::new(format!("agent-{sequence}")), version };
    Stamped { sequence, at: Moment::from_millis(sequence * 10), record }
}

/// Records at those places.
pub(crate) fn made(places: RangeInclusive<u64>) -> Vec<Stamped> {
    places.map(|place| of_size(place, 5)).collect()
}

/// The same places, with something else in them.
fn others(places: RangeInclusive<u64>) -> Vec<Stamped> {
    places.map(|place| of_size(place, 6)).collect()
}

/// Takes the tenure, and appends that many records.
pub(crate) async fn started(agent: &impl Coordination, records: u64) -> (Tenure, Vec<Stamped>) {
    let tenure = agent.campaign().await.expect("nothing is wrong").expect("nobody is there");
    let records = made(1..=records);
    agent.append(tenure, &records, &no_heads()).await.expect("they are appended");
    (tenure, records)
}

#[tokio::test(flavor = "multi_thread")]
async fn records_are_appended_in_their_order_only() {
    let namespace = Cluster::shared().await.namespace(RIGHTS).await;
    let east = namespace.agent("east", 30).await;
    let (tenure, _) = started(&east, 2).await;
    // The same again is found there; another one in its place is not taken, nor one after a gap.
    assert_eq!(east.append(tenure, &made(1..=2), &no_heads()).await, Ok(()));
    let taken = east.append(tenure, &others(2..=2), &no_heads()).await;
    assert!(matches!(taken, Err(CoordinationError::Deposed(_))), "{taken:?}");
    let gap = east.append(tenure, &made(5..=5), &no_heads()).await;
    assert_eq!(gap, Err(CoordinationError::Rewound { known: 4, found: 2 }));
    assert_eq!(east.append(tenure, &made(3..=4), &no_heads()).await, Ok(()));
    assert_eq!(east.records(0).await, Ok(made(1..=4)));
    assert_eq!(east.records(3).await, Ok(made(4..=4)));
    assert_eq!(east.records(4).await, Ok(Vec::new()));
    assert_eq!(east.records(7).await, Err(CoordinationError::Rewound { known: 7, found: 4 }));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_who_append_at_once_never_make_two_records_of_one_place() {
    let namespace = Cluster::shared().await.namespace(RIGHTS).await;
    let east = namespace.agent("east", 30).await;
    let west = namespace.agent("west", 30).await;
    let (mut tenure, mut record) = started(&east, 1).await;
    let (mut guardian, mut other) = (&east, &west);
    for _ in 0..10 {
        // The one goes on appending while the other takes over: the Lease is taken from it as if it had run out.
        let next = u64::try_from(record.len()).expect("few") + 1;
        let patch = json!({ "spec": { "holderIdentity": null } });
        let leases = namespace.leases().await;
        leases.patch("lifeboat", &PatchParams::default(), &Patch::Merge(patch)).await.expect("it is patched");
        let old = async {
            let mut taken = Vec::new();
            for place in next.. {
                match guardian.append(tenure, &made(place..=place), &no_heads()).await {
                    Ok(()) => taken.extend(made(place..=place)),
                    Err(CoordinationError::Deposed(_)) => return taken,
                    Err(other) => panic!("{other}"),
                }
            }
            unreachable!("it appends until it is deposed")
        };
        let new = async {
            let tenure = other.campaign().await.expect("nothing is wrong").expect("nobody holds it");
            let there = other.records(0).await.expect("it is read");
            let place = u64::try_from(there.len()).expect("few") + 1;
            other.append(tenure, &others(place..=place), &no_heads()).await.expect("it decides now");
            (tenure, there, others(place..=place))
        };
        let (taken, (new_tenure, there, added)) = futures::future::join(old, new).await;
        record.extend(taken);
        // All that the deposed one was told is there was there when the new one began, and nothing more came.
        assert_eq!(there, record);
        record.extend(added);
        assert_eq!(guardian.records(0).await.as_ref(), Ok(&record));
        tenure = new_tenure;
        (guardian, other) = (other, guardian);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_appends_of_one_guardian_at_once_one_is_taken_in_each_place() {
    let namespace = Cluster::shared().await.namespace(RIGHTS).await;
    let east = namespace.agent("east", 30).await;
    let (tenure, _) = started(&east, 1).await;
    let wanted: Vec<_> = (10..18).map(|letters| vec![of_size(2, letters)]).collect();
    let heads = no_heads();
    let answers = join_all(wanted.iter().map(|records| east.append(tenure, records, &heads))).await;
    let taken: Vec<_> = wanted.iter().zip(&answers).filter(|(_, answer)| answer.is_ok()).collect();
    let [(records, _)] = taken[..] else { panic!("{answers:?}") };
    assert_eq!(&east.records(1).await.expect("it is read"), records);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_record_is_read_back_whole() {
    let namespace = Cluster::shared().await.namespace(RIGHTS).await;
    let east = namespace.agent("east", 60).await;
    let tenure = east.campaign().await.expect("nothing is wrong").expect("nobody is there");
    let head = |epoch| Head {
        epoch: Epoch::new(epoch),
        holder: "east".into(),
        closing: false,
        coming: None,
        tended: None,
    };
    let mut record = Vec::new();
    for batch in 0..20_u64 {
        let records: Vec<_> = (1..=4).map(|place| of_size(batch * 4 + place, 10_000)).collect();
        let heads = BTreeMap::from([(WorkloadName::new("shop"), head(batch))]);
        east.append(tenure, &records, &heads).await.expect("they are appended");
        record.extend(records);
    }
    assert_eq!(east.records(0).await.as_ref(), Ok(&record));
    // From any place on, in whichever part it is.
    for after in [1, 11, 12, 13, 40, 79] {
        let count = usize::try_from(after).expect("few");
        assert_eq!(east.records(after).await.as_deref(), Ok(&record[count..]), "after {after}");
    }
    let maps = namespace.maps().await;
    let objects = maps.list(&ListParams::default()).await.expect("a list");
    let parts: Vec<_> =
        objects.iter().filter(|object| object.name_any().starts_with("lifeboat-record-")).collect();
    assert!(parts.len() >= 4, "{} parts", parts.len());
    let largest =
        objects.iter().map(|object| serde_json::to_string(object).map_or(0, |text| text.len())).max();
    assert!(largest.is_some_and(|largest| largest < 1024 * 1024), "{largest:?}");
    let end = maps.get("lifeboat-record").await.expect("the end");
    let heads = end.data.as_ref().and_then(|data| data.get("heads")).expect("heads");
    let heads: BTreeMap<WorkloadName, Head> = serde_json::from_str(heads).expect("heads");
    assert_eq!(heads, BTreeMap::from([(WorkloadName::new("shop"), head(19))]));

    // An older part cannot be changed, and one that is gone is missed.
    let patch = json!({ "data": { "record.00000000000000000001": "{}" } });
    maps.patch("lifeboat-record-1", &PatchParams::default(), &Patch::Merge(patch))
        .await
        .expect_err("it is immutable");
    maps.delete("lifeboat-record-1", &Default::default()).await.expect("it is deleted");
    let missed = east.records(0).await;
    assert!(matches!(missed, Err(CoordinationError::Damaged(_))), "{missed:?}");
    assert_eq!(east.records(40).await.as_deref(), Ok(&record[40..]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_that_a_crash_left_behind_is_made_use_of() {
    let namespace = Cluster::shared().await.namespace(RIGHTS).await;
    let east = namespace.agent("east", 30).await;
    let tenure = east.campaign().await.expect("nothing is wrong").expect("nobody is there");
    let mut record: Vec<_> = (1..=2).map(|place| of_size(place, 50_000)).collect();
    east.append(tenure, &record, &no_heads()).await.expect("they are appended");
    // Somebody has copied the end into a part of its own, and came no further; then one more record was appended.
    let maps = namespace.maps().await;
    let mut part = maps.get("lifeboat-record").await.expect("the end");
    part.metadata =
        kube::api::ObjectMeta { name: Some("lifeboat-record-1".to_owned()), ..Default::default() };
    for key in ["term", "guardian", "heads", "settled"] {
        part.data.as_mut().and_then(|data| data.remove(key)).expect("it is there");
    }
    maps.create(&Default::default(), &part).await.expect("it is made");
    record.push(of_size(3, 10));
    east.append(tenure, &record[2..], &no_heads()).await.expect("it is appended");
    record.push(of_size(4, 60_000));
    east.append(tenure, &record[3..], &no_heads()).await.expect("it is appended");
    let end = maps.get("lifeboat-record").await.expect("the end");
    assert_eq!(end.data.as_ref().and_then(|data| data.get("first")).map(String::as_str), Some("3"));
    assert_eq!(east.records(0).await, Ok(record.clone()));

    // One that holds something else is no part of this record.
    let mut foreign = part;
    foreign.metadata.name = Some("lifeboat-record-3".to_owned());
    maps.create(&Default::default(), &foreign).await.expect("it is made");
    let refused = east.append(tenure, &[of_size(5, 100_000)], &no_heads()).await;
    assert!(matches!(refused, Err(CoordinationError::Damaged(_))), "{refused:?}");
    assert_eq!(east.records(0).await, Ok(record));
}
