//! What went wrong with a call to etcd, by what it means for whoever called.
//!
//! **Invariant:** this is decided on gRPC codes and on the kinds of errors, never on what they say.

use std::error::Error as _;
use std::io;

use etcd_client::Error;
use lifeboat_engine::ports::CoordinationError;

/// What went wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// The member was not reached: nothing was sent.
    Away(String),
    /// Nothing that answers the question: if it was a write, it may have been taken in.
    Lost(String),
    /// The connection broke: the same, and it may be because of a certificate.
    Cut(String),
    /// One of the two does not believe the other's certificate.
    Distrusted(String),
    /// etcd does not take the password, or it may not do that.
    Denied(String),
    /// It has no room: its space is used up, or too much is waiting.
    NoRoom(String),
    /// Its space is used up.
    Full(String),
    /// A lease that is over.
    Gone(String),
    /// A revision that is compacted, or an answer that is larger than is read at once.
    Beyond(String),
    /// It says itself that its data is corrupt, or it is not understood.
    Damaged(String),
}

/// Codes of gRPC (<https://grpc.io/docs/guides/status-codes/>). etcd's own errors are each sent with one of these:
/// `etcdserver/api/v3rpc/rpctypes/error.go` in its sources.
mod code {
    pub(super) const INVALID_ARGUMENT: i32 = 3;
    pub(super) const NOT_FOUND: i32 = 5;
    pub(super) const PERMISSION_DENIED: i32 = 7;
    pub(super) const RESOURCE_EXHAUSTED: i32 = 8;
    pub(super) const FAILED_PRECONDITION: i32 = 9;
    pub(super) const OUT_OF_RANGE: i32 = 11;
    pub(super) const DATA_LOSS: i32 = 15;
    pub(super) const UNAUTHENTICATED: i32 = 16;
}

impl Trouble {
    /// What an error of the client means; `endpoint` is for people.
    pub(super) fn of(endpoint: &str, error: &Error) -> Self {
        let said = |text: &dyn std::fmt::Display| format!("{endpoint}: {text}");
        let status = match error {
            Error::GRpcStatus(status) => status,
            Error::TransportError(transport) => return Self::of_transport(endpoint, transport),
            // The lease is over: the client makes this of a time to live of zero.
            Error::LeaseKeepAliveError(text) => return Self::Gone(said(text)),
            Error::InvalidArgs(_) | Error::InvalidUri(_) => return Self::Away(said(error)),
            _ => return Self::Lost(said(error)),
        };
        let text = said(&status.message());
        match i32::from(status.code()) {
            // What we send is well formed and not too large, so this is about who we are: no user was named and one must
            // be, or the users changed since this connection said who it is.
            code::INVALID_ARGUMENT | code::PERMISSION_DENIED | code::UNAUTHENTICATED => Self::Denied(text),
            code::NOT_FOUND => Self::Gone(text),
            code::RESOURCE_EXHAUSTED => Self::NoRoom(text),
            code::OUT_OF_RANGE => Self::Beyond(text),
            code::DATA_LOSS => Self::Damaged(text),
            _ => {
                status.source().map_or_else(|| Self::Lost(text), |cause| Self::of_transport(endpoint, cause))
            }
        }
    }

    /// What an error of the client means that came while it said who we are: etcd may not know any users.
    pub(super) fn of_login(endpoint: &str, error: &Error) -> Self {
        match (Self::of(endpoint, error), error) {
            (Self::Lost(text), Error::GRpcStatus(status))
                if i32::from(status.code()) == code::FAILED_PRECONDITION =>
            {
                Self::Denied(text)
            }
            (trouble, _) => trouble,
        }
    }

    /// What an error below gRPC means.
    fn of_transport(endpoint: &str, error: &(dyn std::error::Error + 'static)) -> Self {
        let mut text = format!("{endpoint}: {error}");
        let mut away = false;
        let mut next = Some(error);
        while let Some(cause) = next {
            next = cause.source();
            if let Some(next) = next {
                text.push_str(&format!(": {next}"));
            }
            let io = cause.downcast_ref::<io::Error>();
            if io.map_or_else(|| cause.downcast_ref().is_some_and(distrust), distrusted) {
                return Self::Distrusted(text);
            }
            // Refused before a byte of ours was sent; a reset may come after.
            away |= io.is_some_and(|io| io.kind() == io::ErrorKind::ConnectionRefused);
        }
        if away { Self::Away(text) } else { Self::Cut(text) }
    }

    /// What a read that failed says.
    pub(super) fn of_read(self) -> CoordinationError {
        match self {
            Self::Lost(text) | Self::Cut(text) => CoordinationError::Unreachable(text),
            other => other.of_write(),
        }
    }

    /// What a write that failed says.
    pub(super) fn of_write(self) -> CoordinationError {
        match self {
            Self::Lost(text) | Self::Cut(text) => CoordinationError::Unclear(text),
            Self::Away(text) | Self::NoRoom(text) | Self::Gone(text) | Self::Beyond(text) => {
                CoordinationError::Unreachable(text)
            }
            Self::Distrusted(text) | Self::Denied(text) => CoordinationError::Denied(text),
            Self::Full(text) => CoordinationError::Full(text),
            Self::Damaged(text) => CoordinationError::Damaged(text),
        }
    }
}

/// Whether an error of a connection is about a certificate.
pub(super) fn distrusted(error: &io::Error) -> bool {
    error.get_ref().and_then(|inner| inner.downcast_ref()).is_some_and(distrust)
}

/// Whether an error of TLS is about a certificate, ours or theirs. Everything else may be the network.
fn distrust(error: &rustls::Error) -> bool {
    use rustls::AlertDescription as Alert;
    match error {
        rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented => true,
        rustls::Error::AlertReceived(alert) => matches!(
            alert,
            Alert::BadCertificate
                | Alert::UnsupportedCertificate
                | Alert::CertificateRevoked
                | Alert::CertificateExpired
                | Alert::CertificateUnknown
                | Alert::UnknownCA
                | Alert::AccessDenied
                | Alert::CertificateRequired
                | Alert::HandshakeFailure
                | Alert::DecryptError
        ),
        _ => false,
    }
}
