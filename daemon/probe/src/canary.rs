//! The canary: a client of the workload that goes the whole way, from the name to the answer.
//!
//! **Invariant:** the workload's name is asked of the given DNS server, at each visit, with no cache between.

use std::net::SocketAddr;
use std::path::PathBuf;

use async_trait::async_trait;
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::Name;
use lifeboat_core::outcome::{Fault, FaultKind, Visit};
use lifeboat_core::sighting::{Failure, FailureKind};
use lifeboat_engine::clock::Clock;
use lifeboat_engine::ports::{Call, Canary};
use url::Host;

use crate::deadline::{Deadline, Stage};
use crate::dial;
use crate::exchange::{Expect, Reply};
use crate::fetch::Fetch;
use crate::kit::Kit;
use crate::setup::SetupError;
use crate::stub::{self, Leads, StubError};
use crate::target::Target;

/// What the canary uses, and what it expects.
#[derive(Clone, Debug)]
pub struct CanaryOptions {
    /// `http://…` or `https://…`, with the workload's name as its host.
    pub url: String,
    /// The DNS server that is asked for the name; the system's resolver when there is none.
    pub resolver: Option<SocketAddr>,
    /// The expected status, 100 to 999.
    pub status: u16,
    /// Text that the first [`BODY_LIMIT`](crate::BODY_LIMIT) bytes of the body must contain.
    pub body: Option<String>,
    /// Trust anchors (PEM) in place of the system's. Read when the canary is made.
    pub ca_file: Option<PathBuf>,
}

/// Resolves the workload's name and asks for one page, as a client would.
///
/// A visit changes nothing, so it may be repeated. What may pass while a name travels and an application
/// warms up (no address yet, no connection, an unexpected status or body) is `Unreachable`: look again. What
/// looking again does not mend (a bad certificate, a DNS server that refuses) is `Refused`.
#[derive(Debug)]
pub struct HttpCanary {
    target: Target,
    resolver: Option<SocketAddr>,
    fetch: Fetch,
    kit: Kit,
    clock: Clock,
}

impl HttpCanary {
    /// Makes the canary; `clock` measures how long the answer takes.
    ///
    /// # Errors
    ///
    /// When the options cannot be used or the trust anchors cannot be read.
    pub fn new(options: &CanaryOptions, kit: &Kit, clock: Clock) -> Result<Self, SetupError> {
        let target = Target::parse(&options.url, None)?;
        let secure = target.secure.is_some();
        let tls = secure.then(|| kit.trust().shared(options.ca_file.as_deref())).transpose()?;
        let expect = Expect::new(options.status, options.body.as_deref())?;
        let fetch = Fetch { expect, tls, certificate_days: 0 };
        Ok(Self { target, resolver: options.resolver, fetch, kit: kit.clone(), clock })
    }

    async fn addresses(&self, deadline: &mut Deadline<'_>) -> Result<Vec<SocketAddr>, Fault> {
        let port = self.target.port;
        let (Some(server), Host::Domain(host)) = (self.resolver, &self.target.host) else {
            return self.kit.resolve(&self.target.host, port, deadline).await.map_err(fault_of);
        };
        // Fully qualified: search domains are for people who type.
        let name = Name::from_utf8(host).map(|mut name| {
            name.set_fqdn(true);
            name
        });
        let name = name
            .map_err(|error| Fault::new(FaultKind::Refused, format!("{host} is not a DNS name: {error}")))?;
        let answered =
            deadline.within(Stage::Dns(server), stub::resolve(server, &name)).await.map_err(fault_of)?;
        match answered.map_err(|error| fault_of_dns(&error))? {
            Leads::To(addresses) => Ok(addresses.into_iter().map(|ip| SocketAddr::new(ip, port)).collect()),
            Leads::Elsewhere(alias) => {
                let alias = Host::Domain(alias.to_ascii().trim_end_matches('.').to_owned());
                self.kit.resolve(&alias, port, deadline).await.map_err(fault_of)
            }
        }
    }
}

#[async_trait]
impl Canary for HttpCanary {
    async fn visit(&self, call: &Call) -> Result<Visit, Fault> {
        let over = std::pin::pin!(tokio::time::sleep(call.limit));
        let mut deadline = Deadline::new(over, call.limit);
        let started = self.clock.now();
        self.kit.trust().set_time(started);
        let addresses = self.addresses(&mut deadline).await?;
        let stream = dial::connect(&addresses, &mut deadline).await.map_err(fault_of)?;
        let peer =
            stream.peer_addr().map_err(|error| Fault::new(FaultKind::Unreachable, error.to_string()))?;
        let fetched = self.fetch.over(stream, &self.target, started, &mut deadline).await;
        match fetched.map_err(|failure| at(peer, fault_of(failure)))? {
            Reply::Expected => {
                Ok(Visit { address: peer.ip().to_string(), took: self.clock.now().since(started) })
            }
            Reply::Redirect(status, _) => {
                let detail =
                    format!("status {}, a redirect, which the canary does not follow", status.as_u16());
                Err(at(peer, Fault::new(FaultKind::Unreachable, detail)))
            }
        }
    }
}

fn at(peer: SocketAddr, mut fault: Fault) -> Fault {
    fault.detail = format!("{peer}: {}", fault.detail);
    fault
}

/// What a failed look means to a step that waits for clients to be served.
fn fault_of(failure: Failure) -> Fault {
    use FailureKind as K;
    let lasting = matches!(failure.kind, K::Certificate | K::WrongIdentity | K::Malformed);
    let kind = if lasting { FaultKind::Refused } else { FaultKind::Unreachable };
    Fault::new(kind, failure.to_string())
}

fn fault_of_dns(error: &StubError) -> Fault {
    let kind = match error {
        // A server that is behind, or in trouble for a moment.
        StubError::Socket { .. } | StubError::NoAddress { .. } => FaultKind::Unreachable,
        StubError::Code { code: ResponseCode::NXDomain | ResponseCode::ServFail, .. } => {
            FaultKind::Unreachable
        }
        StubError::Code { .. } | StubError::Aliases { .. } | StubError::Malformed { .. } => {
            FaultKind::Refused
        }
    };
    let cause = std::error::Error::source(error).map(|source| format!(": {source}")).unwrap_or_default();
    Fault::new(kind, format!("{error}{cause}"))
}
