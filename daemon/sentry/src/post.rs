//! Whether the database must be stopped now: what the switch, and the keeper behind it, decide at each turn.
//!
//! **Invariant:** pure: time and what was seen come in as arguments.
//! **Invariant:** what follows another server is never stopped.
//! **Invariant:** a lease that ran out is not made good by anything but a renewal that was sent after it was granted anew.

use std::fmt;
use std::time::Duration;

use lifeboat_core::head::Guarded;

use crate::boottime::Boottime;

/// Between two turns longer than this, everything here stood still: the process, or the machine.
pub(crate) const FREEZE: Duration = Duration::from_millis(250);

/// Why the database must be stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// Its lease ran out, so long ago.
    Lapsed(Duration),
    /// It takes writes, and there has been no lease for it for so long.
    Unleased(Duration),
    /// The keeper said so.
    Ordered(String),
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lapsed(late) => write!(f, "its write lease ran out {} ms ago", late.as_millis()),
            Self::Unleased(long) => {
                write!(f, "it takes writes, and has had no write lease for {} ms", long.as_millis())
            }
            Self::Ordered(why) => f.write_str(why),
        }
    }
}

/// What is known between two turns.
#[derive(Clone, Debug)]
pub(crate) struct Post {
    /// How long a primary that was never seen with a lease may go on.
    allowance: Duration,
    deadline: Option<Boottime>,
    /// When the renewal was sent that gave the deadline.
    sent: Boottime,
    /// Since when a confirmation is wanted: the last freeze.
    doubt: Option<Boottime>,
    unleased_since: Option<Boottime>,
    /// A lease ran out here: what runs without a new one is stopped at sight.
    lapsed: bool,
    ordered: Option<String>,
    last_turn: Option<Boottime>,
}

impl Post {
    /// Nothing is known yet; a primary without a lease may go on for `allowance`.
    pub(crate) const fn new(allowance: Duration) -> Self {
        Self {
            allowance,
            deadline: None,
            sent: Boottime::from_nanos(0),
            doubt: None,
            unleased_since: None,
            lapsed: false,
            ordered: None,
            last_turn: None,
        }
    }

    /// Takes in that the lease is good until `deadline`, by a renewal that was sent at `sent`. Says whether it was: one
    /// that is older than the newest, or was sent before a freeze, is not.
    pub(crate) fn until(&mut self, deadline: Boottime, sent: Boottime, now: Boottime) -> bool {
        if sent < self.sent || self.doubt.is_some_and(|doubt| sent < doubt) || deadline <= now {
            return false;
        }
        (self.deadline, self.sent, self.doubt) = (Some(deadline), sent, None);
        (self.unleased_since, self.lapsed, self.ordered) = (None, false, None);
        true
    }

    /// Takes in that the database must not go on.
    pub(crate) fn order(&mut self, why: String) {
        self.deadline = None;
        self.lapsed = true;
        self.ordered = Some(why);
    }

    /// Until when the lease is good, as far as this post knows.
    pub(crate) const fn deadline(&self) -> Option<Boottime> {
        self.deadline
    }

    /// Whether a renewal sent from now on is wanted, because everything stood still.
    pub(crate) const fn doubts(&self) -> bool {
        self.doubt.is_some()
    }

    /// What `now` and what the database does mean: why it must be stopped, if it must. To be asked every 10 ms.
    pub(crate) fn turn(&mut self, now: Boottime, seen: Guarded) -> Option<Cause> {
        if self.last_turn.is_some_and(|last| now.since(last) > FREEZE) {
            self.doubt = Some(now);
        }
        self.last_turn = Some(now);
        let over = self.deadline.filter(|deadline| now >= *deadline);
        match seen {
            Guarded::Following => {
                // It has become a standby: what its time as a primary ended with is of no account any more.
                (self.unleased_since, self.lapsed, self.ordered) = (None, false, None);
                if over.is_some() {
                    self.deadline = None;
                }
                None
            }
            Guarded::Stopped => {
                self.unleased_since = None;
                self.lapsed |= over.is_some();
                None
            }
            Guarded::Writing => match (self.deadline, over) {
                (_, Some(deadline)) => {
                    self.lapsed = true;
                    Some(Cause::Lapsed(now.since(deadline)))
                }
                (Some(_), None) => {
                    self.unleased_since = None;
                    None
                }
                (None, None) => self.without_lease(now),
            },
        }
    }

