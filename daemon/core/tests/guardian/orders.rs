//! What a person can order, and every refusal, each of which touches nothing.

use std::time::Duration;

use lifeboat_core::condition::Gate;
use lifeboat_core::order::Acceptance;
use lifeboat_core::record::{Ending, Trigger};
use lifeboat_core::status::PhaseName;
use lifeboat_core::{Answer, FaultKind, Order, Reason, Record, SystemIdentifier};

use crate::failover::{endings, survived};
use crate::pretend::{Manner, Script, World};
use crate::setting::{CLUSTER, east, seconds, shop, west};

fn failover(to: &str) -> Order {
    Order::Failover { workload: shop(), to: to.into(), by: "ada".into() }
}

fn pause(world: &World, length: Duration) -> Order {
    Order::Pause { workload: shop(), reason: "upgrade".into(), until: world.now + length, by: "ada".into() }
}

fn refusal(world: &mut World, order: Order) -> Reason {
    match world.order(order) {
        Answer::Refused { reason } => reason,
        other @ Answer::Accepted { .. } => panic!("accepted: {other:?}"),
    }
}

fn accepted(world: &mut World, order: Order) {
    let answer = world.order(order);
    assert!(matches!(answer, Answer::Accepted { .. }), "{answer:?}");
}

#[test]
fn what_a_healthy_workload_refuses() {
    let mut world = World::quiet();
    let workload = shop();
    for (order, wanted) in [
        (failover("west"), Reason::PrimaryHealthy { workload: shop(), region: east() }),
        (failover("east"), Reason::AlreadyThere { workload: shop(), region: east() }),
        (
            failover("north"),
            Reason::UnknownRegion { workload: shop(), region: "north".into(), known: vec![west()] },
        ),
        (
            Order::Failover { workload: "shp".into(), to: west(), by: "ada".into() },
            Reason::UnknownWorkload { workload: "shp".into(), known: vec![shop()] },
        ),
        (
            Order::Resume { workload: "shp".into(), by: "ada".into() },
            Reason::UnknownWorkload { workload: "shp".into(), known: vec![shop()] },
        ),
        (Order::Resume { workload: shop(), by: "ada".into() }, Reason::NotPausedNow { workload }),
        (
            Order::Approve { run: "shop-e1".into(), accept: None, by: "ada".into() },
            Reason::UnknownRun { run: "shop-e1".into() },
        ),
    ] {
        assert_eq!(refusal(&mut world, order.clone()), wanted, "{order:?}");
    }
    let now = world.now;
    let past = Order::Pause { workload: shop(), reason: String::new(), until: now, by: "ada".into() };
    assert_eq!(refusal(&mut world, past), Reason::PauseInThePast { until: now, now });
    assert_eq!(world.records.len(), world.recorded(|r| r.run().is_none().then_some(())).len());
}

#[test]
fn what_a_lost_workload_refuses() {
    let mut world = World::quiet();
    world.becomes(&west(), Manner::Refuses);
    world.becomes(&east(), Manner::Refuses);
    world.pass(seconds(30));
    assert!(matches!(refusal(&mut world, failover("west")), Reason::TargetDown { .. }));

    let mut world = World::quiet();
    world.place(&west()).system = SystemIdentifier::new(42);
    world.becomes(&east(), Manner::Refuses);
    world.pass(seconds(30));
    let wrong = refusal(&mut world, failover("west"));
    assert!(matches!(wrong, Reason::WrongCluster { wanted: CLUSTER, .. }), "{wrong}");
}

#[test]
fn one_run_at_a_time() {
    let mut world = World::quiet();
    world.script("measure-loss", [Script::Well(seconds(5))]);
    world.becomes(&east(), Manner::Refuses);
    world.pass_until(seconds(30), |w| w.runs() == 1);
    assert_eq!(refusal(&mut world, failover("west")), Reason::RunOpen { run: "shop-e1".into() });
    let nothing = Order::Approve { run: "shop-e1".into(), accept: None, by: "ada".into() };
    assert_eq!(refusal(&mut world, nothing), Reason::NothingAsked { run: "shop-e1".into() });
    world.pass(seconds(30));
    assert_eq!(endings(&world), [Ending::Done]);
}

