//! Pretend ports: one scene with two regions, which every port looks at and changes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use lifeboat_core::outcome::{
    Census, FenceProof, LogPosition, NameSwitched, Promotion, RejoinWay, Rejoined, Salvage, TargetPosition,
    Visit,
};
use lifeboat_core::plan::NameChange;
use lifeboat_core::sighting::{DatabaseSample, DatabaseState, FailureKind, Look, StandbyPosition};
use lifeboat_core::{
    Epoch, Evidence, Failure, Fault, FaultKind, Lsn, Moment, Notice, ProbeName, RegionName, Source,
    SystemIdentifier, Timeline,
};
use lifeboat_engine::ports::{Ask, Call, Canary, Database, Names, Notify, Probe, Role, Witness};

const CLUSTER: SystemIdentifier = SystemIdentifier::new(7_301_234_567_890_123_456);

/// What is so.
#[derive(Debug, Default)]
pub(crate) struct State {
    /// Regions that refuse everything.
    pub(crate) dead: BTreeSet<RegionName>,
    /// Where a primary runs.
    pub(crate) primaries: BTreeSet<RegionName>,
    /// The timeline of each region that was ever promoted; the first is 1.
    pub(crate) timelines: BTreeMap<RegionName, u32>,
    pub(crate) fenced: bool,
    /// The primary that was fenced, while it is: it cannot commit.
    pub(crate) closed: Option<RegionName>,
    pub(crate) names: BTreeSet<String>,
    pub(crate) heartbeat: Option<Moment>,
    pub(crate) newest_epoch: Epoch,
    /// Calls of this kind never return.
    pub(crate) hangs: BTreeSet<&'static str>,
    /// The next call of this kind never returns.
    pub(crate) hangs_once: BTreeSet<&'static str>,
    /// Calls of this kind never return, once so many of them have.
    pub(crate) hangs_after: BTreeMap<&'static str, u32>,
    /// Calls of this kind reach nobody.
    pub(crate) unreachable: BTreeSet<&'static str>,
    /// Calls of this kind panic.
    pub(crate) panics: BTreeSet<&'static str>,
    /// How often each kind of call was made.
    pub(crate) calls: BTreeMap<&'static str, u32>,
    /// How often each kind of effect really happened.
    pub(crate) effects: BTreeMap<&'static str, u32>,
    /// How often each probe looked.
    pub(crate) looks: BTreeMap<ProbeName, u32>,
    /// How many calls that hung were let go before they returned, by kind.
    pub(crate) let_go: BTreeMap<&'static str, u32>,
    pub(crate) notices: Vec<Notice>,
    /// The standbys whose word the primary waits for.
    pub(crate) synchronous: BTreeSet<String>,
}

impl State {
    fn newest(&self) -> u32 {
        self.timelines.values().copied().max().unwrap_or(1)
    }

    /// A primary's own timeline; a standby follows the newest.
    fn timeline(&self, region: &RegionName) -> Timeline {
        let own = self.timelines.get(region).copied().unwrap_or(1);
        Timeline::new(if self.primaries.contains(region) { own } else { self.newest() })
    }
}

/// The scene.
#[derive(Debug)]
pub(crate) struct Scene {
    state: Mutex<State>,
}

impl Scene {
    /// A quiet day: the workload lives in `east`.
    pub(crate) fn quiet() -> Arc<Self> {
        let state = State {
            primaries: [RegionName::new("east")].into(),
            names: ["192.0.2.80".to_owned()].into(),
            ..State::default()
        };
        Arc::new(Self { state: Mutex::new(state) })
    }

