//! From errors to failures: what kind of not working it is.
//!
//! **Invariant:** what happens on this machine (no more file descriptors, a local packet filter) is
//! `Unreachable`, never an answer of the other side.

use std::error::Error;
use std::io;

use lifeboat_core::sighting::{Failure, FailureKind};
use rustls::{AlertDescription, CertificateError};

/// Which part of an answer was being read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// Status and headers.
    Head,
    /// The body.
    Body,
}

/// A connection failed after it was made, plain or with TLS on it.
pub(crate) fn of_io(error: &io::Error) -> Failure {
    if let Some(tls) = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        return of_tls(tls);
    }
    let kind = match error.kind() {
        // Said by what decodes chunks and records, about what came.
        io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput => FailureKind::Malformed,
        kind => kind_of_io(kind),
    };
    Failure::new(kind, error.to_string())
}

/// The kind of failure that a kind of socket error is.
pub(crate) const fn kind_of_io(kind: io::ErrorKind) -> FailureKind {
    use io::ErrorKind as K;
    match kind {
        K::ConnectionRefused
        | K::ConnectionReset
        | K::ConnectionAborted
        | K::BrokenPipe
        | K::NotConnected
        | K::UnexpectedEof => FailureKind::Refused,
        K::TimedOut | K::WouldBlock => FailureKind::Silent,
        _ => FailureKind::Unreachable,
    }
}

/// TLS failed, in the handshake or later.
fn of_tls(error: &rustls::Error) -> Failure {
    use AlertDescription as A;
    use rustls::Error as E;
    let kind = match error {
        E::InvalidCertificate(reason) => return Failure::new(FailureKind::Certificate, certificate(reason)),
        E::NoCertificatesPresented => FailureKind::Certificate,
        // It wants to know who we are, or does not take what we showed.
        E::AlertReceived(
            A::CertificateRequired
            | A::BadCertificate
            | A::UnsupportedCertificate
            | A::UnknownCA
            | A::AccessDenied
            | A::NoCertificate
            | A::UnrecognisedName,
        ) => FailureKind::WrongIdentity,
        E::FailedToGetCurrentTime | E::FailedToGetRandomBytes => FailureKind::Unreachable,
        // Also when both ends speak TLS but find nothing in common: it may be this end that is too new or too old.
        _ => FailureKind::Malformed,
    };
    Failure::new(kind, format!("TLS: {error}"))
}

/// Why a certificate is not taken, for people.
fn certificate(reason: &CertificateError) -> String {
    use CertificateError as C;
    match reason {
        C::Expired => "the certificate has expired".to_owned(),
        C::ExpiredContext { time, not_after } => {
            let days = time.as_secs().saturating_sub(not_after.as_secs()) / 86_400;
            format!("the certificate has expired, {days} days ago")
        }
        C::NotValidYet | C::NotValidYetContext { .. } => "the certificate is not valid yet".to_owned(),
        C::NotValidForName => "the certificate is for another name".to_owned(),
        C::NotValidForNameContext { expected, presented } => {
            let presented: Vec<&str> = presented.iter().map(String::as_str).take(5).collect();
            format!(
                "the certificate is for another name: expected {}, got {}",
                expected.to_str(),
                presented.join(", ")
            )
        }
        C::UnknownIssuer => "the certificate is not signed by a trusted authority".to_owned(),
        C::Revoked => "the certificate is revoked".to_owned(),
        other => format!("the certificate is not valid: {other}"),
    }
}

/// An HTTP exchange failed while `part` was being read.
pub(crate) fn of_http(error: &hyper::Error, part: Part) -> Failure {
    if error.is_parse() {
        // Also when there is too much of it: over 64 KiB or 100 headers.
        return Failure::new(FailureKind::Malformed, format!("no usable answer in HTTP/1: {error}"));
    }
    if let Some(socket) = io_source(error) {
        let mut failure = of_io(socket);
        if part == Part::Body && socket.kind() == io::ErrorKind::UnexpectedEof {
            failure.kind = FailureKind::Malformed;
        }
        return failure;
    }
    match part {
        Part::Head => {
            Failure::new(FailureKind::Refused, "the connection was closed before there was an answer")
        }
        Part::Body => {
            Failure::new(FailureKind::Malformed, "the connection was closed in the middle of the body")
        }
    }
}

/// The socket error under an HTTP error.
fn io_source(error: &hyper::Error) -> Option<&io::Error> {
    let mut source = error.source();
    while let Some(inner) = source {
        if let Some(socket) = inner.downcast_ref::<io::Error>() {
            return Some(socket);
        }
        source = inner.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trouble_of_this_machine_is_no_answer_of_the_other_side() {
        // errno(3) of Linux: EPERM, EACCES, EINVAL, ENFILE, EMFILE, ENETDOWN, ENETUNREACH, ENOBUFS, EHOSTUNREACH.
        for local in [1, 13, 22, 23, 24, 100, 101, 105, 113] {
            let error = io::Error::from_raw_os_error(local);
            assert_eq!(kind_of_io(error.kind()), FailureKind::Unreachable, "{error}");
        }
        // EPIPE, ECONNABORTED, ECONNRESET, ECONNREFUSED.
        for answer in [32, 103, 104, 111] {
            let error = io::Error::from_raw_os_error(answer);
            assert_eq!(kind_of_io(error.kind()), FailureKind::Refused, "{error}");
        }
        // ETIMEDOUT.
        assert_eq!(kind_of_io(io::Error::from_raw_os_error(110).kind()), FailureKind::Silent);
    }

    #[test]
    fn alerts_tell_who_is_not_accepted() {
        let kind = |alert| of_tls(&rustls::Error::AlertReceived(alert)).kind;
        assert_eq!(kind(AlertDescription::CertificateRequired), FailureKind::WrongIdentity);
        assert_eq!(kind(AlertDescription::HandshakeFailure), FailureKind::Malformed);
        assert_eq!(of_tls(&rustls::Error::NoCertificatesPresented).kind, FailureKind::Certificate);
    }
}
