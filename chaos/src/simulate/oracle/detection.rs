//! Whether a real loss is acted on in time.
//!
//! The bound is computed from the policy: what it takes at most until the old tenure is over and the next guardian holds
//! one, until the silence has been long enough and its last look ended, until the witnesses were asked after the trouble
//! began and the next look confirmed it, and until the others have said so.
//!
//! **Invariant:** the time counts only while everything that is needed is truly there: it begins anew otherwise.

use lifeboat_core::plan::Kind;

use super::Facts;
use super::book::Book;
use crate::simulate::setting::{FRESHNESS, INTERVAL, QUORUM, Setting, TENURE, TIMEOUT};

/// An agent's turn, an asking of the witnesses, a saying of what is seen, and an append that was not answered.
const TURN: u64 = 1_050;
const ASKING: u64 = 3 * TURN;
const SAYING: u64 = 2 * TURN;
const APPEND: u64 = 2_000;

/// A restarted or newly elected guardian must see everything anew.
const ANEW: u64 = FRESHNESS;

/// The most from when everything is there until a run is open, besides the silence.
const BOUND: u64 =
    TENURE + 3 * TURN + APPEND + 2 * (INTERVAL + TIMEOUT) + ASKING + INTERVAL + TIMEOUT + SAYING + ANEW;

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    Nothing,
    InTime,
    TooLate(String),
}

/// Since when a loss waits to be acted on.
#[derive(Clone, Debug)]
pub(crate) struct Detection {
    since: Option<u64>,
    bound: u64,
    cooldown: u64,
    automatic: bool,
}

impl Detection {
    pub(crate) fn new(setting: &Setting) -> Self {
        let cooldown = u64::try_from(setting.cooldown.as_millis()).unwrap_or_default();
        let silence = u64::try_from(setting.setup.silence.as_millis()).unwrap_or_default();
        Self { since: None, bound: BOUND + silence, cooldown, automatic: setting.setup.automatic }
    }

    pub(crate) fn watch(&mut self, facts: &Facts, book: &Book) -> Seen {
        if let Some((_, plan)) = &book.open {
            let since = self.since.take();
            let acted = plan.kind == Kind::Failover && since.is_some();
            return if acted { Seen::InTime } else { Seen::Nothing };
        }
        if !self.due(facts, book) {
            self.since = None;
            return Seen::Nothing;
        }
        let since = *self.since.get_or_insert(facts.now);
        if facts.now - since <= self.bound {
            return Seen::Nothing;
        }
        self.since = None;
        Seen::TooLate(format!("a real loss was not acted on within {} ms", self.bound))
    }

    /// Whether the primary is truly lost, enough vantages are there to see it, and no gate is shut.
    fn due(&self, facts: &Facts, book: &Book) -> bool {
        let (r, t) = (book.primary, 1 - book.primary);
        let free = !book.paused && !facts.failing && !book.stranded && book.left.is_none() && self.automatic;
        let held_off = book.ended_at.is_some_and(|at| {
            let longer = if book.fruitless > 0 { FRESHNESS << book.fruitless.min(8) } else { 0 };
            facts.skewed || facts.now < at + self.cooldown.max(longer) + 1_000
        });
        if !free || held_off || facts.primaries[t] {
            return false;
        }
        // Everyone who might decide sees that the primary does not serve, and that the target is there.
        let may_decide = (0..3).filter(|a| facts.up[*a] && facts.coordinated[*a]);
        let all_fit = may_decide.clone().all(|a| {
            let lost = !facts.sees[a][r] || !facts.serves[r];
            lost && facts.sees[a][t] && facts.outside[a] && facts.lies[a].is_none_or(|about| about == r)
        });
        let honest = may_decide.filter(|a| facts.lies[*a].is_none());
        let votes = honest.clone().count();
        all_fit && votes >= QUORUM && honest.clone().any(|a| a != r) && facts.current
    }
}
