//! Several agents: what counts as a vote, who decides, and what a takeover leaves to the one before.

use std::collections::BTreeMap;
use std::time::Duration;

use lifeboat_core::condition::Gate;
use lifeboat_core::head::Guarded;
use lifeboat_core::order::Question;
use lifeboat_core::status::{PhaseName, Verdict};
use lifeboat_core::testimony::{Beat, Seen, Testimony};
use lifeboat_core::{
    AgentName, Answer, Event, Guardian, Moment, Order, Policy, Reason, Record, RegionName, Severity, Stamped,
};

use crate::pretend::{Manner, Script, World};
use crate::setting::{agent, east, policy, runbook, seconds, shop, west, workload};

/// The policy of three agents, of which two must agree, one of them outside the primary region.
fn three() -> Policy {
    let mut shop = workload();
    shop.failover.quorum = 2;
    shop.failover.outside = 1;
    let mut policy = policy([shop]);
    policy.agents =
        [(agent(), west()), ("bastion-east".into(), east()), (witness(), "witness".into())].into();
    policy
}

fn witness() -> AgentName {
    "witness".into()
}

/// What a vantage says of the primary, echoing that beat.
fn says(vantage: &AgentName, verdict: Verdict, proven: bool, echo: Option<Beat>, sequence: u64) -> Event {
    let reason = Reason::NotSeen { region: east(), probe: "orders-east".into() };
    let seen = Seen { verdict, reason, proven, age: Some(seconds(1)) };
    let regions = BTreeMap::from([(shop(), BTreeMap::from([(east(), seen)]))]);
    Event::Testified(Testimony { vantage: vantage.clone(), sequence, echo, connected: true, regions })
}

fn beat(count: u64) -> Beat {
    Beat { term: 7, count }
}

/// A quiet day on which this agent was elected, and has sent its first beat.
fn elected() -> World {
    let mut world = World::quiet_with(three());
    world.guardian.stand_by();
    world.happen(Event::Elected { term: 7 });
    world.happen(Event::Beaten(beat(1)));
    world
}

/// The same, and the primary has been dark for long enough that this agent sees it as lost.
fn lost_from_here() -> World {
    let mut world = elected();
    world.becomes(&east(), Manner::Refuses);
    world.pass(seconds(40));
    world.happen(Event::Beaten(beat(2)));
    world
}

fn shut(world: &World) -> Option<Gate> {
    let conditions = world.guardian.conditions(&shop(), world.now).expect("the shop");
    conditions.into_iter().find(|condition| !condition.holds).map(|condition| condition.gate)
}

#[test]
fn one_vantage_is_no_quorum_however_sure_it_is() {
    let mut world = lost_from_here();
    world.pass(seconds(600));
    assert_eq!(world.phase(), PhaseName::Doubting, "{}", world.story());
    let status = world.status();
    assert_eq!(status.regions[&east()].verdict, Verdict::Doubtful);
    assert_eq!(status.regions[&east()].reason, Reason::Quorum { region: east(), lost: 1, needed: 2 });
}

#[test]
fn a_second_vantage_that_proves_itself_makes_the_quorum_at_once() {
    let mut world = lost_from_here();
    world.happen(says(&witness(), Verdict::Lost, true, Some(beat(2)), 1));
    assert_eq!(world.phase(), PhaseName::FailingOver, "{}", world.story());
}

#[test]
fn what_is_no_vote() {
    let old = Beat { term: 6, count: 9 };
    for (what, verdict, proven, echo) in [
        ("not lost", Verdict::Doubtful, true, Some(beat(2))),
        ("unproven", Verdict::Lost, false, Some(beat(2))),
        ("it echoes nothing", Verdict::Lost, true, None),
        ("it echoes another guardian", Verdict::Lost, true, Some(old)),
        ("it echoes a beat from before the freshness", Verdict::Lost, true, Some(beat(1))),
    ] {
        let mut world = lost_from_here();
        world.happen(says(&witness(), verdict, proven, echo, 1));
        assert_eq!(world.phase(), PhaseName::Doubting, "{what}: {}", world.story());
        assert_eq!(shut(&world), Some(Gate::PrimaryLost), "{what}");
    }
}

#[test]
fn a_word_that_grows_old_stops_counting() {
    let mut world = lost_from_here();
    // A pause keeps the run from being opened while the vote is fresh.
    let until = world.now + seconds(60);
    let (reason, by) = ("deploy".to_owned(), "ana".to_owned());
    world.order(Order::Pause { workload: shop(), reason, until, by });
    world.happen(says(&witness(), Verdict::Lost, true, Some(beat(2)), 1));
    assert_eq!(shut(&world), Some(Gate::NotPaused));
    world.pass(seconds(61));
    assert_eq!(world.phase(), PhaseName::Doubting, "{}", world.story());
    assert_eq!(shut(&world), Some(Gate::PrimaryLost));
}

