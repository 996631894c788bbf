//! The doors to the world: what adapters must be able to do.
//!
//! Mutating calls are idempotent: they look first, act if needed, and prove the effect. Each carries the
//! epoch it acts under and a deadline. Their faults say what to do next ([`Fault`]).
//!
//! **Invariant:** an adapter never retries a step by itself, never decides, and never takes "no answer" as yes.

mod coordination;
mod store;

use std::collections::BTreeSet;
use std::time::Duration;

use async_trait::async_trait;
pub use coordination::{Change, Coordination, CoordinationError, Renewal, Seal, Tenure, WriteLeases};
use lifeboat_core::decision::Notice;
use lifeboat_core::outcome::{
    Census, FenceProof, LogPosition, NameSwitched, Promotion, Rejoined, Salvage, Source, TargetPosition,
    Visit,
};
use lifeboat_core::sighting::Look;
use lifeboat_core::{AgentName, Epoch, Fault, FaultKind, Moment, RegionName, RunId, SystemIdentifier};
pub use store::{
    Abilities, LONGEST_NAME, Listed, NoObjectName, ObjectName, Store, StoreError, Upload, examine,
};

/// What every mutating call carries.
#[derive(Clone, Debug)]
pub struct Call {
    /// The run it belongs to.
    pub run: RunId,
    /// Who acts.
    pub agent: AgentName,
    /// Under which epoch; an actuator that has seen a newer one answers `Stale`.
    pub epoch: Epoch,
    /// How long the call may take; past that it must return, `Unclear` if the effect may be there.
    pub limit: Duration,
}

/// What a probe is told before it looks.
#[derive(Clone, Debug)]
pub struct Ask {
    /// Who looks.
    pub agent: AgentName,
    /// When, on the agent's clock; a heartbeat is stamped with it.
    pub at: Moment,
    /// The workload's epoch; a heartbeat carries it.
    pub epoch: Epoch,
    /// The role the region is believed to have. Only a primary is written to.
    pub expect: Role,
    /// How long the look may take; past that it must return `Silent` or `CommitSilent`.
    pub limit: Duration,
}

/// The role a region is believed to have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The workload lives here.
    Primary,
    /// It may move here.
    Standby,
}

/// One way of looking at one thing.
#[async_trait]
pub trait Probe: Send + Sync {
    /// Looks once, within `ask.limit`, with bounded memory, whatever the other side sends.
    async fn look(&self, ask: &Ask) -> Look;

    /// Resolves when something suggests looking before the next turn, for example when a connection that
    /// is kept open was reset. Never resolves by default.
    async fn disturbed(&self) {
        std::future::pending().await
    }
}

/// Asks one witness whether this agent's own network works.
#[async_trait]
pub trait Witness: Send + Sync {
    /// Its address, for people.
    fn name(&self) -> &str;

    /// Whether it answered within `limit`.
    async fn answers(&self, limit: Duration) -> bool;
}

/// One member of a database: one server in one region.
#[async_trait]
pub trait Database: Send + Sync {
    /// Target side, before promotion: waits (within the call's limit) until all that was received is replayed,
    /// then says how far it has come. Changes nothing. `Refused` when it is not a standby; when it is
    /// already a primary on a timeline this run made, its position is read as it is.
    async fn measure(&self, call: &Call) -> Result<TargetPosition, Fault>;

    /// Old-primary side: makes it accept no more writes, and proves it over a session that was opened
    /// before. Repeating it proves it again. `Unclear` or `Unreachable` when it cannot be proven.
    async fn ensure_fenced(&self, call: &Call) -> Result<FenceProof, Fault>;

    /// Target side: makes it a primary, after checking that it belongs to `system`. `Refused` when it is
    /// another cluster. Repeating it finds it promoted.
    async fn ensure_promoted(&self, call: &Call, system: SystemIdentifier) -> Result<Promotion, Fault>;

    /// Target side: commits a heartbeat of the call's epoch, on a new session; returns how long until it did.
    async fn ensure_writable(&self, call: &Call) -> Result<Duration, Fault>;

    /// Primary side: commits a heartbeat of the call's epoch, and says where the log ends after it. A standby that has
    /// replayed up to there follows this primary.
    async fn mark(&self, call: &Call) -> Result<LogPosition, Fault>;

    /// Target side, before a planned move: whether it could serve and be promoted. Changes nothing.
    async fn fit(&self, call: &Call, system: SystemIdentifier) -> Result<(), Fault>;

