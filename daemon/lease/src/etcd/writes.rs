//! The write leases: renewed by the sentries, against the head.
//!
//! A renewal compares the head's value, not its revision: what the value says is what the lease depends on, and a revision
//! can come again in an etcd that was restored. It compares the lease's own key as well, so that an attempt that comes late
//! changes nothing.
//!
//! What a head lets a sentry leave alone for the length of a lease without holding it (its region comes, or is tended) is
//! counted like a lease: nobody may take it for over sooner.
//!
//! **Invariant:** a lease is renewed only while the head, in the same transaction, says that this region holds it, comes
//! to, or is tended.
//! **Invariant:** the length that is written is never shorter than what a sentry may stand on by a renewal before it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use etcd_client::{Compare, CompareOp, KeyValue, Txn, TxnOp};
use lifeboat_core::head::{Guarded, Head};
use lifeboat_core::{RegionName, WorkloadName, time};
use lifeboat_engine::ports::{CoordinationError, Renewal, WriteLeases};
use serde::{Deserialize, Serialize};

use super::keys::Keys;
use super::members::Members;
use super::trouble::Trouble;
use super::{EtcdOptions, locked, record};
use crate::seal::base64;

/// The most bytes of what a sentry writes, or of a head, that are read.
const MOST: usize = 16 * 1024;

/// How often a renewal begins again because the head, or what the sentry itself wrote, changed meanwhile.
const ROUNDS: usize = 4;

/// What a sentry writes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Written {
    /// How often the lease was renewed; zero when it never was.
    pub(super) renewals: u64,
    /// A word of the newest renewal, which no other one has.
    pub(super) word: String,
    /// The length of the newest renewal, in milliseconds.
    #[serde(with = "time::millis")]
    pub(super) length: Duration,
    /// What the sentry says of the database.
    pub(super) says: Guarded,
    /// How long that stands, in milliseconds.
    #[serde(with = "time::millis")]
    pub(super) stands: Duration,
}

impl Written {
    pub(super) fn read(value: &[u8]) -> Result<Self, String> {
        read(value)
    }
}

/// Reads a head.
pub(super) fn read_head(value: &[u8]) -> Result<Head, String> {
    read(value)
}

fn read<'a, T: Deserialize<'a>>(value: &'a [u8]) -> Result<T, String> {
    if value.len() > MOST {
        return Err(format!("{} bytes; at most {MOST} are read", value.len()));
    }
    serde_json::from_slice(value).map_err(|error| error.to_string())
}

/// The head and the write key, as they were when they were last seen.
#[derive(Clone, Default)]
struct Kept {
    head: Option<KeyValue>,
    write: Option<KeyValue>,
}

/// What a head lets the sentry of a region stand on for the length of a lease.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// The lease itself.
    Held,
    /// Its region comes, or is tended.
    Spared,
    /// Nothing.
    None,
}

/// What that head lets the sentry of that region stand on.
pub(super) fn standing(head: &Head, region: &RegionName) -> Standing {
    if head.holder == *region && !head.closing {
        Standing::Held
    } else if [&head.coming, &head.tended].contains(&&Some(region.clone())) {
        Standing::Spared
    } else {
        Standing::None
    }
}

/// The write leases, for a sentry that needs nothing else.
pub struct EtcdLeases {
    pub(super) keys: Keys,
    pub(super) members: Arc<Members>,
    kept: Mutex<BTreeMap<(WorkloadName, RegionName), Kept>>,
    /// The length of the newest renewal that was answered here: before it, another process may have stood on a longer one.
    answered: Mutex<BTreeMap<(WorkloadName, RegionName), Duration>>,
}

impl EtcdLeases {
    /// Connects to nothing yet. Of `options` the tenure's length is that of the write lease here: a member is waited for a
    /// quarter of it at most. A renewal is one call when nothing changed since the last, and two otherwise.
    pub fn new(options: EtcdOptions) -> Self {
        Self {
            keys: Keys::new(&options.name),
            members: Arc::new(Members::new(options)),
            kept: Mutex::default(),
            answered: Mutex::default(),
        }
    }

    /// The head and the write key, at one revision.
    pub(super) async fn look(
        &self,
        workload: &WorkloadName,
        region: &RegionName,
    ) -> Result<[Option<KeyValue>; 2], Trouble> {
        let both =
            [TxnOp::get(self.keys.head(workload), None), TxnOp::get(self.keys.write(workload, region), None)];
        let told = self.members.transact(Txn::new().and_then(both)).await?;
        Ok(record::gets(&told.what))
    }

