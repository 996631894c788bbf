//! The record: appended to by one guarded update of its end, and read back whole.
//!
//! **Invariant:** a record is appended only while the end names this agent's term, only as the next one, and only to the end
//! as it was read: one update, which the API server takes or does not.
//! **Invariant:** after an append without an answer nothing is read or appended before that append is either there or
//! impossible.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use k8s_openapi::api::core::v1::ConfigMap;
use lifeboat_core::head::Head;
use lifeboat_core::{Stamped, WorkloadName};
use lifeboat_engine::ports::{CoordinationError, Tenure};

use super::Kubernetes;
use super::access::Written;
use super::objects::Part;
use super::tail::Tail;

/// How large the end may become, in bytes, before its records are moved into a part of their own: each append sends all of it.
pub(super) const PART_SIZE: usize = 128 * 1024;

/// How large one object may be. Kubernetes takes a ConfigMap of 1 MiB, and what is around the records must fit too.
const OBJECT_SIZE: usize = 960 * 1024;

/// How often a write is tried again after the object was found changed by somebody who does not matter (a label, say).
const ATTEMPTS: usize = 4;

/// How often a term is written again while a deposed guardian, which does not know it yet, appends: each time one of the two
/// is first, and once it is the term, the other is refused.
const CLAIMS: usize = 100;

/// The end of the record as it was last read or written, to write on.
#[derive(Default)]
pub(super) struct End {
    /// The object, and what it says; none when it must be read again.
    pub(super) known: Option<(ConfigMap, Tail)>,
    /// Whether an append had no answer, and it is not known yet what became of it.
    pub(super) unclear: bool,
}

impl Kubernetes {
    /// The end of the record as it is now.
    pub(super) async fn tail(&self) -> Result<Option<(ConfigMap, Tail)>, CoordinationError> {
        let Some(object) = self.access.get::<ConfigMap>(&self.names.record()).await? else { return Ok(None) };
        let tail = Tail::read(&object)?;
        Ok(Some((object, tail)))
    }

    /// The end of the record, after it is made sure that it does not end before what this agent knows of.
    pub(super) async fn tail_not_rewound(&self) -> Result<Option<(ConfigMap, Tail)>, CoordinationError> {
        let known = self.newest.load(Ordering::SeqCst);
        let read = self.tail().await?;
        let found = read.as_ref().map_or(0, |(_, tail)| tail.newest());
        match found < known {
            true => Err(CoordinationError::Rewound { known, found }),
            false => Ok(read),
        }
    }

    /// Writes the term into the end of the record, so that nobody with an older one can append any more. False when
    /// somebody with a newer one, or with the same, was here before.
    pub(super) async fn claim(&self, term: u64) -> Result<bool, CoordinationError> {
        let mut end = self.end.lock().await;
        end.known = None;
        for _ in 0..CLAIMS {
            let written = match self.tail_not_rewound().await? {
                Some((_, tail)) if tail.term >= term => {
                    return Ok(tail.term == term && tail.guardian == self.identity);
                }
                Some((mut object, tail)) => {
                    let tail = Tail { term, guardian: self.identity.clone(), ..tail };
                    tail.write(&mut object)?;
                    self.access.replace(&object).await?
                }
                None => {
                    let mut object = self.names.object(self.names.record(), Part::Record);
                    Tail::empty(term, &self.identity).write(&mut object)?;
                    self.access.create(&object).await?
                }
            };
            if let Written::Done(object) = written {
                // Whatever had no answer was sent under an older version of the object, or is in it.
                end.unclear = false;
                let tail = Tail::read(&object)?;
                self.saw(tail.newest());
                end.known = Some((object, tail));
                return Ok(true);
            }
        }
        Err(CoordinationError::Unreachable(format!("{} is changed all the time", self.names.record())))
    }

    /// Appends; said again with the same records under the same tenure, it finds them there.
    pub(super) async fn append_records(
        &self,
        tenure: Tenure,
        records: &[Stamped],
        heads: &BTreeMap<WorkloadName, Head>,
    ) -> Result<(), CoordinationError> {
        let mut end = self.end.lock().await;
        self.settle(&mut end).await?;
        for _ in 0..ATTEMPTS {
            let (object, tail) = match end.known.take() {
                Some(known) => known,
                None => match self.tail_not_rewound().await? {
                    Some(read) => read,
                    None => return Err(CoordinationError::Deposed("there is no record here".to_owned())),
                },
            };
            if !self.is_ours(&tail, tenure) {
                let deposed = deposed(&tail, tenure);
                end.known = Some((object, tail));
                return Err(deposed);
            }
            if placed(&tail, records)? {
                end.known = Some((object, tail));
                return Ok(());
            }
            let mut next = tail.clone();
            if next.newest() >= next.first && next.size() + size(records) > PART_SIZE {
                next = self.seal_part(&next).await?;
            }
            next.add(records)?;
            next.heads.extend(heads.iter().map(|(workload, head)| (workload.clone(), head.clone())));
            let mut object = object;
            next.write(&mut object)?;
            let bytes: usize = object.data.iter().flatten().map(|(key, value)| key.len() + value.len()).sum();
            if bytes > OBJECT_SIZE {
                return Err(CoordinationError::Full(format!(
                    "{bytes} bytes of records and heads do not fit in one ConfigMap, which holds {OBJECT_SIZE}"
                )));
            }
            // Set before it is sent: whoever waits for this may be gone before the answer is there.
            end.unclear = true;
            let written = self.access.replace(&object).await;
            end.unclear = matches!(written, Err(CoordinationError::Unclear(_)));
            if let Written::Done(object) = written? {
                self.saw(next.newest());
                end.known = Some((object, next));
                return Ok(());
            }
        }
        Err(CoordinationError::Unreachable(format!("{} is changed all the time", self.names.record())))
    }

