//! An agent in the pretend world: a real guardian, its copy of the record, its clock, and the loop around it.
//!
//! **Invariant:** what is decided is appended to the shared record first; only what was taken in is copied and done.
//! **Invariant:** an append of which nobody knows what became ends the tenure: the record is read again before anything.

use std::collections::VecDeque;
use std::rc::Rc;

use lifeboat_core::event::Witnessing;
use lifeboat_core::head::Head;
use lifeboat_core::testimony::Beat;
use lifeboat_core::{Command, Decision, Event, Guardian, Moment, Notice, Stamped};

use super::actuator::Effect;
use super::coordinator::Refusal;
use super::setting::{EPOCH, NAMES, TENURE, runbooks};
use super::world::{Due, World};
use crate::scenario::Site;

/// How long a call of the coordinator may take.
const CALL: u64 = 2_000;

/// How long an agent that died is away, when nothing else keeps it.
pub(crate) const RESTART: u64 = 1_500;

/// Time between two turns of an agent, on its own clock.
const TURN: u64 = 1_000;

/// One agent.
#[derive(Debug)]
pub(crate) struct Agent {
    pub(crate) guardian: Guardian,
    pub(crate) up: bool,
    /// Counts starts: what was under way before is nobody's after.
    pub(crate) life: u32,
    /// Counts the tenures that it has given up: what it had begun and not sent is dropped with each.
    pub(crate) stints: u32,
    /// How many faults keep it from running.
    pub(crate) killed: u8,
    /// How many faults hold it still.
    pub(crate) frozen: u8,
    /// What would have happened to it meanwhile.
    pub(crate) deferred: Vec<Due>,
    /// Its copy of the record: each record is there once, and never changes.
    pub(crate) copy: Vec<Rc<Stamped>>,
    /// The tenure that it believes to hold.
    pub(crate) term: Option<u64>,
    /// Where it believes the workload to live, and under which epoch.
    pub(crate) believes: (usize, u64),
    /// By how much the wall clock is wrong that it reads when it starts.
    pub(crate) skew: i64,
    /// How fast its clock runs, in millionths more or less.
    pub(crate) drift: i32,
    pub(crate) disk_fails: bool,
    /// The region of which it says that it is lost, whatever it sees.
    pub(crate) lies: Option<usize>,
    append: Option<Append>,
    appends: u64,
    inbox: VecDeque<Event>,
    base: (u64, u64),
    turns: u64,
    beats: u64,
    renewed: u64,
    echo: Option<Beat>,
    sequence: u64,
    coordinated: bool,
    told: [Option<lifeboat_core::head::Guarded>; 2],
    heard: [bool; 3],
    woken: Option<u64>,
    /// Until when, on its own clock, it has promised to count no lease as over; and when it started.
    pub(crate) promised: u64,
}

/// What is being appended.
#[derive(Debug)]
pub(crate) struct Append {
    serial: u64,
    records: Vec<Rc<Stamped>>,
    head: Option<Head>,
    commands: Vec<Command>,
}

/// An append on its way.
#[derive(Debug)]
pub(crate) struct Sent {
    term: u64,
    records: Vec<Rc<Stamped>>,
    head: Option<Head>,
}

impl Agent {
    pub(crate) fn new(policy: lifeboat_core::Policy, skew: i64, drift: i32) -> Self {
        let mut guardian = Guardian::restore(policy, runbooks(), "simulated", &[]);
        guardian.stand_by();
        Self {
            guardian,
            up: false,
            life: 0,
            stints: 0,
            killed: 0,
            frozen: 0,
            deferred: Vec::new(),
            copy: Vec::new(),
            term: None,
            believes: (0, 0),
            skew,
            drift,
            disk_fails: false,
            lies: None,
            append: None,
            appends: 0,
            inbox: VecDeque::new(),
            base: (0, EPOCH),
            turns: 0,
            beats: 0,
            renewed: 0,
            echo: None,
            sequence: 0,
            coordinated: true,
            told: [None; 2],
            heard: [false; 3],
            woken: None,
            promised: 0,
        }
    }

