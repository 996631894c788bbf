//! The one place where a call of the store is made again.
//!
//! **Invariant:** only what may pass is tried again, so often and no more.
//! **Invariant:** an object that was there already is told as there, except where a lost answer may have been our own write:
//! then it is compared.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use lifeboat_engine::ports::{Abilities, Listed, ObjectName, Store, StoreError, Upload};

/// How often a call is made before it has failed.
const ATTEMPTS: u32 = 9;

/// How long to wait before the second attempt; doubled each time, to a minute and a half in all.
const FIRST: Duration = Duration::from_millis(200);

const LONGEST: Duration = Duration::from_secs(20);

/// The attempts of one call.
pub(crate) struct Attempts {
    made: u32,
    wait: Duration,
}

pub(crate) fn attempts() -> Attempts {
    Attempts { made: 0, wait: FIRST }
}

impl Attempts {
    /// Whether one has failed before.
    pub(crate) fn tried(&self) -> bool {
        self.made > 0
    }

    /// Waits before the next attempt.
    ///
    /// # Errors
    /// That one, when it does not pass, or has been met too often.
    pub(crate) async fn pause(&mut self, error: StoreError) -> Result<(), StoreError> {
        self.made += 1;
        if !error.passing() || self.made >= ATTEMPTS {
            return Err(error);
        }
        tracing::debug!(%error, attempt = self.made, "the store is tried again");
        tokio::time::sleep(self.wait).await;
        self.wait = (self.wait * 2).min(LONGEST);
        Ok(())
    }
}

/// A store that is asked again when it could not be reached.
pub(crate) struct Patience {
    store: Arc<dyn Store>,
}

impl Patience {
    pub(crate) fn new(store: Arc<dyn Store>) -> Self {
        Self { store }
    }
}

/// Makes a call until it succeeds, or fails for good.
macro_rules! again {
    ($call:expr) => {{
        let mut attempts = attempts();
        loop {
            match $call.await {
                Ok(value) => break Ok(value),
                Err(error) => attempts.pause(error).await?,
            }
        }
    }};
}

#[async_trait]
impl Store for Patience {
    fn place(&self) -> String {
        self.store.place()
    }

    async fn examine(&self) -> Result<Abilities, StoreError> {
        again!(self.store.examine())
    }

    async fn put(&self, name: &ObjectName, content: Bytes) -> Result<(), StoreError> {
        let mut attempts = attempts();
        loop {
            match self.store.put(name, content.clone()).await {
                Ok(()) => return Ok(()),
                Err(StoreError::Exists(there)) if attempts.tried() => {
                    let kept = self.get(name, 0..content.len() as u64 + 1).await?;
                    return if kept == content { Ok(()) } else { Err(StoreError::Exists(there)) };
                }
                Err(error) => attempts.pause(error).await?,
            }
        }
    }

    async fn begin(&self, name: &ObjectName) -> Result<Box<dyn Upload>, StoreError> {
        again!(self.store.begin(name))
    }

    async fn get(&self, name: &ObjectName, range: Range<u64>) -> Result<Bytes, StoreError> {
        again!(self.store.get(name, range.clone()))
    }

    async fn size(&self, name: &ObjectName) -> Result<Option<u64>, StoreError> {
        again!(self.store.size(name))
    }

    async fn list(&self, under: &str, after: Option<&ObjectName>) -> Result<Vec<Listed>, StoreError> {
        again!(self.store.list(under, after))
    }

    async fn remove(&self, name: &ObjectName) -> Result<(), StoreError> {
        again!(self.store.remove(name))
    }

    async fn settle(&self) -> Result<(), StoreError> {
        again!(self.store.settle())
    }
}
