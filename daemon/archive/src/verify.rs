//! Is what was stored still there, and still what it was?
//!
//! **Invariant:** every object that a backup needs is looked for; every one that is read is opened frame by frame, under its own
//! name, and must be exactly what its place in the stream asks for.
//! **Invariant:** what is wrong is named once, with every backup that it spoils. A store that does not answer is no finding.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use lifeboat_core::SystemIdentifier;
use lifeboat_engine::ports::{ObjectName, StoreError};
use serde::Serialize;
use tokio::task::JoinSet;

use crate::archive::Archive;
use crate::manifest::catalog::{State, catalog};
use crate::manifest::listing::Listing;
use crate::manifest::{BackupId, Manifest, system_folder};
use crate::pack::{LONGEST_PACK, Source, Tables, pack_whole};
use crate::stream::Stream;
use crate::trouble::Trouble;

/// Packs that are read at once: each is in memory whole.
const AT_ONCE: usize = 4;

/// What is looked at.
#[derive(Clone, Debug, Default)]
pub struct Scope {
    /// Only these backups; none: all of the system.
    pub backups: Option<BTreeSet<BackupId>>,
    /// Only a part of the packs is read; all are looked for.
    pub sample: Option<Sample>,
}

/// A part of all packs: another part for another seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// So many of a million.
    pub millionths: u32,
    /// Which.
    pub seed: u64,
}

impl Sample {
    fn has(self, name: &ObjectName) -> bool {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.seed.to_le_bytes()).update(name.as_str().as_bytes());
        let drawn = hasher.finalize().as_bytes().first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
        drawn % 1_000_000 < u64::from(self.millionths)
    }
}

/// In what way an object is not what it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fault {
    /// It is not there.
    Missing,
    /// It is cut, changed, or another one.
    Damaged,
    /// It needs a data key that the key file does not open.
    NoKey,
    /// The store has it and does not give it.
    Unreadable,
}

/// An object that is not what it should be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Which.
    pub object: String,
    /// In what way.
    pub fault: Fault,
    /// The same, for people.
    pub why: String,
    /// The backups that need it. What holds fingerprints (`prints-…`) is not needed to restore, only to compare.
    pub backups: Vec<BackupId>,
}

/// What was found out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Verified {
    /// Backups that were looked at.
    pub backups: u64,
    /// Objects that they need.
    pub objects: u64,
    /// How many of them were read.
    pub read: u64,
    /// How many bytes that were, as stored.
    pub bytes: u64,
    /// What is wrong, in the order of names.
    pub findings: Vec<Finding>,
}

/// A pack that backups need.
struct Needed {
    source: Source,
    pack: u32,
    by: Vec<BackupId>,
}

/// What was found until now, by object.
#[derive(Default)]
struct Found(BTreeMap<ObjectName, Finding>);

impl Found {
    /// Puts an error down as a finding.
    ///
    /// # Errors
    /// It says nothing about an object.
    fn put(&mut self, error: Trouble, by: &[BackupId]) -> Result<(), Trouble> {
        let why = error.to_string();
        // A format that nobody knows yet is more likely a byte that was changed; its name is told as its place.
        let newer = match &error {
            Trouble::Newer { place, .. } => place.parse::<ObjectName>().ok(),
            _ => None,
        };
        let (object, fault) = match error {
            Trouble::Store(error) if error.passing() => return Err(error.into()),
            Trouble::Store(StoreError::Missing(name)) => (name, Fault::Missing),
            Trouble::Damaged { name, .. } => (name, Fault::Damaged),
            Trouble::NoKey { name, .. } => (name, Fault::NoKey),
            Trouble::Unreadable { name, .. } => (name, Fault::Unreadable),
            error => match newer {
                Some(name) => (name, Fault::Damaged),
                None => return Err(error),
            },
        };
        let new = || Finding { object: object.to_string(), fault, why, backups: Vec::new() };
        let finding = self.0.entry(object.clone()).or_insert_with(new);
        for backup in by {
            if let Err(at) = finding.backups.binary_search(backup) {
                finding.backups.insert(at, backup.clone());
            }
        }
        Ok(())
    }
}

