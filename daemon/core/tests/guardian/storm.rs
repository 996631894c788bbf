//! Thousands of seeded lives in which anything may happen: probes that say anything, outcomes that come
//! late, twice or for nothing, orders at any time, kills at any instant. The oracle judges every decision.
//!
//! **Invariant:** a seed makes one life, and the same life every time.

use std::time::Duration;

use lifeboat_core::event::Witnessing;
use lifeboat_core::order::Acceptance;
use lifeboat_core::policy::{Mode, WorkloadPolicy};
use lifeboat_core::sighting::FailureKind;
use lifeboat_core::status::PhaseName;
use lifeboat_core::{
    Command, Event, Evidence, Failure, Fault, FaultKind, Moment, Order, Outcome, ProbeName, RegionName,
    Sighting, WorkloadName,
};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

use crate::oracle::Tally;
use crate::pretend::World;
use crate::setting::{agent, east, policy, probe, runbook, seconds, west, workload};

/// How many lives, and how many things happen in each.
const LIVES: u64 = 2_000;
const HAPPENINGS: u32 = 150;

/// One life.
struct Life {
    random: ChaCha8Rng,
    world: World,
    /// Commands whose outcome nobody has told yet.
    pending: Vec<Command>,
    /// Outcomes that were told before, which may be told again.
    told: Vec<Event>,
    /// How likely a region is to answer now, in percent: [east, west].
    health: [u32; 2],
    trace: Vec<String>,
}

impl Life {
    fn new(seed: u64) -> Self {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let mut wanted = vec![odd_workload(&mut random, "shop")];
        if random.next_u32() % 3 == 0 {
            wanted.push(odd_workload(&mut random, "shop-e1"));
        }
        let mut world = World::new(policy(wanted));
        world.happen(Event::Started);
        Self { random, world, pending: Vec::new(), told: Vec::new(), health: [100, 100], trace: Vec::new() }
    }

    fn below(&mut self, n: u32) -> u32 {
        self.random.next_u32() % n
    }

    fn chance(&mut self, percent: u32) -> bool {
        self.below(100) < percent
    }

    fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from[self.below(u32::try_from(from.len()).expect("few")) as usize].clone()
    }

    /// Something happens.
    fn step(&mut self) {
        let length = match self.below(100) {
            0..70 => u64::from(self.below(1_500)),
            70..97 => u64::from(self.below(12_000)),
            _ => u64::from(self.below(4_000_000)),
        };
        self.world.now = self.world.now + Duration::from_millis(length);
        if self.chance(4) {
            self.health = [self.pick(&[0, 0, 0, 50, 100]), self.pick(&[0, 60, 100, 100, 100])];
        }
        match self.below(100) {
            0..46 => self.look(),
            46..58 => self.witness(),
            58..68 => self.tell(Event::Tick),
            68..84 => self.outcome(),
            84..87 => self.late_outcome(),
            87..97 => self.order(),
            97..99 => self.kill(),
            _ => self.garbage(),
        }
    }

    /// Happens to the guardian, and is judged; a failure names what led to it.
    fn tell(&mut self, event: Event) {
        self.trace.push(format!("{} {event:?}", self.world.now));
        let before = self.world.commands.len();
        self.world.happen(event);
        let begun: Vec<Command> = self.world.commands[before..].iter().map(|(_, c)| c.clone()).collect();
        self.pending.extend(begun);
        // What is under way by the judge's book is what was handed out.
        for (run, step, attempt) in self.world.oracle.under_way() {
            let out = self.pending.iter().any(|c| (&c.run, &c.step, c.attempt) == (&run, &step, attempt));
            assert!(out, "{run}: {step} is under way for ever");
        }
    }

    fn look(&mut self) {
        let names: Vec<WorkloadName> = self.world.policy.workloads.keys().cloned().collect();
        let name = self.pick(&names);
        let known: Vec<(ProbeName, RegionName, bool)> = self.world.policy.workloads[&name]
            .probes
            .iter()
            .map(|(n, p)| (n.clone(), p.region.clone(), p.database.is_some()))
            .collect();
        let (probe, region, database) = self.pick(&known);
        let health = self.health[usize::from(region == west())];
        let look = if self.chance(health) {
            Ok(if database { self.sample(&name, &region) } else { Evidence::Answered })
        } else {
            Err(Failure::new(self.failure(), "stormy"))
        };
        let took = Duration::from_millis(u64::from(self.below(900)));
        let at = self.world.now;
        let sighting = Sighting { workload: name, region, probe, vantage: agent(), at, took, look };
        self.tell(Event::Sighted(sighting));
    }

    fn sample(&mut self, workload: &WorkloadName, region: &RegionName) -> Evidence {
        use lifeboat_core::sighting::{DatabaseSample, DatabaseState, StandbyPosition};
        use lifeboat_core::{Lsn, SystemIdentifier, Timeline};

        let lives = self.world.guardian.beliefs()[workload].0 == *region;
        let primary = if self.chance(97) { lives } else { !lives };
        let now = self.world.now;
        let state = if primary {
            DatabaseState::Primary {
                written: Lsn::new(now.millis()),
                heartbeat: self.chance(90).then_some(now),
                synchronous: if self.chance(10) { ["west".to_owned()].into() } else { [].into() },
            }
        } else {
            DatabaseState::Standby(StandbyPosition {
                received: Lsn::new(1),
                replayed: Lsn::new(1),
                heartbeat: Some(now),
                epoch: None,
                streaming: true,
                name: region.as_str().to_owned(),
            })
        };
        let system = SystemIdentifier::new(if self.chance(98) { 7 } else { 8 });
        Evidence::Database(DatabaseSample {
            database: "orders".into(),
            system,
            timeline: Timeline::new(2),
            state,
        })
    }

    fn failure(&mut self) -> FailureKind {
        use FailureKind::{
            CannotCommit, CommitSilent, NotReady, Refused, Silent, Unreachable, WrongIdentity, WrongRole,
        };
        let kinds = [
            Refused,
            Refused,
            Refused,
            Refused,
            CannotCommit,
            Silent,
            Silent,
            CommitSilent,
            NotReady,
            Unreachable,
            WrongRole,
            WrongIdentity,
        ];
        self.pick(&kinds)
    }

    fn witness(&mut self) {
        let answered = if self.chance(80) { 3 } else { self.below(3) as usize };
        let ago = Duration::from_millis(u64::from(self.below(500)));
        let at =
            Moment::from_millis(self.world.now.millis() - u64::try_from(ago.as_millis()).expect("short"));
        self.tell(Event::Witnessed(Witnessing { vantage: agent(), at, answered }));
    }

    fn outcome(&mut self) {
        if self.pending.is_empty() {
            return self.tell(Event::Tick);
        }
        let at = self.below(u32::try_from(self.pending.len()).expect("few")) as usize;
        let command = self.pending.remove(at);
        let well = if command.step.as_str() == "fence" { 60 } else { 84 };
        let outcome = if self.chance(well) {
            Outcome::Succeeded(self.success(&command))
        } else {
            let kinds = [
                FaultKind::Unreachable,
                FaultKind::Unreachable,
                FaultKind::Unclear,
                FaultKind::Refused,
                FaultKind::Stale,
            ];
            Outcome::Failed(Fault::new(self.pick(&kinds), "stormy"))
        };
        let event = Event::StepEnded { ended: command.which(), outcome };
        self.told.push(event.clone());
        self.tell(event);
    }

    fn success(&mut self, command: &Command) -> lifeboat_core::Output {
        use lifeboat_core::sighting::StandbyPosition;
        use lifeboat_core::{Lsn, Output, SystemIdentifier, Timeline};

        if self.chance(4) {
            return Output::Fenced { proofs: [].into() };
        }
        let age = [Some(1_000), Some(4_000), Some(4_000), Some(400_000), None];
        let heartbeat = self.pick(&age).map(|ms| Moment::from_millis(self.world.now.millis() - ms));
        let system = SystemIdentifier::new(if self.chance(97) { 7 } else { 8 });
        crate::pretend::well(&command.action, |_| lifeboat_core::outcome::TargetPosition {
            system,
            timeline: Timeline::new(1),
            position: StandbyPosition {
                received: Lsn::new(1),
                replayed: Lsn::new(1),
                heartbeat,
                epoch: None,
                streaming: false,
                name: "west".to_owned(),
            },
        })
    }

    /// An outcome that was told before, or of an attempt that never was.
    fn late_outcome(&mut self) {
        let count = u32::try_from(self.told.len()).expect("few");
        if count == 0 {
            return self.garbage();
        }
        let at = self.below(count) as usize;
        let mut event = self.told[at].clone();
        // A duplicate is told again only while no later attempt has its number (see `Continued`).
        if let Event::StepEnded { ended, .. } = &mut event {
            ended.attempt += 7 + self.below(3);
        }
        let records = self.world.records.len();
        self.tell(event);
        assert_eq!(self.world.records.len(), records, "an outcome of no attempt was taken");
        self.world.oracle.tally.dropped += 1;
    }

    fn order(&mut self) {
        let workloads: Vec<WorkloadName> = self.world.policy.workloads.keys().cloned().collect();
        let workload = self.pick(&workloads);
        let by = "ada".to_owned();
        let asked = self.world.oracle.asked();
        let order = match self.below(10) {
            0..5 if !asked.is_empty() => {
                let (run, question) = self.pick(&asked);
                let right = question.acceptance();
                let wrong = [
                    Some(Acceptance::Loss("5s".into())),
                    Some(Acceptance::Unfenced("north".into())),
                    Some(Acceptance::Loss("unknown".into())),
                    None,
                ];
                let accept = if self.chance(60) { Some(right) } else { self.pick(&wrong) };
                Order::Approve { run, accept, by }
            }
            0..2 => Order::Approve { run: "shop-e3".into(), accept: Some(Acceptance::Loss("0s".into())), by },
            2..7 => {
                Order::Failover { workload, to: self.pick(&[east(), west(), west(), "north".into()]), by }
            }
            7 => {
                let length = Duration::from_millis(u64::from(self.below(200_000)));
                Order::Pause { workload, reason: "storm".to_owned(), until: self.world.now + length, by }
            }
            _ => Order::Resume { workload, by },
        };
        self.tell(Event::Ordered(order));
    }

    fn kill(&mut self) {
        self.trace.push(format!("{} killed", self.world.now));
        self.pending.clear();
        let open = self.world.oracle.under_way();
        self.world.oracle.restarted();
        let records = self.world.records.clone();
        self.world.guardian =
            lifeboat_core::Guardian::restore(self.world.policy.clone(), runbook(), "0.1.0", &records);
        self.tell(Event::Started);
        let again = self.world.oracle.under_way();
        let expected: Vec<_> =
            open.into_iter().map(|(run, step, attempt)| (run, step, attempt + 1)).collect();
        for (run, step, attempt) in &expected {
            // A fence is begun again only on fresh evidence, and always before a promotion.
            let found = match step.as_str() {
                "fence" => true,
                // Unless a person accepted that there is no proof to renew.
                "promote" if again.iter().any(|(r, s, _)| r == run && s.as_str() == "fence") => true,
                _ => again.contains(&(run.clone(), step.clone(), *attempt)),
            };
            assert!(found, "{run} {step} {attempt} was not started again: {again:?}");
        }
    }

    /// Things that no adapter should say.
    fn garbage(&mut self) {
        let at = self.world.now;
        let look = Err(Failure::new(FailureKind::Refused, ""));
        let took = Duration::ZERO;
        let sighting = |workload: &str, region: &str, probe: &str, vantage: &str| Sighting {
            workload: workload.into(),
            region: region.into(),
            probe: probe.into(),
            vantage: vantage.into(),
            at,
            took,
            look: look.clone(),
        };
        let ended = |workload: &str, run: &str, step: &str| Event::StepEnded {
            ended: lifeboat_core::event::Attempt {
                workload: workload.into(),
                run: run.into(),
                step: step.into(),
                attempt: u32::MAX,
                undo: false,
            },
            outcome: Outcome::Succeeded(lifeboat_core::Output::Reported),
        };
        let events = [
            Event::Sighted(sighting("shp", "east", "orders-east", "bastion-west")),
            Event::Sighted(sighting("shop", "north", "orders-east", "bastion-west")),
            Event::Sighted(sighting("shop", "east", "nobody", "bastion-west")),
            Event::Sighted(sighting("shop", "east", "orders-east", "a stranger")),
            Event::Witnessed(Witnessing { vantage: "a stranger".into(), at, answered: usize::MAX }),
            ended("shp", "shop-e1", "promote"),
            ended("shop", "shop-e1", "promote"),
            ended("shop", "shop-e2", "fence"),
            ended("shop", "shop-e1", "no such step"),
        ];
        let event = self.pick(&events);
        self.tell(event);
    }

    /// The storm is over: everything answers, every step goes well. Each run must come to an end or ask.
    fn calm(&mut self) {
        // Longer than a run may wait for evidence.
        for _ in 0..400 {
            self.world.now = self.world.now + Duration::from_millis(500);
            match self.pending.pop() {
                Some(command) => {
                    let standing = |_: &_| lifeboat_core::outcome::TargetPosition {
                        system: lifeboat_core::SystemIdentifier::new(7),
                        timeline: lifeboat_core::Timeline::new(1),
                        position: lifeboat_core::sighting::StandbyPosition {
                            received: lifeboat_core::Lsn::new(1),
                            replayed: lifeboat_core::Lsn::new(1),
                            heartbeat: Some(self.world.now),
                            epoch: None,
                            streaming: false,
                            name: "west".to_owned(),
                        },
                    };
                    let outcome = Outcome::Succeeded(crate::pretend::well(&command.action, standing));
                    self.tell(Event::StepEnded { ended: command.which(), outcome });
                }
                None => self.tell(Event::Tick),
            }
        }
        for (name, status) in self.world.guardian.status(self.world.now).workloads {
            let waits = status.run.as_ref().is_some_and(|run| run.question.is_some());
            let at_rest = status.phase != PhaseName::FailingOver || waits;
            assert!(at_rest, "{name} is still failing over: {:?}", status.run);
        }
    }
}

