//! What goes wrong while a server is copied from, and what to do about it.
//!
//! **Invariant:** what an error means comes from the SQLSTATE, the kind of an I/O error and what was asked, never
//! from a message.

use std::io;
use std::time::Duration;

use lifeboat_core::{Lsn, SystemIdentifier, Timeline};
use thiserror::Error;

use super::notice::Said;

/// Why the replication protocol did not give what was asked.
#[derive(Debug, Error)]
pub enum Error {
    /// The password file or the file of authorities gives nothing to log in with. Nothing was sent.
    #[error("{0}")]
    Local(String),
    /// No connection could be made.
    #[error("{address} cannot be reached: {detail}")]
    Unreachable {
        /// Host and port, or the path of the socket.
        address: String,
        /// The causes.
        detail: String,
    },
    /// The connection was lost. What was given out is good.
    #[error("the connection was lost during {act}")]
    Lost {
        /// What was under way.
        act: &'static str,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// Nothing came for too long.
    #[error("nothing came for {} ms during {act}", limit.as_millis())]
    TimedOut {
        /// What was under way.
        act: &'static str,
        /// How long it was waited for.
        limit: Duration,
    },
    /// The server is starting, stopping, recovering from a crash, or full.
    #[error("the server is not ready for {act}: {said}")]
    NotReady {
        /// What was asked.
        act: &'static str,
        /// The server's words.
        said: Said,
    },
    /// The server shut down in order, and sent its whole log before.
    #[error("the server shut down, and had sent everything up to {to}")]
    ShutDown {
        /// The end of its log.
        to: Lsn,
    },
    /// The server said no.
    #[error("the server refused {act}: {said}")]
    Refused {
        /// What was asked.
        act: &'static str,
        /// The server's words.
        said: Said,
    },
    /// It is a server of another cluster.
    #[error("the server belongs to cluster {found}, expected {expected}")]
    Stranger {
        /// Whose it is.
        found: SystemIdentifier,
        /// Whose it must be.
        expected: SystemIdentifier,
    },
    /// There is no slot of that name.
    #[error("the replication slot {slot} does not exist")]
    SlotMissing {
        /// Its name.
        slot: String,
    },
    /// The slot no longer keeps any log: the server invalidated it (`max_slot_wal_keep_size`), or it never did.
    #[error("the replication slot {slot} keeps no log: it was invalidated")]
    SlotLost {
        /// Its name.
        slot: String,
    },
    /// The slot is in use by another connection, or by one that is just ending.
    #[error("the replication slot {slot} is in use: {said}")]
    SlotBusy {
        /// Its name.
        slot: String,
        /// The server's words.
        said: Said,
    },
    /// The slot is one for logical decoding.
    #[error("the replication slot {slot} is a logical one")]
    SlotLogical {
        /// Its name.
        slot: String,
    },
    /// The server no longer has the log from there.
    #[error("the log of timeline {timeline} from {from} is gone: {said}")]
    WalRemoved {
        /// The timeline that was asked for.
        timeline: Timeline,
        /// The first byte that is missing.
        from: Lsn,
        /// The server's words.
        said: Said,
    },
    /// The server's history left that timeline before that position, or never was on it.
    #[error("the server's history does not contain {from} on timeline {timeline}{}", where_it_left(.left))]
    Diverged {
        /// The timeline that was asked for.
        timeline: Timeline,
        /// The position that was asked for.
        from: Lsn,
        /// Where the server's history left that timeline; none when it was never on it.
        left: Option<Lsn>,
    },
    /// The server has not got that far.
    #[error("the server has the log up to {flushed}, and {from} was asked for")]
    Ahead {
        /// The position that was asked for.
        from: Lsn,
        /// How far the server is.
        flushed: Lsn,
    },
    /// Log was left out of the stream.
    #[error("a gap in the log: {expected} was expected, {found} came")]
    Gap {
        /// The first byte that is missing.
        expected: Lsn,
        /// What came instead.
        found: Lsn,
    },
    /// Log came twice.
    #[error("an overlap in the log: {expected} was expected, {found} came")]
    Overlap {
        /// What had to come.
        expected: Lsn,
        /// What came instead.
        found: Lsn,
    },
    /// What came is not what the protocol says.
    #[error("the server's answer cannot be understood: {0}")]
    Protocol(&'static str),
    /// This version of the server cannot do that.
    #[error("PostgreSQL {version} has no {what}")]
    TooOld {
        /// `server_version_num`.
        version: u32,
        /// What it lacks.
        what: &'static str,
    },
    /// The caller asked for what makes no sense. Nothing was sent.
    #[error("{0}")]
    Misuse(&'static str),
}

fn where_it_left(left: &Option<Lsn>) -> String {
    left.map(|at| format!(", which it left at {at}")).unwrap_or_default()
}

/// What to do about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// Connect again, after a pause: it may pass.
    Again,
    /// Make the slot, and check that no log is missing since.
    MakeSlot,
    /// Log is missing for good: begin anew with a base backup.
    BaseBackup,
    /// A person must change a setting, a grant, a password or a file.
    Person,
    /// A bug, here or there, or something that is not a PostgreSQL server.
    Bug,
}

impl Error {
    /// What to do about it.
    pub fn remedy(&self) -> Remedy {
        match self {
            Self::Unreachable { .. }
            | Self::Lost { .. }
            | Self::TimedOut { .. }
            | Self::NotReady { .. }
            | Self::ShutDown { .. }
            // A standby that lags; a server that was set back will hardly get there, and its history leaves ours.
            | Self::Ahead { .. }
            | Self::SlotBusy { .. } => Remedy::Again,
            Self::SlotMissing { .. } => Remedy::MakeSlot,
            Self::SlotLost { .. } | Self::WalRemoved { .. } | Self::Diverged { .. } => Remedy::BaseBackup,
            Self::Local(_)
            | Self::Refused { .. }
            | Self::Stranger { .. }
            | Self::SlotLogical { .. }
            | Self::TooOld { .. } => Remedy::Person,
            Self::Gap { .. } | Self::Overlap { .. } | Self::Protocol(_) | Self::Misuse(_) => Remedy::Bug,
        }
    }

    /// What to do about it, as a sentence for a person.
    pub fn hint(&self) -> String {
        match self {
            Self::Local(_) => "check the file, its owner and its mode".to_owned(),
            Self::Refused { said, .. } if said.is("28") => {
                "is there a line for the database \"replication\" and this role in pg_hba.conf, is the password the \
                 role's own, and has the role REPLICATION (ALTER ROLE … REPLICATION)?"
                    .to_owned()
            }
            Self::Refused { said, .. } if said.is("53400") || said.is("55000") => {
                "are max_replication_slots and max_wal_senders large enough, and is wal_level at least replica?".to_owned()
            }
            Self::Refused { .. } => "ask the server's log".to_owned(),
            Self::Stranger { .. } => "is this the right host and port?".to_owned(),
            Self::SlotMissing { slot } => {
                format!("SELECT pg_create_physical_replication_slot('{slot}', true)")
            }
            Self::SlotLost { slot } => format!(
                "SELECT pg_drop_replication_slot('{slot}'), take a base backup, and raise max_slot_wal_keep_size"
            ),
            Self::SlotLogical { slot } => format!("give a name other than {slot}"),
            Self::WalRemoved { .. } => "take a base backup; is a slot in use?".to_owned(),
            Self::Diverged { .. } => "take a base backup of the new history".to_owned(),
            Self::Ahead { .. } => "is it a standby that lags, or was it restored from an older copy?".to_owned(),
            Self::TooOld { .. } => "upgrade the server".to_owned(),
            Self::Gap { .. } | Self::Overlap { .. } | Self::Protocol(_) | Self::Misuse(_) => {
                "is it a PostgreSQL server, without anything in between? Then please report it".to_owned()
            }
            Self::Unreachable { .. }
            | Self::Lost { .. }
            | Self::TimedOut { .. }
            | Self::NotReady { .. }
            | Self::ShutDown { .. }
            | Self::SlotBusy { .. } => "it is tried again".to_owned(),
        }
    }

    /// What a server's word means when `act` was asked.
    pub(super) fn said(act: &'static str, said: Said) -> Self {
        // Full; shutting down, crashing, starting up.
        if ["53300", "57P01", "57P02", "57P03", "08"].iter().any(|state| said.is(state)) {
            return Self::NotReady { act, said };
        }
        Self::Refused { act, said }
    }
}
