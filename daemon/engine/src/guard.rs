//! The loop: one inbox, one decision at a time, on the record, then act.
//!
//! **Invariant:** the order is decide, append, publish, start. When the append fails nothing is started and
//! the loop ends, because what the guardian believes is then not what the record says.
//! **Invariant:** no bytes flow through here, and nothing here waits for the world.
//!
//! An agent that shares its record with others (`guard/`) appends for everybody first, and decides only while it holds
//! the tenure.

mod deciding;
mod share;
mod standing;
mod tenure;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use lifeboat_core::guardian::Guardian;
use lifeboat_core::head::Head;
use lifeboat_core::{
    Answer, Decision, Epoch, Event, Moment, Notice, Order, Record, RegionName, Stamped, WorkloadName,
};
use thiserror::Error;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::clock::Clock;
use crate::hands::Hands;
use crate::inbox::{Inbox, Message};
use crate::journal::{Journal, JournalError};
use crate::ports::Coordination;
use crate::tasks::Tasks;
use crate::watch::{Beliefs, Watch};
use crate::world::World;

use self::share::{Duty, Share, Waiting};

/// The guardian is asked at least this often, so that sightings that stop coming are noticed.
const TICK: Duration = Duration::from_secs(1);

/// A disk that takes longer than this for a few hundred bytes will not do: an agent that waits for it would
/// look alive and be blind.
const APPEND_LIMIT: Duration = Duration::from_secs(10);

/// How long one way of telling people may take before it counts as failed.
const NOTIFY_LIMIT: Duration = Duration::from_secs(10);

/// Why the loop ended without being told to.
#[derive(Debug, Error)]
pub enum EngineError {
    /// The record cannot be kept, so nothing may be done.
    #[error("the journal failed; nothing was started after that")]
    Journal(#[from] JournalError),
    /// This agent's copy of the record and the shared record are not the same record.
    #[error(
        "record {sequence} of the shared record is not the one in this agent's journal. One of the two is another record, or an old copy: stop this agent and compare `lifeboat history` with the other agents'. If theirs is right, move this agent's journal.db away and start it again: it copies the shared record"
    )]
    Differs {
        /// Its place.
        sequence: u64,
    },
    /// The shared record went on without records that this agent has not seen.
    #[error(
        "the shared record goes on with record {found}, and this agent's journal with {expected}: move this agent's journal.db away and start it again: it copies the shared record"
    )]
    Gap {
        /// The next place of the journal.
        expected: u64,
        /// The place of the record that came.
        found: u64,
    },
    /// A task that should run for ever, or give an outcome, is gone.
    #[error("a task ended unexpectedly: {name}")]
    TaskEnded {
        /// Its name, or what is known of its end.
        name: String,
    },
}

/// What a guard is made of.
pub struct Parts {
    /// Who decides; it has read its record.
    pub guardian: Guardian,
    /// The record.
    pub journal: Journal,
    /// The clock.
    pub clock: Clock,
    /// The adapters.
    pub world: World,
    /// What is shared with other agents; none when this agent is alone.
    pub coordination: Option<Arc<dyn Coordination>>,
    /// Ends the loop.
    pub stop: CancellationToken,
}

/// The agent at work.
pub struct Guard {
    guardian: Guardian,
    journal: Journal,
    clock: Clock,
    world: World,
    stop: CancellationToken,
    inbox: Inbox,
    messages: mpsc::Receiver<Message>,
    beliefs: watch::Sender<Beliefs>,
    hands: Hands,
    wake: Option<Moment>,
    /// Commands under way.
    working: Tasks,
    /// Notices under way.
    telling: JoinSet<()>,
    /// Questions to the coordinator under way.
    asking: Tasks,
    /// This agent's part, when it shares its record.
    share: Option<Share>,
    /// What the names of each workload say.
    names_say: watch::Sender<Beliefs>,
    /// What sentries must know of each workload.
    heads: watch::Sender<BTreeMap<WorkloadName, Head>>,
}

impl Guard {
    /// Puts the parts together; nothing runs yet.
    pub fn new(parts: Parts) -> Self {
        let Parts { mut guardian, journal, clock, world, coordination, stop } = parts;
        if coordination.is_some() {
            guardian.stand_by();
        }
        let (inbox, messages) = Inbox::new();
        let (beliefs, _) = watch::channel(guardian.beliefs());
        let (names_say, _) = watch::channel(guardian.names_say());
        let (heads, _) = watch::channel(guardian.heads());
        let hands = Hands {
            agent: guardian.agent().clone(),
            world: world.clone(),
            clock,
            inbox: inbox.clone(),
            journal: journal.clone(),
            coordination: coordination.clone(),
        };
        let share = coordination.map(|shared| Share::new(shared, guardian.agent(), clock.now()));
        Self {
            guardian,
            journal,
            clock,
            world,
            stop,
            inbox,
            messages,
            beliefs,
            hands,
            wake: None,
            working: Tasks::default(),
            telling: JoinSet::new(),
            asking: Tasks::default(),
            share,
            names_say,
            heads,
        }
    }

