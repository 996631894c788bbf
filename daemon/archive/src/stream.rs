//! What a backup stores: three streams of bytes, each cut into frames of one length, each sealed, sixteen to a pack.
//!
//! Frames have one length and packs one number of frames, so that where a byte is follows from its offset, and no table has to
//! be kept, read or believed. The caller fills frames; other threads compress and seal them, several at a time; a task writes
//! them in their order.
//!
//! **Invariant:** what is in memory is bounded by [`Lanes`] and one pack for each stream, whatever is stored.
//! **Invariant:** an object is taken for written only when its upload was finished; a pack that was not is written again from
//! memory.

mod courier;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use lifeboat_core::SystemIdentifier;
use serde::{Deserialize, Serialize};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinHandle;

use crate::archive::Archive;
use crate::manifest::{BackupId, object_name};
use crate::object::{Kind, Sealer, Trailer};
use crate::trouble::Trouble;
use courier::Courier;

/// How much a frame opens to; the last one of a stream to less.
pub(crate) const FRAME: usize = 1 << 20;

/// How many frames are in a pack; in the last one of a stream fewer.
pub(crate) const PACK_FRAMES: u64 = 16;

/// The most that is put behind what is ready before it is judged.
pub(crate) const UNIT: usize = 128 << 10;

/// Frames that may be under way at once, however many processors there are: each takes its plain bytes, its sealed bytes and
/// what compressing needs, about 3.5 MB.
const MOST_LANES: usize = 6;

/// The streams of a backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Stream {
    /// The bytes of files.
    Data,
    /// The fingerprints of their blocks.
    Prints,
    /// What there is: one line each.
    List,
}

impl Stream {
    /// The last part of the name of one of its packs, counted from 1.
    pub(crate) fn pack(self, number: u32) -> String {
        let stream = match self {
            Self::Data => "data",
            Self::Prints => "prints",
            Self::List => "list",
        };
        format!("{stream}-{number:05}")
    }
}

/// What the label of a pack says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PackLabel {
    pub(crate) backup: BackupId,
    pub(crate) stream: Stream,
    pub(crate) pack: u32,
}

/// How much may be under way at once, and the buffers that are used again.
#[derive(Clone)]
pub(crate) struct Lanes {
    free: Arc<Semaphore>,
    plain: Pool,
    sealed: Pool,
}

impl Lanes {
    pub(crate) fn new() -> Self {
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        let lanes = (cores + 1).min(MOST_LANES);
        Self { free: Arc::new(Semaphore::new(lanes)), plain: Pool::new(lanes), sealed: Pool::new(16) }
    }
}

/// Buffers that are used again: fresh ones would cost as much as what is done with them.
#[derive(Clone)]
pub(crate) struct Pool {
    kept: Arc<Mutex<Vec<Vec<u8>>>>,
    most: usize,
}

impl Pool {
    fn new(most: usize) -> Self {
        Self { kept: Arc::default(), most }
    }

    fn take(&self) -> Vec<u8> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner).pop();
        kept.unwrap_or_else(|| Vec::with_capacity(FRAME + UNIT))
    }

    fn give(&self, mut buffer: Vec<u8>) {
        buffer.clear();
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() < self.most && buffer.capacity() >= FRAME {
            kept.push(buffer);
        }
    }
}

/// What the writing task is told, in order.
enum Order {
    Open(lifeboat_engine::ports::ObjectName, Bytes),
    Frame(JoinHandle<Result<Vec<u8>, Trouble>>, usize, OwnedSemaphorePermit),
    Close(Arc<Sealer>),
}

/// What was written of a stream.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Written {
    /// How long the stream is.
    pub(crate) length: u64,
    /// How long its packs are, together.
    pub(crate) stored: u64,
    /// How many they are.
    pub(crate) objects: u64,
}