    /// Its clock.
    pub(crate) fn clock(&self, now: u64) -> u64 {
        let rate = 1_000_000 + i64::from(self.drift);
        let passed = i64::try_from(now - self.base.0).unwrap_or(i64::MAX) * rate / 1_000_000;
        self.base.1 + passed.unsigned_abs()
    }

    /// Its clock runs at another speed from now on.
    pub(crate) fn drift_by(&mut self, now: u64, millionths: i32) {
        self.base = (now, self.clock(now));
        self.drift = millionths;
    }
}

impl World {
    /// The moment it is for an agent.
    pub(crate) fn moment(&self, a: usize) -> Moment {
        Moment::from_millis(self.agents[a].clock(self.now))
    }

    /// An agent starts: its guardian is made from its copy of the record, its clock is read from the wall.
    pub(crate) fn start(&mut self, a: usize) {
        let (now, fresh, lease) = (self.now, self.agents[a].life == 0, self.setting.lease());
        let agent = &mut self.agents[a];
        let newest = agent.copy.last().map_or(0, |stamped| stamped.at.millis());
        agent.base = (now, (EPOCH + now).saturating_add_signed(agent.skew).max(newest));
        agent.promised = agent.base.1 + if fresh { 0 } else { lease };
        agent.up = true;
        agent.life += 1;
        if !fresh {
            let policy = self.setting.policy(Site::ALL[a]);
            let records = agent.copy.iter().map(Rc::as_ref);
            agent.guardian = Guardian::restore(policy, runbooks(), "simulated", records);
            agent.guardian.stand_by();
        }
        agent.term = None;
        agent.append = None;
        agent.inbox.clear();
        agent.woken = None;
        agent.told = [None; 2];
        agent.heard = [false; 3];
        agent.coordinated = true;
        self.trace.line(now, format_args!("agent {a} starts"));
        self.take_beliefs(a);
        self.decide(a, Event::Started);
        let life = self.agents[a].life;
        self.schedule(1 + a as u64, Due::Turn(a, life));
        for r in 0..2 {
            let first = 3 + 7 * a as u64 + 400 * r as u64;
            self.schedule(first, Due::Look(a, life, r));
        }
    }

    /// An agent dies where it stands.
    pub(crate) fn crash(&mut self, a: usize) {
        let agent = &mut self.agents[a];
        if std::mem::take(&mut agent.up) {
            agent.life += 1;
            agent.term = None;
            agent.append = None;
            agent.inbox.clear();
            agent.deferred.clear();
            self.trace.line(self.now, format_args!("agent {a} dies"));
        }
    }

    /// One agent's turn: follow, keep or seek the tenure, say what it sees, ask its witnesses, let time pass.
    pub(crate) fn turn(&mut self, a: usize) {
        let life = self.agents[a].life;
        let pause = TURN + self.chance.below(30);
        self.schedule(pause, Due::Turn(a, life));
        self.agents[a].turns += 1;
        let turns = self.agents[a].turns;
        let reaches = self.network.coordinated(a) && !self.lost();
        if reaches != self.agents[a].coordinated {
            self.agents[a].coordinated = reaches;
            let news = if reaches { Ok(()) } else { Err("no majority answers".to_owned()) };
            self.tell(a, Event::Coordinated(news));
        }
        self.keep_tenure(a, reaches);
        if self.agents[a].life != life {
            return;
        }
        if reaches {
            self.hear(a);
            if turns.is_multiple_of(2) {
                self.testify(a);
            }
        }
        if turns % 3 == 1 {
            let (asked, answered) = if self.network.outside(a) { (30, 3) } else { (1_000, 0) };
            let at = self.moment(a).before(std::time::Duration::from_millis(asked));
            let vantage = NAMES.agents[a].clone();
            self.tell(a, Event::Witnessed(Witnessing { vantage, at, answered }));
        }
        self.tell(a, Event::Tick);
    }

