//! One object on its way into the store, held until it is there.
//!
//! **Invariant:** an upload that failed for a reason that passes is made again, from what is held; one that failed for another
//! reason is told at once.

use std::sync::Arc;

use bytes::Bytes;
use lifeboat_engine::ports::{ObjectName, Store, StoreError, Upload};

use crate::patience::attempts;
use crate::trouble::Trouble;

pub(super) struct Courier {
    store: Arc<dyn Store>,
    name: ObjectName,
    held: Vec<Bytes>,
    live: Option<Box<dyn Upload>>,
}

impl Courier {
    pub(super) async fn begin(
        store: Arc<dyn Store>,
        name: ObjectName,
        first: Bytes,
    ) -> Result<Self, Trouble> {
        let live = store.begin(&name).await?;
        let mut begun = Self { store, name, held: Vec::with_capacity(20), live: Some(live) };
        begun.write(first).await?;
        Ok(begun)
    }

    /// The next bytes: held, and on their way.
    pub(super) async fn write(&mut self, part: Bytes) -> Result<(), Trouble> {
        self.held.push(part.clone());
        if let Some(live) = &mut self.live {
            match live.write(part).await {
                Ok(()) => {}
                Err(error) if error.passing() => self.live = None,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// The object can be seen. How long it is, and what was held.
    pub(super) async fn finish(mut self) -> Result<(u64, Vec<Bytes>), Trouble> {
        let mut patience = attempts();
        loop {
            match self.attempt().await {
                Ok(()) => break,
                // An answer that was lost: it is ours if it has our salt, which nobody else can have drawn.
                Err(StoreError::Exists(_)) if patience.tried() => {
                    if ours(self.store.as_ref(), &self.name, &self.held).await? {
                        break;
                    }
                    return Err(StoreError::Exists(self.name).into());
                }
                Err(error) => patience.pause(error).await?,
            }
        }
        let length = self.held.iter().map(|part| part.len() as u64).sum();
        Ok((length, self.held))
    }

    async fn attempt(&mut self) -> Result<(), StoreError> {
        let live = match self.live.take() {
            Some(live) => live,
            None => {
                let mut live = self.store.begin(&self.name).await?;
                for part in &self.held {
                    live.write(part.clone()).await?;
                }
                live
            }
        };
        live.finish().await
    }
}

/// Whether the object that is there is the one that is held.
async fn ours(store: &dyn Store, name: &ObjectName, held: &[Bytes]) -> Result<bool, Trouble> {
    let length: u64 = held.iter().map(|part| part.len() as u64).sum();
    let first = held.first().cloned().unwrap_or_default();
    let there = store.get(name, 0..first.len() as u64).await?;
    Ok(there == first && store.size(name).await? == Some(length))
}

#[cfg(test)]
mod tests {
    use lifeboat_engine::pretend::{MemoryStore, StoreFault};

    use super::*;
    use crate::patience::Patience;

    #[tokio::test(start_paused = true)]
    async fn an_object_arrives_once_whatever_is_lost_on_the_way() {
        for seed in 0..40 {
            let store = MemoryStore::new(lifeboat_engine::clock::Clock::start(), seed);
            store.fault(|fault| *fault = StoreFault { fails: 5, unclear: 25, ..StoreFault::default() });
            let name: ObjectName = "backups/x".parse().unwrap();
            let parts: Vec<Bytes> = (0_u8..6).map(|byte| Bytes::from(vec![byte; 1000])).collect();
            let shared: Arc<dyn Store> = Arc::new(Patience::new(Arc::new(store.clone())));
            let mut courier = Courier::begin(shared, name.clone(), parts[0].clone()).await.unwrap();
            for part in &parts[1..] {
                courier.write(part.clone()).await.unwrap();
            }
            let (length, _) = courier.finish().await.unwrap();
            assert_eq!(length, 6000);
            assert_eq!(store.objects()[&name], parts.concat(), "seed {seed}");
        }
    }
}