#[test]
fn a_stranded_run_goes_on_only_where_it_was_going() {
    let mut world = World::quiet();
    world.script("promote", [Script::Fault(FaultKind::Refused)]);
    world.becomes(&east(), Manner::Refuses);
    world.pass_until(seconds(30), |w| w.phase() == PhaseName::Stranded);
    let elsewhere = Reason::StrandedElsewhere { run: "shop-e1".into(), to: west() };
    assert_eq!(refusal(&mut world, failover("east")), elsewhere);
    accepted(&mut world, failover("west"));
    world.pass_until(seconds(30), |w| endings(w) == [Ending::Done]);
    let promotions = world.steps().iter().filter(|s| *s == "promote").count();
    assert_eq!(promotions, 2);
}

#[test]
fn an_ordered_failover_needs_no_waiting_and_says_who() {
    let mut world = World::quiet();
    world.becomes(&east(), Manner::Refuses);
    world.pass(seconds(6));
    accepted(&mut world, failover("west"));
    world.pass_until(seconds(10), |w| endings(w) == [Ending::Done]);
    let triggers = world.recorded(|r| match r {
        Record::RunOpened { trigger, .. } => Some(trigger.clone()),
        _ => None,
    });
    assert_eq!(triggers, [Trigger::Ordered { by: "ada".into() }]);
    // It was a person's, so it does not count against the budget of automatic ones.
    assert_eq!(world.condition(Gate::Budget).reason, Reason::BudgetLeft { used: 0, budget: 2 });
}

#[test]
fn while_paused_nothing_opens_and_afterwards_it_does() {
    let mut world = World::quiet();
    let order = pause(&world, seconds(600));
    accepted(&mut world, order);
    assert_eq!(world.phase(), PhaseName::Paused);
    world.becomes(&east(), Manner::Refuses);
    world.pass(seconds(590));
    assert_eq!(world.runs(), 0);
    let gate = world.condition(Gate::NotPaused);
    assert!(gate.reason.to_string().ends_with("by ada: upgrade"), "{}", gate.reason);
    let waited = world.pass_until(seconds(30), |w| w.runs() == 1);
    assert!(waited <= seconds(11), "{waited:?} after the pause was to end");
    let over = world.recorded(|r| matches!(r, Record::Resumed { by: None, .. }).then_some(()));
    assert_eq!(over.len(), 1);
}

#[test]
fn a_person_resumes_before_the_pause_is_over() {
    let mut world = World::quiet();
    let order = pause(&world, seconds(86_400));
    accepted(&mut world, order);
    world.becomes(&east(), Manner::Refuses);
    world.pass(seconds(60));
    accepted(&mut world, Order::Resume { workload: shop(), by: "bob".into() });
    let waited = world.pass_until(seconds(10), |w| w.runs() == 1);
    assert!(waited <= seconds(1), "{waited:?}");
}

#[test]
fn a_person_may_order_while_paused() {
    let mut world = World::quiet();
    let order = pause(&world, seconds(600));
    accepted(&mut world, order);
    world.becomes(&east(), Manner::Refuses);
    world.pass(seconds(20));
    accepted(&mut world, failover("west"));
    world.pass_until(seconds(10), |w| endings(w) == [Ending::Done]);
    assert_eq!(world.phase(), PhaseName::Paused, "and the pause stays");
}

#[test]
fn a_pause_does_not_stop_a_run_under_way() {
    let mut world = World::quiet();
    world.script("fence", [Script::Well(seconds(20))]);
    world.becomes(&east(), Manner::Refuses);
    world.pass_until(seconds(30), |w| w.steps().contains(&"fence".to_owned()));
    let order = pause(&world, seconds(600));
    accepted(&mut world, order);
    world.pass_until(seconds(60), |w| endings(w) == [Ending::Done]);
}

