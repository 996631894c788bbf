//! The record, in SQLite: appended, flushed to disk, never changed.
//!
//! Each record has a place without gaps, a format version and a sum over all of it. Opening reads
//! everything back; a record that is damaged, missing or from a newer lifeboat is refused with its place,
//! because a state made from the rest would be a guess.
//!
//! **Invariant:** `append` returns after the records are on disk (`synchronous = FULL`), or with an error
//! after which none of them is there.
//! **Invariant:** one process holds the journal (`locking_mode = EXCLUSIVE`): a second agent on the same
//! state folder does not start.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lifeboat_core::{Moment, Record, Stamped};
use rusqlite::{Connection, OpenFlags, params};
use thiserror::Error;

/// The version of the records that this lifeboat writes, and the newest it reads.
pub const VERSION: u32 = 1;

/// Why the journal cannot be used.
#[derive(Debug, Error)]
pub enum JournalError {
    /// It could not be opened.
    #[error("cannot open the journal {path}", path = path.display())]
    Open {
        /// Where it is.
        path: PathBuf,
        /// What SQLite said.
        #[source]
        source: rusqlite::Error,
    },
    /// Its folder could not be made.
    #[error("cannot create the state folder {path}", path = path.display())]
    Folder {
        /// Where it should be.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// Another process holds it.
    #[error("the journal {path} is held by another process; is another lifeboat running on this state folder?", path = path.display())]
    Held {
        /// Where it is.
        path: PathBuf,
    },
    /// It could not be written; nothing of the decision is on record, and nothing was started.
    #[error("cannot write to the journal")]
    Append(#[source] rusqlite::Error),
    /// It could not be read.
    #[error("cannot read the journal")]
    Read(#[source] rusqlite::Error),
    /// A record's sum does not fit.
    #[error("record {sequence} of the journal is damaged: its sum is {found:08x}, not {expected:08x}")]
    Damaged {
        /// Its place.
        sequence: u64,
        /// The sum on disk.
        expected: u32,
        /// The sum of what is on disk.
        found: u32,
    },
    /// A record is missing.
    #[error("record {expected} of the journal is missing; the next is {found}")]
    Missing {
        /// The place without a record.
        expected: u64,
        /// The place of the next one.
        found: u64,
    },
    /// A newer lifeboat has written it.
    #[error(
        "record {sequence} of the journal has version {version}; this lifeboat reads up to {VERSION}. Install the newer lifeboat again"
    )]
    Newer {
        /// Its place.
        sequence: u64,
        /// Its version.
        version: u32,
    },
    /// A record that this version should understand, and does not.
    #[error("record {sequence} of the journal cannot be understood")]
    Malformed {
        /// Its place.
        sequence: u64,
        /// What was wrong.
        #[source]
        source: serde_json::Error,
    },
    /// The file was removed or replaced under the agent: what is written now would be lost.
    #[error("the journal {path} was removed or replaced while the agent runs", path = path.display())]
    Gone {
        /// Where it was.
        path: PathBuf,
    },
    /// Records that do not follow the newest one: they were read from another record.
    #[error("the journal goes on with record {expected}, and record {found} was given to it")]
    Misplaced {
        /// The next place.
        expected: u64,
        /// The place of the first that was given.
        found: u64,
    },
    /// The disk does not answer.
    #[error("the journal was not written within 10 s; nothing was started")]
    Slow,
    /// The thread that writes it ended unexpectedly.
    #[error("the journal's writer ended unexpectedly")]
    WriterGone,
}

/// A handle on the journal; cheap to clone. Reading is for everyone, appending for the loop.
#[derive(Clone, Debug)]
pub struct Journal {
    connection: Arc<Mutex<Connection>>,
    /// Where it is, and which file that is; nothing for one in memory.
    file: Option<(PathBuf, FileId)>,
}

/// Device and inode.
type FileId = (u64, u64);

impl Journal {
    /// Opens or creates the journal, takes it for this process alone, and reads everything back.
    ///
    /// # Errors
    /// When it is held, damaged, from a newer lifeboat, or cannot be opened.
    pub fn open(path: &Path) -> Result<(Self, Vec<Stamped>), JournalError> {
        let connection = Connection::open(path).map_err(|source| opening(path, source))?;
        Self::prepare(&connection).map_err(|source| opening(path, source))?;
        let file = file_id(path).ok_or_else(|| JournalError::Gone { path: path.to_owned() })?;
        Self::read_back(connection, Some((path.to_owned(), file)))
    }

