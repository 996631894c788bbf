//! The loop: one inbox, one decision at a time, on the record, then act.
//!
//! **Invariant:** the order is decide, append, publish, start. When the append fails nothing is started and
//! the loop ends, because what the guardian believes is then not what the record says.
//! **Invariant:** no bytes flow through here, and nothing here waits for the world.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use lifeboat_core::guardian::Guardian;
use lifeboat_core::{Decision, Epoch, Event, Moment, Notice, Stamped, WorkloadName};
use thiserror::Error;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::clock::Clock;
use crate::hands::Hands;
use crate::inbox::{Inbox, Message};
use crate::journal::{Journal, JournalError};
use crate::tasks::Tasks;
use crate::watch::{Beliefs, Watch};
use crate::world::World;

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
}

impl Guard {
    /// Puts the parts together; nothing runs yet.
    pub fn new(parts: Parts) -> Self {
        let Parts { guardian, journal, clock, world, stop } = parts;
        let (inbox, messages) = Inbox::new();
        let (beliefs, _) = watch::channel(guardian.beliefs());
        let hands = Hands {
            agent: guardian.agent().clone(),
            world: world.clone(),
            clock,
            inbox: inbox.clone(),
            journal: journal.clone(),
        };
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
        }
    }

    /// Where orders and questions are put.
    pub fn inbox(&self) -> Inbox {
        self.inbox.clone()
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
        self.handle(Event::Started).await?;
        watch.start(&self.world, &mut looking);
        let ended = self.turn(&mut looking).await;
        self.stop.cancel();
        while self.telling.join_next().await.is_some() {}
        ended
    }

    async fn turn(&mut self, looking: &mut Tasks) -> Result<(), EngineError> {
        let mut tick = self.clock.now() + TICK;
        loop {
            let alarm = self.wake.map_or(tick, |wake| wake.min(tick));
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
                Some(message) = self.messages.recv() => self.take(message).await?,
                () = self.clock.sleep_until(alarm) => {
                    tick = self.clock.now() + TICK;
                    self.handle(Event::Tick).await?;
                }
            }
        }
    }

    async fn take(&mut self, message: Message) -> Result<(), EngineError> {
        // A reply that nobody waits for any more is no fault.
        match message {
            Message::Event(event) => self.handle(event).await,
            Message::Order(order, reply) => {
                let answer = self.decide(Event::Ordered(order)).await?;
                if let Some(answer) = answer {
                    let _ = reply.send(answer);
                }
                Ok(())
            }
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

    async fn handle(&mut self, event: Event) -> Result<(), EngineError> {
        self.decide(event).await.map(|_| ())
    }

    /// Decide, append, publish, start; gives back the answer for the person who asked.
    async fn decide(&mut self, event: Event) -> Result<Option<lifeboat_core::Answer>, EngineError> {
        let now = self.clock.now();
        let timed = matches!(event, Event::Tick);
        let decision = self.guardian.decide(now, event);
        let Decision { records, commands, notices, answer, wake } = decision;
        if timed {
            self.wake = None;
        }
        self.wake = [self.wake, wake].into_iter().flatten().min();
        if !records.is_empty() {
            let lines: Vec<String> = records.iter().map(ToString::to_string).collect();
            let written = tokio::time::timeout(APPEND_LIMIT, self.journal.append(now, records)).await;
            written.unwrap_or(Err(JournalError::Slow)).inspect_err(|cause| self.mourn(cause))?;
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
        Ok(answer)
    }

    fn publish(&self) {
        let beliefs = self.guardian.beliefs();
        self.beliefs.send_if_modified(|known| {
            let changed = *known != beliefs;
            *known = beliefs;
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

fn epoch_of(
    beliefs: &BTreeMap<WorkloadName, (lifeboat_core::RegionName, Epoch)>,
    workload: &WorkloadName,
) -> Epoch {
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
