//! `lifeboat backup verify`

use std::collections::BTreeSet;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};

use clap::Args;
use lifeboat_archive::BackupId;
use lifeboat_archive::manifest::catalog::systems;
use lifeboat_archive::verify::{Sample, Scope, verify};
use lifeboat_archive::wal::{WalMap, survey};
use lifeboat_engine::clock::Clock;
use serde::Serialize;

use super::gathered;
use crate::archives::{Found, Which, failed, untethered, work};
use crate::cli::{Format, Place};
use crate::failure::{Exit, Failure};
use crate::ui::{self, Progress, Shown};

/// Read backups back, and hold the archive against what its manifests say.
///
/// Every object that a backup needs is looked for, opened and compared; the log between backups is looked through for holes.
/// Each finding is named with the backups it affects. Exit 1 with any finding; a store that does not answer is none.
#[derive(Debug, Args)]
pub(crate) struct Verify {
    /// Only these backups.
    #[arg(value_name = "BACKUP", value_parser = BackupId::from_str)]
    backups: Vec<BackupId>,
    #[command(flatten)]
    which: Which,
    /// Read only so many of a hundred objects, others on another day; all are looked for.
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u32).range(0..=100))]
    sample: Option<u32>,
    /// End when standard input does.
    #[arg(long, hide = true)]
    tethered: bool,
    #[command(flatten)]
    shown: Shown,
    #[command(flatten)]
    format: Format,
}

/// Something that is not as it should be.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Finding {
    /// What is wrong.
    what: String,
    /// The backups that it affects.
    affects: Vec<String>,
}

/// What was looked at, and what was found.
#[derive(Debug, Default, Serialize)]
struct Told {
    backups: u64,
    objects: u64,
    read: u64,
    bytes: u64,
    findings: Vec<Finding>,
}

impl Verify {
    pub(crate) fn run(self, place: &Place) -> Result<Exit, Failure> {
        let found = self.which.find(place, None)?;
        let told = work(async {
            tokio::select! {
                biased;
                told = self.look(&found) => told,
                () = untethered(self.tethered) => Err(Failure::new(Exit::Failed, "the agent that began this has ended")),
            }
        })?;
        if self.format.json {
            ui::json(&told);
        } else {
            for finding in &told.findings {
                ui::answer(&finding.what);
                for backup in &finding.affects {
                    ui::answer(&format!("  affects {backup}"));
                }
            }
            let counted = match told.findings.len() {
                0 => "nothing is wrong".to_owned(),
                count => ui::count(count as u64, "finding"),
            };
            ui::answer(&format!(
                "{} made of {}, {} of them read ({}): {counted}",
                ui::count(told.backups, "backup"),
                ui::count(told.objects, "object"),
                told.read,
                ui::bytes(told.bytes)
            ));
        }
        Ok(if told.findings.is_empty() { Exit::Done } else { Exit::Failed })
    }

    async fn look(&self, found: &Found) -> Result<Told, Failure> {
        let (archive, gathered) = gathered(found).await?;
        let wanted =
            (!self.backups.is_empty()).then(|| self.backups.iter().cloned().collect::<BTreeSet<_>>());
        // Another part each day.
        let seed = Clock::start().now().millis() / 86_400_000;
        let sample = self.sample.map(|percent| Sample { millionths: percent * 10_000, seed });
        let scope = Scope { backups: wanted.clone(), sample };
        let bar = Arc::new(Mutex::new(Progress::new(self.shown, &found.name)));
        let mut told = Told::default();
        for system in systems(&archive).await.map_err(|error| found.failed(&error))? {
            let shown = Arc::clone(&bar);
            let watcher = Arc::new(move |done: u64, all: u64| {
                // Objects are counted as if each had eight megabytes: that is how often a bar moves.
                let mut bar = shown.lock().unwrap_or_else(PoisonError::into_inner);
                bar.show(done << 23, Some(all << 23), &Looked { read: done, of: all });
            });
            let verified = Box::pin(verify(&archive, system, &scope, watcher)).await;
            let verified = verified.map_err(|error| found.failed(&error))?;
            told.backups += verified.backups;
            told.objects += verified.objects;
            told.read += verified.read;
            told.bytes += verified.bytes;
            told.findings.extend(verified.findings.into_iter().map(|finding| Finding {
                what: finding.why,
                affects: finding.backups.iter().map(ToString::to_string).collect(),
            }));
            let points = gathered.holdings.points.iter().filter(|point| point.system == system);
            let points = points.filter(|point| {
                wanted.as_ref().is_none_or(|wanted| wanted.iter().any(|backup| backup.as_str() == point.id))
            });
            let map = survey(&archive, system).await;
            let map =
                map.map_err(|error| failed(format!("the log of cluster {system} cannot be read"), &error))?;
            told.findings.extend(log(&map, points));
        }
        bar.lock().unwrap_or_else(PoisonError::into_inner).end();
        Ok(told)
    }
}

#[derive(Serialize)]
struct Looked {
    read: u64,
    of: u64,
}

/// What is missing of a cluster's log: what backups need, and what lies between.
fn log<'p>(
    map: &WalMap,
    points: impl Iterator<Item = &'p lifeboat_archive::retention::Point> + Clone,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    for point in points.clone() {
        if let Err(gap) = map.covers(point.start, point.end_timeline, point.end) {
            findings.push(Finding {
                what: format!("{gap}: the backup cannot be used"),
                affects: vec![point.id.clone()],
            });
        }
    }
    for gap in map.gaps() {
        let before = points.clone().filter(|point| point.end <= gap.from);
        let affects = before.map(|point| point.id.clone()).collect::<Vec<_>>();
        // What comes before the first backup is needed by none.
        if !affects.is_empty() {
            findings.push(Finding { what: gap.to_string(), affects });
        }
    }
    findings
}
