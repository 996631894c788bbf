//! What keeps a sentry from taking up its post.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

/// Why it cannot stand there.
#[derive(Debug, Error)]
pub enum Trouble {
    /// A file, folder or socket cannot be used.
    #[error("{path} cannot be used", path = path.display())]
    Unusable {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Another one stands there.
    #[error("another sentry holds the lock in {}: one for a state folder", .0.display())]
    Taken(PathBuf),
    /// The configuration cannot be read.
    #[error("{path}: {why}", path = path.display())]
    Settings {
        /// The file.
        path: PathBuf,
        /// All that is wrong with it.
        why: String,
    },
}

impl Trouble {
    pub(crate) fn at(path: &Path, source: io::Error) -> Self {
        Self::Unusable { path: path.to_owned(), source }
    }
}
