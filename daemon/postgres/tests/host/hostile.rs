//! Requests that are not to be obeyed touch nothing.

use lifeboat_core::{FaultKind, SystemIdentifier, Timeline};
use lifeboat_postgres::host::{Act, ClusterState, Done};

use crate::servers::Pair;

#[test]
fn what_is_not_to_be_obeyed_touches_nothing() {
    let pair = Pair::start();
    let source = pair.promote();
    let act = Act::Rejoin { source: source.clone(), drop_slots: Vec::new() };
    let whole = serde_json::to_vec(&pair.request(7, act.clone())).unwrap();
    let mut refused = vec![whole[..whole.len() / 2].to_vec(), Vec::new()];
    let mut hostile = pair.request(7, act.clone());
    hostile.run = lifeboat_core::RunId::new("../../escaped");
    refused.push(serde_json::to_vec(&hostile).unwrap());
    let mut unknown = pair.request(7, act.clone());
    unknown.database = "stock".into();
    refused.push(serde_json::to_vec(&unknown).unwrap());
    let mut foreign = pair.request(7, act);
    foreign.system = SystemIdentifier::new(1);
    refused.push(serde_json::to_vec(&foreign).unwrap());
    let mut elsewhere = source.clone();
    elsewhere.system = SystemIdentifier::new(1);
    let act = Act::Rejoin { source: elsewhere, drop_slots: Vec::new() };
    refused.push(serde_json::to_vec(&pair.request(7, act)).unwrap());
    for request in refused {
        assert_eq!(pair.say(&request).unwrap_err().kind, FaultKind::Refused);
    }
    let Done::Looked(look) = pair.ask(1, Act::Look).unwrap() else { panic!("no look") };
    assert!(look.running && look.state == ClusterState::InProduction, "{look:?}");
    assert_eq!((look.obeyed, look.interrupted), (None, None));
    // A primary whose history does not know this server's timeline.
    let mut stranger = source;
    stranger.lineage.clear();
    stranger.timeline = Timeline::new(9);
    let fault = pair.rejoin(7, &stranger).unwrap_err();
    assert_eq!(fault.kind, FaultKind::Refused);
    assert!(fault.detail.contains("no history of"), "{fault}");
    assert_eq!(pair.sql("east", "SELECT pg_is_in_recovery()"), "f", "it was touched");
}