/// Reads what the backups of a system are made of.
///
/// # Errors
/// The store does not answer. What is wrong with objects is no error: it is what is returned.
pub async fn verify(
    archive: &Archive,
    system: SystemIdentifier,
    scope: &Scope,
    watcher: Arc<dyn Fn(u64, u64) + Send + Sync>,
) -> Result<Verified, Trouble> {
    let mut verified = Verified::default();
    let mut found = Found::default();
    let mut needed: BTreeMap<ObjectName, Needed> = BTreeMap::new();
    for listed in catalog(archive, system).await? {
        let wanted = scope.backups.as_ref().is_none_or(|wanted| wanted.contains(&listed.backup));
        if !wanted || listed.state == State::Unfinished {
            continue;
        }
        verified.backups += 1;
        verified.objects += 1;
        if let Err(error) = Box::pin(manifest(archive, system, &listed.backup, &mut needed)).await {
            found.put(error, std::slice::from_ref(&listed.backup))?;
        }
    }
    verified.objects += needed.len() as u64;
    let present = present(archive, system).await?;
    let all = needed.len() as u64;
    let mut work = JoinSet::new();
    for (name, need) in needed {
        if !present.contains(&name) {
            found.put(StoreError::Missing(name).into(), &need.by)?;
            continue;
        }
        if scope.sample.is_some_and(|sample| !sample.has(&name)) {
            continue;
        }
        if work.len() >= AT_ONCE {
            took(&mut work, &mut verified, &mut found).await?;
            watcher(verified.read, all);
        }
        work.spawn(pack(archive.clone(), name, need));
    }
    while !work.is_empty() {
        took(&mut work, &mut verified, &mut found).await?;
        watcher(verified.read, all);
    }
    verified.findings = found.0.into_values().collect();
    Ok(verified)
}

type Read = (Result<u64, Trouble>, Vec<BackupId>);

async fn took(work: &mut JoinSet<Read>, verified: &mut Verified, found: &mut Found) -> Result<(), Trouble> {
    let Some(ended) = work.join_next().await else { return Ok(()) };
    let (read, by) = ended.map_err(|error| Trouble::Broken(format!("the reading of a pack: {error}")))?;
    verified.read += 1;
    match read {
        Ok(bytes) => verified.bytes += bytes,
        Err(error) => found.put(error, &by)?,
    }
    Ok(())
}

/// Reads a manifest and its listing, and puts down what they need.
async fn manifest(
    archive: &Archive,
    system: SystemIdentifier,
    backup: &BackupId,
    needed: &mut BTreeMap<ObjectName, Needed>,
) -> Result<(), Trouble> {
    let manifest = Manifest::read(archive, system, backup).await?;
    manifest.each_pack(|name, of, stream, pack| {
        let length = match stream {
            Stream::List => manifest.list,
            stream => {
                let origin = manifest.origins.iter().find(|origin| origin.backup == *of);
                origin.map_or(0, |origin| origin.used(stream).length)
            }
        };
        let new = || Needed { source: Source { backup: of.clone(), stream, length }, pack, by: Vec::new() };
        needed.entry(name).or_insert_with(new).by.push(backup.clone());
    })?;
    let mut listing = Listing::new(&manifest, &Tables::new(archive, system));
    while listing.next().await?.is_some() {}
    Ok(())
}

/// The names of all objects of the system's backups.
async fn present(archive: &Archive, system: SystemIdentifier) -> Result<BTreeSet<ObjectName>, Trouble> {
    let (mut found, mut after) = (BTreeSet::new(), None);
    loop {
        let page = archive.store().list(&system_folder(system), after.as_ref()).await?;
        let Some(last) = page.last() else { return Ok(found) };
        after = Some(last.name.clone());
        found.extend(page.into_iter().map(|listed| listed.name));
    }
}

async fn pack(archive: Archive, name: ObjectName, need: Needed) -> Read {
    let Needed { source, pack, by } = need;
    let object = match archive.store().get(&name, 0..LONGEST_PACK + 1).await {
        Ok(object) => object,
        Err(error) if error.passing() || matches!(error, StoreError::Missing(_)) => {
            return (Err(error.into()), by);
        }
        Err(error) => return (Err(Trouble::Unreadable { name, why: error.to_string() }), by),
    };
    let keys = archive.keys().clone();
    let opened = tokio::task::spawn_blocking(move || {
        pack_whole(&keys, &name, &source, pack, &object).map(|()| object.len() as u64)
    });
    let opened = opened.await.map_err(|error| Trouble::Broken(format!("the opening of a pack: {error}")));
    (opened.flatten(), by)
}
