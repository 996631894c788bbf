//! The judge: what may follow what, written apart from the code that decides.
//!
//! It knows events, records and commands only, and keeps a book of its own about each run.
//!
//! **Invariant:** the judge never asks the guardian what is right; it only compares.

use std::collections::BTreeMap;

use lifeboat_core::loss::Loss;
use lifeboat_core::order::{Acceptance, Question};
use lifeboat_core::plan::{Action, Kind};
use lifeboat_core::record::Trigger;
use lifeboat_core::{
    Answer, Command, Decision, Epoch, Event, Guardian, Moment, Order, Outcome, Plan, Policy, Record,
    RegionName, RunId, Severity, Stamped, StepName, WorkloadName,
};

use crate::judged::Evidence;
use crate::setting::runbook;

/// What is on record of one run.
#[derive(Clone, Debug)]
struct Book {
    trigger: Trigger,
    plan: Plan,
    under_way: Option<(StepName, u32)>,
    /// The next attempt was announced for this moment.
    again: Option<Moment>,
    proven_fence: bool,
    waived_fence: bool,
    promoted: bool,
    serving: bool,
    loss: Option<Loss>,
    question: Option<(Question, Moment)>,
    accepted: Vec<Question>,
    stranded: bool,
    ended: bool,
}

/// How often each thing was seen, so that a storm which never gets anywhere is noticed.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) runs: u32,
    pub(crate) promotions: u32,
    pub(crate) switches: u32,
    pub(crate) done: u32,
    pub(crate) asked: u32,
    pub(crate) approved: u32,
    pub(crate) stranded: u32,
    pub(crate) continued: u32,
    pub(crate) fruitless: u32,
    pub(crate) waived: u32,
    pub(crate) refused: u32,
    pub(crate) dropped: u32,
}

/// The judge.
#[derive(Clone, Debug)]
pub(crate) struct Oracle {
    policy: Policy,
    books: BTreeMap<RunId, Book>,
    open: BTreeMap<WorkloadName, RunId>,
    primaries: BTreeMap<WorkloadName, RegionName>,
    epochs: BTreeMap<WorkloadName, Epoch>,
    evidence: Evidence,
    wake: Option<Moment>,
    pub(crate) tally: Tally,
}

impl Oracle {
    pub(crate) fn new(policy: &Policy) -> Self {
        let homes = policy.workloads.iter().map(|(name, w)| (name.clone(), w.home.clone()));
        Self {
            policy: policy.clone(),
            books: BTreeMap::new(),
            open: BTreeMap::new(),
            primaries: homes.collect(),
            epochs: BTreeMap::new(),
            evidence: Evidence::default(),
            wake: None,
            tally: Tally::default(),
        }
    }

    /// The agent was killed and has read its record: what it saw before is gone.
    pub(crate) fn restarted(&mut self) {
        self.evidence = Evidence::default();
        self.wake = None;
    }

    /// Judges one decision.
    pub(crate) fn judge(&mut self, now: Moment, event: &Event, decision: &Decision, guardian: &Guardian) {
        self.evidence.note(event);
        if matches!(event, Event::Tick) {
            self.wake = None;
        }
        self.wake = [self.wake, decision.wake].into_iter().flatten().min();
        let mut started = BTreeMap::new();
        for record in &decision.records {
            self.record(now, event, record);
            self.announced(record, decision);
            if let Record::StepStarted { run, step, attempt, .. } = record {
                let before = started.insert(run.clone(), (step.clone(), *attempt));
                assert_eq!(before, None, "two steps of {run} start at once");
            }
        }
        for command in &decision.commands {
            let written = started.remove(&command.run);
            let wanted = Some((command.step.clone(), command.attempt));
            assert_eq!(written, wanted, "a command without its record: {command:?}");
            self.command(command);
        }
        assert!(started.is_empty(), "recorded as started, and not started: {started:?}");
        self.answered(now, event, decision);
        self.nothing_hangs();
        for (workload, (primary, epoch)) in guardian.beliefs() {
            assert_eq!(primary, self.primaries[&workload], "where {workload} lives");
            assert_eq!(epoch, self.epochs.get(&workload).copied().unwrap_or_default(), "its epoch");
        }
    }

