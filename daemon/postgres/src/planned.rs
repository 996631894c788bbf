//! Planned moves: what a primary and a standby that both work are asked, before, during and after one.
//!
//! The path of a switchover is [`follow`] (mark, fit, catch up), [`close`], promote, [`open`] when it is undone. A region
//! that returns is offered a source ([`offer`]) and brought back by its host ([`returned`]). Steps of the operator's
//! own ask by [`query`].
//!
//! **Invariant:** every call has been refused to an older epoch before it changes anything.
//! **Invariant:** a call that runs out of time says whether anything was asked for: then nobody knows, else nothing was.

mod close;
mod follow;
mod offer;
mod open;
mod query;
mod returned;

pub(crate) use close::Care;
pub(crate) use close::NOT_OURS;
pub(crate) use follow::replays_on;
pub use offer::slot_name;
pub(crate) use open::RESETS;

use std::time::Duration;

use lifeboat_core::{Epoch, Fault, FaultKind, Lsn, SystemIdentifier};

use crate::connect::Session;
use crate::heartbeat::{self, Beat, Heartbeat};
use crate::member::Member;
use crate::position::not_outranked;
use crate::promote::too_late;
use crate::reach::Reached;
use crate::sample::Sample;
use crate::trouble::Trouble;
use lifeboat_engine::ports::Call;

/// Whether anything has been asked for that may have been done.
#[derive(Default)]
pub(crate) struct Asked(pub(crate) bool);

impl Asked {
    /// What `trouble` means to a call that has got this far.
    pub(crate) fn fault(&self, trouble: &Trouble) -> Fault {
        if self.0 { trouble.fault_after_asking() } else { trouble.fault() }
    }
}

/// `future`, or what it means that `limit` has passed.
pub(crate) async fn in_time<T>(
    limit: Duration,
    done: &str,
    asked: &mut Asked,
    act: impl AsyncFnOnce(&mut Asked) -> Result<T, Fault>,
) -> Result<T, Fault> {
    let acting = Box::pin(act(&mut *asked));
    match tokio::time::timeout(limit, acting).await {
        Ok(result) => result,
        Err(_) => Err(too_late(limit, asked.0, done)),
    }
}

impl Member {
    /// A server that answers, and has seen no newer epoch.
    pub(crate) async fn reach_for(&self, call: &Call) -> Result<Reached, Fault> {
        let reached = self.reach(&call.agent).await.map_err(|trouble| trouble.fault())?;
        not_outranked(&reached.sample, call.epoch)?;
        Ok(reached)
    }

    /// The same, of a primary.
    async fn reach_primary(&self, call: &Call) -> Result<Reached, Fault> {
        let reached = self.reach_for(call).await?;
        if reached.sample.standby {
            return Err(refused("it is in recovery: a standby, and no primary"));
        }
        Ok(reached)
    }

    /// Commits the call's heartbeat, or without a table where none is kept.
    async fn commit(&self, call: &Call, session: &Session, asked: &Asked) -> Result<(), Fault> {
        if !self.options.heartbeat {
            return heartbeat::commit_without_row(session).await.map_err(|trouble| asked.fault(&trouble));
        }
        let heartbeat = Heartbeat { agent: call.agent.clone(), epoch: call.epoch, at: self.clock.now() };
        match heartbeat.write(session).await.map_err(|trouble| asked.fault(&trouble))? {
            Beat::Committed(_) => Ok(()),
            Beat::Outranked(newest) => Err(outranked(newest, call.epoch)),
        }
    }
}

pub(crate) fn refused(detail: impl Into<String>) -> Fault {
    Fault::new(FaultKind::Refused, detail)
}

fn outranked(newest: Epoch, epoch: Epoch) -> Fault {
    let detail = format!("the server has a heartbeat of epoch {newest}, this call is of epoch {epoch}");
    Fault::new(FaultKind::Stale, detail)
}

/// Refuses a server of another cluster than `system`.
fn same_cluster(sample: &Sample, system: SystemIdentifier) -> Result<(), Fault> {
    if sample.system == system {
        return Ok(());
    }
    Err(refused(format!("the server belongs to cluster {}, not {system}; it is left alone", sample.system)))
}

/// The one log position that `sql` gives.
async fn position(session: &Session, sql: &str) -> Result<Lsn, Trouble> {
    let row = session.row(sql, &[]).await?;
    let text: &str = row.try_get(0)?;
    Lsn::parse(text).ok_or(Trouble::Malformed("not a log position"))
}
