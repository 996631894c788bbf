//! The shared record: appended in one transaction, read back in pages of one revision.
//!
//! **Invariant:** a batch is put only by the holder of the tenure and directly after the newest record; both are compared in
//! the transaction, which also puts the heads.
//! **Invariant:** what is read is without gaps, and ends where the newest record is said to be.

use std::collections::BTreeMap;
use std::vec::IntoIter;

use etcd_client::{
    Compare, CompareOp, GetOptions, KeyValue, SortOrder, SortTarget, Txn, TxnOp, TxnOpResponse, TxnResponse,
};
use lifeboat_core::head::Head;
use lifeboat_core::{Stamped, WorkloadName};
use lifeboat_engine::ports::{CoordinationError, Tenure};

use super::members::Members;
use super::trouble::Trouble;
use super::{Etcd, batch};

/// How many keys are read at once, if they are not too large.
const PAGE: i64 = 512;

/// The most heads in one transaction: etcd takes 128 operations in one (`--max-txn-ops`), and two are the record's.
const HEADS: usize = 120;

impl Etcd {
    pub(super) async fn put_records(
        &self,
        tenure: Tenure,
        records: &[Stamped],
        heads: &BTreeMap<WorkloadName, Head>,
    ) -> Result<(), CoordinationError> {
        let held = self.held(tenure)?;
        let mut when = self.guard(held);
        let mut then = Vec::new();
        let mut value = Vec::new();
        let first = records.first().map_or(0, |record| record.sequence);
        if let Some(last) = records.last() {
            value = batch::encode(records).map_err(|error| CoordinationError::Damaged(error.to_string()))?;
            // What comes after nothing is compared with nothing.
            when.push(match first.saturating_sub(1) {
                0 => Compare::create_revision(self.keys.newest(), CompareOp::Equal, 0),
                before => Compare::value(self.keys.newest(), CompareOp::Equal, before.to_string()),
            });
            then.push(TxnOp::put(self.keys.batch(first), value.clone(), None));
            then.push(TxnOp::put(self.keys.newest(), last.sequence.to_string(), None));
        }
        if value.len() > batch::MOST || heads.len() > HEADS {
            let (bytes, heads) = (value.len(), heads.len());
            return Err(CoordinationError::Full(format!(
                "one decision of {bytes} bytes and {heads} heads is more than one transaction takes"
            )));
        }
        for (workload, head) in heads {
            let head =
                serde_json::to_vec(head).map_err(|error| CoordinationError::Damaged(error.to_string()))?;
            then.push(TxnOp::put(self.keys.head(workload), head, None));
        }
        let txn = Txn::new().when(when).and_then(then).or_else([
            TxnOp::get(self.keys.newest(), None),
            TxnOp::get(self.keys.batch(first), None),
            TxnOp::get(self.keys.guardian(), None),
        ]);
        let answer = match self.members.transact(txn).await {
            Ok(answer) => answer,
            Err(full @ (Trouble::Full(_) | Trouble::NoRoom(_))) if !records.is_empty() => {
                return self.full(full, first, &value).await;
            }
            Err(trouble) => return Err(trouble.of_write()),
        };
        if answer.what.succeeded() {
            return Ok(());
        }
        let [newest, there, guardian] = gets(&answer.what);
        // An attempt of this call that got no answer was taken in after all.
        if answer.twice && !records.is_empty() && there.is_some_and(|there| there.value() == value) {
            return Ok(());
        }
        let found = newest.map_or(Ok(0), |kv| place(kv.value()))?;
        let known = first.saturating_sub(1);
        if found < known {
            return Err(CoordinationError::Rewound { known, found });
        }
        if guardian.is_some_and(|kv| held.is(&kv)) {
            return Err(CoordinationError::Deposed(format!(
                "record {first} is there already, and is another one"
            )));
        }
        Err(self.deposed(tenure))
    }

    /// What it means that an append was answered with having no room: the write that uses up the space is taken in, and
    /// answered like those after it (etcd, `quotaApplierV3.Txn`). So it is looked for.
    async fn full(&self, full: Trouble, first: u64, value: &[u8]) -> Result<(), CoordinationError> {
        match self.members.get(self.keys.batch(first), GetOptions::new()).await {
            Ok(there) if there.what.kvs().first().is_some_and(|kv| kv.value() == value) => Ok(()),
            Ok(_) => Err(full.of_write()),
            Err(_) => {
                Err(CoordinationError::Unclear(format!("record {first} may have been the last to find room")))
            }
        }
    }

    pub(super) async fn records_after(&self, after: u64) -> Result<Vec<Stamped>, CoordinationError> {
        let (revision, newest, _) = self.newest().await?;
        let mut batches = self.batches(after, revision, newest).await?;
        let mut records = Vec::new();
        while let Some(page) = batches.page().await? {
            records.extend(page);
        }
        Ok(records)
    }

