//! An archive: a store, and the keys to what is in it.
//!
//! ```text
//! archive.json                          format and name of the archive
//! keys/DATA-KEY.KEY-FILE.json           a data key, sealed by a key file
//! backups/SYSTEM/BACKUP/…               what a backup stores, and its manifest
//! wal/SYSTEM/TIMELINE/…                 segments, pieces, histories
//! ```
//!
//! **Invariant:** an archive is opened with a key file that opens every data key in it, or not at all.

use std::sync::Arc;

use bytes::Bytes;
use data_encoding::HEXLOWER;
use lifeboat_engine::ports::{ObjectName, Store, StoreError};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::keys::{DataKey, KeyFile, KeyRing, Wrapped, random};
use crate::object::{FORMAT, Kind, Opener, seal_whole};
use crate::patience::Patience;
use crate::trouble::Trouble;

/// What is compressed how much: on PostgreSQL pages, 3 costs twice as much and stores 4 % less.
pub const LEVEL: i32 = 1;

/// The most bytes of an object that is no object of frames.
const MOST_PLAIN: u64 = 64 * 1024;

const HEAD: &str = "archive.json";

#[derive(Debug, Serialize, Deserialize)]
struct Head {
    format: u32,
    id: String,
}

/// An archive that is open.
#[derive(Clone)]
pub struct Archive {
    store: Arc<dyn Store>,
    keys: Arc<KeyRing>,
    id: String,
    level: i32,
}

impl Archive {
    /// Makes an archive in a store that has none.
    ///
    /// # Errors
    /// There is one, or the store cannot be used.
    pub async fn init(store: Arc<dyn Store>, key: &KeyFile) -> Result<Self, Trouble> {
        let taken = || Trouble::Refused(format!("there is an archive at {} already", store.place()));
        // Before anything is written: a key that nobody needs would keep that archive from being opened.
        if store.size(&name(HEAD)?).await?.is_some() {
            return Err(taken());
        }
        let data = DataKey::make()?;
        let sealed = put_key(store.as_ref(), &data, key).await?;
        let head = Head { format: FORMAT, id: HEXLOWER.encode(&random::<8>()?) };
        // Last: an archive without it is none, and this may be tried again.
        match store.put(&name(HEAD)?, json(&head)?).await {
            Ok(()) => Self::open(store, key).await,
            Err(error) => {
                store.remove(&sealed).await?;
                Err(if matches!(error, StoreError::Exists(_)) { taken() } else { error.into() })
            }
        }
    }

    /// Opens one.
    ///
    /// # Errors
    /// There is none, it is newer than this lifeboat, or the key file does not open it.
    pub async fn open(store: Arc<dyn Store>, key: &KeyFile) -> Result<Self, Trouble> {
        let head = name(HEAD)?;
        let text = match store.get(&head, 0..MOST_PLAIN).await {
            Err(StoreError::Missing(_)) => return Err(Trouble::NoArchive(store.place())),
            text => text?,
        };
        let head: Head = parse(&head, &text)?;
        if head.format > FORMAT {
            return Err(Trouble::Newer { place: store.place(), format: head.format, ours: FORMAT });
        }
        let (mut opened, mut closed) = (Vec::new(), Vec::new());
        for (_, wrapped) in wrapped(store.as_ref()).await? {
            match DataKey::unwrap(&wrapped, key) {
                Some(data) => opened.push(data),
                None => closed.push(wrapped),
            }
        }
        closed.retain(|wrapped| opened.iter().all(|data| data.id().to_string() != wrapped.key));
        if let Some(wrapped) = closed.first() {
            return Err(Trouble::Refused(format!(
                "the archive at {} is sealed by the key file {}, and this one is {}",
                store.place(),
                wrapped.by,
                key.id()
            )));
        }
        let none =
            || Trouble::Refused(format!("the archive at {} has no data key: keys/ is empty", store.place()));
        let keys = Arc::new(KeyRing::of(opened).ok_or_else(none)?);
        let store: Arc<dyn Store> = Arc::new(Patience::new(store));
        Ok(Self { store, keys, id: head.id, level: LEVEL })
    }

    /// Lets another key file open it as well. No data is read or written again; what the old one sealed stays until it is
    /// removed with [`Self::forget_key_file`].
    ///
    /// # Errors
    /// The store cannot be used.
    pub async fn admit_key_file(&self, key: &KeyFile) -> Result<(), Trouble> {
        for data in self.keys.iter() {
            put_key(self.store.as_ref(), data, key).await?;
        }
        Ok(())
    }