/// A stream that is being written. Dropped, it leaves whole packs at most, and no task.
pub(crate) struct StreamWriter {
    archive: Archive,
    system: SystemIdentifier,
    backup: BackupId,
    stream: Stream,
    lanes: Lanes,
    /// What is ready, and behind it what is not judged yet.
    buffer: Vec<u8>,
    ready: usize,
    frames: u64,
    sealer: Option<Arc<Sealer>>,
    orders: mpsc::Sender<Order>,
    task: Task,
    /// Packs whose uploads are finished.
    whole: Arc<AtomicU64>,
}

/// A task that ends with its owner.
struct Task(Option<JoinHandle<Result<Written, Trouble>>>);

impl Drop for Task {
    fn drop(&mut self) {
        if let Some(task) = &self.0 {
            task.abort();
        }
    }
}

impl StreamWriter {
    pub(crate) fn new(
        archive: &Archive,
        system: SystemIdentifier,
        backup: &BackupId,
        stream: Stream,
        lanes: &Lanes,
    ) -> Self {
        // Bounded by the lanes; opening and closing come on top.
        let (orders, inbox) = mpsc::channel(MOST_LANES);
        let whole = Arc::new(AtomicU64::new(0));
        let task = tokio::spawn(write(archive.clone(), lanes.sealed.clone(), inbox, whole.clone()));
        Self {
            archive: archive.clone(),
            system,
            backup: backup.clone(),
            stream,
            lanes: lanes.clone(),
            buffer: lanes.plain.take(),
            ready: 0,
            frames: 0,
            sealer: None,
            orders,
            task: Task(Some(task)),
            whole,
        }
    }

    /// How much is in the stream: where the next byte comes.
    pub(crate) fn position(&self) -> u64 {
        self.frames * FRAME as u64 + self.ready as u64
    }

    /// How many packs can be seen in the store: durable after the next settling.
    pub(crate) fn whole_packs(&self) -> u64 {
        self.whole.load(Ordering::Acquire)
    }