    fn record(&mut self, now: Moment, event: &Event, record: &Record) {
        match record {
            Record::RunOpened { workload, run, trigger, plan, .. } => {
                self.opened(now, workload, run, trigger, plan);
            }
            Record::PrimaryMoved { workload, region, epoch } => {
                let book = self.open_book(workload);
                assert!(book.promoted, "moved without a promotion");
                assert_eq!((region, epoch), (&book.plan.to, &book.plan.epoch));
                self.primaries.insert(workload.clone(), region.clone());
            }
            Record::RunEnded { workload, run, reason, .. } => {
                let promoted = self.open_book(workload).promoted;
                let done =
                    matches!(record, Record::RunEnded { ending: lifeboat_core::record::Ending::Done, .. });
                let given_up = matches!(reason, lifeboat_core::Reason::GivenUp { .. });
                assert!(done == promoted || given_up, "{run} ended as if it had not promoted, or had");
                self.open_book(workload).ended = true;
                self.open.remove(workload);
                if done { self.tally.done += 1 } else { self.tally.fruitless += 1 }
            }
            other => {
                if let (Some(workload), Some(run)) = (other.workload(), other.run()) {
                    assert_eq!(
                        self.open.get(workload),
                        Some(run),
                        "a record of a run that is not open: {other}"
                    );
                    self.of_run(now, event, run.clone(), other);
                }
            }
        }
    }

    fn of_run(&mut self, now: Moment, event: &Event, run: RunId, record: &Record) {
        let tally = &mut self.tally;
        let book = self.books.get_mut(&run).expect("the run has a book");
        match record {
            Record::StepStarted { step, attempt, .. } => {
                assert!(
                    book.question.is_none() && !book.stranded,
                    "{run}: {step} starts, but a person is asked"
                );
                assert!(book.again.take().is_none_or(|at| at <= now), "{run}: {step} starts too early");
                // After a restart the step that was under way is started again, as another attempt.
                if let Some((before, last)) = &book.under_way {
                    assert!(
                        matches!(event, Event::Started),
                        "{run}: {step} starts while {before} is under way"
                    );
                    assert_eq!((before, last + 1), (step, *attempt));
                }
                book.under_way = Some((step.clone(), *attempt));
            }
            Record::StepEnded { step, attempt, outcome, retry_at, .. } => {
                let told = match event {
                    Event::StepEnded { ended, outcome } => (&ended.run, &ended.step, &ended.attempt, outcome),
                    other => panic!("{run}: {step} ended by itself, in {other:?}"),
                };
                assert_eq!((told.0, told.1, told.2), (&run, step, attempt));
                assert_eq!(
                    book.under_way.take(),
                    Some((step.clone(), *attempt)),
                    "an outcome of another attempt"
                );
                assert!(
                    told.3 == outcome || matches!(outcome, Outcome::Failed(_)),
                    "a failure was taken as a success"
                );
                book.again = *retry_at;
                let action = book.plan.steps.iter().find(|s| s.name == *step).map(|s| &s.action);
                if matches!(outcome, Outcome::Succeeded(_)) {
                    match action {
                        Some(Action::Fence { .. }) => book.proven_fence = true,
                        Some(Action::Promote { .. }) => book.promoted = true,
                        Some(Action::AwaitServing { .. }) => book.serving = true,
                        _ => {}
                    }
                }
            }
            Record::LossMeasured { loss, .. } => book.loss = Some(loss.clone()),
            Record::Asked { question, expires, .. } => {
                assert!(book.under_way.is_none(), "{run} asks while a step is under way");
                book.question = Some((question.clone(), *expires));
                tally.asked += 1;
            }
            Record::Approved { question, by, .. } => {
                let (asked, expires) = book.question.take().expect("something was asked");
                assert!(asked == *question && now < expires, "{run}: {by} accepted what was not asked");
                book.waived_fence |= matches!(question, Question::FenceUnproven { .. });
                tally.waived += u32::from(matches!(question, Question::FenceUnproven { .. }));
                book.accepted.push(question.clone());
                tally.approved += 1;
            }
            Record::Stranded { .. } => {
                // What it asked has lapsed.
                book.question = None;
                book.stranded = true;
                tally.stranded += 1;
            }
            Record::Continued { .. } => {
                assert!(matches!(event, Event::Ordered(Order::Failover { .. })), "{run} went on by itself");
                book.stranded = false;
                book.again = None;
                tally.continued += 1;
            }
            // What was proven of the old primary before a break counts no more.
            Record::Reopened { step, .. } => {
                assert_eq!(step.as_str(), "fence", "{run}: only a fence is proven again");
                book.proven_fence = false;
                book.under_way = None;
                book.again = None;
            }
            Record::LossCounted { manifest, .. } => {
                assert!(book.promoted, "{run}: a loss is counted before there is one");
                for loss in manifest.databases.values() {
                    let more = loss.at_most.is_some_and(|most| loss.at_least > most);
                    assert!(!more || loss.synchronous, "{run}: lost more than could be lost: {loss:?}");
                }
            }
            other => panic!("a record that this judge does not know: {other:?}"),
        }
    }

