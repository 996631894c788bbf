//! Proving that a write lease has run out, without a word from its region.
//!
//! A sentry counts its lease from before it sent the renewal; here it is counted from when the renewal was seen, which is
//! later. What remains is that the two clocks run at different speeds, and that stopping takes the sentry a moment.
//!
//! A database that was promoted while its sentry heard nothing may go on for the length of a lease without one: so no lease
//! of a region is over before as long has passed since the head was seen to name that region.
//!
//! **Invariant:** a renewal is seen to change at a moment that is not before it was made: when it is not known how long it has
//! been there, that is now.
//! **Invariant:** the proof rests on a read of one revision that came after the wait: nothing was renewed meanwhile, and
//! nothing can be any more.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use lifeboat_core::head::Guarded;
use lifeboat_core::outcome::FenceProof;
use lifeboat_core::{Fault, FaultKind, Moment, RegionName, WorkloadName};
use lifeboat_engine::ports::{Call, CoordinationError};

use super::trouble::Trouble;
use super::writes::{Standing, Written, read_head, standing};
use super::{Etcd, locked};

/// One part in ten of a length is what two clocks may differ over it. Crystals differ by less than one in 10,000 and time
/// synchronisation slews by at most one in 2,000 (ntpd) or one in 12 (chrony's default, `maxslewrate`); a machine whose
/// clock runs faster than that apart from ours has to be fenced another way.
const DRIFT: u32 = 10;

/// What the sentry may take to stop the database once its time has come: it is done before the lease is over by its own
/// clock, and this is for a machine that is too busy to run it at once.
const STOPPING: Duration = Duration::from_secs(1);

/// The most write leases that are kept in mind.
const MOST: usize = 1024;

/// How soon etcd is asked again when it did not answer.
const AGAIN: Duration = Duration::from_millis(200);

/// How long after a renewal was seen its lease is over for sure.
pub fn expiry_after(length: Duration) -> Duration {
    length + length / DRIFT + STOPPING
}

/// What was seen of the write leases.
#[derive(Default)]
pub(super) struct Renewals(Mutex<BTreeMap<(WorkloadName, RegionName), Seen>>, Holders);

/// Which region each head names as the one that may take writes, and when it was first seen to.
type Holders = Mutex<BTreeMap<WorkloadName, (RegionName, Moment)>>;

/// What was seen of one.
#[derive(Clone)]
pub(super) struct Seen {
    /// The revision and the value when it last changed in any way.
    revision: i64,
    written: Written,
    /// When the newest renewal was seen first.
    changed: Moment,
    /// When every renewal that was seen is over.
    over: Moment,
    /// Until when what the sentry says stands.
    pub(super) fresh: Moment,
}

impl Seen {
    pub(super) fn says(&self) -> Guarded {
        self.written.says
    }
}

impl Renewals {
    /// Takes in what is there, as it was read or told of just before `now`.
    pub(super) fn note(
        &self,
        name: (WorkloadName, RegionName),
        revision: i64,
        value: &[u8],
        now: Moment,
    ) -> Result<Seen, String> {
        let written = Written::read(value)?;
        let mut all = locked(&self.0);
        if all.len() >= MOST && !all.contains_key(&name) {
            return Err(format!("more than {MOST} write leases"));
        }
        let seen = match all.remove(&name) {
            Some(seen) if (seen.revision, &seen.written) == (revision, &written) => seen,
            Some(seen)
                if (seen.written.renewals, &seen.written.word) == (written.renewals, &written.word) =>
            {
                Seen { revision, fresh: now + written.stands, written, ..seen }
            }
            before => {
                // A renewal that was shorter than the one before does not take that one's time away.
                let over = (now + expiry_after(written.length)).max(before.map_or(now, |seen| seen.over));
                Seen { revision, changed: now, over, fresh: now + written.stands, written }
            }
        };
        all.insert(name, seen.clone());
        Ok(seen)
    }

