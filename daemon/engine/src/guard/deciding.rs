//! Deciding for all: taking office, appending for everybody before anything starts, and stepping down.
//!
//! **Invariant:** nothing is started by a decision that is not on the shared record for sure; one that is not, never was.
//! **Invariant:** nothing is decided before everything on the shared record is read, nor after the tenure is over by this
//! agent's own clock.

use std::collections::BTreeMap;
use std::time::Duration;

use lifeboat_core::head::Head;
use lifeboat_core::{Answer, Event, Moment, Order, Reason, Record, Stamped, WorkloadName};
use tracing::{info, warn};

use super::share::{Campaign, Duty, Share, Waiting};
use super::standing::refusal;
use super::tenure::Held;
use super::{EngineError, Guard};
use crate::ports::{CoordinationError, Tenure};
use crate::tasks::Tasks;

/// How long the coordinator may take for an append, and then for saying what became of it.
const APPEND_LIMIT: Duration = Duration::from_secs(3);

/// How long giving the tenure back may hold up an agent that stops.
const RETIRE_LIMIT: Duration = Duration::from_secs(1);

/// How soon it is asked again what became of an append.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

impl Guard {
    /// Asks for the tenure; the answer comes as news.
    pub(super) fn run_for_office(&mut self) {
        let Some(share) = &mut self.share else { return };
        share.campaign = Campaign::UnderWay;
        let (coordination, clock, inbox) = (share.coordination.clone(), self.clock, self.inbox.clone());
        self.asking.start("the campaign".to_owned(), async move {
            let sent = clock.now();
            let limit = coordination.tenure_ttl() / 2;
            let late = || Err(CoordinationError::Unclear("no answer to the campaign".to_owned()));
            let result =
                tokio::time::timeout(limit, coordination.campaign()).await.unwrap_or_else(|_| late());
            // When the loop has ended there is nobody to tell.
            let _ = inbox.tell(crate::news::News::Campaigned { sent, result }).await;
        });
    }

    /// The campaign is over: when it was won, everything that this agent has not read is read first.
    pub(super) async fn take_office(
        &mut self,
        sent: Moment,
        result: Result<Option<Tenure>, CoordinationError>,
    ) -> Result<(), EngineError> {
        let now = self.clock.now();
        let Some(share) = &mut self.share else { return Ok(()) };
        share.campaign = Campaign::Idle;
        match result {
            Ok(Some(tenure)) => {
                let keeper = share.keeper(self.clock, &self.inbox);
                let mut held = Held::new(keeper.clone(), tenure, sent);
                held.read(keeper, share.place);
                share.beats.clear();
                share.duty = Duty::Taking(held);
                Ok(())
            }
            Ok(None) => {
                share.not_before = now + share.coordination.tenure_ttl() / 3;
                share.schedule(&self.guardian, now);
                Ok(())
            }
            Err(error) => {
                share.not_before = now + share.coordination.tenure_ttl() / 3;
                share.schedule(&self.guardian, now);
                self.complain(&error).await
            }
        }
    }

    /// Takes in what was missing; when nothing is any more, this agent decides.
    pub(super) async fn take_missing(
        &mut self,
        tenure: Tenure,
        records: Vec<Stamped>,
    ) -> Result<(), EngineError> {
        let taking = self.share.as_mut().and_then(Share::held).map(|held| held.tenure);
        if taking != Some(tenure) {
            return Ok(());
        }
        let complete = records.is_empty();
        for stamped in records {
            self.take_in(stamped).await?;
        }
        let Some(share) = &mut self.share else { return Ok(()) };
        if !share.backlog.is_empty() {
            return self.step_down(None).await;
        }
        let (keeper, place) = (share.keeper(self.clock, &self.inbox), share.place);
        if !complete {
            if let Some(held) = share.held() {
                held.read(keeper, place);
            }
            return Ok(());
        }
        let Duty::Taking(held) = std::mem::replace(&mut share.duty, Duty::Standing) else { return Ok(()) };
        share.duty = Duty::Deciding(held);
        share.heads.clear();
        let beats = std::mem::take(&mut share.beats);
        info!(term = tenure.term, "this agent decides");
        self.handle(Event::Elected { term: tenure.term }).await?;
        for (beat, sent) in beats {
            self.decide_at(sent, Event::Beaten(beat)).await?;
        }
        let waiting = self.share.as_mut().map(|share| std::mem::take(&mut share.waiting));
        for order in waiting.into_iter().flatten() {
            match order {
                Waiting::Here(order, reply) => self.obey(order, reply).await?,
                Waiting::There(id, order) => self.answer(id, order).await?,
            }
        }
        Ok(())
    }

