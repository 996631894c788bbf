//! One page over one fresh connection, with TLS when the URL says so.
//!
//! **Invariant:** the certificate's days are judged last: a wrong answer is the more urgent news.

use std::sync::Arc;

use lifeboat_core::Moment;
use lifeboat_core::sighting::{Failure, FailureKind};
use rustls::ClientConfig;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::deadline::{Deadline, Stage};
use crate::exchange::{self, Expect, Reply};
use crate::failure;
use crate::target::Target;
use crate::trust;

/// How pages are asked for, and what is expected of them.
#[derive(Debug)]
pub(crate) struct Fetch {
    /// The answer.
    pub(crate) expect: Expect,
    /// There whenever a target may need it.
    pub(crate) tls: Option<Arc<ClientConfig>>,
    /// Whole days that a certificate must be valid for.
    pub(crate) certificate_days: u32,
}

impl Fetch {
    /// Asks for `target` over `stream`, at the time `at`.
    pub(crate) async fn over(
        &self,
        stream: TcpStream,
        target: &Target,
        at: Moment,
        deadline: &mut Deadline<'_>,
    ) -> Result<Reply, Failure> {
        if target.secure.is_none() {
            return exchange::get(stream, target, &self.expect, deadline).await;
        }
        // Boxed, since the state of a TLS session would make every look of a plain probe as big.
        Box::pin(self.over_tls(stream, target, at, deadline)).await
    }

    async fn over_tls(
        &self,
        stream: TcpStream,
        target: &Target,
        at: Moment,
        deadline: &mut Deadline<'_>,
    ) -> Result<Reply, Failure> {
        let mut stream = self.secured(stream, target, deadline).await?;
        let reply = exchange::get(&mut stream, target, &self.expect, deadline).await?;
        if matches!(reply, Reply::Expected) {
            trust::check_days_left(stream.get_ref().1.peer_certificates(), self.certificate_days, at)?;
        }
        Ok(reply)
    }

    async fn secured(
        &self,
        stream: TcpStream,
        target: &Target,
        deadline: &mut Deadline<'_>,
    ) -> Result<TlsStream<TcpStream>, Failure> {
        secured(self.tls.as_ref(), stream, target, deadline).await
    }
}

/// Makes `stream` a TLS session with `target`, whose name is proven.
pub(crate) async fn secured(
    tls: Option<&Arc<ClientConfig>>,
    stream: TcpStream,
    target: &Target,
    deadline: &mut Deadline<'_>,
) -> Result<TlsStream<TcpStream>, Failure> {
    let (Some(tls), Some(name)) = (tls, &target.secure) else {
        let detail = format!("{} needs TLS, which this probe is not set up for", target.url);
        return Err(Failure::new(FailureKind::Malformed, detail));
    };
    // The request follows the end of the handshake at once; Nagle's algorithm would hold it back.
    stream.set_nodelay(true).map_err(|error| failure::of_io(&error))?;
    let handshake = TlsConnector::from(Arc::clone(tls)).connect(name.clone(), stream);
    let shaken = deadline.within(Stage::Handshake, handshake).await?;
    shaken.map_err(|error| failure::of_io(&error))
}
