//! Archives, databases and servers by the names a person gives them; and who is at work on which.
//!
//! **Invariant:** what works on a database and an archive holds a lock on the pair: nothing runs twice beside itself, and a
//! process that was killed holds none.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use lifeboat_archive::folder::Folder;
use lifeboat_archive::keys::KeyFile;
use lifeboat_archive::{Archive, Trouble};
use lifeboat_config::document::archive::Retention;
use lifeboat_config::wiring::{ArchiveWiring, BackupWiring, DatabaseWiring, RetentionWiring};
use lifeboat_config::{ArchivePlace, Config, Wiring};
use lifeboat_core::{DatabaseName, RegionName, WorkloadName};
use lifeboat_engine::ports::{Store, StoreError};
use serde::Serialize;

use crate::cli::Place;
use crate::commands::load;
use crate::failure::{Exit, Failure};

/// Which archive.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct Which {
    /// The archive, by its name in the configuration [default: the only one, or the first that the database goes to].
    #[arg(long, value_name = "NAME", conflicts_with_all = ["place", "key"])]
    pub(crate) archive: Option<String>,
    /// An archive that is in no configuration: a folder, s3://BUCKET/PREFIX or gs://BUCKET/PREFIX.
    #[arg(long, value_name = "PLACE", requires = "key")]
    pub(crate) place: Option<String>,
    /// File with the key to that archive.
    #[arg(long, value_name = "FILE", requires = "place")]
    pub(crate) key: Option<PathBuf>,
    /// Where its store is reached, when that is not the vendor's own address.
    #[arg(long, value_name = "URL", requires = "place")]
    pub(crate) endpoint: Option<String>,
}

/// An archive that was named.
pub(crate) struct Found {
    pub(crate) name: String,
    pub(crate) wiring: ArchiveWiring,
    #[cfg_attr(
        not(any(feature = "aws", feature = "gcp")),
        expect(dead_code, reason = "only buckets have one")
    )]
    endpoint: Option<String>,
}

impl Which {
    /// The archive that is meant.
    pub(crate) fn find(&self, place: &Place, database: Option<&DatabaseWiring>) -> Result<Found, Failure> {
        if let (Some(written), Some(key)) = (&self.place, &self.key) {
            let place = ArchivePlace::parse(written).map_err(|why| Failure::new(Exit::Usage, why))?;
            let wiring = bare(place, key);
            return Ok(Found { name: written.clone(), wiring, endpoint: self.endpoint.clone() });
        }
        let loaded = load(&place.config)?;
        let mut all = loaded.config.wiring.archives;
        let names =
            || loaded.document.archives.iter().map(|a| a.name.as_str().to_owned()).collect::<Vec<_>>();
        let first = database.and_then(|database| database.backups.keys().next().cloned());
        let name = match (&self.archive, first) {
            (Some(name), _) => name.clone(),
            (None, Some(first)) => first,
            (None, None) if all.len() == 1 => names().remove(0),
            (None, None) if all.is_empty() => {
                return Err(Failure::new(Exit::Config, "the configuration names no archive")
                    .hint("add [[archive]] with `name`, `place` and `key_file`"));
            }
            (None, None) => {
                let text = format!("which archive?  There are {}", names().join(", "));
                return Err(Failure::new(Exit::Usage, text).hint("--archive NAME"));
            }
        };
        match all.remove(&name) {
            Some(wiring) => {
                let endpoint = wiring.endpoint.as_ref().map(|url| url.as_str().to_owned());
                Ok(Found { name, wiring, endpoint })
            }
            None => {
                let text = format!("there is no archive `{name}` in {}", place.config.display());
                Err(Failure::new(Exit::Usage, text).hint(format!("there are: {}", names().join(", "))))
            }
        }
    }

    /// The same words again, for a command that lifeboat writes down.
    pub(crate) fn words(&self, place: &Place, name: &str) -> Vec<String> {
        let path =
            |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned()).display().to_string();
        match (&self.place, &self.key) {
            (Some(written), Some(key)) => {
                let mut words = vec!["--place".to_owned(), written.clone(), "--key".to_owned(), path(key)];
                words.extend(self.endpoint.iter().flat_map(|url| ["--endpoint".to_owned(), url.clone()]));
                words
            }
            _ => vec!["--config".to_owned(), path(&place.config), "--archive".to_owned(), name.to_owned()],
        }
    }
}

fn bare(place: ArchivePlace, key: &Path) -> ArchiveWiring {
    ArchiveWiring {
        place,
        key_file: key.to_owned(),
        endpoint: None,
        region: None,
        path_style: true,
        access_key: None,
        credentials_file: None,
        retention: RetentionWiring::of(&Retention::default()),
    }
}