    /// Where orders and questions are put.
    pub fn inbox(&self) -> Inbox {
        self.inbox.clone()
    }

    /// The region that each workload's names say, and under which epoch, as the record goes on: for name servers.
    pub fn names_say(&self) -> watch::Receiver<BTreeMap<WorkloadName, (RegionName, Epoch)>> {
        self.names_say.subscribe()
    }

    /// What sentries must know of each workload, as the record goes on.
    pub fn heads(&self) -> watch::Receiver<BTreeMap<WorkloadName, Head>> {
        self.heads.subscribe()
    }

    /// Whether the coordinator is reached, as far as this agent knows: yes until it is known better. None when this agent is
    /// alone.
    pub fn reached(&self) -> Option<watch::Receiver<bool>> {
        self.share.as_ref().map(|share| share.reached.subscribe())
    }

    /// Runs until told to stop. Effects under way are left to the next start, which looks at them.
    ///
    /// # Errors
    /// When the record cannot be kept, or a task is gone.
    pub async fn run(mut self) -> Result<(), EngineError> {
        let mut looking = Tasks::default();
        let watch = Watch {
            agent: self.guardian.agent().clone(),
            clock: self.clock,
            inbox: self.inbox.clone(),
            beliefs: self.beliefs.subscribe(),
            stop: self.stop.clone(),
        };
        let newest = self.journal.newest().await?;
        if let Some(share) = &mut self.share {
            share.advance(newest.as_slice());
        }
        self.handle(Event::Started).await?;
        watch.start(&self.world, &mut looking);
        self.share_out(&mut looking);
        let ended = self.turn(&mut looking).await;
        self.stop.cancel();
        if ended.is_ok() {
            self.retire().await;
        }
        while self.telling.join_next().await.is_some() {}
        ended
    }

