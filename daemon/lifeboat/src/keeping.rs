//! Backups and log receivers, kept running by the agent: processes of their own, so that no byte of theirs passes through
//! the loop, and a crash of one costs the other nothing.
//!
//! **Invariant:** only the agent that decides runs them, against the primary that is on record.
//! **Invariant:** no child outlives the agent: each ends when the pipe from the agent does, however the agent ended. What is
//! ended so is found again by nobody, because its lock ended with it.

mod child;
mod state;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use lifeboat_config::wiring::{BackupWiring, LeaseWiring};
use lifeboat_config::{Due, Wiring};
use lifeboat_core::status::Status;
use lifeboat_core::time::length;
use lifeboat_core::{DatabaseName, Moment, RegionName, WorkloadName};
use lifeboat_engine::Inbox;
use lifeboat_engine::clock::Clock;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::archives::{run_file, runs};
use child::Child;
pub(crate) use state::BackupStatus;
use state::{Finished, Receiving, read};

/// How often everything is looked at.
const LOOK: Duration = Duration::from_secs(2);

/// How soon a child that ended is started again, at first and at most.
const AGAIN: (Duration, Duration) = (Duration::from_secs(2), Duration::from_mins(10));

/// How often backups are read back, and how many of a hundred objects.
const VERIFY: (Duration, &str) = (Duration::from_hours(20), "4");

/// A backup that is due and not done for so long is told to people.
const OVERDUE: Duration = Duration::from_hours(1);

/// What the agent keeps running.
pub(crate) struct Keeping {
    wiring: Wiring,
    config: PathBuf,
    clock: Clock,
    all: BTreeMap<(WorkloadName, DatabaseName, String), Kept>,
}

/// One database and one archive.
struct Kept {
    wiring: BackupWiring,
    runs: PathBuf,
    receiver: Option<Child>,
    backup: Option<Child>,
    expiry: Option<Child>,
    verifier: Option<Child>,
    verified: Option<Moment>,
    receiver_waits: Waits,
    backup_waits: Waits,
    /// When this was first looked at: what was never backed up is due since then.
    since: Moment,
    /// The log has a hole: a base backup must begin after that moment.
    hole: Option<Moment>,
    told: Told,
}

/// When it is tried again.
#[derive(Default)]
struct Waits {
    until: Option<Moment>,
    length: Duration,
}

impl Waits {
    fn failed(&mut self, now: Moment) {
        self.length = (self.length * 2).clamp(AGAIN.0, AGAIN.1);
        self.until = Some(now + self.length);
    }

    fn over(&self, now: Moment) -> bool {
        self.until.is_none_or(|until| until <= now)
    }
}

/// What people were told, so that it is told once.
#[derive(Default)]
struct Told {
    overdue: bool,
    rpo: bool,
    hole: usize,
}

impl Keeping {
    /// Everything that the configuration names.
    pub(crate) fn new(wiring: &Wiring, config: PathBuf, clock: Clock) -> Self {
        let (mut all, runs) = (BTreeMap::new(), runs(wiring));
        for (workload, written) in &wiring.workloads {
            for (database, known) in &written.databases {
                for (archive, backup) in &known.backups {
                    let kept = Kept {
                        wiring: backup.clone(),
                        runs: runs.clone(),
                        receiver: None,
                        backup: None,
                        expiry: None,
                        verifier: None,
                        verified: None,
                        receiver_waits: Waits::default(),
                        backup_waits: Waits::default(),
                        since: clock.now(),
                        hole: None,
                        told: Told::default(),
                    };
                    all.insert((workload.clone(), database.clone(), archive.clone()), kept);
                }
            }
        }
        Self { wiring: wiring.clone(), config, clock, all }
    }

