//! `lifeboat backup list` and `lifeboat backup show`

use clap::Args;
use lifeboat_archive::Manifest;
use lifeboat_engine::clock::Clock;
use serde::Serialize;

use super::gathered;
use super::run::age;
use crate::archives::{Which, work};
use crate::cli::{Format, Place};
use crate::failure::{Exit, Failure};
use crate::ui;

/// List the backups that are in an archive, oldest first.
///
/// What is listed is what is there, not what was scheduled. Exit 1 when the manifest of a backup cannot be read.
#[derive(Debug, Args)]
pub(crate) struct List {
    /// Only those of this database, WORKLOAD/DATABASE, or of all databases of a workload.
    #[arg(value_name = "DATABASE")]
    database: Option<String>,
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    format: Format,
}

#[derive(Serialize)]
struct Listed<'a> {
    backups: Vec<lifeboat_archive::PointLabel>,
    unreadable: Vec<Unreadable<'a>>,
}

#[derive(Serialize)]
struct Unreadable<'a> {
    backup: &'a str,
    why: String,
}

impl List {
    pub(crate) fn run(self, place: &Place) -> Result<Exit, Failure> {
        let found = self.which.find(place, None)?;
        let (_, gathered) = work(gathered(&found))?;
        let wanted = |manifest: &&Manifest| {
            let point = &manifest.point;
            self.database.as_ref().is_none_or(|wanted| {
                *wanted == format!("{}/{}", point.workload, point.database)
                    || *wanted == point.workload.as_str()
            })
        };
        let manifests: Vec<&Manifest> = gathered.manifests.iter().filter(wanted).collect();
        if self.format.json {
            let unreadable =
                gathered.unreadable.iter().map(|(backup, why)| Unreadable { backup, why: why.to_string() });
            let backups = manifests.iter().map(|manifest| manifest.label()).collect();
            ui::json(&Listed { backups, unreadable: unreadable.collect() });
        } else {
            let now = Clock::start().now();
            for manifest in &manifests {
                let (point, sums) = (&manifest.point, &manifest.sums);
                let bad = match manifest.bad_page_count {
                    0 => String::new(),
                    count => format!(", {}", ui::count(count, "bad page")),
                };
                ui::answer(&format!(
                    "{}  {}/{}  {} ({} stored), {}..{} on timeline {}, {}{bad}",
                    manifest.backup,
                    point.workload,
                    point.database,
                    ui::bytes(sums.source),
                    ui::bytes(sums.stored),
                    point.start,
                    manifest.end,
                    manifest.end_timeline,
                    age(now, manifest.ended)
                ));
            }
            if manifests.is_empty() {
                ui::answer("there is no backup");
            }
            for (backup, why) in &gathered.unreadable {
                ui::note(&format!("{backup} cannot be read: {why}"));
            }
        }
        Ok(if gathered.unreadable.is_empty() { Exit::Done } else { Exit::Failed })
    }
}

/// Show one backup: what it holds, what it is made of, which pages were bad.
#[derive(Debug, Args)]
pub(crate) struct Show {
    /// The backup, as `lifeboat backup list` names it.
    #[arg(value_name = "BACKUP")]
    backup: String,
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    format: Format,
}

impl Show {
    pub(crate) fn run(self, place: &Place) -> Result<Exit, Failure> {
        let found = self.which.find(place, None)?;
        let (_, gathered) = work(gathered(&found))?;
        let named = gathered.manifests.iter().find(|manifest| manifest.backup.as_str() == self.backup);
        let Some(manifest) = named else {
            let text = format!("there is no backup `{}` in {}", self.backup, found.name);
            return Err(Failure::new(Exit::Usage, text).hint("lifeboat backup list"));
        };
        if self.format.json {
            ui::json(manifest);
            return Ok(Exit::Done);
        }
        let (point, sums) = (&manifest.point, &manifest.sums);
        ui::answer(&format!("{} of {}/{}", manifest.backup, point.workload, point.database));
        ui::answer(&format!("  cluster {}, PostgreSQL {}", point.system, point.server_version));
        ui::answer(&format!("  made by {} from {} to {}", point.agent, point.begun, manifest.ended));
        ui::answer(&format!(
            "  replay from {} on timeline {}, consistent at {} on timeline {}",
            point.start, point.timeline, manifest.end, manifest.end_timeline
        ));
        ui::answer(&format!(
            "  {} in {}; {} were new, {} are of earlier backups; {} stored",
            ui::bytes(sums.source),
            ui::count(sums.files, "file"),
            ui::bytes(sums.new),
            ui::bytes(sums.referenced),
            ui::bytes(sums.stored)
        ));
        for origin in manifest.origins.iter().skip(1) {
            ui::answer(&format!("  made of parts of {}", origin.backup));
        }
        for page in &manifest.bad_pages {
            ui::answer(&format!("  bad page: {} block {}", page.path, page.block));
        }
        Ok(Exit::Done)
    }
}
