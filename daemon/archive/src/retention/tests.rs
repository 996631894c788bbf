//! Worlds in which databases write, fail over, are made anew and are backed up: whatever could be restored of the window
//! before a plan can be restored after it.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

use super::*;

const DAY: u64 = 86_400_000;

/// How many bytes a segment of these worlds has.
const SEGMENT: u64 = 16;

fn policy(days: u64) -> Policy {
    let day = Duration::from_millis(DAY);
    let window = day * u32::try_from(days).unwrap();
    Policy { window, hourly: 0, daily: 0, weekly: 0, monthly: 0, grace: day }
}

fn object(text: &str) -> ObjectName {
    text.parse().unwrap()
}

/// A database as it truly is, and the archive beside it.
struct World {
    now: u64,
    system: u64,
    timeline: u32,
    lsn: u64,
    /// Where it was when: what a restore to that moment must reach.
    lived: Vec<(Moment, SystemIdentifier, Timeline, Lsn)>,
    there: Holdings,
    count: u32,
}

impl World {
    fn new() -> Self {
        let (there, lived) = Default::default();
        Self { now: 20_000 * DAY, system: 7, timeline: 1, lsn: 0, lived, there, count: 0 }
    }

    fn at(&self) -> Moment {
        Moment::from_millis(self.now)
    }

    fn pass(&mut self, millis: u64) {
        self.now += millis;
        let (system, timeline) = (SystemIdentifier::new(self.system), Timeline::new(self.timeline));
        self.lived.push((self.at(), system, timeline, Lsn::new(self.lsn)));
    }

    /// Log is written, and received: what ends within a segment as a piece.
    fn write(&mut self, bytes: u64) {
        let end = self.lsn + bytes;
        while self.lsn < end {
            let segment = self.lsn / SEGMENT * SEGMENT;
            let to = end.min(segment + SEGMENT);
            let whole = to == segment + SEGMENT;
            self.log(segment, if whole { segment } else { self.lsn }, to, whole);
            self.lsn = to;
        }
    }

    fn log(&mut self, segment: u64, from: u64, to: u64, whole: bool) {
        let part = if whole { String::new() } else { format!(".{from:08X}-{to:08X}") };
        let name = format!("wal/{:016x}/{:08X}/{segment:024X}{part}", self.system, self.timeline);
        if self.there.log.iter().any(|log| log.name.as_str() == name) {
            return;
        }
        self.there.log.push(Log {
            name: object(&name),
            system: SystemIdentifier::new(self.system),
            timeline: Timeline::new(self.timeline),
            segment: Lsn::new(segment),
            from: Lsn::new(from),
            to: Lsn::new(to),
            whole,
            written: Moment::from_millis(self.now),
        });
    }

    /// A backup that takes a while, and stores what changed since the one before.
    fn backup(&mut self, good: bool, verified: bool) -> String {
        self.count += 1;
        let (id, begun, start) = (format!("b{:04}", self.count), self.at(), Lsn::new(self.lsn));
        let timeline = Timeline::new(self.timeline);
        self.write(3);
        self.pass(60_000);
        let folder = format!("backups/{:016x}/{id}", self.system);
        let own = [format!("{folder}/data-00001"), format!("{folder}/manifest")].map(|name| object(&name));
        for name in &own {
            self.part(name, &id);
        }
        let previous = self.there.points.iter().rev().find(|point| point.system.get() == self.system);
        let earlier = previous.map(|point| point.needs.clone()).unwrap_or_default();
        // Half of what the one before is made of is still right.
        let earlier = earlier.into_iter().filter(|name| !name.as_str().ends_with("manifest"));
        let keep = self.count as usize % 4;
        let needs = earlier.skip(usize::from(keep == 0)).take(keep).chain(own.iter().cloned()).collect();
        self.there.points.push(Point {
            id: id.clone(),
            of: (WorkloadName::new("shop"), DatabaseName::new("orders")),
            system: SystemIdentifier::new(self.system),
            start,
            timeline,
            end: Lsn::new(self.lsn),
            end_timeline: timeline,
            begun,
            ended: self.at(),
            good,
            verified,
            manifest: own[1].clone(),
            needs,
        });
        id
    }

