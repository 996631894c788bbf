//! One act at a time on the server of a database.
//!
//! A second invocation comes when the agent was killed and asks again while the first goes on. It waits, and then
//! finds the effect done. `pg_rewind` and `pg_basebackup` are given the lock as their standard input, which they do
//! not read: when this process is killed and they go on, the lock is held until they end too.
//!
//! **Invariant:** the lock goes with the processes that hold it, so a crash leaves none behind.

use std::fs::{File, TryLockError};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use lifeboat_core::{Fault, FaultKind};

use crate::host::durable::fault;

/// Between two tries. Polled because a wait for a file lock cannot be given a limit.
const PAUSE: Duration = Duration::from_millis(20);

/// The lock, for as long as it lives.
#[derive(Debug)]
pub(super) struct Lock(File);

impl Lock {
    /// Takes the lock, for at most `limit`.
    ///
    /// # Errors
    /// `Unclear` when another invocation holds it all that time.
    pub(super) async fn take(path: &Path, limit: Duration) -> Result<Self, Fault> {
        let file = File::options().create(true).append(true).open(path);
        let file = file.map_err(|error| fault("open", path, &error))?;
        let taken = tokio::time::timeout(limit, async {
            loop {
                match file.try_lock() {
                    Ok(()) => return Ok(()),
                    Err(TryLockError::WouldBlock) => tokio::time::sleep(PAUSE).await,
                    Err(TryLockError::Error(error)) => return Err(fault("lock", path, &error)),
                }
            }
        });
        match taken.await {
            Ok(Ok(())) => Ok(Self(file)),
            Ok(Err(fault)) => Err(fault),
            Err(_) => Err(Fault::new(
                FaultKind::Unclear,
                format!(
                    "another rejoin goes on: {} was held for all of {} ms",
                    path.display(),
                    limit.as_millis()
                ),
            )),
        }
    }

    /// A share in it for a child, as a standard input that must not be read.
    pub(super) fn share(&self) -> Result<Stdio, Fault> {
        let shared = self.0.try_clone();
        shared.map(Stdio::from).map_err(|error| fault("share", Path::new("the lock"), &error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_second_one_waits_and_a_child_keeps_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("orders.lock");
        let first = Lock::take(&path, Duration::from_secs(10)).await.unwrap();
        let held = Lock::take(&path, Duration::from_millis(50)).await.unwrap_err();
        assert_eq!(held.kind, FaultKind::Unclear);
        let mut child =
            std::process::Command::new("sleep").arg("600").stdin(first.share().unwrap()).spawn().unwrap();
        drop(first);
        assert!(Lock::take(&path, Duration::from_millis(50)).await.is_err(), "the child holds it");
        child.kill().unwrap();
        child.wait().unwrap();
        Lock::take(&path, Duration::from_secs(10)).await.unwrap();
    }
}
