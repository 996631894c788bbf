//! What records say, as text and as record data.
//!
//! **Invariant:** every value has one canonical text (addresses as the standard library writes them, host
//! names in lower case with the final dot), so that sets of texts can be compared.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use hickory_proto::rr::rdata::{A, AAAA, CNAME, NS, TXT};
use hickory_proto::rr::{Name, RData, RecordType};
use thiserror::Error;

/// The kinds of record that lifeboat serves, changes or asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RecordKind {
    /// An IPv4 address.
    A,
    /// An IPv6 address.
    Aaaa,
    /// Another name for the same thing.
    Cname,
    /// Text.
    Txt,
    /// A name server of a zone.
    Ns,
    /// The start of a zone.
    Soa,
}

/// Why a text is no value of a record.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ValueError {
    /// Not a name of letters, digits, `-`, `_` and dots within the limits of RFC 1035.
    #[error("{0:?} is not a DNS name")]
    Name(String),
    /// Not an address of the kind asked for.
    #[error("{text:?} is not an {kind} address")]
    Address {
        /// What was written.
        text: String,
        /// What it should be.
        kind: RecordKind,
    },
    /// A host name beside other values: a CNAME stands alone (RFC 1034, section 3.6.2).
    #[error("{0:?} is a host name and must be the only value")]
    NotAlone(String),
    /// There is no value at all.
    #[error("there is no value")]
    Empty,
    /// Kinds that are derived, never given.
    #[error("{0} records cannot be given")]
    Derived(RecordKind),
}

impl RecordKind {
    /// The kinds a name that is switched may have.
    pub(crate) const SWITCHED: [Self; 3] = [Self::A, Self::Aaaa, Self::Cname];

    /// Reads `A`, `AAAA`, `CNAME`, `TXT`, `NS` or `SOA`, in either case.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::A, Self::Aaaa, Self::Cname, Self::Txt, Self::Ns, Self::Soa]
            .into_iter()
            .find(|kind| kind.as_str().eq_ignore_ascii_case(text))
    }

    /// The kind as zone files write it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::A => "A",
            Self::Aaaa => "AAAA",
            Self::Cname => "CNAME",
            Self::Txt => "TXT",
            Self::Ns => "NS",
            Self::Soa => "SOA",
        }
    }

    pub(crate) const fn wire(self) -> RecordType {
        match self {
            Self::A => RecordType::A,
            Self::Aaaa => RecordType::AAAA,
            Self::Cname => RecordType::CNAME,
            Self::Txt => RecordType::TXT,
            Self::Ns => RecordType::NS,
            Self::Soa => RecordType::SOA,
        }
    }

    pub(crate) fn of_wire(kind: RecordType) -> Option<Self> {
        [Self::A, Self::Aaaa, Self::Cname, Self::Txt, Self::Ns, Self::Soa]
            .into_iter()
            .find(|k| k.wire() == kind)
    }
}

impl fmt::Display for RecordKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Reads a name; the final dot may be missing.
pub(crate) fn name(text: &str) -> Result<Name, ValueError> {
    let bad = || ValueError::Name(text.to_owned());
    let mut name = Name::from_ascii(text).map_err(|_| bad())?;
    // 254 as the root's zero byte is not counted by `len` of a relative name.
    if text.is_empty() || name.len() > 254 {
        return Err(bad());
    }
    name.set_fqdn(true);
    Ok(name)
}

/// The one text of a name.
pub(crate) fn name_text(name: &Name) -> String {
    let mut name = name.to_lowercase();
    name.set_fqdn(true);
    name.to_ascii()
}

/// Record data of `kind` from its text.
pub(crate) fn rdata(kind: RecordKind, text: &str) -> Result<RData, ValueError> {
    let address = || ValueError::Address { text: text.to_owned(), kind };
    Ok(match kind {
        RecordKind::A => RData::A(A(text.parse().map_err(|_| address())?)),
        RecordKind::Aaaa => RData::AAAA(AAAA(text.parse().map_err(|_| address())?)),
        RecordKind::Cname => RData::CNAME(CNAME(name(text)?)),
        RecordKind::Ns => RData::NS(NS(name(text)?)),
        // One string holds at most 255 bytes (RFC 1035, section 3.3); a longer text becomes several.
        RecordKind::Txt if text.is_empty() => RData::TXT(TXT::from_bytes(vec![b""])),
        RecordKind::Txt => RData::TXT(TXT::from_bytes(text.as_bytes().chunks(255).collect())),
        RecordKind::Soa => return Err(ValueError::Derived(kind)),
    })
}

