//! `[[workload.probe]]`: ways of looking at a region.
//!
//! **Invariant:** the keys that say how often and how patiently to look are the same for every kind.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::form::{FilePath, Fqdn, HostPort, HttpUrl, IpPort, Label};
use crate::length::Length;

/// How often and how patiently to look.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Watch {
    /// Time between two looks, 100ms to 1h.
    #[serde(default = "interval")]
    #[schemars(extend("x-minimum" = "100ms", "x-maximum" = "1h"))]
    pub interval: Length,
    /// How long one look may take, 10ms to 10m.
    #[serde(default = "timeout")]
    #[schemars(extend("x-minimum" = "10ms", "x-maximum" = "10m"))]
    pub timeout: Length,
    /// Consecutive failures before it counts as down.
    #[serde(default = "three")]
    #[schemars(range(min = 1, max = 1000))]
    pub failures: u32,
    /// Consecutive answers before it counts as up again.
    #[serde(default = "two")]
    #[schemars(range(min = 1, max = 1000))]
    pub recoveries: u32,
    /// Failures that are only silence (time-outs) count after this long without an answer, 100ms to 1d.
    #[serde(default = "silence")]
    #[schemars(extend("x-minimum" = "100ms", "x-maximum" = "1d"))]
    pub silence: Length,
}

impl Watch {
    /// How long it takes at most from a loss to a probe that is down, when the place refuses and when it is silent.
    pub fn detection(&self) -> (std::time::Duration, std::time::Duration) {
        let refused = self.interval.0 * self.failures;
        (refused, self.silence.0.max(refused))
    }
}

/// A way of looking at one region.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Probe {
    /// Asks an HTTP server.
    Http(HttpProbe),
    /// Opens a TCP connection.
    Tcp(TcpProbe),
    /// Asks a DNS server.
    Dns(DnsProbe),
}

impl Probe {
    /// What all probes have.
    pub const fn common(&self) -> &ProbeCommon {
        match self {
            Self::Http(probe) => &probe.common,
            Self::Tcp(probe) => &probe.common,
            Self::Dns(probe) => &probe.common,
        }
    }

    /// How often and how patiently it looks.
    pub const fn watch(&self) -> &Watch {
        match self {
            Self::Http(probe) => &probe.watch,
            Self::Tcp(probe) => &probe.watch,
            Self::Dns(probe) => &probe.watch,
        }
    }
}

/// What all probes have.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ProbeCommon {
    /// Its name, unlike any other in the workload.
    pub name: Label,
    /// The region it looks at.
    pub region: Label,
    /// Whether the region is lost when this probe is down.
    #[serde(default)]
    pub vital: bool,
}

/// Asks an HTTP server.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline, deny_unknown_fields)]
pub struct HttpProbe {
    /// What all probes have.
    #[serde(flatten)]
    pub common: ProbeCommon,
    /// What to ask for.
    pub url: HttpUrl,
    /// The status expected.
    #[serde(default = "ok")]
    #[schemars(range(min = 100, max = 599))]
    pub status: u16,
    /// Text that the body must contain, within its first 64 KiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub body: Option<String>,
    /// Fewer days left than this on the certificate is a failure (https only).
    #[serde(default = "two_weeks")]
    #[schemars(range(min = 0, max = 3650))]
    pub certificate_days: u16,
    /// Trust anchors, PEM. Default: the system's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<FilePath>,
    /// How many redirects to follow.
    #[serde(default)]
    #[schemars(range(min = 0, max = 10))]
    pub redirects: u8,
    /// How often and how patiently it looks.
    #[serde(flatten)]
    pub watch: Watch,
}

/// Opens a TCP connection.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline, deny_unknown_fields)]
pub struct TcpProbe {
    /// What all probes have.
    #[serde(flatten)]
    pub common: ProbeCommon,
    /// Where to connect to.
    pub address: HostPort,
    /// How often and how patiently it looks.
    #[serde(flatten)]
    pub watch: Watch,
}

/// Asks a DNS server.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline, deny_unknown_fields)]
pub struct DnsProbe {
    /// What all probes have.
    #[serde(flatten)]
    pub common: ProbeCommon,
    /// The server to ask.
    pub server: IpPort,
    /// The name to ask for.
    pub query: Fqdn,
    /// The kind of record to ask for.
    #[serde(default)]
    pub record: AskedKind,
    /// The values that must be in the answer. Default: any answer without error will do.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(max = 1024)), extend("uniqueItems" = true))]
    pub expect: Vec<String>,
    /// How often and how patiently it looks.
    #[serde(flatten)]
    pub watch: Watch,
}

/// The kinds of records that can be asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
#[schemars(inline)]
pub enum AskedKind {
    /// An IPv4 address.
    #[default]
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

fn interval() -> Length {
    Length::seconds(5)
}

fn timeout() -> Length {
    Length::seconds(10)
}

fn silence() -> Length {
    Length::seconds(60)
}

const fn two() -> u32 {
    2
}

const fn three() -> u32 {
    3
}

const fn ok() -> u16 {
    200
}

const fn two_weeks() -> u16 {
    14
}
