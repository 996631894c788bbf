//! Keeping what only an old primary has, before it is made a standby.
//!
//! Its log from where it parts from the new primary's is copied; the rows of every transaction that committed in it
//! are exported, in their newest version, from the server; one that does not run is started for that, where nobody reaches
//! it. What cannot be exported is counted and
//! named: deletions, tables that were dropped or truncated, databases that refuse a login.
//!
//! **Invariant:** the folder appears whole or not at all, and a repeat returns what is in it.
//! **Invariant:** what could not be read is said, never guessed and never left out.

mod aside;
mod export;
mod parted;

use std::path::Path;
use std::time::Duration;

use lifeboat_core::outcome::Salvage;
use lifeboat_core::{Fault, FaultKind, Lsn, Source, Timeline};
use serde::{Deserialize, Serialize};

use crate::host::control::{self, Control};
use crate::host::rejoin::no_history;
use crate::host::{Host, durable, sql, wal};
use export::Table;

const MANIFEST: &str = "manifest.json";

/// How often a server is started aside for its rows, and the pause between: a sentry's turns, with one of its leases.
const TRIES: u32 = 4;
const PAUSE: Duration = Duration::from_secs(3);

/// Where the log of the running server ends, and on which timeline.
const END: &str = "SELECT json_build_array(at.lsn::text, CASE WHEN pg_is_in_recovery()
   THEN (SELECT coalesce((SELECT received_tli FROM pg_stat_wal_receiver), timeline_id) FROM pg_control_checkpoint())
   ELSE ('x' || substr(pg_walfile_name(at.lsn), 1, 8))::bit(32)::int END)
 FROM (SELECT CASE WHEN pg_is_in_recovery()
   THEN coalesce(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn()) ELSE pg_current_wal_flush_lsn() END AS lsn) AS at";

/// What `manifest.json` says.
#[derive(Serialize, Deserialize)]
struct Manifest {
    /// What is answered.
    salvage: Salvage,
    /// The timeline of the range.
    timeline: Timeline,
    /// Where the range begins, as PostgreSQL writes it.
    from: Option<String>,
    /// Where it ends.
    to: String,
    /// How many transactions, subtransactions included, committed in it.
    transactions: usize,
    /// Each table with what is in its file.
    tables: Vec<Table>,
    /// What a reader has to know.
    notes: Vec<String>,
}