/// The one text of record data; the strings of a TXT record are joined, as readers of TXT do.
pub(crate) fn text(data: &RData) -> String {
    match data {
        RData::A(a) => a.0.to_string(),
        RData::AAAA(aaaa) => aaaa.0.to_string(),
        RData::CNAME(target) => name_text(&target.0),
        RData::NS(target) => name_text(&target.0),
        RData::TXT(txt) => String::from_utf8_lossy(&txt.txt_data.concat()).into_owned(),
        other => other.to_string(),
    }
}

/// Values of a name that is switched, by kind: addresses become A and AAAA, one host name a CNAME.
pub(crate) fn by_kind(
    values: &BTreeSet<String>,
) -> Result<BTreeMap<RecordKind, BTreeMap<String, RData>>, ValueError> {
    let mut kinds: BTreeMap<RecordKind, BTreeMap<String, RData>> = BTreeMap::new();
    for value in values {
        let kind = match value.parse() {
            Ok(IpAddr::V4(_)) => RecordKind::A,
            Ok(IpAddr::V6(_)) => RecordKind::Aaaa,
            Err(_) if values.len() > 1 => return Err(ValueError::NotAlone(value.clone())),
            Err(_) => RecordKind::Cname,
        };
        let data = rdata(kind, &value.to_ascii_lowercase())?;
        kinds.entry(kind).or_default().insert(text(&data), data);
    }
    Ok(kinds)
}

/// Values in their one text each.
pub(crate) fn canonical(values: &BTreeSet<String>) -> Result<BTreeSet<String>, ValueError> {
    Ok(by_kind(values)?.into_values().flat_map(BTreeMap::into_keys).collect())
}

/// A time to live in the whole seconds DNS counts in; at most 2^31 - 1 (RFC 2181, section 8).
pub(crate) fn ttl_seconds(ttl: Duration) -> u32 {
    u32::try_from(ttl.as_secs()).unwrap_or(u32::MAX).min(0x7FFF_FFFF)
}

/// A list of values as people read it.
pub(crate) fn listed<'a>(values: impl IntoIterator<Item = &'a String>) -> String {
    let text = values.into_iter().map(String::as_str).collect::<Vec<_>>().join(", ");
    if text.is_empty() { "nothing".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(values: &[&str]) -> BTreeSet<String> {
        values.iter().map(|v| (*v).to_owned()).collect()
    }

    #[test]
    fn values_have_one_text() {
        assert_eq!(
            canonical(&set(&["2001:DB8::0001", "192.0.2.1"])).unwrap(),
            set(&["2001:db8::1", "192.0.2.1"])
        );
        assert_eq!(canonical(&set(&["Shop.West.example.COM"])).unwrap(), set(&["shop.west.example.com."]));
        assert_eq!(name_text(&name("_lifeboat-epoch.a.b").unwrap()), "_lifeboat-epoch.a.b.");
    }

    #[test]
    fn a_host_name_stands_alone_and_is_a_name() {
        let two = set(&["192.0.2.1", "west.example.com."]);
        assert_eq!(by_kind(&two), Err(ValueError::NotAlone("west.example.com.".into())));
        assert!(matches!(by_kind(&set(&["no spaces"])), Err(ValueError::Name(_))));
        assert!(matches!(by_kind(&set(&[""])), Err(ValueError::Name(_))));
        assert!(matches!(name(&"a.".repeat(128)), Err(ValueError::Name(_))));
        assert!(rdata(RecordKind::A, "2001:db8::1").is_err());
    }

    #[test]
    fn a_long_text_is_several_strings_read_as_one() {
        let long = "x".repeat(600);
        let data = rdata(RecordKind::Txt, &long).unwrap();
        assert!(matches!(&data, RData::TXT(txt) if txt.txt_data.len() == 3));
        assert_eq!(text(&data), long);
    }
}
