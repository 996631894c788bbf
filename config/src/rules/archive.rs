//! Archives and backups: what is written is kept where it survives, and within what was promised.

use std::collections::{BTreeMap, BTreeSet};

use super::Review;
use crate::archive::{ArchivePlace, LONGEST_SLOT};
use crate::document::archive::{Archive, Backup};
use crate::document::workload::{Database, Workload};
use crate::form::shown;
use crate::place::Place;
use crate::rule::Rule;
use crate::shape::nearest;

pub(super) fn check(review: &mut Review<'_, '_>) {
    let document = review.document;
    let top = Place::top().key("archive");
    let names =
        document.archives.iter().enumerate().map(|(n, a)| (a.name.as_str(), top.index(n).key("name")));
    review.unique("archives", names);
    let mut places: BTreeMap<&ArchivePlace, &str> = BTreeMap::new();
    for (n, archive) in document.archives.iter().enumerate() {
        let at = top.index(n);
        if let Some(other) = places.insert(&archive.place, archive.name.as_str()) {
            let message = format!("`{other}` and `{}` are in the same place", archive.name);
            review.report(Rule::RepeatedArchive, &at.key("place"), message, "one archive in each place");
        }
        check_store(review, archive, &at);
    }
    let used: BTreeSet<&str> = document.workloads.iter().flat_map(used).collect();
    let each = document.workloads.iter().flat_map(|w| &w.databases);
    let everywhere = each.clone().any(to_all);
    for (n, archive) in document.archives.iter().enumerate() {
        if !everywhere && !used.contains(archive.name.as_str()) {
            let message = format!("no database is backed up to `{}`", archive.name);
            let help = "name it in a [[workload.database.backup]], or remove it";
            review.report(Rule::ArchiveUnused, &top.index(n).key("name"), message, help);
        }
    }
    for (w, workload) in document.workloads.iter().enumerate() {
        for (d, database) in workload.databases.iter().enumerate() {
            let at = Place::top().key("workload").index(w).key("database").index(d).key("backup");
            check_database(review, workload, database, &at);
        }
    }
}

/// Whether something of a database goes to every archive.
fn to_all(database: &Database) -> bool {
    database.backup.as_ref().is_none_or(|all| all.iter().any(|backup| backup.archives.is_none()))
}

fn used(workload: &Workload) -> impl Iterator<Item = &str> {
    let backups = workload.databases.iter().filter_map(|d| d.backup.as_ref()).flatten();
    backups.filter_map(|b| b.archives.as_ref()).flatten().map(crate::form::Label::as_str)
}

fn check_store(review: &mut Review<'_, '_>, archive: &Archive, at: &Place) {
    let (s3, gs) =
        (matches!(archive.place, ArchivePlace::S3(_)), matches!(archive.place, ArchivePlace::Gs(_)));
    let unused = [
        ("endpoint", !s3 && !gs && archive.endpoint.is_some()),
        ("region", !s3 && archive.region.is_some()),
        ("path_style", !s3 && archive.path_style.is_some()),
        ("access_key_file", !s3 && archive.access_key_file.is_some()),
        ("secret_key_file", !s3 && archive.secret_key_file.is_some()),
        ("credentials_file", !gs && archive.credentials_file.is_some()),
    ];
    for (key, _) in unused.into_iter().filter(|(_, unused)| *unused) {
        let message = format!("`{key}` means nothing for an archive at `{}`", archive.place);
        review.report(Rule::StoreKeyUnused, &at.key(key).name(), message, "remove it");
    }
    if archive.access_key_file.is_some() != archive.secret_key_file.is_some() {
        let message = format!("only half of what `{}` is logged in to with is written", archive.name);
        let help = "give `access_key_file` and `secret_key_file`, or neither";
        review.report(Rule::CredentialIncomplete, at, message, help);
    }
    if let ArchivePlace::Folder(folder) = &archive.place
        && archive.key_file.as_path().starts_with(folder)
    {
        let message = format!("the key of `{}` is in the archive that it opens", archive.name);
        let help =
            "whoever has the archive could read it, and whoever loses it loses both: keep the key elsewhere";
        review.report(Rule::KeyInArchive, &at.key("key_file"), message, help);
    }
}

fn check_database(review: &mut Review<'_, '_>, workload: &Workload, database: &Database, at: &Place) {
    let known: Vec<&str> = review.document.archives.iter().map(|a| a.name.as_str()).collect();
    let Some(backups) = &database.backup else { return };
    let mut seen = BTreeSet::new();
    for (n, backup) in backups.iter().enumerate() {
        let here = at.index(n);
        if known.is_empty() {
            let message = format!("there is no archive that `{}` could be backed up to", database.name);
            let help = "declare one: [[archive]] with `name`, `place` and `key_file`";
            review.report(Rule::BackupWithoutArchive, &here, message, help);
            continue;
        }
        let own = backup.archives.iter().flatten().enumerate();
        for (m, archive) in own.filter(|(_, archive)| !known.contains(&archive.as_str())) {
            let help = match nearest(archive.as_str(), known.iter().copied()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => "declare it: [[archive]] with its name".to_owned(),
            };
            let message = format!("there is no archive `{}`", shown(archive.as_str()));
            review.report(Rule::UnknownArchive, &here.key("archives").index(m), message, help);
        }
        let to: Vec<&str> = match &backup.archives {
            Some(archives) => archives.iter().map(crate::form::Label::as_str).collect(),
            None => known.clone(),
        };
        for archive in to {
            if !seen.insert(archive) {
                let message = format!("`{}` is backed up to `{archive}` twice", database.name);
                let help = "each archive in one [[workload.database.backup]]: name its `archives`";
                review.report(Rule::RepeatedBackup, &here, message, help);
            }
            let slot = backup.slot.of(archive);
            if backup.wal && slot.len() > LONGEST_SLOT {
                let message = format!("the slot `{}` would have {} letters", shown(&slot), slot.len());
                let help =
                    format!("a slot's name has at most {LONGEST_SLOT}: shorten `slot` or the archive's name");
                review.report(Rule::SlotNameTooLong, &here.key("slot"), message, help);
            }
        }
        check_promises(review, workload, database, backup, &here);
    }
}

fn check_promises(
    review: &mut Review<'_, '_>,
    workload: &Workload,
    database: &Database,
    backup: &Backup,
    here: &Place,
) {
    let rpo = workload.objectives.rpo;
    if backup.wal && backup.slot_alert > backup.slot_limit {
        let message = format!(
            "the slot is given up at {}, before people are told at {}",
            backup.slot_limit, backup.slot_alert
        );
        let help = "set `slot_alert` to less than `slot_limit`";
        review.report(Rule::SlotAlertOverLimit, &here.key("slot_alert"), message, help);
    }
    if rpo.0.is_zero() {
        return;
    }
    if backup.wal && backup.piece_interval > rpo {
        let message = format!("the log is stored every {}, but the rpo is {rpo}", backup.piece_interval);
        let help = "store it more often than the rpo: `piece_interval`";
        review.report(Rule::PieceOverRpo, &here.key("piece_interval"), message, help);
    }
    let longest = backup.schedule.longest(backup.time_zone);
    if !backup.wal && longest > rpo.0 {
        let message = format!(
            "without its log, up to {} of `{}` are in no backup, but the rpo is {rpo}",
            lifeboat_core::time::length(longest),
            database.name
        );
        let help = "set `wal = true`, or back up more often";
        review.report(Rule::BackupOverRpo, &here.key("schedule"), message, help);
    }
}
