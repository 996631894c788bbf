//! What a person asks of a new primary by hand, so that it can be followed.

use lifeboat_core::{Lsn, Timeline};
use lifeboat_postgres::by_hand::{HostAsked, host_request, offer};
use lifeboat_postgres::host::{Act, Request};

use crate::pair::Pair;

#[tokio::test]
async fn the_new_primary_writes_the_request_to_a_host() {
    let pair = Pair::start().await;
    let west = pair.west.client().await;
    west.query("SELECT pg_promote()", &[]).await.unwrap();
    for _ in 0..2 {
        west.batch_execute(&offer("east")).await.unwrap();
    }
    let slots = ["east".to_owned(), "west".to_owned()];
    let asked = HostAsked {
        workload: &"shop".into(),
        database: &"orders".into(),
        region: &"east".into(),
        salvage: false,
        source: (&"west".into(), "10.2.0.5", 5432),
        slot: "east",
        drop_slots: &slots,
        limit_ms: 60_000,
    };
    let ask = async |asked: &HostAsked<'_>| {
        // What psql would put in.
        let query = host_request(asked).replace(":'epoch'", "'8'");
        let query = format!("SELECT ({})::text", query.trim().trim_end_matches(';'));
        let row = west.query_one(&query, &[]);
        let line: String = row.await.unwrap().get(0);
        Request::read(line.as_bytes()).unwrap()
    };
    let request = ask(&asked).await;
    assert_eq!((request.epoch.get(), request.run.as_str()), (8, "shop-e8"));
    let Act::Rejoin { source, drop_slots } = request.act else { panic!("{:?}", request.act) };
    assert_eq!(drop_slots, slots);
    assert_eq!(source.timeline, Timeline::new(2));
    let system = pair.east.value("SELECT system_identifier FROM pg_control_system()").await;
    assert_eq!((source.system, request.system.to_string()), (request.system, system));
    let [fork] = source.lineage.as_slice() else { panic!("{:?}", source.lineage) };
    // The server's own history says where the first timeline ended.
    let history = pair.west.value("pg_read_file('pg_wal/00000002.history')").await;
    let written = history.split_whitespace().nth(1).and_then(Lsn::parse).unwrap();
    assert_eq!((fork.timeline, fork.lsn), (Timeline::new(1), written));
    let salvage = ask(&HostAsked { salvage: true, ..asked }).await;
    assert!(matches!(salvage.act, Act::Salvage { .. }), "{:?}", salvage.act);
}
