//! A base backup of a server into an archive.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use bytes::BytesMut;
use lifeboat_archive::manifest::tree::TreePath;
use lifeboat_archive::manifest::{BadPage, MOST_BAD_PAGES};
use lifeboat_archive::wal::survey;
use lifeboat_archive::{Archive, Backup, BackupId, Ending, FileHeading, Point, Summary};
use lifeboat_core::{AgentName, DatabaseName, Epoch, Lsn, Timeline, WorkloadName};
use lifeboat_postgres::replication::{BaseBackupOptions, Endpoint, Entry, Item, Replication, Tablespace};
use serde::Serialize;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::stream::{Reception, receive};
use super::{Trouble, segment_size};

/// The longest manifest of a server that is taken: it has a line for each file.
const LONGEST_MANIFEST: usize = 256 << 20;

/// How long the WAL of a backup may take to come into the archive.
const WAL_LIMIT: Duration = Duration::from_mins(10);

/// Between two looks whether it has.
const LOOK: Duration = Duration::from_millis(200);

/// Progress is told each time so many more bytes have come.
const STEP: u64 = 4 << 20;

/// What is backed up, and how.
#[derive(Clone, Debug)]
pub(crate) struct Job {
    /// The server.
    pub(crate) endpoint: Endpoint,
    /// Whose database it is.
    pub(crate) workload: WorkloadName,
    /// Which.
    pub(crate) database: DatabaseName,
    /// Who makes it.
    pub(crate) agent: AgentName,
    /// In which epoch of the workload.
    pub(crate) epoch: Epoch,
    /// What it is compared with.
    pub(crate) previous: Option<BackupId>,
    /// The most KiB a second that the server sends.
    pub(crate) max_rate: Option<u32>,
    /// Make the checkpoint that it begins with at once.
    pub(crate) fast_checkpoint: bool,
    /// Nobody receives the WAL: this run does, for as long as it takes.
    pub(crate) own_wal: bool,
}

/// How far it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Progress {
    /// Bytes that came.
    pub(crate) done: u64,
    /// Bytes that will come, roughly; none when the server does not say.
    pub(crate) total: Option<u64>,
    /// Bytes that were new.
    pub(crate) new: u64,
    /// Files that came.
    pub(crate) files: u64,
}

/// What came of it.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Done {
    /// The backup.
    #[serde(flatten)]
    pub(crate) summary: Summary,
    /// Where replay begins.
    pub(crate) start: Lsn,
    /// What replay must reach at least.
    pub(crate) end: Lsn,
    /// The timeline that is on.
    pub(crate) timeline: Timeline,
    /// Pages whose checksum is wrong.
    pub(crate) bad_pages: u64,
    /// What the server said by the way.
    pub(crate) warnings: Vec<String>,
}

/// Makes one. When it is dropped nothing is left that can be taken for a backup.
pub(crate) async fn back_up(
    archive: &Archive,
    job: &Job,
    mut told: impl FnMut(&Progress),
) -> Result<Done, Trouble> {
    let clock = job.endpoint.clock;
    let mut server = Replication::connect(job.endpoint.clone()).await?;
    let identity = server.identify().await?;
    let size = segment_size(&mut server).await?;
    // Before the backup begins: what it needs must not be gone when it ends.
    let own = match job.own_wal {
        true => Some(Own::begin(archive, job).await?),
        false => None,
    };
    let begun = clock.now();
    let options = BaseBackupOptions {
        label: format!("lifeboat {}/{}", job.workload, job.database),
        fast_checkpoint: job.fast_checkpoint,
        max_rate: job.max_rate,
        ..BaseBackupOptions::default()
    };
    let mut stream = Box::pin(server.base_backup(&options)).await?;
    let (start, timeline) = (stream.start, stream.timeline);
    let point = Point {
        workload: job.workload.clone(),
        database: job.database.clone(),
        system: identity.system,
        timeline,
        start,
        begun,
        server_version: identity.server_version_num,
        segment_size: size.bytes(),
        agent: job.agent.clone(),
        epoch: job.epoch,
    };
    let mut backup = Box::pin(Backup::begin(archive, point, job.previous.clone())).await?;
    let mut total = stream.size_kib;
    for tablespace in &stream.tablespaces {
        total = total.zip(tablespace.size_kib).map(|(one, other)| one + other);
        let location = tablespace.location.display().to_string();
        backup.tablespace(tablespace.oid, location).await?;
    }
    let mut progress = Progress { total: total.map(|kib| kib * 1024), ..Progress::default() };
    let (mut told_at, mut manifest) = (0, BytesMut::new());
    let (mut warnings, mut bad_pages) = (Vec::new(), Vec::new());
    let (mut bad_page_count, mut end) = (0, None);
    told(&progress);
    while let Some(item) = stream.next().await? {
        match item {
            Item::Data(bytes) => {
                progress.done += bytes.len() as u64;
                backup.data(&bytes).await?;
            }
            Item::File(entry) => backup.file(heading(entry)?).await?,
            Item::FileEnd => {
                backup.file_end().await?;
                progress.files += 1;
            }
            Item::Directory(entry) => backup.folder(entry.tablespace, path(&entry.path)?, entry.mode).await?,
            // A tablespace's link is made from where the tablespace goes.
            Item::Symlink { entry, .. } if stream.tablespaces.iter().any(|known| is_link(&entry, known)) => {}
            Item::Symlink { entry, target } => {
                backup.link(entry.tablespace, path(&entry.path)?, target.display().to_string()).await?;
            }
            Item::Manifest(bytes) if manifest.len() + bytes.len() > LONGEST_MANIFEST => {
                return Err(Trouble::Odd("the server's manifest is too long".to_owned()));
            }
            Item::Manifest(bytes) => manifest.extend_from_slice(&bytes),
            Item::Progress { .. } => {}
            Item::Warning(text) => {
                tracing::warn!(text, "the server says");
                warnings.push(text);
            }
            Item::BadPage { file, block } => {
                tracing::error!(file = %file.display(), block, "a page has a wrong checksum");
                bad_page_count += 1;
                if bad_pages.len() < MOST_BAD_PAGES {
                    bad_pages.push(BadPage { tablespace: None, path: path(&file)?, block: u64::from(block) });
                }
            }
            Item::End(ended) => end = Some(ended),
        }
        if progress.done >= told_at + STEP {
            told_at = progress.done;
            progress.new = backup.sums().new;
            told(&progress);
        }
    }
    let end = end.ok_or_else(|| Trouble::Odd("the server did not say where the backup ends".to_owned()))?;
    if end.damaged {
        bad_page_count = bad_page_count.max(1);
    }
    told(&progress);
    match own {
        Some(own) => own.until(end.lsn).await?,
        None => until_covered(archive, identity.system, (start, timeline, end.lsn)).await?,
    }
    let server_manifest = (!manifest.is_empty()).then(|| manifest.freeze());
    let ending = Ending {
        end: end.lsn,
        timeline: end.timeline,
        ended: clock.now(),
        bad_pages,
        bad_page_count,
        server_manifest,
    };
    let summary = Box::pin(backup.finish(ending)).await?;
    Ok(Done { summary, start, end: end.lsn, timeline: end.timeline, bad_pages: bad_page_count, warnings })
}

