//! Orders from one agent to whoever decides, and the answers.
//!
//! An order is an object that the agent which waits for the answer keeps changing while it waits. It is told of only when it
//! is seen to change: an order whose agent has died, or has given up, is never carried out, whenever it is found, and
//! no clock is compared for it.
//!
//! **Invariant:** an order is told of only while somebody waits for its answer, and only if its seal is that agent's.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::ConfigMap;
use lifeboat_core::{AgentName, Answer, Order};
use lifeboat_engine::ports::{Change, CoordinationError, Tenure};

use super::Kubernetes;
use super::access::Written;
use super::objects::{Part, entry, word};
use super::record::deposed;

/// How often the one who waits looks for the answer and shows that it still waits.
const LOOK: Duration = Duration::from_millis(300);

/// After how long without a change an order is nobody's any more, and is taken away by whoever sees it.
pub(super) const ABANDONED: Duration = Duration::from_secs(60);

/// How often an answer is written again after the one who waits has changed the object meanwhile.
const ATTEMPTS: usize = 8;

const ORDER: &str = "order";
const FROM: &str = "from";
const WAITS: &str = "waits";
const ANSWER: &str = "answer";
const SEAL: &str = "seal";

/// How often the one who waits has shown that it does.
pub(super) fn waits(object: &ConfigMap) -> u64 {
    entry(object, WAITS).and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// Whether it is answered.
pub(super) fn answered(object: &ConfigMap) -> bool {
    entry(object, ANSWER).is_some()
}

impl Kubernetes {
    /// Gives an order, and waits.
    pub(super) async fn give(&self, order: &Order, limit: Duration) -> Result<Answer, CoordinationError> {
        let unmade = || CoordinationError::Unreachable("the system gave no random numbers".to_owned());
        let id = word().ok_or_else(unmade)?;
        let text = serde_json::to_string(order)
            .map_err(|error| CoordinationError::Damaged(format!("an order cannot be written: {error}")))?;
        let seal = self.seal.sign(&self.sealed_order(&id, &text));
        let mut object = self.names.object(self.names.order(&id), Part::Order);
        let entries = [(ORDER, text.as_str()), (FROM, self.options.agent.as_str()), (WAITS, "1")];
        object.data = Some(entries.map(|(key, value)| (key.to_owned(), value.to_owned())).into());
        object.binary_data = Some(BTreeMap::from([(SEAL.to_owned(), ByteString(seal))]));
        let name = self.names.order(&id);
        let given = async {
            self.access.create(&object).await?;
            self.waited_for(&name).await
        };
        let answer = tokio::time::timeout(limit, given).await.unwrap_or_else(|_| {
            Err(CoordinationError::Unclear(format!("no answer to the order within {limit:?}")))
        });
        // Nobody waits any more. What is left when this fails is never told of, and taken away later.
        if let Ok(Some(object)) = self.access.get::<ConfigMap>(&name).await {
            let _ = self.access.delete(&object).await;
        }
        answer
    }

    async fn waited_for(&self, name: &str) -> Result<Answer, CoordinationError> {
        loop {
            let read = self.access.get::<ConfigMap>(name).await;
            match read {
                Ok(Some(mut object)) => {
                    if let Some(answer) = entry(&object, ANSWER) {
                        return serde_json::from_str(answer)
                            .map_err(|error| CoordinationError::Damaged(format!("the answer: {error}")));
                    }
                    let next = waits(&object).saturating_add(1).to_string();
                    object.data.get_or_insert_default().insert(WAITS.to_owned(), next);
                    match self.access.replace(&object).await {
                        // An answer that came between is found with the next look.
                        Ok(_) | Err(CoordinationError::Unclear(_) | CoordinationError::Unreachable(_)) => {}
                        Err(error) => return Err(error),
                    }
                }
                Ok(None) => {
                    return Err(CoordinationError::Unclear("the order was taken away unanswered".to_owned()));
                }
                // It may pass; the limit ends it otherwise.
                Err(CoordinationError::Unreachable(_)) => {}
                Err(error) => return Err(error),
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Answers an order; without effect when nobody waits any more, or it is answered.
    pub(super) async fn answer_order(
        &self,
        tenure: Tenure,
        id: &str,
        answer: &Answer,
    ) -> Result<(), CoordinationError> {
        let text = serde_json::to_string(answer)
            .map_err(|error| CoordinationError::Damaged(format!("an answer cannot be written: {error}")))?;
        for _ in 0..ATTEMPTS {
            let Some(mut object) = self.access.get::<ConfigMap>(&self.names.order(id)).await? else {
                return Ok(());
            };
            if answered(&object) {
                return Ok(());
            }
            // Looked at after the order was read: who took over later than this finds the answer there.
            match self.tail().await? {
                Some((_, tail)) if tail.term == tenure.term && tail.guardian == self.identity => {}
                Some((_, tail)) => return Err(deposed(&tail, tenure)),
                None => return Err(CoordinationError::Deposed("there is no record here".to_owned())),
            }
            object.data.get_or_insert_default().insert(ANSWER.to_owned(), text.clone());
            if let Written::Done(_) = self.access.replace(&object).await? {
                return Ok(());
            }
        }
        Err(CoordinationError::Unreachable(format!("order {id} is changed all the time")))
    }

    /// What an object of an order says.
    pub(super) fn order_of(&self, object: &ConfigMap) -> Option<Change> {
        let name = object.metadata.name.as_deref()?;
        let id = name.strip_prefix(&self.names.order(""))?.to_owned();
        let from = AgentName::new(entry(object, FROM).unwrap_or_default());
        let text = entry(object, ORDER).unwrap_or_default();
        let seal = object.binary_data.as_ref().and_then(|all| all.get(SEAL)).map(|seal| seal.0.as_slice());
        let forged = |why: String| Some(Change::Forged { vantage: from.clone(), why });
        if !self.seal.is_of(&from, &self.sealed_order(&id, text), seal.unwrap_or_default()) {
            return forged(format!("the seal on order {id} is not that agent's"));
        }
        match serde_json::from_str(text) {
            Ok(order) => Some(Change::Order { id, order }),
            Err(error) => forged(format!("order {id} cannot be understood: {error}")),
        }
    }

    fn sealed_order(&self, id: &str, text: &str) -> Vec<u8> {
        format!("lifeboat order\n{}\n{id}\n{text}", self.options.name).into_bytes()
    }
}
