//! The pretend world: a clock, probes, one agent that may die, and people who answer and go on.
//!
//! **Invariant:** the guardian is told of the world only by events; what it decides is written down, then begun.

use std::collections::BTreeMap;
use std::time::Duration;

use lifeboat_core::event::Witnessing;
use lifeboat_core::plan::Action;
use lifeboat_core::record::Ending;
use lifeboat_core::status::RunStatus;
use lifeboat_core::{
    Answer, Command, Decision, Event, Evidence, Fault, Guardian, Moment, Notice, Order, Outcome, Policy,
    RegionName, Severity, Sighting, Stamped,
};
use lifeboat_runbooks::{Kind, Runbooks};

use crate::journal::ledgers;
use crate::oracle;
use crate::server::Estate;
use crate::trouble::{Death, Trouble};

const SECOND: Duration = Duration::from_secs(1);
/// How long a step takes.
const STEP: Duration = Duration::from_millis(100);
/// How long after a lost outcome the agent is killed.
const PATIENCE: Duration = Duration::from_secs(8);
/// How often a person lets a stranded run go on.
const PUSHES: u32 = 3;

/// An effect that is under way.
#[derive(Clone, Debug)]
struct Flight {
    due: Moment,
    command: Command,
}

/// The world.
#[derive(Clone)]
pub(crate) struct World {
    /// What is tried, for messages of failed tests.
    pub(crate) title: String,
    pub(crate) guardian: Guardian,
    pub(crate) policy: Policy,
    pub(crate) pages: Runbooks,
    pub(crate) now: Moment,
    pub(crate) records: Vec<Stamped>,
    /// How many records there were after each decision that wrote any.
    pub(crate) batches: Vec<usize>,
    pub(crate) estate: Estate,
    /// How often each step, or taking it back, was begun.
    pub(crate) begun: BTreeMap<(String, bool), u32>,
    pub(crate) troubles: Vec<Trouble>,
    /// Notices since the agent last started.
    notices: Vec<Notice>,
    flights: Vec<Flight>,
    wake: Option<Moment>,
    seconds: u64,
    /// Where the counting of records begins.
    base: usize,
    /// Whether two places take writes through nobody's fault, until the first fence.
    split: bool,
    /// When the agent is killed because an outcome never came.
    doomed: Option<Moment>,
    pushes: u32,
    pub(crate) deaths: u32,
    reopened: u32,
}

impl World {
    /// Half a quiet minute after the start.
    pub(crate) fn new(policy: Policy, pages: Runbooks, home: &RegionName, standby: &RegionName) -> Self {
        let mut world = Self {
            title: String::new(),
            guardian: Guardian::restore(policy.clone(), pages.clone(), "0.1.0", &[]),
            policy,
            pages,
            now: Moment::from_millis(1_795_252_486_000),
            records: Vec::new(),
            batches: Vec::new(),
            estate: Estate::new(home, standby),
            begun: BTreeMap::new(),
            troubles: Vec::new(),
            notices: Vec::new(),
            flights: Vec::new(),
            wake: None,
            seconds: 0,
            base: 0,
            split: false,
            doomed: None,
            pushes: 0,
            deaths: 0,
            reopened: 0,
        };
        world.happen(Event::Started);
        world.pass(30);
        world
    }

    /// The same world under other pages, and with other troubles, from here on.
    pub(crate) fn under(mut self, policy: Policy, pages: Runbooks) -> Self {
        (self.policy, self.pages) = (policy, pages);
        self.guardian = self.restored(self.records.len());
        self.happen(Event::Started);
        self.pass(30);
        (self.base, self.estate.changes) = (self.records.len(), BTreeMap::new());
        self.begun.clear();
        self.batches.clear();
        self
    }

    /// The old primary comes back and takes writes, as it did before.
    pub(crate) fn comes_back(&mut self, region: &RegionName) {
        let server = self.estate.server(region);
        (server.up, server.fenced) = (true, false);
        self.split = true;
    }

    pub(crate) fn restored(&self, records: usize) -> Guardian {
        Guardian::restore(self.policy.clone(), self.pages.clone(), "0.1.0", &self.records[..records])
    }

