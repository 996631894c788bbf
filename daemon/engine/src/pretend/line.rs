//! The line of one agent to the pretend coordinator.
//!
//! **Invariant:** a call that fails as `Unreachable` changed nothing; one that fails as `Unclear` may have.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use lifeboat_core::head::{Guarded, Head};
use lifeboat_core::outcome::FenceProof;
use lifeboat_core::testimony::{Beat, Testimony};
use lifeboat_core::{AgentName, Answer, Fault, FaultKind, Moment, Order, RegionName, Stamped, WorkloadName};
use tokio::sync::mpsc;

use super::room::Room;
use super::{Coordinator, Lost};
use crate::ports::{Call, Change, Coordination, CoordinationError, Renewal, Tenure, WriteLeases};

/// What an agent or a sentry holds to reach the coordinator.
pub struct Line {
    pub(super) coordinator: Coordinator,
    pub(super) agent: AgentName,
}

impl Line {
    fn now(&self) -> Moment {
        self.coordinator.inner.clock.now()
    }

    fn until(&self) -> Moment {
        self.now() + self.coordinator.inner.ttl
    }

    /// Half of a call's way; fails when the line is cut.
    async fn way(&self) -> Result<(), CoordinationError> {
        let fault = self.coordinator.fault_of(&self.agent);
        tokio::time::sleep(fault.delay / 2).await;
        let version = &self.coordinator.inner.version;
        let mut seen = version.get();
        let fault = loop {
            let fault = self.coordinator.fault_of(&self.agent);
            if !fault.hangs {
                break fault;
            }
            // What hung gets through late, when it was not given up before.
            version.changed(&mut seen).await;
        };
        if fault.cut {
            return Err(CoordinationError::Unreachable("the line is cut, as pretended".to_owned()));
        }
        if fault.denied {
            return Err(CoordinationError::Denied("as pretended".to_owned()));
        }
        Ok(())
    }

    /// A call that changes something: one whose answer is lost may have been taken in.
    async fn write<T>(
        &self,
        act: impl FnOnce(&mut Room) -> Result<T, CoordinationError>,
    ) -> Result<T, CoordinationError> {
        self.way().await?;
        let result = self.coordinator.change(act);
        self.back().await?;
        result
    }

    async fn back(&self) -> Result<(), CoordinationError> {
        let back = self.way().await;
        back.map_err(|error| CoordinationError::Unclear(error.to_string()))
    }
}

#[async_trait]
impl Coordination for Line {
    fn tenure_ttl(&self) -> Duration {
        self.coordinator.inner.ttl
    }

    async fn watch(&self, known: Option<&Stamped>, changes: &mpsc::Sender<Change>) -> CoordinationError {
        if let Err(error) = self.way().await {
            return error;
        }
        let closed = || CoordinationError::Unreachable("nobody listens any more".to_owned());
        let version = &self.coordinator.inner.version;
        let mut newest_version = version.get();
        let (told, mut seen, restores) = {
            let mut room = self.coordinator.room();
            room.expire(self.now());
            (room.told(known), room.log.len(), room.restores)
        };
        let mut newest = known.cloned();
        let mut news = match told {
            Ok(told) => told,
            Err(error) => return error,
        };
        loop {
            for mut change in news {
                if let Change::Record(stamped) = &mut change {
                    newest = Some(stamped.clone());
                    let fault = self.coordinator.fault_of(&self.agent);
                    if fault.skipped == Some(stamped.sequence) {
                        continue;
                    }
                    if fault.garbled == Some(stamped.sequence) {
                        stamped.at = stamped.at + Duration::from_millis(1);
                    }
                }
                if changes.send(change).await.is_err() {
                    return closed();
                }
            }
            let next_end = self.coordinator.room().next_end();
            let changed = async {
                match next_end {
                    Some(end) => {
                        tokio::select! {
                            biased;
                            () = version.changed(&mut newest_version) => {}
                            () = self.coordinator.inner.clock.sleep_until(end) => {}
                        }
                    }
                    None => version.changed(&mut newest_version).await,
                }
            };
            tokio::select! {
                biased;
                () = changes.closed() => return closed(),
                () = changed => {}
            }
            if let Err(error) = self.way().await {
                return error;
            }
            let mut room = self.coordinator.room();
            room.expire(self.now());
            if room.restores != restores {
                let broken = CoordinationError::Unreachable("the watch was ended by a restore".to_owned());
                return room.told(newest.as_ref()).err().unwrap_or(broken);
            }
            news = room.log[seen..].to_vec();
            seen = room.log.len();
        }
    }

    async fn campaign(&self) -> Result<Option<Tenure>, CoordinationError> {
        self.write(|room| room.campaign(&self.agent, self.until())).await
    }

    async fn renew(&self, tenure: Tenure, beat: Beat) -> Result<(), CoordinationError> {
        self.write(|room| room.renew(tenure, beat, self.until())).await
    }

