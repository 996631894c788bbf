//! The promises (DESIGN, section 1), written apart from the code that keeps them.
//!
//! A book is kept of the shared record alone, and the world is looked at as it truly is. Nothing here calls the guardian.
//!
//! **Invariant:** a rule names the promise it stands for, and says what broke it with the numbers.

use std::sync::Arc;

use lifeboat_core::loss::{Basis, Loss};
use lifeboat_core::order::Question;
use lifeboat_core::outcome::FenceProof;
use lifeboat_core::plan::{Action, Kind, Plan};
use lifeboat_core::record::{Ending, Trigger};
use lifeboat_core::{Decision, Epoch, Moment, Outcome, Output, Reason, Record, Severity};

use crate::agent::Presence;
use crate::setting::{FRESHNESS, PERSON, RPO, Side};
use crate::world::{Flight, World};

/// How far two clocks of the model are apart at most: the loss is measured by moments of both.
const CLOCKS: u64 = 12_000;

/// What is known about the fence of the run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Fenced {
    #[default]
    No,
    /// Proven since the newest takeover and the newest doubt.
    Proven,
    /// Its lease ran out under a head that says it is closing. That does not age: while the run is open no head says
    /// anything else, and no lease is renewed against it.
    Expired,
    /// A person takes it on herself.
    Waived,
}

/// What the record says of the run that is open.
#[derive(Clone, Debug)]
struct Page {
    plan: Arc<Plan>,
    fenced: Fenced,
    fenced_first: Option<Moment>,
    loss: Option<Loss>,
    accepted: Option<Loss>,
    promoting: bool,
    promoted: bool,
}

/// The book.
#[derive(Clone, Debug, Default)]
pub(crate) struct Book {
    /// Who decides, by the newest election on record.
    elected: Option<(usize, u64)>,
    epoch: Epoch,
    /// The newest epoch that a command of the run was started under, and in which term.
    commanded: Option<(u64, Epoch)>,
    page: Option<Page>,
    /// A person took it on herself that there may be two primaries: by waiving a fence, or by her word that nothing was
    /// promoted.
    waived: bool,
    /// What the loss of the newest promotion may be in truth, at most.
    allowed: Option<u64>,
}

fn need(holds: bool, flaw: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(flaw()) }
}

impl World {
    /// Judges a decision that was put on record.
    pub(crate) fn judge(
        &mut self,
        (place, at): (usize, Moment),
        decision: &Decision,
        epoch: Epoch,
        torn: bool,
    ) {
        let mut book = (*self.book).clone();
        let judged = book.take(self, (place, at), decision, epoch, torn);
        self.book = Arc::new(book);
        if let Err(flaw) = judged {
            self.blame(|| flaw);
        }
    }

    /// The promises about the world itself, in every state.
    pub(crate) fn look_around(&mut self) {
        let writing: Vec<Side> =
            Side::BOTH.into_iter().filter(|side| self.servers[*side as usize].acknowledges()).collect();
        if writing.len() > 1 && !self.book.waived {
            self.blame(|| {
                "one writer: both servers acknowledge writes, and no person took that on herself".to_owned()
            });
        }
        let awake = |place: usize| self.agents[place].presence == Presence::Awake;
        let live: Vec<&Flight> =
            self.flights.iter().filter(|flight| flight.live && awake(flight.place)).collect();
        let two = live.iter().any(|one| live.iter().any(|other| one.place != other.place));
        if two {
            self.blame(|| "one decider: two agents have commands under way that they wait for".to_owned());
        }
    }

    /// What is truly lost by a promotion that has just happened.
    pub(crate) fn check_true_loss(&mut self, to: Side) {
        let lost = self.servers[to.other() as usize].has.saturating_sub(self.servers[to as usize].has);
        let allowed = self.book.allowed;
        if allowed.is_some_and(|allowed| lost > allowed) {
            self.blame(|| format!("no silent loss: {lost} ms of writes are lost, {allowed:?} were allowed"));
        }
    }
}