    /// How many records were written since the beginning.
    pub(crate) fn written(&self) -> usize {
        self.records.len() - self.base
    }

    pub(crate) fn base(&self) -> usize {
        self.base
    }

    pub(crate) fn pass(&mut self, seconds: u64) {
        (0..seconds).for_each(|_| self.second());
    }

    /// One second: clients work, probes look, steps end, people answer.
    pub(crate) fn second(&mut self) {
        let end = self.now + SECOND;
        while let Some(moment) = self.next_moment().filter(|moment| *moment <= end) {
            self.now = self.now.max(moment);
            self.turn();
        }
        self.now = end;
        self.seconds += 1;
        self.estate.work();
        self.judge_moment();
        if self.doomed.is_some_and(|doom| doom <= self.now) {
            self.die(Death { begun: true, lands: false, reopens: false });
        }
        if self.seconds.is_multiple_of(5) {
            self.look_around();
        }
        self.happen(Event::Tick);
        self.answer();
    }

    fn next_moment(&self) -> Option<Moment> {
        self.flights.iter().map(|flight| flight.due).chain(self.wake).min()
    }

    fn turn(&mut self) {
        let landed = self.flights.iter().position(|flight| flight.due <= self.now);
        match landed {
            Some(index) => {
                let flight = self.flights.remove(index);
                self.land(&flight.command);
            }
            None => {
                self.wake = None;
                self.happen(Event::Tick);
            }
        }
    }

    fn look_around(&mut self) {
        let vantage = self.policy.agent.clone();
        self.happen(Event::Witnessed(Witnessing { vantage: vantage.clone(), at: self.now, answered: 3 }));
        let workload = self.policy.workloads.values().next().expect("a workload").clone();
        for (probe, policy) in &workload.probes {
            let region = policy.region.clone();
            let lives_here = self.guardian.beliefs()[&workload.name].0 == region;
            let look = match &policy.database {
                Some(_) => self.estate.look(self.now, &region, lives_here),
                None if self.estate.server(&region).up => Ok(Evidence::Answered),
                None => Err(lifeboat_core::Failure::new(
                    lifeboat_core::sighting::FailureKind::Refused,
                    "pretended",
                )),
            };
            let (workload, probe, vantage) = (workload.name.clone(), probe.clone(), vantage.clone());
            let (at, took) = (self.now, Duration::from_millis(20));
            self.happen(Event::Sighted(Sighting { workload, region, probe, vantage, at, took, look }));
        }
    }

    /// People say yes to whatever is asked.
    fn answer(&mut self) {
        if let Some((run, question)) = self.open_run().and_then(|run| Some((run.run, run.question?))) {
            self.order(Order::Approve { run, accept: Some(question.acceptance()), by: "ada".into() });
        }
    }

    fn open_run(&self) -> Option<RunStatus> {
        self.guardian.status(self.now).workloads.into_values().next().expect("a workload").run
    }

    pub(crate) fn order(&mut self, order: Order) -> Option<Answer> {
        self.happen(Event::Ordered(order))
    }

    /// Something happens to the guardian; what it decides is written down and begun, unless the agent dies of it.
    pub(crate) fn happen(&mut self, event: Event) -> Option<Answer> {
        let Decision { records, commands, notices, answer, wake } = self.guardian.decide(self.now, event);
        let room = self
            .death()
            .map_or(usize::MAX, |(after, _)| (self.base + after).saturating_sub(self.records.len()));
        let (wrote, torn) = (!records.is_empty(), records.len() > room);
        let dies = wrote && records.len() >= room;
        for record in records.into_iter().take(room) {
            let sequence = self.records.len() as u64 + 1;
            self.records.push(Stamped { sequence, at: self.now, record });
        }
        if wrote {
            self.batches.push(self.records.len());
        }
        if dies {
            let how = self.death().map(|(_, how)| how).expect("it dies");
            self.troubles.retain(
                |t| !matches!(t, Trouble::Killed { after, .. } if self.base + after <= self.records.len()),
            );
            if how.begun && !torn {
                commands.into_iter().for_each(|command| self.begin(command));
            }
            self.die(how);
            return None;
        }
        self.notices.extend(notices);
        self.wake = [self.wake, wake].into_iter().flatten().min();
        commands.into_iter().for_each(|command| self.begin(command));
        self.region_dies();
        self.cancel();
        answer.map(|answer| *answer)
    }

