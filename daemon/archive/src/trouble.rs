//! What can be wrong with an archive, by kind.

use std::path::PathBuf;

use lifeboat_engine::ports::{ObjectName, StoreError};
use thiserror::Error;

/// Why the archive did not do it.
#[derive(Debug, Error)]
pub enum Trouble {
    /// The store did not.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// An object is not what it should be: cut, changed, of another archive, or in the place of another one.
    #[error("{name} is damaged: {why}")]
    Damaged {
        /// Which.
        name: ObjectName,
        /// In what way.
        why: String,
    },
    /// An object needs a key that the key file does not open.
    #[error("{name} needs the data key {key}, and the key file does not open it")]
    NoKey {
        /// Which.
        name: ObjectName,
        /// The data key's name.
        key: String,
    },
    /// The key file cannot be used.
    #[error("the key file {path}: {why}", path = path.display())]
    KeyFile {
        /// Where it is.
        path: PathBuf,
        /// Why not.
        why: String,
    },
    /// There is no archive at that place.
    #[error("there is no archive at {0}. Make one with: lifeboat archive init")]
    NoArchive(String),
    /// It was written by a lifeboat that knows more.
    #[error("the archive at {place} has format {format}; this lifeboat reads up to {ours}: take a newer one")]
    Newer {
        /// Where.
        place: String,
        /// Its format.
        format: u32,
        /// The newest that is known here.
        ours: u32,
    },
    /// There is an object of that name already, and it holds something else: two sources write as if they were one.
    #[error("{name} is there already with other content ({what}); nothing was replaced")]
    Conflict {
        /// Which.
        name: ObjectName,
        /// What differs.
        what: String,
    },
    /// WAL that should be there is not.
    #[error(transparent)]
    Gap(#[from] crate::wal::Gap),
    /// A file beside us, not in the store.
    #[error("{path}", path = path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// A file came out of the archive, and is not the one that went in.
    #[error("{path} of the backup {backup} does not have the digest that it had")]
    Untrue {
        /// Which file.
        path: String,
        /// Of which backup.
        backup: String,
    },
    /// The store has an object and does not give it.
    #[error("{name} cannot be read: {why}")]
    Unreadable {
        /// Which.
        name: ObjectName,
        /// What the store said.
        why: String,
    },
    /// It was refused before anything was done.
    #[error("{0}")]
    Refused(String),
    /// A part of lifeboat did not work.
    #[error("{0}")]
    Broken(String),
}

impl Trouble {
    /// An object that is damaged.
    pub(crate) fn damaged(name: &ObjectName, why: impl Into<String>) -> Self {
        Self::Damaged { name: name.clone(), why: why.into() }
    }

    /// A file that could not be read or written.
    pub(crate) fn file(path: impl Into<PathBuf>, source: std::io::Error) -> Self {
        Self::File { path: path.into(), source }
    }
}
