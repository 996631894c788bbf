//! Standing by: following the record, saying what is seen, and wanting to decide when nobody does.
//!
//! **Invariant:** a record is taken in only as the next of the journal, or as the one that is there already; a copy that
//! differs ends the loop.

use std::sync::Arc;
use std::time::Duration;

use lifeboat_core::testimony::Testimony;
use lifeboat_core::{Answer, Event, Order, Reason, Stamped};
use tokio::sync::{mpsc, oneshot, watch};
use tracing::{debug, info, warn};

use super::share::{Campaign, Duty, Waiting};
use super::{APPEND_LIMIT, EngineError, Guard};
use crate::clock::Clock;
use crate::inbox::Inbox;
use crate::journal::{Journal, JournalError};
use crate::news::News;
use crate::ports::{Change, Coordination, CoordinationError};

/// How many changes may wait between the watch and the inbox; a watch that is slower than the loop waits there.
const CHANGES: usize = 64;

/// How soon a watch that broke off begins again, and how late at most.
const WATCH_AGAIN: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));

/// How long an order that is forwarded may wait for its answer.
const ORDER_LIMIT: Duration = Duration::from_secs(10);

/// How long the coordinator may take to take a testimony in.
const TESTIFY_LIMIT: Duration = Duration::from_secs(2);

/// How many records that were told while this agent reads the record for the first time are written at once.
const BATCH: usize = 256;

/// How often a journal that could not be written is tried again.
const FLUSH_AGAIN: Duration = Duration::from_secs(5);

/// A backlog that is longer than this is not kept in memory any more.
const LONGEST_BACKLOG: usize = 10_000;

impl Guard {
    /// Starts the tasks that watch and testify.
    pub(super) fn share_out(&mut self, tasks: &mut crate::tasks::Tasks) {
        let Some(share) = &self.share else { return };
        let (coordination, clock) = (share.coordination.clone(), self.clock);
        let (journal, inbox) = (self.journal.clone(), self.inbox.clone());
        tasks.start("the watch".to_owned(), watch_for_ever(coordination, clock, journal, inbox));
        let (coordination, says) = (share.coordination.clone(), share.says.subscribe());
        tasks.start("the testimony".to_owned(), testify_for_ever(coordination, says));
    }

    /// Something changed in what several agents share.
    pub(super) async fn hear(&mut self, news: News) -> Result<(), EngineError> {
        let Some(share) = &mut self.share else { return Ok(()) };
        match news {
            News::Changed(change) => self.notice(*change).await,
            News::Unwatched(error) => {
                share.caught_up = false;
                share.decider = None;
                if let Campaign::At(_) = share.campaign {
                    share.campaign = Campaign::Idle;
                }
                match error {
                    CoordinationError::Rewound { .. } | CoordinationError::Damaged(_) => {
                        self.step_down(Some(&error)).await?;
                    }
                    _ => {}
                }
                self.complain(&error).await
            }
            News::Campaigned { sent, result } => self.take_office(sent, result).await,
            News::Missing { tenure, records } => self.take_missing(tenure, records).await,
            News::Kept { tenure, beat, sent } => {
                if share.held().is_none_or(|held| held.tenure != tenure) {
                    return Ok(());
                }
                share.echo = share.echo.max(Some(beat));
                share.stir();
                if share.deciding().is_some() {
                    return self.decide_at(sent, Event::Beaten(beat)).await.map(|_| ());
                }
                share.beats.push((beat, sent));
                Ok(())
            }
            News::Lost { tenure, error } => {
                if share.held().is_some_and(|held| held.tenure == tenure) {
                    self.step_down(Some(&error)).await?;
                }
                Ok(())
            }
        }
    }