    /// Keeps them running until told to stop; `shown` hears how they are.
    pub(crate) async fn run(
        mut self,
        inbox: Inbox,
        shown: watch::Sender<Vec<BackupStatus>>,
        stop: CancellationToken,
    ) {
        if self.all.is_empty() {
            return;
        }
        loop {
            tokio::select! { biased; () = stop.cancelled() => break, () = tokio::time::sleep(LOOK) => {} }
            let Ok(status) = inbox.status().await else { break };
            let decides = match &status.decider {
                Some(decider) => decider.here,
                None => self.wiring.lease == LeaseWiring::Embedded,
            };
            let now = self.clock.now();
            let mut all = Vec::new();
            for (names, kept) in &mut self.all {
                let (workload, database, archive) = names;
                let Some(seen) = status.workloads.get(workload) else { continue };
                let target =
                    Target { config: &self.config, workload, database, archive, primary: &seen.primary };
                kept.look(&target, decides, now).await;
                all.push(kept.status(&target, &status, now));
            }
            shown.send_replace(all);
        }
        for kept in self.all.values_mut() {
            for child in [&mut kept.receiver, &mut kept.backup, &mut kept.expiry, &mut kept.verifier] {
                if let Some(child) = child.take() {
                    child.end();
                }
            }
        }
    }
}

/// What a child works on.
pub(super) struct Target<'a> {
    config: &'a PathBuf,
    workload: &'a WorkloadName,
    database: &'a DatabaseName,
    archive: &'a str,
    primary: &'a RegionName,
}

impl Target<'_> {
    fn database(&self) -> String {
        format!("{}/{}", self.workload, self.database)
    }

    fn file(&self, runs: &std::path::Path, kind: &str, last: &str) -> PathBuf {
        runs.join(run_file(kind, self.workload, self.database, self.archive, last))
    }
}

impl Kept {
    async fn look(&mut self, target: &Target<'_>, decides: bool, now: Moment) {
        self.look_at_receiver(target, decides && self.wiring.wal.is_some(), now);
        self.look_at_backup(target, decides, now);
        if let Some(child) = &mut self.expiry
            && let Some(code) = child.ended()
        {
            if code != 0 {
                let (database, archive) = (target.database(), target.archive);
                error!(target: "notice", %database, archive, kind = "expire-failed", "what is not kept any more was not removed: exit {code}");
            }
            self.expiry = None;
            // What is kept is read back: a part each day, all of it within a month.
            if self.verified.is_none_or(|last| now.since(last) >= VERIFY.0) && decides {
                self.verified = Some(now);
                self.verifier = self.start(&["backup", "verify", "--sample", VERIFY.1], target, None, now);
            }
        }
        if let Some(child) = &mut self.verifier
            && let Some(code) = child.ended()
        {
            if code != 0 {
                let (database, archive) = (target.database(), target.archive);
                error!(target: "notice", %database, archive, kind = "verify-failed", "reading backups back found something wrong, or could not be done: lifeboat backup verify --archive {archive}");
            }
            self.verifier = None;
        }
    }

    fn look_at_receiver(&mut self, target: &Target<'_>, wanted: bool, now: Moment) {
        let (database, archive) = (target.database(), target.archive);
        if let Some(child) = &mut self.receiver {
            if let Some(code) = child.ended() {
                warn!(%database, archive, code, "the receiver of the log ended; it is started again");
                self.receiver = None;
                self.receiver_waits.failed(now);
            } else if !wanted || child.region.as_ref() != Some(target.primary) {
                info!(%database, archive, primary = %target.primary, "the log is received from another server, or by another agent");
                if let Some(child) = self.receiver.take() {
                    child.end();
                }
            } else if now.since(child.begun) > AGAIN.1 {
                self.receiver_waits = Waits::default();
            }
        }
        if wanted && self.receiver.is_none() && self.receiver_waits.over(now) {
            let words = ["wal", "receive", &database, "--region", target.primary.as_str()];
            self.receiver = self.start(&words, target, Some(target.primary.clone()), now);
            if self.receiver.is_none() {
                self.receiver_waits.failed(now);
            }
        }
        let said: Option<Receiving> = read(&target.file(&self.runs, "wal", "json"));
        let holes = said.as_ref().map_or(0, Receiving::holes);
        if holes > self.told.hole && self.receiver.is_some() {
            error!(target: "notice", %database, archive, kind = "log-missing", "log is missing for good: a base backup is begun");
            self.hole = Some(now);
        }
        self.told.hole = holes;
    }

