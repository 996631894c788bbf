//! Which backups there are: by listing, and by the first bytes of each manifest.
//!
//! **Invariant:** a backup that can be seen is listed: finished, damaged or unfinished, never left out.

use lifeboat_core::SystemIdentifier;
use lifeboat_engine::ports::StoreError;

use super::{BackupId, LONGEST_MANIFEST, Manifest, PointLabel, system_folder};
use crate::archive::{Archive, name};
use crate::object::{Kind, Opener};
use crate::trouble::Trouble;

/// How much of a manifest is read: most are shorter, and are proven whole by it.
const FIRST: u64 = 64 << 10;

/// Comes after every name that an object of a backup has.
const LAST: &str = "zzzzzzzz";

/// A backup in the catalog.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Catalogued {
    /// Its name.
    pub backup: BackupId,
    /// What is known of it.
    pub state: State,
}

/// What is known of a backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// It was finished.
    Finished(Box<PointLabel>),
    /// It was finished, and its manifest is not what it was.
    Damaged(String),
    /// It has objects and no manifest: it is being made, or its maker is gone.
    Unfinished,
}

impl Catalogued {
    /// The label, where there is one.
    #[must_use]
    pub fn label(&self) -> Option<&PointLabel> {
        match &self.state {
            State::Finished(label) => Some(label),
            State::Damaged(_) | State::Unfinished => None,
        }
    }
}

/// The systems that have backups.
///
/// # Errors
/// The store cannot be listed.
pub async fn systems(archive: &Archive) -> Result<Vec<SystemIdentifier>, Trouble> {
    let found = parts(archive, "backups/").await?;
    Ok(found
        .iter()
        .filter_map(|part| u64::from_str_radix(part, 16).ok())
        .map(SystemIdentifier::new)
        .collect())
}

/// The backups of a system, oldest first.
///
/// # Errors
/// The store cannot be listed or read.
pub async fn catalog(archive: &Archive, system: SystemIdentifier) -> Result<Vec<Catalogued>, Trouble> {
    let mut found = Vec::new();
    for part in parts(archive, &system_folder(system)).await? {
        let Ok(backup) = part.parse::<BackupId>() else { continue };
        let state = match label(archive, system, &backup).await {
            Ok(Some(label)) => State::Finished(Box::new(label)),
            Ok(None) => State::Unfinished,
            // Where the store does not answer nothing is known, and nothing is said.
            Err(Trouble::Store(error)) if error.passing() => return Err(error.into()),
            Err(error) => State::Damaged(error.to_string()),
        };
        found.push(Catalogued { backup, state });
    }
    Ok(found)
}

/// The next parts of the names of objects that begin so: each once, in order, without asking for every object.
async fn parts(archive: &Archive, under: &str) -> Result<Vec<String>, Trouble> {
    let (mut found, mut after) = (Vec::<String>::new(), None);
    loop {
        let page = archive.store().list(under, after.as_ref()).await?;
        if page.is_empty() {
            return Ok(found);
        }
        for listed in &page {
            let rest = listed.name.as_str().strip_prefix(under).unwrap_or_default();
            let part = rest.split_once('/').map_or(rest, |(part, _)| part);
            if found.last().is_none_or(|last| last != part) {
                found.push(part.to_owned());
            }
        }
        let last = found.last().cloned().unwrap_or_default();
        after = Some(name(&format!("{under}{last}/{LAST}"))?);
    }
}

async fn label(
    archive: &Archive,
    system: SystemIdentifier,
    backup: &BackupId,
) -> Result<Option<PointLabel>, Trouble> {
    let object = Manifest::object(system, backup)?;
    let bytes = match archive.store().get(&object, 0..FIRST).await {
        Err(StoreError::Missing(_)) => return Ok(None),
        bytes => bytes?,
    };
    let opener = Opener::begin(archive.keys(), &object, &bytes)?;
    let label: PointLabel = opener.label()?;
    if opener.kind() != Kind::Manifest || label.backup != *backup || label.system != system {
        return Err(Trouble::damaged(&object, "it is another object: its label has another backup"));
    }
    // The label is proven by anything that opens.
    if (bytes.len() as u64) < FIRST {
        Manifest::signed(archive, &object, &opener.whole(&bytes, LONGEST_MANIFEST)?)?;
    } else {
        let rest = bytes.get(opener.prologue()..).unwrap_or_default();
        let length = rest.first_chunk::<4>().map_or(0, |length| u32::from_le_bytes(*length) as usize);
        if let Some(frame) = rest.get(..length.saturating_add(8)) {
            opener.frame(0, frame)?;
        }
    }
    Ok(Some(label))
}
