//! Objects of WAL: what their labels say, how they are written once, and compared.
//!
//! **Invariant:** a label is believed only when a part of the object that is bound to it has opened.

use std::time::Duration;

use bytes::Bytes;
use lifeboat_core::{Lsn, Moment, SystemIdentifier, Timeline};
use lifeboat_engine::clock::Clock;
use lifeboat_engine::ports::{ObjectName, StoreError};
use serde::{Deserialize, Serialize};

use crate::archive::Archive;
use crate::object::{Kind, Opener, TAIL, Trailer};
use crate::trouble::Trouble;

/// What is shorter is sealed where it is: it takes less time than to hand it over.
const SHORT: usize = 64 * 1024;

/// The longest segment.
pub(crate) const LONGEST: usize = 1 << 30;

/// What an object of WAL says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WalLabel {
    /// Whose WAL it is.
    pub system: SystemIdentifier,
    /// Which timeline's.
    pub timeline: Timeline,
    /// How long the system's segments are.
    pub segment_size: u64,
    /// Its first byte.
    pub start: Lsn,
    /// The first one after it.
    pub end: Lsn,
    /// When its last byte was received, on the receiver's clock.
    pub received: Moment,
    /// What the server's clock said then, as far as the server told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sent: Option<Moment>,
    /// When this was made, all before that was durable: a hole before it is a loss, and no object that was in flight.
    pub held: Lsn,
    /// The BLAKE3 digest of the segment's bytes before this piece: a piece of other WAL does not fit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<String>,
}

/// An object ready to be written.
pub(crate) struct Sealed {
    pub(crate) object: Bytes,
    /// Of what it opens to.
    pub(crate) digest: String,
}

/// One short object.
pub(crate) async fn seal_piece(
    archive: &Archive,
    name: &ObjectName,
    kind: Kind,
    label: WalLabel,
    plain: Bytes,
) -> Result<Sealed, Trouble> {
    let (archive, name) = (archive.clone(), name.clone());
    let length = plain.len();
    let seal = move || {
        let digest = blake3::hash(&plain).to_hex().to_string();
        Ok(Sealed { object: archive.seal(&name, kind, &label, &plain)?, digest })
    };
    if length <= SHORT { seal() } else { joined(tokio::task::spawn_blocking(seal).await) }
}

pub(crate) fn joined<T>(end: Result<Result<T, Trouble>, tokio::task::JoinError>) -> Result<T, Trouble> {
    end.unwrap_or_else(|error| Err(Trouble::Broken(format!("a task ended by itself: {error}"))))
}

/// How long it is tried again what may come out well.
pub(crate) struct Patience {
    clock: Clock,
    until: Moment,
    wait: Duration,
}

impl Patience {
    const FIRST: Duration = Duration::from_millis(20);
    const LONGEST: Duration = Duration::from_secs(5);

    pub(crate) fn new(clock: Clock, length: Duration) -> Self {
        Self { clock, until: clock.now() + length, wait: Self::FIRST }
    }

    /// Waits, and says whether to try again.
    pub(crate) async fn again(&mut self, error: &StoreError) -> bool {
        // A full store is waited for like one that cannot be reached: somebody may make room.
        let now = self.clock.now();
        if !(error.passing() || matches!(error, StoreError::Full(_))) || now >= self.until {
            return false;
        }
        self.clock.sleep_until((now + self.wait).min(self.until)).await;
        self.wait = (self.wait * 2).min(Self::LONGEST);
        true
    }

    /// The same for what did not come out well for any reason.
    pub(crate) async fn once_more(&mut self, trouble: &Trouble) -> bool {
        match trouble {
            Trouble::Store(error) => self.again(error).await,
            _ => false,
        }
    }
}

/// Writes it, or finds it there with the same content; says what goes wrong on the way to `notice`.
pub(crate) async fn put_once(
    archive: &Archive,
    name: &ObjectName,
    kind: Kind,
    sealed: &Sealed,
    mut patience: Patience,
    notice: impl Fn(Option<&StoreError>),
) -> Result<(), Trouble> {
    loop {
        let error = match archive.store().put(name, sealed.object.clone()).await {
            Ok(()) => break,
            Err(StoreError::Exists(_)) => match digest_of(archive, name, kind).await {
                Ok(digest) if digest == sealed.digest => break,
                Ok(digest) => return Err(conflict(name, &digest, &sealed.digest)),
                Err(Trouble::Store(error)) => error,
                Err(trouble) => return Err(trouble),
            },
            Err(error) => error,
        };
        notice(Some(&error));
        if !patience.again(&error).await {
            return Err(error.into());
        }
    }
    notice(None);
    Ok(())
}

fn conflict(name: &ObjectName, there: &str, ours: &str) -> Trouble {
    let short = |digest: &str| digest.get(..16).unwrap_or(digest).to_owned();
    Trouble::Conflict {
        name: name.clone(),
        what: format!("BLAKE3 {}…, and here {}…", short(there), short(ours)),
    }
}

/// The digest of what an object opens to, all of it opened: what is there counts as stored only when it can be read back.
async fn digest_of(archive: &Archive, name: &ObjectName, kind: Kind) -> Result<String, Trouble> {
    let (_, plain) = archive.read::<serde_json::Value>(name, kind, LONGEST).await?;
    let digest = move || Ok(blake3::hash(&plain).to_hex().to_string());
    joined(tokio::task::spawn_blocking(digest).await)
}

/// The label of an object, proven by its trailer.
pub(crate) async fn label_of(
    archive: &Archive,
    name: &ObjectName,
    size: Option<u64>,
) -> Result<WalLabel, Trouble> {
    ends(archive, name, size).await?.0.label()
}

/// The beginning and the end of an object.
async fn ends(archive: &Archive, name: &ObjectName, size: Option<u64>) -> Result<(Opener, Trailer), Trouble> {
    let store = archive.store();
    let size = match size {
        Some(size) => size,
        None => store.size(name).await?.ok_or_else(|| StoreError::Missing(name.clone()))?,
    };
    let head = store.get(name, 0..(Opener::PROLOGUE as u64).max(TAIL)).await?;
    let opener = Opener::begin(archive.keys(), name, &head)?;
    let tail = if size <= head.len() as u64 {
        head
    } else {
        store.get(name, size.saturating_sub(TAIL)..size).await?
    };
    let (trailer, _) = opener.end(&tail)?;
    Ok((opener, trailer))
}