#[test]
fn the_plan_is_shown_and_touches_nothing() {
    let world = World::quiet();
    let records = world.records.len();
    let (plan, forecast) =
        world.guardian.plan(lifeboat_core::plan::Kind::Failover, &shop(), None, world.now).unwrap();
    assert_eq!((plan.run.as_str(), plan.steps.len(), &plan.to), ("shop-e1", 7, &west()));
    assert_eq!(forecast.detect_refusing, seconds(15));
    assert_eq!(forecast.steps.iter().filter(|s| s.median.is_some()).count(), 0, "it never ran here");
    assert!(matches!(
        world.guardian.plan(lifeboat_core::plan::Kind::Failover, &shop(), Some(&east()), world.now),
        Err(Reason::AlreadyThere { .. })
    ));
    assert_eq!(world.records.len(), records);

    let world = survived();
    let (plan, forecast) =
        world.guardian.plan(lifeboat_core::plan::Kind::Failover, &shop(), Some(&east()), world.now).unwrap();
    assert_eq!(plan.run.as_str(), "shop-e2");
    assert!(forecast.steps.iter().all(|s| s.median == Some(Duration::from_millis(100))), "{forecast:?}");
}

/// The promotion was refused, and the run is stranded.
fn stranded_at_the_promotion() -> World {
    let mut world = World::quiet();
    world.script("promote", [Script::Fault(FaultKind::Refused)]);
    world.becomes(&east(), Manner::Refuses);
    world.pass_until(seconds(60), |world| world.phase() == PhaseName::Stranded);
    world
}

fn abandon(vouched: Option<&str>) -> Order {
    let accept = vouched.map(|region| Acceptance::Unfenced(region.to_owned()));
    Order::Abandon { run: "shop-e1".into(), reason: "it will not do".into(), accept, by: "ada".into() }
}

/// From then on the old primary may hold the write lease again: the promotion must have come to nothing, and not come late.
#[test]
fn a_run_that_began_to_promote_is_given_up_when_its_target_is_seen_to_follow() {
    let mut world = stranded_at_the_promotion();
    // The look was before the last moment at which a message of that attempt may do its work.
    world.pass(seconds(15));
    let Reason::MayBePrimary { region, since, .. } = refusal(&mut world, abandon(None)) else {
        panic!("{}", world.story())
    };
    assert!(region == west() && since > world.now, "{since}");
    assert!(world.guardian.heads()[&shop()].closing, "nobody may write in east meanwhile");
    let wait = since.since(world.now);
    world.pass(wait + seconds(10));
    accepted(&mut world, abandon(None));
    assert!(!world.guardian.heads()[&shop()].closing);
}

#[test]
fn a_run_whose_target_is_a_primary_is_not_given_up_and_goes_on() {
    let mut world = stranded_at_the_promotion();
    world.pass(seconds(120));
    // A message of the attempt came late, and it worked.
    world.place(&west()).primary = true;
    world.pass(seconds(10));
    for vouched in [None, Some("west")] {
        let refused = refusal(&mut world, abandon(vouched));
        assert!(matches!(refused, Reason::TargetIsPrimary { .. }), "{refused}");
    }
    assert!(world.guardian.heads()[&shop()].closing);
    accepted(&mut world, failover("west"));
    world.pass_until(seconds(60), |world| endings(world) == [Ending::Done]);
    assert_eq!(world.status().primary, west());
}

#[test]
fn a_target_that_cannot_be_looked_at_is_no_primary_by_a_persons_word_only() {
    let mut world = stranded_at_the_promotion();
    world.place(&west()).primary = true;
    world.pass(seconds(10));
    world.becomes(&west(), Manner::Dark);
    world.pass(seconds(300));
    for vouched in [None, Some("east")] {
        let refused = refusal(&mut world, abandon(vouched));
        assert!(matches!(refused, Reason::MayBePrimary { .. }), "{refused}");
    }
    accepted(&mut world, abandon(Some("west")));
    let given_up = world.recorded(|record| match record {
        Record::RunEnded { reason: Reason::GivenUp { vouched, .. }, .. } => Some(vouched.clone()),
        _ => None,
    });
    assert_eq!(given_up, [Some(west())]);
}