/// What was said while this agent stood still waits in a line, and what takes it back stands behind it.
#[test]
fn who_has_just_woken_counts_only_what_is_said_since() {
    let World { mut guardian, now, .. } = elected();
    let woken = now + seconds(9);
    let opened_by_both = |guardian: &mut Guardian, echo: Beat, sequence: u64| {
        let others = [witness(), "bastion-east".into()];
        let said = others.map(|vantage| says(&vantage, Verdict::Lost, true, Some(echo), sequence));
        let records = said.map(|said| guardian.decide(woken, said).records).concat();
        records.iter().any(|record| matches!(record, Record::RunOpened { .. }))
    };
    // Less than the freshness: by its age alone it would count.
    assert!(!opened_by_both(&mut guardian, beat(1), 1), "said before");
    // A beat that was sent before, and is told of only now, dates nothing.
    assert!(guardian.decide(now, Event::Beaten(beat(2))).records.is_empty());
    assert!(!opened_by_both(&mut guardian, beat(2), 2), "sent before");
    assert!(guardian.decide(woken, Event::Beaten(beat(3))).records.is_empty());
    assert!(opened_by_both(&mut guardian, beat(3), 3));
}

/// Its own looks are no better: what was under way failed because nobody waited for the answer.
#[test]
fn who_has_just_woken_looks_again_before_it_votes() {
    let mut world = lost_from_here();
    world.now = world.now + seconds(9);
    world.happen(Event::Beaten(beat(3)));
    world.happen(says(&witness(), Verdict::Lost, true, Some(beat(3)), 1));
    assert_eq!(world.phase(), PhaseName::Doubting, "{}", world.story());
    world.pass_until(seconds(11), |world| world.phase() == PhaseName::FailingOver);
}

#[test]
fn an_older_word_does_not_replace_a_newer_one() {
    let mut world = lost_from_here();
    world.happen(says(&witness(), Verdict::Healthy, true, Some(beat(2)), 9));
    world.happen(says(&witness(), Verdict::Lost, true, Some(beat(2)), 8));
    assert_eq!(world.phase(), PhaseName::Doubting);
}

#[test]
fn strangers_and_its_own_name_have_no_voice() {
    for vantage in ["mallory".into(), agent()] {
        let mut world = lost_from_here();
        world.happen(says(&vantage, Verdict::Lost, true, Some(beat(2)), 1));
        assert_eq!(world.phase(), PhaseName::Doubting, "{vantage}");
    }
}

#[test]
fn some_of_the_votes_must_come_from_outside_the_region() {
    let mut policy = three();
    policy.workloads.get_mut(&shop()).expect("the shop").failover.outside = 2;
    let mut world = World::quiet_with(policy);
    world.guardian.stand_by();
    world.happen(Event::Elected { term: 7 });
    world.becomes(&east(), Manner::Refuses);
    world.pass(seconds(40));
    world.happen(Event::Beaten(beat(2)));
    world.happen(says(&"bastion-east".into(), Verdict::Lost, true, Some(beat(2)), 1));
    assert_eq!(world.phase(), PhaseName::Doubting);
    let wanted = Reason::QuorumOutside { region: east(), outside: 1, needed: 2 };
    assert_eq!(world.status().regions[&east()].reason, wanted);
    world.happen(says(&witness(), Verdict::Lost, true, Some(beat(2)), 1));
    assert_eq!(world.phase(), PhaseName::FailingOver);
}

#[test]
fn others_may_see_a_loss_that_this_agent_does_not() {
    let mut world = elected();
    world.happen(says(&witness(), Verdict::Lost, true, Some(beat(1)), 1));
    assert_eq!(world.phase(), PhaseName::Guarding);
    let decision =
        world.guardian.decide(world.now, says(&"bastion-east".into(), Verdict::Lost, true, Some(beat(1)), 1));
    let opened = decision.records.iter().find_map(|record| match record {
        Record::RunOpened { reason: Reason::PrimaryLost { because, .. }, .. } => Some(because.as_ref()),
        _ => None,
    });
    assert_eq!(opened, Some(&Reason::Quorum { region: east(), lost: 2, needed: 2 }));
}

#[test]
fn standing_by_writes_nothing_and_starts_nothing() {
    let mut world = World::quiet_with(three());
    world.guardian.stand_by();
    let records = world.records.len();
    world.becomes(&east(), Manner::Refuses);
    world.pass(seconds(120));
    world.happen(says(&witness(), Verdict::Lost, true, Some(beat(1)), 1));
    let order = Order::Failover { workload: shop(), to: west(), by: "ana".to_owned() };
    assert_eq!(world.order(order), Answer::Refused { reason: Reason::NotDeciding { decider: None } });
    world.pass(seconds(120));
    assert_eq!((world.records.len(), world.commands.len()), (records, 0));
    let said = world.guardian.testimony(world.now, 1, Some(beat(1)));
    let seen = &said.regions[&shop()][&east()];
    assert_eq!((seen.verdict, seen.proven), (Verdict::Lost, true), "it says so to the others");
    assert!(seen.age.is_some_and(|age| age <= seconds(10)), "{seen:?}");
}

