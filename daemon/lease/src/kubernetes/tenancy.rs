//! Who decides: one Lease object, as client-go's leader election uses it.
//!
//! What is compared with a clock is how long the object has not changed since this agent first saw it so, on this agent's
//! clock. `renewTime` is written for people and never read. What makes it safe is not this but the record: whoever takes
//! the Lease writes its term into the end of the record before it decides anything (`record`).
//!
//! **Invariant:** a tenure is taken from its holder only after the Lease has not changed for its whole duration.
//! **Invariant:** a term is greater than the Lease's and the record's; a Lease that was deleted does not begin again.

use std::collections::BTreeMap;
use std::sync::PoisonError;
use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use lifeboat_core::testimony::Beat;
use lifeboat_core::{AgentName, Moment};
use lifeboat_engine::ports::{CoordinationError, Tenure};

use super::Kubernetes;
use super::access::Written;

/// The annotation with the number of the guardian's newest beat.
const BEAT: &str = "lifeboat/beat";

/// How often a renewal is tried again after somebody changed the object who does not hold it.
const ATTEMPTS: usize = 4;

/// What a Lease says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Held {
    /// Who holds it, with the word of its process; none when nobody does.
    pub(super) identity: Option<String>,
    /// The term.
    pub(super) term: u64,
    /// For how long after a change.
    pub(super) duration: Duration,
    /// The newest beat.
    pub(super) beat: Option<Beat>,
    /// When it was renewed, on the holder's clock: it is compared for being another one, and with nothing else.
    renewed: Option<Timestamp>,
}

impl Held {
    /// Reads it; a duration that is missing is `ttl`.
    pub(super) fn read(lease: &Lease, ttl: Duration) -> Self {
        let spec = lease.spec.clone().unwrap_or_default();
        let term = spec.lease_transitions.and_then(|term| u64::try_from(term).ok()).unwrap_or(0);
        let count = lease.metadata.annotations.as_ref().and_then(|all| all.get(BEAT)?.parse::<u64>().ok());
        let seconds = spec.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
        Self {
            identity: spec.holder_identity.filter(|identity| !identity.is_empty()),
            term,
            duration: seconds.filter(|seconds| *seconds > 0).map_or(ttl, Duration::from_secs),
            beat: count.filter(|count| *count > 0).map(|count| Beat { term, count }),
            renewed: spec.renew_time.map(|time| time.0),
        }
    }

    /// Which agent holds it.
    pub(super) fn agent(&self) -> Option<AgentName> {
        self.identity.as_deref().map(agent_of)
    }
}

/// What was seen of the Lease, and since when it has not changed.
#[derive(Debug)]
pub(super) struct Seen {
    held: Held,
    since: Moment,
}

/// The agent of an identity: what is before the word of its process.
pub(super) fn agent_of(identity: &str) -> AgentName {
    AgentName::new(identity.rsplit_once('_').map_or(identity, |(agent, _)| agent))
}

impl Kubernetes {
    /// Takes note of what the Lease says, and tells when the tenure is over if it does not change.
    pub(super) fn observe(&self, held: &Held) -> Moment {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        match seen.as_ref() {
            Some(known) if known.held == *held => known.since + held.duration,
            _ => {
                // After the answer: the holder counts from before it asked, so this one waits for longer.
                let since = self.clock.now();
                *seen = Some(Seen { held: held.clone(), since });
                since + held.duration
            }
        }
    }

    /// Takes the tenure if nobody has it, or this process itself has it of old.
    pub(super) async fn take(&self) -> Result<Option<Tenure>, CoordinationError> {
        // What cannot be read or goes back is found before anything is taken.
        let recorded = self.tail_not_rewound().await?.map_or(0, |(_, tail)| tail.term);
        let lease: Option<Lease> = self.access.get(self.names.lease()).await?;
        let written = match lease {
            None => self.access.create(&self.lease(recorded + 1)?).await?,
            Some(lease) => {
                let held = Held::read(&lease, self.options.tenure_ttl);
                let over = self.observe(&held);
                let ours = held.identity.as_deref() == Some(&self.identity);
                if held.identity.is_some() && !ours && self.clock.now() < over {
                    return Ok(None);
                }
                let metadata = lease.metadata;
                let next = self.lease(held.term.max(recorded) + 1)?;
                let annotations = merged(metadata.annotations.clone(), next.metadata.annotations);
                let metadata = ObjectMeta { annotations, ..metadata };
                self.access.replace(&Lease { metadata, ..next }).await?
            }
        };
        let Written::Done(lease) = written else { return Ok(None) };
        let held = Held::read(&lease, self.options.tenure_ttl);
        let tenure = Tenure { term: held.term };
        *self.lease.lock().await = Some(lease);
        match self.claim(tenure.term).await {
            Ok(true) => Ok(Some(tenure)),
            refused => {
                // Who cannot write to the record must not keep others from it.
                self.give_back(tenure).await;
                refused.map(|_| None)
            }
        }
    }

