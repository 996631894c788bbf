//! What a person reads of several agents.

use std::collections::BTreeMap;
use std::time::Duration;

use lifeboat_core::sighting::{Failure, FailureKind};
use lifeboat_core::status::{
    ConnectivityStatus, CoordinationStatus, DeciderStatus, PhaseName, RegionStatus, SentryStatus,
};
use lifeboat_core::{Moment, Reason, RegionName};

use super::*;
use crate::view;

const NOON: Moment = Moment::from_millis(1_795_262_400_000);

fn healthy(region: &str) -> SeenStatus {
    let reason = Reason::AllAnswer { region: region.into(), probes: 1 };
    SeenStatus { verdict: Verdict::Healthy, reason: reason.clone(), proven: true, abstains: Some(reason) }
}

fn lost(proven: bool, abstains: Option<Reason>) -> SeenStatus {
    let last = Failure { kind: FailureKind::Refused, detail: "connection refused".to_owned() };
    let reason = Reason::ProbeDown { region: "east".into(), probe: "orders@east".into(), failures: 3, last };
    SeenStatus { verdict: Verdict::Lost, reason, proven, abstains }
}

fn vantage(place: &str, east: Option<SeenStatus>) -> VantageStatus {
    let regions =
        east.into_iter().map(|seen| ("east".into(), seen)).chain([("west".into(), healthy("west"))]);
    VantageStatus {
        place: place.into(),
        here: false,
        connected: Some(true),
        heard: Some(Duration::from_millis(700)),
        age: Some(Duration::from_millis(900)),
        sees: BTreeMap::from([("shop".into(), regions.collect::<BTreeMap<RegionName, SeenStatus>>())]),
    }
}

/// Ash decides and sees the east as lost; birch does as well, and cannot prove itself; cedar was never heard.
fn status() -> Status {
    let all = Reason::AllAnswer { region: "west".into(), probes: 1 };
    let region = |primary| RegionStatus {
        primary,
        verdict: Verdict::Healthy,
        reason: all.clone(),
        probes: BTreeMap::new(),
        databases: BTreeMap::new(),
    };
    let sentries = [("east", None), ("west", Some((Guarded::Following, 60)))].map(|(region, says)| {
        let since = says.map(|(_, seconds)| Duration::from_secs(seconds));
        (region.into(), SentryStatus { says: says.map(|(says, _)| says), since })
    });
    let workload = WorkloadStatus {
        phase: PhaseName::Doubting,
        primary: "east".into(),
        epoch: lifeboat_core::Epoch::default(),
        regions: [("east".into(), region(true)), ("west".into(), region(false))].into(),
        paused: None,
        maintenance: None,
        kept_out: [].into(),
        sentries: sentries.into(),
        run: None,
        conditions: Vec::new(),
        rto: Duration::from_secs(900),
        rpo: Duration::from_secs(300),
    };
    let unproven = Reason::VantageUnproven { vantage: "birch".into() };
    let ash = VantageStatus { here: true, ..vantage("east", Some(lost(true, None))) };
    let birch =
        VantageStatus { connected: Some(false), ..vantage("west", Some(lost(false, Some(unproven)))) };
    let cedar =
        VantageStatus { connected: None, heard: None, age: None, sees: [].into(), ..vantage("office", None) };
    Status {
        agent: "ash".into(),
        at: NOON,
        decider: Some(DeciderStatus { agent: "ash".into(), term: 4, since: NOON, here: true }),
        coordination: Some(CoordinationStatus { reached: true, reason: None }),
        vantages: [("ash".into(), ash), ("birch".into(), birch), ("cedar".into(), cedar)].into(),
        connectivity: ConnectivityStatus { proven: true, reason: all },
        workloads: [("shop".into(), workload)].into(),
    }
}

#[test]
fn who_sees_what_is_a_table_with_the_doubts_under_each_row() {
    let mut page = String::new();
    write_matrix(&mut page, &status(), &"shop".into());
    let wanted = "\x20\x20seen by        in             heard      east                   west
  ash            east           here       lost, proven, a vote   healthy
    ash on east: orders@east of east is down after 3 failures (connection refused: connection refused)
  birch          west           900 ms     lost, not proven       healthy
    birch cannot prove its own connectivity: it abstains
    birch on east: orders@east of east is down after 3 failures (connection refused: connection refused)
    no vote: birch sees a loss, and cannot prove its own connectivity
  cedar          office         never      nothing known          nothing known
";
    assert_eq!(page, wanted, "{page}");
}

#[test]
fn the_head_says_who_decides_and_what_is_suspended() {
    let head = |status: &Status| {
        let mut page = String::new();
        write_head(&mut page, status);
        page
    };
    let mut status = status();
    assert_eq!(
        head(&status),
        "this agent decides since 2026-11-21T12:00:00.000Z, term 4\ncoordinator reached\n"
    );
    if let Some(decider) = &mut status.decider {
        decider.here = false;
    }
    assert!(head(&status).starts_with("this agent stands by, and was the last to decide, from 2026-11-21"));
    status.agent = "birch".into();
    assert!(
        head(&status)
            .starts_with("this agent stands by; ash decides since 2026-11-21T12:00:00.000Z, term 4\n")
    );
    let reason = Reason::CoordinationLost { since: NOON, what: "no member answered".to_owned() };
    status.coordination = Some(CoordinationStatus { reached: false, reason: Some(reason) });
    let lost = "the coordinator is lost since 2026-11-21T12:00:00.000Z: automatic failover is suspended, nothing can be \
                decided (no member answered)\n";
    assert!(head(&status).ends_with(lost), "{}", head(&status));
    status.decider = None;
    assert!(head(&status).starts_with("no agent decides yet\n"));
    status.coordination = None;
    assert_eq!(head(&status), "", "an agent that is alone has nothing to say of others");
}

#[test]
fn the_page_shows_the_sentries_and_an_agent_alone_shows_no_table() {
    let mut status = status();
    let page = view::status::page(&status);
    assert!(
        page.contains(
            "\n  sentry in east: was never heard of\n  sentry in west: watches a standby (for 1 min 0 s so far)\n"
        ),
        "{page}"
    );
    assert!(
        page.contains("  seen by ") && view::explain::why_not(&"shop".into(), &status).contains("  seen by ")
    );
    status.vantages.clear();
    status.coordination = None;
    assert!(!view::status::page(&status).contains("seen by"));
}

#[test]
fn what_each_vantage_said_stands_under_the_question() {
    let mut page = String::new();
    let unproven = Reason::VantageUnproven { vantage: "birch".into() };
    let seen =
        [("ash", lost(true, None)), ("birch", lost(false, Some(unproven))), ("cedar", healthy("east"))];
    let seen: BTreeMap<AgentName, SeenStatus> = seen.map(|(agent, seen)| (agent.into(), seen)).into();
    write_evidence(&mut page, &"east".into(), &seen);
    let lines: Vec<&str> = page.lines().map(str::trim).collect();
    assert!(
        lines[0].starts_with("ash            lost, proven, a vote   orders@east of east is down"),
        "{page}"
    );
    assert!(
        lines[1].starts_with("birch          lost, not proven       orders@east of east is down"),
        "{page}"
    );
    assert_eq!(lines[2], "no vote: birch sees a loss, and cannot prove its own connectivity");
    assert!(lines[3].starts_with("cedar          healthy"), "{page}");
    assert_eq!(lines[4], "1 of 3 saw the loss of east and could prove it, when this was asked");
    page.clear();
    write_evidence(&mut page, &"east".into(), &BTreeMap::new());
    assert_eq!(page, "", "an agent that is alone has nothing to add");
}
