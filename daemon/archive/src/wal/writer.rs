//! A stream of WAL is stored as it comes in.
//!
//! The bytes are stored as whole segments when they come fast, and as pieces of the segment that is not full yet when they
//! do not. Several objects may be on their way at once; what is durable only grows without a hole.
//!
//! **Invariant:** bytes are accepted in order and without a hole, or refused with the name of the segment.
//! **Invariant:** no more is held than was allowed: who brings more waits.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use lifeboat_core::{Lsn, Moment, SystemIdentifier, Timeline};
use lifeboat_engine::clock::Clock;
use lifeboat_engine::ports::StoreError;
use tokio::sync::{Notify, Semaphore, watch};
use tokio_util::task::AbortOnDropHandle;

use super::collected::Collected;
use super::driver::Driver;
use super::names::{SegmentName, SegmentSize};
use super::objects::Patience;
use super::ranges::Gap;
use super::sealing::Buffers;
use crate::archive::Archive;
use crate::trouble::Trouble;

mod beginning;

/// How a stream is stored.
#[derive(Clone, Debug)]
pub struct WalOptions {
    /// A piece is made at most so often; zero: as soon as the one before it is stored, so that a commit that waits for it
    /// takes as long as the store does.
    pub piece_every: Duration,
    /// So many segments are stored at once at most. Each is in memory, and once more sealed.
    pub segments_in_flight: usize,
    /// So many pieces are stored at once at most. One: what comes in while it is on its way is the next one.
    pub pieces_in_flight: usize,
    /// So many bytes that are not durable are held at most; at least one segment.
    pub most_waiting: u64,
    /// A store that cannot be reached or is full is tried for so long; then the writer stops.
    pub patience: Duration,
    /// The oldest byte that the server can still give: a hole after it is filled, one before it is left. Needed where the
    /// archive has nothing of the timeline.
    pub oldest: Option<Lsn>,
    /// What moments are read from.
    pub clock: Clock,
}

impl Default for WalOptions {
    fn default() -> Self {
        Self {
            piece_every: Duration::from_secs(1),
            segments_in_flight: 2,
            pieces_in_flight: 1,
            most_waiting: 2 * SegmentSize::DEFAULT.bytes(),
            patience: Duration::from_mins(5),
            oldest: None,
            clock: Clock::start(),
        }
    }
}

/// How far the archive has the stream without a hole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// The first byte that is not durable.
    pub lsn: Lsn,
    /// When the byte before it was received.
    pub received: Moment,
    /// When it was found durable.
    pub durable: Moment,
}

/// What waits to be stored, and why.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pressure {
    /// Bytes received and not durable.
    pub waiting: u64,
    /// Nothing more is taken until some of it is durable.
    pub full: bool,
    /// What the store said last, when it did not store.
    pub trouble: Option<String>,
}

/// What the writer and its task share.
pub(super) struct Shared {
    collected: Mutex<Collected>,
    trouble: Mutex<Option<String>>,
    sent: Mutex<Option<Moment>>,
    failed: Mutex<Option<Trouble>>,
    /// Something was received, or asked for.
    pub(super) wake: Notify,
    /// How many more bytes may be held.
    pub(super) room: Semaphore,
}

impl Shared {
    pub(super) fn collected(&self) -> MutexGuard<'_, Collected> {
        self.collected.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn buffers(&self) -> Buffers {
        self.collected().buffers.clone()
    }

    pub(super) fn notice(&self, error: Option<&StoreError>) {
        *lock(&self.trouble) = error.map(ToString::to_string);
    }

    pub(super) fn sent(&self) -> Option<Moment> {
        *lock(&self.sent)
    }

    pub(super) fn fail(&self, trouble: Trouble) {
        lock(&self.failed).get_or_insert(trouble);
        self.room.close();
    }
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Stores a stream. When it is dropped, what is on its way is given up; what was called durable is.
pub struct WalWriter {
    shared: Arc<Shared>,
    held: watch::Receiver<Held>,
    timeline: Timeline,
    size: SegmentSize,
    most: u64,
    clock: Clock,
    _driver: AbortOnDropHandle<()>,
}

impl fmt::Debug for WalWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WalWriter")
            .field("timeline", &self.timeline)
            .field("next", &self.next())
            .field("held", &self.held())
            .finish_non_exhaustive()
    }
}

impl WalWriter {
    /// How much is taken in one go: small enough that waiting for room does not stand in the way of storing.
    const AT_ONCE: usize = 256 * 1024;