    /// What is so, to be looked at or changed.
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no port panicked while it changed the scene")
    }

    /// A region refuses everything from now on.
    pub(crate) fn dies(&self, region: &str) {
        self.state().dead.insert(region.into());
    }

    /// A region comes back as it was, still believing what it believed; whatever fenced it is gone.
    pub(crate) fn returns(&self, region: &str) {
        let mut state = self.state();
        state.dead.remove(&RegionName::new(region));
        state.fenced = false;
        state.closed = None;
    }

    /// How often this effect really happened.
    pub(crate) fn effects(&self, kind: &str) -> u32 {
        self.state().effects.get(kind).copied().unwrap_or_default()
    }

    /// How often this call was made.
    pub(crate) fn calls(&self, kind: &str) -> u32 {
        self.state().calls.get(kind).copied().unwrap_or_default()
    }

    /// A call begins. Half of its time passes before its effect, and half after: a kill may fall between.
    async fn begin(&self, kind: &'static str, call: &Call) -> Result<(), Fault> {
        let (hangs, panics, unreachable) = {
            let mut state = self.state();
            *state.calls.entry(kind).or_default() += 1;
            assert!(call.epoch >= state.newest_epoch, "{kind} under an old epoch");
            state.newest_epoch = call.epoch;
            let spent = state.hangs_after.get_mut(kind).map(|left| {
                let spent = *left == 0;
                *left = left.saturating_sub(1);
                spent
            });
            let unreachable = state.unreachable.contains(kind);
            let hangs = state.hangs.contains(kind) || state.hangs_once.remove(kind) || spent == Some(true);
            (hangs, state.panics.contains(kind), unreachable)
        };
        assert!(!panics, "{kind} panics, as pretended");
        if unreachable {
            return Err(Fault::new(FaultKind::Unreachable, format!("{kind} reaches nobody, as pretended")));
        }
        if hangs {
            let _hanging = Hanging { scene: self, kind };
            std::future::pending::<()>().await;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
        Ok(())
    }

    /// The effect happens, unless it is there already.
    async fn effect(&self, kind: &'static str, act: impl FnOnce(&mut State) -> bool) -> bool {
        let done = {
            let mut state = self.state();
            let changed = act(&mut state);
            if changed {
                *state.effects.entry(kind).or_default() += 1;
            }
            changed
        };
        tokio::time::sleep(Duration::from_millis(5)).await;
        done
    }
}

/// A call that never returns by itself.
struct Hanging<'s> {
    scene: &'s Scene,
    kind: &'static str,
}

impl Drop for Hanging<'_> {
    fn drop(&mut self) {
        *self.scene.state().let_go.entry(self.kind).or_default() += 1;
    }
}

/// One probe of the scene.
pub(crate) struct Stage {
    pub(crate) scene: Arc<Scene>,
    pub(crate) region: RegionName,
    pub(crate) database: bool,
    pub(crate) name: ProbeName,
}

#[async_trait]
impl Probe for Stage {
    async fn look(&self, ask: &Ask) -> Look {
        let (dead, hangs, panics) = {
            let mut state = self.scene.state();
            *state.looks.entry(self.name.clone()).or_default() += 1;
            (state.dead.contains(&self.region), state.hangs.contains("look"), state.panics.contains("look"))
        };
        assert!(!panics, "the probe panics, as pretended");
        if hangs {
            std::future::pending::<()>().await;
        }
        tokio::time::sleep(Duration::from_millis(3)).await;
        if dead {
            return Err(Failure::new(FailureKind::Refused, "pretended"));
        }
        if !self.database {
            return Ok(Evidence::Answered);
        }
        let mut state = self.scene.state();
        if ask.expect == Role::Primary && state.closed.as_ref() == Some(&self.region) {
            return Err(Failure::new(FailureKind::CannotCommit, "pretended"));
        }
        let database = if state.primaries.contains(&self.region) {
            let heartbeat = (ask.expect == Role::Primary).then_some(ask.at);
            state.heartbeat = heartbeat.or(state.heartbeat);
            DatabaseState::Primary { written: Lsn::new(9), heartbeat, synchronous: state.synchronous.clone() }
        } else {
            DatabaseState::Standby(standing(state.heartbeat))
        };
        Ok(Evidence::Database(DatabaseSample {
            database: "orders".into(),
            system: CLUSTER,
            timeline: state.timeline(&self.region),
            state: database,
        }))
    }
}

