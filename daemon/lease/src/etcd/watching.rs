//! Telling all there is, and then each change.
//!
//! Everything is read at one revision and watched from the next one on, so nothing falls between. The watch is asked for a
//! sign of life when it is silent: a member that is frozen would be silent for ever.
//!
//! **Invariant:** a change that may have been missed ends the watch with an error; it is never passed over.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use etcd_client::{Event, EventType, KeyValue, WatchOptions, WatchResponse, WatchStream};
use lifeboat_core::testimony::Beat;
use lifeboat_core::{AgentName, Moment, Order, RegionName, Stamped, WorkloadName};
use lifeboat_engine::ports::{Change, CoordinationError};
use tokio::sync::mpsc;

use super::keys::Place;
use super::record;
use super::tenure::Sign;
use super::trouble::Trouble;
use super::writes::read_head;
use super::{Etcd, batch, locked};

/// The most keys of one kind, other than records, that are looked at: more than there are vantages, sentries or people.
const MOST: usize = 1024;

/// The most orders that wait for a guardian.
const WAITING: usize = 256;

/// The most bytes of the guardian's key that are looked at.
const SIGN: usize = 4096;

/// One watch.
struct Watching<'a> {
    etcd: &'a Etcd,
    changes: &'a mpsc::Sender<Change>,
    /// The place of the newest record that was told.
    newest: u64,
    /// The newest revision of which something was told.
    revision: i64,
    /// Who decides, and the create revision of its key.
    guardian: Option<(AgentName, i64)>,
    /// The key by which this agent has begun to decide: it holds the tenure, and has given a beat in it.
    deciding: Option<KeyValue>,
    beat: Option<Beat>,
    answered: BTreeSet<String>,
    waiting: BTreeMap<String, Order>,
    /// Until when what each sentry said stands.
    fresh: BTreeMap<(WorkloadName, RegionName), Moment>,
}

impl Etcd {
    pub(super) async fn watch_until(
        &self,
        known: Option<&Stamped>,
        changes: &mpsc::Sender<Change>,
    ) -> CoordinationError {
        let mut watching = Watching {
            etcd: self,
            changes,
            newest: 0,
            revision: 0,
            guardian: None,
            deciding: None,
            beat: None,
            answered: BTreeSet::new(),
            waiting: BTreeMap::new(),
            fresh: BTreeMap::new(),
        };
        match watching.read(known).await {
            Ok(member) => {
                let error = watching.follow(member).await;
                self.members.avoid(member).await;
                error
            }
            Err(error) => error,
        }
    }
}