    /// The revision it is, the place of the newest record, and the member that said so.
    pub(super) async fn newest(&self) -> Result<(i64, u64, usize), CoordinationError> {
        let told = self.members.get(self.keys.newest(), GetOptions::new()).await.map_err(Trouble::of_read)?;
        let revision = told.what.header().map(etcd_client::ResponseHeader::revision);
        let revision =
            revision.ok_or_else(|| CoordinationError::Damaged("an answer without a revision".to_owned()))?;
        let newest = told.what.kvs().first().map_or(Ok(0), |kv| place(kv.value()))?;
        Ok((revision, newest, told.member))
    }

    /// The records after that place, as they were at a revision when the newest was at `newest`.
    pub(super) async fn batches(
        &self,
        after: u64,
        revision: i64,
        newest: u64,
    ) -> Result<Batches<'_>, CoordinationError> {
        if newest < after {
            return Err(CoordinationError::Rewound { known: after, found: newest });
        }
        // The batch that the next record is in begins with it, or before it.
        let mut until = self.keys.batch(after.saturating_add(1)).into_bytes();
        until.push(0);
        let options = GetOptions::new()
            .with_range(until)
            .with_sort(SortTarget::Key, SortOrder::Descend)
            .with_limit(1)
            .with_keys_only()
            .with_revision(revision);
        let found = self.members.get(self.keys.batches(), options).await.map_err(Trouble::of_read)?;
        let mut pages = self.pages(&self.keys.batches(), revision);
        if let Some(kv) = found.what.kvs().first() {
            pages.from = kv.key().to_vec();
        }
        Ok(Batches { etcd: self, pages, next: after.saturating_add(1), newest })
    }

    /// All keys with that prefix, which ends with `/`, as they were at a revision.
    pub(super) fn pages(&self, prefix: &str, revision: i64) -> Pages<'_> {
        let mut to = prefix.trim_end_matches('/').as_bytes().to_vec();
        to.push(b'/' + 1);
        Pages {
            members: &self.members,
            from: prefix.as_bytes().to_vec(),
            to,
            revision,
            size: PAGE,
            done: false,
        }
    }
}

/// The first key of each of the operations of a transaction; none of one that reads nothing.
pub(super) fn gets<const N: usize>(answer: &TxnResponse) -> [Option<KeyValue>; N] {
    let mut keys = answer.op_responses().into_iter().map(|answer| match answer {
        TxnOpResponse::Get(get) => get.kvs().first().cloned(),
        _ => None,
    });
    std::array::from_fn(|_| keys.next().flatten())
}

/// A place in the record, as it is written in `newest`.
pub(super) fn place(value: &[u8]) -> Result<u64, CoordinationError> {
    let place = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
    place.ok_or_else(|| CoordinationError::Damaged("the place of the newest record is no number".to_owned()))
}

/// Keys and values of one revision, some at a time.
pub(super) struct Pages<'a> {
    members: &'a Members,
    from: Vec<u8>,
    to: Vec<u8>,
    revision: i64,
    size: i64,
    done: bool,
}

impl Pages<'_> {
    /// The next ones; none when there are no more.
    pub(super) async fn page(&mut self) -> Result<Option<IntoIter<KeyValue>>, CoordinationError> {
        while !self.done {
            let options = GetOptions::new()
                .with_range(self.to.clone())
                .with_revision(self.revision)
                .with_sort(SortTarget::Key, SortOrder::Ascend)
                .with_limit(self.size);
            match self.members.get(self.from.clone(), options).await {
                Ok(mut told) => {
                    self.done = !told.what.more();
                    let page = told.what.take_kvs();
                    if let Some(last) = page.last() {
                        self.from = last.key().to_vec();
                        self.from.push(0);
                    }
                    return Ok(Some(page.into_iter()));
                }
                // More than is taken in at once, or compacted: one alone tells.
                Err(Trouble::Beyond(_)) if self.size > 1 => self.size /= 8,
                Err(trouble) => return Err(trouble.of_read()),
            }
        }
        Ok(None)
    }
}

/// Records, some at a time.
pub(super) struct Batches<'a> {
    etcd: &'a Etcd,
    pages: Pages<'a>,
    next: u64,
    newest: u64,
}

impl Batches<'_> {
    /// The next ones; none when there are no more.
    pub(super) async fn page(&mut self) -> Result<Option<Vec<Stamped>>, CoordinationError> {
        let Some(page) = self.pages.page().await? else {
            if self.next.checked_sub(1) != Some(self.newest) {
                return Err(CoordinationError::Damaged(format!(
                    "it should end at {}, and record {} is missing",
                    self.newest, self.next
                )));
            }
            return Ok(None);
        };
        let mut records = Vec::new();
        for kv in page {
            let super::keys::Place::Batch(first) = self.etcd.keys.place(kv.key()) else {
                return Err(CoordinationError::Damaged("a record without a place".to_owned()));
            };
            self.has_come_to(first)?;
            for record in batch::decode(first, kv.value()).map_err(CoordinationError::Damaged)? {
                if record.sequence < self.next {
                    continue;
                }
                self.has_come_to(record.sequence)?;
                self.next += 1;
                records.push(record);
            }
        }
        Ok(Some(records))
    }

    fn has_come_to(&self, place: u64) -> Result<(), CoordinationError> {
        if place <= self.next {
            return Ok(());
        }
        Err(CoordinationError::Damaged(format!("record {} is missing; the next is {place}", self.next)))
    }
}