    async fn notice(&mut self, change: Change) -> Result<(), EngineError> {
        let now = self.clock.now();
        let Some(share) = &mut self.share else { return Ok(()) };
        match change {
            Change::Record(stamped) => return self.take_in(stamped).await,
            Change::CaughtUp => {
                share.caught_up = true;
                self.flush().await?;
                self.recover().await?;
                if let Some(share) = &mut self.share {
                    share.schedule(&self.guardian, now);
                }
            }
            Change::Guardian(decider) => {
                let decided = decider.is_some();
                if decided && matches!(share.campaign, Campaign::At(_)) {
                    share.campaign = Campaign::Idle;
                }
                share.decider = decider;
                share.schedule(&self.guardian, now);
                if decided && share.caught_up {
                    return self.recover().await;
                }
            }
            Change::Beat(beat) => {
                share.echo = share.echo.max(Some(beat));
                share.stir();
            }
            Change::Testimony(testimony) if testimony.vantage == *self.guardian.agent() => {}
            Change::Testimony(testimony) => {
                return self.handle(Event::Testified(testimony)).await;
            }
            Change::Silent(vantage) if vantage == *self.guardian.agent() => {}
            Change::Silent(vantage) => {
                return self.handle(Event::Silenced(vantage)).await;
            }
            Change::Forged { vantage, why } => warn!(%vantage, why, "a testimony was dropped"),
            Change::Sentry { workload, region, says } => {
                return self.handle(Event::Guarded { workload, region, says }).await;
            }
            Change::Order { id, order } => match share.duty {
                Duty::Standing => {}
                Duty::Taking(_) => share.wait(Waiting::There(id, order)),
                Duty::Deciding(_) => return self.answer(id, order).await,
            },
        }
        Ok(())
    }

    /// Takes a record in that another agent has written, or compares one that is there already.
    pub(super) async fn take_in(&mut self, stamped: Stamped) -> Result<(), EngineError> {
        let Some(share) = &self.share else { return Ok(()) };
        let sequence = stamped.sequence;
        if sequence <= share.place {
            let known = match share.at_hand(sequence) {
                Some(known) => Some(known.clone()),
                None => self.journal.records(sequence.saturating_sub(1)).await?.into_iter().next(),
            };
            return if known == Some(stamped) { Ok(()) } else { Err(EngineError::Differs { sequence }) };
        }
        if sequence != share.place + 1 {
            return Err(EngineError::Gap { expected: share.place + 1, found: sequence });
        }
        if share.deciding().is_some() {
            // Nothing of ours is open: it is somebody else's.
            let why = CoordinationError::Deposed(format!("record {sequence} is not this agent's"));
            self.step_down(Some(&why)).await?;
        }
        info!("{}", stamped.record);
        // What is told while this agent reads what it has missed may be of any age.
        let news = self.share.as_ref().is_some_and(|share| share.caught_up);
        self.keep(vec![stamped.clone()]).await?;
        self.inform(if news { Event::Written(stamped) } else { Event::Recorded(stamped) });
        self.publish();
        Ok(())
    }

    /// Writes records that have their places into the journal; when its disk is full they wait in memory.
    pub(super) async fn keep(&mut self, records: Vec<Stamped>) -> Result<(), EngineError> {
        let Some(share) = &mut self.share else { return Ok(()) };
        share.advance(&records);
        share.backlog.extend(records);
        // An agent that reads a long record for the first time does not wait for its disk with each of them.
        let reading = !share.caught_up && share.held().is_none() && share.backlog.len() < BATCH;
        if share.unwritten || reading { Ok(()) } else { self.flush().await }
    }