    /// A journal that is forgotten with the process, for tests and pretend worlds. It waits for no disk, so what it is asked
    /// for is done at once, where it was asked: a pretend world has no second thread that could be faster or slower.
    ///
    /// # Errors
    /// When SQLite cannot be used at all.
    pub fn in_memory() -> Result<Self, JournalError> {
        let path = Path::new(":memory:");
        let connection = Connection::open_in_memory().map_err(|source| opening(path, source))?;
        Self::prepare(&connection).map_err(|source| opening(path, source))?;
        Ok(Self::read_back(connection, None)?.0)
    }

    /// Reads the journal of an agent that is not running. Writes nothing.
    ///
    /// # Errors
    /// Those of [`Journal::open`].
    pub fn look(path: &Path) -> Result<Vec<Stamped>, JournalError> {
        // Not read only: a journal left by a killed agent must be recovered from SQLite's own log first.
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE;
        let connection = Connection::open_with_flags(path, flags).map_err(|source| opening(path, source))?;
        connection.busy_timeout(Duration::from_secs(1)).map_err(|source| opening(path, source))?;
        read(&connection, 0).map_err(|error| match error {
            JournalError::Read(source) => opening(path, source),
            other => other,
        })
    }

    fn prepare(connection: &Connection) -> Result<(), rusqlite::Error> {
        connection.busy_timeout(Duration::from_millis(200))?;
        connection.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
        connection.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.execute_batch(
            "CREATE TABLE IF NOT EXISTS record (
                sequence INTEGER PRIMARY KEY,
                at INTEGER NOT NULL,
                version INTEGER NOT NULL,
                body TEXT NOT NULL,
                sum INTEGER NOT NULL
            ) STRICT;
            BEGIN EXCLUSIVE; COMMIT;",
        )
    }

    fn read_back(
        connection: Connection,
        file: Option<(PathBuf, FileId)>,
    ) -> Result<(Self, Vec<Stamped>), JournalError> {
        let records = read(&connection, 0)?;
        Ok((Self { connection: Arc::new(Mutex::new(connection)), file }, records))
    }

    /// Appends the records of one decision: all of them, or none.
    pub(crate) async fn append(&self, at: Moment, records: Vec<Record>) -> Result<(), JournalError> {
        self.apart(move |journal| {
            journal.append_now(|next| {
                (next..).zip(records).map(|(sequence, record)| Stamped { sequence, at, record }).collect()
            })
        })
        .await
    }

    /// Appends records that have their places already, as another journal has them: all of them, or none.
    pub(crate) async fn append_stamped(&self, records: Vec<Stamped>) -> Result<(), JournalError> {
        self.apart(move |journal| journal.append_now(|_| records)).await
    }

    fn append_now(&self, records: impl FnOnce(u64) -> Vec<Stamped>) -> Result<(), JournalError> {
        if let Some((path, _)) = self.file.as_ref().filter(|(path, known)| file_id(path) != Some(*known)) {
            return Err(JournalError::Gone { path: path.clone() });
        }
        let mut connection = self.locked();
        let transaction = connection.transaction().map_err(JournalError::Append)?;
        let newest = "SELECT coalesce(max(sequence), 0) FROM record";
        let newest: u64 =
            transaction.query_row(newest, [], |row| row.get(0)).map_err(JournalError::Append)?;
        for (expected, Stamped { sequence, at, record }) in (newest + 1..).zip(records(newest + 1)) {
            if sequence != expected {
                return Err(JournalError::Misplaced { expected, found: sequence });
            }
            let body = serde_json::to_string(&record)
                .map_err(|source| JournalError::Malformed { sequence, source })?;
            let row = params![sequence, at.millis(), VERSION, body, sum(sequence, at, VERSION, &body)];
            let insert = "INSERT INTO record (sequence, at, version, body, sum) VALUES (?1, ?2, ?3, ?4, ?5)";
            transaction.execute(insert, row).map_err(JournalError::Append)?;
        }
        transaction.commit().map_err(JournalError::Append)
    }

