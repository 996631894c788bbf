//! The servers of the pretend world and what actions do to them. Every effect is idempotent, lasts, and is counted
//! when it changes something.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use lifeboat_core::outcome::{
    Census, FenceProof, LogPosition, NameSwitched, Promotion, RejoinWay, Rejoined, Salvage, TargetPosition,
    Visit,
};
use lifeboat_core::plan::Action;
use lifeboat_core::sighting::{DatabaseSample, DatabaseState, FailureKind, StandbyPosition};
use lifeboat_core::{
    DatabaseName, Evidence, Failure, Fault, FaultKind, Look, Lsn, Moment, Output, RegionName,
    SystemIdentifier, Timeline,
};

/// The cluster that the pretend databases belong to.
pub(crate) const CLUSTER: SystemIdentifier = SystemIdentifier::new(7_301_234_567_890_123_456);

/// One database server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Server {
    /// Whether it answers, and takes part in anything.
    pub(crate) up: bool,
    pub(crate) primary: bool,
    /// Closed to writes; it stays so until it is lifted, or becomes a standby.
    pub(crate) fenced: bool,
    pub(crate) timeline: u32,
    /// The end of its log: of a primary, everything it acknowledged; of a standby, everything it replayed.
    pub(crate) log: u64,
    /// Whether it streams from the primary, when it is a standby.
    pub(crate) follows: bool,
    pub(crate) heartbeat: Option<Moment>,
}

impl Server {
    pub(crate) const fn takes_writes(&self) -> bool {
        self.up && self.primary && !self.fenced
    }
}

/// What lasts, whatever becomes of the agent.
#[derive(Clone, Debug)]
pub(crate) struct Estate {
    pub(crate) servers: BTreeMap<RegionName, Server>,
    /// The region that the names say.
    pub(crate) names: RegionName,
    /// Whether what only a returned primary had was kept.
    pub(crate) salvaged: bool,
    /// What the operator's own steps switched on.
    pub(crate) flags: BTreeSet<String>,
    /// How often each effect changed something.
    pub(crate) changes: BTreeMap<&'static str, u32>,
}

impl Estate {
    pub(crate) fn new(home: &RegionName, standby: &RegionName) -> Self {
        let server = |primary: bool| Server {
            up: true,
            primary,
            fenced: false,
            timeline: 1,
            log: 1000,
            follows: !primary,
            heartbeat: None,
        };
        Self {
            servers: [(home.clone(), server(true)), (standby.clone(), server(false))].into(),
            names: home.clone(),
            salvaged: false,
            flags: BTreeSet::new(),
            changes: BTreeMap::new(),
        }
    }

    pub(crate) fn server(&mut self, region: &RegionName) -> &mut Server {
        self.servers.get_mut(region).expect("the pretend world has this region")
    }

    /// The regions that take writes.
    pub(crate) fn writable(&self) -> BTreeSet<&RegionName> {
        self.servers.iter().filter(|(_, s)| s.takes_writes()).map(|(region, _)| region).collect()
    }

    /// A second of clients' work: writes are acknowledged, and reach the standby a second later.
    pub(crate) fn work(&mut self) {
        self.replicate();
        for server in self.servers.values_mut().filter(|s| s.takes_writes()) {
            server.log += 7;
        }
    }

    fn replicate(&mut self) {
        let newest = self.servers.values().filter(|s| s.up && s.primary).max_by_key(|s| s.timeline).cloned();
        let Some(primary) = newest else { return };
        for standby in self.servers.values_mut().filter(|s| s.up && s.follows) {
            standby.log = standby.log.max(primary.log);
            standby.heartbeat = standby.heartbeat.max(primary.heartbeat);
            standby.timeline = primary.timeline;
        }
    }

    /// What a probe of the database sees; `lives_here` is whether it writes its heartbeat.
    pub(crate) fn look(&mut self, now: Moment, region: &RegionName, lives_here: bool) -> Look {
        let streams = self.servers.iter().any(|(other, s)| other != region && s.up && s.primary);
        let server = self.server(region);
        if !server.up {
            return Err(Failure::new(FailureKind::Refused, "pretended"));
        }
        if server.primary && lives_here && server.fenced {
            return Err(Failure::new(FailureKind::WrongRole, "fenced, as pretended"));
        }
        let state = if server.primary {
            let heartbeat = lives_here.then_some(now);
            server.heartbeat = heartbeat.or(server.heartbeat);
            DatabaseState::Primary { written: Lsn::new(server.log), heartbeat, synchronous: BTreeSet::new() }
        } else {
            DatabaseState::Standby(standing(server, streams, region))
        };
        let timeline = Timeline::new(server.timeline);
        self.replicate();
        Ok(Evidence::Database(DatabaseSample { database: "orders".into(), system: CLUSTER, timeline, state }))
    }

