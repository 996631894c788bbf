//! The judge of a pretend world: the promises of DESIGN.md, section 1, written from the page and apart from the core.
//!
//! It knows what is true, what is on record and what is done; it asks no guardian what is right.
//!
//! - One writer: no two databases acknowledge at once, and none under an older epoch than one that has acknowledged. The only
//!   window: a primary that waits for no standby, on a host that wakes after its lease was over, may acknowledge until the
//!   dead-man switch on it has seen the time (`WAKING`). Where writes are replicated synchronously, that is only one which
//!   took over alone and has had no standby since; and there is no window without a freeze.
//! - No false failover: one that nobody ordered opens only when as many honest vantages, each with its own connectivity, have
//!   truly seen nothing of the primary as the quorum wants. What a vantage says counts for as long as evidence may be old, and
//!   so does a lie: until then it is still the one vote that a bad vantage has.
//! - No silent loss: what a promotion truly loses is within the RPO, or a person has accepted a number for it.
//! - On the record, before it moves: no command without its record, no epoch with two deciders, no record that forks.
//! - A real loss is acted on within a bound, once nothing stands against it (`oracle/detection.rs`).
//! - Names move only to what is not fenced.
//! - A stale actor is refused: nothing obeys an older epoch after a newer one.
//!
//! **Invariant:** an oracle only notes; it changes nothing.

mod book;
mod detection;

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::rc::Rc;

use lifeboat_core::head::Head;
use lifeboat_core::record::Ending;
use lifeboat_core::sighting::{FailureKind, Weight};
use lifeboat_core::{Command, Notice, Record, Stamped};

use self::book::Book;
use self::detection::Detection;
use super::coordinator::Coordinator;
use super::setting::{FAILURES, FRESHNESS, NAMES, QUORUM, Setting, region};

/// What is true at a moment.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    pub(crate) now: u64,
    /// Which agents run.
    pub(crate) up: [bool; 3],
    /// Which reach the rest of the world.
    pub(crate) outside: [bool; 3],
    /// Which reach the coordinator.
    pub(crate) coordinated: [bool; 3],
    /// Of which region each says that it is lost, whatever it sees.
    pub(crate) lies: [Option<usize>; 3],
    /// Whether disks fail or messages are lost.
    pub(crate) failing: bool,
    /// Whether clocks disagree.
    pub(crate) skewed: bool,
    /// Whether each agent would hear each database.
    pub(crate) sees: [[bool; 2]; 3],
    /// Whether each database acknowledges writes.
    pub(crate) serves: [bool; 2],
    /// Whether each is a primary.
    pub(crate) primaries: [bool; 2],
    /// Whether both are on one timeline.
    pub(crate) current: bool,
}

/// What was done and decided, in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Failovers that promoted.
    pub failovers: u64,
    /// Planned moves that promoted.
    pub planned: u64,
    /// Runs that were opened.
    pub runs: u64,
    /// Records, which is decisions that were kept.
    pub decisions: u64,
    /// Tenures after the first.
    pub takeovers: u64,
    /// Runs that ended done.
    pub done: u64,
    /// Runs that were stranded.
    pub stranded: u64,
    /// Questions to persons.
    pub asked: u64,
    /// Real losses that were found within the bound.
    pub detected: u64,
}

/// What one vantage truly saw of a region.
#[derive(Clone, Copy, Debug, Default)]
struct Looks {
    failed: u32,
    silent_since: Option<u64>,
    /// When it last had seen enough failures in a row to call it lost.
    lost_until: Option<u64>,
}

/// The judge.
#[derive(Clone, Debug)]
pub(crate) struct Oracle {
    pub(crate) violations: Vec<String>,
    pub(crate) tally: Tally,
    pub(crate) book: Book,
    pub(crate) told: std::collections::BTreeSet<String>,
    /// What was told is kept only where somebody asks for it.
    pub(crate) listens: bool,
    /// The most that a promotion truly lost.
    pub(crate) lost: u64,
    /// When the names last moved, and when the first failover opened.
    pub(crate) moved_at: Option<u64>,
    detection: Detection,
    rpo: u64,
    looks: [[Looks; 2]; 3],
    outside_at: [Option<u64>; 3],
    /// When each vantage last lied about each region.
    lied_at: [[Option<u64>; 2]; 3],
    /// The newest epoch under which a write was acknowledged.
    acknowledged: u64,
    /// Each epoch with the tenure that acted under it.
    deciders: BTreeMap<u64, u64>,
    terms: u64,
    /// The newest epoch that each actuator has obeyed.
    obeyed: [u64; 3],
}