    /// Keeps the tenure: the Lease as it was last written, with the next beat.
    pub(super) async fn keep(&self, tenure: Tenure, beat: Beat) -> Result<(), CoordinationError> {
        let mut known = self.lease.lock().await;
        for _ in 0..ATTEMPTS {
            let lease = match known.take() {
                Some(lease) => Some(lease),
                None => self.access.get::<Lease>(self.names.lease()).await?,
            };
            let Some(mut lease) = lease.filter(|lease| self.holds(lease, tenure)) else {
                return Err(CoordinationError::Deposed(format!(
                    "the Lease is not held under term {} any more",
                    tenure.term
                )));
            };
            let spec = lease.spec.get_or_insert_default();
            spec.renew_time = Some(MicroTime(self.timestamp()?));
            spec.lease_duration_seconds = Some(self.seconds());
            let annotations = lease.metadata.annotations.get_or_insert_default();
            annotations.insert(BEAT.to_owned(), beat.count.to_string());
            // An error leaves nothing known: the next renewal reads first.
            if let Written::Done(lease) = self.access.replace(&lease).await? {
                *known = Some(lease);
                return Ok(());
            }
        }
        Err(CoordinationError::Unreachable(format!("{} is changed all the time", self.names.lease())))
    }

    /// Gives the tenure back, if it is still this one's.
    pub(super) async fn give_back(&self, tenure: Tenure) {
        self.lease.lock().await.take();
        let Ok(Some(mut lease)) = self.access.get::<Lease>(self.names.lease()).await else { return };
        if self.holds(&lease, tenure) {
            let spec = lease.spec.get_or_insert_default();
            spec.holder_identity = None;
            let given = self.access.replace(&lease).await;
            if let Err(error) = given {
                tracing::info!(%error, "the tenure was not given back; it ends by itself");
            }
        }
    }

    fn holds(&self, lease: &Lease, tenure: Tenure) -> bool {
        let held = Held::read(lease, self.options.tenure_ttl);
        held.identity.as_deref() == Some(&self.identity) && held.term == tenure.term
    }

    /// A Lease that this agent holds under that term.
    fn lease(&self, term: u64) -> Result<Lease, CoordinationError> {
        let transitions = i32::try_from(term)
            .map_err(|_| CoordinationError::Damaged(format!("term {term} is more than a Lease can count")))?;
        let now = MicroTime(self.timestamp()?);
        let spec = LeaseSpec {
            acquire_time: Some(now.clone()),
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: Some(self.seconds()),
            lease_transitions: Some(transitions),
            renew_time: Some(now),
            ..LeaseSpec::default()
        };
        let metadata = ObjectMeta {
            name: Some(self.names.lease().to_owned()),
            annotations: Some(BTreeMap::from([(BEAT.to_owned(), "0".to_owned())])),
            ..ObjectMeta::default()
        };
        Ok(Lease { metadata, spec: Some(spec) })
    }

    fn seconds(&self) -> i32 {
        i32::try_from(self.options.tenure_ttl.as_secs()).unwrap_or(i32::MAX).max(1)
    }

    fn timestamp(&self) -> Result<Timestamp, CoordinationError> {
        let millis = i64::try_from(self.clock.now().millis()).unwrap_or(i64::MAX);
        Timestamp::from_millisecond(millis)
            .map_err(|error| CoordinationError::Damaged(format!("this agent's clock: {error}")))
    }
}

/// Both, the second over the first.
fn merged(
    first: Option<BTreeMap<String, String>>,
    second: Option<BTreeMap<String, String>>,
) -> Option<BTreeMap<String, String>> {
    let mut both = first.unwrap_or_default();
    both.extend(second.unwrap_or_default());
    Some(both)
}
