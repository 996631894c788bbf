//! Making an old primary a standby of the new one, by the cheapest way that is right.
//!
//! Its log is a part of the new primary's: it only follows. It has parted: `pg_rewind`. That fails, was interrupted or
//! cannot be done: a fresh copy beside, which takes its place when it is whole.
//!
//! **Invariant:** what is begun is on disk before it is begun; a kill at any instant leaves a folder that the next call
//! makes whole or replaces.
//! **Invariant:** what only this server has is kept before it is rewound or replaced, whoever asks and whatever was to be
//! expected of it.
//! **Invariant:** a server that was promoted since, beside the source, is not stopped: the request comes late.
//! **Invariant:** "rejoined" is said only when the server streams from the source on the source's timeline.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use lifeboat_core::outcome::{RejoinWay, Rejoined};
use lifeboat_core::{Fault, FaultKind, Source, Timeline};

use crate::host::lock::Lock;
use crate::host::stage::{Begun, Ended, Stage};
use crate::host::{Host, control, durable, program, sql};

/// How long a server that was started may take to stream before the next way is tried, in parts of the limit.
const TO_STREAM: u32 = 2;

/// The timeline that a primary writes; of a server in recovery, nothing.
const WRITES_ON: &str = "SELECT to_json(CASE WHEN NOT pg_is_in_recovery()
   THEN ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int END)";

/// The least of it.
const SOONEST: Duration = Duration::from_secs(5);

