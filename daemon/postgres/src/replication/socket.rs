//! The way to a server: TCP, TLS over it, or a unix socket.
//!
//! **Invariant:** with TLS asked for, nothing but the question for it is said in plain text, and nothing that was
//! received in plain text is taken for encrypted.

use std::io;
use std::sync::Arc;

use aws_lc_rs::digest;
use bytes::BytesMut;
use postgres_protocol::message::frontend;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::error::Error;
use super::options::Endpoint;
use crate::options::Tls;
use crate::{stream, tls};

/// Bytes that are read at once from under TLS, which by itself would ask for 4 KiB at a time.
const CIPHERTEXT: usize = 256 << 10;

/// A connection, not logged in yet.
pub(super) enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
    Tls(Box<TlsStream<BufReader<TcpStream>>>),
}

impl Socket {
    pub(super) async fn open(endpoint: &Endpoint) -> Result<Self, Error> {
        let unreachable = |detail: String| Error::Unreachable { address: endpoint.address(), detail };
        if endpoint.host.starts_with('/') {
            let socket = UnixStream::connect(endpoint.address()).await;
            return Ok(Self::Unix(socket.map_err(|error| unreachable(error.to_string()))?));
        }
        let tcp = stream::connect(&endpoint.host, endpoint.port).await;
        let mut tcp = tcp.map_err(|trouble| unreachable(trouble.to_string()))?;
        let Tls::VerifyFull { ca_file } = &endpoint.tls else { return Ok(Self::Tcp(tcp)) };

        let config = tls::client_config(ca_file.as_deref()).await;
        let config = config.map_err(|error| Error::Local(error.to_string()))?;
        let name = ServerName::try_from(endpoint.host.clone()).map_err(|_| {
            Error::Local(format!("{:?} is no name that a certificate can have", endpoint.host))
        })?;
        let lost = |source| Error::Lost { act: "the TLS handshake", source };
        let mut question = BytesMut::new();
        frontend::ssl_request(&mut question);
        tcp.write_all(&question).await.map_err(lost)?;
        // One byte and no more: whatever came with it in plain text must not be taken for what comes encrypted.
        if tcp.read_u8().await.map_err(lost)? != b'S' {
            return Err(unreachable("it does not speak TLS".to_owned()));
        }
        let buffered = BufReader::with_capacity(CIPHERTEXT, tcp);
        let stream = TlsConnector::from(Arc::new(config)).connect(name, buffered).await;
        Ok(Self::Tls(Box::new(stream.map_err(|error| unreachable(error.to_string()))?)))
    }

    /// Reads what there is, at least a byte. Nothing is lost when it is given up.
    pub(super) async fn read(&mut self, room: &mut BytesMut) -> io::Result<usize> {
        match self {
            Self::Tcp(socket) => socket.read_buf(room).await,
            Self::Unix(socket) => socket.read_buf(room).await,
            Self::Tls(socket) => socket.read_buf(room).await,
        }
    }

    /// Writes some of it; what was written is gone from `bytes`. Nothing is lost when it is given up.
    pub(super) async fn write(&mut self, bytes: &mut BytesMut) -> io::Result<()> {
        let written = match self {
            Self::Tcp(socket) => socket.write_buf(bytes).await,
            Self::Unix(socket) => socket.write_buf(bytes).await,
            Self::Tls(socket) => socket.write_buf(bytes).await,
        }?;
        if written == 0 { Err(io::ErrorKind::WriteZero.into()) } else { Ok(()) }
    }

    /// Sends what was written.
    pub(super) async fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Tls(socket) => socket.flush().await,
            Self::Tcp(_) | Self::Unix(_) => Ok(()),
        }
    }

    /// The digest of the server's certificate that binds a login to this connection: RFC 5929,
    /// `tls-server-end-point`. None where that is not defined.
    pub(super) fn end_point(&self) -> Option<Vec<u8>> {
        let Self::Tls(socket) = self else { return None };
        let certificate = socket.get_ref().1.peer_certificates()?.first()?;
        let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
        let algorithm = digest_of(&parsed.signature_algorithm.algorithm.to_id_string())?;
        Some(digest::digest(algorithm, certificate).as_ref().to_vec())
    }
}

/// The digest for a signature algorithm: its own, and SHA-256 where that is MD5 or SHA-1.
fn digest_of(signature: &str) -> Option<&'static digest::Algorithm> {
    match signature {
        // RSA with MD5, SHA-1, SHA-256; ECDSA with SHA-1, SHA-256.
        "1.2.840.113549.1.1.4"
        | "1.2.840.113549.1.1.5"
        | "1.2.840.113549.1.1.11"
        | "1.2.840.10045.4.1"
        | "1.2.840.10045.4.3.2" => Some(&digest::SHA256),
        "1.2.840.113549.1.1.12" | "1.2.840.10045.4.3.3" => Some(&digest::SHA384),
        "1.2.840.113549.1.1.13" | "1.2.840.10045.4.3.4" => Some(&digest::SHA512),
        _ => None,
    }
}