impl Host<'_> {
    /// Keeps what only this server has. A repeat returns what an earlier call kept for the same run.
    ///
    /// # Errors
    /// `Refused` when its timeline is not in the source's history.
    pub(super) async fn salvage(&self, source: &Source) -> Result<Salvage, Fault> {
        let folder = self.config.salvage.join(self.request.run.as_str()).join(self.request.database.as_str());
        if let Some(manifest) = durable::read::<Manifest>(&folder.join(MANIFEST))? {
            return Ok(manifest.salvage);
        }
        self.end_aside().await?;
        let control = control::read(self.server).await?;
        let running = control::is_running(self.server).await?;
        let (timeline, end) = self.log_end(&control, running).await?;
        let shared = source.shared_until(timeline).ok_or_else(|| no_history(timeline))?;
        if end <= shared {
            let nothing = Salvage { diverged_at: None, end, rows: 0, unread: Vec::new(), folder: None };
            return Ok(nothing);
        }
        tracing::info!(from = %shared, to = %end, "the log has parted: keeping it");
        let partial = folder.with_extension("partial");
        durable::remove(&partial)?;
        let create = |path: &Path| {
            std::fs::create_dir_all(path).map_err(|error| durable::fault("create", path, &error))
        };
        create(&partial.join("wal"))?;
        let mut unread = self.copy_log(&control, timeline, (shared, end), &partial.join("wal"))?;
        let parted = parted::Parted::read(self.server, &control, timeline, (shared, end)).await?;
        unread.extend(parted.unread());
        let tables = if running {
            export::tables(self.server, &parted, &partial, &mut unread).await?
        } else if parted.committed.is_empty() {
            Vec::new()
        } else {
            self.export_aside(&parted, &partial, &mut unread).await?
        };
        let rows = tables.iter().filter(|table| !table.is_heartbeat()).map(|table| table.rows).sum();
        let salvage = Salvage {
            diverged_at: Some(shared),
            end,
            rows,
            unread,
            folder: Some(folder.display().to_string()),
        };
        let manifest = Manifest {
            salvage: salvage.clone(),
            timeline,
            from: Some(shared.to_string()),
            to: end.to_string(),
            transactions: parted.committed.len(),
            tables,
            notes: vec![
                "rows are in their newest version; one that was changed again is there once".to_owned(),
                "lifeboat.heartbeat is exported, and not counted in rows".to_owned(),
            ],
        };
        durable::record(&partial.join(MANIFEST), &manifest)?;
        durable::sync_tree(&partial)?;
        durable::rename(&partial, &folder)?;
        for parent in folder.ancestors().skip(1).take(2) {
            durable::sync_parent(parent)?;
        }
        Ok(salvage)
    }

    /// Keeps what only this server has when nobody asked for it before a rejoin, and says so. After a planned move it
    /// should have nothing: its primary was closed. What got past the fence, or was written while somebody had lifted
    /// it, would be gone for ever.
    pub(super) async fn salvage_leftovers(&self, source: &Source) -> Result<Option<String>, Fault> {
        let folder = self.config.salvage.join(self.request.run.as_str()).join(self.request.database.as_str());
        if folder.join(MANIFEST).exists() {
            return Ok(None);
        }
        let control = control::read(self.server).await?;
        let running = control::is_running(self.server).await?;
        let (timeline, end) = match self.log_end(&control, running).await {
            // It cannot be rewound either: it will be copied, and its old folder kept.
            Err(fault) if fault.kind == FaultKind::Unclear && !running => {
                return Ok(Some(format!("{}: what only it had is not known", fault.detail)));
            }
            found => found?,
        };
        let shared = source.shared_until(timeline).ok_or_else(|| no_history(timeline))?;
        if end <= shared {
            return Ok(None);
        }
        let parted = parted::Parted::read(self.server, &control, timeline, (shared, end)).await?;
        if parted.touched.is_empty() && parted.unread().is_empty() {
            return Ok(None);
        }
        let Salvage { rows, unread, folder, .. } = self.salvage(source).await?;
        if rows == 0 && unread.is_empty() {
            return Ok(None);
        }
        let said = format!(
            "{rows} rows that only it had, and {} things that could not be exported, were kept in {}",
            unread.len(),
            folder.unwrap_or_default()
        );
        tracing::warn!(%said, "nobody asked for a salvage");
        Ok(Some(said))
    }

    /// The rows from a server that does not run: it is started for this alone, where nobody else reaches it. A sentry that
    /// has not heard yet that a run sees to this server stops it once more; it is tried again then.
    async fn export_aside(
        &self,
        parted: &parted::Parted,
        partial: &Path,
        unread: &mut Vec<String>,
    ) -> Result<Vec<Table>, Fault> {
        let known = unread.len();
        let mut tries = 1;
        let failed = loop {
            let exported = match self.start_aside().await {
                Ok(aside) => export::tables(&aside, parted, partial, unread).await,
                Err(fault) => Err(fault),
            };
            self.end_aside().await?;
            match exported {
                Ok(tables) => return Ok(tables),
                Err(fault) if tries == TRIES => break fault,
                Err(fault) => tracing::warn!(tries, %fault, "no rows could be exported"),
            }
            unread.truncate(known);
            tries += 1;
            tokio::time::sleep(PAUSE).await;
        };
        unread.truncate(known);
        unread.push(format!(
            "the server was not running, and could not be started aside ({failed}): the rows of {} transactions are in the \
             log only; start it, fenced, and salvage under another run",
            parted.committed.len()
        ));
        Ok(Vec::new())
    }

    /// The timeline of the log, and where it ends.
    async fn log_end(&self, control: &Control, running: bool) -> Result<(Timeline, Lsn), Fault> {
        let unknown = || Fault::new(FaultKind::Unclear, "where the log of this server ends cannot be read");
        if running {
            let ends: Vec<(String, u32)> = sql::rows(self.server, "postgres", END).await?;
            let (lsn, timeline) = ends.first().ok_or_else(unknown)?;
            return Ok((Timeline::new(*timeline), Lsn::parse(lsn).ok_or_else(unknown)?));
        }
        let end = self.end_of_log(control).await?.ok_or_else(unknown)?;
        Ok((control.timeline, end))
    }

    /// Copies the files of the log that hold the range, and the histories of timelines; what is not there, in words.
    fn copy_log(
        &self,
        control: &Control,
        timeline: Timeline,
        (from, to): (Lsn, Lsn),
        into: &Path,
    ) -> Result<Vec<String>, Fault> {
        let mut unread = Vec::new();
        let log = self.server.data.join("pg_wal");
        let segments = from.get() / control.segment..=to.get().saturating_sub(1) / control.segment;
        let mut names: Vec<String> = segments
            .map(|number| wal::file_of(timeline, Lsn::new(number * control.segment), control.segment))
            .collect();
        let entries = std::fs::read_dir(&log).map_err(|error| durable::fault("read", &log, &error))?;
        let entries = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
        names.extend(entries.filter(|name| Path::new(name).extension().is_some_and(|ext| ext == "history")));
        for name in names {
            let from = log.join(&name);
            match std::fs::copy(&from, into.join(&name)) {
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                    unread.push(format!("the file {name} of the log is gone"));
                }
                Err(error) => return Err(durable::fault("copy", &from, &error)),
            }
        }
        Ok(unread)
    }
}
