//! What is in a region: a database that clients write to all the time, and the sentry beside it.
//!
//! Clients write without a break wherever a database acknowledges, inside its own region too. So nothing is kept of single
//! writes: a place in the log *is* the true time, in milliseconds, of the newest acknowledged write, and what a promotion
//! loses is the difference of two places.
//!
//! **Invariant:** a database changes only here and by the actuators; whether it acknowledges follows from its state.

use lifeboat_core::outcome::LogPosition;
use lifeboat_core::sighting::{DatabaseSample, DatabaseState, StandbyPosition};
use lifeboat_core::{Epoch, Lsn, Moment, Timeline};

use super::network::Network;
use super::setting::{CLUSTER, NAMES};

/// A heartbeat as it was committed.
#[derive(Clone, Copy, Debug)]
struct Beat {
    /// When, truly: its place in the log.
    at: u64,
    epoch: u64,
    /// When, as its agent's clock had it.
    stamp: u64,
}

/// What a set of heartbeat rows says.
#[derive(Clone, Copy, Debug, Default)]
struct Rows {
    /// The row of each agent.
    each: [Option<(u64, u64)>; 3],
}

impl Rows {
    fn put(&mut self, agent: usize, stamp: u64, epoch: u64) {
        self.each[agent] = Some((stamp, epoch));
    }

    fn epoch(&self) -> u64 {
        self.each.iter().flatten().map(|(_, epoch)| *epoch).max().unwrap_or_default()
    }
}

/// One database.
#[derive(Clone, Debug)]
pub(crate) struct Database {
    /// Whether its processes are there.
    pub(crate) running: bool,
    /// Whether they are stopped where they are.
    pub(crate) frozen: bool,
    /// Whether it is a primary.
    pub(crate) primary: bool,
    /// Whether a fence closed it.
    pub(crate) closed: bool,
    /// Whether commits hang.
    pub(crate) hangs: bool,
    /// Whether it fails when it is told to become a primary.
    pub(crate) fails_promotion: bool,
    /// The timeline it writes, or follows.
    pub(crate) timeline: u32,
    /// The epoch under which it became a primary.
    pub(crate) epoch: u64,
    /// The newest epoch of an order that it obeyed.
    pub(crate) obeyed: u64,
    /// Where its log ends: the true time of the newest write in it.
    pub(crate) end: u64,
    /// When it last acknowledged a write.
    pub(crate) acknowledged: Option<u64>,
    /// Whether it follows the other one, when the paths allow.
    pub(crate) follows: bool,
    /// Whether its receiver was told to stop, for a fence.
    pub(crate) detached: bool,
    /// Whether it acknowledges alone although it is to wait for a standby: since it was promoted, until one follows.
    pub(crate) solo: bool,
    /// Whether it starts again when its sentry holds the lease.
    pub(crate) wants_start: bool,
    rows: Rows,
    /// Heartbeats that a standby may not have yet, oldest first, with the agent.
    beats: Vec<(usize, Beat)>,
    /// How many of the other's heartbeats are in its rows.
    applied: usize,
}

impl Database {
    pub(crate) fn new(primary: bool) -> Self {
        Self {
            running: true,
            frozen: false,
            primary,
            closed: false,
            hangs: false,
            fails_promotion: false,
            timeline: 1,
            epoch: 0,
            obeyed: 0,
            end: 0,
            acknowledged: None,
            follows: !primary,
            detached: false,
            solo: false,
            wants_start: false,
            rows: Rows::default(),
            beats: Vec::new(),
            applied: 0,
        }
    }

    /// Whether it answers at all, when it can be reached.
    pub(crate) const fn answers(&self) -> bool {
        self.running && !self.frozen
    }

    /// Whether it would take a write now, as far as it alone is concerned.
    pub(crate) const fn open(&self) -> bool {
        self.answers() && self.primary && !self.closed && !self.hangs
    }

    /// A heartbeat is committed.
    pub(crate) fn beat(&mut self, agent: usize, now: u64, epoch: u64, stamp: u64) {
        self.rows.put(agent, stamp, epoch);
        self.beats.push((agent, Beat { at: now, epoch, stamp }));
    }

    /// The newest epoch among its heartbeats.
    pub(crate) fn rows_epoch(&self) -> u64 {
        self.rows.epoch()
    }

    /// The standby receives what the primary has, up to there.
    pub(crate) fn receive(&mut self, from: &Self, until: u64) {
        let end = until.min(from.end).max(self.end);
        self.end = end;
        while let Some((agent, beat)) = from.beats.get(self.applied).filter(|(_, beat)| beat.at <= end) {
            self.rows.put(*agent, beat.stamp, beat.epoch);
            self.applied += 1;
        }
        self.obeyed = self.obeyed.max(self.rows.epoch());
    }