    fn changed(&mut self, effect: &'static str, changes: bool) {
        *self.changes.entry(effect).or_default() += u32::from(changes);
    }

    fn end(&self, region: &RegionName) -> LogPosition {
        let server = &self.servers[region];
        LogPosition { system: CLUSTER, timeline: Timeline::new(server.timeline), lsn: Lsn::new(server.log) }
    }

    fn answers(&self, region: &RegionName) -> Result<(), Fault> {
        let up = self.servers[region].up;
        if up { Ok(()) } else { Err(Fault::new(FaultKind::Unreachable, "it does not answer")) }
    }

    fn streams(&self, standby: &RegionName, primary: &RegionName) -> Result<(), Fault> {
        let (s, p) = (&self.servers[standby], &self.servers[primary]);
        if s.up && s.follows && p.up && p.primary {
            return Ok(());
        }
        Err(Fault::new(FaultKind::Unreachable, "it does not follow"))
    }

    /// Does what an action says, and gives what an adapter would.
    pub(crate) fn carry_out(&mut self, action: &Action) -> Result<Output, Fault> {
        match action {
            Action::MeasureLoss { region, databases } => {
                self.answers(region)?;
                let server = &self.servers[region];
                let position = TargetPosition {
                    system: CLUSTER,
                    timeline: Timeline::new(server.timeline),
                    position: standing(server, false, region),
                };
                Ok(Output::Positions { positions: each(databases, position) })
            }
            Action::CheckStandby { primary, standby, .. } => {
                self.streams(standby, primary)?;
                Ok(Output::Ready { behind: Duration::from_millis(4) })
            }
            Action::Drain { region, .. } => self.answers(region).map(|()| Output::Drained),
            Action::Fence { region, databases, planned, .. } => self.fence(region, databases, *planned),
            Action::Lift { region, .. } => {
                self.answers(region)?;
                let closed = std::mem::replace(&mut self.server(region).fenced, false);
                self.changed("lift", closed);
                Ok(Output::Lifted)
            }
            Action::CatchUp { region, goals } => {
                self.replicate();
                let positions: BTreeMap<_, _> = goals.keys().map(|d| (d.clone(), self.end(region))).collect();
                let reached = goals.iter().all(|(database, goal)| positions[database].reaches(goal));
                let behind = Fault::new(FaultKind::Unreachable, "it is behind");
                if reached { Ok(Output::CaughtUp { positions }) } else { Err(behind) }
            }
            Action::Promote { region, databases } => {
                self.promote(region, &databases.keys().cloned().collect())
            }
            Action::AwaitServing { region, .. } => {
                let serves = self.servers[region].takes_writes();
                let not_yet = Fault::new(FaultKind::Unreachable, "it takes no writes");
                if serves {
                    Ok(Output::Serving { first_write: Duration::from_millis(35) })
                } else {
                    Err(not_yet)
                }
            }
            Action::Rejoin { region, source, databases } => {
                self.rejoin(region, source, &databases.keys().cloned().collect())
            }
            Action::AwaitReplication { primary, standby, databases } => {
                self.streams(standby, primary)?;
                self.replicate();
                Ok(Output::Replicating { positions: each(databases, self.end(standby)) })
            }
            Action::Salvage { region, databases, .. } => {
                self.answers(region)?;
                let before = std::mem::replace(&mut self.salvaged, true);
                self.changed("salvage", !before);
                let end = Lsn::new(self.servers[region].log);
                let salvage = Salvage { diverged_at: None, end, rows: 3, unread: Vec::new(), folder: None };
                Ok(Output::Salvaged { salvages: each(&databases.keys().cloned().collect(), salvage) })
            }
            _ => Ok(self.carry_out_other(action)),
        }
    }

