//! TLS for sessions: rustls with aws-lc-rs, certificate and name verified.
//!
//! **Invariant:** there is no way to encrypt without verifying.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use thiserror::Error;
use tokio::io::AsyncReadExt;
use tokio_postgres_rustls::MakeRustlsConnect;

/// Bytes of a file of authorities, at most; a system's whole bundle has about 256 KiB.
const LONGEST: u64 = 4 << 20;

/// Why there is nothing to verify a server with.
#[derive(Debug, Error)]
pub(crate) enum AnchorError {
    #[error("certificate file {} cannot be read: {source}", .path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("certificate file {} holds no usable certificate in PEM form", .path.display())]
    NotPem { path: PathBuf },
    #[error("the system has no trusted certificates; name a ca_file")]
    NoneOnSystem,
    #[error("TLS cannot be set up: {0}")]
    Setup(#[source] rustls::Error),
}

/// A connector that trusts `ca_file`, or the system's authorities.
pub(crate) async fn connector(ca_file: Option<&Path>) -> Result<MakeRustlsConnect, AnchorError> {
    Ok(MakeRustlsConnect::new(client_config(ca_file).await?))
}

/// What a client that trusts `ca_file`, or the system's authorities, is made with.
pub(crate) async fn client_config(ca_file: Option<&Path>) -> Result<ClientConfig, AnchorError> {
    match ca_file {
        // Read again for each session: a rotated file must not need a restart.
        Some(path) => config(anchors_of(path).await?),
        None => system_config(),
    }
}

fn config(anchors: RootCertStore) -> Result<ClientConfig, AnchorError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(AnchorError::Setup)?;
    Ok(builder.with_root_certificates(anchors).with_no_client_auth())
}

async fn anchors_of(path: &Path) -> Result<RootCertStore, AnchorError> {
    let unreadable = |source| AnchorError::Unreadable { path: path.to_owned(), source };
    let mut pem = Vec::new();
    let file = tokio::fs::File::open(path).await.map_err(unreadable)?;
    file.take(LONGEST).read_to_end(&mut pem).await.map_err(unreadable)?;
    let mut anchors = RootCertStore::empty();
    anchors.add_parsable_certificates(CertificateDer::pem_slice_iter(&pem).filter_map(Result::ok));
    if anchors.is_empty() { Err(AnchorError::NotPem { path: path.to_owned() }) } else { Ok(anchors) }
}

/// The system's authorities, read once: there are hundreds.
fn system_config() -> Result<ClientConfig, AnchorError> {
    static SYSTEM: OnceLock<ClientConfig> = OnceLock::new();
    if let Some(config) = SYSTEM.get() {
        return Ok(config.clone());
    }
    let mut anchors = RootCertStore::empty();
    anchors.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if anchors.is_empty() {
        return Err(AnchorError::NoneOnSystem);
    }
    let config = config(anchors)?;
    Ok(SYSTEM.get_or_init(|| config).clone())
}