    /// Goes on where the archive ends on that timeline. A timeline whose history is in the archive ([`super::push_history`])
    /// and of which there is nothing yet begins where it branched off, with what its parent has of that segment.
    ///
    /// # Errors
    /// The archive cannot be read, its pieces contradict each other, or it has nothing of the timeline and
    /// [`WalOptions::oldest`] does not say where to begin.
    pub async fn open(
        archive: &Archive,
        system: SystemIdentifier,
        timeline: Timeline,
        size: SegmentSize,
        options: WalOptions,
    ) -> Result<Self, Trouble> {
        let clock = options.clock;
        let mut patience = Patience::new(clock, options.patience);
        let begin = loop {
            match beginning::find(archive, system, timeline, size, &options).await {
                Err(trouble) if patience.once_more(&trouble).await => {}
                found => break found?,
            }
        };
        let most = options.most_waiting.max(size.bytes());
        let collected = Collected::new(begin.start, &begin.there, begin.cut, size, clock.now());
        let shared = Arc::new(Shared {
            collected: Mutex::new(collected),
            trouble: Mutex::default(),
            sent: Mutex::default(),
            failed: Mutex::default(),
            wake: Notify::new(),
            room: Semaphore::new(usize::try_from(most).unwrap_or(Semaphore::MAX_PERMITS)),
        });
        let (publish, held) = watch::channel(begin.held);
        let driver = Driver::new(archive.clone(), (system, timeline, size), options, shared.clone(), publish);
        let driver = AbortOnDropHandle::new(tokio::spawn(driver.run()));
        Ok(Self { shared, held, timeline, size, most, clock, _driver: driver })
    }

    /// Where to begin streaming, and where the next bytes belong: the beginning of a segment, or the end of the last piece.
    #[must_use]
    pub fn next(&self) -> Lsn {
        self.shared.collected().next()
    }

    /// Takes the next bytes; waits while too much is held already. When it is given up while it waits, it may be called
    /// again with the same bytes: what is there already is compared and passed over.
    ///
    /// # Errors
    /// [`Trouble::Gap`]: they begin after [`Self::next`]. [`Trouble::Conflict`]: they are other bytes than those already
    /// received. [`Trouble::Refused`]: they begin before the segment that is being received. Or what ended the writer.
    pub async fn append(&mut self, start: Lsn, bytes: Bytes) -> Result<(), Trouble> {
        let mut rest = self.fresh(start, bytes)?;
        while !rest.is_empty() {
            let part = rest.split_to(rest.len().min(Self::AT_ONCE));
            let count = u32::try_from(part.len()).unwrap_or(u32::MAX);
            let Ok(permit) = self.shared.room.acquire_many(count).await else { return Err(self.failure()) };
            permit.forget();
            self.shared.collected().take(&part, self.clock.now());
            self.shared.wake.notify_one();
        }
        Ok(())
    }

    /// What of them is new.
    fn fresh(&self, start: Lsn, mut bytes: Bytes) -> Result<Bytes, Trouble> {
        let collected = self.shared.collected();
        let next = collected.next();
        if start > next {
            return Err(Gap::new(self.timeline, next, start, self.size).into());
        }
        let known =
            bytes.split_to(usize::try_from(next.ahead_of(start)).map_or(bytes.len(), |n| n.min(bytes.len())));
        match collected.holds(start, &known) {
            Some(true) => Ok(bytes),
            _ if known.is_empty() => Ok(bytes),
            Some(false) => Err(Trouble::Conflict {
                name: super::names::segment_name(self.timeline, start, self.size)?,
                what: format!("what was received from {start} on is not what was received before"),
            }),
            None => Err(Trouble::Refused(format!(
                "WAL from {start} on was given, and segment {} is whole already: begin at {} or later",
                SegmentName::of(self.timeline, start, self.size),
                collected.start(),
            ))),
        }
    }

    /// What the server's clock said when it sent what was appended last: times to recover to are on that clock.
    pub fn sent(&self, at: Moment) {
        *lock(&self.shared.sent) = Some(at);
    }

    /// Everything appended so far is stored at once; does not wait for it.
    pub fn ask(&self) {
        let mut collected = self.shared.collected();
        collected.asked = collected.next();
        drop(collected);
        self.shared.wake.notify_one();
    }

    /// Everything appended so far is durable when this returns, with what is durable then.
    ///
    /// # Errors
    /// What ended the writer.
    pub async fn flush(&mut self) -> Result<Lsn, Trouble> {
        let goal = self.next();
        self.ask();
        match self.held.wait_for(|held| held.lsn >= goal).await.map(|held| held.lsn) {
            Ok(lsn) => Ok(lsn),
            Err(_) => Err(self.failure()),
        }
    }

    /// How far it is durable.
    #[must_use]
    pub fn held(&self) -> Held {
        *self.held.borrow()
    }

    /// Changes each time more is durable: what to report to the server as flushed. It is closed when the writer has ended.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Held> {
        self.held.clone()
    }

    /// What waits to be stored, and why.
    #[must_use]
    pub fn pressure(&self) -> Pressure {
        let free = self.shared.room.available_permits() as u64;
        Pressure {
            waiting: self.next().ahead_of(self.held().lsn),
            full: free < (Self::AT_ONCE as u64).min(self.most / 4),
            trouble: lock(&self.shared.trouble).clone(),
        }
    }

    /// Why the writer has ended. The first who asks is told all; who asks again, in words.
    fn failure(&self) -> Trouble {
        let mut failed = lock(&self.shared.failed);
        let again = match &*failed {
            Some(trouble) => Trouble::Broken(format!("the WAL writer has ended: {trouble}")),
            None => Trouble::Broken("the WAL writer has ended by itself".to_owned()),
        };
        failed
            .replace(again)
            .unwrap_or_else(|| Trouble::Broken("the WAL writer has ended by itself".to_owned()))
    }
}
