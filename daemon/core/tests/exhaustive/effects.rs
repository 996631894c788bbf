//! What a command does to the model's servers and names, with the refusals of the real adapters.
//!
//! **Invariant:** an effect is refused as stale by what was written to the thing itself (the epoch of a fence, of a
//! heartbeat, of a name, of the host's tool, of the head), never by asking who decides.

use std::collections::BTreeMap;
use std::time::Duration;

use lifeboat_core::outcome::{
    Census, FenceProof, LogPosition, NameSwitched, Promotion, RejoinWay, Rejoined, Salvage, TargetPosition,
};
use lifeboat_core::plan::{Action, NameChange};
use lifeboat_core::{Epoch, Fault, FaultKind, Lsn, Outcome, Output, RegionName, Timeline};

use crate::server::Condition;
use crate::setting::{CLUSTER, LEASE, Side};
use crate::world::World;

type Done = Result<Output, Fault>;

fn fault<T>(kind: FaultKind) -> Result<T, Fault> {
    Err(Fault::new(kind, ""))
}

fn each<T>(value: T) -> BTreeMap<lifeboat_core::DatabaseName, T> {
    [("orders".into(), value)].into()
}

impl World {
    /// Carries a command out; none while it waits for something that takes time.
    pub(crate) fn carry_out(&mut self, index: usize) -> Option<Outcome> {
        let flight = &self.flights[index];
        let (command, epoch, place) = (flight.command.clone(), flight.epoch, flight.place);
        let left = (flight.started + u64::try_from(command.limit.as_millis()).ok()?).checked_sub(self.now);
        let blind = self.agents.get(place).is_some_and(|agent| agent.blind.is_some());
        let done = self.effect(&command.action, epoch, place, blind);
        if let (Err(fault), Action::Fence { expiry: true, .. }) = (&done, &command.action)
            && left.is_some_and(|left| left > 0)
            && fault.kind == FaultKind::Unclear
            && self.flights[index].live
        {
            return None;
        }
        self.replicate();
        Some(done.map_or_else(Outcome::Failed, Outcome::Succeeded))
    }

    fn effect(&mut self, action: &Action, epoch: Epoch, place: usize, blind: bool) -> Done {
        match action {
            Action::MeasureLoss { region, .. } => {
                self.reach(region, blind)?;
                self.not_outranked(region, epoch)?;
                let target = TargetPosition {
                    system: CLUSTER,
                    timeline: Timeline::new(self.servers[Side::of(region) as usize].timeline),
                    position: self.position(Side::of(region)),
                };
                Ok(Output::Positions { positions: each(target) })
            }
            Action::Fence { region, returned: true, .. }
                if self.servers[Side::of(region) as usize].condition == Condition::Stopped
                    && self.variant.hosts =>
            {
                // The tool on its host sees that it is stopped, and keeps it so.
                self.obey_on_host(region, epoch, blind)?;
                Ok(Output::Fenced { proofs: each(FenceProof::Stopped) })
            }
            Action::Fence { region, planned, expiry, .. } => {
                self.fence(region, (*planned, *expiry), epoch, place, blind)
            }
            Action::Promote { region, .. } => self.promote(region, epoch, blind),
            Action::AwaitServing { region, .. } => {
                self.write(region, epoch, blind)?;
                Ok(Output::Serving { first_write: Duration::ZERO })
            }
            Action::SwitchDns { changes } => self.switch(changes, epoch),
            Action::Verify { changes, .. } => {
                let says = |change: &NameChange| {
                    *change.to.first().expect("a target") == self.names.0.name().to_string()
                };
                if !changes.iter().all(says) {
                    return fault(FaultKind::Refused);
                }
                let census = Census {
                    agree: ["ns".to_owned()].into(),
                    disagree: BTreeMap::new(),
                    silent: BTreeMap::new(),
                };
                let censuses = changes.iter().map(|change| (change.name.clone(), census.clone())).collect();
                Ok(Output::Verified { censuses, canary: None })
            }
            Action::Report => Ok(Output::Reported),
            Action::CheckStandby { primary, standby, .. } => {
                self.write(primary, epoch, blind)?;
                self.reach(standby, blind)?;
                self.replicate();
                let follows = self.position(Side::of(standby)).streaming;
                if follows {
                    Ok(Output::Ready { behind: Duration::ZERO })
                } else {
                    fault(FaultKind::Unreachable)
                }
            }
            Action::Drain { region, .. } => self.reach(region, blind).map(|()| Output::Drained),
            Action::Lift { region, .. } => self.lift(region, epoch, blind),
            Action::CatchUp { region, goals } => {
                self.reach(region, blind)?;
                let (has, timeline) = self.end(region);
                if goals.values().any(|goal| has < goal.lsn || timeline < goal.timeline) {
                    return fault(FaultKind::Unreachable);
                }
                Ok(Output::CaughtUp { positions: goals.clone() })
            }
            Action::Salvage { region, .. } => {
                self.obey_on_host(region, epoch, blind)?;
                let salvage = Salvage {
                    diverged_at: None,
                    end: self.end(region).0,
                    rows: 0,
                    unread: Vec::new(),
                    folder: None,
                };
                Ok(Output::Salvaged { salvages: each(salvage) })
            }
            Action::Rejoin { region, source, .. } => self.rejoin(region, source, epoch, blind),
            Action::AwaitReplication { primary, standby, .. } => {
                self.write(primary, epoch, blind)?;
                self.replicate();
                if !self.position(Side::of(standby)).streaming {
                    return fault(FaultKind::Unreachable);
                }
                let (lsn, timeline) = self.end(standby);
                Ok(Output::Replicating { positions: each(LogPosition { system: CLUSTER, timeline, lsn }) })
            }
            Action::Run { .. }
            | Action::Http { .. }
            | Action::Sql { .. }
            | Action::Wait { .. }
            | Action::Notify { .. }
            | Action::Approve => Ok(Output::Did { said: String::new() }),
        }
    }