#[test]
fn a_takeover_raises_the_epoch_and_starts_again_what_was_under_way() {
    let mut world = lost_from_here();
    world.script("promote", [Script::Never]);
    world.happen(says(&witness(), Verdict::Lost, true, Some(beat(2)), 1));
    world.pass(seconds(3));
    let before = world.commands.last().expect("the promotion was started").1.clone();
    assert_eq!(before.step.as_str(), "promote", "{}", world.story());
    let epoch = world.status().epoch;

    // Another agent has the same record, and is elected.
    let mut other = three();
    other.agent = witness();
    let mut guardian = Guardian::restore(other, runbook(), "0.1.0", &world.records);
    guardian.stand_by();
    assert!(!guardian.decides());
    let decision = guardian.decide(world.now, Event::Elected { term: 8 });
    assert!(guardian.decides());
    let [Record::Elected { term: 8, .. }, Record::TookOver { epoch: raised, run, .. }, ..] =
        decision.records.as_slice()
    else {
        panic!("{:?}", decision.records)
    };
    assert!(*raised > epoch && *run == before.run);
    // The fence is proven anew before anything is promoted.
    let [command] = decision.commands.as_slice() else { panic!("{:?}", decision.commands) };
    assert_eq!(command.step.as_str(), "fence");
    let head = &guardian.heads()[&shop()];
    assert!(head.closing && head.epoch == *raised && head.holder == east(), "{head:?}");
    assert_eq!(head.coming, Some(west()));
}

/// The clock of whoever wrote it is ten minutes behind, or ahead: what has to be waited for is never over too early, and
/// later by no more than that.
#[test]
fn what_another_clock_says_is_never_over_too_early() {
    let world = World::quiet_with(three());
    let written = world.now;
    let (minutes, length) = (seconds(600), seconds(3600));
    let pause = Record::Paused {
        workload: shop(),
        by: "ada".to_owned(),
        reason: "a look inside".to_owned(),
        until: written + length,
    };
    let stamped = Stamped { sequence: 900, at: written, record: pause };
    let heard = |event: Event, now: Moment| {
        let mut other = three();
        other.agent = witness();
        let mut guardian = Guardian::restore(other, runbook(), "0.1.0", &world.records);
        guardian.stand_by();
        let decision = guardian.decide(now, event);
        assert!(decision.records.is_empty(), "it stands by");
        guardian
    };
    let paused = |guardian: &Guardian, now: Moment| {
        let conditions = guardian.conditions(&shop(), now).expect("the shop");
        conditions.iter().any(|condition| condition.gate == Gate::NotPaused && !condition.holds)
    };
    // Behind: heard when it is ten minutes later here.
    let here = written + minutes;
    let guardian = heard(Event::Written(stamped.clone()), here);
    assert!(paused(&guardian, here + seconds(3599)));
    assert!(!paused(&guardian, here + length));
    // Ahead: heard when it is ten minutes earlier here.
    let here = Moment::from_millis(written.millis() - 600_000);
    let guardian = heard(Event::Written(stamped.clone()), here);
    assert!(paused(&guardian, here + seconds(3599)));
    assert!(!paused(&guardian, here + minutes + length));
    // What was missed is as old as it says: nobody waits once more for what is over.
    let guardian = heard(Event::Recorded(stamped), written + length);
    assert!(!paused(&guardian, written + length));
}

#[test]
fn who_takes_over_measures_the_loss_by_its_own_clock() {
    let mut world = lost_from_here();
    world.script("fence", [Script::Never]);
    world.happen(says(&witness(), Verdict::Lost, true, Some(beat(2)), 1));
    world.pass(seconds(3));
    assert_eq!(world.commands.last().expect("begun").1.step.as_str(), "fence", "{}", world.story());
    let mut other = three();
    other.agent = witness();
    let mut guardian = Guardian::restore(other, runbook(), "0.1.0", &world.records);
    guardian.stand_by();
    // Its clock is ten minutes behind.
    let decision = guardian.decide(world.now.before(seconds(600)), Event::Elected { term: 8 });
    let reopened = decision.records.iter().filter_map(|record| match record {
        Record::Reopened { step, .. } => Some(step.as_str()),
        _ => None,
    });
    assert!(reopened.collect::<Vec<_>>().contains(&"measure-loss"), "{:?}", decision.records);
    assert_eq!(decision.commands.first().map(|command| command.step.as_str()), Some("measure-loss"));
}