fn odd_workload(random: &mut ChaCha8Rng, name: &str) -> WorkloadPolicy {
    let mut below = |n: u32| random.next_u32() % n;
    let mut wanted = workload();
    wanted.name = name.into();
    for watch in wanted.probes.values_mut() {
        *watch = probe(watch.region.as_str(), watch.database.as_ref().map(|d| d.as_str()));
        watch.failures = 1 + below(3);
        watch.recoveries = 1 + below(3);
        watch.silence = seconds(u64::from(below(3)) * 20);
    }
    wanted.failover.mode = if below(4) == 0 { Mode::Supervised } else { Mode::Automatic };
    wanted.failover.cooldown = seconds(u64::from(below(2)) * 60);
    wanted.failover.budget = 1 + below(4) as usize;
    wanted.failover.budget_window = seconds(3_600);
    wanted.failover.approval_expires = seconds(1 + u64::from(below(120)));
    wanted.objectives.rpo = seconds(2 + u64::from(below(10)));
    wanted
}

fn live(seed: u64) -> (Tally, Vec<lifeboat_core::Stamped>) {
    let mut life = Life::new(seed);
    let lived = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        for _ in 0..HAPPENINGS {
            life.step();
        }
        life.calm();
    }));
    if let Err(cause) = lived {
        let tail = life.trace.len().saturating_sub(25);
        let trace = life.trace[tail..].join("\n");
        let text = cause.downcast_ref::<String>().cloned().unwrap_or_else(|| "a panic".to_owned());
        panic!("seed {seed}: {text}\nthe last happenings:\n{trace}\nthe record:{}", life.world.story());
    }
    (life.world.oracle.tally, life.world.records)
}

