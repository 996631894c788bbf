//! A pretend store: objects in memory, with faults to order.
//!
//! **Invariant:** it keeps what [`Store`] promises, except where a fault that was ordered says otherwise.
//! **Invariant:** which calls fail is drawn from a seed: the same calls in the same order meet the same faults.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use lifeboat_core::Moment;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

use crate::clock::Clock;
use crate::ports::{Abilities, Listed, ObjectName, Store, StoreError, Upload, examine};

/// How a pretend store misbehaves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoreFault {
    /// So many calls of a hundred fail, with `Unreachable`, before they have an effect.
    pub fails: u32,
    /// So many writes of a hundred have their effect, and fail with `Unreachable` all the same.
    pub unclear: u32,
    /// How long each call takes.
    pub delay: Duration,
    /// It takes so many bytes in all; none: as many as there is memory.
    pub space: Option<u64>,
    /// Every call is refused.
    pub denied: bool,
    /// No call is answered with anything but `Unreachable`.
    pub gone: bool,
    /// It takes a second write of one name, and the second one is what is kept.
    pub replaces: bool,
    /// Uploads are cut when so many bytes of one are written.
    pub cut: Option<u64>,
}

/// Objects in memory; a clone is another door to the same ones.
#[derive(Clone)]
pub struct MemoryStore {
    inner: Arc<Inner>,
}

struct Inner {
    room: Mutex<Room>,
    clock: Clock,
}

struct Room {
    objects: BTreeMap<ObjectName, (Bytes, Moment)>,
    fault: StoreFault,
    dice: ChaCha8Rng,
    calls: u64,
    unsettled: Vec<ObjectName>,
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new(Clock::start(), 0)
    }
}

impl MemoryStore {
    /// An empty one; the seed says which calls fail when some are ordered to.
    pub fn new(clock: Clock, seed: u64) -> Self {
        let room = Room {
            objects: BTreeMap::new(),
            fault: StoreFault::default(),
            dice: ChaCha8Rng::seed_from_u64(seed),
            calls: 0,
            unsettled: Vec::new(),
        };
        Self { inner: Arc::new(Inner { room: Mutex::new(room), clock }) }
    }

    /// Lets it misbehave, or behave again.
    pub fn fault(&self, change: impl FnOnce(&mut StoreFault)) {
        change(&mut self.room().fault);
    }

    /// Everything in it.
    pub fn objects(&self) -> BTreeMap<ObjectName, Bytes> {
        self.room().objects.iter().map(|(name, (content, _))| (name.clone(), content.clone())).collect()
    }

    /// Changes what is kept under a name, as rot or an intruder would; none: it is gone.
    pub fn damage(&self, name: &ObjectName, change: impl FnOnce(Option<Bytes>) -> Option<Bytes>) {
        let mut room = self.room();
        let (content, written) = room.objects.remove(name).unzip();
        if let Some(content) = change(content) {
            room.objects.insert(name.clone(), (content, written.unwrap_or_default()));
        }
    }

    /// The power is cut: what was finished and not settled is gone.
    pub fn crash(&self) {
        let mut room = self.room();
        for name in std::mem::take(&mut room.unsettled) {
            room.objects.remove(&name);
        }
    }

    /// How many calls were made of it.
    pub fn calls(&self) -> u64 {
        self.room().calls
    }

    fn room(&self) -> MutexGuard<'_, Room> {
        self.inner.room.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What stands before every call.
    async fn enter(&self) -> Result<(), StoreError> {
        let delay = self.room().fault.delay;
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        let mut room = self.room();
        room.calls += 1;
        if room.fault.denied {
            return Err(StoreError::Denied("as ordered".to_owned()));
        }
        let fails = room.fault.fails;
        if room.fault.gone || room.draw(fails) {
            return Err(StoreError::Unreachable("as ordered".to_owned()));
        }
        Ok(())
    }

    fn keep(&self, name: &ObjectName, content: Bytes, settled: bool) -> Result<(), StoreError> {
        let now = self.inner.clock.now();
        let mut room = self.room();
        if room.objects.contains_key(name) && !room.fault.replaces {
            return Err(StoreError::Exists(name.clone()));
        }
        let kept: u64 = room.objects.values().map(|(content, _)| content.len() as u64).sum();
        if room.fault.space.is_some_and(|space| kept + content.len() as u64 > space) {
            return Err(StoreError::Full("as ordered".to_owned()));
        }
        room.objects.insert(name.clone(), (content, now));
        if !settled {
            room.unsettled.push(name.clone());
        }
        let unclear = room.fault.unclear;
        if room.draw(unclear) {
            return Err(StoreError::Unreachable("the answer was lost, as ordered".to_owned()));
        }
        Ok(())
    }
}

impl Room {
    fn draw(&mut self, of_a_hundred: u32) -> bool {
        of_a_hundred > 0 && self.dice.next_u32() % 100 < of_a_hundred
    }
}

#[async_trait]
impl Store for MemoryStore {
    fn place(&self) -> String {
        "memory".to_owned()
    }

    async fn examine(&self) -> Result<Abilities, StoreError> {
        examine(self).await
    }

    async fn put(&self, name: &ObjectName, content: Bytes) -> Result<(), StoreError> {
        self.enter().await?;
        self.keep(name, content, true)
    }

