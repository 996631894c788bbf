//! What an agent that shares its record knows of the others, and of its own part.
//!
//! **Invariant:** what is known here is forgotten with the process: the record is the journal's and the coordinator's.

use std::collections::{BTreeMap, VecDeque};
use std::mem::Discriminant;
use std::sync::Arc;
use std::time::Duration;

use lifeboat_core::head::Head;
use lifeboat_core::testimony::{Beat, Testimony};
use lifeboat_core::{AgentName, Answer, Guardian, Moment, Order, Stamped, WorkloadName};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use tokio::sync::{oneshot, watch};

use super::tenure::{Held, Keeper};
use crate::clock::Clock;
use crate::inbox::Inbox;
use crate::ports::{Coordination, CoordinationError};

/// How much longer an agent waits before it campaigns for each that comes before it.
const STEP: Duration = Duration::from_millis(500);

/// Testimonies are said again at least this often.
pub(super) const TESTIFY_AGAIN: Duration = Duration::from_secs(1);

/// And not more often than this, however much changes.
const TESTIFY_PAUSE: Duration = Duration::from_millis(50);

/// How many records are kept at hand to be compared with what the watch tells; others are read from the journal.
const RECENT: usize = 256;

/// How many answers are kept to be given again, when an order is told twice.
const ANSWERS: usize = 64;

/// How many orders may wait until this agent has read the record it was elected for.
const WAITING: usize = 64;

/// What this agent does now.
pub(super) enum Duty {
    /// Another agent decides, or nobody.
    Standing,
    /// It has won, and reads what it has not read.
    Taking(Held),
    /// It decides.
    Deciding(Held),
}

/// Whether this agent wants to decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Campaign {
    /// No.
    Idle,
    /// From that moment on.
    At(Moment),
    /// It has asked.
    UnderWay,
}

/// An order that waits until this agent decides.
pub(super) enum Waiting {
    /// It was given here.
    Here(Order, oneshot::Sender<Answer>),
    /// It was given to another agent.
    There(String, Order),
}

/// The part of an agent that shares its record.
pub(super) struct Share {
    pub(super) coordination: Arc<dyn Coordination>,
    pub(super) duty: Duty,
    /// The place of the newest record that was taken in; 0 when there is none.
    pub(super) place: u64,
    /// The newest records.
    recent: VecDeque<Stamped>,
    /// Taken in, and not in the journal yet, because its disk is full.
    pub(super) backlog: Vec<Stamped>,
    /// When the backlog is tried again.
    pub(super) flush_at: Moment,
    /// Whether the watch has told all there is.
    pub(super) caught_up: bool,
    /// Who decides, as far as the watch has told.
    pub(super) decider: Option<AgentName>,
    pub(super) campaign: Campaign,
    /// No campaign before this.
    pub(super) not_before: Moment,
    /// The heads as they were last appended in this tenure.
    pub(super) heads: BTreeMap<WorkloadName, Head>,
    /// Signs of life that were given before the guardian was elected.
    pub(super) beats: Vec<(Beat, Moment)>,
    /// The newest sign of life that was seen.
    pub(super) echo: Option<Beat>,
    pub(super) waiting: Vec<Waiting>,
    answered: VecDeque<(String, Answer)>,
    /// What people were told is wrong with the coordinator.
    pub(super) unreached: Option<Discriminant<CoordinationError>>,
    /// Whether it is reached, for those who are asked by sentries.
    pub(super) reached: watch::Sender<bool>,
    /// Whether the journal's disk is full.
    pub(super) unwritten: bool,
    /// What the guardian was last told.
    pub(super) well: Option<bool>,
    /// How often in a row it could not be reached.
    pub(super) failures: u32,
    /// When the loop last turned.
    pub(super) turned: watch::Sender<Moment>,
    random: ChaCha8Rng,
    /// The newest testimony, for the task that says it.
    pub(super) says: watch::Sender<Option<Testimony>>,
    sequence: u64,
    said_at: Moment,
    pub(super) testify_at: Moment,
}

impl Share {
    pub(super) fn new(coordination: Arc<dyn Coordination>, agent: &AgentName, now: Moment) -> Self {
        let own = u64::from(crc32fast::hash(agent.as_str().as_bytes()));
        Self {
            coordination,
            duty: Duty::Standing,
            place: 0,
            recent: VecDeque::new(),
            backlog: Vec::new(),
            flush_at: now,
            caught_up: false,
            decider: None,
            campaign: Campaign::Idle,
            not_before: now,
            heads: BTreeMap::new(),
            beats: Vec::new(),
            echo: None,
            waiting: Vec::new(),
            answered: VecDeque::new(),
            unreached: None,
            reached: watch::channel(true).0,
            unwritten: false,
            well: None,
            failures: 0,
            turned: watch::channel(now).0,
            random: ChaCha8Rng::seed_from_u64(now.millis() ^ (own << 32)),
            says: watch::channel(None).0,
            // Rises over restarts too, as long as fewer than a thousand are said in a second.
            sequence: now.millis(),
            said_at: now,
            testify_at: now,
        }
    }