/// A clock may be set while its agent is away: what it stamped before says nothing of what is lost now.
#[test]
fn who_has_restarted_since_the_primary_was_lost_knows_no_loss_and_asks() {
    let mut world = elected();
    world.becomes(&east(), Manner::Refuses);
    world.crash(seconds(1));
    world.guardian.stand_by();
    world.happen(Event::Elected { term: 8 });
    world.pass(seconds(40));
    let echo = Beat { term: 8, count: 1 };
    world.happen(Event::Beaten(echo));
    world.happen(says(&witness(), Verdict::Lost, true, Some(echo), 1));
    world.pass(seconds(5));
    let asked = world.recorded(|record| match record {
        Record::Asked { question, .. } => Some(question.clone()),
        _ => None,
    });
    assert!(matches!(asked.as_slice(), [Question::LossUnknown { .. }]), "{asked:?}: {}", world.story());
}

#[test]
fn a_decision_that_was_not_put_on_record_never_was() {
    let mut world = lost_from_here();
    let kept = world.records.clone();
    let decision = world.guardian.decide(world.now, says(&witness(), Verdict::Lost, true, Some(beat(2)), 1));
    assert!(decision.records.iter().any(|record| matches!(record, Record::RunOpened { .. })));
    world.guardian.reread(&kept);
    assert!(!world.guardian.decides());
    assert_eq!(world.status().run, None);
    assert_eq!(world.guardian.heads()[&shop()].epoch, lifeboat_core::Epoch::default());
}

#[test]
fn without_the_coordinator_people_are_told_once_and_again_when_the_primary_goes() {
    let mut world = World::quiet_with(three());
    world.guardian.stand_by();
    let told = world.notices.len();
    let cut = || Event::Coordinated(Err("no answer".to_owned()));
    (0..3).for_each(|_| world.happen(cut()));
    assert_eq!(world.notices.len(), told + 1, "{:?}", world.notices);
    world.becomes(&east(), Manner::Refuses);
    world.pass(seconds(40));
    let newest = &world.notices.last().expect("told").1;
    assert_eq!(newest.severity, Severity::Critical);
    assert!(matches!(newest.reason, Reason::LostWhileCut { .. }), "{newest:?}");
    assert_eq!(world.notices.len(), told + 2);
    assert!(world.records.iter().all(|s| !matches!(s.record, Record::RunOpened { .. })));
    world.happen(Event::Coordinated(Ok(())));
    world.happen(cut());
    assert_eq!(world.notices.len(), told + 3, "a new loss of the coordinator is told anew");
}

#[test]
fn a_region_that_its_sentry_keeps_stopped_is_made_a_standby() {
    let mut policy = three();
    let shop_policy = policy.workloads.get_mut(&shop()).expect("the shop");
    shop_policy.failover.rejoin = true;
    shop_policy.hosts = [east(), west()].into();
    shop_policy.sentries = [east(), west()].into();
    let mut world = World::quiet_with(policy);
    world.guardian.stand_by();
    world.happen(Event::Elected { term: 7 });
    world.becomes(&east(), Manner::Refuses);
    world.pass(seconds(40));
    world.happen(Event::Beaten(beat(2)));
    world.happen(says(&witness(), Verdict::Lost, true, Some(beat(2)), 1));
    world.pass_until(seconds(60), |world| world.status().primary == west() && world.status().run.is_none());
    let stopped =
        |region: RegionName| Event::Guarded { workload: shop(), region, says: Some(Guarded::Stopped) };
    world.pass(seconds(60));
    world.happen(stopped(east()));
    world.pass(Duration::from_millis(10));
    assert_eq!(world.phase(), PhaseName::Rejoining, "{}", world.story());
}

#[test]
fn a_guardian_that_is_blind_or_beside_the_primary_had_better_let_another_decide() {
    let connected = |world: &mut World| {
        world.happen(says(&witness(), Verdict::Healthy, true, Some(beat(1)), 1));
    };
    let mut world = elected();
    assert!(!world.guardian.better_elsewhere(world.now), "nobody else was heard");
    connected(&mut world);
    assert!(!world.guardian.better_elsewhere(world.now), "all is well");
    world.network = false;
    world.pass(seconds(12));
    assert!(world.guardian.better_elsewhere(world.now), "it is blind");

    let mut beside = three();
    beside.agents.insert(agent(), east());
    let mut world = World::quiet_with(beside);
    world.guardian.stand_by();
    world.happen(Event::Elected { term: 7 });
    connected(&mut world);
    assert!(world.guardian.better_elsewhere(world.now), "it fails with the primary");
    assert_eq!(
        world.guardian.rank(),
        2,
        "behind the witness and the other one in the primary region, by name"
    );
}