    /// Standby side: waits, within the call's limit, until it has replayed up to `goal`, on the goal's timeline.
    /// `Refused` when it is another cluster or no standby; `Unclear`, with the bytes that are missing, when the limit
    /// passes. Already promoted by this run, it says where its own log began, and that is not before the goal.
    async fn catch_up(&self, call: &Call, goal: &LogPosition) -> Result<LogPosition, Fault>;

    /// Primary side: writes its buffers out (a checkpoint), while clients go on.
    async fn drain(&self, call: &Call) -> Result<(), Fault>;

    /// Primary side, planned: as [`Database::ensure_fenced`], but over sessions only, never by isolating the region;
    /// and says where the log ended once the last session that could write was gone. A server that is stopped, by the
    /// word of the tool on its host, is fenced as well.
    async fn ensure_closed(&self, call: &Call) -> Result<FenceProof, Fault>;

    /// Closes an old primary that has returned: as [`Database::ensure_closed`], but nothing that could wait on a quiet day is a
    /// reason to leave it open. A repeat proves it anew.
    async fn ensure_shut_out(&self, call: &Call) -> Result<FenceProof, Fault> {
        self.ensure_closed(call).await
    }

    /// Primary side: takes lifeboat's fence back and proves that a new session commits. `Refused` when it is no
    /// primary any more; a server that carries no fence is left as it is.
    async fn ensure_open(&self, call: &Call) -> Result<(), Fault>;

    /// Primary side: makes it ready to be followed by the server of `follower` (checkpoint, replication slot), and
    /// says what that one must know.
    async fn offer(&self, call: &Call, follower: &RegionName) -> Result<Source, Fault>;

    /// On the host of an old primary that is fenced: keeps what only it has. Repeating it finds what was kept.
    async fn salvage(&self, call: &Call, source: &Source) -> Result<Salvage, Fault>;

    /// On the host of an old primary: makes it a standby of `source`. Repeating it finds it following.
    async fn ensure_rejoined(&self, call: &Call, source: &Source) -> Result<Rejoined, Fault>;

    /// Target side, in a failover: stops receiving from the old primary, which waits for the word of this
    /// standby alone, and proves where what it received ends. Nothing after that can be acknowledged there. Takes
    /// effect at once and outlasts a restart of the server; repeating it proves it again. Promotion follows.
    async fn ensure_cut_off(&self, call: &Call) -> Result<FenceProof, Fault> {
        let _ = call;
        Err(Fault::new(FaultKind::Refused, "this database cannot be cut off"))
    }

    /// One statement of the operator's; the first column of the first row, as text.
    async fn query(&self, call: &Call, statement: &str) -> Result<Option<String>, Fault>;
}

pub use lifeboat_core::plan::NameChange;

/// Where one DNS name is kept.
#[async_trait]
pub trait Names: Send + Sync {
    /// Makes the name say `change.to`, if it says `change.from` or `change.to` now; `Refused` when it says
    /// something else, `Stale` when a newer epoch has written it.
    async fn ensure_record(&self, call: &Call, change: &NameChange) -> Result<NameSwitched, Fault>;

    /// Asks every authoritative server and resolver once, all at the same time, what the name says.
    async fn census(&self, call: &Call, change: &NameChange) -> Result<Census, Fault>;
}

/// A real client of the workload.
#[async_trait]
pub trait Canary: Send + Sync {
    /// Resolves the workload's name as a client would and uses the workload once.
    async fn visit(&self, call: &Call) -> Result<Visit, Fault>;
}

/// A request of the operator's own.
#[derive(Clone, Debug)]
pub struct Errand<'a> {
    /// The method.
    pub method: &'a str,
    /// Where to.
    pub url: &'a str,
    /// What is sent.
    pub body: Option<&'a str>,
    /// The statuses that are success.
    pub expect: &'a BTreeSet<u16>,
}

/// Who sends requests of the operator's own.
#[async_trait]
pub trait Messenger: Send + Sync {
    /// Sends one, at a moment; the status and the beginning of the answer. `Refused` when the answer is another status
    /// of the 4xx class, `Unreachable` when nobody was reached, else `Unclear`: the request may have had its effect.
    async fn send(&self, call: &Call, at: Moment, errand: &Errand<'_>) -> Result<String, Fault>;
}

/// A way to tell people.
#[async_trait]
pub trait Notify: Send + Sync {
    /// Delivers one notice.
    async fn notify(&self, notice: &Notice) -> Result<(), Fault>;
}
