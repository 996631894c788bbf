//! What is on record, as the judge reads it: its own book, made from the records alone.

use std::collections::BTreeSet;

use lifeboat_core::order::Question;
use lifeboat_core::outcome::{Outcome, Output};
use lifeboat_core::plan::{Action, Kind};
use lifeboat_core::record::Ending;
use lifeboat_core::{Command, Plan, Record, RunId, StepName};

use crate::simulate::setting::region;

/// The judge's book of the workload.
#[derive(Clone, Debug, Default)]
pub(crate) struct Book {
    /// How many records there are.
    pub(crate) records: u64,
    /// Where the workload lives.
    pub(crate) primary: usize,
    /// The run that is open.
    pub(crate) open: Option<(RunId, Plan)>,
    /// Whether its fence gave a proof that still counts, or was waived.
    pub(crate) fenced: bool,
    /// Whether a promotion was begun on the record, after the fence: from then on there is no way back, and one that is late
    /// finds the old primary as closed as it was, though its fence is being proven anew.
    pub(crate) promoting: bool,
    /// The most that persons accepted to lose, in milliseconds; the greatest number for "unknown".
    pub(crate) accepted: Option<u64>,
    /// The newest epoch of a run in which a person accepted that the old primary may still write.
    pub(crate) waived: u64,
    /// What it asks, when it asks.
    pub(crate) question: Option<Question>,
    pub(crate) stranded: bool,
    /// When the newest run ended, and how many failovers in a row came to nothing.
    pub(crate) ended_at: Option<u64>,
    pub(crate) fruitless: u32,
    pub(crate) paused: bool,
    /// The region that does not follow since the last move.
    pub(crate) left: Option<usize>,
    started: BTreeSet<(RunId, StepName, u32, bool)>,
}

impl Book {
    /// Takes a record in; gives what may not be.
    pub(crate) fn take(&mut self, now: u64, record: &Record) -> Vec<String> {
        let mut wrong = Vec::new();
        if let Some(run) = record.run() {
            let opens = matches!(record, Record::RunOpened { .. });
            let known = self.open.as_ref().is_some_and(|(open, _)| open == run);
            if opens == self.open.is_some() || known == opens {
                wrong.push(format!(
                    "a record of {run}, while {:?} is open: {record}",
                    self.open.as_ref().map(|(r, _)| r)
                ));
            }
        }
        match record {
            Record::RunOpened { run, plan, .. } => {
                self.open = Some((run.clone(), (**plan).clone()));
                self.fenced = false;
                self.promoting = false;
                self.accepted = None;
                self.question = None;
                self.stranded = false;
            }
            Record::StepStarted { run, step, attempt, undo, .. } => {
                if self.question.is_some() || self.stranded {
                    wrong.push(format!("{step} of {run} starts while a person is asked"));
                }
                if !self.started.insert((run.clone(), step.clone(), *attempt, *undo)) {
                    wrong.push(format!("attempt {attempt} at {step} of {run} starts twice"));
                }
                if self.action(step).is_some_and(|action| matches!(action, Action::Promote { .. })) {
                    self.promoting = true;
                    if !self.fenced {
                        wrong.push(format!("{run} promotes without a fence on record"));
                    }
                }
            }
            Record::StepEnded {
                outcome: Outcome::Succeeded(Output::Fenced { proofs }), undo: false, ..
            } => {
                self.fenced = !proofs.is_empty();
            }
            Record::StepEnded { outcome: Outcome::Succeeded(Output::Rejoined { .. }), .. } => {
                self.left = None
            }
            Record::Reopened { step, .. } => {
                let fence = self.action(step).is_some_and(|action| matches!(action, Action::Fence { .. }));
                self.fenced &= !fence;
            }
            Record::Asked { question, .. } => self.question = Some(question.clone()),
            Record::Approved { question, remaining: 0, .. } => {
                self.question = None;
                self.accept(question);
            }
            Record::Stranded { .. } => {
                self.stranded = true;
                self.question = None;
            }
            Record::Continued { .. } | Record::StepSkipped { .. } => self.stranded = false,
            Record::Unwinding { .. } => {
                self.stranded = false;
                self.question = None;
            }
            Record::PrimaryMoved { region: to, .. } => {
                self.left = Some(self.primary);
                self.primary = region(to).unwrap_or_default();
            }
            Record::RunEnded { ending, .. } => self.end(now, *ending),
            Record::Paused { .. } => self.paused = true,
            Record::Resumed { .. } => self.paused = false,
            _ => {}
        }
        wrong
    }

    fn end(&mut self, now: u64, ending: Ending) {
        let failover = self.open.as_ref().is_some_and(|(_, plan)| plan.kind == Kind::Failover);
        match (ending, failover) {
            (Ending::Done, _) => self.fruitless = 0,
            (_, true) => self.fruitless += 1,
            _ => {}
        }
        self.open = None;
        self.question = None;
        self.stranded = false;
        self.ended_at = Some(now);
    }

    fn accept(&mut self, question: &Question) {
        let epoch = self.open.as_ref().map_or(0, |(_, plan)| plan.epoch.get());
        match question {
            Question::LossAbove { loss, .. }
            | Question::Supervised { loss }
            | Question::LossUnknown { loss }
            | Question::LossDoubtful { loss, .. } => {
                let number =
                    loss.at_most.map_or(u64::MAX, |l| u64::try_from(l.as_millis()).unwrap_or(u64::MAX));
                self.accepted = self.accepted.max(Some(number));
            }
            Question::FenceUnproven { .. } => {
                // An old primary that may still write loses whatever it writes.
                self.accepted = Some(u64::MAX);
                self.waived = self.waived.max(epoch);
                self.fenced = true;
            }
            Question::BeforeStep { .. } => {}
        }
    }

    fn action(&self, step: &StepName) -> Option<&Action> {
        let (_, plan) = self.open.as_ref()?;
        plan.steps.iter().find(|planned| planned.name == *step).map(|planned| &planned.action)
    }

    /// Whether a command's record is there.
    pub(crate) fn started(&self, command: &Command) -> bool {
        self.started.contains(&(command.run.clone(), command.step.clone(), command.attempt, command.undo))
    }

    /// Whether a planned move is open.
    pub(crate) fn planned(&self) -> bool {
        self.open.as_ref().is_some_and(|(_, plan)| plan.kind != Kind::Failover)
    }

    /// What is open although nothing keeps it.
    pub(crate) fn hangs(&self) -> Option<String> {
        let (run, _) = self.open.as_ref()?;
        (self.question.is_none() && !self.stranded).then(|| format!("{run} neither ends nor asks"))
    }
}