    /// Puts what the sentry says, and the renewal if the head allows it; none when something changed meanwhile, which is
    /// then noted in `kept`.
    async fn put(
        &self,
        workload: &WorkloadName,
        region: &RegionName,
        kept: &mut Kept,
        length: Duration,
        says: Guarded,
    ) -> Result<Option<Renewal>, CoordinationError> {
        let damaged = |why| CoordinationError::Damaged(format!("the head of {workload}: {why}"));
        let head = kept.head.as_ref().map(|kv| read_head(kv.value())).transpose().map_err(damaged)?;
        let standing = head.as_ref().map_or(Standing::None, |head| standing(head, region));
        let renewal = match head {
            None => Renewal::Unknown,
            Some(head) if standing == Standing::Held => Renewal::Held { epoch: head.epoch },
            Some(head) => Renewal::NotOurs(head),
        };
        // What cannot be understood was no renewal of ours.
        let before = kept.write.as_ref().and_then(|kv| Written::read(kv.value()).ok());
        let before =
            before.unwrap_or(Written { renewals: 0, word: String::new(), length, says, stands: length });
        let mut written = Written { says, stands: length, ..before };
        let (head, write) = (self.keys.head(workload), self.keys.write(workload, region));
        let mut when = vec![Compare::mod_revision(
            write.as_str(),
            CompareOp::Equal,
            kept.write.as_ref().map_or(0, KeyValue::mod_revision),
        )];
        let name = (workload.clone(), region.clone());
        if let (Standing::Held | Standing::Spared, Some(kv)) = (standing, &kept.head) {
            when.push(Compare::value(head.as_str(), CompareOp::Equal, kv.value()));
            // A renewal that gets no answer leaves the sentry on the one before, which is to be counted as long as it was.
            let before = locked(&self.answered).get(&name).copied().unwrap_or(written.length);
            written.length = length.max(before);
            written.renewals += 1;
            written.word = base64::word()
                .ok_or_else(|| CoordinationError::Unreachable("no random numbers".to_owned()))?;
        }
        let value =
            serde_json::to_vec(&written).map_err(|error| CoordinationError::Damaged(error.to_string()))?;
        let both = || [TxnOp::get(head.as_str(), None), TxnOp::get(write.as_str(), None)];
        let [get_head, get_write] = both();
        let txn = Txn::new()
            .when(when)
            .and_then([TxnOp::put(write.as_str(), value.clone(), None), get_head, get_write])
            .or_else(both());
        let told = self.members.transact(txn).await.map_err(Trouble::of_write)?;
        let [first, second, third] = record::gets(&told.what);
        if told.what.succeeded() {
            *kept = Kept { head: second, write: third };
            return Ok(Some(renewal));
        }
        *kept = Kept { head: first, write: second };
        // An attempt of this call that got no answer was taken in after all.
        let ours = kept.write.as_ref().is_some_and(|kv| kv.value() == value);
        Ok((told.twice && ours).then_some(renewal))
    }
}

#[async_trait]
impl WriteLeases for EtcdLeases {
    async fn renew(
        &self,
        workload: &WorkloadName,
        region: &RegionName,
        length: Duration,
        says: Guarded,
    ) -> Result<Renewal, CoordinationError> {
        let name = (workload.clone(), region.clone());
        let kept = locked(&self.kept).remove(&name);
        let mut kept = match kept {
            Some(kept) => kept,
            None => {
                let [head, write] = self.look(workload, region).await.map_err(Trouble::of_read)?;
                Kept { head, write }
            }
        };
        for _ in 0..ROUNDS {
            let known = kept.head.clone();
            let renewal = self.put(workload, region, &mut kept, length, says).await?;
            // That the lease is not ours is said of the newest head only.
            let stale = !matches!(renewal, Some(Renewal::Held { .. }))
                && known.as_ref().map(KeyValue::value) != kept.head.as_ref().map(KeyValue::value);
            if let Some(renewal) = renewal.filter(|_| !stale) {
                let stands = match &renewal {
                    Renewal::Held { .. } => true,
                    Renewal::NotOurs(head) => standing(head, region) == Standing::Spared,
                    Renewal::Unknown => false,
                };
                if stands {
                    locked(&self.answered).insert(name.clone(), length);
                }
                locked(&self.kept).insert(name, kept);
                return Ok(renewal);
            }
        }
        Err(CoordinationError::Unreachable(format!("the head of {workload} changes all the time")))
    }
}