    fn look_at_backup(&mut self, target: &Target<'_>, decides: bool, now: Moment) {
        let (database, archive) = (target.database(), target.archive);
        if let Some(child) = &mut self.backup
            && let Some(code) = child.ended()
        {
            self.backup = None;
            if code == 0 {
                self.backup_waits = Waits::default();
                self.expiry = self.start(&["backup", "expire"], target, None, now);
            } else {
                self.backup_waits.failed(now);
                let why: Option<Finished> = read(&target.file(&self.runs, "backup", "json"));
                let why = why.and_then(|said| said.failed).unwrap_or_else(|| format!("exit {code}"));
                error!(target: "notice", %database, archive, kind = "backup-failed", again_in = %length(self.backup_waits.length), "the backup failed: {why}");
            }
        }
        let good: Option<Finished> = read(&target.file(&self.runs, "backup", "good.json"));
        let begun = good.as_ref().map(|good| good.begun);
        if self.hole.is_some_and(|hole| begun.is_some_and(|begun| begun >= hole)) {
            self.hole = None;
        }
        let since = match (self.wiring.timetable.due(begun, now), self.hole) {
            (_, Some(hole)) => Some(hole),
            (Due::Since(_), None) if begun.is_none() => Some(self.since),
            (Due::Since(since), None) => Some(since),
            (Due::At(_), None) => None,
        };
        let overdue = since.is_some_and(|since| now.since(since) > OVERDUE);
        if overdue && decides && !self.told.overdue {
            error!(target: "notice", %database, archive, kind = "backup-overdue", "the backup is due for more than {}", length(OVERDUE));
        }
        self.told.overdue = overdue;
        if decides && since.is_some() && self.backup.is_none() && self.backup_waits.over(now) {
            let words = ["backup", "run", &database];
            info!(%database, archive, "a backup is due");
            self.backup = self.start(&words, target, None, now);
            if self.backup.is_none() {
                self.backup_waits.failed(now);
            }
        }
        if !decides && let Some(child) = self.backup.take() {
            child.end();
        }
    }

    fn start(
        &self,
        words: &[&str],
        target: &Target<'_>,
        region: Option<RegionName>,
        now: Moment,
    ) -> Option<Child> {
        match Child::start(words, target.config, target.archive, region, now) {
            Ok(child) => Some(child),
            Err(error) => {
                error!(%error, ?words, "a process cannot be started");
                None
            }
        }
    }

    fn status(&mut self, target: &Target<'_>, status: &Status, now: Moment) -> BackupStatus {
        let good: Option<Finished> = read(&target.file(&self.runs, "backup", "good.json"));
        let last: Option<Finished> = read(&target.file(&self.runs, "backup", "json"));
        let said: Option<Receiving> = read(&target.file(&self.runs, "wal", "json"));
        let said = said.filter(|_| self.receiver.is_some());
        let rpo_held = said.as_ref().and_then(|said| said.rpo_held(now));
        let objective = status.workloads.get(target.workload).map(|workload| workload.rpo);
        let over =
            rpo_held.zip(objective).is_some_and(|(held, objective)| !objective.is_zero() && held > objective);
        if over && !self.told.rpo {
            let (database, archive) = (target.database(), target.archive);
            let held = rpo_held.map(length).unwrap_or_default();
            error!(target: "notice", %database, archive, kind = "rpo-held-over-objective", "if the primary was lost now, {held} would be lost");
        }
        self.told.rpo = over;
        let begun = good.as_ref().map(|good| good.begun);
        let next = match self.wiring.timetable.due(begun, now) {
            Due::Since(since) => Some(since),
            Due::At(next) => next,
        };
        BackupStatus {
            workload: target.workload.clone(),
            database: target.database.clone(),
            archive: target.archive.to_owned(),
            backup: good.as_ref().and_then(|good| good.done.as_ref()?.backup.clone()),
            ended: good.as_ref().and_then(|good| good.ended),
            next,
            under_way: self.backup.is_some(),
            overdue: self.told.overdue,
            failed: last.and_then(|last| last.failed),
            receiving: self.receiver.as_ref().and_then(|child| child.region.clone()),
            received: said.as_ref().and_then(Receiving::durable),
            rpo_held_ms: rpo_held.map(|held| u64::try_from(held.as_millis()).unwrap_or(u64::MAX)),
            held_back: said.as_ref().and_then(|said| said.held_back),
            holes: self.told.hole,
        }
    }
}
