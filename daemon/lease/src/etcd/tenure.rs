//! Who decides: a key that one agent puts and keeps, with an etcd lease that ends when it does not.
//!
//! **Invariant:** a tenure is named by the create revision and the etcd lease of its key: no other one is mistaken for it.

use etcd_client::{Compare, CompareOp, GetOptions, KeyValue, PutOptions, Txn, TxnOp, TxnOpResponse};
use lifeboat_core::AgentName;
use lifeboat_core::testimony::Beat;
use lifeboat_engine::ports::{CoordinationError, Tenure};
use serde::{Deserialize, Serialize};

use super::trouble::Trouble;
use super::{Etcd, locked};

/// What the guardian's key says.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Sign {
    pub(super) agent: AgentName,
    pub(super) beat: Option<Beat>,
}

/// A tenure of this agent's.
#[derive(Clone, Copy, Debug)]
pub(super) struct Held {
    tenure: Tenure,
    lease: i64,
}

impl Held {
    /// Whether that is the key of this tenure.
    pub(super) fn is(&self, key: &KeyValue) -> bool {
        u64::try_from(key.create_revision()) == Ok(self.tenure.term) && key.lease() == self.lease
    }
}

impl Etcd {
    pub(super) async fn stand(&self) -> Result<Option<Tenure>, CoordinationError> {
        // Looking first: an agent that stands by would otherwise make a lease each time.
        let there =
            self.members.get(self.keys.guardian(), GetOptions::new()).await.map_err(Trouble::of_read)?;
        if !there.what.kvs().is_empty() {
            return Ok(None);
        }
        // A lease that nothing is bound to is of no consequence.
        let lease = self.members.grant(self.options.tenure_ttl).await.map_err(Trouble::of_read)?;
        let sign = self.sign(None)?;
        let key = self.keys.guardian();
        let bound = PutOptions::new().with_lease(lease);
        let txn = Txn::new()
            .when([Compare::create_revision(key.as_str(), CompareOp::Equal, 0)])
            .and_then([TxnOp::put(key.as_str(), sign, Some(bound))])
            .or_else([TxnOp::get(key.as_str(), None)]);
        let answer = self.members.transact(txn).await.map_err(Trouble::of_write)?.what;
        let ours = match answer.op_responses().first() {
            Some(TxnOpResponse::Put(put)) => put.header().map(etcd_client::ResponseHeader::revision),
            // Put by an attempt of this call that got no answer.
            Some(TxnOpResponse::Get(get)) => {
                get.kvs().iter().find(|kv| kv.lease() == lease).map(etcd_client::KeyValue::create_revision)
            }
            _ => None,
        };
        let Some(term) = ours.and_then(|revision| u64::try_from(revision).ok()) else {
            self.members.revoke(lease).await;
            return Ok(None);
        };
        let tenure = Tenure { term };
        *locked(&self.held) = Some(Held { tenure, lease });
        Ok(Some(tenure))
    }

    pub(super) async fn keep_tenure(&self, tenure: Tenure, beat: Beat) -> Result<(), CoordinationError> {
        let held = self.held(tenure)?;
        let over = |_| self.deposed(tenure);
        match self.members.keep(held.lease).await {
            Ok(()) => {}
            Err(Trouble::Gone(text)) => return Err(over(text)),
            Err(trouble) => return Err(trouble.of_write()),
        }
        let bound = PutOptions::new().with_lease(held.lease);
        let txn = Txn::new().when(self.guard(held)).and_then([TxnOp::put(
            self.keys.guardian(),
            self.sign(Some(beat))?,
            Some(bound),
        )]);
        match self.members.transact(txn).await {
            Ok(answer) if answer.what.succeeded() => Ok(()),
            Ok(_) => Err(self.deposed(tenure)),
            Err(Trouble::Gone(text)) => Err(over(text)),
            Err(trouble) => Err(trouble.of_write()),
        }
    }

    pub(super) async fn give_back(&self, tenure: Tenure) {
        let Ok(held) = self.held(tenure) else { return };
        *locked(&self.held) = None;
        let txn = Txn::new().when(self.guard(held)).and_then([TxnOp::delete(self.keys.guardian(), None)]);
        if let Err(trouble) = self.members.transact(txn).await {
            tracing::debug!(?trouble, "the tenure was not given back; it ends by itself");
        }
        self.members.revoke(held.lease).await;
    }

    /// The tenure, if this agent holds it as far as it knows.
    pub(super) fn held(&self, tenure: Tenure) -> Result<Held, CoordinationError> {
        let held = *locked(&self.held);
        held.filter(|held| held.tenure == tenure).ok_or_else(|| {
            CoordinationError::Deposed(format!("the tenure {} is not this agent's any more", tenure.term))
        })
    }

    /// What every write of the holder compares.
    pub(super) fn guard(&self, held: Held) -> Vec<Compare> {
        let key = self.keys.guardian();
        // A term is at most the revision that made it, which etcd counts in 63 bits.
        let term = i64::try_from(held.tenure.term).unwrap_or(i64::MAX);
        vec![
            Compare::create_revision(key.as_str(), CompareOp::Equal, term),
            Compare::lease(key.as_str(), CompareOp::Equal, held.lease),
        ]
    }

    /// Notes that this tenure is over.
    pub(super) fn deposed(&self, tenure: Tenure) -> CoordinationError {
        let mut held = locked(&self.held);
        if held.is_some_and(|held| held.tenure == tenure) {
            *held = None;
        }
        CoordinationError::Deposed(format!("the tenure {} is over", tenure.term))
    }

    fn sign(&self, beat: Option<Beat>) -> Result<Vec<u8>, CoordinationError> {
        let sign = Sign { agent: self.options.agent.clone(), beat };
        serde_json::to_vec(&sign).map_err(|error| CoordinationError::Damaged(error.to_string()))
    }
}