impl Oracle {
    pub(crate) fn new(setting: &Setting) -> Self {
        Self {
            violations: Vec::new(),
            tally: Tally::default(),
            book: Book::default(),
            told: std::collections::BTreeSet::new(),
            listens: false,
            lost: 0,
            moved_at: None,
            detection: Detection::new(setting),
            rpo: u64::try_from(setting.setup.rpo.as_millis()).unwrap_or(u64::MAX),
            looks: Default::default(),
            outside_at: [None; 3],
            lied_at: [[None; 2]; 3],
            acknowledged: 0,
            deciders: BTreeMap::new(),
            terms: 0,
            obeyed: [0; 3],
        }
    }

    pub(crate) fn violation(&mut self, now: u64, what: String) {
        // The first few say it all; a world that is broken goes on breaking.
        if self.violations.len() < 8 {
            self.violations.push(format!("{:.3} s: {what}", now as f64 / 1000.0));
        }
    }

    /// Who acknowledges, at this moment, under which epochs; until when one that waits for no standby may, because its host has
    /// just woken.
    pub(crate) fn writers(&mut self, now: u64, writes: [bool; 2], epochs: [u64; 2], woken: [Option<u64>; 2]) {
        for r in 0..2 {
            if !writes[r] {
                continue;
            }
            let newest = self.acknowledged.max(if writes[1 - r] { epochs[1 - r] } else { 0 });
            let old = epochs[r] < newest || (writes[1 - r] && epochs[r] == epochs[1 - r]);
            let excused = self.book.waived > epochs[r] || woken[r].is_some_and(|until| now <= until);
            if old && !excused {
                let (region, epoch) = (&NAMES.regions[r], epochs[r]);
                self.violation(now, format!("two writers: {region} acknowledges under epoch {epoch}, and epoch {newest} has acknowledged"));
            }
        }
        for r in 0..2 {
            if writes[r] {
                self.acknowledged = self.acknowledged.max(epochs[r]);
            }
        }
    }

    /// One look of a vantage at a region.
    pub(crate) fn looked(&mut self, now: u64, a: usize, r: usize, failed: Option<FailureKind>) {
        let looks = &mut self.looks[a][r];
        match failed.map(FailureKind::weight) {
            None | Some(Weight::Inconclusive) => {
                *looks = Looks { lost_until: looks.lost_until, ..Looks::default() }
            }
            Some(Weight::Hard | Weight::Silence) => {
                looks.failed += 1;
                looks.silent_since.get_or_insert(now);
                if looks.failed >= FAILURES {
                    looks.lost_until = Some(now);
                }
            }
        }
    }

    /// Records were taken into the shared record.
    pub(crate) fn recorded(
        &mut self,
        a: usize,
        term: u64,
        records: &[impl Borrow<Stamped>],
        head: Option<&Head>,
        facts: &Facts,
    ) {
        let now = facts.now;
        self.tally.decisions += records.len() as u64;
        let mut acts = false;
        for stamped in records {
            let stamped: &Stamped = stamped.borrow();
            let place = self.book.records + 1;
            if stamped.sequence != place {
                self.violation(now, format!("record {} stands at place {place}", stamped.sequence));
            }
            self.book.records = place;
            match &stamped.record {
                Record::RunOpened { plan, trigger, .. } => {
                    self.tally.runs += 1;
                    let automatic = *trigger == lifeboat_core::record::Trigger::Automatic;
                    if automatic && plan.kind == lifeboat_core::plan::Kind::Failover {
                        self.justified(plan.from.clone(), facts);
                    }
                }
                Record::StepStarted { .. } => acts = true,
                Record::Asked { .. } => self.tally.asked += 1,
                Record::Stranded { .. } => self.tally.stranded += 1,
                Record::RunEnded { ending: Ending::Done, .. } => self.tally.done += 1,
                _ => {}
            }
            for what in self.book.take(now, &stamped.record) {
                self.violation(now, what);
            }
        }
        let epoch = head.map_or(0, |head| head.epoch.get());
        if acts && *self.deciders.entry(epoch).or_insert(term) != term {
            let first = self.deciders[&epoch];
            self.violation(
                now,
                format!("epoch {epoch} has two deciders: tenures {first} and {term} (agent {a})"),
            );
        }
    }

    /// A failover opened by itself: enough honest vantages have truly seen nothing of the primary.
    fn justified(&mut self, from: lifeboat_core::RegionName, facts: &Facts) {
        let Some(r) = region(&from) else { return };
        let since = facts.now.saturating_sub(FRESHNESS + 2_000);
        let saw = |a: usize| {
            let saw = self.looks[a][r].lost_until.is_some_and(|at| at >= since);
            saw && self.outside_at[a].is_some_and(|at| at >= since)
        };
        let votes = (0..3).filter(|a| saw(*a)).count();
        // A vantage that lies has one of the votes; the others are still the truth's.
        let lies = (0..3).filter(|a| self.lied_at[*a][r].is_some_and(|at| at >= since) && !saw(*a)).count();
        if votes < QUORUM.saturating_sub(lies).max(1) {
            self.violation(
                facts.now,
                format!("a false failover: {votes} vantages see {from} as lost, and {lies} say so"),
            );
        }
    }

