//! `[[workload.dns]]`: the names that clients resolve, and how they are switched.
//!
//! **Invariant:** every authoritative server is an IP address: finding a DNS server must not need DNS.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::ByRegion;
use crate::form::{FilePath, Fqdn, IpPort, Target};
use crate::length::Length;

/// A name that clients resolve, by the way it is switched.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "via", rename_all = "lowercase")]
pub enum DnsName {
    /// lifeboat answers for it itself, in the zone of `[authority]`.
    Authority(AuthorityName),
    /// It is changed on a DNS server by RFC 2136 updates.
    Rfc2136(UpdatedName),
}

impl DnsName {
    /// What all names have.
    pub const fn common(&self) -> &NameCommon {
        match self {
            Self::Authority(name) => &name.common,
            Self::Rfc2136(name) => &name.common,
        }
    }
}

/// What all names have.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct NameCommon {
    /// The name.
    pub name: Fqdn,
    /// The record's time to live, as served, whole seconds from 1s to 1d.
    #[schemars(extend("x-minimum" = "1s", "x-maximum" = "1d", "x-whole-seconds" = "DNS"))]
    pub ttl: Length,
    /// Resolvers that the census asks, besides every authoritative server.
    #[serde(default)]
    #[schemars(length(max = 64), extend("uniqueItems" = true))]
    pub resolvers: Vec<IpPort>,
    /// What the name says when the workload lives in that region: addresses (A or AAAA), or one host name (CNAME).
    pub target: ByRegion<Targets>,
}

/// What a name says in one region: addresses, or one host name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Targets(#[schemars(length(min = 1, max = 32), extend("uniqueItems" = true))] pub Vec<Target>);

/// A name in lifeboat's own zone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline, deny_unknown_fields)]
pub struct AuthorityName {
    /// What all names have.
    #[serde(flatten)]
    pub common: NameCommon,
}

/// A name on a server that takes updates.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline, deny_unknown_fields)]
pub struct UpdatedName {
    /// What all names have.
    #[serde(flatten)]
    pub common: NameCommon,
    /// The zone that holds the name.
    pub zone: Fqdn,
    /// The primary server, which takes updates.
    pub server: IpPort,
    /// The other authoritative servers, for the census.
    #[serde(default)]
    #[schemars(length(max = 32), extend("uniqueItems" = true))]
    pub secondaries: Vec<IpPort>,
    /// The name of the TSIG key.
    pub key_name: Fqdn,
    /// The algorithm of the TSIG key.
    #[serde(default)]
    pub key_algorithm: KeyAlgorithm,
    /// File with the TSIG key: base64, one line.
    pub key_file: FilePath,
}

/// The algorithm of a TSIG key (RFC 8945).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum KeyAlgorithm {
    /// HMAC with SHA-256.
    #[default]
    #[serde(rename = "hmac-sha256")]
    HmacSha256,
    /// HMAC with SHA-384.
    #[serde(rename = "hmac-sha384")]
    HmacSha384,
    /// HMAC with SHA-512.
    #[serde(rename = "hmac-sha512")]
    HmacSha512,
}