    fn death(&self) -> Option<(usize, Death)> {
        let deaths = self.troubles.iter().filter_map(|t| match t {
            Trouble::Killed { after, how } => Some((*after, *how)),
            _ => None,
        });
        deaths.min_by_key(|(after, _)| *after)
    }

    fn region_dies(&mut self) {
        let due = |t: &Trouble| matches!(t, Trouble::RegionDies { after } if *after <= self.written());
        if self.troubles.iter().any(due) {
            self.troubles.retain(|t| !matches!(t, Trouble::RegionDies { .. }));
            let (_, from, _) = oracle::newest_run(&self.records).expect("a run");
            self.estate.server(&from).up = false;
        }
    }

    fn cancel(&mut self) {
        let due = |t: &Trouble| matches!(t, Trouble::Cancelled { after } if *after <= self.written());
        if !self.troubles.iter().any(due) {
            return;
        }
        self.troubles.retain(|t| !matches!(t, Trouble::Cancelled { .. }));
        if let Some(run) = self.open_run() {
            self.order(Order::Cancel { run: run.run, reason: "enough".into(), by: "ada".into() });
        }
    }

    fn begin(&mut self, command: Command) {
        self.judge(oracle::judge_start(&self.records, &command));
        *self.begun.entry((command.step.as_str().to_owned(), command.undo)).or_default() += 1;
        self.flights.push(Flight { due: self.now + STEP, command });
    }

    /// The effect is there, and the outcome is told, unless something goes wrong with either.
    fn land(&mut self, command: &Command) {
        let step = command.step.as_str().to_owned();
        let failure = self.failure(&step, command.undo);
        let outcome = match failure {
            Some((fault, false)) => Outcome::Failed(fault),
            Some((fault, true)) => {
                let _ = self.effect(&command.action);
                Outcome::Failed(fault)
            }
            None => self.effect(&command.action),
        };
        if self.troubles.iter().any(|t| matches!(t, Trouble::ActsTwice { step: s } if *s == step)) {
            let _ = self.effect(&command.action);
        }
        if let Some(at) =
            self.troubles.iter().position(|t| matches!(t, Trouble::Lost { step: s, .. } if *s == step))
        {
            self.troubles.remove(at);
            self.doomed = Some(self.now + PATIENCE);
            return;
        }
        let twice = self.troubles.iter().any(|t| matches!(t, Trouble::ToldTwice { step: s } if *s == step));
        let event = Event::StepEnded { ended: command.which(), outcome };
        if twice {
            self.happen(event.clone());
        }
        self.happen(event);
    }

    fn failure(&mut self, wanted: &str, undoing: bool) -> Option<(Fault, bool)> {
        let lost = self.troubles.iter().find_map(|t| match t {
            Trouble::Lost { step, acted: false } if step == wanted => Some(()),
            _ => None,
        });
        if lost.is_some() {
            return Some((Fault::new(lifeboat_core::FaultKind::Unclear, "never told"), false));
        }
        self.troubles.iter_mut().find_map(|t| match t {
            Trouble::Fails { step, undo, kind, times, acted }
                if step == wanted && *undo == undoing && *times > 0 =>
            {
                *times -= 1;
                Some((Fault::new(*kind, "pretended"), *acted))
            }
            _ => None,
        })
    }

    fn effect(&mut self, action: &Action) -> Outcome {
        self.judge(oracle::judge_effect(&self.estate, &self.records, action));
        if matches!(action, Action::Fence { .. }) {
            self.split = false;
        }
        let outcome = match self.estate.carry_out(action) {
            Ok(output) => Outcome::Succeeded(output),
            Err(fault) => Outcome::Failed(fault),
        };
        self.judge_moment();
        outcome
    }