    fn keep_tenure(&mut self, a: usize, reaches: bool) {
        let (now, own) = (self.now, self.agents[a].clock(self.now));
        if let Some(term) = self.agents[a].term {
            if self.agents[a].append.is_some() {
                return;
            }
            if !reaches {
                if own - self.agents[a].renewed >= TENURE {
                    self.depose(a);
                }
                return;
            }
            self.agents[a].beats += 1;
            let beat = Beat { term, count: self.agents[a].beats };
            // Told before it is sent: what echoes it is younger than this.
            self.agents[a].renewed = own;
            self.tell(a, Event::Beaten(beat));
            if !self.coordinator.renew(term, beat, now) {
                self.depose(a);
            }
            return;
        }
        if !reaches {
            return;
        }
        self.follow(a);
        if self.coordinator.tenure(now).is_none() && self.chance.percent(70) {
            self.campaign(a, own);
        }
    }

    fn campaign(&mut self, a: usize, own: u64) {
        let Some(term) = self.coordinator.campaign(a, self.now) else { return };
        // The answer may be lost: then nobody decides until the tenure is over.
        if self.lost() {
            return;
        }
        self.trace.line(self.now, format_args!("agent {a} holds tenure {term}"));
        let agent = &mut self.agents[a];
        agent.term = Some(term);
        agent.beats = 1;
        agent.renewed = own;
        agent.heard = [false; 3];
        agent.told = [None; 2];
        let beat = Beat { term, count: 1 };
        self.oracle.elected(a, term, &self.coordinator, &self.agents[a].copy);
        self.decide(a, Event::Elected { term });
        self.tell(a, Event::Beaten(beat));
        self.coordinator.renew(term, beat, self.now);
    }

    /// A stand-by reads what was written since.
    fn follow(&mut self, a: usize) {
        let known = self.agents[a].copy.len();
        if known == self.coordinator.log.len() {
            return;
        }
        let agent = &mut self.agents[a];
        for stamped in &self.coordinator.log[known..] {
            agent.guardian.follow(stamped);
            agent.copy.push(Rc::clone(stamped));
        }
        self.take_beliefs(a);
    }

    fn stood_by(&mut self, a: usize, decision: &Decision) {
        if !decision.records.is_empty() || !decision.commands.is_empty() {
            self.oracle.violation(self.now, format!("agent {a} stands by and decides {decision:?}"));
        }
        self.told(&decision.notices);
    }

    /// What others say, for the one who decides.
    fn hear(&mut self, a: usize) {
        let now = self.now;
        self.agents[a].echo =
            if self.chance.percent(90) { self.coordinator.beat } else { self.agents[a].echo };
        if self.agents[a].term.is_none() {
            return;
        }
        for other in (0..3).filter(|other| *other != a) {
            let speaks = self.coordinator.speaks(other, now);
            if self.agents[a].heard[other] && !speaks {
                self.tell(a, Event::Silenced(NAMES.agents[other].clone()));
            }
            self.agents[a].heard[other] = speaks;
        }
        let lease = self.setting.lease();
        for r in 0..2 {
            let says = self.coordinator.guarded[r];
            let says = says.and_then(|(at, says)| (now - at <= lease).then_some(says));
            if says != self.agents[a].told[r] {
                self.agents[a].told[r] = says;
                let (workload, region) = (NAMES.workload.clone(), NAMES.regions[r].clone());
                self.tell(a, Event::Guarded { workload, region, says });
            }
        }
    }

    fn testify(&mut self, a: usize) {
        self.agents[a].sequence += 1;
        self.coordinator.testify(a, self.agents[a].sequence, self.now);
        let Some(g) = self.coordinator.tenure(self.now).map(|held| held.agent) else { return };
        // What nobody would hear need not be put into words: making them changes nothing.
        if g != a && self.network.coordinated(g) && !self.lost() {
            let moment = self.moment(a);
            let agent = &self.agents[a];
            let mut testimony = agent.guardian.testimony(moment, agent.sequence, agent.echo);
            if let Some(r) = agent.lies {
                super::liar::twist(&mut testimony, r);
            }
            let life = self.agents[g].life;
            let event = Box::new(Event::Testified(testimony));
            let slow = if self.chance.percent(6) { self.chance.between(500, 9_000) } else { 0 };
            let soon = self.chance.between(1, 9);
            self.schedule(slow + soon, Due::Told(g, life, event));
        }
    }