    fn without_lease(&mut self, now: Boottime) -> Option<Cause> {
        let since = *self.unleased_since.get_or_insert(now);
        if let Some(why) = &self.ordered {
            return Some(Cause::Ordered(why.clone()));
        }
        let long = now.since(since);
        (self.lapsed || long >= self.allowance).then_some(Cause::Unleased(long))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Boottime {
        Boottime::from_nanos(millis * 1_000_000)
    }

    fn post() -> Post {
        Post::new(Duration::from_secs(5))
    }

    #[test]
    fn a_primary_goes_on_while_its_lease_lasts_and_no_longer() {
        let mut post = post();
        assert!(post.until(at(1_000), at(0), at(10)));
        assert_eq!(post.turn(at(999), Guarded::Writing), None);
        assert_eq!(post.turn(at(1_000), Guarded::Writing), Some(Cause::Lapsed(Duration::ZERO)));
        assert!(post.until(at(3_000), at(2_000), at(2_010)), "a lease that is granted anew counts");
        assert_eq!(post.turn(at(2_020), Guarded::Writing), None);
    }

    #[test]
    fn a_standby_is_never_stopped() {
        let mut post = post();
        assert!(post.until(at(1_000), at(0), at(10)));
        assert_eq!(post.turn(at(5_000), Guarded::Following), None);
        post.order("enough".to_owned());
        assert_eq!(post.turn(at(5_010), Guarded::Following), None);
        assert_eq!(post.turn(at(9_000_000), Guarded::Following), None);
    }

    #[test]
    fn one_that_is_promoted_has_the_allowance_again() {
        let mut post = post();
        post.order("enough".to_owned());
        assert!(post.turn(at(0), Guarded::Writing).is_some());
        assert_eq!(post.turn(at(10), Guarded::Following), None);
        assert_eq!(post.turn(at(20), Guarded::Writing), None);
        assert_eq!(post.turn(at(5_019), Guarded::Writing), None);
        assert!(matches!(post.turn(at(5_020), Guarded::Writing), Some(Cause::Unleased(_))));
    }

    #[test]
    fn one_that_is_started_again_after_its_lease_ran_out_has_none() {
        let mut post = post();
        assert!(post.until(at(1_000), at(0), at(10)));
        assert!(post.turn(at(1_001), Guarded::Writing).is_some());
        assert_eq!(post.turn(at(1_100), Guarded::Stopped), None);
        assert!(post.turn(at(60_000), Guarded::Writing).is_some());
        // The same when it was down by itself when the lease ran out.
        let mut post = self::post();
        assert!(post.until(at(1_000), at(0), at(10)));
        assert_eq!(post.turn(at(500), Guarded::Stopped), None);
        assert_eq!(post.turn(at(1_500), Guarded::Stopped), None);
        assert!(post.turn(at(1_510), Guarded::Writing).is_some());
    }

    #[test]
    fn after_a_freeze_only_a_renewal_sent_since_counts() {
        let mut post = post();
        assert!(post.until(at(10_000), at(0), at(10)));
        assert_eq!(post.turn(at(100), Guarded::Writing), None);
        assert_eq!(post.turn(at(340), Guarded::Writing), None);
        assert!(!post.doubts());
        assert_eq!(post.turn(at(600), Guarded::Writing), None, "the deadline is ahead");
        assert!(post.doubts());
        assert!(!post.until(at(12_000), at(599), at(610)), "sent before everything stood still");
        assert!(post.until(at(12_000), at(601), at(620)));
        assert!(!post.doubts());
        assert_eq!(post.turn(at(630), Guarded::Writing), None);
        // Past the deadline it is stopped at the first turn, whatever waits to be read.
        assert!(post.turn(at(20_000), Guarded::Writing).is_some());
    }

    #[test]
    fn an_older_word_does_not_replace_a_newer_one() {
        let mut post = post();
        assert!(post.until(at(10_000), at(100), at(110)));
        assert!(!post.until(at(30_000), at(99), at(120)));
        assert!(!post.until(at(119), at(115), at(120)), "nor does one that is over");
        assert_eq!(post.deadline(), Some(at(10_000)));
    }
}