    async fn turn(&mut self, looking: &mut Tasks) -> Result<(), EngineError> {
        let mut tick = self.clock.now() + TICK;
        loop {
            let now = self.clock.now();
            let share = self.share.as_ref().map(|share| {
                share.turned.send_replace(now);
                share.alarm()
            });
            let alarm = [self.wake, share].into_iter().flatten().fold(tick, Moment::min);
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return Ok(()),
                Some(ended) = self.working.next() => {
                    // An outcome has been put into the inbox by then; only a panic matters.
                    if let Some(panic) = ended.panic {
                        return Err(EngineError::TaskEnded { name: format!("{}: {panic}", ended.name) });
                    }
                }
                Some(ended) = looking.next() => {
                    let why = ended.panic.map(|panic| format!(": {panic}")).unwrap_or_default();
                    return Err(EngineError::TaskEnded { name: format!("{}{why}", ended.name) });
                }
                Some(_) = self.telling.join_next() => {}
                Some(ended) = self.asking.next() => {
                    if let Some(panic) = ended.panic {
                        return Err(EngineError::TaskEnded { name: format!("{}: {panic}", ended.name) });
                    }
                }
                Some(message) = self.messages.recv() => {
                    self.heed_tenure().await?;
                    self.take(message).await?;
                }
                () = self.clock.sleep_until(alarm) => {
                    self.heed_tenure().await?;
                    self.attend().await?;
                    let now = self.clock.now();
                    if now >= tick || self.wake.is_some_and(|wake| now >= wake) {
                        tick = now + TICK;
                        self.handle(Event::Tick).await?;
                        self.make_way().await?;
                    }
                }
            }
        }
    }

    async fn take(&mut self, message: Message) -> Result<(), EngineError> {
        // A reply that nobody waits for any more is no fault.
        match message {
            Message::Event(event) => {
                if let (Some(share), Event::Sighted(_) | Event::Witnessed(_)) = (&mut self.share, &event) {
                    share.stir();
                }
                self.handle(event).await
            }
            Message::Order(order, reply) => match self.share.as_ref().map(|share| &share.duty) {
                None | Some(Duty::Deciding(_)) => self.obey(order, reply).await,
                Some(Duty::Standing) => {
                    self.forward(order, reply);
                    Ok(())
                }
                Some(Duty::Taking(_)) => {
                    if let Some(share) = &mut self.share {
                        share.wait(Waiting::Here(order, reply));
                    }
                    Ok(())
                }
            },
            Message::News(news) => self.hear(news).await,
            Message::Status(reply) => {
                let _ = reply.send(self.guardian.status(self.clock.now()));
                Ok(())
            }
            Message::Plan { kind, workload, to, reply } => {
                let _ = reply.send(self.guardian.plan(kind, &workload, to.as_ref(), self.clock.now()));
                Ok(())
            }
        }
    }

    /// Decides an order, and answers the person who gave it.
    async fn obey(&mut self, order: Order, reply: oneshot::Sender<Answer>) -> Result<(), EngineError> {
        if let Some(answer) = self.decide(Event::Ordered(order)).await? {
            let _ = reply.send(answer);
        }
        Ok(())
    }

    async fn handle(&mut self, event: Event) -> Result<(), EngineError> {
        self.decide(event).await.map(|_| ())
    }

    async fn decide(&mut self, event: Event) -> Result<Option<Answer>, EngineError> {
        self.decide_at(self.clock.now(), event).await
    }

    /// Decide, append, publish, start; gives back the answer for the person who asked.
    async fn decide_at(&mut self, now: Moment, event: Event) -> Result<Option<Answer>, EngineError> {
        if self.share.as_ref().is_some_and(|share| share.deciding().is_none()) {
            return Ok(self.inform(event));
        }
        let (timed, ordered) = (matches!(event, Event::Tick), matches!(event, Event::Ordered(_)));
        let decision = self.guardian.decide(now, event);
        let Decision { records, commands, notices, answer, wake } = decision;
        self.wake_at(timed, wake);
        if !records.is_empty() {
            let lines: Vec<String> = records.iter().map(ToString::to_string).collect();
            if let Err(reason) = self.put_on_record(now, records).await? {
                return Ok(ordered.then_some(Answer::Refused { reason }));
            }
            lines.iter().for_each(|line| info!("{line}"));
            self.publish();
        }
        if !commands.is_empty() {
            let beliefs = self.guardian.beliefs();
            for command in commands {
                let epoch = epoch_of(&beliefs, &command.workload);
                self.hands.start(command, epoch, &mut self.working);
            }
        }
        for notice in notices {
            self.tell(notice);
        }
        Ok(answer.map(|answer| *answer))
    }

    /// Tells the guardian something while it stands by: nothing comes of it but words to people.
    fn inform(&mut self, event: Event) -> Option<Answer> {
        let timed = matches!(event, Event::Tick);
        let decision = self.guardian.decide(self.clock.now(), event);
        let Decision { records, commands, notices, answer, wake } = decision;
        self.wake_at(timed, wake);
        if !records.is_empty() || !commands.is_empty() {
            error!(
                records = records.len(),
                commands = commands.len(),
                "a guardian that stands by decided something; it is dropped"
            );
        }
        for notice in notices {
            self.tell(notice);
        }
        answer.map(|answer| *answer)
    }

    fn wake_at(&mut self, timed: bool, wake: Option<Moment>) {
        if timed {
            self.wake = None;
        }
        self.wake = [self.wake, wake].into_iter().flatten().min();
    }

    /// Makes the records of a decision durable; inside, why they are not for sure, and the decision never was.
    async fn put_on_record(
        &mut self,
        now: Moment,
        records: Vec<Record>,
    ) -> Result<Result<(), lifeboat_core::Reason>, EngineError> {
        if self.share.is_some() {
            return self.share_records(now, records).await;
        }
        let written = tokio::time::timeout(APPEND_LIMIT, self.journal.append(now, records)).await;
        written.unwrap_or(Err(JournalError::Slow)).inspect_err(|cause| self.mourn(cause))?;
        Ok(Ok(()))
    }

    fn publish(&self) {
        let beliefs = self.guardian.beliefs();
        self.beliefs.send_if_modified(|known| {
            let changed = *known != beliefs;
            *known = beliefs;
            changed
        });
        let names_say = self.guardian.names_say();
        self.names_say.send_if_modified(|known| {
            let changed = *known != names_say;
            *known = names_say;
            changed
        });
        let heads = self.guardian.heads();
        self.heads.send_if_modified(|known| {
            let changed = *known != heads;
            *known = heads;
            changed
        });
    }

    fn tell(&mut self, notice: Notice) {
        for notify in self.world.notify.clone() {
            let notice = notice.clone();
            self.telling.spawn(async move {
                match tokio::time::timeout(NOTIFY_LIMIT, notify.notify(&notice)).await {
                    Ok(Ok(())) => {}
                    Ok(Err(fault)) => warn!(%fault, "a notice was not delivered"),
                    Err(_) => warn!("a notice was not delivered in time"),
                }
            });
        }
    }

    /// The last words when the record cannot be kept.
    fn mourn(&self, cause: &JournalError) {
        error!(error = %cause, state = %self.world.reports.display(), "the journal cannot be written; the agent stops and acts on nothing");
    }
}

fn epoch_of(beliefs: &BTreeMap<WorkloadName, (RegionName, Epoch)>, workload: &WorkloadName) -> Epoch {
    beliefs.get(workload).map(|(_, epoch)| *epoch).unwrap_or_default()
}

/// Opens the journal in a state folder, which it creates for its owner alone.
///
/// # Errors
/// Those of [`Journal::open`].
pub fn open_state(folder: &std::path::Path) -> Result<(Journal, Vec<Stamped>), JournalError> {
    use std::os::unix::fs::DirBuilderExt;

    let created = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
    let path: PathBuf = folder.join("journal.db");
    created.map_err(|error| JournalError::Folder { path: folder.to_owned(), source: error })?;
    Journal::open(&path)
}
