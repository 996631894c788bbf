//! How a look or an update fails, and what a person should check.
//!
//! **Invariant:** a wrong key, a refused zone and a dead server never read alike.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use hickory_proto::op::ResponseCode;
use lifeboat_core::{DnsName, Fault, FaultKind};
use thiserror::Error;

use crate::census::code_text;
use crate::value::ValueError;

/// Why a name could not be looked at or changed on its server.
#[derive(Debug, Error)]
pub enum UpdateError {
    /// Text that is no value, or no name.
    #[error(transparent)]
    Value(#[from] ValueError),
    /// The name is not in the zone, or too long to have an epoch beside it.
    #[error("{name} is not a name of the zone {zone} with room for _lifeboat-epoch before it")]
    Outside {
        /// The name.
        name: DnsName,
        /// The zone.
        zone: DnsName,
    },
    /// The key file cannot be read.
    #[error("key file {path} cannot be read")]
    KeyFile {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The key file does not hold a key.
    #[error("key file {path} does not hold one line of base64")]
    KeyText {
        /// The file.
        path: PathBuf,
    },
    /// The server does not know the key, or knows another secret or algorithm under its name.
    #[error("key refused by {server} ({reason}): check key_name, key_algorithm, key_file")]
    KeyRefused {
        /// The server.
        server: SocketAddr,
        /// The TSIG error, as RFC 8945 names it.
        reason: &'static str,
    },
    /// The clocks are too far apart for a signature to be fresh (300 s).
    #[error("the clocks of this host and of {server} are more than 300 s apart: check time synchronisation")]
    Clock {
        /// The server.
        server: SocketAddr,
    },
    /// The server knows the key and refuses the zone.
    #[error(
        "{server} refuses zone {zone} ({}): check zone, server, and that the key may update it",
        code_text(*code)
    )]
    ZoneRefused {
        /// The server.
        server: SocketAddr,
        /// The zone.
        zone: DnsName,
        /// What it answered.
        code: ResponseCode,
    },
    /// It answered without authority for the zone.
    #[error("{server} is not an authoritative server of zone {zone}: check zone and server")]
    Lame {
        /// The server.
        server: SocketAddr,
        /// The zone.
        zone: DnsName,
    },
    /// It could not do it.
    #[error("{server} failed on zone {zone} ({})", code_text(*code))]
    Failed {
        /// The server.
        server: SocketAddr,
        /// The zone.
        zone: DnsName,
        /// What it answered.
        code: ResponseCode,
    },
    /// The epoch beside the name was written by someone else.
    #[error("{name} holds {text:?}, which is not an epoch of lifeboat: it is left as it is")]
    ForeignEpoch {
        /// The epoch's own name.
        name: String,
        /// What it says.
        text: String,
    },
    /// No connection.
    #[error("{server} cannot be reached")]
    Unreachable {
        /// The server.
        server: SocketAddr,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// No answer, and no update was sent.
    #[error("{server} did not answer within {limit:?}; no update was sent")]
    Silent {
        /// The server.
        server: SocketAddr,
        /// How long it had.
        limit: Duration,
    },
    /// An update was sent and no answer came.
    #[error("an update was sent to {server} and not answered within {limit:?}: it may have been applied")]
    Unanswered {
        /// The server.
        server: SocketAddr,
        /// How long it had.
        limit: Duration,
    },
    /// The connection ended while an answer was due.
    #[error("the connection to {server} ended before the answer")]
    Cut {
        /// The server.
        server: SocketAddr,
        /// Whether an update was under way.
        update: bool,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// What came is no answer to what was asked, or its signature is wrong or missing.
    #[error("{server} answered, but {what}")]
    Untrusted {
        /// The server.
        server: SocketAddr,
        /// What is wrong with the answer.
        what: &'static str,
        /// Whether an update was under way.
        update: bool,
    },
    /// The name changed between the look and the update.
    #[error("{name} was changed by someone else in the same moment ({}); nothing was done", code_text(*code))]
    Overtaken {
        /// The name.
        name: DnsName,
        /// What the server answered.
        code: ResponseCode,
    },
    /// The server said yes, and still says the old thing.
    #[error("{server} accepted the update of {name} but does not show it")]
    NotApplied {
        /// The server.
        server: SocketAddr,
        /// The name.
        name: DnsName,
    },
}

impl UpdateError {
    /// What to do next.
    fn kind(&self) -> FaultKind {
        match self {
            Self::Value(_)
            | Self::Outside { .. }
            | Self::KeyFile { .. }
            | Self::KeyText { .. }
            | Self::KeyRefused { .. }
            | Self::Clock { .. }
            | Self::ZoneRefused { .. }
            | Self::Lame { .. }
            | Self::ForeignEpoch { .. } => FaultKind::Refused,
            Self::Unreachable { .. }
            | Self::Silent { .. }
            | Self::Cut { update: false, .. }
            | Self::Untrusted { update: false, .. }
            // Its conditions did not hold, so nothing happened: look again.
            | Self::Overtaken { .. } => FaultKind::Unreachable,
            Self::Failed { .. }
            | Self::Unanswered { .. }
            | Self::Cut { update: true, .. }
            | Self::Untrusted { update: true, .. }
            | Self::NotApplied { .. } => FaultKind::Unclear,
        }
    }
}

impl From<UpdateError> for Fault {
    fn from(error: UpdateError) -> Self {
        let detail = match std::error::Error::source(&error) {
            Some(cause) => format!("{error}: {cause}"),
            None => error.to_string(),
        };
        Self::new(error.kind(), detail)
    }
}