impl Found {
    /// Where its objects are.
    pub(crate) async fn store(&self, make: bool) -> Result<Arc<dyn Store>, Failure> {
        match &self.wiring.place {
            ArchivePlace::Folder(folder) => {
                if make {
                    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
                    let text = || format!("the folder {} cannot be made", folder.display());
                    made.map_err(|error| Failure::because(Exit::Failed, text(), &error))?;
                }
                let opened = Folder::open(folder).map_err(|error| self.failed(&error.into()))?;
                Ok(Arc::new(opened))
            }
            ArchivePlace::S3(bucket) => self.s3(bucket).await,
            ArchivePlace::Gs(bucket) => self.gs(bucket),
        }
    }

    #[cfg(feature = "aws")]
    async fn s3(&self, bucket: &lifeboat_config::Bucket) -> Result<Arc<dyn Store>, Failure> {
        use lifeboat_aws::s3::{Bucket, Identity, S3};
        let identity = match &self.wiring.access_key {
            Some((id, secret)) => Identity::Files { id: id.clone(), secret: secret.clone(), token: None },
            None => Identity::Found,
        };
        let own = self.endpoint.is_some();
        let bucket = Bucket {
            name: bucket.name.clone(),
            prefix: bucket.prefix.clone(),
            region: self.wiring.region.clone(),
            endpoint: self.endpoint.clone(),
            path_style: own && self.wiring.path_style,
            identity,
        };
        Ok(Arc::new(S3::open(&bucket).await))
    }

    #[cfg(not(feature = "aws"))]
    #[expect(clippy::unused_async, reason = "with the feature it waits")]
    async fn s3(&self, _: &lifeboat_config::Bucket) -> Result<Arc<dyn Store>, Failure> {
        Err(Failure::new(Exit::Config, "this lifeboat was built without s3"))
    }

    #[cfg(feature = "gcp")]
    fn gs(&self, bucket: &lifeboat_config::Bucket) -> Result<Arc<dyn Store>, Failure> {
        use lifeboat_gcp::gcs::{Bucket, Gcs, Identity};
        let identity = match &self.wiring.credentials_file {
            Some(file) => Identity::File(file.clone()),
            // A server of one's own, without an account: for trying out.
            None if self.endpoint.as_ref().is_some_and(|url| url.starts_with("http://")) => Identity::Nobody,
            None => Identity::Instance(None),
        };
        let (name, prefix) = (bucket.name.clone(), bucket.prefix.clone());
        let bucket = Bucket { name, prefix, endpoint: self.endpoint.clone(), identity };
        Ok(Arc::new(Gcs::open(&bucket).map_err(|error| self.failed(&error.into()))?))
    }

    #[cfg(not(feature = "gcp"))]
    fn gs(&self, _: &lifeboat_config::Bucket) -> Result<Arc<dyn Store>, Failure> {
        Err(Failure::new(Exit::Config, "this lifeboat was built without gs"))
    }

    /// Its key.
    pub(crate) fn key(&self) -> Result<KeyFile, Failure> {
        KeyFile::open(&self.wiring.key_file).map_err(|error| self.failed(&error))
    }

    /// The archive, open.
    pub(crate) async fn open(&self) -> Result<Archive, Failure> {
        let key = self.key()?;
        Archive::open(self.store(false).await?, &key).await.map_err(|error| self.failed(&error))
    }

    /// What an archive's trouble means for a command.
    pub(crate) fn failed(&self, trouble: &Trouble) -> Failure {
        failed(format!("the archive {} cannot be used", self.name), trouble)
    }
}