    /// Writes what waits in memory into the journal.
    pub(super) async fn flush(&mut self) -> Result<(), EngineError> {
        let Some(share) = &mut self.share else { return Ok(()) };
        if share.unwritten {
            // One that was too slow may have come to its end since.
            let written = self.journal.newest().await?.map_or(0, |newest| newest.sequence);
            share.backlog.retain(|stamped| stamped.sequence > written);
        }
        let backlog = share.backlog.clone();
        if backlog.is_empty() && !share.unwritten {
            return Ok(());
        }
        let written = tokio::time::timeout(APPEND_LIMIT, self.journal.append_stamped(backlog)).await;
        match written.unwrap_or(Err(JournalError::Slow)) {
            Ok(()) => {
                share.backlog.clear();
                if std::mem::take(&mut share.unwritten) && share.well_again() {
                    self.inform(Event::Coordinated(Ok(())));
                }
                Ok(())
            }
            Err(error @ (JournalError::Append(_) | JournalError::Slow))
                if share.backlog.len() < LONGEST_BACKLOG =>
            {
                share.flush_at = self.clock.now() + FLUSH_AGAIN;
                share.campaign = Campaign::Idle;
                if !std::mem::replace(&mut share.unwritten, true) {
                    let text = format!(
                        "{error} ({}): this agent looks on and follows the record, and cannot decide until its disk takes writes again",
                        cause(&error)
                    );
                    share.well = Some(false);
                    self.inform(Event::Coordinated(Err(text)));
                }
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Gives an order to whoever decides; the person is answered by the answer that comes back.
    pub(super) fn forward(&mut self, order: Order, reply: oneshot::Sender<Answer>) {
        let Some(share) = &self.share else { return };
        if share.caught_up && share.decider.is_none() {
            let reason =
                Reason::NobodyDecides { because: "no agent holds the tenure at the moment".to_owned() };
            // A reply that nobody waits for any more is no fault.
            let _ = reply.send(Answer::Refused { reason });
            return;
        }
        let coordination = share.coordination.clone();
        self.asking.start("an order that is forwarded".to_owned(), async move {
            let given = tokio::time::timeout(ORDER_LIMIT * 2, coordination.order(&order, ORDER_LIMIT)).await;
            let late = || Err(CoordinationError::Unclear("no answer in time".to_owned()));
            let answer = given.unwrap_or_else(|_| late()).unwrap_or_else(|error| refusal(&error));
            let _ = reply.send(answer);
        });
    }

    /// The coordinator could not be used. One failure to reach it is tried again before people are told.
    pub(super) async fn complain(&mut self, error: &CoordinationError) -> Result<(), EngineError> {
        let Some(share) = &mut self.share else { return Ok(()) };
        share.failures += 1;
        let passing = matches!(error, CoordinationError::Unreachable(_) | CoordinationError::Unclear(_));
        if passing && share.failures < 2 {
            return Ok(());
        }
        if !share.unwell(error) {
            return Ok(());
        }
        self.handle(Event::Coordinated(Err(error.to_string()))).await
    }

    /// The coordinator works.
    async fn recover(&mut self) -> Result<(), EngineError> {
        let Some(share) = &mut self.share else { return Ok(()) };
        share.failures = 0;
        share.unreached = None;
        share.reached.send_replace(true);
        if share.well_again() { self.handle(Event::Coordinated(Ok(()))).await } else { Ok(()) }
    }
}

/// What a person is told whose order was not answered.
pub(super) fn refusal(error: &CoordinationError) -> Answer {
    let because = error.to_string();
    let reason = match error {
        CoordinationError::Unclear(_) | CoordinationError::Deposed(_) => Reason::OrderUnclear { because },
        CoordinationError::Unreachable(_)
        | CoordinationError::Denied(_)
        | CoordinationError::Full(_)
        | CoordinationError::Rewound { .. }
        | CoordinationError::Damaged(_) => Reason::NobodyDecides { because },
    };
    Answer::Refused { reason }
}

fn cause(error: &JournalError) -> String {
    std::error::Error::source(error).map_or_else(|| "no cause is known".to_owned(), ToString::to_string)
}

/// Watches from the newest record of the journal on; again and again.
async fn watch_for_ever(coordination: Arc<dyn Coordination>, clock: Clock, journal: Journal, inbox: Inbox) {
    let mut pause = WATCH_AGAIN.0;
    loop {
        let known = match journal.newest().await {
            Ok(known) => known,
            // The next record that is written will say the same, to people.
            Err(error) => return warn!(%error, "the watch cannot read the journal"),
        };
        let (changes, mut told) = mpsc::channel(CHANGES);
        let watching = async {
            let error = coordination.watch(known.as_ref(), &changes).await;
            drop(changes);
            error
        };
        let telling = async {
            let mut caught_up = false;
            while let Some(change) = told.recv().await {
                caught_up |= change == Change::CaughtUp;
                if inbox.tell(News::Changed(Box::new(change))).await.is_err() {
                    break;
                }
            }
            caught_up
        };
        let (error, caught_up) = tokio::join!(watching, telling);
        debug!(%error, "the watch broke off");
        if inbox.tell(News::Unwatched(error)).await.is_err() {
            return;
        }
        pause = if caught_up { WATCH_AGAIN.0 } else { pause };
        clock.sleep_until(clock.now() + pause).await;
        pause = (pause * 2).min(WATCH_AGAIN.1);
    }
}

/// Says the newest testimony whenever there is a new one.
async fn testify_for_ever(coordination: Arc<dyn Coordination>, mut says: watch::Receiver<Option<Testimony>>) {
    while says.changed().await.is_ok() {
        let Some(testimony) = says.borrow_and_update().clone() else { continue };
        match tokio::time::timeout(TESTIFY_LIMIT, coordination.testify(&testimony)).await {
            Ok(Ok(())) => {}
            // The watch tells what is wrong, once for all.
            Ok(Err(error)) => debug!(%error, "the testimony was not taken in"),
            Err(_) => debug!("the testimony was not taken in in time"),
        }
    }
}