    async fn resign(&self, tenure: Tenure) {
        // It ends by itself.
        let _ = self
            .write(|room| {
                room.resign(tenure);
                Ok(())
            })
            .await;
    }

    async fn records(&self, after: u64) -> Result<Vec<Stamped>, CoordinationError> {
        self.way().await?;
        let records = {
            let room = self.coordinator.room();
            let found = room.records.len() as u64;
            if after > found {
                return Err(CoordinationError::Rewound { known: after, found });
            }
            room.records.iter().filter(|stamped| stamped.sequence > after).cloned().collect()
        };
        self.way().await?;
        Ok(records)
    }

    async fn append(
        &self,
        tenure: Tenure,
        records: &[Stamped],
        heads: &BTreeMap<WorkloadName, Head>,
    ) -> Result<(), CoordinationError> {
        self.way().await?;
        let lost = {
            let mut faults = self.coordinator.faults();
            let appends = faults.get_mut(&self.agent).map(|fault| &mut fault.appends);
            appends.filter(|appends| !appends.is_empty()).map(|appends| appends.remove(0))
        };
        let unclear = || CoordinationError::Unclear("no answer, as pretended".to_owned());
        match lost {
            Some(Lost::Request) => return Err(unclear()),
            Some(Lost::Late(late)) => {
                let (coordinator, records, heads) =
                    (self.coordinator.clone(), records.to_vec(), heads.clone());
                let agent = self.agent.clone();
                tokio::spawn(async move {
                    tokio::time::sleep(late).await;
                    // Nobody hears what came of it.
                    let _ = coordinator.change(|room| room.take_in_from(&agent, tenure, &records, &heads));
                });
                return Err(unclear());
            }
            Some(Lost::Answer) | None => {}
        }
        let result = self.coordinator.change(|room| room.take_in_from(&self.agent, tenure, records, heads));
        if lost.is_some() {
            return Err(unclear());
        }
        self.back().await?;
        result
    }

    async fn testify(&self, testimony: &Testimony) -> Result<(), CoordinationError> {
        self.write(|room| room.testify(testimony, self.now())).await
    }

    async fn order(&self, order: &Order, limit: Duration) -> Result<Answer, CoordinationError> {
        let id = self.write(|room| room.order(order)).await?;
        let version = &self.coordinator.inner.version;
        let mut seen = version.get();
        let answered = async {
            loop {
                let answer = self.coordinator.room().orders.get(&id).and_then(|(_, answer)| answer.clone());
                if let Some(answer) = answer {
                    return answer;
                }
                version.changed(&mut seen).await;
            }
        };
        let answer = tokio::time::timeout(limit, answered).await;
        self.coordinator.change(|room| room.orders.remove(&id));
        self.back().await?;
        answer.map_err(|_| CoordinationError::Unclear("no agent has answered the order".to_owned()))
    }

    async fn answer(&self, tenure: Tenure, id: &str, answer: &Answer) -> Result<(), CoordinationError> {
        self.write(|room| room.answer(tenure, id, answer)).await
    }

    async fn ensure_expired(
        &self,
        call: &Call,
        workload: &WorkloadName,
        region: &RegionName,
    ) -> Result<FenceProof, Fault> {
        let unreachable = |error: CoordinationError| Fault::new(FaultKind::Unreachable, error.to_string());
        self.way().await.map_err(unreachable)?;
        let key = (workload.clone(), region.clone());
        let (lease, head) = {
            let room = self.coordinator.room();
            (room.leases.get(&key).cloned(), room.heads.get(workload).cloned())
        };
        let held = lease.and_then(|lease| Some((lease.renewed?, lease.length)));
        let Some((renewed, length)) = held else {
            return Err(Fault::new(FaultKind::Refused, "no sentry has ever held a lease there"));
        };
        if head.is_none_or(|head| head.holder == *region && !head.closing) {
            return Err(Fault::new(FaultKind::Refused, "the lease may still be renewed"));
        }
        // The margin of a tenth, for clocks that do not run alike.
        let over = renewed + length + length / 10;
        let begun = self.now();
        if over.since(begun) > call.limit {
            tokio::time::sleep(call.limit).await;
            return Err(Fault::new(FaultKind::Unclear, "the lease has not run out yet"));
        }
        self.coordinator.inner.clock.sleep_until(over).await;
        self.way().await.map_err(unreachable)?;
        Ok(FenceProof::Expired { lease: length, waited: self.now().since(renewed) })
    }
}

#[async_trait]
impl WriteLeases for Line {
    async fn renew(
        &self,
        workload: &WorkloadName,
        region: &RegionName,
        length: Duration,
        says: Guarded,
    ) -> Result<Renewal, CoordinationError> {
        self.write(|room| room.renew_lease((workload, region), length, says, self.now())).await
    }
}