/// A command that failed because of an archive.
pub(crate) fn failed(what: impl Into<String>, trouble: &Trouble) -> Failure {
    let (exit, hint) = match trouble {
        Trouble::Refused(_) => (Exit::Refused, None),
        Trouble::NoArchive(_) => (Exit::Config, None),
        Trouble::KeyFile { .. } => (
            Exit::Config,
            Some(
                "is it the copy that was put aside?  lifeboat archive init makes a new archive, with a key of its own",
            ),
        ),
        Trouble::NoKey { .. } | Trouble::Newer { .. } => (Exit::Config, None),
        Trouble::Store(StoreError::Denied(_)) => (Exit::Failed, Some("lifeboat archive check")),
        Trouble::Damaged { .. } => (Exit::Failed, Some("lifeboat backup verify names all that is damaged")),
        _ => (Exit::Failed, None),
    };
    let failure = Failure::because(exit, what, trouble);
    match hint {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}

/// A database as it is named on the command line: `WORKLOAD/DATABASE`, or `WORKLOAD` when it has one.
pub(crate) struct Chosen {
    pub(crate) config: Config,
    pub(crate) workload: WorkloadName,
    pub(crate) database: DatabaseName,
}

impl Chosen {
    /// The database that is meant.
    pub(crate) fn find(place: &Place, named: &str) -> Result<Self, Failure> {
        let config = load(&place.config)?.config;
        let usage = |text: String, hint: String| Err(Failure::new(Exit::Usage, text).hint(hint));
        let (workload, database) = match named.split_once('/') {
            Some((workload, database)) => (workload, Some(database)),
            None => (named, None),
        };
        let workload = WorkloadName::new(workload);
        let listed = |wiring: &Wiring| {
            let pairs = wiring
                .workloads
                .iter()
                .flat_map(|(w, written)| written.databases.keys().map(move |d| format!("{w}/{d}")));
            pairs.collect::<Vec<_>>().join(", ")
        };
        let there = format!("there are: {}", listed(&config.wiring));
        let Some(written) = config.wiring.workloads.get(&workload) else {
            return usage(format!("there is no workload `{workload}`"), there);
        };
        let database = match database {
            Some(database) => DatabaseName::new(database),
            None => match written.databases.keys().collect::<Vec<_>>().as_slice() {
                [only] => (*only).clone(),
                [] => return usage(format!("`{workload}` has no database"), there),
                _ => return usage(format!("which database of `{workload}`?"), there),
            },
        };
        if !written.databases.contains_key(&database) {
            return usage(format!("`{workload}` has no database `{database}`"), there);
        }
        Ok(Self { config, workload, database })
    }

    /// How it is reached.
    pub(crate) fn wiring(&self) -> &DatabaseWiring {
        &self.config.wiring.workloads[&self.workload].databases[&self.database]
    }

    /// How it is backed up to that archive; as the defaults say, when the configuration does not.
    pub(crate) fn backup(&self, archive: &str) -> Option<&BackupWiring> {
        self.wiring().backups.get(archive)
    }

    /// As a person reads it.
    pub(crate) fn shown(&self) -> String {
        format!("{}/{}", self.workload, self.database)
    }

    /// What is at work on it and an archive has its files here.
    pub(crate) fn file(&self, kind: &str, archive: &str, last: &str) -> PathBuf {
        let runs = runs(&self.config.wiring);
        runs.join(run_file(kind, &self.workload, &self.database, archive, last))
    }
}

/// Where what is at work on databases and archives has its files.
pub(crate) fn runs(wiring: &Wiring) -> PathBuf {
    wiring.agent.state.join("runs")
}

/// The name of such a file: who writes it and the agent that reads it must agree.
pub(crate) fn run_file(
    kind: &str,
    workload: &WorkloadName,
    database: &DatabaseName,
    archive: &str,
    last: &str,
) -> String {
    format!("{kind}.{workload}.{database}.{archive}.{last}")
}

/// Held for as long as something works on a database and an archive.
#[derive(Debug)]
pub(crate) struct Lock(#[expect(dead_code, reason = "what holds it is that it is open")] File);

impl Lock {
    /// Takes it; none when another process has it.
    pub(crate) fn take(path: &Path) -> Result<Option<Self>, Failure> {
        let wrong = |error: &dyn std::error::Error| {
            Failure::because(Exit::Failed, format!("{} cannot be locked", path.display()), error)
                .hint("run it as the agent's user")
        };
        if let Some(folder) = path.parent() {
            let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
            made.map_err(|error| wrong(&error))?;
        }
        let opened = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path);
        let file = opened.map_err(|error| wrong(&error))?;
        match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Self(file))),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(errno) => Err(wrong(&errno)),
        }
    }
}

/// Writes what a run has to say where the agent reads it: whole, or not at all.
pub(crate) fn say<T: Serialize>(path: &Path, value: &T) {
    let Ok(text) = serde_json::to_vec(value) else { return };
    let next = path.with_extension("next");
    let written = std::fs::write(&next, text).and_then(|()| std::fs::rename(&next, path));
    if let Err(error) = written {
        tracing::warn!(%error, file = %path.display(), "how far it is cannot be written down");
    }
}

/// Runs what moves many bytes: on all cores, and not on the agent's thread.
pub(crate) fn work<T>(of: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::because(Exit::Failed, "cannot start", &error))?;
    let done = runtime.block_on(of);
    runtime.shutdown_timeout(Duration::from_secs(1));
    done
}

/// Returns when whoever started this is gone: the pipe from there has ended. Never, when nothing was said of one.
pub(crate) async fn untethered(tethered: bool) {
    if !tethered {
        return std::future::pending().await;
    }
    let (gone, heard) = tokio::sync::oneshot::channel();
    // A thread of its own: a read that waits must not keep the process from ending.
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
        let _ = gone.send(());
    });
    let _ = heard.await;
}

/// A region by its name, one of the database's.
pub(crate) fn region(chosen: &Chosen, named: &str) -> Result<RegionName, Failure> {
    let region = RegionName::new(named);
    if chosen.wiring().endpoints.contains_key(&region) {
        return Ok(region);
    }
    let all: Vec<_> = chosen.wiring().endpoints.keys().map(ToString::to_string).collect();
    let text = format!("{} has no server in `{named}`", chosen.shown());
    Err(Failure::new(Exit::Usage, text).hint(format!("it has one in {}", all.join(", "))))
}