impl Book {
    fn take(
        &mut self,
        world: &World,
        (place, at): (usize, Moment),
        decision: &Decision,
        epoch: Epoch,
        torn: bool,
    ) -> Result<(), String> {
        let mut intents = Vec::new();
        for record in &decision.records {
            if let Record::Elected { term, .. } = record {
                need(self.elected.is_none_or(|(_, before)| before < *term), || {
                    format!("term {term} is not newer")
                })?;
                self.elected = Some((place, *term));
                // What another guardian has proven is not what this one has.
                if let Some(Page { fenced: fenced @ Fenced::Proven, .. }) = &mut self.page {
                    *fenced = Fenced::No;
                }
            }
            let author = self.elected.map(|(author, _)| author);
            need(author == Some(place), || {
                format!("one decider: agent {place} wrote {record} in the term of {author:?}")
            })?;
            if let Record::StepStarted { run, step, attempt, undo, .. } = record {
                intents.push((run.clone(), step.clone(), *attempt, *undo));
            }
            self.note(world, at, decision, record)?;
        }
        for command in &decision.commands {
            let which = (command.run.clone(), command.step.clone(), command.attempt, command.undo);
            need(intents.contains(&which), || {
                format!("on record before it moves: {which:?} is started without its intent")
            })?;
            need(epoch == self.epoch, || {
                format!("a command carries epoch {epoch}, the record is at {}", self.epoch)
            })?;
            let term = self.elected.map_or(0, |(_, term)| term);
            if let Some((before, newest)) = self.commanded.filter(|(before, _)| *before != term) {
                need(epoch > newest, || {
                    format!("a stale actor is refused: terms {before} and {term} command under epoch {epoch}")
                })?;
            }
            if !torn {
                self.commanded = Some((term, epoch));
            }
        }
        Ok(())
    }

    fn note(
        &mut self,
        world: &World,
        at: Moment,
        decision: &Decision,
        record: &Record,
    ) -> Result<(), String> {
        let told = |least| decision.notices.iter().any(|notice| notice.severity >= least);
        match record {
            Record::RunOpened { plan, trigger, .. } => {
                need(plan.epoch > self.epoch, || format!("epoch {} of a new run is not newer", plan.epoch))?;
                need(self.page.is_none(), || "a run opens while another is open".to_owned())?;
                (self.epoch, self.commanded) = (plan.epoch, None);
                if plan.kind == Kind::Failover && *trigger == Trigger::Automatic {
                    world.truly_lost(Side::of(&plan.from))?;
                }
                self.page = Some(Page {
                    plan: Arc::new((**plan).clone()),
                    fenced: Fenced::No,
                    fenced_first: None,
                    loss: None,
                    accepted: None,
                    promoting: false,
                    promoted: false,
                });
            }
            Record::TookOver { epoch, .. } => {
                need(*epoch > self.epoch, || format!("epoch {epoch} of a takeover is not newer"))?;
                self.epoch = *epoch;
            }
            Record::Asked { .. } | Record::Stranded { .. } => {
                need(told(Severity::Critical), || {
                    format!("a person is needed, and nobody is told: {record}")
                })?;
            }
            Record::RunEnded { ending, reason, .. } => self.end(*ending, reason)?,
            _ => {}
        }
        match (&mut self.page, record) {
            (Some(page), Record::StepStarted { step, undo: false, .. }) => {
                let action = page.plan.steps.iter().find(|planned| planned.name == *step).map(|s| &s.action);
                if matches!(action, Some(Action::Promote { .. })) {
                    page.may_promote()?;
                    page.promoting = true;
                    self.waived |= page.fenced == Fenced::Waived;
                    self.allowed =
                        page.allowed().map(|allowed| if allowed == 0 { 0 } else { allowed + CLOCKS });
                }
                Ok(())
            }
            (Some(page), record) => page.note(at, record),
            (None, _) => Ok(()),
        }
    }

    fn end(&mut self, ending: Ending, reason: &Reason) -> Result<(), String> {
        let page = self.page.take().ok_or_else(|| "a run ends that is not open".to_owned())?;
        let by_person = matches!(reason, Reason::GivenUp { .. });
        need((ending == Ending::Done) <= (page.promoted || page.plan.kind == Kind::Rejoin), || {
            "done, and nothing is promoted".to_owned()
        })?;
        need(ending == Ending::Done || !page.promoting || by_person, || {
            format!("a run that may have promoted ended as {ending} by itself")
        })?;
        self.waived |= matches!(reason, Reason::GivenUp { vouched: Some(_), .. });
        Ok(())
    }
}