    /// Something happens to an agent, now or when its loop comes to it.
    pub(crate) fn tell(&mut self, a: usize, event: Event) {
        let agent = &mut self.agents[a];
        if agent.append.is_some() {
            agent.inbox.push_back(event);
        } else if agent.up {
            self.decide(a, event);
        }
    }

    pub(crate) fn decide(&mut self, a: usize, event: Event) {
        let moment = self.moment(a);
        let timed = matches!(event, Event::Tick);
        let decision = self.agents[a].guardian.decide(moment, event);
        self.trace.word(moment.millis());
        if let Some(wake) = decision.wake {
            self.wake(a, moment, wake, timed);
        }
        if self.agents[a].term.is_none() {
            return self.stood_by(a, &decision);
        }
        let Decision { records, commands, notices, answer, .. } = decision;
        if let Some(lifeboat_core::Answer::Refused { reason }) = answer.as_deref() {
            self.trace.note(self.now, format_args!("refused: {reason}"));
        }
        self.told(&notices);
        if records.is_empty() {
            if !commands.is_empty() {
                self.oracle.violation(self.now, format!("agent {a} acts off the record: {commands:?}"));
            }
            return;
        }
        let first = self.agents[a].copy.len() as u64 + 1;
        let stamp = |(n, record)| Rc::new(Stamped { sequence: first + n, at: moment, record });
        let records: Vec<Rc<Stamped>> = (0..).zip(records).map(stamp).collect();
        let head = self.agents[a].guardian.heads().remove(&NAMES.workload);
        self.agents[a].appends += 1;
        let serial = self.agents[a].appends;
        self.append(a, Append { serial, records, head, commands });
    }

    fn wake(&mut self, a: usize, moment: Moment, wake: Moment, timed: bool) {
        let after = u64::try_from(wake.since(moment).as_millis()).unwrap_or(u64::MAX);
        // The next turn comes anyway.
        if after >= TURN || (timed && after == 0) {
            return;
        }
        let at = self.now + after;
        if self.agents[a].woken.is_none_or(|woken| woken <= self.now || at < woken) {
            self.agents[a].woken = Some(at);
            let life = self.agents[a].life;
            self.schedule(after + 1, Due::Wake(a, life));
        }
    }

    fn told(&mut self, notices: &[Notice]) {
        for notice in notices {
            self.trace.line(self.now, format_args!("told: {}", notice.reason));
            self.oracle.told(notice);
        }
    }

    fn append(&mut self, a: usize, append: Append) {
        let life = self.agents[a].life;
        if self.agents[a].disk_fails && self.chance.percent(50) {
            // The copy on disk comes first, and fails: the agent ends, and acts on nothing.
            self.crash(a);
            return self.schedule(RESTART, Due::Start(a));
        }
        let serial = append.serial;
        if !self.network.coordinated(a) || self.lost() {
            self.agents[a].append = Some(append);
            return self.schedule(CALL, Due::GiveUp(a, life, serial));
        }
        if self.chance.percent(92) && self.network.lose == 0 {
            let term = self.agents[a].term.unwrap_or_default();
            let taken = self.enter(a, term, &append.records, append.head.as_ref());
            return self.entered(a, append, taken);
        }
        let delay = if self.chance.percent(15) {
            self.chance.between(400, 4_000)
        } else {
            self.chance.between(2, 60)
        };
        let sent = Box::new(Sent {
            term: self.agents[a].term.unwrap_or_default(),
            records: append.records.clone(),
            head: append.head.clone(),
        });
        self.agents[a].append = Some(append);
        self.schedule(CALL, Due::GiveUp(a, life, serial));
        self.schedule(delay, Due::Arrive(a, life, serial, sent));
    }