    pub(super) fn keeper(&self, clock: Clock, inbox: &Inbox) -> Keeper {
        let (coordination, turned) = (self.coordination.clone(), self.turned.subscribe());
        Keeper { coordination, clock, inbox: inbox.clone(), turned }
    }

    /// The tenure, while it is held.
    pub(super) fn held(&mut self) -> Option<&mut Held> {
        match &mut self.duty {
            Duty::Standing => None,
            Duty::Taking(held) | Duty::Deciding(held) => Some(held),
        }
    }

    pub(super) fn deciding(&self) -> Option<&Held> {
        match &self.duty {
            Duty::Deciding(held) => Some(held),
            Duty::Standing | Duty::Taking(_) => None,
        }
    }

    /// When there is something to do here at the latest.
    pub(super) fn alarm(&self) -> Moment {
        let until = match &self.duty {
            Duty::Standing => None,
            Duty::Taking(held) | Duty::Deciding(held) => Some(held.until()),
        };
        let campaign = match self.campaign {
            Campaign::At(moment) => Some(moment),
            Campaign::Idle | Campaign::UnderWay => None,
        };
        let flush = (!self.backlog.is_empty()).then_some(self.flush_at);
        [until, campaign, flush].into_iter().flatten().fold(self.testify_at, Moment::min)
    }

    /// Records were taken in.
    pub(super) fn advance(&mut self, records: &[Stamped]) {
        self.place = records.last().map_or(self.place, |newest| newest.sequence);
        self.recent.extend(records.iter().cloned());
        let extra = self.recent.len().saturating_sub(RECENT);
        self.recent.drain(..extra);
    }

    /// The record at that place, when it is at hand.
    pub(super) fn at_hand(&self, sequence: u64) -> Option<&Stamped> {
        let first = self.recent.front()?.sequence;
        self.recent.get(usize::try_from(sequence.checked_sub(first)?).ok()?)
    }

    /// Wants to decide when nobody does: after a while that is shorter for those who should.
    pub(super) fn schedule(&mut self, guardian: &Guardian, now: Moment) {
        let free = matches!(self.duty, Duty::Standing) && self.caught_up && self.decider.is_none();
        if free && self.backlog.is_empty() && self.campaign == Campaign::Idle {
            let jitter = STEP.mul_f64(0.5 * f64::from(self.random.next_u32()) / f64::from(u32::MAX));
            let delay = STEP * u32::try_from(guardian.rank()).unwrap_or(u32::MAX) + jitter;
            self.campaign = Campaign::At(now.max(self.not_before) + delay);
        }
    }

    /// Whether this trouble is news.
    pub(super) fn unwell(&mut self, error: &CoordinationError) -> bool {
        let kind = Some(std::mem::discriminant(error));
        let news = self.unreached != kind || self.well != Some(false);
        self.unreached = kind;
        self.reached.send_replace(false);
        self.well = Some(false);
        news
    }

    /// Whether it is news that nothing is wrong any more.
    pub(super) fn well_again(&mut self) -> bool {
        let well = !self.unwritten && self.unreached.is_none();
        well && self.well.replace(true) != Some(true)
    }

    /// The answer that this order was given already.
    pub(super) fn answer_to(&self, id: &str) -> Option<&Answer> {
        self.answered.iter().find(|(known, _)| known == id).map(|(_, answer)| answer)
    }

    pub(super) fn keep_answer(&mut self, id: String, answer: Answer) {
        self.answered.push_back((id, answer));
        let extra = self.answered.len().saturating_sub(ANSWERS);
        self.answered.drain(..extra);
    }

    /// Lets an order wait, unless too many do.
    pub(super) fn wait(&mut self, order: Waiting) {
        if self.waiting.len() < WAITING {
            self.waiting.push(order);
        }
    }

    /// Something was seen: what is said may have changed.
    pub(super) fn stir(&mut self) {
        self.testify_at = self.testify_at.min(self.said_at + TESTIFY_PAUSE);
    }

    /// Says what is seen, when it has changed or was not said for a while.
    pub(super) fn testify(&mut self, guardian: &Guardian, now: Moment) {
        let testimony = guardian.testimony(now, self.sequence + 1, self.echo);
        let changed = self.says.borrow().as_ref().is_none_or(|said| differs(said, &testimony));
        if changed || now.since(self.said_at) >= TESTIFY_AGAIN {
            self.sequence += 1;
            self.said_at = now;
            self.says.send_replace(Some(testimony));
        }
        self.testify_at = (self.said_at + TESTIFY_AGAIN).max(now + TESTIFY_PAUSE);
    }
}

/// Whether another guardian would decide otherwise on it: verdicts, proofs and the beat count, ages and texts do not.
fn differs(one: &Testimony, other: &Testimony) -> bool {
    let verdicts = |testimony: &Testimony| -> Vec<_> {
        let all = testimony.regions.values().flat_map(BTreeMap::values);
        all.map(|seen| (seen.verdict, seen.proven)).collect()
    };
    (one.echo, one.connected) != (other.echo, other.connected) || verdicts(one) != verdicts(other)
}