impl Page {
    fn note(&mut self, at: Moment, record: &Record) -> Result<(), String> {
        match record {
            Record::StepEnded { step, outcome, undo: false, .. } => {
                let action =
                    self.plan.steps.iter().find(|planned| planned.name == *step).map(|s| s.action.clone());
                match (action, outcome) {
                    (Some(Action::Fence { expiry, .. }), Outcome::Succeeded(Output::Fenced { proofs })) => {
                        let good = proofs.len() == 1
                            && proofs.values().all(|proof| match proof {
                                FenceProof::Expired { .. } => expiry,
                                FenceProof::CutOff { .. } => false,
                                _ => true,
                            });
                        need(good, || format!("a fence is taken as proven by {proofs:?}"))?;
                        let expired = |proof: &FenceProof| matches!(proof, FenceProof::Expired { .. });
                        if self.fenced != Fenced::Waived {
                            let all = proofs.values().all(expired);
                            self.fenced = if all { Fenced::Expired } else { Fenced::Proven };
                        }
                        self.fenced_first.get_or_insert(at);
                    }
                    (Some(Action::Fence { .. }), Outcome::Failed(_)) if self.fenced != Fenced::Waived => {
                        (self.fenced, self.fenced_first) = (Fenced::No, None);
                    }
                    (Some(Action::Promote { .. }), Outcome::Succeeded(_)) => self.promoted = true,
                    _ => {}
                }
            }
            Record::StepEnded { undo: true, .. } => self.fenced = Fenced::No,
            Record::Reopened { .. } => (self.fenced, self.fenced_first) = (Fenced::No, None),
            Record::LossMeasured { loss, .. } => self.loss = Some(loss.clone()),
            Record::Approved { by, question, remaining: 0, .. } => {
                need(by == PERSON, || format!("approved by {by:?}"))?;
                match question {
                    Question::FenceUnproven { .. } => {
                        self.fenced = Fenced::Waived;
                        self.fenced_first.get_or_insert(at);
                    }
                    Question::LossAbove { loss, .. }
                    | Question::LossUnknown { loss }
                    | Question::LossDoubtful { loss, .. }
                    | Question::Supervised { loss } => self.accepted = Some(loss.clone()),
                    Question::BeforeStep { .. } => {}
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// One writer, and no silent loss: what must be on record before a standby is promoted.
    fn may_promote(&self) -> Result<(), String> {
        need(self.fenced != Fenced::No, || {
            "one writer: promoted without a proof of the fence, or a person's word".to_owned()
        })?;
        if self.plan.kind != Kind::Failover || self.promoting {
            return Ok(());
        }
        let measured = self.loss.as_ref().and_then(|loss| loss.at_most);
        let end = self.fenced_first;
        let stamped = self
            .loss
            .as_ref()
            .filter(|loss| loss.basis == Basis::Heartbeat)
            .and_then(|loss| loss.newest_heartbeat);
        let until = end.zip(stamped).map_or(0, |(end, stamped)| end.since(stamped).as_millis());
        let lost = measured.map(|measured| measured.as_millis().max(until));
        let allowed = self.allowed().map(u128::from);
        let within = allowed.is_none_or(|allowed| lost.is_some_and(|lost| lost <= allowed));
        need(within, || format!("no silent loss: {lost:?} ms would be lost, {allowed:?} are allowed"))
    }

    /// How much may be lost; none: whatever it is, a person said so.
    fn allowed(&self) -> Option<u64> {
        if self.plan.kind != Kind::Failover {
            return Some(0);
        }
        match self.accepted.as_ref().map(|loss| loss.at_most) {
            None => Some(RPO),
            Some(None) => None,
            Some(Some(known)) => Some(RPO + u64::try_from(known.as_millis()).unwrap_or(u64::MAX)),
        }
    }
}

impl World {
    /// No false failover: enough vantages truly saw the region fail, lately, over a network of their own that worked.
    fn truly_lost(&self, side: Side) -> Result<(), String> {
        let counts = |place: &usize| {
            let eye = &self.eyes[*place][side as usize];
            eye.connected && eye.lost() && self.now - eye.last <= FRESHNESS + FRESHNESS / 10
        };
        let votes: Vec<usize> = (0..3).filter(counts).collect();
        let outside = votes.iter().filter(|place| **place != side as usize).count();
        need(votes.len() >= 2 && outside >= 1, || {
            format!("no false failover: only {votes:?} see {side:?} as lost")
        })
    }
}
