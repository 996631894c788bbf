//! Decisions per second of the core: what one agent can be told before it is the slow part.
//!
//! `cargo bench -p lifeboat-core`. Rates are decisions (or records) per second on one core.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::time::Duration;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use lifeboat_core::event::Witnessing;
use lifeboat_core::policy::{
    ConnectivityPolicy, FailoverPolicy, Mode, Objectives, ProbePolicy, WorkloadPolicy,
};
use lifeboat_core::sighting::FailureKind;
use lifeboat_core::status::Verdict;
use lifeboat_core::{
    Event, Evidence, Failure, Guardian, Look, Moment, Policy, ProbeName, Reason, Record, Sighting, Stamped,
    WorkloadName,
};

/// A workload with this many probes, half of them in each region; the first of each is vital.
fn workload(name: &str, probes: usize) -> WorkloadPolicy {
    let probe = |n: usize| ProbePolicy {
        region: if n.is_multiple_of(2) { "east".into() } else { "west".into() },
        database: None,
        vital: n < 2,
        interval: Duration::from_secs(5),
        failures: 3,
        recoveries: 2,
        silence: Duration::from_secs(60),
    };
    WorkloadPolicy {
        name: name.into(),
        home: "east".into(),
        standbys: vec!["west".into()],
        objectives: Objectives { rto: Duration::from_secs(900), rpo: Duration::from_secs(300) },
        failover: FailoverPolicy {
            mode: Mode::Automatic,
            quorum: 1,
            cooldown: Duration::from_secs(3_600),
            budget: 2,
            budget_window: Duration::from_secs(86_400),
            approval_expires: Duration::from_secs(3_600),
            freshness: Duration::from_secs(30),
            approvals: 1,
            outside: 0,
            rpo_bytes: None,
            sample_age: None,
            fence_expiry: false,
            fence_cut_off: false,
            hold_down: Duration::from_secs(600),
            rejoin: true,
        },
        probes: (0..probes).map(|n| (ProbeName::new(format!("probe-{n:04}")), probe(n))).collect(),
        databases: BTreeMap::new(),
        names: BTreeMap::new(),
        fences: BTreeMap::new(),
        canary: false,
        hosts: std::collections::BTreeSet::new(),
        sentries: std::collections::BTreeSet::new(),
        maintenance: Vec::new(),
    }
}

fn policy(workloads: Vec<WorkloadPolicy>) -> Policy {
    Policy {
        agent: "bastion".into(),
        agents: BTreeMap::new(),
        connectivity: ConnectivityPolicy { witnesses: 3, quorum: 2 },
        workloads: workloads.into_iter().map(|w| (w.name.clone(), w)).collect(),
    }
}

fn restored(policy: Policy, records: &[Stamped]) -> Guardian {
    let page = lifeboat_runbooks::Runbooks::shipped().expect("the shipped pages load");
    Guardian::restore(policy, page, "bench", records)
}

fn sighting(workload: &WorkloadName, n: usize, at: Moment, look: Look) -> Event {
    Event::Sighted(Sighting {
        workload: workload.clone(),
        region: if n.is_multiple_of(2) { "east".into() } else { "west".into() },
        probe: ProbeName::new(format!("probe-{n:04}")),
        vantage: "bastion".into(),
        at,
        took: Duration::from_millis(5),
        look,
    })
}

const START: Moment = Moment::from_millis(1_795_252_486_000);

/// A guardian that has looked through each probe twice.
fn watching(workloads: Vec<WorkloadPolicy>) -> Guardian {
    let policy = policy(workloads);
    let mut guardian = restored(policy.clone(), &[]);
    let _ = guardian.decide(START, Event::Started);
    let asked = Witnessing { vantage: "bastion".into(), at: START, answered: 3 };
    let _ = guardian.decide(START, Event::Witnessed(asked));
    for _ in 0..2 {
        for (name, workload) in &policy.workloads {
            for n in 0..workload.probes.len() {
                let _ = guardian.decide(START, sighting(name, n, START, Ok(Evidence::Answered)));
            }
        }
    }
    guardian
}

fn decisions(criterion: &mut Criterion) {
    let shop = WorkloadName::new("shop");
    let mut group = criterion.benchmark_group("decide");
    group.throughput(Throughput::Elements(1));
    for probes in [6, 1_000] {
        let mut guardian = watching(vec![workload("shop", probes)]);
        let mut now = START;
        group.bench_function(format!("an answer, {probes} probes"), |b| {
            b.iter_batched(
                || {
                    now = now + Duration::from_millis(1);
                    (now, sighting(&shop, 2, now, Ok(Evidence::Answered)))
                },
                |(now, event)| black_box(guardian.decide(now, event)),
                BatchSize::SmallInput,
            );
        });
        // A probe that is not vital fails again and again: every look is judged, and nothing more happens.
        let mut guardian = watching(vec![workload("shop", probes)]);
        let mut now = START;
        group.bench_function(format!("a failure, {probes} probes"), |b| {
            b.iter_batched(
                || {
                    now = now + Duration::from_millis(1);
                    let failure = Failure::new(FailureKind::Refused, "connection refused by 192.0.2.80:5432");
                    (now, sighting(&shop, 2, now, Err(failure)))
                },
                |(now, event)| black_box(guardian.decide(now, event)),
                BatchSize::SmallInput,
            );
        });
    }
    // The worst hour: everything in the primary region fails, and one more failure comes in.
    let mut guardian = watching(vec![workload("shop", 1_000)]);
    let mut now = START;
    let refused = || Failure::new(FailureKind::Refused, "connection refused by 192.0.2.80:5432");
    for n in (0..1_000).step_by(2) {
        for _ in 0..3 {
            let _ = guardian.decide(now, sighting(&shop, n, now, Err(refused())));
        }
    }
    group.bench_function("a failure, 500 of 1000 probes down", |b| {
        b.iter_batched(
            || {
                now = now + Duration::from_millis(1);
                (now, sighting(&shop, 2, now, Err(refused())))
            },
            |(now, event)| black_box(guardian.decide(now, event)),
            BatchSize::SmallInput,
        );
    });
    let hundred = (0..100).map(|n| workload(&format!("shop-{n:03}"), 6)).collect();
    let mut guardian = watching(hundred);
    group.bench_function("a tick, 100 workloads", |b| {
        b.iter(|| black_box(guardian.decide(START, Event::Tick)));
    });
    group.finish();
}

fn replay(criterion: &mut Criterion) {
    let record = |n: u64| Record::VerdictChanged {
        workload: "shop".into(),
        region: if n.is_multiple_of(2) { "east".into() } else { "west".into() },
        verdict: if n % 4 < 2 { Verdict::Doubtful } else { Verdict::Healthy },
        reason: Reason::NotSeen { region: "east".into(), probe: "probe-0001".into() },
    };
    let records: Vec<Stamped> =
        (1..=10_000).map(|n| Stamped { sequence: n, at: START, record: record(n) }).collect();
    let mut group = criterion.benchmark_group("replay");
    group.throughput(Throughput::Elements(10_000));
    let policy = policy(vec![workload("shop", 6)]);
    group.bench_function("10000 records", |b| b.iter(|| black_box(restored(policy.clone(), &records))));
    group.finish();
}

criterion_group!(benches, decisions, replay);
criterion_main!(benches);