#[test]
fn no_storm_breaks_a_promise() {
    let mut sum = Tally::default();
    for seed in 0..LIVES {
        let (tally, _) = live(seed);
        for (all, one) in [
            (&mut sum.runs, tally.runs),
            (&mut sum.promotions, tally.promotions),
            (&mut sum.switches, tally.switches),
            (&mut sum.done, tally.done),
            (&mut sum.asked, tally.asked),
            (&mut sum.approved, tally.approved),
            (&mut sum.stranded, tally.stranded),
            (&mut sum.continued, tally.continued),
            (&mut sum.fruitless, tally.fruitless),
            (&mut sum.waived, tally.waived),
            (&mut sum.refused, tally.refused),
            (&mut sum.dropped, tally.dropped),
        ] {
            *all += one;
        }
    }
    // A storm in which nothing ever happens proves nothing.
    let Tally {
        runs,
        promotions,
        switches,
        done,
        asked,
        approved,
        stranded,
        continued,
        fruitless,
        waived,
        refused,
        dropped,
    } = sum;
    for (what, count) in [
        ("runs", runs),
        ("promotions", promotions),
        ("switches", switches),
        ("done", done),
        ("asked", asked),
        ("approved", approved),
        ("stranded", stranded),
        ("continued", continued),
        ("fruitless", fruitless),
        ("waived", waived),
        ("refused", refused),
        ("dropped", dropped),
    ] {
        assert!(count >= 25, "only {count} {what} in {LIVES} lives: {sum:?}");
    }
}

#[test]
fn a_seed_makes_one_life() {
    for seed in [3, 77, 1_234] {
        assert_eq!(live(seed).1, live(seed).1);
    }
}