    fn opened(&mut self, now: Moment, workload: &WorkloadName, run: &RunId, trigger: &Trigger, plan: &Plan) {
        let before = self.open.insert(workload.clone(), run.clone());
        assert_eq!(before, None, "{run} opened while another is open");
        let last = self.epochs.insert(workload.clone(), plan.epoch).unwrap_or_default();
        assert!(plan.epoch > last, "{run}: the epoch does not rise: {last} to {}", plan.epoch);
        let rejoins = plan.kind == Kind::Rejoin;
        let left = if rejoins { &plan.to } else { &plan.from };
        assert_eq!(*left, self.primaries[workload], "{run} starts where the workload does not live");
        assert_ne!(plan.from, plan.to);
        if *trigger == Trigger::Automatic && !rejoins {
            let policy = &self.policy.workloads[workload];
            self.evidence.justifies(now, &self.policy, policy, plan);
        }
        let book = Book {
            trigger: trigger.clone(),
            plan: plan.clone(),
            under_way: None,
            again: None,
            proven_fence: false,
            waived_fence: false,
            promoted: false,
            serving: false,
            loss: None,
            question: None,
            accepted: Vec::new(),
            stranded: false,
            ended: false,
        };
        assert!(self.books.insert(run.clone(), book).is_none(), "the name {run} was used twice");
        self.tally.runs += 1;
    }

    fn open_book(&mut self, workload: &WorkloadName) -> &mut Book {
        let run = self.open.get(workload).expect("a run is open");
        self.books.get_mut(run).expect("the run has a book")
    }

    fn command(&mut self, command: &Command) {
        let book = &self.books[&command.run];
        assert!(!book.ended && !book.stranded && book.question.is_none());
        let planned = book.plan.steps.iter().find(|s| s.name == command.step).expect("a planned step");
        assert_eq!((&planned.action, planned.limit), (&command.action, command.limit));
        match &command.action {
            // What a returned primary loses is salvaged.
            Action::Fence { .. } if book.plan.kind == Kind::Rejoin => {}
            Action::Fence { .. } => self.loss_settled(command, book),
            Action::Promote { .. } => {
                assert!(book.proven_fence || book.waived_fence, "{}: promoted without a fence", command.run);
                self.loss_settled(command, book);
                self.tally.promotions += 1;
            }
            Action::SwitchDns { .. } => {
                assert!(
                    book.promoted && book.serving,
                    "{}: traffic moves to what does not serve",
                    command.run
                );
                self.tally.switches += 1;
            }
            Action::MeasureLoss { .. }
            | Action::AwaitServing { .. }
            | Action::Verify { .. }
            | Action::Report => {}
            _ if book.plan.kind == Kind::Rejoin => {}
            // This oracle judges failovers; planned moves have one of their own (tests/runbooks).
            other => panic!("{}: a failover does not do {other:?}", command.run),
        }
    }

    /// The loss is known and within the objective, or a person accepted that very number.
    fn loss_settled(&self, command: &Command, book: &Book) {
        let policy = &self.policy.workloads[&command.workload];
        let loss = book.loss.as_ref().unwrap_or_else(|| panic!("{}: the loss is not measured", command.run));
        let supervised = book.trigger == Trigger::Automatic
            && policy.failover.mode == lifeboat_core::policy::Mode::Supervised;
        if loss.at_most.is_some_and(|length| length <= policy.objectives.rpo) && !supervised {
            return;
        }
        let accepted = book.accepted.iter().any(|question| match question {
            Question::LossAbove { loss: l, .. }
            | Question::LossUnknown { loss: l }
            | Question::LossDoubtful { loss: l, .. }
            | Question::Supervised { loss: l } => l == loss,
            Question::FenceUnproven { .. } | Question::BeforeStep { .. } => false,
        });
        assert!(accepted, "{}: nobody accepted {loss}", command.run);
    }

    /// What a person must know is told in the same decision.
    fn announced(&self, record: &Record, decision: &Decision) {
        let least = match record {
            Record::Asked { .. } | Record::Stranded { .. } | Record::Declined { .. } => Severity::Critical,
            Record::RunOpened { .. } => Severity::Warning,
            Record::RunEnded { .. } => Severity::Info,
            _ => return,
        };
        let workload = record.workload().expect("it is about a workload");
        let told = decision.notices.iter().any(|n| n.workload == *workload && n.severity >= least);
        assert!(told, "nobody was told: {record}");
    }

