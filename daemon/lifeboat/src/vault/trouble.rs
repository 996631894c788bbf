//! What ends a run between a server and an archive.

use lifeboat_archive::wal::Gap;
use lifeboat_postgres::replication::{Error, Remedy};
use thiserror::Error as ThisError;

/// Why a run ended.
#[derive(Debug, ThisError)]
pub(crate) enum Trouble {
    /// The archive did not take it.
    #[error(transparent)]
    Archive(#[from] lifeboat_archive::Trouble),
    /// The server did not give it.
    #[error(transparent)]
    Server(#[from] Error),
    /// The WAL that a backup needs did not come into the archive in time.
    #[error("the backup needs WAL that is not in the archive: {0}")]
    WithoutWal(Gap),
    /// The archive has WAL that this server never had.
    #[error("{0}")]
    Behind(String),
    /// Something that should not be.
    #[error("{0}")]
    Odd(String),
}

impl Trouble {
    /// Whether it may pass when it is tried again.
    pub(crate) fn passing(&self) -> bool {
        match self {
            Self::Server(error) => matches!(error.remedy(), Remedy::Again | Remedy::MakeSlot),
            Self::Archive(lifeboat_archive::Trouble::Store(error)) => error.passing(),
            Self::Archive(_) | Self::WithoutWal(_) | Self::Behind(_) | Self::Odd(_) => false,
        }
    }

    /// Whether WAL is missing for good: a new base backup makes the archive whole again.
    pub(crate) fn wants_base_backup(&self) -> bool {
        matches!(self, Self::Server(error) if error.remedy() == Remedy::BaseBackup)
    }

    /// What to do, as a sentence for a person.
    pub(crate) fn hint(&self) -> Option<String> {
        match self {
            Self::Server(error) => Some(error.hint()),
            Self::WithoutWal(_) => {
                Some("is `lifeboat wal receive` running, and does it reach the server?".to_owned())
            }
            Self::Behind(_) => {
                Some("is it a former primary? Back up the region that the workload lives in".to_owned())
            }
            Self::Archive(_) | Self::Odd(_) => None,
        }
    }
}