impl Watching<'_> {
    /// Tells all there is; through which member to go on.
    async fn read(&mut self, known: Option<&Stamped>) -> Result<usize, CoordinationError> {
        let (revision, newest, member) = self.etcd.newest().await?;
        self.revision = revision;
        if let Some(known) = known.filter(|known| known.sequence > newest) {
            return Err(CoordinationError::Rewound { known: known.sequence, found: newest });
        }
        // The newest one that is known is read again, to see that it is still the same.
        let after = known.map_or(0, |known| known.sequence.saturating_sub(1));
        let mut batches = self.etcd.batches(after, revision, newest).await?;
        while let Some(records) = batches.page().await? {
            for record in records {
                match known.filter(|known| known.sequence == record.sequence) {
                    Some(known) if *known != record => {
                        return Err(CoordinationError::Damaged(format!(
                            "record {} is not the one that this agent has read before",
                            known.sequence
                        )));
                    }
                    Some(_) => {}
                    None => self.tell(Change::Record(record)).await?,
                }
            }
        }
        self.newest = newest;
        self.read_rest(revision).await?;
        self.tell(Change::CaughtUp).await?;
        Ok(member)
    }

    async fn read_rest(&mut self, revision: i64) -> Result<(), CoordinationError> {
        let keys = self.etcd.keys.clone();
        let sign = etcd_client::GetOptions::new().with_revision(revision);
        let sign = self.etcd.members.get(keys.guardian(), sign).await.map_err(Trouble::of_read)?;
        match sign.what.kvs().first() {
            Some(kv) => self.put(kv).await?,
            None => self.tell(Change::Guardian(None)).await?,
        }
        let mut silent: BTreeSet<AgentName> = locked(&self.etcd.heard).keys().cloned().collect();
        let mut orders = BTreeSet::new();
        // Answers before orders: one that is answered is not told of.
        for prefix in [keys.testimonies(), keys.heads(), keys.writes(), keys.answers(), keys.orders()] {
            let mut pages = self.etcd.pages(&prefix, revision);
            let mut left = MOST;
            while let Some(page) = pages.page().await? {
                for kv in page {
                    match left.checked_sub(1) {
                        Some(fewer) => left = fewer,
                        None => {
                            return Err(CoordinationError::Damaged(format!(
                                "{prefix}: more than {MOST} keys"
                            )));
                        }
                    }
                    match keys.place(kv.key()) {
                        Place::Testimony(vantage) => drop(silent.remove(&vantage)),
                        Place::Order(id) => drop(orders.insert(id)),
                        _ => {}
                    }
                    self.put(&kv).await?;
                }
            }
        }
        locked(&self.etcd.told).retain(|id| orders.contains(id));
        for vantage in silent {
            self.tell(Change::Silent(vantage)).await?;
        }
        Ok(())
    }

    /// Tells each change, until it cannot any more.
    async fn follow(&mut self, member: usize) -> CoordinationError {
        let endpoint = self.etcd.members.endpoint(member).to_owned();
        let patience = self.etcd.members.deadline();
        let lost = |what: &str| CoordinationError::Unreachable(format!("{endpoint}: {what}"));
        let mut stream = match tokio::time::timeout(patience, self.open(member)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(trouble)) => return trouble.of_read(),
            Err(_) => return lost("the watch was not opened in time"),
        };
        let mut asked = false;
        loop {
            let clock = self.etcd.clock;
            let fresh = self.fresh.values().min().copied();
            let fades = async {
                match fresh {
                    Some(moment) => clock.sleep_until(moment).await,
                    None => std::future::pending().await,
                }
            };
            let heard = tokio::select! {
                biased;
                () = self.changes.closed() => return lost("nobody listens to the watch any more"),
                () = fades => Heard::Faded,
                message = heard_within(patience, &mut stream) => message,
            };
            let result = match heard {
                Heard::Message(message) => {
                    asked = false;
                    self.take(&message).await
                }
                Heard::Faded => self.fade().await,
                Heard::Nothing if asked => return lost("the watch is silent"),
                Heard::Nothing => {
                    asked = true;
                    match stream.request_progress().await {
                        Ok(()) => Ok(()),
                        Err(_) => return lost("the watch ended"),
                    }
                }
                Heard::End => return lost("the watch ended"),
                Heard::Failed(error) => return Trouble::of(&endpoint, &error).of_read(),
            };
            if let Err(error) = result {
                return error;
            }
        }
    }

    async fn open(&self, member: usize) -> Result<WatchStream, Trouble> {
        let options =
            WatchOptions::new().with_prefix().with_start_revision(self.revision + 1).with_fragment();
        let mut watcher = self.etcd.members.watcher(member).await?;
        let stream = watcher.watch(self.etcd.keys.prefix(), Some(options)).await;
        stream.map_err(|error| Trouble::of(self.etcd.members.endpoint(member), &error))
    }

    async fn take(&mut self, message: &WatchResponse) -> Result<(), CoordinationError> {
        if message.canceled() {
            return Err(CoordinationError::Unreachable(format!(
                "the watch was cancelled (compacted up to revision {}): {}",
                message.compact_revision(),
                message.cancel_reason()
            )));
        }
        for event in message.events() {
            self.take_event(event).await?;
        }
        Ok(())
    }

    async fn take_event(&mut self, event: &Event) -> Result<(), CoordinationError> {
        let Some(kv) = event.kv() else {
            return Err(CoordinationError::Damaged("a change of no key".to_owned()));
        };
        if kv.mod_revision() < self.revision {
            return Err(CoordinationError::Unreachable("the revision of the watch went back".to_owned()));
        }
        self.revision = kv.mod_revision();
        match event.event_type() {
            EventType::Put => self.put(kv).await,
            EventType::Delete => self.gone(kv.key()).await,
        }
    }

    /// A key that is there, or is put.
    async fn put(&mut self, kv: &KeyValue) -> Result<(), CoordinationError> {
        match self.etcd.keys.place(kv.key()) {
            Place::Batch(first) => self.batch(first, kv).await,
            Place::Newest => {
                let newest = record::place(kv.value())?;
                // It is put after its batch, in the same transaction, and told of in that order.
                match newest.cmp(&self.newest) {
                    Ordering::Equal => Ok(()),
                    Ordering::Less => Err(CoordinationError::Rewound { known: self.newest, found: newest }),
                    Ordering::Greater => Err(CoordinationError::Damaged(format!(
                        "it should end at {newest}, and ends at {}",
                        self.newest
                    ))),
                }
            }
            Place::Guardian => self.guardian(kv).await,
            Place::Testimony(vantage) => match self.etcd.hear(&vantage, kv.value()) {
                Ok(testimony) => self.tell(Change::Testimony(testimony)).await,
                Err(why) => self.tell(Change::Forged { vantage, why }).await,
            },
            Place::Write(workload, region) => self.written(workload, region, kv).await,
            Place::Order(id) => self.ordered(id, kv.value()).await,
            Place::Answer(id) => {
                self.waiting.remove(&id);
                self.answered.insert(id);
                Ok(())
            }
            Place::Head(workload) => {
                // One that cannot be understood proves nothing, and is complained about where it is needed.
                if let Ok(head) = read_head(kv.value()) {
                    self.etcd.renewals.note_holder(&workload, &head.holder, self.etcd.clock.now());
                }
                Ok(())
            }
            Place::Other => Ok(()),
        }
    }

    /// A key that was deleted, or whose lease is over.
    async fn gone(&mut self, key: &[u8]) -> Result<(), CoordinationError> {
        match self.etcd.keys.place(key) {
            Place::Guardian => {
                (self.guardian, self.deciding) = (None, None);
                self.tell(Change::Guardian(None)).await
            }
            Place::Testimony(vantage) => self.tell(Change::Silent(vantage)).await,
            Place::Write(workload, region) => {
                self.fresh.remove(&(workload.clone(), region.clone()));
                self.tell(Change::Sentry { workload, region, says: None }).await
            }
            Place::Order(id) => {
                self.waiting.remove(&id);
                locked(&self.etcd.told).remove(&id);
                Ok(())
            }
            Place::Answer(id) => {
                self.answered.remove(&id);
                Ok(())
            }
            Place::Batch(first) => Err(CoordinationError::Damaged(format!("record {first} was deleted"))),
            Place::Newest => {
                Err(CoordinationError::Damaged("the place of the newest record was deleted".to_owned()))
            }
            Place::Head(_) | Place::Other => Ok(()),
        }
    }

    async fn batch(&mut self, first: u64, kv: &KeyValue) -> Result<(), CoordinationError> {
        let expected = self.newest + 1;
        if first != expected || kv.version() != 1 {
            return Err(CoordinationError::Damaged(format!(
                "record {first} was written where {expected} comes next"
            )));
        }
        for record in batch::decode(first, kv.value()).map_err(CoordinationError::Damaged)? {
            self.newest = record.sequence;
            self.tell(Change::Record(record)).await?;
        }
        Ok(())
    }

    async fn guardian(&mut self, kv: &KeyValue) -> Result<(), CoordinationError> {
        let unknown = |why: String| CoordinationError::Damaged(format!("the guardian's key: {why}"));
        if kv.value().len() > SIGN {
            return Err(unknown(format!("{} bytes", kv.value().len())));
        }
        let sign: Sign = serde_json::from_slice(kv.value()).map_err(|error| unknown(error.to_string()))?;
        let now = (sign.agent.clone(), kv.create_revision());
        if self.guardian.as_ref() != Some(&now) {
            self.guardian = Some(now);
            self.deciding = None;
            self.tell(Change::Guardian(Some(sign.agent))).await?;
        }
        // One that was sent before and came later says nothing.
        if sign.beat > self.beat
            && let Some(beat) = sign.beat
        {
            self.beat = Some(beat);
            self.tell(Change::Beat(beat)).await?;
        }
        if sign.beat.is_some() {
            self.deciding = Some(kv.clone());
        }
        self.hand_over().await
    }

    async fn ordered(&mut self, id: String, value: &[u8]) -> Result<(), CoordinationError> {
        if self.answered.contains(&id) || locked(&self.etcd.told).contains(&id) {
            return Ok(());
        }
        match self.etcd.take_order(&id, value) {
            Ok(_) if self.waiting.len() >= WAITING => {
                tracing::warn!(id, "more than {WAITING} orders wait for a guardian; this one is not kept");
                Ok(())
            }
            Ok(order) => {
                self.waiting.insert(id, order);
                self.hand_over().await
            }
            Err((Some(vantage), why)) => self.tell(Change::Forged { vantage, why }).await,
            Err((None, why)) => {
                tracing::warn!(id, why, "an order was dropped");
                Ok(())
            }
        }
    }

    /// Tells of the orders that wait, when this agent has begun to decide. Before its first beat it may not know yet that it
    /// was elected, and a key of its own from before a restart is not its tenure.
    async fn hand_over(&mut self) -> Result<(), CoordinationError> {
        let held = *locked(&self.etcd.held);
        if let (Some(held), Some(key)) = (held, &self.deciding)
            && held.is(key)
        {
            while let Some((id, order)) = self.waiting.pop_first() {
                locked(&self.etcd.told).insert(id.clone());
                self.tell(Change::Order { id, order }).await?;
            }
        }
        Ok(())
    }

    async fn written(
        &mut self,
        workload: WorkloadName,
        region: RegionName,
        kv: &KeyValue,
    ) -> Result<(), CoordinationError> {
        let name = (workload.clone(), region.clone());
        let now = self.etcd.clock.now();
        match self.etcd.renewals.note(name.clone(), kv.mod_revision(), kv.value(), now) {
            Ok(seen) if seen.fresh > now => {
                self.fresh.insert(name, seen.fresh);
                self.tell(Change::Sentry { workload, region, says: Some(seen.says()) }).await
            }
            Ok(_) => self.tell(Change::Sentry { workload, region, says: None }).await,
            Err(why) => {
                tracing::warn!(%workload, %region, why, "what a sentry wrote cannot be understood");
                self.fresh.remove(&name);
                self.tell(Change::Sentry { workload, region, says: None }).await
            }
        }
    }

    /// Tells of the sentries whose word does not stand any more.
    async fn fade(&mut self) -> Result<(), CoordinationError> {
        let now = self.etcd.clock.now();
        while let Some(name) =
            self.fresh.iter().find(|(_, until)| **until <= now).map(|(name, _)| name.clone())
        {
            self.fresh.remove(&name);
            let (workload, region) = name;
            self.tell(Change::Sentry { workload, region, says: None }).await?;
        }
        Ok(())
    }

    async fn tell(&self, change: Change) -> Result<(), CoordinationError> {
        let nobody = |_| CoordinationError::Unreachable("nobody listens to the watch any more".to_owned());
        self.changes.send(change).await.map_err(nobody)
    }
}

enum Heard {
    Message(WatchResponse),
    Failed(etcd_client::Error),
    End,
    Nothing,
    Faded,
}

async fn heard_within(patience: Duration, stream: &mut WatchStream) -> Heard {
    match tokio::time::timeout(patience, stream.message()).await {
        Ok(Ok(Some(message))) => Heard::Message(message),
        Ok(Ok(None)) => Heard::End,
        Ok(Err(error)) => Heard::Failed(error),
        Err(_) => Heard::Nothing,
    }
}