    /// An approval is accepted only for the number asked, an order only where it may be.
    fn answered(&mut self, _now: Moment, event: &Event, decision: &Decision) {
        let Event::Ordered(order) = event else {
            assert_eq!(decision.answer, None, "an answer without an order");
            return;
        };
        match decision.answer.as_deref().expect("an order is answered") {
            Answer::Refused { .. } => {
                self.tally.refused += 1;
                assert!(
                    decision.records.is_empty() && decision.commands.is_empty(),
                    "refused, and something touched"
                );
            }
            Answer::Accepted { .. } => {
                let Order::Approve { run, accept, .. } = order else { return };
                let approved = decision.records.iter().find_map(|record| match record {
                    Record::Approved { question, run: r, .. } if r == run => Some(question),
                    _ => None,
                });
                let question = approved.expect("an accepted approval is on record");
                let wanted = match question {
                    Question::LossAbove { loss, .. }
                    | Question::LossUnknown { loss }
                    | Question::LossDoubtful { loss, .. }
                    | Question::Supervised { loss } => {
                        let number = loss.at_most.map(|l| format!("{}s", l.as_millis().div_ceil(1000)));
                        Acceptance::Loss(number.unwrap_or_else(|| "unknown".to_owned()))
                    }
                    Question::FenceUnproven { region, .. } => Acceptance::Unfenced(region.to_string()),
                    Question::BeforeStep { step, .. } => Acceptance::Step(step.to_string()),
                };
                assert_eq!(accept.as_ref(), Some(&wanted), "{run}: another number than asked was accepted");
            }
        }
    }

    /// An open run has a step under way, a moment to go on, a question that lapses, or a person who knows.
    fn nothing_hangs(&self) {
        for run in self.open.values() {
            let book = &self.books[run];
            // Before the fence, evidence may have to be gathered anew: that has an end, too.
            let gathering = (book.loss.is_some() && !book.proven_fence && !book.waived_fence)
                .then_some(self.wake)
                .flatten();
            let awaited = book.question.as_ref().map(|(_, expires)| *expires).or(book.again).or(gathering);
            let woken = awaited.is_some_and(|at| self.wake.is_some_and(|wake| wake <= at));
            let alive = book.under_way.is_some() || book.stranded || woken;
            assert!(alive, "{run} hangs: {book:?}, wake {:?}", self.wake);
        }
    }

    /// A guardian that reads the whole record stands where the live one stands.
    pub(crate) fn replayed(&self, now: Moment, policy: &Policy, records: &[Stamped], live: &Guardian) {
        let restored = Guardian::restore(policy.clone(), runbook(), "0.1.0", records);
        assert_eq!(ledgers(&restored), ledgers(live), "replay gives another state");
        assert_eq!(restored.beliefs(), live.beliefs());
        let (a, b) = (restored.status(now), live.status(now));
        for (name, status) in &a.workloads {
            let other = &b.workloads[name];
            assert_eq!(
                (status.phase, &status.primary, status.epoch),
                (other.phase, &other.primary, other.epoch)
            );
            assert_eq!((&status.paused, &status.run), (&other.paused, &other.run));
        }
    }

    /// The runs that are open, with the step and attempt under way.
    pub(crate) fn under_way(&self) -> Vec<(RunId, StepName, u32)> {
        let open = self.open.values().filter_map(|run| {
            self.books[run].under_way.clone().map(|(step, attempt)| (run.clone(), step, attempt))
        });
        open.collect()
    }

    /// The question that is open, with its run.
    pub(crate) fn asked(&self) -> Vec<(RunId, Question)> {
        let open = self
            .open
            .values()
            .filter_map(|run| self.books[run].question.clone().map(|(question, _)| (run.clone(), question)));
        open.collect()
    }
}

/// The durable state of each workload, as the guardian prints it for debugging.
pub(crate) fn ledgers(guardian: &Guardian) -> Vec<String> {
    let text = format!("{guardian:?}");
    let parts = text.split("ledger: Ledger {").skip(1);
    let parts: Vec<String> =
        parts.map(|part| part.split(", survey: Survey {").next().unwrap_or_default().to_owned()).collect();
    assert_eq!(parts.len(), guardian.beliefs().len(), "the guardian prints itself differently now");
    parts
}