    fn fence(
        &mut self,
        region: &RegionName,
        databases: &BTreeSet<DatabaseName>,
        planned: bool,
    ) -> Result<Output, Fault> {
        // A planned fence goes over sessions; another one can isolate what does not answer.
        if planned {
            self.answers(region)?;
        }
        let before = std::mem::replace(&mut self.server(region).fenced, true);
        self.changed("fence", !before);
        let sqlstate = "25006".to_owned();
        let proof = if planned {
            FenceProof::Closed { sqlstate, sessions_ended: 4, end: self.end(region) }
        } else {
            FenceProof::WriteRefused { sqlstate, sessions_ended: 4 }
        };
        Ok(Output::Fenced { proofs: each(databases, proof) })
    }

    fn promote(&mut self, region: &RegionName, databases: &BTreeSet<DatabaseName>) -> Result<Output, Fault> {
        self.answers(region)?;
        let newest = self.servers.values().map(|s| s.timeline).max().unwrap_or(1);
        let server = self.server(region);
        let already = std::mem::replace(&mut server.primary, true);
        if !already {
            (server.timeline, server.follows, server.fenced) = (newest + 1, false, false);
        }
        let (timeline, lsn) = (Timeline::new(server.timeline), Lsn::new(server.log));
        // Whoever followed the old primary has nobody to follow.
        for (_, other) in self.servers.iter_mut().filter(|(other, _)| *other != region) {
            other.follows = false;
        }
        self.changed("promote", !already);
        let promotion = Promotion { timeline, switched_at: Some(lsn), already };
        Ok(Output::Promoted { promotions: each(databases, promotion) })
    }

    fn rejoin(
        &mut self,
        region: &RegionName,
        source: &RegionName,
        databases: &BTreeSet<DatabaseName>,
    ) -> Result<Output, Fault> {
        self.answers(region)?;
        let source = self.servers[source].clone();
        let server = self.server(region);
        let already = !std::mem::replace(&mut server.primary, false);
        (server.fenced, server.follows) = (false, true);
        (server.timeline, server.log) = (source.timeline, source.log);
        self.changed("rejoin", !already);
        let rejoined = Rejoined { way: RejoinWay::Rewind, already, because: None };
        Ok(Output::Rejoined { rejoins: each(databases, rejoined) })
    }

    fn carry_out_other(&mut self, action: &Action) -> Output {
        match action {
            Action::SwitchDns { changes } => {
                let target = changes.first().and_then(|change| change.to.first()).cloned();
                let region = RegionName::new(target.as_deref().unwrap_or_default());
                let moved = self.names != region;
                self.names = region;
                self.changed("names", moved);
                let said =
                    |values: &BTreeSet<String>| NameSwitched { values: values.clone(), already: !moved };
                let names = changes.iter().map(|c| (c.name.clone(), said(&c.to)));
                Output::Switched { names: names.collect() }
            }
            Action::Verify { changes, canary } => {
                let census = Census {
                    agree: BTreeSet::from(["ns".to_owned()]),
                    disagree: BTreeMap::new(),
                    silent: BTreeMap::new(),
                };
                let visit =
                    Visit { address: self.names.as_str().to_owned(), took: Duration::from_millis(12) };
                Output::Verified {
                    censuses: changes.iter().map(|c| (c.name.clone(), census.clone())).collect(),
                    canary: canary.then_some(visit),
                }
            }
            Action::Report => Output::Reported,
            Action::Run { argv, .. } => self.switched(argv[0] == "clear", format!("run {}", argv[1])),
            Action::Http { url, .. } => {
                let (place, verb) = url.rsplit_once('/').expect("a path");
                self.switched(verb == "clear", format!("http {place}"))
            }
            Action::Sql { region, statement, .. } => {
                self.switched(statement == "clear", format!("sql {region}"))
            }
            _ => Output::Did { said: "as pretended".to_owned() },
        }
    }

    fn switched(&mut self, off: bool, flag: String) -> Output {
        let changes = if off { self.flags.remove(&flag) } else { self.flags.insert(flag) };
        self.changed(if off { "own off" } else { "own on" }, changes);
        Output::Did { said: "as pretended".to_owned() }
    }
}

fn each<T: Clone>(databases: &BTreeSet<DatabaseName>, value: T) -> BTreeMap<DatabaseName, T> {
    databases.iter().map(|database| (database.clone(), value.clone())).collect()
}

fn standing(server: &Server, streams: bool, region: &RegionName) -> StandbyPosition {
    StandbyPosition {
        received: Lsn::new(server.log),
        replayed: Lsn::new(server.log),
        heartbeat: server.heartbeat,
        epoch: None,
        streaming: server.follows && streams,
        name: region.as_str().to_owned(),
    }
}
