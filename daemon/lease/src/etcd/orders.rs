//! Orders that are given to one agent and answered by another, the guardian.
//!
//! **Invariant:** an order is done only while somebody waits for its answer: it is bound to an etcd lease of that length.
//! **Invariant:** only the holder of the tenure answers.

use std::time::Duration;

use etcd_client::{Compare, CompareOp, GetOptions, PutOptions, Txn, TxnOp};
use lifeboat_core::{AgentName, Answer, Order};
use lifeboat_engine::ports::{CoordinationError, Tenure};
use serde::{Deserialize, Serialize};

use super::Etcd;
use super::envelope::{self, Opened};
use super::trouble::Trouble;
use crate::seal::base64;

/// How long an order stays after nobody waits any more, so that an answer can still be put beside it.
const AFTER: Duration = Duration::from_secs(5);

/// How often the answer is looked for: a person waits, and hardly ever.
const LOOK: Duration = Duration::from_millis(100);

/// The most bytes of an answer that are read.
const MOST: usize = 256 * 1024;

#[derive(Serialize, Deserialize)]
struct Given {
    from: AgentName,
    order: Order,
}

impl Etcd {
    pub(super) async fn give_order(
        &self,
        order: &Order,
        limit: Duration,
    ) -> Result<Answer, CoordinationError> {
        let end = self.clock.now() + limit;
        let id =
            base64::word().ok_or_else(|| CoordinationError::Unreachable("no random numbers".to_owned()))?;
        let key = self.keys.order(&id);
        let given = Given { from: self.options.agent.clone(), order: order.clone() };
        let body =
            serde_json::to_string(&given).map_err(|error| CoordinationError::Damaged(error.to_string()))?;
        let value = envelope::close(&*self.seal, &key, body)
            .ok_or_else(|| CoordinationError::Full("the order is larger than is read".to_owned()))?;
        let lease = self.members.grant(limit + AFTER).await.map_err(Trouble::of_read)?;
        let txn = Txn::new()
            .when([Compare::create_revision(key.as_str(), CompareOp::Equal, 0)])
            .and_then([TxnOp::put(key.as_str(), value, Some(PutOptions::new().with_lease(lease)))]);
        if let Err(trouble) = self.members.transact(txn).await {
            // It may be there all the same, and nobody waits for it.
            self.members.revoke(lease).await;
            return Err(trouble.of_write());
        }
        while self.clock.now() < end {
            // Not reaching etcd for a while is no answer.
            if let Ok(answer) = self.members.get(self.keys.answer(&id), GetOptions::new()).await
                && let Some(kv) = answer.what.kvs().first()
            {
                return read_answer(kv.value());
            }
            self.clock.sleep_until(end.min(self.clock.now() + LOOK)).await;
        }
        // Nobody shall begin with it later.
        self.members.revoke(lease).await;
        Err(CoordinationError::Unclear(format!(
            "the guardian did not answer the order within {} ms",
            limit.as_millis()
        )))
    }

    pub(super) async fn give_answer(
        &self,
        tenure: Tenure,
        id: &str,
        answer: &Answer,
    ) -> Result<(), CoordinationError> {
        let held = self.held(tenure)?;
        let key = self.keys.order(id);
        let order = self.members.get(key.as_str(), GetOptions::new()).await.map_err(Trouble::of_read)?;
        // Without an order nobody waits any more.
        let Some((lease, revision)) = order.what.kvs().first().map(|kv| (kv.lease(), kv.create_revision()))
        else {
            return Ok(());
        };
        let value =
            serde_json::to_vec(answer).map_err(|error| CoordinationError::Damaged(error.to_string()))?;
        let mut when = self.guard(held);
        when.push(Compare::create_revision(key.as_str(), CompareOp::Equal, revision));
        let bound = PutOptions::new().with_lease(lease);
        let txn = Txn::new()
            .when(when)
            .and_then([TxnOp::put(self.keys.answer(id), value, Some(bound))])
            .or_else([TxnOp::get(key.as_str(), None)]);
        let answered = match self.members.transact(txn).await {
            Ok(answered) => answered.what,
            Err(Trouble::Gone(_)) => return Ok(()),
            Err(trouble) => return Err(trouble.of_write()),
        };
        match answered.op_responses().first() {
            Some(etcd_client::TxnOpResponse::Get(get)) if !get.kvs().is_empty() => Err(self.deposed(tenure)),
            _ => Ok(()),
        }
    }

    /// The order that was found under that name, and whose seal it has; else whose it should be, when that can be said, and
    /// what is wrong.
    pub(super) fn take_order(&self, id: &str, value: &[u8]) -> Result<Order, (Option<AgentName>, String)> {
        let opened = Opened::read(&self.keys.order(id), value).map_err(|why| (None, why))?;
        let Given { from, order } = serde_json::from_str(&opened.body)
            .map_err(|error| (None, format!("the order cannot be understood: {error}")))?;
        match opened.is_of(&*self.seal, &from) {
            Ok(()) => Ok(order),
            Err(why) => Err((Some(from), why)),
        }
    }
}

fn read_answer(value: &[u8]) -> Result<Answer, CoordinationError> {
    if value.len() > MOST {
        return Err(CoordinationError::Damaged(format!("an answer of {} bytes", value.len())));
    }
    serde_json::from_slice(value)
        .map_err(|error| CoordinationError::Damaged(format!("the answer cannot be understood: {error}")))
}
