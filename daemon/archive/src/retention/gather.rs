//! What is in an archive, read for a plan; and a plan, carried out.
//!
//! **Invariant:** with a manifest that cannot be read nothing is removed: what it needs is not known.
//! **Invariant:** manifests go first. A removal that is broken off leaves no backup that is not whole.

use std::collections::{BTreeMap, BTreeSet};

use lifeboat_core::{Lsn, Moment, SystemIdentifier, Timeline};
use lifeboat_engine::ports::{Listed, ObjectName, StoreError};

use super::{Branch, Gone, Holdings, Log, Part, Plan, Point};
use crate::archive::Archive;
use crate::manifest::{BackupId, Manifest};
use crate::trouble::Trouble;
use crate::wal::{SegmentName, SegmentSize, survey};

/// What was found.
#[derive(Debug, Default)]
pub struct Gathered {
    /// What a plan is made from.
    pub holdings: Holdings,
    /// The backups that were finished, oldest first.
    pub manifests: Vec<Manifest>,
    /// Backups whose manifest cannot be read, with why.
    pub unreadable: Vec<(String, Trouble)>,
    /// How long each object is.
    pub sizes: BTreeMap<ObjectName, u64>,
}

/// What was removed.
#[derive(Debug, Default)]
pub struct Removed {
    /// So many objects.
    pub objects: u64,
    /// So many bytes.
    pub bytes: u64,
    /// What the store did not remove, with why: what is locked is removed by a later run.
    pub left: Vec<(ObjectName, StoreError)>,
}

/// Lists an archive, and reads its manifests and histories.
///
/// # Errors
/// It cannot be listed, or a history cannot be read.
pub async fn gather(archive: &Archive) -> Result<Gathered, Trouble> {
    let mut found = Gathered::default();
    let mut sizes: BTreeMap<SystemIdentifier, SegmentSize> = BTreeMap::new();
    for listed in list(archive, "backups/").await? {
        let Some((system, id, last)) = part(&listed.name) else { continue };
        found.sizes.insert(listed.name.clone(), listed.size);
        if last == "manifest" {
            match Manifest::read(archive, system, &id).await {
                Ok(manifest) => found.manifests.push(manifest),
                Err(trouble @ Trouble::Store(_)) => return Err(trouble),
                Err(trouble) => found.unreadable.push((id.to_string(), trouble)),
            }
        }
        let (name, backup) = (listed.name, id.to_string());
        found.holdings.parts.push(Part { name, backup, system, written: listed.written });
    }
    for manifest in &found.manifests {
        let point = point(manifest)?;
        sizes.extend(SegmentSize::new(manifest.point.segment_size).map(|size| (point.system, size)));
        found.holdings.points.push(point);
    }
    let mut histories = Vec::new();
    for listed in list(archive, "wal/").await? {
        found.sizes.insert(listed.name.clone(), listed.size);
        match log(&listed, &sizes) {
            Some(log) => found.holdings.log.push(log),
            None => histories.extend(history(&listed)),
        }
    }
    let systems: BTreeSet<SystemIdentifier> = histories.iter().map(|(system, ..)| *system).collect();
    for system in systems {
        let map = survey(archive, system).await?;
        for (_, timeline, written) in histories.iter().filter(|(of, ..)| *of == system) {
            let known = map.timelines.get(timeline).and_then(|found| found.history.as_ref()?.last().copied());
            found.holdings.branches.extend(known.map(|branch| Branch {
                system,
                timeline: *timeline,
                parent: branch.parent,
                at: branch.at,
                written: *written,
            }));
        }
    }
    found.manifests.sort_by_key(|manifest| (manifest.ended, manifest.backup.clone()));
    Ok(found)
}