    fn die(&mut self, how: Death) {
        self.deaths += 1;
        let flights = std::mem::take(&mut self.flights);
        let promoting = flights.iter().any(|f| matches!(f.command.action, Action::Promote { .. }));
        for flight in flights.into_iter().filter(|_| how.lands) {
            let _ = self.effect(&flight.command.action);
        }
        if how.reopens && !promoting {
            self.reopen();
        }
        (self.wake, self.doomed) = (None, None);
        self.notices.clear();
        self.now = self.now + SECOND;
        self.estate.work();
        self.guardian = self.restored(self.records.len());
        self.happen(Event::Started);
    }

    /// Somebody opens the old primary of a planned move while nobody watches, and it takes writes for a second.
    fn reopen(&mut self) {
        let Some((kind, from, to)) = oracle::newest_run(&self.records) else { return };
        let started = self.records[self.base..].iter().any(|s| {
            matches!(&s.record, lifeboat_core::Record::StepStarted { step, .. } if step.as_str() == "promote")
        });
        let open = oracle::ending(&self.records).is_none();
        if kind.planned() && open && !started && !self.estate.servers[&to].primary {
            let server = self.estate.server(&from);
            self.reopened += u32::from(server.fenced);
            server.fenced = false;
        }
    }

    fn judge_moment(&self) {
        self.judge(oracle::judge_moment(&self.estate, &self.records, self.split));
    }

    fn judge(&self, wrong: Option<String>) {
        if let Some(wrong) = wrong {
            panic!("{wrong}{}", self.story());
        }
    }

    /// Time passes until the run is over for good, or nobody can tell why it is not.
    pub(crate) fn settle(&mut self, go_on: &Order) {
        let (mut quiet, mut limit) = (0, 3_000);
        // What came to nothing may be tried again by itself.
        while quiet < if oracle::ending(&self.records[self.base..]) == Some(Ending::Done) { 5 } else { 100 } {
            self.second();
            limit -= 1;
            assert!(limit > 0, "nothing happens any more, and nobody was told{}", self.story());
            let run = self.open_run();
            match run {
                None if oracle::ending(&self.records[self.base..]).is_some() => quiet += 1,
                Some(run) if run.stranded.is_some() => {
                    self.judge_told();
                    if self.pushes == PUSHES {
                        return;
                    }
                    self.pushes += 1;
                    self.troubles.retain(|t| !matches!(t, Trouble::Fails { .. }));
                    self.order(go_on.clone());
                }
                _ => quiet = 0,
            }
        }
    }

    fn judge_told(&self) {
        let told = self.notices.iter().any(|notice| notice.severity == Severity::Critical);
        assert!(told, "stranded, and since its start the agent told nobody{}", self.story());
    }

    /// How often each effect may have changed something.
    pub(crate) fn judge_counts(&self, kind: Kind) {
        let opened = self.records[self.base..]
            .iter()
            .filter(|s| matches!(s.record, lifeboat_core::Record::RunOpened { .. }))
            .count();
        let runs = u32::try_from(opened).expect("a few");
        let changed = |effect| self.estate.changes.get(effect).copied().unwrap_or_default();
        for effect in ["promote", "names", "rejoin", "salvage"] {
            assert!(
                changed(effect) <= 1,
                "{effect} changed something {} times{}",
                changed(effect),
                self.story()
            );
        }
        assert!(
            changed("fence") <= 1 + changed("lift") + self.reopened,
            "{kind}: {:?}{}",
            self.estate.changes,
            self.story()
        );
        assert!(changed("lift") <= runs, "{kind}: {:?}{}", self.estate.changes, self.story());
    }

    /// A restart now would know all that is known.
    pub(crate) fn judge_replay(&self) {
        let restored = self.restored(self.records.len());
        assert_eq!(ledgers(&restored), ledgers(&self.guardian), "{}", self.story());
    }

    /// The journal and the trouble, for messages of failed tests.
    pub(crate) fn story(&self) -> String {
        let lines =
            self.records[self.base..].iter().map(|s| format!("\n{} {} {}", s.sequence, s.at, s.record));
        format!("\n{}\n{:?}{}", self.title, self.estate, lines.collect::<String>())
    }
}
