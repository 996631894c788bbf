//! A pretend of what several agents share, in memory, on tokio's clock: for tests and simulators.
//!
//! One [`Coordinator`] is what an etcd cluster is in the world: it takes writes one at a time, its leases end by its own
//! clock, and each agent reaches it through its own [`Line`], which can be cut, slowed down, or lose an answer.
//!
//! **Invariant:** it keeps what [`Coordination`](crate::ports::Coordination) promises; only lines misbehave.
//! **Invariant:** no random state: the same calls at the same moments are answered the same.

mod conformance;
mod line;
mod room;
mod store;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lifeboat_core::head::Head;
use lifeboat_core::{AgentName, Stamped, WorkloadName};
use tokio::sync::Notify;

pub use self::conformance::conformance;
pub use self::line::Line;
use self::room::Room;
pub use self::room::{Lease, Seat};
pub use self::store::{MemoryStore, StoreFault};
use crate::clock::Clock;

/// What becomes of the next append of an agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    /// It never gets there; the agent hears nothing.
    Request,
    /// It is taken in; the agent hears nothing.
    Answer,
    /// The agent hears nothing, and it gets there this much later.
    Late(Duration),
}

/// How the line of one agent misbehaves.
#[derive(Clone, Debug, Default)]
pub struct Fault {
    /// Nothing gets through: every call fails.
    pub cut: bool,
    /// Nothing gets through: no call returns while it is so.
    pub hangs: bool,
    /// How long each call takes, half of it before it is taken in.
    pub delay: Duration,
    /// What becomes of the next appends, in order.
    pub appends: Vec<Lost>,
    /// It is refused.
    pub denied: bool,
    /// The watch tells another record at this place.
    pub garbled: Option<u64>,
    /// The watch leaves the record at this place out.
    pub skipped: Option<u64>,
}

/// What several agents share.
#[derive(Clone)]
pub struct Coordinator {
    inner: Arc<Inner>,
}

struct Inner {
    room: Mutex<Room>,
    faults: Mutex<BTreeMap<AgentName, Fault>>,
    /// Rises with each change of either.
    version: Version,
    clock: Clock,
    ttl: Duration,
}

/// Counts changes, and wakes those who wait for one in the order in which they began to: a `watch` channel of tokio wakes
/// them in an order that it draws, and the same life would not be the same twice.
#[derive(Default)]
struct Version {
    count: AtomicU64,
    changed: Notify,
}

impl Version {
    fn get(&self) -> u64 {
        self.count.load(Ordering::SeqCst)
    }

    fn rise(&self) {
        self.count.fetch_add(1, Ordering::SeqCst);
        self.changed.notify_waiters();
    }

    /// Waits until it is another one than `seen`, which then is that one.
    async fn changed(&self, seen: &mut u64) {
        loop {
            // It hears what happens from here on, before it is waited for.
            let changed = self.changed.notified();
            let now = self.get();
            if now != *seen {
                *seen = now;
                return;
            }
            changed.await;
        }
    }
}

/// An old copy of a coordinator, for a restore.
#[derive(Clone)]
pub struct Copy(Room);

impl Coordinator {
    /// An empty one, whose tenures last so long.
    pub fn new(clock: Clock, ttl: Duration) -> Self {
        let inner = Inner {
            room: Mutex::new(Room::default()),
            faults: Mutex::new(BTreeMap::new()),
            version: Version::default(),
            clock,
            ttl,
        };
        Self { inner: Arc::new(inner) }
    }

    /// The line of an agent.
    pub fn line(&self, agent: &AgentName) -> Arc<Line> {
        Arc::new(Line { coordinator: self.clone(), agent: agent.clone() })
    }

    /// Lets the line of an agent misbehave, or behave again.
    pub fn fault(&self, agent: &AgentName, change: impl FnOnce(&mut Fault)) {
        change(self.faults().entry(agent.clone()).or_default());
        self.bump();
    }

    /// Takes no writes, or takes them again.
    pub fn fill(&self, full: bool) {
        self.room().full = full;
    }

    /// All records.
    pub fn records(&self) -> Vec<Stamped> {
        self.room().records.clone()
    }

    /// The records after that place, without those before it.
    pub fn records_after(&self, place: usize) -> Vec<Stamped> {
        self.room().records.get(place..).map(<[Stamped]>::to_vec).unwrap_or_default()
    }

    /// The heads.
    pub fn heads(&self) -> BTreeMap<WorkloadName, Head> {
        self.room().heads.clone()
    }

    /// Who holds the tenure now.
    pub fn seat(&self) -> Option<Seat> {
        let mut room = self.room();
        room.expire(self.inner.clock.now());
        room.seat.clone()
    }

    /// Who has ever held it, oldest first.
    pub fn guardians(&self) -> Vec<AgentName> {
        self.room().guardians.clone()
    }

    /// How many appends of each agent were refused, because somebody else decides or has written since.
    pub fn refused(&self) -> BTreeMap<AgentName, u32> {
        self.room().refused.clone()
    }

    /// The names of those whose newest testimony is not over.
    pub fn vantages(&self) -> BTreeSet<AgentName> {
        let mut room = self.room();
        room.expire(self.inner.clock.now());
        room.testimonies.keys().cloned().collect()
    }

    /// A copy of everything, as a backup would have it.
    pub fn copy(&self) -> Copy {
        Copy(self.room().clone())
    }

    /// Restores an old copy: nobody holds a tenure then, and what was written since is forgotten.
    pub fn restore(&self, copy: &Copy) {
        {
            let mut room = self.room();
            let restores = room.restores + 1;
            *room = copy.0.clone();
            room.restores = restores;
            room.seat = None;
        }
        self.bump();
    }

    fn room(&self) -> MutexGuard<'_, Room> {
        self.inner.room.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn faults(&self) -> MutexGuard<'_, BTreeMap<AgentName, Fault>> {
        self.inner.faults.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fault_of(&self, agent: &AgentName) -> Fault {
        self.faults().get(agent).cloned().unwrap_or_default()
    }

    fn bump(&self) {
        self.inner.version.rise();
    }

    /// Does something to what is shared, and lets everybody who watches look.
    fn change<T>(&self, act: impl FnOnce(&mut Room) -> T) -> T {
        let result = {
            let mut room = self.room();
            room.expire(self.inner.clock.now());
            act(&mut room)
        };
        self.bump();
        result
    }
}
