//! `lifeboat restore`

mod reaching;
mod settings;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use clap::{ArgGroup, Args};
use lifeboat_archive::restore::{Options, Plan};
use lifeboat_archive::wal::Target;
use lifeboat_archive::{Archive, Manifest};
use lifeboat_core::{Lsn, Moment, Timeline};
use serde::Serialize;

use crate::archives::{Found, Which, failed, work};
use crate::cli::{Format, Place};
use crate::failure::{Exit, Failure};
use crate::ui::{self, Progress, Shown};
use reaching::Way;

/// Restore a database into a folder: all of it, to the newest moment there is or to an earlier one.
///
/// What will be reached is said before anything is written; what cannot be reached is refused, with where it would stop
/// (exit 5). Run it as PostgreSQL's own user. Afterwards `pg_ctl -D DIR start` replays the log from the archive up to the target,
/// and then takes writes. The folder must be empty, or with --delta a stopped cluster of the same system. What is half
/// restored does not start.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("to").args(["to_time", "to_lsn", "to_name"]))]
pub(crate) struct Restore {
    /// The database, WORKLOAD/DATABASE.
    #[arg(value_name = "DATABASE")]
    database: String,
    /// The folder to restore into.
    #[arg(long, value_name = "DIR")]
    target: PathBuf,
    /// Everything committed up to then: 2026-11-21T14:02:11Z.
    #[arg(long, value_name = "TIME", value_parser = moment)]
    to_time: Option<Moment>,
    /// Up to that byte of the log: 0/7A3F0028.
    #[arg(long, value_name = "LSN", value_parser = lsn)]
    to_lsn: Option<Lsn>,
    /// Up to the restore point of that name (pg_create_restore_point).
    #[arg(long, value_name = "NAME")]
    to_name: Option<String>,
    /// Along that timeline [default: the newest that leads on from the backup].
    #[arg(long, value_name = "NUMBER")]
    timeline: Option<u32>,
    /// Begin with that backup [default: the newest that leads there].
    #[arg(long, value_name = "BACKUP")]
    backup: Option<String>,
    /// Go as far as there is log, when the target cannot be reached: what was said to be lost is lost.
    #[arg(long)]
    accept_loss: bool,
    /// Bring a stopped cluster of the same system back to the backup: only what differs is written, what is not in it is removed.
    #[arg(long)]
    delta: bool,
    /// Where a tablespace goes, by its number; once for each.
    #[arg(long = "tablespace", value_name = "OID=DIR", value_parser = tablespace)]
    tablespaces: Vec<(u32, PathBuf)>,
    /// Stay read-only at the target, instead of taking writes: look around, then SELECT pg_wal_replay_resume().
    #[arg(long)]
    pause: bool,
    /// Only say what would be reached.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    shown: Shown,
    #[command(flatten)]
    format: Format,
}

fn moment(text: &str) -> Result<Moment, String> {
    let read = chrono::DateTime::parse_from_rfc3339(text)
        .map_err(|error| format!("{error}; for example 2026-11-21T14:02:11Z, or +01:00 in the place of Z"))?;
    u64::try_from(read.timestamp_millis()).map(Moment::from_millis).map_err(|_| "too long ago".to_owned())
}

fn lsn(text: &str) -> Result<Lsn, String> {
    Lsn::parse(text).ok_or_else(|| "two hexadecimal numbers with a slash, for example 0/7A3F0028".to_owned())
}

fn tablespace(text: &str) -> Result<(u32, PathBuf), String> {
    let parts = text.split_once('=').and_then(|(oid, place)| Some((oid.parse().ok()?, PathBuf::from(place))));
    parts.ok_or_else(|| "a tablespace's number and a folder, for example 16400=/srv/fast".to_owned())
}

/// What is told at the end.
#[derive(Serialize)]
struct Told<'a> {
    backup: &'a str,
    target: String,
    timeline: Timeline,
    reaches: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    received: Option<Moment>,
    certain: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    lost: Option<&'a str>,
    files: u64,
    bytes: u64,
    kept: u64,
}

impl Restore {
    pub(crate) fn run(self, place: &Place) -> Result<Exit, Failure> {
        let found = self.which.find(place, None)?;
        work(Box::pin(self.restore(place, &found)))?;
        Ok(Exit::Done)
    }

    fn wanted(&self) -> Target {
        match (&self.to_time, &self.to_lsn, &self.to_name) {
            (Some(time), ..) => Target::Time(*time),
            (_, Some(lsn), _) => Target::Lsn(*lsn),
            (_, _, Some(name)) => Target::Name(name.clone()),
            _ => Target::Latest,
        }
    }