    /// A command starts: its record must be there.
    pub(crate) fn begun(&mut self, now: u64, command: &Command) {
        if !self.book.started(command) {
            self.violation(now, format!("{} of {} starts without a record", command.step, command.run));
        }
    }

    /// A database, its host, or the name server (in the last place) did as an order said.
    pub(crate) fn obeyed(&mut self, now: u64, actuator: usize, epoch: u64) {
        let newest = self.obeyed[actuator];
        if epoch < newest {
            let what = ["the database in east", "the database in west", "the name server"][actuator];
            self.violation(now, format!("{what} obeys epoch {epoch} after epoch {newest}"));
        }
        self.obeyed[actuator] = newest.max(epoch);
    }

    /// A standby becomes a primary; so much that was acknowledged elsewhere is lost.
    pub(crate) fn promoted(&mut self, now: u64, r: usize, epoch: u64, lost: u64) {
        if self.book.planned() {
            self.tally.planned += 1;
        } else {
            self.tally.failovers += 1;
        }
        self.lost = self.lost.max(lost);
        let region = &NAMES.regions[r];
        if !self.book.fenced && !self.book.promoting {
            self.violation(now, format!("{region} is promoted under epoch {epoch} without a fence"));
        }
        // Clocks may be this wrong, and the newest commit is not the newest heartbeat's.
        let allowed = self.rpo + self.rpo / 8 + 200;
        // What a person accepts is told by a clock that may be as wrong.
        let accepted = self.book.accepted.map(|accepted| {
            let told = accepted.saturating_add(accepted / 8);
            told.saturating_add(allowed)
        });
        if lost > accepted.unwrap_or(allowed) {
            let rpo = self.rpo;
            self.violation(now, format!("a silent loss: {region} is promoted, {lost} ms are lost, the RPO is {rpo} ms, accepted {:?}", self.book.accepted));
        }
    }

    /// The names say another region.
    pub(crate) fn switched(&mut self, now: u64, r: usize, fenced: bool, epoch: u64) {
        self.moved_at = Some(now);
        if fenced || epoch < self.acknowledged {
            let region = &NAMES.regions[r];
            self.violation(now, format!("the names move to {region}, which is fenced (epoch {epoch})"));
        }
    }

    /// An agent was elected: its copy is the record.
    pub(crate) fn elected(&mut self, a: usize, term: u64, coordinator: &Coordinator, copy: &[Rc<Stamped>]) {
        self.tally.takeovers += u64::from(term > 1);
        if term <= self.terms {
            self.violation(0, format!("tenure {term} is given again, to agent {a}"));
        }
        self.terms = term;
        if copy != coordinator.log {
            self.violation(
                0,
                format!("agent {a} is elected with {} of {} records", copy.len(), coordinator.log.len()),
            );
        }
    }

    /// Somebody was told something.
    pub(crate) fn told(&mut self, notice: &Notice) {
        if !self.listens {
            return;
        }
        let value = serde_json::to_value(&notice.reason).unwrap_or_default();
        let mut all = vec![&value];
        while let Some(value) = all.pop() {
            if let serde_json::Value::Object(map) = value {
                for (key, inner) in map {
                    match inner {
                        serde_json::Value::String(kind) if key == "kind" || key == "question" => {
                            self.told.insert(kind.clone());
                        }
                        inner => all.push(inner),
                    }
                }
            }
        }
    }

    /// What is true, each second or so.
    pub(crate) fn watch(&mut self, facts: &Facts) {
        for a in 0..3 {
            if facts.outside[a] && facts.up[a] {
                self.outside_at[a] = Some(facts.now);
            }
            if let Some(about) = facts.lies[a] {
                self.lied_at[a][about] = Some(facts.now);
            }
        }
        match self.detection.watch(facts, &self.book) {
            detection::Seen::Nothing => {}
            detection::Seen::InTime => self.tally.detected += 1,
            detection::Seen::TooLate(what) => self.violation(facts.now, what),
        }
    }

    /// Faults have stopped, persons have answered, time has passed: nothing is left open.
    pub(crate) fn finish(&mut self, now: u64, coordinator: &Coordinator, copies: [&[Rc<Stamped>]; 3]) {
        if let Some(what) = self.book.hangs() {
            self.violation(now, what);
        }
        for (a, copy) in copies.into_iter().enumerate() {
            // A prefix of the one record, each of them.
            if coordinator.log.get(..copy.len()) != Some(copy) {
                self.violation(now, format!("the copy of agent {a} is not the beginning of the record"));
            }
        }
    }
}
