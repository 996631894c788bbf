//! Obeying a person, or refusing with the reason.

use lifeboat_runbooks::{Deed, Kind};

use crate::decision::Severity;
use crate::guardian::Deciding;
use crate::machine::{Happening, Phase, Reaction};
use crate::names::{RegionName, RunId, StepName};
use crate::order::{Acceptance, Answer, Order, Question};
use crate::reason::Reason;
use crate::record::{Ending, Record, Trigger};
use crate::run::{Progress, Run};
use crate::status::Verdict;
use crate::time::Moment;

impl Deciding<'_> {
    /// Does what a person ordered, or refuses and touches nothing.
    pub(crate) fn obey(&mut self, order: Order) {
        let answer = match order {
            Order::Failover { to, by, .. } => self.obey_failover(&to, by),
            Order::Approve { run, accept, by } => self.obey_approval(&run, accept, by),
            Order::Abandon { run, reason, accept, by } => self.obey_abandon(&run, reason, accept, by),
            Order::Switchover { to, by, .. } => self.obey_planned(Kind::Switchover, &to, by),
            Order::Failback { by, .. } => {
                let home = self.workload.policy.home.clone();
                self.obey_planned(Kind::Failback, &home, by)
            }
            Order::Rejoin { region, by, .. } => self.obey_planned(Kind::Rejoin, &region, by),
            Order::Cancel { run, reason, by } => self.obey_cancel(&run, reason, by),
            Order::Skip { run, step, reason, by } => self.obey_skip(&run, &step, reason, by),
            Order::Pause { reason, until, by, .. } => self.obey_pause(reason, until, by),
            Order::Resume { by, .. } => self.obey_resume(by),
        };
        self.decision.answer = Some(Box::new(answer.unwrap_or_else(|reason| Answer::Refused { reason })));
    }

    fn obey_failover(&mut self, to: &RegionName, by: String) -> Result<Answer, Reason> {
        match self.reaction(Happening::FailoverOrdered) {
            Reaction::Continue => self.go_on(Kind::Failover, to, by),
            Reaction::OpenOrdered => self.open_ordered(to, by),
            _ => Err(self.run_open()),
        }
    }

    fn open_ordered(&mut self, to: &RegionName, by: String) -> Result<Answer, Reason> {
        let to = self.workload.standby(to)?;
        let from = self.workload.ledger.primary.clone();
        if self.gates().verdict(&from) == Verdict::Healthy {
            return Err(Reason::PrimaryHealthy { workload: self.name(), region: from });
        }
        self.gates().target_answers(&to)?;
        self.gates().identity_of(Some(&to))?;
        let reason = Reason::OrderedBy { person: by.clone() };
        let run = self.open(Kind::Failover, to.clone(), Trigger::Ordered { by }, reason)?;
        Ok(Answer::Accepted {
            text: format!("run {run} moves {} from {from} to {to}", self.name()),
            run: Some(run),
        })
    }

    /// A planned move, or a rejoin: opened when nothing is at risk, or carried on when it is stranded.
    fn obey_planned(&mut self, kind: Kind, region: &RegionName, by: String) -> Result<Answer, Reason> {
        match self.reaction(Happening::PlannedOrdered) {
            Reaction::Continue => return self.go_on(kind, region, by),
            Reaction::OpenOrdered => {}
            _ => return Err(self.run_open()),
        }
        let region = self.workload.standby(region)?;
        self.may_be_planned(kind, &region)?;
        let from = self.workload.ledger.primary.clone();
        let reason = Reason::OrderedBy { person: by.clone() };
        let run = self.open(kind, region.clone(), Trigger::Ordered { by }, reason)?;
        let text = match kind {
            Kind::Rejoin => format!("run {run} makes {region} a standby of {from}"),
            _ => format!("run {run} moves {} from {from} to {region}, losing nothing", self.name()),
        };
        Ok(Answer::Accepted { text, run: Some(run) })
    }

    fn may_be_planned(&self, kind: Kind, region: &RegionName) -> Result<(), Reason> {
        let w = &self.workload;
        let gates = self.gates();
        let verdict = gates.verdict(&w.ledger.primary);
        if verdict != Verdict::Healthy {
            let (workload, region) = (self.name(), w.ledger.primary.clone());
            return Err(Reason::PrimaryNotHealthy { workload, region, verdict });
        }
        if kind == Kind::Rejoin {
            if !w.policy.hosts.contains(region) {
                return Err(Reason::NoHost { region: region.clone() });
            }
            gates.left_behind(region)?;
            let follows = gates.follows(region).is_ok();
            return if follows { Err(Reason::FollowsAlready { region: region.clone() }) } else { Ok(()) };
        }
        gates.follows(region)?;
        gates.identity_of(Some(region))?;
        if kind == Kind::Failback { gates.held_down(region) } else { Ok(()) }
    }

    /// Stops a run and takes back what it did, when nothing is promoted yet.
    fn obey_cancel(&mut self, id: &RunId, why: String, by: String) -> Result<Answer, Reason> {
        let open = self.workload.ledger.phase.run().filter(|run| run.id() == id);
        let Some(open) = open.filter(|_| self.reaction(Happening::CancelOrdered) == Reaction::TakeBack)
        else {
            return Err(Reason::RunEnded { run: id.clone() });
        };
        if open.past_return {
            return Err(Reason::PastReturn { run: id.clone() });
        }
        if open.back.is_some() {
            let text = format!("run {id} is being taken back already");
            return Ok(Answer::Accepted { text, run: None });
        }
        let fence = open.place(Deed::Fence).filter(|index| open.attempts[*index] > 0);
        let fence_stays = fence.is_some_and(|index| open.plan.steps[index].undo.is_none());
        let region = open.plan.from.clone();
        let ending = if open.to_take_back().next().is_some() { Ending::Undone } else { Ending::Abandoned };
        let (workload, run) = (self.name(), id.clone());
        self.write(Record::Unwinding {
            workload,
            run,
            ending,
            reason: Reason::Cancelled { person: by, why },
        });
        self.advance();
        let text = if fence_stays {
            format!(
                "run {id} is cancelled, and nothing was promoted; the fence of {region} stays until a person lifts it"
            )
        } else {
            format!("run {id} is cancelled; what it did is taken back")
        };
        Ok(Answer::Accepted { text, run: None })
    }

    /// Lets a stranded run go on without the step it is stranded at.
    fn obey_skip(&mut self, id: &RunId, step: &StepName, why: String, by: String) -> Result<Answer, Reason> {
        let open = self.workload.ledger.phase.run().filter(|run| run.id() == id);
        let Some(open) = open else { return Err(Reason::RunEnded { run: id.clone() }) };
        let refused = |because: &str| Reason::NotSkippable {
            run: id.clone(),
            step: step.clone(),
            because: because.to_owned(),
        };
        if self.reaction(Happening::SkipOrdered) != Reaction::LeaveOut {
            return Err(refused("only a stranded run goes on without a step"));
        }
        let index = open.index(step).ok_or_else(|| refused("the run has no such step"))?;
        if !matches!(open.progress[index], Progress::Failed { .. }) {
            return Err(refused("it is not what the run is stranded at"));
        }
        if matches!(
            open.plan.steps[index].deed,
            Deed::MeasureLoss | Deed::CheckStandby | Deed::Fence | Deed::CatchUp | Deed::Promote
        ) {
            return Err(refused("the safety of what follows rests on it"));
        }
        let (workload, run) = (self.name(), id.clone());
        self.write(Record::StepSkipped { workload, run, step: step.clone(), by, why });
        self.advance();
        Ok(Answer::Accepted { text: format!("run {id} goes on without {step}"), run: Some(id.clone()) })
    }

    fn go_on(&mut self, kind: Kind, to: &RegionName, by: String) -> Result<Answer, Reason> {
        let Phase::Stranded(run, _) = &self.workload.ledger.phase else { return Err(self.run_open()) };
        let plan = &run.plan;
        let towards = if plan.kind == Kind::Rejoin { plan.from.clone() } else { plan.to.clone() };
        let id = run.id().clone();
        // A failover order carries on any stranded move to the same region, as it always did.
        let same = plan.kind == kind || (kind == Kind::Failover && plan.kind != Kind::Rejoin);
        if towards != *to || !same {
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
            return Err(Reason::WrongAcceptance {
                run,
                given: given.text().to_owned(),
                question: Box::new(question),
            });
        }
        if open.assents.contains(&by) {
            return Err(Reason::AlreadyApproved { run, person: by });
        }
        let given = u32::try_from(open.assents.len()).unwrap_or(u32::MAX).saturating_add(1);
        let remaining = self.workload.policy.failover.approvals.saturating_sub(given);
        let workload = self.name();
        self.write(Record::Approved {
            workload,
            run: run.clone(),
            by: by.clone(),
            question: question.clone(),
            remaining,
        });
        if remaining > 0 {
            let text = format!("accepted that {question}; {remaining} other person must accept it, too");
            return Ok(Answer::Accepted { text, run: Some(run) });
        }
        if let Question::FenceUnproven { region, .. } = &question {
            self.tell(Severity::Critical, Reason::UnprovenWaived { region: region.clone(), person: by });
        }
        self.renew_fence();
        self.advance();
        Ok(Answer::Accepted { text: format!("run {run} goes on: accepted that {question}"), run: Some(run) })
    }

    fn obey_abandon(
        &mut self,
        id: &RunId,
        why: String,
        accept: Option<Acceptance>,
        by: String,
    ) -> Result<Answer, Reason> {
        let open = self.workload.ledger.phase.run().filter(|run| run.id() == id);
        let Some(open) = open.filter(|_| self.reaction(Happening::GiveUpOrdered) == Reaction::GiveUp) else {
            return Err(Reason::RunEnded { run: id.clone() });
        };
        let stranded = matches!(self.workload.ledger.phase, Phase::Stranded(..));
        if !stranded && open.question.is_none() {
            let step = open.current().map(|(_, step, _)| step.name.clone());
            return Err(Reason::StepUnderWay { run: id.clone(), step });
        }
        let vouched = self.unpromoted(open, accept)?;
        // Nobody writes there until a person lifts the fence, or the run is taken back instead of given up.
        let fence = open.place(Deed::Fence).filter(|index| open.attempts[*index] > 0 && !open.past_return);
        let closed = fence.map(|_| open.plan.from.clone());
        self.end(Ending::Abandoned, Severity::Critical, Reason::GivenUp { person: by, why, vouched });
        let primary = &self.workload.ledger.primary;
        let mut text = format!("run {id} is given up; on record, {} lives in {primary}", self.name());
        if let Some(region) = closed {
            text.push_str(&format!("; the fence of {region} stays until a person lifts it"));
        }
        Ok(Answer::Accepted { run: None, text })
    }

    /// Whether nothing came of the promotion of a run that is to be given up. From then on the region that was to be left holds
    /// the write lease again: a target that has become a primary, unnoticed or late, would be the second one. Where nobody
    /// can look, a person must say so: that region is the answer.
    fn unpromoted(&self, run: &Run, accept: Option<Acceptance>) -> Result<Option<RegionName>, Reason> {
        let Some(since) = run.promotion_over.filter(|_| !run.promoted()) else { return Ok(None) };
        let (w, id, region) = (&self.workload, run.id().clone(), run.plan.to.clone());
        if self.gates().target_is_primary(&region) {
            return Err(Reason::TargetIsPrimary { run: id, region });
        }
        if w.survey.follows_since(&w.policy, &region, since) {
            return Ok(None);
        }
        if accept == Some(Acceptance::Unfenced(region.as_str().to_owned())) {
            return Ok(Some(region));
        }
        Err(Reason::MayBePrimary { run: id, region, since })
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