fn standing(heartbeat: Option<Moment>) -> StandbyPosition {
    StandbyPosition {
        received: Lsn::new(9),
        replayed: Lsn::new(9),
        heartbeat,
        epoch: None,
        streaming: true,
        name: "west".to_owned(),
    }
}

/// One member of the database.
pub(crate) struct Member {
    pub(crate) scene: Arc<Scene>,
    pub(crate) region: RegionName,
}

#[async_trait]
impl Database for Member {
    async fn measure(&self, call: &Call) -> Result<TargetPosition, Fault> {
        self.scene.begin("measure", call).await?;
        let position = standing(self.scene.state().heartbeat);
        Ok(TargetPosition { system: CLUSTER, timeline: Timeline::new(1), position })
    }

    async fn ensure_fenced(&self, call: &Call) -> Result<FenceProof, Fault> {
        self.scene.begin("fence", call).await?;
        let region = self.region.clone();
        let fence = |state: &mut State| {
            state.closed = Some(region);
            !std::mem::replace(&mut state.fenced, true)
        };
        self.scene.effect("fence", fence).await;
        Ok(FenceProof::WriteRefused { sqlstate: "25006".to_owned(), sessions_ended: 1 })
    }

    async fn ensure_cut_off(&self, call: &Call) -> Result<FenceProof, Fault> {
        self.scene.begin("cut-off", call).await?;
        let fence = |state: &mut State| !std::mem::replace(&mut state.fenced, true);
        self.scene.effect("fence", fence).await;
        Ok(FenceProof::CutOff { standby: "west".to_owned(), end: self.end() })
    }

    async fn ensure_promoted(&self, call: &Call, system: SystemIdentifier) -> Result<Promotion, Fault> {
        self.scene.begin("promote", call).await?;
        assert_eq!(system, CLUSTER);
        assert!(self.scene.state().fenced, "promoted without a fence");
        let region = self.region.clone();
        let promote = |state: &mut State| {
            let next = state.newest() + 1;
            let changed = state.primaries.insert(region.clone());
            if changed {
                state.timelines.insert(region, next);
            }
            changed
        };
        let changed = self.scene.effect("promote", promote).await;
        Ok(Promotion { timeline: self.timeline(), switched_at: None, already: !changed })
    }

    async fn ensure_writable(&self, call: &Call) -> Result<Duration, Fault> {
        self.scene.begin("write", call).await?;
        if self.scene.state().primaries.contains(&self.region) {
            return Ok(Duration::from_millis(7));
        }
        Err(Fault::new(FaultKind::Refused, "it is no primary"))
    }

    async fn mark(&self, call: &Call) -> Result<LogPosition, Fault> {
        self.scene.begin("mark", call).await?;
        Ok(self.end())
    }

    async fn fit(&self, call: &Call, system: SystemIdentifier) -> Result<(), Fault> {
        assert_eq!(system, CLUSTER);
        self.scene.begin("fit", call).await
    }

    async fn catch_up(&self, call: &Call, goal: &LogPosition) -> Result<LogPosition, Fault> {
        self.scene.begin("catch-up", call).await?;
        Ok(goal.clone())
    }

    async fn drain(&self, call: &Call) -> Result<(), Fault> {
        self.scene.begin("drain", call).await
    }

    async fn ensure_closed(&self, call: &Call) -> Result<FenceProof, Fault> {
        self.scene.begin("close", call).await?;
        let region = self.region.clone();
        let fence = |state: &mut State| {
            state.closed = Some(region);
            !std::mem::replace(&mut state.fenced, true)
        };
        self.scene.effect("fence", fence).await;
        Ok(FenceProof::Closed { sqlstate: "25006".to_owned(), sessions_ended: 1, end: self.end() })
    }