    async fn begin(&self, name: &ObjectName) -> Result<Box<dyn Upload>, StoreError> {
        self.enter().await?;
        Ok(Box::new(Writing { store: self.clone(), name: name.clone(), content: BytesMut::new() }))
    }

    async fn get(&self, name: &ObjectName, range: Range<u64>) -> Result<Bytes, StoreError> {
        self.enter().await?;
        let room = self.room();
        let (content, _) = room.objects.get(name).ok_or_else(|| StoreError::Missing(name.clone()))?;
        let place = |at: u64| usize::try_from(at).unwrap_or(usize::MAX).min(content.len());
        Ok(content.slice(place(range.start).min(place(range.end))..place(range.end)))
    }

    async fn size(&self, name: &ObjectName) -> Result<Option<u64>, StoreError> {
        self.enter().await?;
        Ok(self.room().objects.get(name).map(|(content, _)| content.len() as u64))
    }

    async fn list(&self, under: &str, after: Option<&ObjectName>) -> Result<Vec<Listed>, StoreError> {
        /// Small, so that whoever forgets to ask on is found out.
        const PAGE: usize = 100;
        self.enter().await?;
        let room = self.room();
        let wanted = room
            .objects
            .iter()
            .filter(|(name, _)| name.as_str().starts_with(under) && after.is_none_or(|after| *name > after));
        let listed = |(name, (content, written)): (&ObjectName, &(Bytes, Moment))| Listed {
            name: name.clone(),
            size: content.len() as u64,
            written: *written,
        };
        Ok(wanted.take(PAGE).map(listed).collect())
    }

    async fn remove(&self, name: &ObjectName) -> Result<(), StoreError> {
        self.enter().await?;
        self.room().objects.remove(name);
        Ok(())
    }

    async fn settle(&self) -> Result<(), StoreError> {
        self.enter().await?;
        self.room().unsettled.clear();
        Ok(())
    }
}

struct Writing {
    store: MemoryStore,
    name: ObjectName,
    content: BytesMut,
}

#[async_trait]
impl Upload for Writing {
    async fn write(&mut self, part: Bytes) -> Result<(), StoreError> {
        self.store.enter().await?;
        let cut = self.store.room().fault.cut;
        self.content.extend_from_slice(&part);
        match cut {
            Some(cut) if self.content.len() as u64 > cut => {
                Err(StoreError::Unreachable(format!("cut after {cut} bytes, as ordered")))
            }
            _ => Ok(()),
        }
    }

    async fn finish(self: Box<Self>) -> Result<(), StoreError> {
        self.store.enter().await?;
        self.store.keep(&self.name, self.content.freeze(), false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pretend::conformance;

    fn name(text: &str) -> ObjectName {
        text.parse().unwrap()
    }

    #[tokio::test]
    async fn it_keeps_what_a_store_promises() {
        let store = MemoryStore::default();
        conformance(&store).await;
        assert_eq!(store.examine().await, Ok(Abilities { exclusive: true }));
        assert!(store.objects().is_empty(), "examining leaves nothing");
    }

    #[tokio::test]
    async fn one_that_replaces_is_found_out() {
        let store = MemoryStore::default();
        store.fault(|fault| fault.replaces = true);
        assert_eq!(store.examine().await, Ok(Abilities { exclusive: false }));
    }

    #[tokio::test]
    async fn faults_come_as_ordered() {
        let store = MemoryStore::default();
        store.fault(|fault| fault.fails = 20);
        let mut failed = 0;
        for count in 0..200 {
            failed += usize::from(store.put(&name(&format!("a/{count}")), Bytes::new()).await.is_err());
        }
        assert!((20..=60).contains(&failed), "{failed}");
        assert_eq!(store.objects().len(), 200 - failed);

        store.fault(|fault| *fault = StoreFault { space: Some(10), ..StoreFault::default() });
        let full = store.put(&name("b"), Bytes::from_static(b"eleven byte")).await;
        assert!(matches!(full, Err(StoreError::Full(_))), "{full:?}");

        store.fault(|fault| *fault = StoreFault { cut: Some(10), ..StoreFault::default() });
        let mut upload = store.begin(&name("c")).await.unwrap();
        upload.write(Bytes::from_static(b"ten bytes.")).await.unwrap();
        assert!(upload.write(Bytes::from_static(b"one more")).await.unwrap_err().passing());
        drop(upload);
        assert_eq!(store.size(&name("c")).await, Ok(None));

        store.fault(|fault| *fault = StoreFault { unclear: 100, ..StoreFault::default() });
        assert!(store.put(&name("d"), Bytes::new()).await.unwrap_err().passing());
        assert_eq!(store.size(&name("d")).await, Ok(Some(0)));
    }

    #[tokio::test]
    async fn what_is_not_settled_does_not_outlive_a_crash() {
        let store = MemoryStore::default();
        for settled in [true, false] {
            store.begin(&name(&format!("a/{settled}"))).await.unwrap().finish().await.unwrap();
            if settled {
                store.settle().await.unwrap();
            }
        }
        store.crash();
        assert_eq!(store.objects().keys().map(ObjectName::as_str).collect::<Vec<_>>(), ["a/true"]);
    }
}
