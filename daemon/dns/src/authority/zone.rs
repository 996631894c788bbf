//! What the zone holds, and what a name in it says.
//!
//! **Invariant:** the content is one value, replaced as a whole: an answer never mixes two states.
//! **Invariant:** the serial is the sum of the kept names' epochs: it rises with every change, and every
//! agent that holds the same records serves the same serial.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use hickory_proto::rr::rdata::{CNAME, NS, SOA};
use hickory_proto::rr::{LowerName, Name, RData};
use lifeboat_core::Epoch;

use super::{AuthorityError, FixedRecord, KeptName, ZoneOptions};
use crate::value::{self, RecordKind};

/// How long NS records may be kept: name servers of a zone change on other days than its content.
const NS_TTL: u32 = 300;

/// The content of the zone.
#[derive(Clone, Debug)]
pub(crate) struct Zone {
    apex: LowerName,
    soa: SOA,
    negative_ttl: u32,
    nodes: HashMap<LowerName, Node>,
    kept: BTreeMap<LowerName, Kept>,
}

/// Everything at one name; empty where only names below it exist (RFC 8020).
pub(crate) type Node = BTreeMap<RecordKind, RrSet>;

/// All records of one kind at one name.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct RrSet {
    pub(crate) ttl: u32,
    pub(crate) data: Vec<RData>,
}

/// What a name that is switched says now, and since which epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Kept {
    pub(crate) values: BTreeSet<String>,
    pub(crate) ttl: u32,
    pub(crate) epoch: Epoch,
}

/// What the zone says to a question.
#[derive(Debug)]
pub(crate) enum Lookup<'a> {
    /// Not a name of this zone.
    Outside,
    /// The name does not exist.
    NoName,
    /// The name exists, without records of that kind.
    NoData,
    /// The records asked for.
    Found(RecordKind, &'a RrSet),
    /// Another name is to be asked instead.
    Alias(&'a Name, &'a RrSet),
}

/// What is looked for at a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    Kind(RecordKind),
    /// `ANY`: one record set is enough (RFC 8482, section 4.1).
    Any,
    /// A kind this zone never holds.
    Foreign,
}

impl Zone {
    /// Builds the zone from what is configured, and refuses what would make it answer nonsense.
    pub(crate) fn build(options: &ZoneOptions, kept: Vec<KeptName>) -> Result<Self, AuthorityError> {
        let apex = value::name(options.zone.as_str())?;
        let servers =
            options.nameservers.iter().map(|ns| value::name(ns.as_str())).collect::<Result<Vec<_>, _>>()?;
        let first = servers.first().ok_or(AuthorityError::NoNameserver)?.clone();
        let hostmaster = match &options.hostmaster {
            Some(name) => value::name(name.as_str())?,
            None => {
                apex.prepend_label("hostmaster").map_err(|_| AuthorityError::TooLong(options.zone.clone()))?
            }
        };
        let negative_ttl = value::ttl_seconds(options.negative_ttl);
        let mut zone = Self {
            apex: LowerName::new(&apex),
            // Refresh, retry and expire speak to secondaries, of which there are none: RFC 1912's usual values.
            soa: SOA::new(first, hostmaster, 0, 3600, 600, 604_800, negative_ttl),
            negative_ttl,
            nodes: HashMap::new(),
            kept: BTreeMap::new(),
        };
        let ns = RrSet { ttl: NS_TTL, data: servers.into_iter().map(|s| RData::NS(NS(s))).collect() };
        zone.node(&apex).insert(RecordKind::Ns, ns);
        for record in &options.fixed {
            zone.fix(record)?;
        }
        for name in kept {
            let owner = zone.owner(name.name.as_str())?;
            if zone.nodes.get(&LowerName::new(&owner)).is_some_and(|node| !node.is_empty()) {
                return Err(AuthorityError::Twice(name.name));
            }
            zone.place(&name)?;
        }
        zone.apply_serial();
        Ok(zone)
    }