    /// It becomes a primary.
    pub(crate) fn promote(&mut self, timeline: u32, epoch: u64) {
        self.primary = true;
        self.follows = false;
        self.closed = false;
        self.detached = false;
        self.solo = true;
        self.timeline = timeline;
        self.epoch = epoch;
        self.acknowledged = None;
        self.beats.clear();
    }

    /// It is made a standby of that one, whatever it was.
    pub(crate) fn rejoin(&mut self, source: &Self) {
        let (hangs, fails_promotion) = (self.hangs, self.fails_promotion);
        *self = Self { hangs, fails_promotion, ..Self::new(false) };
        self.timeline = source.timeline;
        self.end = source.end;
        self.obeyed = source.obeyed;
        self.rows = source.rows;
        self.applied = source.beats.len();
    }

    /// What it says of itself to an agent; a heartbeat is committed only when a stamp is given.
    pub(crate) fn sample(
        &self,
        (agent, region): (usize, usize),
        streaming: bool,
        stamp: Option<Moment>,
        sync: bool,
    ) -> DatabaseSample {
        let state = if self.primary {
            let standby = sync.then(|| NAMES.regions[1 - region].as_str().to_owned());
            DatabaseState::Primary {
                written: Lsn::new(self.end),
                heartbeat: stamp,
                synchronous: standby.into_iter().collect(),
            }
        } else {
            DatabaseState::Standby(self.position((agent, region), streaming))
        };
        DatabaseSample {
            database: NAMES.database.clone(),
            system: CLUSTER,
            timeline: Timeline::new(self.timeline),
            state,
        }
    }

    /// Where it stands as a standby. It tells each agent that agent's own heartbeat: moments of two clocks are not compared.
    pub(crate) fn position(&self, (agent, region): (usize, usize), streaming: bool) -> StandbyPosition {
        let own = self.rows.each[agent];
        StandbyPosition {
            received: Lsn::new(self.end),
            replayed: Lsn::new(self.end),
            heartbeat: own.map(|(stamp, _)| Moment::from_millis(stamp)),
            epoch: own.map(|(_, epoch)| lifeboat_core::Epoch::new(epoch)),
            streaming,
            name: NAMES.regions[region].as_str().to_owned(),
        }
    }

    /// Where its log ends.
    pub(crate) fn place(&self) -> LogPosition {
        LogPosition { system: CLUSTER, timeline: Timeline::new(self.timeline), lsn: Lsn::new(self.end) }
    }

    /// Whether an order under this epoch comes from someone who is in charge no more.
    pub(crate) fn outranks(&self, epoch: Epoch) -> bool {
        self.obeyed > epoch.get()
    }

    /// An order under this epoch is obeyed.
    pub(crate) fn obey(&mut self, epoch: Epoch) {
        self.obeyed = self.obeyed.max(epoch.get());
    }
}

/// The sentry beside a database, with its dead-man switch: a thing of its own that stops the database at a time unless it is
/// told of a later one. It goes on when the sentry is killed or frozen, and stands still only with the whole host.
#[derive(Clone, Debug)]
pub(crate) struct Sentry {
    /// Whether it runs.
    pub(crate) up: bool,
    /// Whether its process is stopped where it is.
    pub(crate) frozen: bool,
    /// When the switch stops the database, truly; none while the database needs no lease.
    pub(crate) deadline: Option<u64>,
    /// Whether that time is waited for already.
    pub(crate) armed: bool,
    /// How fast its clock runs, in millionths more or less.
    pub(crate) drift: i32,
}

impl Sentry {
    pub(crate) const fn new(drift: i32) -> Self {
        Self { up: true, frozen: false, deadline: None, armed: false, drift }
    }

    /// How long, truly, so much of its own time is.
    pub(crate) fn truly(&self, own: u64) -> u64 {
        let rate = 1_000_000 + i64::from(self.drift);
        (i64::try_from(own).unwrap_or(i64::MAX) * 1_000_000 / rate).unsigned_abs()
    }
}

/// Whether the log of the other region comes to the standby in region `r`.
pub(crate) fn replicates(databases: &[Database; 2], network: &Network, held_back: u8, r: usize) -> bool {
    let (standby, primary) = (&databases[r], &databases[1 - r]);
    standby.follows
        && !standby.detached
        && held_back == 0
        && standby.answers()
        && primary.answers()
        && primary.primary
        && standby.timeline == primary.timeline
        && network.awake(0)
        && network.awake(1)
        && network.talk(0, 1)
}

/// Whether the database in region `r` acknowledges writes now, of two of which the other one may be its standby.
pub(crate) fn acknowledges(
    databases: &[Database; 2],
    network: &Network,
    held_back: u8,
    sync: bool,
    r: usize,
) -> bool {
    let database = &databases[r];
    let alone = !sync || database.solo;
    database.open() && network.awake(r) && (alone || replicates(databases, network, held_back, 1 - r))
}