    /// The newest record; none in an empty journal.
    pub(crate) async fn newest(&self) -> Result<Option<Stamped>, JournalError> {
        let read = self.apart(|journal| {
            let connection = journal.locked();
            let newest = "SELECT coalesce(max(sequence), 0) FROM record";
            let newest: u64 =
                connection.query_row(newest, [], |row| row.get(0)).map_err(JournalError::Read)?;
            read(&connection, newest.saturating_sub(1))
        });
        Ok(read.await?.pop())
    }

    /// All records after the given place, oldest first.
    ///
    /// # Errors
    /// When they cannot be read or are damaged.
    pub async fn records(&self, after: u64) -> Result<Vec<Stamped>, JournalError> {
        self.apart(move |journal| read(&journal.locked(), after)).await
    }

    /// Does something that may wait for a disk apart from the loop.
    async fn apart<T: Send + 'static>(
        &self,
        act: impl FnOnce(&Self) -> Result<T, JournalError> + Send + 'static,
    ) -> Result<T, JournalError> {
        if self.file.is_none() {
            return act(self);
        }
        let journal = self.clone();
        let done = tokio::task::spawn_blocking(move || act(&journal));
        done.await.map_err(|_| JournalError::WriterGone)?
    }

    fn locked(&self) -> MutexGuard<'_, Connection> {
        // A panic while it was held left SQLite's own transaction to roll back; the connection is sound.
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn file_id(path: &Path) -> Option<FileId> {
    use std::os::unix::fs::MetadataExt;

    std::fs::metadata(path).ok().map(|meta| (meta.dev(), meta.ino()))
}

fn opening(path: &Path, source: rusqlite::Error) -> JournalError {
    match source.sqlite_error_code() {
        Some(rusqlite::ErrorCode::DatabaseBusy | rusqlite::ErrorCode::DatabaseLocked) => {
            JournalError::Held { path: path.to_owned() }
        }
        _ => JournalError::Open { path: path.to_owned(), source },
    }
}

/// The sum over everything that a record consists of.
fn sum(sequence: u64, at: Moment, version: u32, body: &str) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&sequence.to_le_bytes());
    hasher.update(&at.millis().to_le_bytes());
    hasher.update(&version.to_le_bytes());
    hasher.update(body.as_bytes());
    hasher.finalize()
}

fn read(connection: &Connection, after: u64) -> Result<Vec<Stamped>, JournalError> {
    let select = "SELECT sequence, at, version, body, sum FROM record WHERE sequence > ?1 ORDER BY sequence";
    let mut statement = connection.prepare(select).map_err(JournalError::Read)?;
    let mut rows = statement.query(params![after]).map_err(JournalError::Read)?;
    let mut records = Vec::new();
    let mut expected_place = after + 1;
    while let Some(row) = rows.next().map_err(JournalError::Read)? {
        let sequence: u64 = row.get(0).map_err(JournalError::Read)?;
        let at = Moment::from_millis(row.get(1).map_err(JournalError::Read)?);
        let version: u32 = row.get(2).map_err(JournalError::Read)?;
        let body: String = row.get(3).map_err(JournalError::Read)?;
        let expected: u32 = row.get(4).map_err(JournalError::Read)?;
        if sequence != expected_place {
            return Err(JournalError::Missing { expected: expected_place, found: sequence });
        }
        let found = sum(sequence, at, version, &body);
        if found != expected {
            return Err(JournalError::Damaged { sequence, expected, found });
        }
        if version > VERSION {
            return Err(JournalError::Newer { sequence, version });
        }
        let record =
            serde_json::from_str(&body).map_err(|source| JournalError::Malformed { sequence, source })?;
        records.push(Stamped { sequence, at, record });
        expected_place += 1;
    }
    Ok(records)
}

#[cfg(test)]
mod tests;
