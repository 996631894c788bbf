//! Copying the server anew, beside its old data folder, which then makes way.
//!
//! **Invariant:** the old folder is moved aside, never deleted before the new one streams.
//! **Invariant:** a copy that was interrupted is begun again; only a whole one takes the place.

use std::fs;
use std::path::{Path, PathBuf};

use lifeboat_core::outcome::RejoinWay;
use lifeboat_core::{Fault, FaultKind, Source};

use crate::host::lock::Lock;
use crate::host::stage::{Begun, Stage};
use crate::host::{Host, control, durable, program, sql};

/// What the old data folder is called, before the epoch.
const DIVERGED: &str = ".diverged-e";

/// A path with something after its name.
fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(ending);
    path.with_file_name(name)
}

impl Host<'_> {
    fn new_folder(&self) -> PathBuf {
        beside(&self.server.data, ".lifeboat-new")
    }

    /// Copies the source into a folder beside.
    ///
    /// # Errors
    /// `Refused` when that is not allowed, or fails though the source answers; `Unreachable` when it does not.
    pub(super) async fn copy(
        &self,
        source: &Source,
        because: Option<String>,
        lock: &Lock,
    ) -> Result<Begun, Fault> {
        let login = sql::source_login(source, &self.server.source);
        self.may_copy(&login, &source.slot, because.as_deref())?;
        self.stop_old(source).await?;
        self.mark(Stage::Copying, because.clone())?;
        let new = self.new_folder();
        durable::remove(&new)?;
        let mut command = program::command(self.server.programs.join("pg_basebackup"));
        command.args(["-w", "--checkpoint=fast", "--wal-method=stream", "--slot", &source.slot, "-D"]);
        let ended = program::run(command.arg(&new).arg("-d").arg(login).stdin(lock.share()?)).await?;
        if !ended.succeeded() {
            let failure = ended.failure("pg_basebackup");
            let answers = sql::answers(self.server, source).await?;
            let kind = if answers { FaultKind::Refused } else { FaultKind::Unreachable };
            return Err(Fault::new(kind, failure));
        }
        self.know_the_copy(&new).await?;
        self.make_standby(&new, source)?;
        self.mark(Stage::Swapping, because)
    }

    /// Refuses a copy of another cluster: the address that this host knows the new primary by may lead elsewhere.
    async fn know_the_copy(&self, new: &Path) -> Result<(), Fault> {
        let (found, wanted) = (control::read_in(self.server, new).await?.system, self.request.system);
        if found == wanted {
            return Ok(());
        }
        durable::remove(new)?;
        let detail =
            format!("what was copied is of cluster {found}, not {wanted}; the old folder stays in its place");
        Err(Fault::new(FaultKind::Refused, detail))
    }

    fn may_copy(&self, login: &str, slot: &str, because: Option<&str>) -> Result<(), Fault> {
        let data = self.server.data.display();
        let because = because.unwrap_or("it cannot be rewound");
        let tablespaces = fs::read_dir(self.server.data.join("pg_tblspc"));
        let why = if !self.server.rebuild {
            "host.toml says rebuild = false"
        } else if tablespaces.is_ok_and(|mut entries| entries.next().is_some()) {
            "it has tablespaces, whose folders are not moved aside"
        } else {
            return Ok(());
        };
        let programs = self.server.programs.display();
        Err(Fault::new(
            FaultKind::Refused,
            format!(
                "{because}; {why}. The server is stopped, and must not be started as it is. To copy it anew, move \
                 {data} aside and run: {programs}/pg_basebackup -D {data} -R --checkpoint=fast --slot {slot} -d \"{login}\""
            ),
        ))
    }

    /// Lets the whole copy take the place of the data folder. Each rename may have been done before.
    pub(super) async fn swap(&self, source: &Source, because: Option<String>) -> Result<Begun, Fault> {
        let (data, new) = (&self.server.data, self.new_folder());
        if new.exists() {
            if data.exists() {
                self.stop_old(source).await?;
                let mut aside = beside(data, &format!("{DIVERGED}{}", self.request.epoch));
                for attempt in 2.. {
                    if !aside.exists() {
                        break;
                    }
                    aside = beside(data, &format!("{DIVERGED}{}-{attempt}", self.request.epoch));
                }
                durable::rename(data, &aside)?;
            }
            durable::rename(&new, data)?;
        }
        self.make_standby(data, source)?;
        self.mark(Stage::Starting(RejoinWay::Rebuild), because)
    }

    /// Removes old data folders but the newest that are to stay.
    pub(super) fn remove_old_copies(&self) {
        let data = &self.server.data;
        let (Some(parent), Some(name)) = (data.parent(), data.file_name().and_then(|name| name.to_str()))
        else {
            return;
        };
        let prefix = format!("{name}{DIVERGED}");
        let mut copies: Vec<_> = fs::read_dir(parent)
            .into_iter()
            .flatten()
            .flatten()
            .filter(|entry| entry.file_name().to_str().is_some_and(|name| name.starts_with(&prefix)))
            .filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path())))
            .collect();
        copies.sort();
        let surplus = copies.len().saturating_sub(self.server.kept_copies);
        for (_, copy) in copies.into_iter().take(surplus) {
            tracing::info!(copy = %copy.display(), "an old data folder is removed");
            if let Err(fault) = durable::remove(&copy) {
                tracing::warn!(%fault, "an old data folder stays");
            }
        }
    }
}
