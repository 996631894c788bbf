//! What goes wrong with a server, and what that means: for a look a failure, for a step a fault.
//!
//! **Invariant:** kinds come from the SQLSTATE, the kind of an I/O error or the TLS library's own variant,
//! never from a message.
//! **Invariant:** only what nothing was asked of is `Unreachable`; whoever sent a change says `Unclear` by itself.

use std::error::Error as _;
use std::io;
use std::time::Duration;

use lifeboat_core::sighting::FailureKind;
use lifeboat_core::{Failure, Fault, FaultKind, SystemIdentifier};
use thiserror::Error;
use tokio_postgres::error::{DbError, SqlState};

use crate::password::PasswordError;
use crate::tls::AnchorError;

/// Characters of a server's message that are kept.
const LONGEST_MESSAGE: usize = 300;

/// Anything that goes wrong between us and a server.
#[derive(Debug, Error)]
pub(crate) enum Trouble {
    #[error(transparent)]
    Password(#[from] PasswordError),
    #[error(transparent)]
    Anchors(#[from] AnchorError),
    #[error("the name {host} cannot be resolved: {source}")]
    Unresolved { host: String, source: io::Error },
    #[error("{address} cannot be connected to: {source}")]
    Unconnected { address: String, source: io::Error },
    #[error("{}", said(.0))]
    Postgres(#[from] tokio_postgres::Error),
    #[error("the session ended: {}", .0.detail)]
    Ended(Failure),
    #[error("no answer within {} ms", .0.as_millis())]
    Silent(Duration),
    #[error("the server belongs to cluster {found}, expected {expected}")]
    Stranger { found: SystemIdentifier, expected: SystemIdentifier },
    #[error("the answer cannot be understood: {0}")]
    Malformed(&'static str),
}

impl Trouble {
    /// The SQLSTATE, when the server gave one.
    pub(crate) fn sqlstate(&self) -> Option<&SqlState> {
        match self {
            Self::Postgres(error) => error.code(),
            _ => None,
        }
    }

    /// Whether this is the server's word that it ended the session, said as the session's last.
    pub(crate) fn ends_session(&self) -> bool {
        let last_words = [SqlState::ADMIN_SHUTDOWN, SqlState::CRASH_SHUTDOWN];
        match self {
            Self::Ended(failure) => failure.kind == FailureKind::NotReady,
            _ => self.sqlstate().is_some_and(|state| last_words.contains(state)),
        }
    }

    /// Whether a write that was refused with this cannot be committed by anybody: the disk is full, the memory is,
    /// the disk fails, or the server finds its own data or itself in disorder.
    pub(crate) fn cannot_commit(&self) -> bool {
        let hard = [SqlState::DISK_FULL, SqlState::OUT_OF_MEMORY, SqlState::IO_ERROR];
        self.sqlstate().is_some_and(|state| hard.contains(state) || state.code().starts_with("XX"))
    }

    /// What a look reports.
    pub(crate) fn failure(&self) -> Failure {
        Failure::new(self.kind(), self.to_string())
    }

    /// What a step reports while it has changed nothing yet.
    pub(crate) fn fault(&self) -> Fault {
        let kind = match self.kind() {
            FailureKind::Silent | FailureKind::Refused | FailureKind::Unreachable | FailureKind::NotReady => {
                FaultKind::Unreachable
            }
            _ => FaultKind::Refused,
        };
        Fault::new(kind, self.to_string())
    }

    /// What a step reports once it has asked for a change: only a server's own no is a no.
    pub(crate) fn fault_after_asking(&self) -> Fault {
        let mut fault = self.fault();
        if fault.kind == FaultKind::Unreachable {
            fault.kind = FaultKind::Unclear;
        }
        fault
    }

    fn kind(&self) -> FailureKind {
        match self {
            // We could not even say who we are; that proves nothing about the server.
            Self::Password(_) | Self::Stranger { .. } => FailureKind::WrongIdentity,
            Self::Anchors(_) => FailureKind::Certificate,
            Self::Unresolved { .. } => FailureKind::Unreachable,
            Self::Unconnected { source, .. } => of_io(source).unwrap_or(FailureKind::Unreachable),
            Self::Postgres(error) => of_postgres(error),
            Self::Ended(failure) => failure.kind,
            Self::Silent(_) => FailureKind::Silent,
            Self::Malformed(_) => FailureKind::Malformed,
        }
    }
}

fn of_postgres(error: &tokio_postgres::Error) -> FailureKind {
    if let Some(state) = error.code() {
        return of_sqlstate(state);
    }
    if error.is_closed() {
        return FailureKind::Refused;
    }
    let mut cause = error.source();
    while let Some(error) = cause {
        if let Some(io) = error.downcast_ref::<io::Error>() {
            return of_io(io).unwrap_or(FailureKind::Malformed);
        }
        cause = error.source();
    }
    FailureKind::Malformed
}

/// PostgreSQL's appendix A, "Error codes", by what each says of the server as a place to work. What is not listed says
/// nothing of it: a lock that was waited for, a table that is not there, somebody at work. None of these is a reason
/// to fail over; for a heartbeat that was refused, [`Trouble::cannot_commit`] says which are.
fn of_sqlstate(state: &SqlState) -> FailureKind {
    match state.code() {
        // Full; shutting down, crashing, starting up; an idle session ended.
        "53300" | "57P01" | "57P02" | "57P03" | "57P05" => FailureKind::NotReady,
        // Cancelled, by a timeout or a person: it took too long.
        "57014" => FailureKind::Silent,
        "25006" => FailureKind::WrongRole,
        // No such database, or not for us.
        "3D000" | "42501" => FailureKind::WrongIdentity,
        code => match code.get(..2) {
            Some("28") => FailureKind::WrongIdentity,
            Some("08") => FailureKind::NotReady,
            _ => FailureKind::Malformed,
        },
    }
}

/// None when the kind says nothing by itself.
fn of_io(error: &io::Error) -> Option<FailureKind> {
    use io::ErrorKind as K;
    if let Some(inner) = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        return Some(of_tls(inner));
    }
    match error.kind() {
        K::TimedOut => Some(FailureKind::Silent),
        K::ConnectionRefused
        | K::ConnectionReset
        | K::ConnectionAborted
        | K::BrokenPipe
        | K::UnexpectedEof
        | K::NotConnected => Some(FailureKind::Refused),
        K::HostUnreachable | K::NetworkUnreachable | K::NetworkDown => Some(FailureKind::Unreachable),
        K::InvalidData | K::InvalidInput => Some(FailureKind::Malformed),
        _ => None,
    }
}

fn of_tls(error: &rustls::Error) -> FailureKind {
    match error {
        rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented => {
            FailureKind::Certificate
        }
        _ => FailureKind::Malformed,
    }
}

/// An error as a person reads it: the server's own message with its SQLSTATE, or the causes in a row.
fn said(error: &tokio_postgres::Error) -> String {
    if let Some(error) = error.as_db_error() {
        return said_by_server(error);
    }
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.ends_with(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    text
}

/// The server's message, shortened, with its SQLSTATE.
pub(crate) fn said_by_server(error: &DbError) -> String {
    let message: String = error.message().chars().take(LONGEST_MESSAGE).collect();
    format!("{message} (SQLSTATE {})", error.code().code())
}

/// `future`, or [`Trouble::Silent`] after `limit`.
pub(crate) async fn within<T>(
    limit: Duration,
    future: impl Future<Output = Result<T, Trouble>>,
) -> Result<T, Trouble> {
    tokio::time::timeout(limit, future).await.unwrap_or(Err(Trouble::Silent(limit)))
}
