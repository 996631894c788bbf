//! Why a connection over TLS broke: whether because of a certificate.
//!
//! Since TLS 1.3 a server looks at the client's certificate after the client has taken the connection for good (RFC 8446,
//! 4.4), and what it says then does not reach who called. So the same is done once more, by hand, up to there.
//!
//! **Invariant:** this finds out why something failed already; it never makes anything succeed.

use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::EtcdTls;
use super::trouble::distrusted;

/// What was said of a certificate, ours or theirs; none when it was something else.
pub(super) async fn refusal(endpoint: &str, tls: &EtcdTls) -> Option<String> {
    let address = endpoint.strip_prefix("https://").unwrap_or(endpoint).split('/').next()?;
    let (host, port) = address.rsplit_once(':')?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let connector = TlsConnector::from(Arc::new(config(tls).await?));
    let name = ServerName::try_from(host.to_owned()).ok()?;
    let stream = TcpStream::connect((host, port.parse().ok()?)).await.ok()?;
    let error = match connector.connect(name, stream).await {
        // etcd begins to talk, or says what is wrong.
        Ok(mut stream) => stream.read(&mut [0]).await.err()?,
        Err(error) => error,
    };
    distrusted(&error).then(|| format!("{endpoint}: {error}"))
}

async fn config(tls: &EtcdTls) -> Option<ClientConfig> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&tokio::fs::read(&tls.ca_file).await.ok()?) {
        roots.add(certificate.ok()?).ok()?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().ok()?;
    let config = config.with_root_certificates(roots);
    let mut config = match (&tls.cert_file, &tls.key_file) {
        (Some(certificate), Some(key)) => {
            let chain = tokio::fs::read(certificate).await.ok()?;
            let chain = CertificateDer::pem_slice_iter(&chain).collect::<Result<_, _>>().ok()?;
            let key = PrivateKeyDer::from_pem_slice(&tokio::fs::read(key).await.ok()?).ok()?;
            config.with_client_auth_cert(chain, key).ok()?
        }
        _ => config.with_no_client_auth(),
    };
    config.alpn_protocols.push(b"h2".to_vec());
    Some(config)
}