    fn part(&mut self, name: &ObjectName, backup: &str) {
        let system = SystemIdentifier::new(self.system);
        let part = Part { name: name.clone(), backup: backup.to_owned(), system, written: self.at() };
        self.there.parts.push(part);
    }

    /// A standby that had not received the last bytes takes over.
    fn fail_over(&mut self, lost: u64) {
        let at = self.lsn.saturating_sub(lost);
        let (parent, timeline) = (Timeline::new(self.timeline), Timeline::new(self.timeline + 1));
        let system = SystemIdentifier::new(self.system);
        self.there.branches.push(Branch { system, timeline, parent, at: Lsn::new(at), written: self.at() });
        (self.timeline, self.lsn) = (self.timeline + 1, at);
        // What was lost was lived, and is not to be reached on the way to what came after.
        let segment = at / SEGMENT * SEGMENT;
        if at > segment {
            self.log(segment, segment, at, false);
        }
    }

    /// The cluster is made anew (`pg_upgrade`): its log and its timelines begin at the beginning.
    fn upgrade(&mut self) {
        (self.system, self.timeline, self.lsn) = (self.system + 1, 1, 0);
    }

    fn expire(&mut self, policy: &Policy) -> Plan {
        let plan = plan(&self.there, policy, self.at()).unwrap();
        let gone: BTreeSet<&ObjectName> = plan.remove.iter().map(|(name, _)| name).collect();
        self.there.parts.retain(|part| !gone.contains(&part.name));
        self.there.log.retain(|log| !gone.contains(&log.name));
        self.there.points.retain(|point| !gone.contains(&point.manifest));
        plan
    }
}

/// Whether a state can be reached: byte by byte, from any good backup that is whole.
fn reaches(there: &Holdings, (system, timeline, lsn): (SystemIdentifier, Timeline, Lsn)) -> bool {
    let parts: BTreeSet<&ObjectName> = there.parts.iter().map(|part| &part.name).collect();
    let mut bytes = BTreeSet::new();
    for log in &there.log {
        bytes.extend((log.from.get()..log.to.get()).map(|byte| (log.system, log.timeline, byte)));
    }
    // Which timeline holds each byte on the way to that state.
    let mut way = vec![(timeline, u64::MAX)];
    let mut oldest = timeline;
    while let Some(branch) = there.branches.iter().find(|b| b.system == system && b.timeline == oldest) {
        // One that was left further back was left there for all that came before it.
        let until = way.last().map_or(u64::MAX, |(_, until)| *until);
        way.push((branch.parent, branch.at.get().min(until)));
        oldest = branch.parent;
    }
    let holder = |byte: u64| way.iter().rev().find(|(_, until)| byte < *until).map(|(timeline, _)| *timeline);
    there.points.iter().filter(|point| point.good && point.system == system && point.end <= lsn).any(
        |point| {
            // A backup of a branch that was left before it ended is of another life.
            let on_way = holder(point.end.get().saturating_sub(1)) == Some(point.end_timeline);
            let whole = point.needs.iter().all(|name| parts.contains(name));
            let mut way = point.start.get()..lsn.get();
            on_way
                && whole
                && way.all(|byte| holder(byte).is_some_and(|on| bytes.contains(&(system, on, byte))))
        },
    )
}

fn states(world: &World, from: Moment) -> Vec<(SystemIdentifier, Timeline, Lsn)> {
    let lived = world.lived.iter();
    let first = lived.clone().rposition(|(at, ..)| *at <= from).unwrap_or_default();
    lived.skip(first).map(|(_, system, timeline, lsn)| (*system, *timeline, *lsn)).collect()
}