    fn end(&self, region: &RegionName) -> (Lsn, Timeline) {
        let server = &self.servers[Side::of(region) as usize];
        (Lsn::new(server.has), Timeline::new(server.timeline))
    }

    fn reach(&self, region: &RegionName, blind: bool) -> Result<(), Fault> {
        let up = self.servers[Side::of(region) as usize].condition == Condition::Up;
        if up && !blind { Ok(()) } else { fault(FaultKind::Unreachable) }
    }

    fn not_outranked(&self, region: &RegionName, epoch: Epoch) -> Result<(), Fault> {
        let server = &self.servers[Side::of(region) as usize];
        let newest = server.fenced.unwrap_or_default().max(server.epoch);
        if newest > epoch { fault(FaultKind::Stale) } else { Ok(()) }
    }

    /// Commits a heartbeat of this epoch.
    fn write(&mut self, region: &RegionName, epoch: Epoch, blind: bool) -> Result<(), Fault> {
        self.reach(region, blind)?;
        self.not_outranked(region, epoch)?;
        let server = self.server(Side::of(region));
        if !server.acknowledges() {
            return fault(FaultKind::Unreachable);
        }
        server.epoch = epoch;
        Ok(())
    }

    fn fence(
        &mut self,
        region: &RegionName,
        (planned, expiry): (bool, bool),
        epoch: Epoch,
        place: usize,
        blind: bool,
    ) -> Done {
        let side = Side::of(region);
        let proof = match self.reach(region, blind).and_then(|()| self.not_outranked(region, epoch)) {
            Ok(()) => {
                self.server(side).fenced = Some(epoch);
                let (lsn, timeline) = self.end(region);
                let (sqlstate, end) = (String::new(), LogPosition { system: CLUSTER, timeline, lsn });
                if planned {
                    FenceProof::Closed { sqlstate, sessions_ended: 0, end }
                } else {
                    FenceProof::WriteRefused { sqlstate, sessions_ended: 0 }
                }
            }
            Err(unreachable) if unreachable.kind == FaultKind::Unreachable && expiry => {
                self.expired(side, epoch, place)?
            }
            Err(other) => return Err(other),
        };
        Ok(Output::Fenced { proofs: each(proof) })
    }

