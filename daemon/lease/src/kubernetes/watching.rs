//! What there is, and each change of it: list, then watch from the list's version; list again when that version is gone.
//!
//! **Invariant:** a watch that cannot go on ends with the reason; a connection that has gone silent is noticed within the
//! deadline of a request, because the Lease is read all the while.
//! **Invariant:** records are told in order, each once, and none that is another one than was told in its place.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::PoisonError;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::BoxStream;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::ResourceExt as _;
use kube::api::{ListParams, WatchEvent, WatchParams};
use lifeboat_core::testimony::Beat;
use lifeboat_core::{AgentName, Moment, Stamped};
use lifeboat_engine::ports::{Change, CoordinationError};
use tokio::sync::mpsc;

use super::Kubernetes;
use super::access::Kind;
use super::objects::Part;
use super::orders::{ABANDONED, answered, waits};
use super::statement::vantage_of;
use super::tail::Tail;
use super::tenancy::Held;

/// For how many seconds the server keeps one watch open; it is opened again from where it was.
const OPEN: u32 = 10;

/// How long after a watch has ended it is opened again.
const PAUSE: Duration = Duration::from_millis(100);

/// Why following the changes stopped.
enum Followed {
    /// A watch came to its end; it can go on from where it was.
    Ended,
    /// Where it was is forgotten.
    Gone,
}

/// What was last seen of a testimony.
struct Heard {
    vantage: AgentName,
    content: (Option<String>, Option<Vec<u8>>),
    until: Option<Moment>,
}

/// What was last seen of an order.
struct Waiting {
    object: ConfigMap,
    until: Moment,
}

/// What was told so far.
struct Watching<'a> {
    kubernetes: &'a Kubernetes,
    changes: &'a mpsc::Sender<Change>,
    newest: Option<Stamped>,
    guardian: Option<(AgentName, u64)>,
    over: Option<Moment>,
    beat: Option<Beat>,
    heard: BTreeMap<String, Heard>,
    orders: BTreeMap<String, Waiting>,
}

