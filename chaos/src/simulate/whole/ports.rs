//! The ports of one agent, all of them on the one scene: an order takes its way, arrives late, twice or never, and its
//! answer may be lost.
//!
//! **Invariant:** an order that has left its agent may arrive whatever becomes of the agent.
//! **Invariant:** what is not heard is `Unreachable` or `Unclear`, never done.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use lifeboat_core::outcome::{
    Census, FenceProof, LogPosition, NameSwitched, Promotion, Rejoined, Salvage, TargetPosition, Visit,
};
use lifeboat_core::plan::NameChange;
use lifeboat_core::sighting::{Failure, FailureKind, Look};
use lifeboat_core::{Fault, FaultKind, Notice, RegionName, Source, SystemIdentifier};
use lifeboat_engine::ports::{Ask, Call, Canary, Database, Names, Notify, Probe, Witness};
use tokio::time::sleep;

use super::deeds::Found;
use super::scene::{Scene, State};
use crate::simulate::setting::NAMES;

/// Between two looks at an order that waits.
const AGAIN: Duration = Duration::from_millis(400);

/// How long a session that hangs stays, when its call is not given up before: most are.
const BROKEN: Duration = Duration::from_secs(45);

/// How an order gets there, and its answer back.
struct Way {
    delay: u64,
    back: u64,
    /// Whether it is on its way whatever becomes of its agent.
    flying: bool,
    /// When it comes a second time.
    twice: Option<u64>,
    unheard: bool,
    hangs: bool,
    fails: bool,
}

impl State {
    fn way(&mut self) -> Way {
        let chance = &mut self.chance;
        let mut way = Way {
            delay: chance.between(1, 60),
            back: chance.between(1, 20),
            flying: chance.percent(30),
            twice: None,
            unheard: false,
            hangs: false,
            fails: false,
        };
        if self.stormy {
            if chance.percent(6) {
                // It may come when another guardian is in charge.
                way.delay = chance.between(500, 12_000);
                way.flying = true;
            }
            way.twice = chance.percent(4).then(|| way.delay + chance.between(50, 9_000));
            way.unheard = chance.percent(3);
            way.hangs = chance.percent(2);
            way.fails = chance.percent(3);
        }
        way
    }
}

/// What an agent does things with.
#[derive(Clone)]
pub(super) struct Hand {
    pub(super) scene: Arc<Scene>,
    pub(super) agent: usize,
}

impl Hand {
    /// An order of this agent's.
    async fn order<T: Send + 'static>(
        &self,
        kind: &'static str,
        call: &Call,
        act: impl Fn(&mut State, u64) -> Found<T> + Clone + Send + 'static,
    ) -> Result<T, Fault> {
        let way = self.scene.change(|state, now| {
            state.begun(now, kind, self.agent, call);
            state.way()
        });
        let arrives = |delay: u64| {
            let (hand, limit, act) = (self.clone(), call.limit, act.clone());
            async move { hand.arrive(kind, Duration::from_millis(delay), limit, act).await }
        };
        if way.fails {
            sleep(Duration::from_millis(way.delay)).await;
            return Err(Fault::new(FaultKind::Unreachable, "nobody was reached, as pretended"));
        }
        if let Some(later) = way.twice {
            drop(tokio::spawn(arrives(later)));
        }
        let result = if way.flying {
            match tokio::spawn(arrives(way.delay)).await {
                Ok(result) => result,
                Err(error) => {
                    self.scene.change(|state, now| state.wrong(now, format!("{kind} broke: {error}")));
                    Err(Fault::new(FaultKind::Unclear, "it broke"))
                }
            }
        } else {
            arrives(way.delay).await
        };
        if way.hangs {
            sleep(BROKEN).await;
            return Err(Fault::new(FaultKind::Unclear, "the session broke, as pretended"));
        }
        if way.unheard {
            sleep(Duration::from_secs(1)).await;
            return Err(Fault::new(FaultKind::Unclear, "no answer in time, as pretended"));
        }
        sleep(Duration::from_millis(way.back)).await;
        result
    }

    /// An order gets there, and is looked at until something comes of it or its time is nearly up.
    async fn arrive<T>(
        &self,
        kind: &'static str,
        delay: Duration,
        limit: Duration,
        act: impl Fn(&mut State, u64) -> Found<T>,
    ) -> Result<T, Fault> {
        let ends = self.scene.clock.now() + limit.mul_f64(0.9);
        sleep(delay).await;
        loop {
            let found = self.scene.change(|state, now| {
                let found = act(state, now);
                let word = match &found {
                    Found::Done(_) => "done",
                    Found::Fault(_, detail) => detail,
                    Found::Later => "not yet",
                };
                state.trace.line(now, format_args!("{kind} of agent {}: {word}", self.agent));
                found
            });
            match found {
                Found::Done(done) => return Ok(done),
                Found::Fault(kind, detail) => return Err(Fault::new(kind, detail)),
                Found::Later if self.scene.clock.now() + AGAIN < ends => sleep(AGAIN).await,
                Found::Later => return Err(Fault::new(FaultKind::Unclear, "not within its time")),
            }
        }
    }
}

/// One probe of an agent's.
pub(super) struct Stage {
    pub(super) hand: Hand,
    pub(super) region: usize,
}

#[async_trait]
impl Probe for Stage {
    async fn look(&self, ask: &Ask) -> Look {
        let took = self.hand.scene.change(|state, _| state.chance.between(2, 20));
        sleep(Duration::from_millis(took)).await;
        let (a, r) = (self.hand.agent, self.region);
        let found = self.hand.scene.change(|state, now| state.look(now, a, r, ask));
        if matches!(found, Err(FailureKind::Silent | FailureKind::CommitSilent)) {
            sleep(ask.limit.saturating_sub(Duration::from_millis(took))).await;
        }
        found.map_err(|kind| Failure::new(kind, "pretended"))
    }
}

