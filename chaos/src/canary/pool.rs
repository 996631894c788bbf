//! HTTP/1.1 connections of the canary: a pool of kept ones, and fresh ones.
//!
//! **Invariant:** a connection on which anything went wrong, time-outs included, is dropped and never pooled.
//! A pooled connection stays where it was opened: it does not follow DNS, as those of real clients do not.

use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::ledger::{Failure, Way};
use crate::region::Region;
use crate::shop::REGION_HEADER;

/// Kept connections: enough for orders that overlap when one takes 300 ms.
const KEPT: usize = 32;
/// The shop's answers are a few bytes; more is not a shop.
const ANSWER_LIMIT: usize = 4096;

type Connection = SendRequest<Full<Bytes>>;

pub(super) struct Pool {
    host: String,
    kept: Mutex<Vec<Connection>>,
}

impl Pool {
    pub(super) fn new(host: &str) -> Pool {
        Pool { host: host.trim_end_matches('.').to_owned(), kept: Mutex::new(Vec::new()) }
    }

    /// Sends one order; the region that acknowledged it.
    pub(super) async fn order(&self, shop: SocketAddr, id: &str, way: Way) -> Result<Region, Failure> {
        let kept = match way {
            Way::Pooled => self.take(),
            Way::Fresh => None,
        };
        let mut connection = match kept {
            Some(connection) => connection,
            None => connect(shop).await?,
        };
        let region = self.send(&mut connection, id).await?;
        // Ready again only once the answer was read to its end and the shop did not say "close".
        if way == Way::Pooled && connection.ready().await.is_ok() {
            self.keep(connection);
        }
        Ok(region)
    }

    async fn send(&self, connection: &mut Connection, id: &str) -> Result<Region, Failure> {
        let request = Request::post("/orders")
            .header("host", &self.host)
            .body(Full::new(Bytes::copy_from_slice(id.as_bytes())))
            .map_err(|_| Failure::Connection)?;
        let answer = connection.send_request(request).await.map_err(|_| Failure::Connection)?;
        let region = answer.headers().get(REGION_HEADER).and_then(|name| name.to_str().ok()?.parse().ok());
        let status = answer.status();
        Limited::new(answer.into_body(), ANSWER_LIMIT).collect().await.map_err(|_| Failure::Connection)?;
        match (status, region) {
            (StatusCode::CREATED, Some(region)) => Ok(region),
            _ => Err(Failure::Refused),
        }
    }

    fn take(&self) -> Option<Connection> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|connection| !connection.is_closed());
        kept.pop()
    }

    fn keep(&self, connection: Connection) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() < KEPT {
            kept.push(connection);
        }
    }
}

async fn connect(shop: SocketAddr) -> Result<Connection, Failure> {
    let stream = TcpStream::connect(shop).await.map_err(|_| Failure::Connection)?;
    stream.set_nodelay(true).map_err(|_| Failure::Connection)?;
    let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(|_| Failure::Connection)?;
    // Its end is seen by the sender.
    tokio::spawn(async move { connection.await.ok() });
    Ok(sender)
}