impl Kubernetes {
    /// Watches until it cannot any more.
    pub(super) async fn watching(
        &self,
        known: Option<&Stamped>,
        changes: &mpsc::Sender<Change>,
    ) -> Result<Infallible, CoordinationError> {
        if let Some(known) = known {
            self.saw(known.sequence);
            let there = self.records_after(known.sequence.saturating_sub(1)).await?;
            if there.first() != Some(known) {
                return Err(CoordinationError::Damaged(format!(
                    "record {} is another one than this agent has read before",
                    known.sequence
                )));
            }
        }
        let mut watching = Watching {
            kubernetes: self,
            changes,
            newest: known.cloned(),
            guardian: None,
            over: None,
            beat: None,
            heard: BTreeMap::new(),
            orders: BTreeMap::new(),
        };
        let mut caught_up = false;
        let maps = ListParams::default().labels(&self.names.watched());
        let leases = ListParams::default().fields(&format!("metadata.name={}", self.names.lease()));
        loop {
            let maps = self.access.list::<ConfigMap>(&maps).await?;
            let leases = self.access.list::<Lease>(&leases).await?;
            watching.all(&maps.items, &leases.items).await?;
            if !caught_up {
                watching.send(Change::CaughtUp).await?;
                caught_up = true;
            }
            let mut at =
                [maps.metadata, leases.metadata].map(|list| list.resource_version.unwrap_or_default());
            while let Followed::Ended = watching.follow(&mut at).await? {
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

impl Watching<'_> {
    async fn send(&self, change: Change) -> Result<(), CoordinationError> {
        let closed = |_| CoordinationError::Unreachable("nobody takes the changes any more".to_owned());
        self.changes.send(change).await.map_err(closed)
    }

    /// All that there is, in a list; what was there and is not has gone.
    async fn all(&mut self, maps: &[ConfigMap], leases: &[Lease]) -> Result<(), CoordinationError> {
        let there: BTreeSet<String> = maps.iter().map(ConfigMap::name_any).collect();
        let had = self.heard.keys().chain(self.orders.keys());
        let gone: Vec<String> = had.filter(|name| !there.contains(*name)).cloned().collect();
        for name in gone {
            self.removed(&name).await?;
        }
        if !there.contains(&self.kubernetes.names.record()) {
            self.removed(&self.kubernetes.names.record()).await?;
        }
        self.lease(leases.first()).await?;
        for object in maps {
            self.object(object).await?;
        }
        Ok(())
    }

    /// Follows the changes from there.
    async fn follow(&mut self, at: &mut [String; 2]) -> Result<Followed, CoordinationError> {
        let kubernetes = self.kubernetes;
        let (clock, limit) = (kubernetes.clock, kubernetes.access.limit());
        let parameters = WatchParams::default().timeout(OPEN);
        let maps = parameters.clone().labels(&kubernetes.names.watched());
        let leases = parameters.fields(&format!("metadata.name={}", kubernetes.names.lease()));
        let [maps_at, leases_at] = at;
        let (Some(mut maps), Some(mut leases)) =
            (self.open::<ConfigMap>(&maps, maps_at).await?, self.open::<Lease>(&leases, leases_at).await?)
        else {
            return Ok(Followed::Gone);
        };
        let end = clock.now() + Duration::from_secs(OPEN.into()) + limit;
        let mut look = clock.now() + limit;
        loop {
            let next = self.deadlines().fold(look.min(end), Moment::min);
            tokio::select! {
                biased;
                event = leases.next() => match event {
                    Some(Ok(WatchEvent::Added(lease) | WatchEvent::Modified(lease))) => {
                        note(leases_at, lease.resource_version());
                        self.lease(Some(&lease)).await?;
                    }
                    Some(Ok(WatchEvent::Deleted(lease))) => {
                        note(leases_at, lease.resource_version());
                        self.lease(None).await?;
                    }
                    Some(Ok(WatchEvent::Bookmark(mark))) => note(leases_at, Some(mark.metadata.resource_version)),
                    other => return self.ended::<Lease>(other).await,
                },
                event = maps.next() => match event {
                    Some(Ok(WatchEvent::Added(object) | WatchEvent::Modified(object))) => {
                        note(maps_at, object.resource_version());
                        self.object(&object).await?;
                    }
                    Some(Ok(WatchEvent::Deleted(object))) => {
                        note(maps_at, object.resource_version());
                        self.removed(&object.name_any()).await?;
                    }
                    Some(Ok(WatchEvent::Bookmark(mark))) => note(maps_at, Some(mark.metadata.resource_version)),
                    other => return self.ended::<ConfigMap>(other).await,
                },
                // After what has come: a process that slept takes in the signs of life before it misses them.
                () = clock.sleep_until(next) => {
                    let now = clock.now();
                    if now >= end {
                        return Err(CoordinationError::Unreachable("a watch stays open without an end".to_owned()));
                    }
                    if now >= look {
                        kubernetes.access.get::<Lease>(kubernetes.names.lease()).await?;
                        look = clock.now() + limit;
                    }
                    self.lapsed(now).await?;
                }
            }
        }
    }

    /// Opens a watch; none when its beginning is forgotten.
    async fn open<K: Kind>(
        &self,
        parameters: &WatchParams,
        at: &str,
    ) -> Result<Option<BoxStream<'static, kube::Result<WatchEvent<K>>>>, CoordinationError> {
        let access = &self.kubernetes.access;
        let api = access.api::<K>();
        match tokio::time::timeout(access.limit(), api.watch(parameters, at)).await {
            Ok(Ok(stream)) => Ok(Some(stream.boxed())),
            Ok(Err(kube::Error::Api(status))) if status.code == 410 => Ok(None),
            Ok(Err(error)) => Err(access.watch_fault::<K>(error).await),
            Err(_) => Err(CoordinationError::Unreachable(format!(
                "no answer within {:?} to a watch of {}",
                access.limit(),
                K::plural(&())
            ))),
        }
    }

    /// What the end of a watch means.
    async fn ended<K: Kind>(
        &self,
        event: Option<kube::Result<WatchEvent<K>>>,
    ) -> Result<Followed, CoordinationError> {
        match event {
            Some(Ok(WatchEvent::Error(status))) if status.code == 410 => Ok(Followed::Gone),
            Some(Ok(WatchEvent::Error(status))) => {
                Err(self.kubernetes.access.watch_fault::<K>(kube::Error::Api(status)).await)
            }
            Some(Err(error)) => Err(self.kubernetes.access.watch_fault::<K>(error).await),
            Some(Ok(_)) | None => Ok(Followed::Ended),
        }
    }

    /// What is due when nothing changes.
    fn deadlines(&self) -> impl Iterator<Item = Moment> + '_ {
        let silences = self.heard.values().filter_map(|heard| heard.until);
        self.over.into_iter().chain(silences).chain(self.orders.values().map(|order| order.until))
    }

    /// What has not changed for too long.
    async fn lapsed(&mut self, now: Moment) -> Result<(), CoordinationError> {
        if self.over.is_some_and(|over| over <= now) {
            self.guardian(None).await?;
        }
        let mut silent = Vec::new();
        for heard in self.heard.values_mut().filter(|heard| heard.until.is_some_and(|until| until <= now)) {
            heard.until = None;
            silent.push(heard.vantage.clone());
        }
        for vantage in silent {
            self.send(Change::Silent(vantage)).await?;
        }
        let abandoned = |order: &Waiting| order.until <= now;
        let names: Vec<_> =
            self.orders.iter().filter(|(_, order)| abandoned(order)).map(|(name, _)| name.clone()).collect();
        for name in names {
            if let Some(order) = self.orders.remove(&name) {
                // Guarded: whoever still waits has changed it since.
                if let Err(error) = self.kubernetes.access.delete(&order.object).await {
                    tracing::info!(%error, name, "an order that nobody waits for stays for now");
                }
            }
        }
        Ok(())
    }

    /// Who decides now.
    async fn guardian(&mut self, guardian: Option<(AgentName, u64)>) -> Result<(), CoordinationError> {
        if guardian.is_none() {
            self.over = None;
        }
        if guardian != self.guardian {
            self.guardian = guardian;
            self.send(Change::Guardian(self.guardian.clone().map(|(agent, _)| agent))).await?;
        }
        Ok(())
    }

    async fn lease(&mut self, lease: Option<&Lease>) -> Result<(), CoordinationError> {
        let Some(lease) = lease else { return self.guardian(None).await };
        let held = Held::read(lease, self.kubernetes.options.tenure_ttl);
        let over = self.kubernetes.observe(&held);
        let Some(agent) = held.agent().filter(|_| self.kubernetes.clock.now() < over) else {
            return self.guardian(None).await;
        };
        self.over = Some(over);
        self.guardian(Some((agent, held.term))).await?;
        match held.beat {
            Some(beat) if self.beat.is_none_or(|told| told < beat) => {
                self.beat = Some(beat);
                self.send(Change::Beat(beat)).await
            }
            _ => Ok(()),
        }
    }

    async fn object(&mut self, object: &ConfigMap) -> Result<(), CoordinationError> {
        match Part::of(object) {
            Some(Part::Record) if object.name_any() == self.kubernetes.names.record() => {
                self.record(object).await
            }
            Some(Part::Testimony) => self.testimony(object).await,
            Some(Part::Order) => self.order(object).await,
            Some(Part::Record | Part::Sealed) | None => Ok(()),
        }
    }

    async fn removed(&mut self, name: &str) -> Result<(), CoordinationError> {
        if let Some(newest) = self.newest.as_ref().filter(|_| name == self.kubernetes.names.record()) {
            return Err(CoordinationError::Rewound { known: newest.sequence, found: 0 });
        }
        self.orders.remove(name);
        self.kubernetes.told.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
        match self.heard.remove(name).filter(|heard| heard.until.is_some()) {
            Some(heard) => self.send(Change::Silent(heard.vantage)).await,
            None => Ok(()),
        }
    }

    async fn record(&mut self, object: &ConfigMap) -> Result<(), CoordinationError> {
        let tail = Tail::read(object)?;
        let known = self.newest.as_ref().map_or(0, |newest| newest.sequence);
        let there = tail.at(known)?;
        if there.is_some() && there != self.newest {
            return Err(CoordinationError::Damaged(format!(
                "record {known} is another one than this agent has read before"
            )));
        }
        for stamped in self.kubernetes.chain(&tail, known).await? {
            self.send(Change::Record(stamped.clone())).await?;
            self.kubernetes.saw(stamped.sequence);
            self.newest = Some(stamped);
        }
        Ok(())
    }

    async fn testimony(&mut self, object: &ConfigMap) -> Result<(), CoordinationError> {
        let name = object.name_any();
        let text = object.data.as_ref().and_then(|data| serde_json::to_string(data).ok());
        let seals =
            object.binary_data.as_ref().map(|all| all.values().flat_map(|seal| seal.0.clone()).collect());
        let content = (text, seals);
        if self.heard.get(&name).is_some_and(|heard| heard.content == content) {
            return Ok(());
        }
        let change = self.kubernetes.testimony_of(object);
        let before = self.heard.get(&name).and_then(|heard| heard.until);
        // What is forged is no sign of life.
        let until = match change {
            Change::Testimony(_) => Some(self.kubernetes.clock.now() + self.kubernetes.options.testimony_ttl),
            _ => before,
        };
        self.heard.insert(name, Heard { vantage: vantage_of(object), content, until });
        self.send(change).await
    }

    async fn order(&mut self, object: &ConfigMap) -> Result<(), CoordinationError> {
        let name = object.name_any();
        let until = self.kubernetes.clock.now() + ABANDONED;
        let before = self.orders.insert(name.clone(), Waiting { object: object.clone(), until });
        let alive = before.is_some_and(|before| waits(&before.object) < waits(object));
        if !alive || answered(object) {
            return Ok(());
        }
        let news = self.kubernetes.told.lock().unwrap_or_else(PoisonError::into_inner).insert(name);
        match self.kubernetes.order_of(object).filter(|_| news) {
            Some(change) => self.send(change).await,
            None => Ok(()),
        }
    }
}

/// Remembers from where a watch goes on.
fn note(at: &mut String, version: Option<String>) {
    if let Some(version) = version {
        *at = version;
    }
}
