//! Requests of the operator's own: a runbook's `http` steps.
//!
//! **Invariant:** redirects are not followed: a request that changes something goes where the page says, or nowhere.
//! **Invariant:** what is kept of an answer is one line of at most [`KEPT`] characters.

use async_trait::async_trait;
use bytes::Bytes;
use hyper::{Method, StatusCode};
use lifeboat_core::sighting::{Failure, FailureKind};
use lifeboat_core::{Fault, FaultKind, Moment};
use lifeboat_engine::ports::{Call, Errand, Messenger};

use crate::deadline::Deadline;
use crate::kit::Kit;
use crate::target::Target;
use crate::{dial, exchange, fetch};

/// Characters of an answer that are kept.
const KEPT: usize = 300;

/// Sends requests, each over a fresh connection.
#[derive(Clone, Debug, Default)]
pub struct HttpMessenger {
    kit: Kit,
}

impl HttpMessenger {
    /// Shares look-ups and trust with the probes.
    #[must_use]
    pub fn new(kit: &Kit) -> Self {
        Self { kit: kit.clone() }
    }

    async fn exchange(
        &self,
        target: &Target,
        method: Method,
        body: Bytes,
        deadline: &mut Deadline<'_>,
    ) -> Result<(StatusCode, Vec<u8>), Trouble> {
        let addresses = self.kit.resolve(&target.host, target.port, deadline).await;
        let stream = match addresses {
            Ok(addresses) => dial::connect(&addresses, deadline).await,
            Err(failure) => Err(failure),
        };
        let stream = stream.map_err(Trouble::Before)?;
        if target.secure.is_none() {
            return exchange::send(stream, target, method, body, deadline).await.map_err(Trouble::After);
        }
        let tls =
            self.kit.trust().shared(None).map_err(|error| {
                Trouble::Before(Failure::new(FailureKind::Certificate, error.to_string()))
            })?;
        let stream = fetch::secured(Some(&tls), stream, target, deadline).await.map_err(Trouble::Before)?;
        exchange::send(stream, target, method, body, deadline).await.map_err(Trouble::After)
    }
}

/// When it went wrong.
enum Trouble {
    /// Before the request was sent.
    Before(Failure),
    /// After its first byte may have been sent.
    After(Failure),
}

#[async_trait]
impl Messenger for HttpMessenger {
    async fn send(&self, call: &Call, at: Moment, errand: &Errand<'_>) -> Result<String, Fault> {
        let refused = |why: String| Fault::new(FaultKind::Refused, why);
        let target = Target::parse(errand.url, None).map_err(|error| refused(error.to_string()))?;
        let method = Method::from_bytes(errand.method.as_bytes());
        let method = method.map_err(|_| refused(format!("{:?} is not a method", errand.method)))?;
        let body = Bytes::copy_from_slice(errand.body.unwrap_or_default().as_bytes());
        self.kit.trust().set_time(at);
        let over = std::pin::pin!(tokio::time::sleep(call.limit));
        let mut deadline = Deadline::new(over, call.limit);
        let (status, said) = match self.exchange(&target, method, body, &mut deadline).await {
            Ok(answer) => answer,
            Err(Trouble::Before(failure)) => {
                return Err(Fault::new(FaultKind::Unreachable, format!("{}: {failure}", target.url)));
            }
            Err(Trouble::After(failure)) => {
                return Err(Fault::new(FaultKind::Unclear, format!("{}: {failure}", target.url)));
            }
        };
        let said = format!("status {}: {}", status.as_u16(), line(&said));
        if errand.expect.contains(&status.as_u16()) {
            return Ok(said);
        }
        let kind = if status.is_client_error() { FaultKind::Refused } else { FaultKind::Unclear };
        let expected: Vec<String> = errand.expect.iter().map(ToString::to_string).collect();
        let detail = format!("{} answers {said}; expected {}", target.url, expected.join(" or "));
        Err(Fault::new(kind, detail))
    }
}

fn line(said: &[u8]) -> String {
    let text = String::from_utf8_lossy(said);
    text.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).take(KEPT).collect()
}