    /// The records after a place, once whatever had no answer is there or impossible.
    pub(super) async fn records_after(&self, after: u64) -> Result<Vec<Stamped>, CoordinationError> {
        {
            let mut end = self.end.lock().await;
            self.settle(&mut end).await?;
        }
        let read = self.tail_not_rewound().await?;
        let Some((_, tail)) = read else {
            return match after {
                0 => Ok(Vec::new()),
                known => Err(CoordinationError::Rewound { known, found: 0 }),
            };
        };
        let records = self.chain(&tail, after).await?;
        self.saw(tail.newest());
        Ok(records)
    }

    /// The records after a place, up to the end that was read: older parts never change, so all of this is as it was then.
    pub(super) async fn chain(&self, tail: &Tail, after: u64) -> Result<Vec<Stamped>, CoordinationError> {
        if tail.newest() < after {
            return Err(CoordinationError::Rewound { known: after, found: tail.newest() });
        }
        let mut parts = vec![tail.clone()];
        let (mut first, mut previous) = (tail.first, tail.previous);
        while first > after.saturating_add(1) {
            let begin = previous.ok_or_else(|| {
                CoordinationError::Damaged(format!("nothing is known before record {first}"))
            })?;
            let name = self.names.sealed(begin);
            let missing = || CoordinationError::Damaged(format!("{name}, a part of the record, is missing"));
            let part = self.access.get::<ConfigMap>(&name).await?.ok_or_else(missing)?;
            let part = Tail::read(&part)?;
            if part.first != begin || part.newest() + 1 != first {
                return Err(CoordinationError::Damaged(format!(
                    "{name} holds {} to {}, and the next part begins at {first}",
                    part.first,
                    part.newest()
                )));
            }
            (first, previous) = (part.first, part.previous);
            parts.push(part);
        }
        let mut records = Vec::new();
        for part in parts.iter().rev() {
            records.extend(part.after(after)?);
        }
        Ok(records)
    }

    /// Makes an append without an answer impossible, if it is not there: the end becomes another version, and an update
    /// of the one before is refused.
    async fn settle(&self, end: &mut End) -> Result<(), CoordinationError> {
        for _ in 0..ATTEMPTS {
            if !end.unclear {
                return Ok(());
            }
            end.known = None;
            let Some((mut object, tail)) = self.tail().await? else { return Ok(()) };
            if tail.guardian != self.identity {
                // Somebody else has written since; what was ours cannot come any more.
                end.unclear = false;
                return Ok(());
            }
            let tail = Tail { settled: tail.settled.saturating_add(1), ..tail };
            tail.write(&mut object)?;
            if let Written::Done(object) = self.access.replace(&object).await? {
                end.known = Some((object, tail));
                end.unclear = false;
                return Ok(());
            }
        }
        Err(CoordinationError::Unreachable(format!("{} is changed all the time", self.names.record())))
    }

    /// Moves the records of the end into a part of their own. That part may be there already, from somebody who did not
    /// come further than this, and may hold fewer of them: what it holds is what is let go of.
    async fn seal_part(&self, tail: &Tail) -> Result<Tail, CoordinationError> {
        let name = self.names.sealed(tail.first);
        let mut object = self.names.object(name.clone(), Part::Sealed);
        let sealed = tail.sealed();
        sealed.write(&mut object)?;
        object.immutable = Some(true);
        let sealed = match self.access.create(&object).await? {
            Written::Done(_) => sealed,
            Written::Lost => {
                let gone = || CoordinationError::Unreachable(format!("{name} was there, and is not"));
                Tail::read(&self.access.get::<ConfigMap>(&name).await?.ok_or_else(gone)?)?
            }
        };
        tail.shortened(&sealed).ok_or_else(|| {
            CoordinationError::Damaged(format!("{name} does not hold what the end of the record holds"))
        })
    }

    fn is_ours(&self, tail: &Tail, tenure: Tenure) -> bool {
        tail.term == tenure.term && tail.guardian == self.identity
    }

    /// Remembers how far the record goes.
    pub(super) fn saw(&self, newest: u64) {
        self.newest.fetch_max(newest, Ordering::SeqCst);
    }
}

/// Whether all of these are there already; an error when they are not the next ones.
fn placed(tail: &Tail, records: &[Stamped]) -> Result<bool, CoordinationError> {
    let Some(first) = records.first().map(|first| first.sequence) else { return Ok(false) };
    let newest = tail.newest();
    if first == newest + 1 {
        return Ok(false);
    }
    if first > newest {
        return Err(CoordinationError::Rewound { known: first - 1, found: newest });
    }
    for stamped in records {
        if tail.at(stamped.sequence)?.as_ref() != Some(stamped) {
            return Err(CoordinationError::Deposed(format!(
                "record {} is there already, and is another one",
                stamped.sequence
            )));
        }
    }
    Ok(true)
}

/// Who has taken over.
pub(super) fn deposed(tail: &Tail, tenure: Tenure) -> CoordinationError {
    let agent = super::tenancy::agent_of(&tail.guardian);
    CoordinationError::Deposed(format!(
        "{agent} appends under term {}, and this agent's was {}",
        tail.term, tenure.term
    ))
}

/// About how many bytes they take.
fn size(records: &[Stamped]) -> usize {
    records.iter().map(|stamped| serde_json::to_string(stamped).map_or(0, |text| text.len() + 27)).sum()
}