#[test]
fn what_could_be_restored_of_the_window_still_can() {
    let (mut reached, mut removed, mut unreached) = (0, 0, 0);
    for seed in 0..60 {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let mut below = |most: u32| random.next_u32() % most;
        let mut world = World::new();
        let mut policy = policy(u64::from(2 + below(6)));
        (policy.daily, policy.weekly, policy.monthly) = (below(8), below(4), below(3));
        for _ in 0..60 {
            match below(20) {
                0..8 => world.write(u64::from(1 + below(40))),
                8..14 => drop(world.backup(below(8) != 0, below(2) == 0)),
                14 => world.fail_over(u64::from(below(12))),
                15 if below(4) == 0 => world.upgrade(),
                16 if !world.there.log.is_empty() => {
                    // A part of the log was never received.
                    let at = below(u32::try_from(world.there.log.len()).unwrap()) as usize;
                    drop(world.there.log.remove(at));
                }
                17 => {
                    world.count += 1;
                    let id = format!("b{:04}", world.count);
                    let name = object(&format!("backups/{:016x}/{id}/data-00001", world.system));
                    world.part(&name, &id);
                }
                _ => {}
            }
            world.pass(u64::from(1 + below(20)) * DAY / 20);
            if below(6) == 0 {
                let begins = world.at().before(policy.window);
                let wanted: BTreeSet<_> = states(&world, begins).into_iter().collect();
                let before: Vec<_> =
                    wanted.into_iter().filter(|state| reaches(&world.there, *state)).collect();
                let good = world.there.points.iter().any(|point| point.good);
                let plan = world.expire(&policy);
                removed += plan.remove.len();
                for state in before {
                    assert!(
                        reaches(&world.there, state),
                        "seed {seed}: {state:?} is lost by {plan:#?}; {:#?}",
                        world.there
                    );
                    reached += 1;
                }
                assert_eq!(good, world.there.points.iter().any(|point| point.good), "seed {seed}");
                let parts: BTreeSet<_> = world.there.parts.iter().map(|part| &part.name).collect();
                for point in &world.there.points {
                    assert!(point.needs.iter().all(|name| parts.contains(name)), "seed {seed}: {point:?}");
                }
                let again = super::plan(&world.there, &policy, world.at()).unwrap();
                assert!(again.expired.is_empty(), "seed {seed}: {again:#?}");
                unreached += 1;
            }
        }
    }
    // The worlds are no deserts: much could be restored, and much was removed.
    assert!(reached > 800 && removed > 800 && unreached > 200, "{reached} {removed} {unreached}");
}

#[test]
fn the_archive_of_a_quiet_life_stays_small() {
    let mut world = World::new();
    let policy = policy(7);
    let mut most = 0;
    for day in 0..120 {
        world.backup(true, true);
        for _ in 0..24 {
            world.write(40);
            world.pass(DAY / 24);
        }
        world.expire(&policy);
        if day > 20 {
            most = most.max(world.there.log.len());
            assert!((8..=10).contains(&world.there.points.len()), "{}", world.there.points.len());
        }
    }
    // Nine days of sixty whole segments each, and the pieces of the last day.
    assert!(most < 9 * 62 + 60, "{most}");
}

#[test]
fn a_cluster_that_was_made_anew_is_newer_than_the_old_one() {
    let mut world = World::new();
    for _ in 0..5 {
        world.fail_over(0);
    }
    world.write(4000);
    let old = world.backup(true, true);
    world.upgrade();
    world.pass(DAY);
    let new = world.backup(true, false);
    world.pass(20 * DAY);
    world.write(5);
    let plan = world.expire(&policy(7));
    assert_eq!(plan.kept.keys().collect::<Vec<_>>(), [&old, &new], "only the old one was read back");
    assert!(plan.kept[&new].contains(&Why::WindowBegins) && plan.kept[&old].contains(&Why::NewestVerified));
    world.there.points.last_mut().unwrap().verified = true;
    let plan = world.expire(&policy(7));
    assert_eq!(plan.expired, [old]);
    assert_eq!(world.there.points.len(), 1);
}

#[test]
fn a_clock_that_runs_ahead_makes_nothing_old() {
    let mut world = World::new();
    for _ in 0..5 {
        world.backup(true, true);
        world.write(20);
        world.pass(DAY);
    }
    let ahead = Moment::from_millis(world.now + 4000 * DAY);
    let plan = plan(&world.there, &policy(30), ahead).unwrap();
    assert_eq!(
        (plan.expired.len(), plan.remove.iter().filter(|(_, why)| *why != Gone::Piece).count()),
        (0, 0)
    );
}

