//! Why a probe cannot be made from its options.
//!
//! **Invariant:** found when the probe is made, at start; a look never fails because of its options.

use std::io;
use std::path::PathBuf;

/// What is wrong with the options of a probe, a witness or a canary.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The URL cannot be parsed.
    #[error("{url:?} is not a URL")]
    Url {
        /// As it was written.
        url: String,
        /// What is wrong with it.
        #[source]
        source: url::ParseError,
    },
    /// Neither `http` nor `https`.
    #[error("{url:?} is neither http nor https")]
    Scheme {
        /// As it was written.
        url: String,
    },
    /// A user or a password in the URL would end up in logs.
    #[error("the URL of {host} carries a user or a password; a probe sends none")]
    Credentials {
        /// Its host, as the rest is not to be shown.
        host: String,
    },
    /// Something that cannot be put into a request.
    #[error("{part:?} cannot be sent in an HTTP request")]
    Request {
        /// The part of the URL, or the host header.
        part: String,
    },
    /// Not `HOST:PORT`.
    #[error("{address:?} is not HOST:PORT")]
    Address {
        /// As it was written.
        address: String,
    },
    /// Not an HTTP status.
    #[error("{status} is not an HTTP status (100 to 999)")]
    Status {
        /// As it was written.
        status: u16,
    },
    /// The file of trust anchors cannot be read.
    #[error("cannot read the trust anchors in {path}")]
    ReadAnchors {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is no PEM file.
    #[error("{path} is not a PEM file of certificates")]
    ParseAnchors {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: rustls_pki_types::pem::Error,
    },
    /// No certificate that can be an anchor.
    #[error("no usable trust anchor in {place}")]
    NoAnchors {
        /// The file, or the system's store.
        place: String,
    },
    /// The TLS library does not take its own defaults.
    #[error("cannot set up TLS")]
    Tls {
        /// Why.
        #[source]
        source: rustls::Error,
    },
}
