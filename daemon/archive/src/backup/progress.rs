//! What a run has stored until now, so that the next one need not store it again if this one dies.
//!
//! `progress-00001` and so on, beside the packs, each one object: a line with the origins, then a line for each file that is
//! done since the one before: its line of the listing, and its fingerprints. Once there is a manifest they are garbage.
//!
//! **Invariant:** what a progress names is in packs that were durable before it was written.
//! **Invariant:** nothing depends on it: what cannot be read of it is stored again.

use std::collections::VecDeque;
use std::sync::Arc;

use data_encoding::HEXLOWER;
use lifeboat_core::SystemIdentifier;
use serde::{Deserialize, Serialize};
use tokio::task::JoinHandle;

use super::previous::Prior;
use crate::archive::Archive;
use crate::manifest::catalog::{State, catalog};
use crate::manifest::tree::{Extent, FileEntry, TreePath};
use crate::manifest::{BackupId, Origin, object_name, packs_of};
use crate::object::Kind;
use crate::stream::{FRAME, PACK_FRAMES};
use crate::trouble::Trouble;

/// The longest progress.
const LONGEST: usize = 16 << 20;

/// The lines of so many bytes, together, are worth a progress.
const WORTH: usize = 2 << 20;

/// More is not kept for the next progress while one is being written.
const MOST_WAITING: usize = 6 << 20;

/// So many dead runs are looked at.
const MOST_DEAD: usize = 3;

#[derive(Serialize, Deserialize)]
struct Label {
    backup: BackupId,
    progress: u32,
}

#[derive(Serialize, Deserialize)]
struct Head {
    prints_key: String,
    origins: Vec<Origin>,
}

#[derive(Serialize, Deserialize)]
struct Line {
    file: FileEntry,
    prints: String,
}

/// What is done and not yet in a progress.
#[derive(Default)]
pub(super) struct Progress {
    /// Up to where in the stream of data each needs to be durable, and its line.
    waiting: VecDeque<(u64, Vec<u8>)>,
    weight: usize,
    written: u32,
    task: Option<JoinHandle<()>>,
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

impl Progress {
    /// A file is done.
    pub(super) fn done(&mut self, file: &FileEntry, prints: &[u8]) {
        // What is all in earlier backups is found there again.
        let own = file.data.iter().filter(|extent| extent.0 == 0).map(|extent| extent.1 + extent.2).max();
        let Some(end) = own else { return };
        let line =
            Line { file: FileEntry { prints: Vec::new(), ..file.clone() }, prints: HEXLOWER.encode(prints) };
        let Ok(mut line) = serde_json::to_vec(&line) else { return };
        line.push(b'\n');
        if self.weight + line.len() <= MOST_WAITING {
            self.weight += line.len();
            self.waiting.push_back((end, line));
        }
    }