    async fn ensure_open(&self, call: &Call) -> Result<(), Fault> {
        self.scene.begin("open", call).await?;
        if self.scene.state().dead.contains(&self.region) {
            return Err(Fault::new(FaultKind::Unreachable, "the region is dead"));
        }
        let open = |state: &mut State| {
            state.closed = None;
            std::mem::replace(&mut state.fenced, false)
        };
        self.scene.effect("open", open).await;
        Ok(())
    }

    async fn offer(&self, call: &Call, _follower: &RegionName) -> Result<Source, Fault> {
        self.scene.begin("offer", call).await?;
        Ok(Source {
            region: self.region.clone(),
            host: "192.0.2.1".to_owned(),
            port: 5432,
            system: CLUSTER,
            timeline: self.timeline(),
            lineage: Vec::new(),
            slot: "lifeboat".to_owned(),
        })
    }

    async fn salvage(&self, call: &Call, _source: &Source) -> Result<Salvage, Fault> {
        self.scene.begin("salvage", call).await?;
        Ok(Salvage { diverged_at: None, end: Lsn::new(9), rows: 0, unread: Vec::new(), folder: None })
    }

    async fn ensure_rejoined(&self, call: &Call, source: &Source) -> Result<Rejoined, Fault> {
        self.scene.begin("rejoin", call).await?;
        assert_ne!(self.region, source.region);
        let region = self.region.clone();
        let rejoin = |state: &mut State| {
            state.fenced = false;
            state.closed = None;
            state.primaries.remove(&region)
        };
        let changed = self.scene.effect("rejoin", rejoin).await;
        Ok(Rejoined { way: RejoinWay::Follow, already: !changed, because: None })
    }

    async fn query(&self, call: &Call, _statement: &str) -> Result<Option<String>, Fault> {
        self.scene.begin("query", call).await?;
        Ok(Some("1".to_owned()))
    }
}

impl Member {
    fn timeline(&self) -> Timeline {
        self.scene.state().timeline(&self.region)
    }

    fn end(&self) -> LogPosition {
        LogPosition { system: CLUSTER, timeline: self.timeline(), lsn: Lsn::new(9) }
    }
}

#[async_trait]
impl Names for Scene {
    async fn ensure_record(&self, call: &Call, change: &NameChange) -> Result<NameSwitched, Fault> {
        self.begin("names", call).await?;
        let wanted = change.to.clone();
        let changed = self
            .effect("names", |state| {
                let changed = state.names != wanted;
                state.names = wanted;
                changed
            })
            .await;
        Ok(NameSwitched { values: change.to.clone(), already: !changed })
    }

    async fn census(&self, call: &Call, change: &NameChange) -> Result<Census, Fault> {
        self.begin("census", call).await?;
        let names = self.state().names.clone();
        let mut census =
            Census { agree: BTreeSet::new(), disagree: BTreeMap::new(), silent: BTreeMap::new() };
        if names == change.to {
            census.agree.insert("ns".to_owned());
        } else {
            census.disagree.insert("ns".to_owned(), format!("{names:?}"));
        }
        // The name server that stood in the region died with it.
        for region in &self.state().dead {
            census.silent.insert(format!("ns.{region}"), "no answer".to_owned());
        }
        Ok(census)
    }
}

#[async_trait]
impl Canary for Scene {
    async fn visit(&self, call: &Call) -> Result<Visit, Fault> {
        self.begin("visit", call).await?;
        Ok(Visit { address: "198.51.100.80".to_owned(), took: Duration::from_millis(4) })
    }
}

#[async_trait]
impl Witness for Scene {
    fn name(&self) -> &str {
        "witness"
    }

    async fn answers(&self, _limit: Duration) -> bool {
        tokio::time::sleep(Duration::from_millis(2)).await;
        true
    }
}

#[async_trait]
impl Notify for Scene {
    async fn notify(&self, notice: &Notice) -> Result<(), Fault> {
        if self.state().hangs.contains("notify") {
            std::future::pending::<()>().await;
        }
        self.state().notices.push(notice.clone());
        Ok(())
    }
}