    /// The proof that the lease has run out, as the coordinator's adapter gives it.
    fn expired(&self, side: Side, epoch: Epoch, place: usize) -> Result<FenceProof, Fault> {
        let agent = &self.agents[place];
        let Some(head) = self.shared.head.as_ref().filter(|_| agent.cut.is_none()) else {
            return fault(FaultKind::Unreachable);
        };
        let Some((renewed, over)) = agent.leases[side as usize] else { return fault(FaultKind::Refused) };
        if head.epoch > epoch {
            return fault(FaultKind::Stale);
        }
        if head.holder == side.name() && !head.closing {
            return fault(FaultKind::Refused);
        }
        let newest = self.servers[side as usize].renewed == Some(renewed);
        if newest && agent.clock.own(self.now) >= over {
            return Ok(FenceProof::Expired {
                lease: Duration::from_millis(LEASE),
                waited: Duration::from_millis(LEASE),
            });
        }
        fault(FaultKind::Unclear)
    }

    fn promote(&mut self, region: &RegionName, epoch: Epoch, blind: bool) -> Done {
        self.reach(region, blind)?;
        self.not_outranked(region, epoch)?;
        let newest = self.servers.iter().map(|server| server.timeline).max().unwrap_or_default();
        let server = self.server(Side::of(region));
        let already = std::mem::replace(&mut server.primary, true);
        if !already {
            server.timeline = newest + 1;
            self.check_true_loss(Side::of(region));
        }
        let server = &self.servers[Side::of(region) as usize];
        let promotion = Promotion { timeline: Timeline::new(server.timeline), switched_at: None, already };
        Ok(Output::Promoted { promotions: each(promotion) })
    }

    fn switch(&mut self, changes: &[NameChange], epoch: Epoch) -> Done {
        let (says, newest) = self.names;
        if newest > epoch {
            return fault(FaultKind::Stale);
        }
        let change = changes.first().expect("one name");
        let wanted = |values: &std::collections::BTreeSet<String>| {
            Side::BOTH.into_iter().find(|side| values.contains(side.name().as_str())).expect("a region")
        };
        let (from, to) = (wanted(&change.from), wanted(&change.to));
        if says != from && says != to {
            return fault(FaultKind::Refused);
        }
        self.names = (to, epoch);
        let switched = NameSwitched { values: change.to.clone(), already: says == to };
        Ok(Output::Switched { names: [(change.name.clone(), switched)].into() })
    }

    fn lift(&mut self, region: &RegionName, epoch: Epoch, blind: bool) -> Done {
        self.reach(region, blind)?;
        self.not_outranked(region, epoch)?;
        self.server(Side::of(region)).fenced = None;
        Ok(Output::Lifted)
    }

    fn obey_on_host(&mut self, region: &RegionName, epoch: Epoch, blind: bool) -> Result<(), Fault> {
        let server = self.server(Side::of(region));
        if blind || !server.runs() {
            return fault(FaultKind::Unreachable);
        }
        if server.host > epoch {
            return fault(FaultKind::Stale);
        }
        server.host = epoch;
        Ok(())
    }

    fn rejoin(&mut self, region: &RegionName, source: &RegionName, epoch: Epoch, blind: bool) -> Done {
        self.reach(source, blind)?;
        self.obey_on_host(region, epoch, blind)?;
        let from = self.servers[Side::of(source) as usize].clone();
        if !from.primary {
            return fault(FaultKind::Refused);
        }
        let server = self.server(Side::of(region));
        let already = server.condition == Condition::Up && !server.primary;
        if !already {
            (server.primary, server.condition, server.fenced, server.lease) =
                (false, Condition::Up, None, None);
            (server.timeline, server.has, server.linked) = (from.timeline, from.has, true);
            (server.epoch, server.heartbeat) = (from.epoch, from.heartbeat);
        }
        let rejoined = Rejoined { way: RejoinWay::Rewind, already, because: None };
        Ok(Output::Rejoined { rejoins: each(rejoined) })
    }
}