/// Removes what the plan says, in its order.
///
/// # Errors
/// The store cannot be used. What it refuses to remove is told in [`Removed::left`], unless it is a manifest: then nothing
/// of that backup may go.
pub async fn carry_out(
    archive: &Archive,
    plan: &Plan,
    sizes: &BTreeMap<ObjectName, u64>,
) -> Result<Removed, Trouble> {
    let mut removed = Removed::default();
    for (name, why) in &plan.remove {
        match archive.store().remove(name).await {
            Ok(()) => {
                removed.objects += 1;
                removed.bytes += sizes.get(name).copied().unwrap_or_default();
            }
            Err(error @ StoreError::Denied(_)) if *why != Gone::Expired => {
                removed.left.push((name.clone(), error));
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(removed)
}

async fn list(archive: &Archive, under: &str) -> Result<Vec<Listed>, Trouble> {
    let (mut found, mut after) = (Vec::new(), None::<ObjectName>);
    loop {
        let page = archive.store().list(under, after.as_ref()).await?;
        let Some(last) = page.last() else { return Ok(found) };
        after = Some(last.name.clone());
        found.extend(page);
    }
}

fn system(text: &str) -> Option<SystemIdentifier> {
    (text.len() == 16).then(|| u64::from_str_radix(text, 16).ok()).flatten().map(SystemIdentifier::new)
}

/// `backups/SYSTEM/BACKUP/…`
fn part(name: &ObjectName) -> Option<(SystemIdentifier, BackupId, &str)> {
    let mut parts = name.as_str().split('/').skip(1);
    let (of, id, last) = (parts.next()?, parts.next()?, parts.next()?);
    parts.next().is_none().then_some(())?;
    Some((system(of)?, id.parse().ok()?, last))
}

fn point(manifest: &Manifest) -> Result<Point, Trouble> {
    let needs = manifest.objects()?;
    // The manifest is the last of them.
    let own = needs.last().cloned().ok_or_else(|| Trouble::Broken("a backup of nothing".to_owned()))?;
    Ok(Point {
        id: manifest.backup.to_string(),
        of: (manifest.point.workload.clone(), manifest.point.database.clone()),
        system: manifest.point.system,
        start: manifest.point.start,
        timeline: manifest.point.timeline,
        end: manifest.end,
        end_timeline: manifest.end_timeline,
        begun: manifest.point.begun,
        ended: manifest.ended,
        good: manifest.bad_page_count == 0,
        verified: false,
        manifest: own,
        needs: needs.into_iter().collect(),
    })
}

/// `wal/SYSTEM/TIMELINE/SEGMENT` and `….FROM-TO`, of a cluster whose segments' length is known.
fn log(listed: &Listed, sizes: &BTreeMap<SystemIdentifier, SegmentSize>) -> Option<Log> {
    let mut parts = listed.name.as_str().split('/').skip(1);
    let (of, _, last) = (parts.next()?, parts.next()?, parts.next()?);
    let of = system(of)?;
    let size = *sizes.get(&of)?;
    let (segment, rest) = last.split_at_checked(24)?;
    let segment = SegmentName::parse(segment)?;
    let start = segment.start(size)?;
    let word = |text: &str| (text.len() == 8).then(|| u64::from_str_radix(text, 16).ok()).flatten();
    let (from, to) = match rest.strip_prefix('.') {
        None if rest.is_empty() => (0, size.bytes()),
        rest => {
            let (from, to) = rest?.split_once('-')?;
            (word(from)?, word(to)?)
        }
    };
    (from < to && to <= size.bytes()).then(|| Log {
        name: listed.name.clone(),
        system: of,
        timeline: segment.timeline(),
        segment: start,
        from: Lsn::new(start.get() + from),
        to: Lsn::new(start.get() + to),
        whole: rest.is_empty(),
        written: listed.written,
    })
}

/// `wal/SYSTEM/TIMELINE.history`
fn history(listed: &Listed) -> Option<(SystemIdentifier, Timeline, Moment)> {
    let mut parts = listed.name.as_str().split('/').skip(1);
    let (of, last) = (system(parts.next()?)?, parts.next()?);
    let digits = last.strip_suffix(".history").filter(|digits| digits.len() == 8)?;
    let timeline = u32::from_str_radix(digits, 16).ok()?;
    Some((of, Timeline::new(timeline), listed.written))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(name: &str) -> Listed {
        Listed { name: name.parse().unwrap(), size: 1, written: Moment::default() }
    }

    #[test]
    fn objects_are_known_by_their_names() {
        let own = "backups/00000000000000aa/20261121T091446Z-0a1b2c/data-00001".parse().unwrap();
        let (of, id, last) = part(&own).unwrap();
        assert_eq!((of.get(), id.as_str(), last), (0xaa, "20261121T091446Z-0a1b2c", "data-00001"));
        let sizes = BTreeMap::from([(SystemIdentifier::new(0xaa), SegmentSize::DEFAULT)]);
        let of = |text: &str| log(&listed(&format!("wal/{text}")), &sizes);
        let whole = of("00000000000000aa/00000002/000000020000000000000003").unwrap();
        assert_eq!((whole.from.get(), whole.to.get(), whole.whole), (3 << 24, 4 << 24, true));
        let piece = of("00000000000000aa/00000002/000000020000000000000003.00000010-00000020").unwrap();
        assert_eq!((piece.from.get(), piece.to.get(), piece.whole), ((3 << 24) + 16, (3 << 24) + 32, false));
        assert_eq!((piece.segment.get(), piece.timeline.get()), (3 << 24, 2));
        for other in [
            "00000000000000ab/00000002/000000020000000000000003",
            "00000000000000aa/00000002/000000020000000000000003.partial",
            "00000000000000aa/00000002/000000020000000000000003.00000020-00000010",
            "00000000000000aa/00000002.history",
        ] {
            assert_eq!(of(other), None, "{other}");
        }
        let found = history(&listed("wal/00000000000000aa/00000002.history")).unwrap();
        assert_eq!((found.0.get(), found.1.get()), (0xaa, 2));
    }
}
