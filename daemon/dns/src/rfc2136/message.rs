//! What was found at a name, and the messages that change it.
//!
//! **Invariant:** an update carries as conditions everything that was looked at to decide it: the name's
//! addresses or alias, kind by kind, and its epoch.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use hickory_proto::op::{Message, OpCode, Query};
use hickory_proto::rr::rdata::TXT;
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use lifeboat_core::{DnsName, Epoch};
use lifeboat_engine::ports::NameChange;

use super::{NameState, UpdateError};
use crate::exchange::Question;
use crate::value::{self, RecordKind, by_kind, name_text, ttl_seconds};

/// A name, its zone, and the name of its epoch.
#[derive(Clone, Debug)]
pub(super) struct Target {
    zone: Name,
    name: Name,
    epoch: Name,
}

/// What the server says at a name now.
#[derive(Clone, Debug, Default)]
pub(super) struct Found {
    sets: BTreeMap<RecordKind, BTreeMap<String, RData>>,
    ttl: Option<u32>,
    epoch: Option<(Epoch, RData)>,
}

impl Target {
    pub(super) fn new(zone: &DnsName, name: &DnsName) -> Result<Self, UpdateError> {
        let outside = || UpdateError::Outside { name: name.clone(), zone: zone.clone() };
        let (in_zone, at) = (value::name(zone.as_str())?, value::name(name.as_str())?);
        if !in_zone.zone_of(&at) {
            return Err(outside());
        }
        let epoch = at.prepend_label("_lifeboat-epoch").map_err(|_| outside())?;
        Ok(Self { zone: in_zone, name: at, epoch })
    }

    /// What has to be asked to know what is there.
    pub(super) fn questions(&self) -> Vec<Message> {
        let kinds = RecordKind::SWITCHED.into_iter().map(|kind| (&self.name, kind));
        let all = kinds.chain([(&self.epoch, RecordKind::Txt)]);
        all.map(|(name, kind)| Question::new(name.clone(), kind.wire(), false).message()).collect()
    }

    /// Puts the answers to those questions together.
    pub(super) fn found(&self, answers: &[Message]) -> Result<Found, UpdateError> {
        let (name, epoch) = (name_text(&self.name), name_text(&self.epoch));
        let mut found = Found::default();
        for record in answers.iter().flat_map(|answer| &answer.answers) {
            let owner = name_text(&record.name);
            match RecordKind::of_wire(record.record_type()) {
                Some(kind) if owner == name && RecordKind::SWITCHED.contains(&kind) => {
                    let text = value::text(&record.data);
                    found.sets.entry(kind).or_default().insert(text, record.data.clone());
                    // Of several the shortest holds until the name is written again.
                    found.ttl = Some(found.ttl.map_or(record.ttl, |ttl| ttl.min(record.ttl)));
                }
                Some(RecordKind::Txt) if owner == epoch => {
                    let text = value::text(&record.data);
                    let number = text.strip_prefix("epoch=").and_then(|number| number.parse().ok());
                    // A second record here is not ours either.
                    let (Some(number), None) = (number, &found.epoch) else {
                        return Err(UpdateError::ForeignEpoch { name: epoch, text });
                    };
                    found.epoch = Some((Epoch::new(number), record.data.clone()));
                }
                _ => {}
            }
        }
        Ok(found)
    }

    /// The update that makes the name say `change.to` under `epoch`, if all is as it was found.
    pub(super) fn update(
        &self,
        found: &Found,
        epoch: Epoch,
        change: &NameChange,
    ) -> Result<Message, UpdateError> {
        let mut message = self.rehearsal(found);
        let ttl = ttl_seconds(change.ttl);
        // What is there goes first: an alias and an address cannot stand beside each other in between.
        for kind in found.sets.keys() {
            message.add_authority(without_data(&self.name, kind.wire(), DNSClass::ANY));
        }
        for data in by_kind(&change.to)?.into_values().flat_map(BTreeMap::into_values) {
            message.add_authority(Record::from_rdata(self.name.clone(), ttl, data));
        }
        if found.epoch.is_some() {
            message.add_authority(without_data(&self.epoch, RecordType::TXT, DNSClass::ANY));
        }
        let text = RData::TXT(TXT::new(vec![format!("epoch={epoch}")]));
        message.add_authority(Record::from_rdata(self.epoch.clone(), ttl, text));
        Ok(message)
    }

