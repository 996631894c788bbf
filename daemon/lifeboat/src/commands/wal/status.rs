//! `lifeboat wal status`

use clap::Args;
use lifeboat_archive::wal::{WalMap, survey};
use lifeboat_core::{Moment, Timeline};
use lifeboat_engine::clock::Clock;
use serde::Serialize;

use crate::archives::{Which, failed, work};
use crate::cli::{Format, Place};
use crate::commands::backup::clusters;
use crate::failure::{Exit, Failure};
use crate::ui;

/// Show what an archive has of the log: how far, how old the newest byte is, and what is missing.
///
/// Exit 1 with a gap.
#[derive(Debug, Args)]
pub(crate) struct Status {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    format: Format,
}

#[derive(Serialize)]
struct Shown {
    system: String,
    timeline: Timeline,
    lsn: Option<String>,
    received: Option<Moment>,
    age_ms: Option<u64>,
    gaps: Vec<String>,
}

impl Status {
    pub(crate) fn run(self, place: &Place) -> Result<Exit, Failure> {
        let found = self.which.find(place, None)?;
        let maps = work(async {
            let archive = found.open().await?;
            let mut maps = Vec::new();
            for system in clusters(&archive).await.map_err(|error| found.failed(&error))? {
                let map = survey(&archive, system).await;
                maps.push(map.map_err(|error| {
                    failed(format!("the log of cluster {system} cannot be read"), &error)
                })?);
            }
            Ok(maps)
        })?;
        let now = Clock::start().now();
        let shown: Vec<Shown> = maps.iter().flat_map(|map| show(map, now)).collect();
        if self.format.json {
            ui::json(&shown);
        } else {
            for one in &shown {
                let newest = match (&one.lsn, one.received) {
                    (Some(lsn), Some(received)) => {
                        format!(
                            "up to {lsn}, received {} ago",
                            lifeboat_core::time::length(now.since(received))
                        )
                    }
                    _ => "no log".to_owned(),
                };
                ui::answer(&format!("cluster {} timeline {}: {newest}", one.system, one.timeline));
                for gap in &one.gaps {
                    ui::answer(&format!("  {gap}"));
                }
            }
            if shown.is_empty() {
                ui::answer("there is no log");
            }
        }
        let whole = shown.iter().all(|one| one.gaps.is_empty());
        Ok(if whole { Exit::Done } else { Exit::Failed })
    }
}

fn show(map: &WalMap, now: Moment) -> impl Iterator<Item = Shown> {
    map.timelines.values().map(move |timeline| Shown {
        system: map.system.to_string(),
        timeline: timeline.timeline,
        lsn: timeline.newest.map(|newest| newest.lsn.to_string()),
        received: timeline.newest.map(|newest| newest.received),
        age_ms: timeline
            .newest
            .map(|newest| u64::try_from(now.since(newest.received).as_millis()).unwrap_or(u64::MAX)),
        gaps: timeline.gaps.iter().map(ToString::to_string).collect(),
    })
}