/// One member of the database, as an agent reaches it.
pub(super) struct Member {
    pub(super) hand: Hand,
    pub(super) region: usize,
}

#[async_trait]
impl Database for Member {
    async fn measure(&self, call: &Call) -> Result<TargetPosition, Fault> {
        let (a, r) = self.both();
        self.hand.order("measure", call, move |state, _| state.measure(a, r)).await
    }

    async fn ensure_fenced(&self, call: &Call) -> Result<FenceProof, Fault> {
        let (who, epoch) = (self.both(), call.epoch);
        self.hand.order("fence", call, move |state, now| state.fence(now, who, epoch, false)).await
    }

    async fn ensure_cut_off(&self, call: &Call) -> Result<FenceProof, Fault> {
        let ((a, r), epoch) = (self.both(), call.epoch);
        self.hand.order("cut-off", call, move |state, now| state.cut_off(now, a, r, epoch)).await
    }

    async fn ensure_promoted(&self, call: &Call, _system: SystemIdentifier) -> Result<Promotion, Fault> {
        let ((a, r), epoch) = (self.both(), call.epoch);
        self.hand.order("promote", call, move |state, now| state.promote(now, a, r, epoch)).await
    }

    async fn ensure_writable(&self, call: &Call) -> Result<Duration, Fault> {
        let (a, r) = self.both();
        self.hand.order("write", call, move |state, _| state.serves(a, r)).await
    }

    async fn mark(&self, call: &Call) -> Result<LogPosition, Fault> {
        let (a, r) = self.both();
        self.hand.order("mark", call, move |state, _| state.mark(a, r)).await
    }

    async fn fit(&self, call: &Call, _system: SystemIdentifier) -> Result<(), Fault> {
        let (a, r) = self.both();
        self.hand.order("fit", call, move |state, _| state.fit(a, r)).await
    }

    async fn catch_up(&self, call: &Call, goal: &LogPosition) -> Result<LogPosition, Fault> {
        let ((a, r), goal) = (self.both(), goal.clone());
        self.hand.order("catch-up", call, move |state, _| state.reached(a, r, &goal)).await
    }

    async fn drain(&self, call: &Call) -> Result<(), Fault> {
        let (a, r) = self.both();
        self.hand.order("drain", call, move |state, _| state.drain(a, r)).await
    }

    async fn ensure_closed(&self, call: &Call) -> Result<FenceProof, Fault> {
        let (who, epoch) = (self.both(), call.epoch);
        self.hand.order("close", call, move |state, now| state.fence(now, who, epoch, true)).await
    }

    async fn ensure_open(&self, call: &Call) -> Result<(), Fault> {
        let ((a, r), epoch) = (self.both(), call.epoch);
        self.hand.order("lift", call, move |state, now| state.lift(now, a, r, epoch)).await
    }

    async fn offer(&self, call: &Call, _follower: &RegionName) -> Result<Source, Fault> {
        let (a, r) = self.both();
        self.hand.order("offer", call, move |state, _| state.offer(a, r)).await
    }

    async fn salvage(&self, call: &Call, _source: &Source) -> Result<Salvage, Fault> {
        let (a, r) = self.both();
        self.hand.order("salvage", call, move |state, _| state.salvage(a, r)).await
    }

    async fn ensure_rejoined(&self, call: &Call, _source: &Source) -> Result<Rejoined, Fault> {
        let ((a, r), epoch) = (self.both(), call.epoch);
        self.hand.order("rejoin", call, move |state, now| state.rejoin(now, a, r, epoch)).await
    }

    async fn query(&self, _call: &Call, _statement: &str) -> Result<Option<String>, Fault> {
        Err(Fault::new(FaultKind::Refused, "no page of this world asks anything"))
    }
}

impl Member {
    const fn both(&self) -> (usize, usize) {
        (self.hand.agent, self.region)
    }
}

#[async_trait]
impl Names for Hand {
    async fn ensure_record(&self, call: &Call, change: &NameChange) -> Result<NameSwitched, Fault> {
        let (a, epoch, change) = (self.agent, call.epoch, change.clone());
        self.order("names", call, move |state, now| state.switch(now, a, epoch, &change)).await
    }

    async fn census(&self, call: &Call, change: &NameChange) -> Result<Census, Fault> {
        let (a, change) = (self.agent, change.clone());
        self.order("census", call, move |state, now| state.census(now, a, &change)).await
    }
}

#[async_trait]
impl Canary for Hand {
    async fn visit(&self, call: &Call) -> Result<Visit, Fault> {
        let a = self.agent;
        self.order("visit", call, move |state, _| state.visit(a)).await
    }
}

#[async_trait]
impl Witness for Hand {
    fn name(&self) -> &str {
        NAMES.agents[self.agent].as_str()
    }

    async fn answers(&self, limit: Duration) -> bool {
        let outside = self.scene.change(|state, _| state.network.outside(self.agent));
        sleep(if outside { Duration::from_millis(2) } else { limit }).await;
        outside
    }
}

#[async_trait]
impl Notify for Hand {
    async fn notify(&self, notice: &Notice) -> Result<(), Fault> {
        let unheard = self.scene.change(|state, now| {
            state.trace.line(now, format_args!("agent {} tells: {}", self.agent, notice.reason));
            state.oracle.told(notice);
            state.stormy && state.chance.percent(10)
        });
        if unheard {
            std::future::pending::<()>().await;
        }
        Ok(())
    }
}