    /// Whoever has only that key file cannot open the archive any more, once what he may have copied is of no use.
    ///
    /// # Errors
    /// No other key file would open it, or the store cannot be used.
    pub async fn forget_key_file(&self, key: &KeyFile) -> Result<(), Trouble> {
        let by = key.id().to_string();
        let wrapped = wrapped(self.store.as_ref()).await?;
        for (_, sealed) in wrapped.iter().filter(|(_, wrapped)| wrapped.by == by) {
            if !wrapped.iter().any(|(_, other)| other.by != by && other.key == sealed.key) {
                return Err(Trouble::Refused(format!("no other key file opens the data key {}", sealed.key)));
            }
        }
        for (name, _) in wrapped.iter().filter(|(_, wrapped)| wrapped.by == by) {
            self.store.remove(name).await?;
        }
        Ok(())
    }

    /// Compresses what is new so much.
    #[must_use]
    pub fn with_level(mut self, level: i32) -> Self {
        self.level = level;
        self
    }

    /// Where its objects are.
    #[must_use]
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// Its name, which it keeps wherever it is copied to.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    pub(crate) fn keys(&self) -> &Arc<KeyRing> {
        &self.keys
    }

    pub(crate) fn level(&self) -> i32 {
        self.level
    }

    /// One object of one piece, sealed; not written yet.
    pub(crate) fn seal(
        &self,
        name: &ObjectName,
        kind: Kind,
        label: &impl Serialize,
        plain: &[u8],
    ) -> Result<Bytes, Trouble> {
        seal_whole(self.keys.newest(), name, kind, label, self.level, plain)
    }

    /// One object of one piece, new, and durable when this returns.
    pub(crate) async fn write(
        &self,
        name: &ObjectName,
        kind: Kind,
        label: &impl Serialize,
        plain: &[u8],
    ) -> Result<(), Trouble> {
        let object = self.seal(name, kind, label, plain)?;
        Ok(self.store.put(name, object).await?)
    }

    /// What one object of one piece holds, at most `most` bytes: its label, and what it opens to.
    pub(crate) async fn read<L: DeserializeOwned>(
        &self,
        name: &ObjectName,
        kind: Kind,
        most: usize,
    ) -> Result<(L, Vec<u8>), Trouble> {
        // What is sealed is at most a little longer than what it opens to.
        let limit = (most + most / 64 + Opener::PROLOGUE) as u64 + 64 * 1024;
        let object = self.store.get(name, 0..limit).await?;
        let opener = Opener::begin(&self.keys, name, &object)?;
        if opener.kind() != kind {
            return Err(Trouble::damaged(name, "it is of another kind"));
        }
        let plain = opener.whole(&object, most)?;
        Ok((opener.label()?, plain))
    }
}

/// The name of an object that this crate has made up.
pub(crate) fn name(text: &str) -> Result<ObjectName, Trouble> {
    text.parse().map_err(|error| Trouble::Broken(format!("{error}")))
}

async fn put_key(store: &dyn Store, data: &DataKey, key: &KeyFile) -> Result<ObjectName, Trouble> {
    let wrapped = data.wrap(key)?;
    let name = name(&format!("keys/{}.{}.json", wrapped.key, wrapped.by))?;
    match store.put(&name, json(&wrapped)?).await {
        Ok(()) | Err(StoreError::Exists(_)) => Ok(name),
        Err(error) => Err(error.into()),
    }
}

async fn wrapped(store: &dyn Store) -> Result<Vec<(ObjectName, Wrapped)>, Trouble> {
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        let page = store.list("keys/", after.as_ref()).await?;
        let Some(last) = page.last() else { return Ok(found) };
        after = Some(last.name.clone());
        for listed in page {
            let text = store.get(&listed.name, 0..MOST_PLAIN).await?;
            found.push((listed.name.clone(), parse(&listed.name, &text)?));
        }
    }
}

fn json(value: &impl Serialize) -> Result<Bytes, Trouble> {
    let text = serde_json::to_vec_pretty(value);
    Ok(text.map_err(|error| Trouble::Broken(format!("it cannot be written: {error}")))?.into())
}

fn parse<T: DeserializeOwned>(name: &ObjectName, text: &[u8]) -> Result<T, Trouble> {
    serde_json::from_slice(text).map_err(|error| Trouble::damaged(name, error.to_string()))
}
