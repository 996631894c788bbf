//! The control API: JSON over HTTP on a unix socket, for the owner of the state folder.
//!
//! **Invariant:** who gave an order is what the client says, with the user id that the kernel says.

use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;

use axum::extract::connect_info::{ConnectInfo, Connected};
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::serve::IncomingStream;
use axum::{Json, Router};
use lifeboat_core::forecast::Forecast;
use lifeboat_core::plan::Kind;
use lifeboat_core::status::Status;
use lifeboat_core::{Order, Plan, Reason, RegionName, WorkloadName};
use lifeboat_engine::{Inbox, Journal};
use serde::{Deserialize, Serialize};
use tokio::net::UnixListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::error;

use crate::failure::{Exit, Failure};
use crate::keeping::BackupStatus;

/// The socket, bound and not yet answering.
pub(crate) struct Door {
    listener: UnixListener,
}

/// The user at the other end.
#[derive(Clone, Debug)]
struct Peer(Option<u32>);

impl Connected<IncomingStream<'_, UnixListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, UnixListener>) -> Self {
        Self(stream.io().peer_cred().ok().map(|cred| cred.uid()))
    }
}

/// What the handlers need.
#[derive(Clone)]
struct Agent {
    inbox: Inbox,
    journal: Journal,
    backups: watch::Receiver<Vec<BackupStatus>>,
}

/// Everything the agent knows.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Known {
    /// What the guardian knows.
    #[serde(flatten)]
    pub(crate) status: Status,
    /// How backups are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) backups: Vec<BackupStatus>,
}

/// A plan with its forecast, or why there is none.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Planned {
    /// The plan.
    Plan {
        /// What would be done.
        plan: Box<Plan>,
        /// How long it would take.
        forecast: Forecast,
    },
    /// Why there is none.
    Refused {
        /// The reason.
        reason: Reason,
    },
}

/// Which plan.
#[derive(Debug, Serialize, Deserialize)]
struct Wanted {
    kind: Kind,
    workload: WorkloadName,
    to: Option<RegionName>,
}

/// From where on.
#[derive(Debug, Deserialize)]
struct After {
    #[serde(default)]
    after: u64,
}

impl Door {
    /// Binds the socket, for its owner alone. A socket left by a killed agent is replaced.
    pub(crate) fn bind(path: &Path) -> Result<Self, Failure> {
        let failed = |error: &dyn std::error::Error| {
            Failure::because(Exit::Failed, format!("cannot listen on {}", path.display()), error)
        };
        // The journal's lock proves that no other agent of this state folder lives, so this is a leftover.
        if std::fs::symlink_metadata(path).is_ok_and(|meta| meta.file_type().is_socket()) {
            std::fs::remove_file(path).map_err(|error| failed(&error))?;
        }
        let listener = UnixListener::bind(path).map_err(|error| failed(&error))?;
        let owner_only = std::fs::Permissions::from_mode(0o600);
        std::fs::set_permissions(path, owner_only).map_err(|error| failed(&error))?;
        Ok(Self { listener })
    }

    /// Answers until told to stop.
    pub(crate) async fn serve(
        self,
        inbox: Inbox,
        journal: Journal,
        backups: watch::Receiver<Vec<BackupStatus>>,
        stop: CancellationToken,
    ) {
        let agent = Arc::new(Agent { inbox, journal, backups });
        let router = Router::new()
            .route("/v1/status", get(status))
            .route("/v1/orders", post(order))
            .route("/v1/plan", get(plan))
            .route("/v1/records", get(records))
            .with_state(agent)
            .into_make_service_with_connect_info::<Peer>();
        let served = axum::serve(self.listener, router).with_graceful_shutdown(stop.cancelled_owned());
        if let Err(cause) = served.await {
            error!(%cause, "the control socket failed; commands cannot reach this agent");
        }
    }
}

/// The address of a plan, for the client.
pub(crate) fn plan_path(kind: Kind, workload: &WorkloadName, to: Option<&RegionName>) -> String {
    // Names are letters, digits and "-": nothing to escape.
    let to = to.map(|region| format!("&to={region}")).unwrap_or_default();
    format!("/v1/plan?kind={kind}&workload={workload}{to}")
}

fn stopping(error: &dyn std::error::Error) -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, error.to_string()).into_response()
}

async fn status(State(agent): State<Arc<Agent>>) -> Response {
    let backups = agent.backups.borrow().clone();
    let known = agent.inbox.status().await.map(|status| Known { status, backups });
    known.map_or_else(|error| stopping(&error), |known| Json(known).into_response())
}

async fn order(
    State(agent): State<Arc<Agent>>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Json(order): Json<Order>,
) -> Response {
    let answer = agent.inbox.order(signed(order, &peer)).await;
    answer.map_or_else(|error| stopping(&error), |answer| Json(answer).into_response())
}

/// The order, with the user id that the kernel vouches for beside the name that was given, and with texts
/// that cannot forge a line of the log.
fn signed(mut order: Order, peer: &Peer) -> Order {
    if let Order::Abandon { reason, .. }
    | Order::Cancel { reason, .. }
    | Order::Skip { reason, .. }
    | Order::Pause { reason, .. } = &mut order
    {
        *reason = one_line(reason);
    }
    let (Order::Failover { by, .. }
    | Order::Switchover { by, .. }
    | Order::Failback { by, .. }
    | Order::Rejoin { by, .. }
    | Order::Cancel { by, .. }
    | Order::Skip { by, .. }
    | Order::Approve { by, .. }
    | Order::Abandon { by, .. }
    | Order::Pause { by, .. }
    | Order::Resume { by, .. }) = &mut order;
    let uid = peer.0.map_or_else(|| "unknown uid".to_owned(), |uid| format!("uid {uid}"));
    *by = format!("{} ({uid})", one_line(by));
    order
}

/// A person's text as one line of at most 500 characters.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(500).collect()
}

async fn plan(State(agent): State<Arc<Agent>>, Query(wanted): Query<Wanted>) -> Response {
    match agent.inbox.plan(wanted.kind, wanted.workload, wanted.to).await {
        Ok(Ok((plan, forecast))) => Json(Planned::Plan { plan: Box::new(plan), forecast }).into_response(),
        Ok(Err(reason)) => Json(Planned::Refused { reason }).into_response(),
        Err(error) => stopping(&error),
    }
}

async fn records(State(agent): State<Arc<Agent>>, Query(After { after }): Query<After>) -> Response {
    match agent.journal.records(after).await {
        Ok(records) => Json(records).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}
