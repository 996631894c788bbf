//! `lifeboat backup verify`

use std::collections::{BTreeMap, BTreeSet};

use clap::Args;
use lifeboat_archive::wal::{WalMap, survey};
use serde::Serialize;

use super::gathered;
use crate::archives::{Which, failed, work};
use crate::cli::{Format, Place};
use crate::failure::{Exit, Failure};
use crate::ui;

/// Hold an archive against what its manifests say: every object is there, and all log between.
///
/// Each finding is named with the backups it affects. Exit 1 with any finding.
#[derive(Debug, Args)]
pub(crate) struct Verify {
    #[command(flatten)]
    which: Which,
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

impl Verify {
    pub(crate) fn run(self, place: &Place) -> Result<Exit, Failure> {
        let found = self.which.find(place, None)?;
        let (findings, backups, objects) = work(async {
            let (archive, gathered) = gathered(&found).await?;
            let mut findings: Vec<Finding> = Vec::new();
            for (backup, why) in &gathered.unreadable {
                findings.push(Finding { what: why.to_string(), affects: vec![backup.clone()] });
            }
            let mut missing: BTreeMap<&lifeboat_engine::ports::ObjectName, Vec<String>> = BTreeMap::new();
            for point in &gathered.holdings.points {
                for name in point.needs.iter().filter(|name| !gathered.sizes.contains_key(*name)) {
                    missing.entry(name).or_default().push(point.id.clone());
                }
            }
            let gone = missing
                .into_iter()
                .map(|(name, affects)| Finding { what: format!("{name} is missing"), affects });
            findings.extend(gone);
            let systems: BTreeSet<_> = gathered.holdings.points.iter().map(|point| point.system).collect();
            for system in systems {
                let map = survey(&archive, system).await;
                let map = map
                    .map_err(|error| failed(format!("the log of cluster {system} cannot be read"), &error))?;
                findings.extend(log(
                    &map,
                    gathered.holdings.points.iter().filter(|point| point.system == system),
                ));
            }
            Ok((findings, gathered.holdings.points.len() as u64, gathered.sizes.len() as u64))
        })?;
        if self.format.json {
            ui::json(&findings);
        } else {
            for finding in &findings {
                ui::answer(&finding.what);
                for backup in &finding.affects {
                    ui::answer(&format!("  affects {backup}"));
                }
            }
            let counted = match findings.len() {
                0 => "nothing is missing".to_owned(),
                count => ui::count(count as u64, "finding"),
            };
            ui::answer(&format!(
                "{}, {}: {counted}",
                ui::count(backups, "backup"),
                ui::count(objects, "object")
            ));
        }
        Ok(if findings.is_empty() { Exit::Done } else { Exit::Failed })
    }
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