    async fn restore(&self, place: &Place, found: &Found) -> Result<(), Failure> {
        let archive = found.open().await?;
        let manifests = self.candidates(&archive, found).await?;
        let wanted = self.wanted();
        let timeline = self.timeline.map(Timeline::new);
        let way = reaching::find(&archive, &manifests, &wanted, timeline, self.accept_loss).await?;
        let point = &way.manifest.point;
        ui::note(&format!(
            "{} begins with {}, made {}, and goes on to {} on timeline {}",
            self.database,
            way.manifest.backup,
            way.manifest.ended,
            way.says(),
            way.timeline
        ));
        if let Some(lost) = &way.lost {
            ui::note(lost);
        }
        if self.dry_run {
            return Ok(());
        }
        if rustix::process::geteuid().is_root() {
            ui::note(
                "run as root, what is restored belongs to root: give it to PostgreSQL's user before it is started",
            );
        }
        let plan = Plan::of(&archive, point.system, &way.manifest.backup).await;
        let plan = plan.map_err(|error| failed("nothing was restored", &error))?;
        let bar = Arc::new(Mutex::new(Progress::new(self.shown, &self.database)));
        let (shown, total) = (Arc::clone(&bar), plan.bytes);
        let watcher = Arc::new(move |progress: lifeboat_archive::restore::Progress| {
            shown.lock().unwrap_or_else(PoisonError::into_inner).show(progress.bytes, Some(total), &progress);
        });
        let options = Options {
            tablespaces: self.tablespaces.iter().cloned().collect::<BTreeMap<_, _>>(),
            delta: self.delta,
        };
        let done = Box::pin(plan.run(&self.target, &options, watcher)).await;
        bar.lock().unwrap_or_else(PoisonError::into_inner).end();
        let done =
            done.map_err(|error| failed(format!("{} is not restored", self.target.display()), &error))?;
        self.settle(place, found, &way)?;
        if self.format.json {
            ui::json(&Told {
                backup: way.manifest.backup.as_str(),
                target: self.target.display().to_string(),
                timeline: way.timeline,
                reaches: way.lsn.to_string(),
                received: way.received,
                certain: way.certain,
                lost: way.lost.as_deref(),
                files: done.files,
                bytes: done.bytes,
                kept: done.kept,
            });
        } else {
            let kept = if done.kept > 0 {
                format!(", {} of it was there", ui::bytes(done.kept))
            } else {
                String::new()
            };
            ui::answer(&format!(
                "restored {} in {} to {}{kept}",
                ui::bytes(done.bytes),
                ui::count(done.files, "file"),
                self.target.display()
            ));
            ui::note(&format!("start it: pg_ctl -D {} start", self.target.display()));
        }
        Ok(())
    }

    /// The backups of the database, newest first.
    async fn candidates(&self, archive: &Archive, found: &Found) -> Result<Vec<Manifest>, Failure> {
        let gathered = lifeboat_archive::retention::gather(archive).await;
        let gathered =
            gathered.map_err(|error| failed(format!("{} cannot be listed", found.name), &error))?;
        for (backup, why) in &gathered.unreadable {
            ui::note(&format!("{backup} cannot be read: {why}"));
        }
        let named = |manifest: &Manifest| {
            let point = &manifest.point;
            self.database == format!("{}/{}", point.workload, point.database)
                || self.database == point.workload.as_str()
        };
        let mut all: Vec<Manifest> = gathered.manifests.into_iter().filter(named).collect();
        all.reverse();
        if let Some(backup) = &self.backup {
            all.retain(|manifest| manifest.backup.as_str() == backup);
        }
        if all.is_empty() {
            let text = match &self.backup {
                Some(backup) => format!("{} has no backup `{backup}` of {}", found.name, self.database),
                None => format!("{} has no backup of {}", found.name, self.database),
            };
            return Err(Failure::new(Exit::Refused, text).hint("lifeboat backup list"));
        }
        Ok(all)
    }

    /// Lets the server find the log, and stop where it shall.
    fn settle(&self, place: &Place, found: &Found, way: &Way) -> Result<(), Failure> {
        let recovery = settings::Recovery {
            words: self.which.words(place, &found.name),
            system: way.manifest.point.system,
            timeline: way.timeline,
            target: way.target.clone(),
            end_at_gap: way.lost.is_some(),
            pause: self.pause,
        };
        recovery.write(&self.target).map_err(|error| {
            let text =
                format!("{} is restored, and how it recovers could not be written", self.target.display());
            Failure::because(Exit::Failed, text, &error)
        })
    }
}