#[test]
fn the_last_good_one_stays_however_old_it_is() {
    let mut world = World::new();
    let good = world.backup(true, false);
    for _ in 0..40 {
        world.pass(DAY);
        world.write(30);
        world.backup(false, false);
    }
    let plan = world.expire(&policy(3));
    assert!(plan.kept[&good].contains(&Why::NewestGood) && plan.kept[&good].contains(&Why::WindowBegins));
    assert!(plan.expired.len() > 30);
    let last = (SystemIdentifier::new(7), Timeline::new(1), Lsn::new(world.lsn));
    assert!(reaches(&world.there, last), "with all of its log");
}

#[test]
fn counts_keep_the_newest_of_each() {
    let mut world = World::new();
    // 2024-10-04 is day 20000; one each six hours for a hundred days.
    for _ in 0..400 {
        world.backup(true, true);
        world.write(20);
        world.pass(DAY / 4 - 60_000);
    }
    let policy = Policy { hourly: 6, daily: 10, weekly: 5, monthly: 3, ..policy(1) };
    let plan = world.expire(&policy);
    let of = |why| plan.kept.values().filter(|whys| whys.contains(&why)).count();
    assert_eq!([of(Why::Hour), of(Why::Day), of(Why::Week), of(Why::Month)], [6, 10, 5, 3]);
    for point in &world.there.points {
        let why = &plan.kept[&point.id];
        let later = world.there.points.iter().find(|other| other.ended > point.ended);
        if why.contains(&Why::Month)
            && let Some(later) = later
        {
            assert_ne!(month(point.ended), month(later.ended), "the last of its month");
        }
        // What is kept by count alone keeps what makes it consistent, and not what came after.
        let bytes: BTreeSet<_> =
            world.there.log.iter().flat_map(|log| log.from.get()..log.to.get()).collect();
        assert!((point.start.get()..point.end.get()).all(|byte| bytes.contains(&byte)));
    }
    let oldest = world.there.points.iter().map(|point| point.end.get()).min().unwrap();
    assert!(
        !world.there.log.iter().any(|log| log.from.get() > oldest && log.from.get() < oldest + 5 * SEGMENT)
    );
}

#[test]
fn what_a_run_under_way_has_stored_is_not_touched() {
    let mut world = World::new();
    world.backup(true, true);
    let name = object("backups/0000000000000007/b9999/data-00001");
    world.part(&name, "b9999");
    world.pass(9 * DAY);
    world.write(1);
    assert!(world.expire(&policy(1)).remove.is_empty(), "it may take nine days");
    world.backup(true, true);
    world.pass(DAY);
    world.write(1);
    let plan = world.expire(&policy(1));
    assert!(plan.remove.contains(&(name, Gone::Leftover)), "a later one was begun and finished");
}

#[test]
fn a_plan_that_would_lose_something_is_refused() {
    let mut world = World::new();
    let old = world.backup(true, true);
    world.write(50);
    world.pass(3 * DAY);
    let new = world.backup(true, true);
    world.write(50);
    world.pass(DAY);
    let policy = policy(2);
    let right = plan(&world.there, &policy, world.at()).unwrap();
    let refused = |spoil: &dyn Fn(&mut Plan)| {
        let mut plan = right.clone();
        spoil(&mut plan);
        proof::prove(&world.there, &policy, &plan).unwrap_err().0
    };
    let data = object(&format!("backups/0000000000000007/{new}/data-00001"));
    assert!(refused(&|plan| plan.remove.push((data.clone(), Gone::Unneeded))).contains("data-00001"));
    let segment = world.there.log.iter().rfind(|log| log.whole).unwrap().name.clone();
    assert!(refused(&|plan| plan.remove.push((segment.clone(), Gone::Log))).contains("within the window"));
    let all_gone = |plan: &mut Plan| {
        plan.kept.clear();
        plan.remove.extend(world.there.points.iter().map(|point| (point.manifest.clone(), Gone::Expired)));
    };
    refused(&all_gone);
    assert!(right.kept.contains_key(&old), "the window begins with it");
}