    /// Puts bytes behind what is ready, at most [`UNIT`] together.
    pub(crate) fn offer(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// What was offered and not judged.
    pub(crate) fn offered(&self) -> &[u8] {
        &self.buffer[self.ready..]
    }

    /// Takes these ranges of what was offered into the stream, and forgets the rest.
    pub(crate) async fn judge(&mut self, ranges: &[std::ops::Range<usize>]) -> Result<(), Trouble> {
        let start = self.ready;
        for range in ranges {
            let (from, to) = (start + range.start, start + range.end);
            if from != self.ready {
                self.buffer.copy_within(from..to, self.ready);
            }
            self.ready += to - from;
        }
        self.buffer.truncate(self.ready);
        if self.ready >= FRAME { self.ship().await } else { Ok(()) }
    }

    /// Takes all of it into the stream.
    pub(crate) async fn push(&mut self, mut bytes: &[u8]) -> Result<(), Trouble> {
        while !bytes.is_empty() {
            let (next, rest) = bytes.split_at(bytes.len().min(UNIT));
            self.offer(next);
            self.judge(std::slice::from_ref(&(0..next.len()))).await?;
            bytes = rest;
        }
        Ok(())
    }

    /// Sends the first frame of what is ready on its way.
    async fn ship(&mut self) -> Result<(), Trouble> {
        let length = self.ready.min(FRAME);
        let mut next = self.lanes.plain.take();
        next.extend_from_slice(&self.buffer[length..]);
        let mut plain = std::mem::replace(&mut self.buffer, next);
        plain.truncate(length);
        self.ready -= length;

        let place = self.frames % PACK_FRAMES;
        if place == 0 {
            self.close().await?;
            self.open().await?;
        }
        self.frames += 1;
        let sealer =
            self.sealer.clone().ok_or_else(|| Trouble::Broken("a frame without a pack".to_owned()))?;
        let permit = self.lanes.free.clone().acquire_owned().await;
        let permit = permit.map_err(|_| Trouble::Broken("no lane is left".to_owned()))?;
        let (pool, mut out) = (self.lanes.plain.clone(), self.lanes.sealed.take());
        let place = u32::try_from(place).unwrap_or(u32::MAX);
        let sealed = tokio::task::spawn_blocking(move || {
            sealer.frame(place, &plain, &mut out)?;
            pool.give(plain);
            Ok(out)
        });
        self.order(Order::Frame(sealed, length, permit)).await
    }

    async fn open(&mut self) -> Result<(), Trouble> {
        let pack = u32::try_from(self.frames / PACK_FRAMES + 1);
        let pack = pack.map_err(|_| Trouble::Broken("a stream has too many packs".to_owned()))?;
        let name = object_name(self.system, &self.backup, &self.stream.pack(pack))?;
        let label = PackLabel { backup: self.backup.clone(), stream: self.stream, pack };
        let (archive, key) = (&self.archive, self.archive.keys().newest());
        let (sealer, prologue) = Sealer::begin(key, &name, Kind::Pack, &label, archive.level())?;
        self.sealer = Some(Arc::new(sealer));
        self.order(Order::Open(name, prologue)).await
    }

    async fn close(&mut self) -> Result<(), Trouble> {
        match self.sealer.take() {
            Some(sealer) => self.order(Order::Close(sealer)).await,
            None => Ok(()),
        }
    }

    async fn order(&mut self, order: Order) -> Result<(), Trouble> {
        if self.orders.send(order).await.is_ok() {
            return Ok(());
        }
        let ended = self.end().await;
        Err(ended.err().unwrap_or_else(|| Trouble::Broken("the writing of a stream ended early".to_owned())))
    }

    async fn end(&mut self) -> Result<Written, Trouble> {
        let Some(task) = self.task.0.take() else {
            return Err(Trouble::Broken("the stream has failed already".to_owned()));
        };
        task.await.map_err(|error| Trouble::Broken(format!("the writing of a stream: {error}")))?
    }

    /// Everything is in finished objects; not yet durable.
    pub(crate) async fn finish(mut self) -> Result<Written, Trouble> {
        while self.ready > 0 {
            self.ship().await?;
        }
        self.close().await?;
        let (closed, _) = mpsc::channel(1);
        drop(std::mem::replace(&mut self.orders, closed));
        self.end().await
    }
}

/// Writes the frames of one stream in their order, pack by pack.
async fn write(
    archive: Archive,
    pool: Pool,
    mut inbox: mpsc::Receiver<Order>,
    whole: Arc<AtomicU64>,
) -> Result<Written, Trouble> {
    let mut written = Written::default();
    let (mut courier, mut trailer) = (None::<Courier>, Trailer::default());
    let apart = || Trouble::Broken("a frame without a pack".to_owned());
    while let Some(order) = inbox.recv().await {
        match order {
            Order::Open(name, prologue) => {
                trailer = Trailer::default();
                courier = Some(Courier::begin(archive.store().clone(), name, prologue).await?);
            }
            Order::Frame(sealed, plain, permit) => {
                let sealed = sealed.await;
                let sealed =
                    sealed.map_err(|error| Trouble::Broken(format!("the sealing of a frame: {error}")))??;
                trailer.frames.push(u32::try_from(sealed.len()).unwrap_or(u32::MAX));
                trailer.plain += plain as u64;
                courier.as_mut().ok_or_else(apart)?.write(sealed.into()).await?;
                drop(permit);
            }
            Order::Close(sealer) => {
                let mut courier = courier.take().ok_or_else(apart)?;
                courier.write(sealer.end(&trailer)?).await?;
                written.length += trailer.plain;
                written.objects += 1;
                let (stored, parts) = courier.finish().await?;
                written.stored += stored;
                whole.store(written.objects, Ordering::Release);
                for part in parts {
                    if let Ok(part) = part.try_into_mut() {
                        pool.give(part.into());
                    }
                }
            }
        }
    }
    Ok(written)
}
