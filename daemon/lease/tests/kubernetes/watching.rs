//! What is told: everything there is, then each change, in order, whatever is forgotten in between.

use std::sync::Arc;

use futures::StreamExt as _;
use kube::api::{Patch, PatchParams, WatchEvent};
use lifeboat_core::testimony::Beat;
use lifeboat_core::{AgentName, Stamped};
use lifeboat_engine::ports::{Change, Coordination as _, CoordinationError};
use lifeboat_lease::kubernetes::Kubernetes;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::cluster::{Cluster, PATIENCE, RIGHTS, metrics, no_heads, until};
use crate::record::{made, of_size, started};

/// A watch that goes on beside the test.
pub(crate) struct Watch {
    changes: mpsc::Receiver<Change>,
    task: JoinHandle<CoordinationError>,
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Watch {
    pub(crate) fn of(agent: Kubernetes, known: Option<Stamped>) -> Self {
        Self::shared(Arc::new(agent), known)
    }

    pub(crate) fn shared(agent: Arc<Kubernetes>, known: Option<Stamped>) -> Self {
        let (sender, changes) = mpsc::channel(4);
        let task = tokio::spawn(async move { agent.watch(known.as_ref(), &sender).await });
        Self { changes, task }
    }

    /// The next change.
    pub(crate) async fn next(&mut self) -> Change {
        let next = tokio::time::timeout(PATIENCE, self.changes.recv()).await.expect("a change in time");
        match next {
            Some(change) => change,
            None => panic!("the watch has ended: {:?}", (&mut self.task).await),
        }
    }

    /// Why it ended.
    pub(crate) async fn end(mut self) -> CoordinationError {
        let drained = async { while self.changes.recv().await.is_some() {} };
        tokio::time::timeout(PATIENCE, drained).await.expect("it ends in time");
        (&mut self.task).await.expect("it ends by itself")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_there_is_told_first_and_then_each_change() {
    let namespace = Cluster::shared().await.namespace(RIGHTS).await;
    let east = namespace.agent("east", 4).await;
    let (tenure, _) = started(&east, 2).await;
    let beat = |count| Beat { term: tenure.term, count };
    east.renew(tenure, beat(1)).await.expect("it is east's");
    let mut watch = Watch::of(namespace.agent("west", 4).await, None);
    let mut first = Vec::new();
    loop {
        match watch.next().await {
            Change::CaughtUp => break,
            change => first.push(change),
        }
    }
    let guardian = Change::Guardian(Some(AgentName::new("east")));
    let [one, two] = [0, 1].map(|index| Change::Record(made(1..=2).remove(index)));
    assert_eq!(first, [guardian.clone(), Change::Beat(beat(1)), one, two]);
    east.append(tenure, &made(3..=3), &no_heads()).await.expect("it is appended");
    assert_eq!(watch.next().await, Change::Record(made(3..=3).remove(0)));
    east.renew(tenure, beat(2)).await.expect("it is east's");
    assert_eq!(watch.next().await, Change::Beat(beat(2)));
    // It is silent for as long as the tenure lasts; then nobody decides, until somebody does.
    assert_eq!(watch.next().await, Change::Guardian(None));
    east.renew(tenure, beat(3)).await.expect("nobody has taken it");
    assert_eq!(watch.next().await, guardian);
    assert_eq!(watch.next().await, Change::Beat(beat(3)));
    east.resign(tenure).await;
    assert_eq!(watch.next().await, Change::Guardian(None));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_outgrows_its_parts_is_told_without_gaps() {
    let namespace = Cluster::shared().await.namespace(RIGHTS).await;
    let east = namespace.agent("east", 60).await;
    let (tenure, mut record) = started(&east, 3).await;
    let mut watch = None;
    for batch in 0..15_u64 {
        let records: Vec<_> = (4..=6).map(|place| of_size(batch * 3 + place, 20_000)).collect();
        east.append(tenure, &records, &no_heads()).await.expect("they are appended");
        record.extend(records);
        if batch == 7 {
            // By now what comes next for it is in an older part, and more parts follow while it watches.
            watch = Some(Watch::of(namespace.agent("west", 60).await, Some(record[1].clone())));
        }
    }
    let mut watch = watch.expect("it watches");
    let mut told = Vec::new();
    while told.len() < record.len() - 2 {
        if let Change::Record(stamped) = watch.next().await {
            told.push(stamped);
        }
    }
    assert_eq!(told, record[2..]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_has_gone_back_or_is_another_one_is_not_followed() {
    let namespace = Cluster::shared().await.namespace(RIGHTS).await;
    let east = namespace.agent("east", 60).await;
    started(&east, 3).await;
    let ended = Watch::of(namespace.agent("west", 60).await, Some(of_size(5, 5))).end().await;
    assert_eq!(ended, CoordinationError::Rewound { known: 5, found: 3 });
    let ended = Watch::of(namespace.agent("west", 60).await, Some(of_size(2, 7))).end().await;
    assert!(matches!(ended, CoordinationError::Damaged(_)), "{ended:?}");

    // While it is watched: put back to an older state, as from a backup.
    let maps = namespace.maps().await;
    let mut watch = Watch::of(namespace.agent("north", 60).await, Some(made(3..=3).remove(0)));
    while watch.next().await != Change::CaughtUp {}
    let patch = json!({ "data": { "record.00000000000000000003": null } });
    maps.patch("lifeboat-record", &PatchParams::default(), &Patch::Merge(patch)).await.expect("patched");
    assert_eq!(watch.end().await, CoordinationError::Rewound { known: 3, found: 2 });
    // Who has been here knows better than to decide on it.
    let ended = east.campaign().await;
    assert_eq!(ended, Err(CoordinationError::Rewound { known: 3, found: 2 }));

    let mut watch = Watch::of(namespace.agent("south", 60).await, Some(made(2..=2).remove(0)));
    while watch.next().await != Change::CaughtUp {}
    maps.delete("lifeboat-record", &Default::default()).await.expect("it is deleted");
    assert_eq!(watch.end().await, CoordinationError::Rewound { known: 2, found: 0 });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_goes_on_after_its_version_is_compacted() {
    // Without its cache the API server watches etcd itself, which has forgotten what was compacted.
    let cluster = Arc::new(Cluster::start(&["--watch-cache=false"]).await);
    let namespace = cluster.namespace(RIGHTS).await;
    let east = namespace.agent("east", 120).await;
    let (tenure, _) = started(&east, 2).await;
    let version = namespace.lease().await.metadata.resource_version.expect("a version");
    let mut watch = Watch::of(namespace.agent("west", 120).await, None);
    while watch.next().await != Change::CaughtUp {}
    // Others write, and what was before is forgotten.
    let maps = namespace.maps().await;
    for number in 0..5 {
        let other = json!({ "metadata": { "name": format!("other-{number}") } });
        let other = serde_json::from_value(other).expect("a ConfigMap");
        maps.create(&Default::default(), &other).await.expect("it is made");
    }
    // Nobody but the watch lists Leases here.
    let lists = async || {
        let metrics = metrics(&namespace.admin().await).await;
        let lines = metrics.lines().filter(|line| {
            line.starts_with("apiserver_request_total")
                && [r#"verb="LIST""#, r#"resource="leases""#].iter().all(|part| line.contains(part))
        });
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum::<u64>()
    };
    assert_eq!(lists().await, 1);
    cluster.compact();
    let mut gone = Box::pin(maps.watch(&Default::default(), &version).await.expect("a watch"));
    let gone = gone.next().await.expect("an event").expect("an event");
    assert!(matches!(&gone, WatchEvent::Error(status) if status.code == 410), "{gone:?}");
    until("the watch has listed again", || async { (lists().await > 1).then_some(()) }).await;
    east.append(tenure, &made(3..=3), &no_heads()).await.expect("it is appended");
    assert_eq!(watch.next().await, Change::Record(made(3..=3).remove(0)));
}