    /// Writes a progress, beside everything else, when it is worth it and none is being written.
    pub(super) fn save(
        &mut self,
        archive: &Archive,
        of: (SystemIdentifier, &BackupId),
        prints_key: &str,
        origins: &[Origin],
        packs: u64,
    ) {
        let busy = self.task.as_ref().is_some_and(|task| !task.is_finished());
        if busy || self.weight < WORTH {
            return;
        }
        let durable = packs * FRAME as u64 * PACK_FRAMES;
        let mut origins = origins.to_vec();
        if let Some(own) = origins.first_mut() {
            own.data.length = durable;
        }
        let Ok(mut text) = serde_json::to_vec(&Head { prints_key: prints_key.to_owned(), origins }) else {
            return;
        };
        text.push(b'\n');
        let head = text.len();
        // Files are done in the order of the stream.
        while let Some((end, line)) = self.waiting.front() {
            if *end > durable || text.len() + line.len() > LONGEST {
                break;
            }
            text.extend_from_slice(line);
            self.weight -= line.len();
            self.waiting.pop_front();
        }
        if text.len() == head {
            return;
        }
        self.written += 1;
        let (archive, system, backup, number) = (archive.clone(), of.0, of.1.clone(), self.written);
        self.task = Some(tokio::spawn(async move {
            if let Err(error) = write(&archive, system, backup, number, &text).await {
                tracing::debug!(%error, "how far the backup is was not written down");
            }
        }));
    }
}

fn object(number: u32) -> String {
    format!("progress-{number:05}")
}

async fn write(
    archive: &Archive,
    system: SystemIdentifier,
    backup: BackupId,
    number: u32,
    text: &[u8],
) -> Result<(), Trouble> {
    archive.store().settle().await?;
    let name = object_name(system, &backup, &object(number))?;
    archive.write(&name, Kind::Report, &Label { backup, progress: number }, text).await
}

/// What a dead run has stored: its files by a digest of their places, and where their lines are.
pub(super) struct Dead {
    archive: Archive,
    system: SystemIdentifier,
    backup: BackupId,
    index: Vec<(u64, u32, usize)>,
    /// The progress that was read last.
    last: Option<(u32, Arc<Vec<Origin>>, Vec<u8>)>,
}

/// The runs that began after the last backup and were never finished, newest first.
pub(super) async fn dead(
    archive: &Archive,
    system: SystemIdentifier,
    after: Option<&BackupId>,
    prints_key: &str,
) -> Result<Vec<Dead>, Trouble> {
    let mut found = Vec::new();
    let listed = catalog(archive, system).await?;
    let newer = |backup: &BackupId| after.is_none_or(|after| backup > after);
    let unfinished = listed.iter().rev().filter(|listed| listed.state == State::Unfinished);
    for listed in unfinished.filter(|listed| newer(&listed.backup)).take(MOST_DEAD) {
        let backup = listed.backup.clone();
        let mut dead = Dead { archive: archive.clone(), system, backup, index: Vec::new(), last: None };
        dead.read(prints_key).await;
        if !dead.index.is_empty() {
            tracing::info!(backup = %dead.backup, files = dead.index.len(), "goes on from where it was");
            found.push(dead);
        }
    }
    Ok(found)
}

impl Dead {
    async fn read(&mut self, prints_key: &str) {
        for number in 1.. {
            let Ok((head, text)) = self.part(number).await else { break };
            if head.prints_key != prints_key {
                break;
            }
            let mut at = text.iter().position(|byte| *byte == b'\n').map_or(text.len(), |at| at + 1);
            for line in text[at..].split_inclusive(|byte| *byte == b'\n') {
                if let Ok(Line { file, .. }) = serde_json::from_slice(line) {
                    self.index.push((super::previous::hash(file.tablespace, &file.path), number, at));
                }
                at += line.len();
            }
        }
        self.index.sort_unstable();
    }

    async fn part(&self, number: u32) -> Result<(Head, Vec<u8>), Trouble> {
        let name = object_name(self.system, &self.backup, &object(number))?;
        let (label, text) = self.archive.read::<Label>(&name, Kind::Report, LONGEST).await?;
        let line = text.split(|byte| *byte == b'\n').next().unwrap_or_default();
        let wrong = |error| Trouble::Broken(format!("{name}: {error}"));
        let head: Head = serde_json::from_slice(line).map_err(wrong)?;
        let own = head.origins.first().is_some_and(|own| own.backup == self.backup);
        if own && label.backup == self.backup && label.progress == number {
            Ok((head, text))
        } else {
            Err(Trouble::Broken(format!("{name} is another one")))
        }
    }

    /// What it has in that place.
    pub(super) async fn find(&mut self, tablespace: Option<u32>, path: &TreePath) -> Option<Prior> {
        let wanted = super::previous::hash(tablespace, path);
        let from = self.index.partition_point(|(hash, _, _)| *hash < wanted);
        let (_, number, at) = *self.index.get(from).filter(|(hash, _, _)| *hash == wanted)?;
        if self.last.as_ref().is_none_or(|(have, _, _)| *have != number) {
            let (head, text) = self.part(number).await.ok()?;
            self.last = Some((number, Arc::new(head.origins), text));
        }
        let (_, origins, text) = self.last.as_ref()?;
        let line = text.get(at..)?.split(|byte| *byte == b'\n').next()?;
        let Line { file, prints } = serde_json::from_slice(line).ok()?;
        let prints = HEXLOWER.decode(prints.as_bytes()).ok()?;
        let fits = |Extent(origin, offset, length): &Extent| {
            let within = |origin: &Origin| {
                offset.checked_add(*length).is_some_and(|end| *length > 0 && end <= origin.data.length)
            };
            origins.get(*origin as usize).is_some_and(within)
        };
        let good = file.tablespace == tablespace
            && file.path == *path
            && file.data.iter().all(fits)
            && packs_of(file.size) <= u64::from(u32::MAX);
        good.then(|| Prior::remembered(origins.clone(), file.data, prints))
    }
}
