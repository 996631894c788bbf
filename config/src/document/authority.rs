//! `[authority]`: the DNS zone that lifeboat answers for itself.
//!
//! **Invariant:** values of fixed records are texts here, because what they may be depends on `kind`; the rules
//! check them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::form::{Fqdn, IpPort};
use crate::length::Length;

/// The DNS zone that lifeboat answers for itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Authority {
    /// The sub-zone delegated to these agents.
    pub zone: Fqdn,
    /// Where to listen, UDP and TCP.
    #[schemars(length(min = 1, max = 32), extend("uniqueItems" = true))]
    pub listen: Vec<IpPort>,
    /// The NS records of the zone; the first is the SOA's MNAME.
    #[schemars(length(min = 1, max = 13), extend("uniqueItems" = true))]
    pub nameservers: Vec<Fqdn>,
    /// The SOA's RNAME, a mail address with a dot for the "@". Default: "hostmaster." before the zone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostmaster: Option<Fqdn>,
    /// The SOA's MINIMUM: how long resolvers remember that a name does not exist, whole seconds from 1s to 1h.
    #[serde(default = "negative_ttl")]
    #[schemars(extend("x-minimum" = "1s", "x-maximum" = "1h", "x-whole-seconds" = "DNS"))]
    pub negative_ttl: Length,
    /// Fixed records beside the workloads' names.
    #[serde(rename = "record", default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1000))]
    pub records: Vec<Record>,
}

impl Authority {
    /// `hostmaster`, or "hostmaster." before the zone.
    pub fn rname(&self) -> String {
        self.hostmaster.as_ref().map_or_else(|| format!("hostmaster.{}", self.zone), ToString::to_string)
    }
}

/// A fixed record of the zone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Record {
    /// Its name, within the zone.
    pub name: Fqdn,
    /// Its kind.
    pub kind: FixedKind,
    /// Its values: addresses, one host name, or texts.
    #[schemars(length(min = 1, max = 100), inner(length(max = 1024)), extend("uniqueItems" = true))]
    pub values: Vec<String>,
    /// Its time to live, whole seconds from 1s to 7d.
    #[serde(default = "five_minutes")]
    #[schemars(extend("x-minimum" = "1s", "x-maximum" = "7d", "x-whole-seconds" = "DNS"))]
    pub ttl: Length,
}

/// The kinds of fixed records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
#[schemars(inline)]
pub enum FixedKind {
    /// An IPv4 address.
    A,
    /// An IPv6 address.
    Aaaa,
    /// Another name for the same thing.
    Cname,
    /// Text.
    Txt,
}

fn negative_ttl() -> Length {
    Length::seconds(5)
}

fn five_minutes() -> Length {
    Length::seconds(300)
}
