//! `lifeboat backup run`

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use lifeboat_archive::{Archive, BackupId};
use lifeboat_config::document::archive::From;
use lifeboat_core::{Epoch, Moment, SystemIdentifier};
use lifeboat_engine::clock::Clock;
use serde::Serialize;

use crate::archives::{Chosen, Lock, Which, region, say, untethered, work};
use crate::cli::{Format, Place};
use crate::failure::{Exit, Failure};
use crate::ui::{self, Progress, Shown};
use crate::vault::base::{self, Done, Job};
use crate::vault::{Trouble, servers};

/// A rate that PostgreSQL takes, in KiB a second.
const RATES: std::ops::RangeInclusive<u64> = 32..=1_048_576;

/// Make a base backup, now.
///
/// It is complete only when the log that makes it consistent is in the archive too: when nothing receives the log, this
/// does for as long as it takes. Only what changed since the backup before is stored. What is broken off leaves nothing
/// that could be taken for a backup; refused while another one of the same database is under way (exit 5).
#[derive(Debug, Args)]
pub(crate) struct Run {
    /// The database.
    #[arg(value_name = "DATABASE")]
    database: String,
    #[command(flatten)]
    which: Which,
    /// Read the server in this region [default: a standby, or the primary, as the configuration says].
    #[arg(long, value_name = "REGION")]
    region: Option<String>,
    /// Let the server make its checkpoint over minutes instead of at once.
    #[arg(long)]
    gently: bool,
    /// End when standard input does.
    #[arg(long, hide = true)]
    tethered: bool,
    #[command(flatten)]
    shown: Shown,
    #[command(flatten)]
    format: Format,
}

/// What the agent reads of a run.
#[derive(Serialize)]
struct Said<'a> {
    begun: Moment,
    #[serde(skip_serializing_if = "Option::is_none")]
    ended: Option<Moment>,
    #[serde(skip_serializing_if = "Option::is_none")]
    done: Option<&'a Done>,
    #[serde(skip_serializing_if = "Option::is_none")]
    failed: Option<String>,
}

impl Run {
    pub(crate) fn run(self, place: &Place) -> Result<Exit, Failure> {
        let chosen = Chosen::find(place, &self.database)?;
        let found = self.which.find(place, Some(chosen.wiring()))?;
        let (clock, said) = (Clock::start(), chosen.file("backup", &found.name, "json"));
        let Some(_lock) = Lock::take(&chosen.file("backup", &found.name, "lock"))? else {
            let text = format!("a backup of {} to {} is under way", chosen.shown(), found.name);
            return Err(Failure::new(Exit::Refused, text));
        };
        let begun = clock.now();
        let report = |done: Option<&Done>, failed: Option<String>| {
            let text = Said { begun, ended: Some(clock.now()), done, failed };
            say(&said, &text);
            // Of the newest good one is still known when a later one fails.
            if done.is_some() {
                say(&chosen.file("backup", &found.name, "good.json"), &text);
            }
        };
        let done = work(async {
            let archive = found.open().await?;
            tokio::select! {
                biased;
                done = self.make(&chosen, &archive, &found.name, clock) => done,
                () = untethered(self.tethered) => {
                    Err(Failure::new(Exit::Failed, "the agent that began this backup has ended"))
                }
            }
        });
        match done {
            Ok(done) => {
                report(Some(&done), None);
                self.tell(&chosen, &found.name, &done);
                Ok(Exit::Done)
            }
            Err(failure) => {
                report(None, Some(failure.to_string()));
                Err(failure)
            }
        }
    }

    async fn make(
        &self,
        chosen: &Chosen,
        archive: &Archive,
        name: &str,
        clock: Clock,
    ) -> Result<Done, Failure> {
        let wired = chosen.backup(name);
        let region = self.region.as_deref().map(|named| region(chosen, named)).transpose()?;
        let from =
            if region.is_some() { From::Primary } else { wired.map_or(From::Standby, |wired| wired.from) };
        let server = servers::choose(chosen, from, region.as_ref(), clock).await?;
        let previous =
            previous(archive, server.identity.system).await.map_err(|error| failed(chosen, &error.into()))?;
        // A receiver that is at work has the lock.
        let receiver: PathBuf = chosen.file("wal", name, "lock");
        let idle = Lock::take(&receiver)?;
        let own_wal = idle.is_some();
        drop(idle);
        let rate = wired
            .and_then(|wired| wired.bandwidth)
            .map(|bytes| (bytes / 1024).clamp(*RATES.start(), *RATES.end()));
        let job = Job {
            endpoint: server.endpoint,
            workload: chosen.workload.clone(),
            database: chosen.database.clone(),
            agent: chosen.config.wiring.agent.name.clone(),
            epoch: Epoch::default(),
            previous,
            max_rate: rate.and_then(|rate| u32::try_from(rate).ok()),
            fast_checkpoint: !self.gently,
            own_wal,
        };
        let mut bar = Progress::new(self.shown, &format!("{} from {}", chosen.shown(), server.region));
        let done = Box::pin(base::back_up(archive, &job, |progress| {
            bar.show(progress.done, progress.total, progress)
        }))
        .await;
        bar.end();
        done.map_err(|error| failed(chosen, &error))
    }

    fn tell(&self, chosen: &Chosen, archive: &str, done: &Done) {
        if self.format.json {
            ui::json(done);
            return;
        }
        let sums = &done.summary.sums;
        ui::answer(&format!(
            "{}: {} in {}, {} of them new, {} stored in {archive}; consistent from {} on timeline {}",
            done.summary.backup,
            ui::bytes(sums.source),
            ui::count(sums.files, "file"),
            ui::bytes(sums.new),
            ui::bytes(sums.stored),
            done.end,
            done.timeline
        ));
        if done.bad_pages > 0 {
            ui::note(&format!(
                "{} of {} at the server: lifeboat backup show {}",
                ui::count(done.bad_pages, "page with a wrong checksum"),
                chosen.shown(),
                done.summary.backup
            ));
        }
    }
}

fn failed(chosen: &Chosen, trouble: &Trouble) -> Failure {
    let failure = Failure::because(Exit::Failed, format!("{} was not backed up", chosen.shown()), trouble);
    match trouble.hint() {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}

/// The newest backup of that cluster: most of it is unchanged.
async fn previous(
    archive: &Archive,
    system: SystemIdentifier,
) -> Result<Option<BackupId>, lifeboat_archive::Trouble> {
    let under = lifeboat_archive::manifest::system_folder(system);
    let (mut newest, mut after) = (None, None);
    loop {
        let page = archive.store().list(&under, after.as_ref()).await?;
        let Some(last) = page.last() else { break };
        after = Some(last.name.clone());
        for listed in &page {
            let rest =
                listed.name.as_str().strip_prefix(&under).and_then(|rest| rest.strip_suffix("/manifest"));
            newest = newest.max(rest.and_then(|id| id.parse::<BackupId>().ok()));
        }
    }
    let Some(newest) = newest else { return Ok(None) };
    // One that cannot be read is nothing to be compared with.
    match lifeboat_archive::Manifest::read(archive, system, &newest).await {
        Ok(_) => Ok(Some(newest)),
        Err(trouble @ lifeboat_archive::Trouble::Store(_)) => Err(trouble),
        Err(trouble) => {
            tracing::error!(backup = %newest, %trouble, "the backup before cannot be read; everything is stored anew");
            Ok(None)
        }
    }
}

/// How long ago, for people.
pub(super) fn age(now: Moment, then: Moment) -> String {
    let age: Duration = now.since(then);
    format!("{} ago", lifeboat_core::time::length(age))
}
