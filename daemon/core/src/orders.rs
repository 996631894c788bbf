//! Obeying a person, or refusing with the reason.

use crate::decision::Severity;
use crate::guardian::Deciding;
use crate::machine::{Happening, Phase, Reaction};
use crate::names::{RegionName, RunId};
use crate::order::{Acceptance, Answer, Order, Question};
use crate::reason::Reason;
use crate::record::{Ending, Record, Trigger};
use crate::status::Verdict;
use crate::time::Moment;

impl Deciding<'_> {
    /// Does what a person ordered, or refuses and touches nothing.
    pub(crate) fn obey(&mut self, order: Order) {
        let answer = match order {
            Order::Failover { to, by, .. } => self.obey_failover(&to, by),
            Order::Approve { run, accept, by } => self.obey_approval(&run, accept, by),
            Order::Abandon { run, reason, by } => self.obey_abandon(&run, reason, by),
            Order::Pause { reason, until, by, .. } => self.obey_pause(reason, until, by),
            Order::Resume { by, .. } => self.obey_resume(by),
        };
        self.decision.answer = Some(answer.unwrap_or_else(|reason| Answer::Refused { reason }));
    }

    fn obey_failover(&mut self, to: &RegionName, by: String) -> Result<Answer, Reason> {
        match self.reaction(Happening::FailoverOrdered) {
            Reaction::Continue => self.go_on(to, by),
            Reaction::OpenOrdered => self.open_ordered(to, by),
            _ => Err(self.run_open()),
        }
    }

    fn open_ordered(&mut self, to: &RegionName, by: String) -> Result<Answer, Reason> {
        let to = self.workload.standby(to)?;
        let from = self.workload.ledger.primary.clone();
        if self.gates().judged(&from).verdict == Verdict::Healthy {
            return Err(Reason::PrimaryHealthy { workload: self.name(), region: from });
        }
        self.gates().target_answers(&to)?;
        self.gates().identity_of(Some(&to))?;
        let reason = Reason::OrderedBy { person: by.clone() };
        let run = self.open(to.clone(), Trigger::Ordered { by }, reason)?;
        Ok(Answer::Accepted {
            text: format!("run {run} moves {} from {from} to {to}", self.name()),
            run: Some(run),
        })
    }

    fn go_on(&mut self, to: &RegionName, by: String) -> Result<Answer, Reason> {
        let Phase::Stranded(run, _) = &self.workload.ledger.phase else { return Err(self.run_open()) };
        let (id, towards) = (run.id().clone(), run.plan.to.clone());
        if towards != *to {
            return Err(Reason::StrandedElsewhere { run: id, to: towards });
        }
        let workload = self.name();
        self.write(Record::Continued { workload, run: id.clone(), by });
        self.renew_fence();
        self.advance();
        Ok(Answer::Accepted { text: format!("run {id} goes on to {towards}"), run: Some(id) })
    }

    fn run_open(&self) -> Reason {
        let run = self.workload.ledger.phase.run().map(|run| run.id().clone());
        run.map_or(Reason::NoRunOpen, |run| Reason::RunOpen { run })
    }

    fn obey_approval(
        &mut self,
        id: &RunId,
        accept: Option<Acceptance>,
        by: String,
    ) -> Result<Answer, Reason> {
        let open = self.workload.ledger.phase.run().filter(|run| run.id() == id);
        let Some(open) = open else { return Err(Reason::RunEnded { run: id.clone() }) };
        let asked = open.question.as_ref().filter(|(_, expires)| self.now < *expires);
        let Some((question, _)) =
            asked.filter(|_| self.reaction(Happening::Approved) == Reaction::TakeAnswer)
        else {
            return Err(Reason::NothingAsked { run: id.clone() });
        };
        let (run, question) = (id.clone(), question.clone());
        let given =
            accept.ok_or_else(|| Reason::NotAccepted { run: run.clone(), question: question.clone() })?;
        if given != question.acceptance() {
            let (Acceptance::Loss(given) | Acceptance::Unfenced(given)) = given;
            return Err(Reason::WrongAcceptance { run, given, question });
        }
        let workload = self.name();
        self.write(Record::Approved {
            workload,
            run: run.clone(),
            by: by.clone(),
            question: question.clone(),
        });
        if let Question::FenceUnproven { region, .. } = &question {
            self.tell(Severity::Critical, Reason::UnprovenWaived { region: region.clone(), person: by });
        }
        self.renew_fence();
        self.advance();
        Ok(Answer::Accepted { text: format!("run {run} goes on: accepted that {question}"), run: Some(run) })
    }

    fn obey_abandon(&mut self, id: &RunId, why: String, by: String) -> Result<Answer, Reason> {
        let open = self.workload.ledger.phase.run().filter(|run| run.id() == id);
        let Some(open) = open.filter(|_| self.reaction(Happening::GiveUpOrdered) == Reaction::GiveUp) else {
            return Err(Reason::RunEnded { run: id.clone() });
        };
        let stranded = matches!(self.workload.ledger.phase, Phase::Stranded(..));
        if !stranded && open.question.is_none() {
            let step = open.current().map(|(_, step, _)| step.name.clone());
            return Err(Reason::StepUnderWay { run: id.clone(), step });
        }
        self.end(Ending::Abandoned, Severity::Critical, Reason::GivenUp { person: by, why });
        let primary = &self.workload.ledger.primary;
        let text = format!("run {id} is given up; on record, {} lives in {primary}", self.name());
        Ok(Answer::Accepted { run: None, text })
    }

    fn obey_pause(&mut self, reason: String, until: Moment, by: String) -> Result<Answer, Reason> {
        if until <= self.now {
            return Err(Reason::PauseInThePast { until, now: self.now });
        }
        let workload = self.name();
        let text = match self.workload.ledger.phase.run() {
            Some(run) => {
                format!("paused until {until}; run {} goes on, no other will open by itself", run.id())
            }
            None => format!("paused until {until}: {workload} is watched, and nothing is done by itself"),
        };
        self.write(Record::Paused { workload, by, reason, until });
        self.decision.wake_at(until);
        Ok(Answer::Accepted { run: None, text })
    }

    fn obey_resume(&mut self, by: String) -> Result<Answer, Reason> {
        let workload = self.name();
        if self.workload.ledger.pause.is_none() {
            return Err(Reason::NotPausedNow { workload });
        }
        let text = format!("{workload} is protected automatically again");
        self.write(Record::Resumed { workload, by: Some(by) });
        Ok(Answer::Accepted { run: None, text })
    }
}
