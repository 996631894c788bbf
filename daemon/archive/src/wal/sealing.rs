//! A segment is sealed on all cores.
//!
//! Its frames are sealed by several threads and put one after the other into one buffer, and buffers are used again: a new
//! one of that length costs the system as much as to compress a tenth of it.
//!
//! **Invariant:** the frames of an object are in their order, whichever was ready first.

use std::num::NonZero;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};
use lifeboat_engine::ports::ObjectName;

use super::objects::{Sealed, WalLabel, joined};
use crate::archive::Archive;
use crate::object::{Kind, Sealer, Trailer};
use crate::trouble::Trouble;

/// How much of a segment is one frame: small enough that all cores have something to do.
const FRAME: usize = 1 << 20;

/// So many buffers that nobody uses are kept: one is filled while another one is sealed.
const SPARE: usize = 2;

/// Buffers to use again.
#[derive(Clone, Default)]
pub(crate) struct Buffers(Arc<Mutex<Vec<BytesMut>>>);

impl Buffers {
    /// An empty one with at least that much room.
    pub(crate) fn take(&self, room: usize) -> BytesMut {
        let spare = self.spare().pop();
        let mut buffer = spare.unwrap_or_default();
        buffer.reserve(room);
        buffer
    }

    /// Takes it back, unless somebody else still has it.
    pub(crate) fn give(&self, buffer: Bytes) {
        if let Ok(mut buffer) = buffer.try_into_mut() {
            let mut spare = self.spare();
            if spare.len() < SPARE {
                buffer.clear();
                spare.push(buffer);
            }
        }
    }

    fn spare(&self) -> MutexGuard<'_, Vec<BytesMut>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the threads work at.
struct Work {
    sealer: Sealer,
    plain: Bytes,
    done: Mutex<Done>,
    appended: Condvar,
}

struct Done {
    /// The frame that is taken next.
    next: usize,
    object: BytesMut,
    lengths: Vec<u32>,
    digest: Option<String>,
    failed: Option<Trouble>,
}

/// One segment. The buffer of the object is one of `objects`.
pub(crate) async fn seal_segment(
    archive: &Archive,
    name: &ObjectName,
    label: WalLabel,
    plain: Bytes,
    objects: &Buffers,
) -> Result<Sealed, Trouble> {
    let key = archive.keys().newest();
    let (sealer, prologue) = Sealer::begin(key, name, Kind::Segment, &label, archive.level())?;
    let mut object = objects.take(plain.len() / 2);
    object.extend_from_slice(&prologue);
    let done = Done { next: 0, object, lengths: Vec::new(), digest: None, failed: None };
    let work = Arc::new(Work { sealer, plain, done: Mutex::new(done), appended: Condvar::new() });
    let count = work.plain.len().div_ceil(FRAME);
    let workers = std::thread::available_parallelism().map_or(1, NonZero::get).min(count);
    let digest = Arc::clone(&work);
    let mut running = vec![tokio::task::spawn_blocking(move || {
        let digest_of_all = blake3::hash(&digest.plain).to_hex().to_string();
        digest.done().digest = Some(digest_of_all);
        digest.run();
        Ok(())
    })];
    for _ in 1..workers {
        let work = Arc::clone(&work);
        running.push(tokio::task::spawn_blocking(move || {
            work.run();
            Ok(())
        }));
    }
    for worker in running {
        joined(worker.await)?;
    }
    let mut done = work.done();
    if let Some(trouble) = done.failed.take() {
        return Err(trouble);
    }
    let digest = done.digest.take().ok_or_else(|| Trouble::Broken("a digest was not taken".to_owned()))?;
    let trailer = Trailer {
        frames: std::mem::take(&mut done.lengths),
        plain: work.plain.len() as u64,
        digest: Some(digest.clone()),
    };
    let end = work.sealer.end(&trailer)?;
    done.object.extend_from_slice(&end);
    Ok(Sealed { object: std::mem::take(&mut done.object).freeze(), digest })
}

impl Work {
    fn done(&self) -> MutexGuard<'_, Done> {
        self.done.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Seals what is next until nothing is left. Every frame before one's own was taken by somebody who is at it, so waiting
    /// for them ends.
    fn run(&self) {
        let mut sealed = Vec::new();
        loop {
            let place = {
                let mut done = self.done();
                done.next += 1;
                done.next - 1
            };
            let Some(part) = self.plain.chunks(FRAME).nth(place) else { return };
            sealed.clear();
            let end = self.sealer.frame(u32::try_from(place).unwrap_or(u32::MAX), part, &mut sealed);
            let mut done = self.done();
            while done.lengths.len() < place && done.failed.is_none() {
                done = self.appended.wait(done).unwrap_or_else(PoisonError::into_inner);
            }
            match end {
                Ok(()) => {
                    done.object.extend_from_slice(&sealed);
                    done.lengths.push(u32::try_from(sealed.len()).unwrap_or(u32::MAX));
                }
                Err(trouble) => done.failed = Some(trouble),
            }
            let failed = done.failed.is_some();
            drop(done);
            self.appended.notify_all();
            if failed {
                return;
            }
        }
    }
}
