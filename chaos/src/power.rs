//! The power controller of a region: the lab's STONITH.
//!
//! What a managed power strip or a hypervisor's API is in a data centre, `chaos power off` is here: lifeboat
//! calls it as the fence command of a region.
//!
//! **Invariant:** it says "off" only after no process of the region was left, and from the moment it starts
//! nothing in the lab starts one again (`off` is on record before the first kill).
//! **Invariant:** an order of an older epoch than the one on record changes nothing.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::process::{self, ProcessError};
use crate::region::Region;

/// Why a region is off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Off {
    /// The epoch of the order that powered it off.
    pub epoch: u64,
}

/// A region could not be powered off.
#[derive(Debug, thiserror::Error)]
pub enum PowerError {
    /// Someone newer is in charge.
    #[error("refused: {region} was powered off under epoch {recorded}, this order has epoch {epoch}")]
    Stale {
        /// Which.
        region: Region,
        /// The epoch of this order.
        epoch: u64,
        /// The newer one on record.
        recorded: u64,
    },
    /// There is no lab in that folder.
    #[error("{path} is not the folder of a lab: it has no folder {region}")]
    NoLab {
        /// The folder.
        path: PathBuf,
        /// Which region was looked for.
        region: Region,
    },
    /// The record could not be written.
    #[error("cannot record in {path} that the region is off")]
    Record {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Its processes could not be found or ended.
    #[error(transparent)]
    Process(#[from] ProcessError),
}

fn record(lab: &Path, region: Region) -> PathBuf {
    lab.join(format!("{region}.off"))
}

/// Whether a region is off, and why.
#[must_use]
pub fn state(lab: &Path, region: Region) -> Option<Off> {
    serde_json::from_slice(&std::fs::read(record(lab, region)).ok()?).ok()
}

/// Powers a region off and returns the ids of the processes this call killed; none when it was off already.
///
/// # Errors
/// [`PowerError`]; then the region is not proven to be off.
pub fn off(lab: &Path, region: Region, epoch: u64) -> Result<Vec<i32>, PowerError> {
    let folder = region.folder(lab);
    // Processes are matched by the real path of their working directory.
    let folder = folder.canonicalize().map_err(|_| PowerError::NoLab { path: lab.to_owned(), region })?;
    if let Some(Off { epoch: recorded }) = state(lab, region)
        && recorded > epoch
    {
        return Err(PowerError::Stale { region, epoch, recorded });
    }
    let path = record(lab, region);
    let fresh = path.with_extension("off.new");
    serde_json::to_vec(&Off { epoch })
        .map_err(io::Error::from)
        .and_then(|text| std::fs::write(&fresh, text))
        .and_then(|()| std::fs::rename(&fresh, &path))
        .map_err(|source| PowerError::Record { path, source })?;
    Ok(process::kill_within(&folder)?)
}

/// Lets a region be started again.
///
/// # Errors
/// When the record cannot be removed.
pub fn on(lab: &Path, region: Region) -> Result<(), PowerError> {
    let path = record(lab, region);
    match std::fs::remove_file(&path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(PowerError::Record { path, source }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::{Nursery, Owner, alive, tethered};

    #[test]
    fn off_kills_what_is_left_is_on_record_and_can_be_repeated() {
        let lab = tempfile::tempdir().unwrap();
        let folder = Region::East.folder(lab.path());
        std::fs::create_dir(&folder).unwrap();
        let nursery = Nursery::open().unwrap();
        let mut sleep = tethered(Path::new("sleep"), Owner::Same);
        sleep.arg("600").current_dir(&folder);
        let pid = nursery.start(sleep).unwrap();
        assert_eq!(state(lab.path(), Region::East), None);
        assert_eq!(off(lab.path(), Region::East, 7).unwrap(), vec![pid]);
        assert!(!alive(pid));
        assert_eq!(off(lab.path(), Region::East, 7).unwrap(), Vec::<i32>::new());
        assert_eq!(state(lab.path(), Region::East), Some(Off { epoch: 7 }));
        assert!(matches!(off(lab.path(), Region::East, 6), Err(PowerError::Stale { recorded: 7, .. })));
        on(lab.path(), Region::East).unwrap();
        assert_eq!(state(lab.path(), Region::East), None);
    }

    #[test]
    fn a_folder_that_is_no_lab_is_an_error_and_not_a_fence() {
        let nowhere = tempfile::tempdir().unwrap();
        assert!(matches!(off(nowhere.path(), Region::East, 1), Err(PowerError::NoLab { .. })));
    }
}