    /// The append is written, or not, in one transaction.
    fn enter(
        &mut self,
        a: usize,
        term: u64,
        records: &[Rc<Stamped>],
        head: Option<&Head>,
    ) -> Result<(), Refusal> {
        let taken = self.coordinator.append(term, records, head.cloned(), self.now);
        if taken.is_ok() {
            for stamped in records {
                self.trace.line(self.now, format_args!("#{} {}", stamped.sequence, stamped.record));
            }
            let facts = self.facts();
            self.oracle.recorded(a, term, records, self.coordinator.head.as_ref(), &facts);
        }
        taken
    }

    /// A slow append comes to the coordinator; its answer may be lost, and its sender may have given up by then.
    pub(crate) fn arrive(&mut self, a: usize, life: u32, serial: u64, sent: &Sent) {
        let taken = self.enter(a, sent.term, &sent.records, sent.head.as_ref());
        if self.lost() || self.chance.percent(10) {
            return self
                .trace
                .note(self.now, format_args!("agent {a} is not told what became of its append"));
        }
        let agent = &mut self.agents[a];
        if agent.life != life || agent.append.as_ref().is_none_or(|append| append.serial != serial) {
            return;
        }
        if let Some(append) = agent.append.take() {
            self.entered(a, append, taken);
        }
    }

    /// No answer in time: whatever became of it, the record must be read again.
    pub(crate) fn give_up(&mut self, a: usize, serial: u64) {
        if self.agents[a].append.as_ref().is_some_and(|append| append.serial == serial) {
            self.depose(a);
        }
    }

    fn entered(&mut self, a: usize, append: Append, taken: Result<(), Refusal>) {
        if taken.is_err() {
            return self.depose(a);
        }
        self.agents[a].append = None;
        let (life, stint) = (self.agents[a].life, self.agents[a].stints);
        self.agents[a].copy.extend(append.records);
        if self.agents[a].disk_fails {
            self.crash(a);
            return self.schedule(RESTART, Due::Start(a));
        }
        self.take_beliefs(a);
        let epoch = lifeboat_core::Epoch::new(self.agents[a].believes.1);
        for command in append.commands {
            self.begin(Effect::new(a, (life, stint), command, epoch, self.now));
        }
        self.drain(a);
    }

    fn drain(&mut self, a: usize) {
        while self.agents[a].append.is_none() {
            let Some(event) = self.agents[a].inbox.pop_front() else { return };
            self.decide(a, event);
        }
    }

    /// The agent decides no more, and reads the record again.
    pub(crate) fn depose(&mut self, a: usize) {
        let Some(term) = self.agents[a].term.take() else { return };
        self.trace.line(self.now, format_args!("agent {a} gives up tenure {term}"));
        self.agents[a].append = None;
        let moment = self.moment(a);
        let agent = &mut self.agents[a];
        agent.stints += 1;
        let decision = agent.guardian.decide(moment, Event::Deposed);
        agent.guardian.reread(agent.copy.iter().map(Rc::as_ref));
        self.stood_by(a, &decision);
        if self.network.coordinated(a) {
            self.coordinator.resign(term);
            self.follow(a);
        }
        self.take_beliefs(a);
        self.drain(a);
    }

    fn take_beliefs(&mut self, a: usize) {
        let agent = &mut self.agents[a];
        if let Some((region, epoch)) = agent.guardian.belief(&NAMES.workload) {
            agent.believes = (super::setting::region(region).unwrap_or_default(), epoch.get());
        }
    }

    /// A second agent of the same name believes that it holds the tenure, too.
    pub(crate) fn twin(&mut self, a: usize) {
        let other = self.coordinator.tenure(self.now).is_some_and(|held| held.agent != a);
        if other && self.agents[a].up && self.agents[a].term.is_none() {
            self.follow(a);
            // A tenure that nobody gave: whatever it writes is refused.
            self.agents[a].term = Some(0);
            self.agents[a].renewed = self.agents[a].clock(self.now);
            self.decide(a, Event::Elected { term: 0 });
        }
    }
}