    /// The length of the newest renewal that was seen; none when none was.
    pub(super) fn length(&self, workload: &WorkloadName, region: &RegionName) -> Option<Duration> {
        let all = locked(&self.0);
        let seen = all.get(&(workload.clone(), region.clone()))?;
        (seen.written.renewals > 0).then_some(seen.written.length)
    }

    /// Takes in whom a head names, as it was read or told of just before `now`; since when it has named that region.
    pub(super) fn note_holder(&self, workload: &WorkloadName, holder: &RegionName, now: Moment) -> Moment {
        let mut all = locked(&self.1);
        match all.get(workload) {
            Some((known, since)) if known == holder => *since,
            _ => {
                all.insert(workload.clone(), (holder.clone(), now));
                now
            }
        }
    }
}

impl Etcd {
    pub(super) async fn prove_expired(
        &self,
        call: &Call,
        workload: &WorkloadName,
        region: &RegionName,
    ) -> Result<FenceProof, Fault> {
        let end = self.clock.now() + call.limit;
        loop {
            let looked = self.look_for_expiry(call, workload, region).await;
            let now = self.clock.now();
            let (until, fault) = match looked {
                Ok((seen, over)) if now >= over => {
                    let waited = now.since(seen.changed);
                    return Ok(FenceProof::Expired { lease: seen.written.length, waited });
                }
                Ok((_, over)) => {
                    let left = over.since(now).as_millis();
                    let detail = format!("the write lease may still be held for {left} ms, margins included");
                    (over, Fault::new(FaultKind::Unclear, detail))
                }
                Err(fault) if fault.kind == FaultKind::Unreachable => (now + AGAIN, fault),
                Err(fault) => return Err(fault.in_region(region)),
            };
            if now >= end {
                return Err(fault.in_region(region));
            }
            self.clock.sleep_until(until.min(end)).await;
        }
    }

    /// What was seen of the lease, and when it is over, if it cannot be renewed any more.
    async fn look_for_expiry(
        &self,
        call: &Call,
        workload: &WorkloadName,
        region: &RegionName,
    ) -> Result<(Seen, Moment), Fault> {
        let [head, write] = self.leases.look(workload, region).await.map_err(fault)?;
        let refused = |detail: String| Fault::new(FaultKind::Refused, detail);
        let Some(write) = write else {
            return Err(refused("no sentry has ever held a write lease there".to_owned()));
        };
        let name = (workload.clone(), region.clone());
        let seen = self.renewals.note(name, write.mod_revision(), write.value(), self.clock.now());
        let seen = seen.map_err(|why| Fault::new(FaultKind::Unclear, format!("the write lease: {why}")))?;
        if seen.written.renewals == 0 {
            return Err(refused("no sentry has ever held a write lease there".to_owned()));
        }
        let head = head.ok_or_else(|| Fault::new(FaultKind::Unclear, "the workload has no head"))?;
        let head = read_head(head.value());
        let head =
            head.map_err(|why| Fault::new(FaultKind::Unclear, format!("the head of {workload}: {why}")))?;
        if head.epoch > call.epoch {
            return Err(Fault::new(FaultKind::Stale, format!("the head is of epoch {}", head.epoch)));
        }
        if standing(&head, region) != Standing::None {
            return Err(refused(format!("{region} may renew its write lease: it is not being closed")));
        }
        let since = self.renewals.note_holder(workload, &head.holder, self.clock.now());
        let named = (head.holder == *region).then(|| since + expiry_after(seen.written.length));
        // What was promised ends on the sentry's clock as well.
        let promised = self.promises.until(workload, region);
        let promised = promised.map(|until| until + seen.written.length / DRIFT + STOPPING);
        let over = [promised, named].into_iter().flatten().fold(seen.over, Moment::max);
        Ok((seen, over))
    }
}

fn fault(trouble: Trouble) -> Fault {
    let kind = match trouble.clone().of_read() {
        CoordinationError::Damaged(_) => FaultKind::Unclear,
        CoordinationError::Denied(_) => FaultKind::Refused,
        _ => FaultKind::Unreachable,
    };
    Fault::new(kind, trouble.of_read().to_string())
}