    /// The same update with its conditions alone.
    pub(super) fn rehearsal(&self, found: &Found) -> Message {
        let mut zone = Query::query(self.zone.clone(), RecordType::SOA);
        zone.set_query_class(DNSClass::IN);
        let mut message = Message::query();
        message.metadata.op_code = OpCode::Update;
        message.metadata.recursion_desired = false;
        message.add_query(zone);
        for kind in RecordKind::SWITCHED {
            match found.sets.get(&kind) {
                Some(set) => message.add_answers(set.values().map(|data| with_data(&self.name, data))),
                None => message.add_answer(without_data(&self.name, kind.wire(), DNSClass::NONE)),
            };
        }
        match &found.epoch {
            Some((_, data)) => message.add_answer(with_data(&self.epoch, data)),
            None => message.add_answer(without_data(&self.epoch, RecordType::TXT, DNSClass::NONE)),
        };
        message
    }
}

impl Found {
    pub(super) fn values(&self) -> BTreeSet<String> {
        self.sets.values().flat_map(BTreeMap::keys).cloned().collect()
    }

    pub(super) fn ttl(&self) -> Option<u32> {
        self.ttl
    }

    pub(super) fn epoch(&self) -> Option<Epoch> {
        self.epoch.as_ref().map(|(epoch, _)| *epoch)
    }

    pub(super) fn state(&self) -> NameState {
        let ttl = self.ttl.map(|seconds| Duration::from_secs(seconds.into()));
        NameState { values: self.values(), ttl, epoch: self.epoch() }
    }
}

/// "This record set exists, with these values" as a condition: TTL zero (RFC 2136, section 2.4.2).
fn with_data(name: &Name, data: &RData) -> Record {
    Record::from_rdata(name.clone(), 0, data.clone())
}

/// As a condition, class NONE: "no such record set"; as a change, class ANY: "delete it"
/// (RFC 2136, sections 2.4.3 and 2.5.2).
fn without_data(name: &Name, kind: RecordType, class: DNSClass) -> Record {
    let mut record = Record::update0(name.clone(), 0, kind).into_record_of_rdata();
    record.dns_class = class;
    record
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_outside_or_too_long_is_refused() {
        let zone = DnsName::from("example.com.");
        assert!(Target::new(&zone, &"shop.example.com".into()).is_ok());
        assert!(matches!(Target::new(&zone, &"shop.example.org.".into()), Err(UpdateError::Outside { .. })));
        let long = format!("{}example.com.", "aaaaaaaaa.".repeat(23));
        assert!(matches!(Target::new(&zone, &DnsName::new(long)), Err(UpdateError::Outside { .. })));
    }

    #[test]
    fn an_epoch_that_is_not_ours_is_not_touched() {
        let target = Target::new(&"example.com.".into(), &"shop.example.com.".into()).unwrap();
        let says = |texts: &[&str]| {
            let mut answer = Message::query();
            for text in texts {
                let data = RData::TXT(TXT::new(vec![(*text).to_owned()]));
                answer.add_answer(Record::from_rdata(target.epoch.clone(), 5, data));
            }
            target.found(&[answer])
        };
        assert_eq!(says(&["epoch=7"]).unwrap().epoch(), Some(Epoch::new(7)));
        assert!(matches!(says(&["v=spf1 -all"]), Err(UpdateError::ForeignEpoch { .. })));
        assert!(matches!(says(&["epoch=7", "epoch=8"]), Err(UpdateError::ForeignEpoch { .. })));
    }
}
