//! What each record does to a run: the same live and in replay.

use lifeboat_runbooks::{Deed, Kind};

use super::{Progress, Run};
use crate::names::StepName;
use crate::order::Question;
use crate::outcome::{FenceProof, Outcome, Output};
use crate::record::Record;
use crate::time::Moment;

impl Run {
    /// Takes a record of this run in.
    pub fn apply(&mut self, at: Moment, record: &Record) {
        self.touched = at;
        match record {
            Record::StepStarted { step, attempt, undo, .. } => self.apply_start(step, at, *attempt, *undo),
            Record::StepEnded { step, attempt, outcome, retry_at, undo: false, .. } => {
                self.apply_outcome(step, at, *attempt, outcome, *retry_at);
            }
            Record::StepEnded { step, attempt, outcome, retry_at, undo: true, .. } => {
                self.apply_undo(step, *attempt, outcome, *retry_at);
            }
            Record::LossMeasured { loss, .. } => self.loss = Some(loss.clone()),
            Record::LossCounted { manifest, .. } => self.manifest = Some(manifest.clone()),
            Record::Asked { question, expires, .. } => {
                self.question = Some((question.clone(), *expires));
                self.assents.clear();
            }
            Record::Approved { by, question, remaining, .. } => {
                self.apply_approval(at, by, question, *remaining)
            }
            Record::Unwinding { ending, reason, .. } => {
                self.question = None;
                self.back = Some((*ending, reason.clone()));
            }
            Record::StepSkipped { step, .. } => {
                if let Some(index) = self.index(step) {
                    self.progress[index] = Progress::Skipped;
                }
                self.open_again();
            }
            Record::Continued { .. } => {
                self.since = at;
                self.open_again();
            }
            Record::Reopened { step, .. } => self.apply_reopening(step),
            Record::TookOver { epoch, .. } => {
                self.plan.epoch = *epoch;
                self.wait_no_more(at);
                // Told in a moment of another clock until now.
                if self.promotion_over.is_some() {
                    self.promotion_over =
                        self.place(Deed::Promote).map(|index| at + self.plan.steps[index].limit);
                }
            }
            Record::Elected { .. }
            | Record::RunOpened { .. }
            | Record::Stranded { .. }
            | Record::RunEnded { .. }
            | Record::PrimaryMoved { .. }
            | Record::AgentStarted { .. }
            | Record::VerdictChanged { .. }
            | Record::IdentityLearned { .. }
            | Record::Declined { .. }
            | Record::Paused { .. }
            | Record::Resumed { .. } => {}
        }
    }

    /// Lets every step that is not settled begin anew, with all its attempts.
    fn open_again(&mut self) {
        for index in 0..self.progress.len() {
            match self.progress[index] {
                Progress::Done { .. } | Progress::Waived | Progress::Skipped | Progress::Undone => {}
                Progress::Undoing { .. } | Progress::UndoPausing { .. } | Progress::NotUndone { .. } => {
                    self.progress[index] = Progress::UndoPausing {
                        attempt: self.undo_attempts[index],
                        until: self.touched,
                        fault: None,
                    };
                    self.undo_spent[index] = self.undo_attempts[index];
                }
                Progress::Waiting
                | Progress::Started { .. }
                | Progress::Pausing { .. }
                | Progress::Failed { .. } => {
                    self.progress[index] = Progress::Waiting;
                    self.spent[index] = self.attempts[index];
                }
            }
        }
    }

    /// What another agent was to try again later is tried now: when that was, its clock said.
    fn wait_no_more(&mut self, now: Moment) {
        for progress in &mut self.progress {
            if let Progress::Pausing { until, .. } | Progress::UndoPausing { until, .. } = progress {
                *until = now;
            }
        }
    }

    /// The fence is to be proven anew, and, while nothing is promoted, that the target has replayed all up to it.
    fn apply_reopening(&mut self, step: &StepName) {
        if let Some(index) = self.index(step) {
            self.progress[index] = Progress::Waiting;
        }
        // Nobody knows what the old primary took since: the loss is counted up to the next proof.
        self.fenced_at = None;
        self.lasting = false;
        if let Some(index) = self.place(Deed::CatchUp).filter(|_| !self.past_return) {
            self.progress[index] = Progress::Waiting;
        }
        self.open_again();
    }

    fn apply_approval(&mut self, at: Moment, by: &str, question: &Question, remaining: u32) {
        if remaining > 0 {
            return self.assents.push(by.to_owned());
        }
        self.question = None;
        self.assents.clear();
        self.since = at;
        self.accepted.push(question.clone());
        if matches!(question, Question::FenceUnproven { .. })
            && let Some(index) = self.place(Deed::Fence)
        {
            self.progress[index] = Progress::Waived;
            self.fenced_at.get_or_insert(at);
        }
    }

    fn apply_start(&mut self, step: &StepName, at: Moment, attempt: u32, undo: bool) {
        let Some(index) = self.index(step) else { return };
        if undo {
            self.undo_attempts[index] = attempt;
            self.progress[index] = Progress::Undoing { attempt };
            return;
        }
        self.attempts[index] = attempt;
        self.past_return |= self.plan.steps[index].point_of_no_return;
        if self.plan.steps[index].deed == Deed::Promote {
            self.promotion_over = Some(at + self.plan.steps[index].limit);
        }
        self.progress[index] = Progress::Started { attempt, at };
    }

    fn apply_outcome(
        &mut self,
        step: &StepName,
        at: Moment,
        attempt: u32,
        outcome: &Outcome,
        retry_at: Option<Moment>,
    ) {
        let Some(index) = self.index(step) else { return };
        let started = match self.progress[index] {
            Progress::Started { at, .. } => at,
            _ => at,
        };
        self.progress[index] = match (outcome, retry_at) {
            (Outcome::Succeeded(_), _) => Progress::Done { took: at.since(started) },
            (Outcome::Failed(_), Some(until)) => Progress::Pausing { attempt, until },
            (Outcome::Failed(fault), None) => {
                Progress::Failed { attempts: attempt - self.spent[index], fault: fault.clone() }
            }
        };
        match outcome {
            Outcome::Succeeded(Output::Positions { positions }) => self.positions = positions.clone(),
            Outcome::Succeeded(Output::Fenced { proofs }) => {
                self.fenced_at.get_or_insert(at);
                let expired = proofs.values().all(|proof| matches!(proof, FenceProof::Expired { .. }));
                self.lasting = self.plan.kind == Kind::Failover && expired && !proofs.is_empty();
                // Once the target may be promoted its log is its own: only the first end is one it must have.
                if !self.past_return || self.ends.is_empty() {
                    let ends = proofs.iter().filter_map(|(d, proof)| Some((d.clone(), proof.end()?.clone())));
                    self.ends = ends.collect();
                }
            }
            Outcome::Failed(_) if self.plan.steps[index].deed == Deed::Fence => {
                self.fenced_at = None;
                self.lasting = false;
            }
            Outcome::Succeeded(_) | Outcome::Failed(_) => {}
        }
    }

    fn apply_undo(&mut self, step: &StepName, attempt: u32, outcome: &Outcome, retry_at: Option<Moment>) {
        let Some(index) = self.index(step) else { return };
        self.progress[index] = match (outcome, retry_at) {
            (Outcome::Succeeded(_), _) => Progress::Undone,
            (Outcome::Failed(fault), Some(until)) => {
                Progress::UndoPausing { attempt, until, fault: Some(fault.clone()) }
            }
            (Outcome::Failed(fault), None) => {
                Progress::NotUndone { attempts: attempt - self.undo_spent[index], fault: fault.clone() }
            }
        };
    }
}