impl Host<'_> {
    /// Makes the server a standby of `source`. A repeat finds it streaming, or goes on from what was begun.
    ///
    /// # Errors
    /// `Refused` when its log has no part in the source's, or a copy is needed and not allowed; `Unreachable` when the
    /// source does not answer; `Unclear` when it does not come to stream.
    pub(super) async fn rejoin(
        &self,
        source: &Source,
        drop: &[String],
        lock: &Lock,
    ) -> Result<Rejoined, Fault> {
        let begun = durable::read::<Begun>(&self.file("rejoining"))?;
        if begun.is_none() && self.streams(source).await {
            let ended = durable::read::<Ended>(&self.file("rejoined"))?;
            let ended = ended.filter(|ended| ended.run == self.request.run);
            let (way, because) = ended.map_or((RejoinWay::Follow, None), |ended| (ended.way, ended.because));
            return Ok(Rejoined { way, already: true, because });
        }
        let copied_by_hand = begun.as_ref().is_some_and(|begun| begun.stage == Stage::Copying);
        if copied_by_hand && self.streams(source).await {
            // A person did what the refusal said. A folder that is half rewound has never been told of this source.
            return self.end(RejoinWay::Rebuild, Some("a person copied it anew".to_owned()), drop).await;
        }
        let mut begun = match begun {
            Some(begun) => self.resume(begun, source).await?,
            None => self.begin(source).await?,
        };
        loop {
            let (stage, because) = (begun.stage, begun.because.clone());
            tracing::info!(?stage, "rejoining");
            match stage {
                Stage::Stopping => {
                    self.stop_old(source).await?;
                    self.keep_own_files()?;
                    begun = self.follow_or_rewind(source, because, lock).await?;
                }
                Stage::Rewinding | Stage::Copying => begun = self.copy(source, because, lock).await?,
                Stage::Swapping => begun = self.swap(source, because).await?,
                Stage::Starting(way) => {
                    if let Some(failed) = self.start_and_stream(source, way).await? {
                        self.stop_old(source).await?;
                        begun = self.mark(Stage::Copying, also(because, failed))?;
                        continue;
                    }
                    return self.end(way, because, drop).await;
                }
            }
        }
    }

    /// Begins a rejoin, unless the server's log has no part in the source's.
    async fn begin(&self, source: &Source) -> Result<Begun, Fault> {
        let control = control::read(self.server).await?;
        if source.shared_until(control.timeline).is_none() {
            return Err(no_history(control.timeline));
        }
        self.not_promoted_since(source).await?;
        let kept = self.salvage_leftovers(source).await?;
        durable::remove(&self.file("kept"))?;
        self.mark(Stage::Stopping, kept)
    }

    /// Stops the server, unless it was promoted since.
    pub(super) async fn stop_old(&self, source: &Source) -> Result<(), Fault> {
        self.not_promoted_since(source).await?;
        self.stop().await.map(drop)
    }

    /// Refuses a running primary that is no old one of the source's. The server is asked: after a promotion its control
    /// file still has the timeline before.
    async fn not_promoted_since(&self, source: &Source) -> Result<(), Fault> {
        if !control::is_running(self.server).await? {
            return Ok(());
        }
        // One that answers nobody is nobody's primary.
        let writes = sql::rows::<u32>(self.server, "postgres", WRITES_ON).await.unwrap_or_default();
        let Some(timeline) = writes.first().copied().map(Timeline::new) else { return Ok(()) };
        if source.lineage.iter().any(|fork| fork.timeline == timeline) {
            return Ok(());
        }
        Err(Fault::new(
            FaultKind::Refused,
            format!(
                "it is a primary on timeline {timeline}, and {} on {}: it was promoted since, and is left alone",
                source.region, source.timeline
            ),
        ))
    }

    /// Goes on with what was begun. A folder that is not whole is not left to a server.
    async fn resume(&self, begun: Begun, source: &Source) -> Result<Begun, Fault> {
        tracing::warn!(stage = ?begun.stage, epoch = %begun.epoch, "a rejoin was interrupted");
        if begun.stage == Stage::Rewinding {
            self.stop_old(source).await?;
            let why = "an earlier pg_rewind did not end".to_owned();
            return self.mark(Stage::Copying, also(begun.because, why));
        }
        let whole = matches!(begun.stage, Stage::Starting(_)) && self.file("kept").exists();
        if whole && !control::is_running(self.server).await? {
            // The source may be another one by now: whom to follow is said anew.
            self.make_standby(&self.server.data, source)?;
        }
        self.mark(begun.stage, begun.because)
    }

    /// Puts on disk what is begun now.
    pub(super) fn mark(&self, stage: Stage, because: Option<String>) -> Result<Begun, Fault> {
        let (epoch, run) = (self.request.epoch, self.request.run.clone());
        let begun = Begun { epoch, run, system: self.request.system, stage, because };
        durable::record(&self.file("rejoining"), &begun)?;
        Ok(begun)
    }

    /// The server is stopped: lets it follow when its log is a part of the source's, and rewinds it otherwise.
    async fn follow_or_rewind(
        &self,
        source: &Source,
        because: Option<String>,
        lock: &Lock,
    ) -> Result<Begun, Fault> {
        let control = control::read(self.server).await?;
        let shared = source.shared_until(control.timeline).ok_or_else(|| no_history(control.timeline))?;
        let end = self.end_of_log(&control).await?;
        if control.state.is_clean() && end.is_some_and(|end| end <= shared) {
            self.make_standby(&self.server.data, source)?;
            return self.mark(Stage::Starting(RejoinWay::Follow), because);
        }
        if !control.rewindable {
            let why = "neither data checksums nor wal_log_hints are on, so pg_rewind cannot be used";
            return self.mark(Stage::Copying, also(because, why.to_owned()));
        }
        if !control.state.is_clean() {
            self.recover().await?;
        }
        if !sql::answers(self.server, source).await? {
            // Nothing is touched yet: once the source is back, the cheap way is still open.
            return Err(silent(source));
        }
        self.mark(Stage::Rewinding, because.clone())?;
        let access = self.bar()?;
        let why = match self.rewind(source, lock).await? {
            None => {
                self.make_standby(&self.server.data, source)?;
                self.unbar(access)?;
                return self.mark(Stage::Starting(RejoinWay::Rewind), because);
            }
            Some(why) => why,
        };
        tracing::warn!(%why, "the server cannot be rewound");
        self.mark(Stage::Copying, also(because, why))
    }

    /// Lets no server start in the data folder, whoever tries, the machine at its boot as well: half rewound it would be
    /// a primary without the fence. PostgreSQL refuses a folder that others may enter (`checkDataDir`).
    fn bar(&self) -> Result<Permissions, Fault> {
        let data = &self.server.data;
        let before =
            fs::metadata(data).map_err(|error| durable::fault("look at", data, &error))?.permissions();
        self.unbar(Permissions::from_mode(before.mode() | 0o001))?;
        Ok(before)
    }

    fn unbar(&self, access: Permissions) -> Result<(), Fault> {
        let data = &self.server.data;
        fs::set_permissions(data, access)
            .map_err(|error| durable::fault("change the mode of", data, &error))?;
        durable::sync_parent(data)
    }

    /// Makes good a crash by a server for nobody, which `pg_rewind` would start without passing the fence.
    async fn recover(&self) -> Result<(), Fault> {
        let mut command = program::command(self.server.programs.join("postgres"));
        command.arg("--single").arg("-D").arg(&self.server.data).args(["-c", "session_preload_libraries="]);
        if let Some(settings) = &self.server.settings {
            command.args(["-c", &format!("config_file={}", settings.display())]);
        }
        let ended = program::run(command.arg("template1")).await?;
        if !ended.succeeded() {
            // pg_rewind will say that the folder is not in order, and a copy is made.
            tracing::warn!(said = %ended.said, "the server does not recover by itself");
        }
        Ok(())
    }

    /// Rewinds the data folder; why not, when it failed.
    async fn rewind(&self, source: &Source, lock: &Lock) -> Result<Option<String>, Fault> {
        let login = format!("{} dbname=postgres", sql::source_login(source, self.server.rewind_login()));
        let mut command = program::command(self.server.programs.join("pg_rewind"));
        command
            .arg("--no-ensure-shutdown")
            .arg("-D")
            .arg(&self.server.data)
            .arg("--source-server")
            .arg(login);
        let ended = program::run(command.stdin(lock.share()?)).await?;
        Ok(if ended.succeeded() { None } else { Some(ended.failure("pg_rewind")) })
    }

    /// Starts the server and waits until it streams; why not, when another way is to be tried.
    async fn start_and_stream(&self, source: &Source, way: RejoinWay) -> Result<Option<String>, Fault> {
        let started = self.start().await;
        let patience = (self.limit() / TO_STREAM).max(SOONEST);
        if started.is_ok() && self.comes_to_stream(source, patience).await {
            return Ok(None);
        }
        if !sql::answers(self.server, source).await? {
            return Err(silent(source));
        }
        let millis = patience.as_millis();
        let waited = format!("the server did not stream from the new primary within {millis} ms");
        let failed = started.err().map_or(waited, |fault| fault.detail);
        if way == RejoinWay::Rebuild || !self.server.rebuild {
            return Err(Fault::new(FaultKind::Unclear, failed));
        }
        Ok(Some(failed))
    }

    /// The server streams: drops what a standby has no use for, and takes the mark away.
    async fn end(&self, way: RejoinWay, because: Option<String>, drop: &[String]) -> Result<Rejoined, Fault> {
        self.drop_slots(drop).await;
        let ended = Ended { run: self.request.run.clone(), way, because: because.clone() };
        durable::record(&self.file("rejoined"), &ended)?;
        durable::remove(&self.file("kept"))?;
        durable::remove(&self.file("rejoining"))?;
        self.remove_old_copies();
        Ok(Rejoined { way, already: false, because })
    }

    /// Drops idle physical slots by name. One that cannot be dropped is told, and holds log: no reason to fail.
    async fn drop_slots(&self, names: &[String]) {
        if names.is_empty() {
            return;
        }
        let names: Vec<String> = names.iter().map(|name| sql::literal(name)).collect();
        let query = format!(
            "SELECT to_json(slot_name::text) FROM (SELECT slot_name, pg_drop_replication_slot(slot_name)
             FROM pg_replication_slots WHERE slot_type = 'physical' AND NOT active AND slot_name IN ({})) AS dropped",
            names.join(", ")
        );
        match sql::rows::<String>(self.server, "postgres", &query).await {
            Ok(dropped) if dropped.is_empty() => {}
            Ok(dropped) => tracing::info!(?dropped, "slots that a standby has no use for were dropped"),
            Err(fault) => tracing::warn!(%fault, "old slots could not be dropped; they hold log"),
        }
    }
}

/// One more reason.
fn also(because: Option<String>, why: String) -> Option<String> {
    Some(because.map_or_else(|| why.clone(), |because| format!("{because}; {why}")))
}

fn silent(source: &Source) -> Fault {
    let detail = format!("the new primary at {}:{} does not answer", source.host, source.port);
    Fault::new(FaultKind::Unreachable, detail)
}

/// The server was promoted elsewhere, or never was of this cluster.
pub(super) fn no_history(timeline: Timeline) -> Fault {
    let detail = format!("it is on timeline {timeline}, which the new primary has no history of");
    Fault::new(FaultKind::Refused, detail)
}
