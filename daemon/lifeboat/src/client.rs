//! Talking to the agent over its control socket.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use lifeboat_core::plan::Kind;
use lifeboat_core::status::Status;
use lifeboat_core::{Answer, Order, RegionName, Stamped, WorkloadName};
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use crate::api::{self, Known, Planned};
use crate::cli::Place;
use crate::failure::{Exit, Failure};

/// An answer larger than this is not lifeboat's: 256 MiB holds a million records.
const LARGEST: usize = 256 << 20;

/// An agent that does not answer within this is hung.
const LIMIT: Duration = Duration::from_secs(20);

/// The agent, as its socket is known.
pub(crate) struct Client {
    socket: PathBuf,
}

impl Client {
    /// The agent that the command line or the configuration names.
    pub(crate) fn of(place: &Place) -> Result<Self, Failure> {
        let socket = match &place.socket {
            Some(socket) => socket.clone(),
            None => crate::commands::load(&place.config)?.config.wiring.agent.socket,
        };
        Ok(Self { socket })
    }

    /// Everything the agent knows.
    pub(crate) async fn status(&self) -> Result<Status, Failure> {
        self.get("/v1/status").await
    }

    /// Everything the agent knows, and how backups are.
    pub(crate) async fn known(&self) -> Result<Known, Failure> {
        self.get("/v1/status").await
    }

    /// Gives an order.
    pub(crate) async fn order(&self, order: &Order) -> Result<Answer, Failure> {
        let body = serde_json::to_vec(order).map_err(|error| self.broken(&error))?;
        self.call(Method::POST, "/v1/orders", body).await
    }

    /// The plan of a procedure.
    pub(crate) async fn plan(
        &self,
        kind: Kind,
        workload: &WorkloadName,
        to: Option<&RegionName>,
    ) -> Result<Planned, Failure> {
        self.get(&api::plan_path(kind, workload, to)).await
    }

    /// The records after a place.
    pub(crate) async fn records(&self, after: u64) -> Result<Vec<Stamped>, Failure> {
        self.get(&format!("/v1/records?after={after}")).await
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        self.call(Method::GET, path, Vec::new()).await
    }

    async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Vec<u8>,
    ) -> Result<T, Failure> {
        let answered = tokio::time::timeout(LIMIT, self.exchange(method, path, body)).await;
        let (status, bytes) = answered.map_err(|_| self.silent())??;
        if status != StatusCode::OK {
            let text = String::from_utf8_lossy(&bytes).into_owned();
            return Err(Failure::new(Exit::Failed, format!("the agent answered {status}: {text}")));
        }
        serde_json::from_slice(&bytes).map_err(|error| self.broken(&error))
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Vec<u8>,
    ) -> Result<(StatusCode, Bytes), Failure> {
        let stream = UnixStream::connect(&self.socket).await.map_err(|error| self.absent(&error))?;
        let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = handshake.map_err(|error| self.broken(&error))?;
        let request = Request::builder().method(method).uri(path).header("host", "lifeboat");
        let request = request.header("content-type", "application/json").body(Full::new(Bytes::from(body)));
        let request = request.map_err(|error| self.broken(&error))?;
        let exchanged = async {
            let response = sender.send_request(request).await.map_err(|error| self.broken(&error))?;
            let status = response.status();
            let body = Limited::new(response.into_body(), LARGEST).collect().await;
            let body = body.map_err(|error| self.broken(error.as_ref()))?;
            // The connection ends when the last handle on it goes.
            drop(sender);
            Ok((status, body.to_bytes()))
        };
        let (exchanged, _) = tokio::join!(exchanged, connection);
        exchanged
    }

    fn absent(&self, error: &std::io::Error) -> Failure {
        let path = self.socket.display();
        Failure::because(Exit::Unreachable, format!("no agent answers on {path}"), error)
            .hint("is it running?  `systemctl status lifeboat`, or start it with `lifeboat run`")
    }

    fn silent(&self) -> Failure {
        let path = self.socket.display();
        Failure::new(Exit::Unreachable, format!("the agent on {path} does not answer"))
            .hint("its log says what it is doing: `journalctl -u lifeboat`")
    }

    fn broken(&self, error: &dyn std::error::Error) -> Failure {
        let path = self.socket.display();
        Failure::because(Exit::Unreachable, format!("the agent on {path} cannot be understood"), error)
            .hint("are the agent and this command the same version?  `lifeboat --version`")
    }
}

/// The records of the agent, or, when it is not running, of its journal.
pub(crate) async fn records(place: &Place) -> Result<Vec<Stamped>, Failure> {
    let client = Client::of(place)?;
    match client.records(0).await {
        Err(absent) if absent.exit == Exit::Unreachable && place.socket.is_none() => {
            let state = crate::commands::load(&place.config)?.config.wiring.agent.state;
            from_journal(&state).map_err(|_| absent)
        }
        answered => answered,
    }
}

fn from_journal(state: &Path) -> Result<Vec<Stamped>, lifeboat_engine::JournalError> {
    lifeboat_engine::Journal::look(&state.join("journal.db"))
}
