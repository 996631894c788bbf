//! One server of a database in one region, as the engine knows it.
//!
//! **Invariant:** one look at a time; steps do not wait for looks.

use std::time::Duration;

use async_trait::async_trait;
use lifeboat_core::outcome::{FenceProof, LogPosition, Promotion, Rejoined, Salvage, TargetPosition};
use lifeboat_core::{Fault, Look, RegionName, Source, SystemIdentifier};
use lifeboat_engine::clock::Clock;
use lifeboat_engine::ports::{Ask, Call, Database, Probe};
use tokio::sync::Mutex;

use crate::options::Options;
use crate::planned::Care;
use crate::witness::Witness;

/// One server of a database in one region: a [`Probe`] of it and the [`Database`] to act on.
///
/// It keeps one session open between looks, the witness session; a second one is open only while a look asks
/// why the first does not answer, or a step runs. Nothing is connected to before the first look or step.
pub struct Member {
    pub(crate) options: Options,
    pub(crate) clock: Clock,
    pub(crate) witness: Witness,
    pub(crate) turn: Mutex<()>,
}

impl Member {
    /// A member that reads time from `clock` only.
    pub fn new(options: Options, clock: Clock) -> Self {
        Self { options, clock, witness: Witness::default(), turn: Mutex::new(()) }
    }

    /// What it was made with.
    pub fn options(&self) -> &Options {
        &self.options
    }

    fn here<T>(&self, result: Result<T, Fault>) -> Result<T, Fault> {
        result.map_err(|fault| fault.in_region(&self.options.region))
    }
}

#[async_trait]
impl Probe for Member {
    async fn look(&self, ask: &Ask) -> Look {
        self.look_within_limit(ask).await
    }

    async fn disturbed(&self) {
        self.witness.ended.notified().await;
    }
}

#[async_trait]
impl Database for Member {
    async fn measure(&self, call: &Call) -> Result<TargetPosition, Fault> {
        self.here(self.measure_within_limit(call).await)
    }

    async fn ensure_fenced(&self, call: &Call) -> Result<FenceProof, Fault> {
        self.here(self.fence(call).await)
    }

    async fn ensure_promoted(&self, call: &Call, system: SystemIdentifier) -> Result<Promotion, Fault> {
        self.here(self.promote(call, system).await)
    }

    async fn ensure_writable(&self, call: &Call) -> Result<Duration, Fault> {
        self.here(self.first_write(call).await)
    }

    async fn mark(&self, call: &Call) -> Result<LogPosition, Fault> {
        self.here(self.mark_within_limit(call).await)
    }

    async fn fit(&self, call: &Call, system: SystemIdentifier) -> Result<(), Fault> {
        self.here(self.fit_within_limit(call, system).await)
    }

    async fn catch_up(&self, call: &Call, goal: &LogPosition) -> Result<LogPosition, Fault> {
        self.here(self.catch_up_within_limit(call, goal).await)
    }

    async fn drain(&self, call: &Call) -> Result<(), Fault> {
        self.here(self.drain_within_limit(call).await)
    }

    async fn ensure_closed(&self, call: &Call) -> Result<FenceProof, Fault> {
        self.here(self.close(call, Care::Planned).await)
    }

    async fn ensure_shut_out(&self, call: &Call) -> Result<FenceProof, Fault> {
        self.here(self.close(call, Care::Returned).await)
    }

    async fn ensure_open(&self, call: &Call) -> Result<(), Fault> {
        self.here(self.open(call).await)
    }

    async fn offer(&self, call: &Call, follower: &RegionName) -> Result<Source, Fault> {
        self.here(self.offer_within_limit(call, follower).await)
    }

    async fn salvage(&self, call: &Call, source: &Source) -> Result<Salvage, Fault> {
        self.here(self.salvage_on_host(call, source).await)
    }

    async fn ensure_rejoined(&self, call: &Call, source: &Source) -> Result<Rejoined, Fault> {
        self.here(self.rejoin_on_host(call, source).await)
    }

    async fn ensure_cut_off(&self, call: &Call) -> Result<FenceProof, Fault> {
        self.here(self.cut_off(call).await)
    }

    async fn query(&self, call: &Call, statement: &str) -> Result<Option<String>, Fault> {
        self.here(self.query_within_limit(call, statement).await)
    }
}
