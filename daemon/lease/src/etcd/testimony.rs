//! What each vantage says: put under its own key, sealed, gone when it is not said again.
//!
//! **Invariant:** a testimony is told of only with its vantage's seal, and never after a newer one of the same vantage.

use etcd_client::{Compare, CompareOp, PutOptions, Txn, TxnOp, TxnOpResponse};
use lifeboat_core::AgentName;
use lifeboat_core::testimony::Testimony;
use lifeboat_engine::ports::CoordinationError;

use super::envelope::{self, Opened};
use super::trouble::Trouble;
use super::{Etcd, locked};

/// Where this agent's testimony is.
#[derive(Default)]
pub(super) struct Said {
    lease: Option<i64>,
    /// The revision that put the newest; zero when there is none.
    revision: i64,
}

impl Etcd {
    pub(super) async fn say(&self, testimony: &Testimony) -> Result<(), CoordinationError> {
        let key = self.keys.testimony(&self.options.agent);
        let body = serde_json::to_string(testimony)
            .map_err(|error| CoordinationError::Damaged(error.to_string()))?;
        let length = body.len();
        let value = envelope::close(&*self.seal, &key, body).ok_or_else(|| {
            CoordinationError::Full(format!("a testimony of {length} bytes is more than is read"))
        })?;
        let mut said = self.said.lock().await;
        let lease = self.testimony_lease(&mut said).await?;
        // What is compared is what is changed: an attempt that comes late, after a newer testimony, changes nothing. Twice
        // is enough when nobody else writes here; more often somebody does.
        for _ in 0..3 {
            let bound = PutOptions::new().with_lease(lease);
            let txn = Txn::new()
                .when([Compare::mod_revision(key.as_str(), CompareOp::Equal, said.revision)])
                .and_then([TxnOp::put(key.as_str(), value.clone(), Some(bound))])
                .or_else([TxnOp::get(key.as_str(), None)]);
            let answer = match self.members.transact(txn).await {
                Ok(answer) => answer.what,
                Err(trouble) => {
                    if matches!(trouble, Trouble::Gone(_)) {
                        said.lease = None;
                    }
                    return Err(trouble.of_write());
                }
            };
            match answer.op_responses().first() {
                Some(TxnOpResponse::Get(get)) => {
                    said.revision = get.kvs().first().map_or(0, etcd_client::KeyValue::mod_revision);
                }
                _ => {
                    said.revision = answer.header().map_or(0, etcd_client::ResponseHeader::revision);
                    return Ok(());
                }
            }
        }
        Err(CoordinationError::Unclear(format!("somebody else writes to {key}")))
    }

    async fn testimony_lease(&self, said: &mut Said) -> Result<i64, CoordinationError> {
        if let Some(lease) = said.lease {
            match self.members.keep(lease).await {
                Ok(()) => return Ok(lease),
                Err(Trouble::Gone(_)) => {}
                Err(trouble) => return Err(trouble.of_read()),
            }
        }
        let lease = self.members.grant(self.options.testimony_ttl).await.map_err(Trouble::of_read)?;
        said.lease = Some(lease);
        Ok(lease)
    }

    /// Takes in what was found under a vantage's key; says what is wrong with it.
    pub(super) fn hear(&self, vantage: &AgentName, value: &[u8]) -> Result<Testimony, String> {
        let opened = Opened::read(&self.keys.testimony(vantage), value)?;
        opened.is_of(&*self.seal, vantage)?;
        let testimony: Testimony = serde_json::from_str(&opened.body)
            .map_err(|error| format!("it cannot be understood: {error}"))?;
        if testimony.vantage != *vantage {
            return Err(format!("it says that it is of {}", testimony.vantage));
        }
        let mut heard = locked(&self.heard);
        let newest = heard.entry(vantage.clone()).or_default();
        if testimony.sequence < *newest {
            return Err(format!("it is number {}, and number {newest} came before", testimony.sequence));
        }
        *newest = testimony.sequence;
        Ok(testimony)
    }
}
