//! The pieces of a segment that is whole are removed.
//!
//! **Invariant:** a piece is removed only when its bytes were found in its segment.

use std::time::Duration;

use lifeboat_core::{Moment, SystemIdentifier};
use lifeboat_engine::ports::{ObjectName, StoreError};

use super::fetch::whole;
use super::names::{Entry, SegmentName, entry, system_folder};
use super::objects::WalLabel;
use crate::archive::Archive;
use crate::object::Kind;
use crate::trouble::Trouble;

/// What was done.
#[derive(Debug, Default)]
pub struct Tidied {
    /// So many pieces were removed.
    pub removed: usize,
    /// Those that hold something else than their segment, or are damaged: they are left for a person to look at.
    pub kept: Vec<Trouble>,
}

/// Removes the pieces of every segment that is whole for `grace` or longer: whoever is just reading them has that long.
///
/// # Errors
/// The archive cannot be read, or a segment is damaged.
pub async fn tidy(
    archive: &Archive,
    system: SystemIdentifier,
    grace: Duration,
    now: Moment,
) -> Result<Tidied, Trouble> {
    let (under, mut after) = (system_folder(system), None::<ObjectName>);
    let mut tidied = Tidied::default();
    // The last segment that was seen whole, long enough ago; its bytes once a piece of it was seen.
    let mut last: Option<(SegmentName, Option<Vec<u8>>)> = None;
    loop {
        let page = archive.store().list(&under, after.as_ref()).await?;
        let Some(end) = page.last() else { return Ok(tidied) };
        after = Some(end.name.clone());
        for listed in page {
            match entry(&listed.name) {
                Some(Entry::Segment(segment)) if now.since(listed.written) >= grace => {
                    last = Some((segment, None));
                }
                Some(Entry::Piece { segment, from, to }) => {
                    let Some((_, bytes)) = last.as_mut().filter(|(have, _)| *have == segment) else {
                        continue;
                    };
                    if bytes.is_none() {
                        *bytes = whole(archive, system, segment).await?.map(|(plain, _)| plain);
                    }
                    let part = bytes.as_ref().and_then(|bytes| bytes.get(from as usize..to as usize));
                    match compare(archive, &listed.name, part).await {
                        Ok(()) => {
                            archive.store().remove(&listed.name).await?;
                            tidied.removed += 1;
                        }
                        Err(Trouble::Store(StoreError::Missing(_))) => {}
                        Err(trouble @ (Trouble::Damaged { .. } | Trouble::Conflict { .. })) => {
                            tidied.kept.push(trouble);
                        }
                        Err(trouble) => return Err(trouble),
                    }
                }
                _ => {}
            }
        }
    }
}

async fn compare(archive: &Archive, name: &ObjectName, part: Option<&[u8]>) -> Result<(), Trouble> {
    let conflict = |what: &str| Trouble::Conflict { name: name.clone(), what: what.to_owned() };
    let part = part.ok_or_else(|| conflict("it reaches beyond its segment"))?;
    let (_, plain) = archive.read::<WalLabel>(name, Kind::Piece, part.len()).await?;
    if plain == part { Ok(()) } else { Err(conflict("its segment has other bytes there")) }
}