fn is_link(entry: &Entry, tablespace: &Tablespace) -> bool {
    entry.tablespace.is_none() && entry.path == Path::new("pg_tblspc").join(tablespace.oid.to_string())
}

fn heading(entry: Entry) -> Result<FileHeading, Trouble> {
    Ok(FileHeading {
        tablespace: entry.tablespace,
        path: path(&entry.path)?,
        mode: entry.mode,
        mtime: i64::try_from(entry.mtime).unwrap_or(i64::MAX),
        size: entry.size,
    })
}

fn path(path: &Path) -> Result<TreePath, Trouble> {
    let checked = TreePath::from_bytes(path.as_os_str().as_bytes());
    checked.map_err(|error| Trouble::Odd(format!("the server sent {}: {error}", path.display())))
}

/// Waits until somebody else has brought the WAL of the backup into the archive.
async fn until_covered(
    archive: &Archive,
    system: lifeboat_core::SystemIdentifier,
    (start, timeline, end): (Lsn, Timeline, Lsn),
) -> Result<(), Trouble> {
    let mut late = std::pin::pin!(tokio::time::sleep(WAL_LIMIT));
    loop {
        let Err(missing) = survey(archive, system).await?.covers(start, timeline, end) else { return Ok(()) };
        tokio::select! {
            () = &mut late => return Err(Trouble::WithoutWal(missing)),
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

/// The WAL of this run, received by itself.
struct Own {
    held: watch::Receiver<Option<super::stream::Received>>,
    stop: CancellationToken,
    task: AbortOnDropHandle<Result<(), Trouble>>,
}

impl Own {
    async fn begin(archive: &Archive, job: &Job) -> Result<Self, Trouble> {
        let (told, mut held) = watch::channel(None);
        let stop = CancellationToken::new();
        let reception = Reception {
            endpoint: Endpoint { application_name: "lifeboat backup".to_owned(), ..job.endpoint.clone() },
            slot: None,
            piece_every: Duration::from_secs(1),
        };
        let (archive, ended) = (archive.clone(), stop.clone());
        let task = tokio::spawn(async move { receive(&archive, &reception, &told, &ended).await });
        let mut own = Self { held: held.clone(), stop, task: AbortOnDropHandle::new(task) };
        // From here on the server keeps what is not ours yet.
        if held.wait_for(Option::is_some).await.is_err() {
            return Err(own.ended().await);
        }
        Ok(own)
    }

    async fn until(mut self, end: Lsn) -> Result<(), Trouble> {
        let mut held = self.held.clone();
        let there =
            |told: &Option<super::stream::Received>| told.as_ref().is_some_and(|told| told.durable >= end);
        let waited = tokio::time::timeout(WAL_LIMIT, held.wait_for(there)).await.map(|heard| heard.is_ok());
        match waited {
            Ok(true) => {
                self.stop.cancel();
                (&mut self.task).await.map_err(|error| Trouble::Odd(error.to_string()))?
            }
            Ok(false) => Err(self.ended().await),
            Err(_) => Err(Trouble::Odd(format!("the WAL up to {end} did not come within {WAL_LIMIT:?}"))),
        }
    }

    async fn ended(&mut self) -> Trouble {
        match (&mut self.task).await {
            Ok(Err(trouble)) => trouble,
            Ok(Ok(())) => Trouble::Odd("the WAL stream ended before the backup did".to_owned()),
            Err(error) => Trouble::Odd(error.to_string()),
        }
    }
}