    /// Answers an order that was given to another agent.
    pub(super) async fn answer(&mut self, id: String, order: Order) -> Result<(), EngineError> {
        let known = self.share.as_ref().and_then(|share| share.answer_to(&id).cloned());
        let answer = match known {
            Some(answer) => Some(answer),
            None => self.decide(Event::Ordered(order)).await?,
        };
        let Some(share) = &mut self.share else { return Ok(()) };
        let (Some(answer), Some(held)) = (answer, share.deciding()) else { return Ok(()) };
        let (tenure, coordination) = (held.tenure, share.coordination.clone());
        share.keep_answer(id.clone(), answer.clone());
        self.asking.start(format!("the answer to order {id}"), async move {
            let given = coordination.answer(tenure, &id, &answer);
            match tokio::time::timeout(APPEND_LIMIT, given).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => warn!(%error, id, "an order's answer was not delivered"),
                Err(_) => warn!(id, "an order's answer was not delivered in time"),
            }
        });
        Ok(())
    }

    /// Puts the records of a decision on the shared record, and then into the journal. When that fails the decision never
    /// was, this agent stands by, and the reason is for the person who gave the order.
    pub(super) async fn share_records(
        &mut self,
        at: Moment,
        records: Vec<Record>,
    ) -> Result<Result<(), Reason>, EngineError> {
        let heads = self.guardian.heads();
        let Some(share) = &mut self.share else { return Ok(Ok(())) };
        let stamped = (share.place + 1..).zip(records);
        let stamped: Vec<Stamped> =
            stamped.map(|(sequence, record)| Stamped { sequence, at, record }).collect();
        let changed = heads.iter().filter(|(name, head)| share.heads.get(*name) != Some(*head));
        let changed: BTreeMap<WorkloadName, Head> = changed.map(|(n, h)| (n.clone(), h.clone())).collect();
        if let Err(error) = self.append_for_all(&stamped, &changed).await {
            self.step_down(Some(&error)).await?;
            let Answer::Refused { reason } = refusal(&error) else { return Ok(Ok(())) };
            let unclear = matches!(error, CoordinationError::Unclear(_));
            let because = error.to_string();
            return Ok(Err(if unclear { reason } else { Reason::NobodyDecides { because } }));
        }
        if let Some(share) = &mut self.share {
            share.heads = heads;
        }
        self.keep(stamped).await?;
        // What is on record goes on under the next guardian; nothing is started here.
        let why = match &self.share {
            Some(share) if !share.backlog.is_empty() => "this agent's own journal cannot be written",
            Some(share) if share.deciding().is_none_or(|held| held.until() <= self.clock.now()) => {
                "the tenure was over when it was on record"
            }
            _ => return Ok(Ok(())),
        };
        let error = CoordinationError::Deposed(why.to_owned());
        self.step_down(Some(&error)).await?;
        Ok(Err(Reason::OrderUnclear { because: why.to_owned() }))
    }

    async fn append_for_all(
        &self,
        records: &[Stamped],
        heads: &BTreeMap<WorkloadName, Head>,
    ) -> Result<(), CoordinationError> {
        let over = || CoordinationError::Unreachable("the tenure was not renewed in time".to_owned());
        let Some(share) = &self.share else { return Err(over()) };
        let held = share.deciding().filter(|held| held.until() > self.clock.now()).ok_or_else(over)?;
        let append = share.coordination.append(held.tenure, records, heads);
        let limit = APPEND_LIMIT.min(held.until().since(self.clock.now()));
        let late = || Err(CoordinationError::Unclear("no answer to an append".to_owned()));
        let unclear = match tokio::time::timeout(limit, append).await.unwrap_or_else(|_| late()) {
            Err(CoordinationError::Unclear(why)) => why,
            known => return known,
        };
        // It may have been taken in; one that is not there now cannot be once the tenure was given back.
        let ends = (self.clock.now() + APPEND_LIMIT).min(held.until());
        loop {
            let left = ends.since(self.clock.now());
            let read = tokio::time::timeout(left, share.coordination.records(share.place)).await;
            match read {
                Ok(Ok(there)) if there == records => return Ok(()),
                Ok(Ok(there)) if there.is_empty() => return Err(CoordinationError::Unclear(unclear)),
                Ok(Ok(_)) => {
                    let why = "another agent has written to the record".to_owned();
                    return Err(CoordinationError::Deposed(why));
                }
                Ok(Err(CoordinationError::Unreachable(_) | CoordinationError::Unclear(_))) => {}
                Ok(Err(error)) => return Err(error),
                Err(_) => return Err(CoordinationError::Unclear(unclear)),
            }
            self.clock.sleep_until((self.clock.now() + LOOK_AGAIN).min(ends)).await;
            if self.clock.now() >= ends {
                return Err(CoordinationError::Unclear(unclear));
            }
        }
    }

    /// Gives the tenure up: what is under way is let go, and what is not on record never was.
    pub(super) async fn step_down(&mut self, why: Option<&CoordinationError>) -> Result<(), EngineError> {
        let now = self.clock.now();
        let Some(share) = &mut self.share else { return Ok(()) };
        let held = match std::mem::replace(&mut share.duty, Duty::Standing) {
            Duty::Standing => return Ok(()),
            Duty::Taking(held) | Duty::Deciding(held) => held,
        };
        let (tenure, coordination) = (held.tenure, share.coordination.clone());
        drop(held);
        share.not_before = now + coordination.tenure_ttl();
        let backlog = share.backlog.clone();
        let waiting = std::mem::take(&mut share.waiting);
        // What is under way is refused by its epoch from now on, or finds its effect there when it is repeated.
        self.working = Tasks::default();
        self.wake = None;
        info!(term = tenure.term, why = why.map(tracing::field::display), "this agent stands by");
        self.inform(Event::Deposed);
        let mut records = self.journal.records(0).await?;
        records.extend(backlog);
        self.guardian.reread(&records);
        self.publish();
        self.asking.start("the resignation".to_owned(), async move {
            // It ends by itself when nobody hears this.
            let _ = tokio::time::timeout(coordination.tenure_ttl(), coordination.resign(tenure)).await;
        });
        for order in waiting {
            if let Waiting::Here(_, reply) = order {
                let because = "the agent that was about to decide had to stand by".to_owned();
                let _ = reply.send(Answer::Refused { reason: Reason::NobodyDecides { because } });
            }
        }
        let news = why.filter(|error| self.share.as_mut().is_some_and(|share| share.unwell(error)));
        if let Some(error) = news {
            self.inform(Event::Coordinated(Err(error.to_string())));
        }
        if let Some(share) = &mut self.share {
            share.schedule(&self.guardian, now);
        }
        Ok(())
    }

    /// Gives the tenure back when the agent stops, so that nobody has to wait for its end.
    pub(super) async fn retire(&mut self) {
        self.working = Tasks::default();
        let Some(share) = &mut self.share else { return };
        let Some(tenure) = share.held().map(|held| held.tenure) else { return };
        share.duty = Duty::Standing;
        // It ends by itself when nobody hears this.
        let _ = tokio::time::timeout(RETIRE_LIMIT, share.coordination.resign(tenure)).await;
    }

    /// Steps down when the tenure is over by this agent's own clock.
    pub(super) async fn heed_tenure(&mut self) -> Result<(), EngineError> {
        let now = self.clock.now();
        let Some(held) = self.share.as_mut().and_then(Share::held) else { return Ok(()) };
        if let Some(panic) = held.panicked() {
            return Err(EngineError::TaskEnded { name: format!("the keeper of the tenure: {panic}") });
        }
        if now < held.until() {
            return Ok(());
        }
        let why = CoordinationError::Unreachable("the tenure was not renewed in time".to_owned());
        self.step_down(Some(&why)).await
    }

    /// What is due: a campaign, a testimony, the journal's backlog.
    pub(super) async fn attend(&mut self) -> Result<(), EngineError> {
        let now = self.clock.now();
        let Some(share) = &mut self.share else { return Ok(()) };
        if now >= share.testify_at {
            share.testify(&self.guardian, now);
        }
        let due = matches!(share.campaign, Campaign::At(moment) if moment <= now);
        if !share.backlog.is_empty() && now >= share.flush_at {
            self.flush().await?;
        }
        if due {
            self.run_for_office();
        }
        Ok(())
    }

    /// Looks, each second, whether another agent should rather decide.
    pub(super) async fn make_way(&mut self) -> Result<(), EngineError> {
        let now = self.clock.now();
        let Some(share) = &mut self.share else { return Ok(()) };
        share.schedule(&self.guardian, now);
        if share.deciding().is_none() || !self.guardian.better_elsewhere(now) {
            return Ok(());
        }
        info!("this agent makes way for one that had better decide");
        self.step_down(None).await
    }
}
