//! An agent's line to the pretend coordinator, overheard by the judge after each append.
//!
//! **Invariant:** nothing is changed on the way, unless it is broken on purpose.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use lifeboat_core::head::Head;
use lifeboat_core::outcome::FenceProof;
use lifeboat_core::testimony::{Beat, Testimony};
use lifeboat_core::{Answer, Fault, Order, RegionName, Stamped, WorkloadName};
use lifeboat_engine::ports::{Call, Change, Coordination, CoordinationError, Tenure};
use lifeboat_engine::pretend::Line;
use tokio::sync::mpsc;

use super::scene::Scene;
use crate::simulate::setting::Break;

/// A line that is overheard.
pub(super) struct Overheard {
    pub(super) line: Arc<Line>,
    pub(super) scene: Arc<Scene>,
}

#[async_trait]
impl Coordination for Overheard {
    fn tenure_ttl(&self) -> Duration {
        self.line.tenure_ttl()
    }

    async fn watch(&self, known: Option<&Stamped>, changes: &mpsc::Sender<Change>) -> CoordinationError {
        self.line.watch(known, changes).await
    }

    async fn campaign(&self) -> Result<Option<Tenure>, CoordinationError> {
        self.line.campaign().await
    }

    async fn renew(&self, tenure: Tenure, beat: Beat) -> Result<(), CoordinationError> {
        Coordination::renew(&*self.line, tenure, beat).await
    }

    async fn resign(&self, tenure: Tenure) {
        self.line.resign(tenure).await;
    }

    async fn records(&self, after: u64) -> Result<Vec<Stamped>, CoordinationError> {
        self.line.records(after).await
    }

    async fn append(
        &self,
        tenure: Tenure,
        records: &[Stamped],
        heads: &BTreeMap<WorkloadName, Head>,
    ) -> Result<(), CoordinationError> {
        let result = self.line.append(tenure, records, heads).await;
        self.scene.change(|state, now| state.trace.line(now, format_args!("an append: {result:?}")));
        result
    }

    async fn testify(&self, testimony: &Testimony) -> Result<(), CoordinationError> {
        self.line.testify(testimony).await
    }

    async fn order(&self, order: &Order, limit: Duration) -> Result<Answer, CoordinationError> {
        self.line.order(order, limit).await
    }

    async fn answer(&self, tenure: Tenure, id: &str, answer: &Answer) -> Result<(), CoordinationError> {
        self.line.answer(tenure, id, answer).await
    }

    async fn ensure_expired(
        &self,
        call: &Call,
        workload: &WorkloadName,
        region: &RegionName,
    ) -> Result<FenceProof, Fault> {
        let (broken, lease) = self.scene.change(|state, now| {
            state.begun(now, "fence", 3, call);
            (state.setting.breaks(Break::FenceWait), state.setting.setup.lease)
        });
        if broken {
            return Ok(FenceProof::Expired { lease, waited: lease });
        }
        self.line.ensure_expired(call, workload, region).await
    }
}