    /// What a name and kind give.
    pub(crate) fn lookup(&self, name: &LowerName, wanted: Wanted) -> Lookup<'_> {
        if !self.apex.zone_of(name) {
            return Lookup::Outside;
        }
        let Some(node) = self.nodes.get(name) else { return Lookup::NoName };
        let found = match wanted {
            Wanted::Kind(kind) => node.get_key_value(&kind),
            Wanted::Any => node.first_key_value(),
            Wanted::Foreign => None,
        };
        if let Some((kind, set)) = found {
            return Lookup::Found(*kind, set);
        }
        match node.get(&RecordKind::Cname).map(|set| (set.data.first(), set)) {
            Some((Some(RData::CNAME(CNAME(target))), set)) => Lookup::Alias(target, set),
            _ => Lookup::NoData,
        }
    }

    /// The SOA record's data, and how long a "no" may be believed (RFC 2308, section 5).
    pub(crate) fn soa(&self) -> (&Name, RData, u32) {
        (&self.apex, RData::SOA(self.soa.clone()), self.negative_ttl)
    }

    /// What a kept name says now.
    pub(crate) fn kept(&self, name: &LowerName) -> Option<&Kept> {
        self.kept.get(name)
    }

    /// Sets what a kept name says, whatever it said. The caller has compared epochs.
    pub(crate) fn place(&mut self, kept: &KeptName) -> Result<(), AuthorityError> {
        let owner = self.owner(kept.name.as_str())?;
        let at = LowerName::new(&owner);
        let ttl = value::ttl_seconds(kept.ttl);
        let sets = value::by_kind(&kept.values)?;
        if sets.is_empty() {
            return Err(AuthorityError::Value(value::ValueError::Empty));
        }
        if at == self.apex && sets.contains_key(&RecordKind::Cname) {
            return Err(AuthorityError::AliasAtApex(kept.name.clone()));
        }
        let node = self.node(&owner);
        for kind in RecordKind::SWITCHED {
            node.remove(&kind);
        }
        for (kind, data) in sets {
            node.insert(kind, RrSet { ttl, data: data.into_values().collect() });
        }
        let values = value::canonical(&kept.values)?;
        self.kept.insert(at, Kept { values, ttl, epoch: kept.epoch });
        self.apply_serial();
        Ok(())
    }

    fn fix(&mut self, record: &FixedRecord) -> Result<(), AuthorityError> {
        let owner = self.owner(record.name.as_str())?;
        if record.values.is_empty() {
            return Err(AuthorityError::Value(value::ValueError::Empty));
        }
        let alias = record.kind == RecordKind::Cname;
        if !matches!(record.kind, RecordKind::A | RecordKind::Aaaa | RecordKind::Cname | RecordKind::Txt) {
            return Err(AuthorityError::Value(value::ValueError::Derived(record.kind)));
        }
        if alias && LowerName::new(&owner) == self.apex {
            return Err(AuthorityError::AliasAtApex(record.name.clone()));
        }
        let mut data: Vec<RData> = Vec::new();
        for text in &record.values {
            let one = value::rdata(record.kind, text)?;
            if !data.contains(&one) {
                data.push(one);
            }
        }
        let node = self.node(&owner);
        let lonely = alias || node.contains_key(&RecordKind::Cname);
        if node.contains_key(&record.kind) || (lonely && !node.is_empty()) || (alias && data.len() > 1) {
            return Err(AuthorityError::Twice(record.name.clone()));
        }
        node.insert(record.kind, RrSet { ttl: value::ttl_seconds(record.ttl), data });
        Ok(())
    }

    /// A name, if it is one of this zone.
    pub(crate) fn owner(&self, text: &str) -> Result<Name, AuthorityError> {
        let name = value::name(text)?;
        if self.apex.zone_of(&LowerName::new(&name)) {
            Ok(name)
        } else {
            Err(AuthorityError::Outside { name: text.into(), zone: self.apex.to_string().as_str().into() })
        }
    }

    /// The node at a name; the names between it and the apex come to exist with it.
    fn node(&mut self, name: &Name) -> &mut Node {
        let at = LowerName::new(name);
        let mut above = at.clone();
        while above != self.apex && !above.is_root() {
            above = above.base_name();
            self.nodes.entry(above.clone()).or_default();
        }
        self.nodes.entry(at).or_default()
    }

    fn apply_serial(&mut self) {
        let sum = self.kept.values().fold(0_u64, |sum, kept| sum.wrapping_add(kept.epoch.get()));
        // Serials live in 32 bits and wrap (RFC 1982).
        self.soa.serial = u32::try_from(sum & u64::from(u32::MAX)).unwrap_or_default();
        let set = RrSet { ttl: self.negative_ttl, data: vec![RData::SOA(self.soa.clone())] };
        let apex = self.apex.clone();
        self.nodes.entry(apex).or_default().insert(RecordKind::Soa, set);
    }
}
