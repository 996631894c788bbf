//! `[[workload]]`: what is protected as one.
//!
//! **Invariant:** `mode` has no default: whether lifeboat acts without a person is written by a person.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::ByRegion;
use super::archive::Backup;
use super::dns::DnsName;
use super::lease::Sentry;
use super::probe::{Probe, Watch};
use super::upkeep::{Host, Maintenance};
use crate::form::{Cluster, FilePath, HostPort, HttpUrl, IpPort, Label};
use crate::length::Length;
use crate::size::Size;

/// What is protected as one: databases, DNS names, compute.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Workload {
    /// Its name.
    pub name: Label,
    /// The region where it lives on a quiet day.
    pub primary: Label,
    /// The regions where it may move, in order of preference.
    #[schemars(length(min = 1, max = 63), extend("uniqueItems" = true))]
    pub standbys: Vec<Label>,
    /// The two promises.
    pub objectives: Objectives,
    /// When to act without a person.
    pub failover: Failover,
    /// Times of each week in which nothing is done without a person.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub maintenance: Vec<Maintenance>,
    /// STONITH, by region: a command that powers the region off or isolates it.
    #[serde(default, skip_serializing_if = "ByRegion::is_empty")]
    pub fence: ByRegion<Fence>,
    /// The regions whose databases have a sentry beside them (`lifeboat sentry`). Not with lease "embedded".
    #[serde(default, skip_serializing_if = "ByRegion::is_empty")]
    pub sentry: ByRegion<Sentry>,
    /// Its databases.
    #[serde(rename = "database", default, skip_serializing_if = "Vec::is_empty")]
    pub databases: Vec<Database>,
    /// Ways of looking at its regions, besides its databases.
    #[serde(rename = "probe", default, skip_serializing_if = "Vec::is_empty")]
    pub probes: Vec<Probe>,
    /// The names that clients resolve.
    #[serde(rename = "dns", default, skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<DnsName>,
    /// A real client: reached through DNS, it defines "recovered".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canary: Option<Canary>,
}

impl Workload {
    /// All its regions, the primary first.
    pub fn regions(&self) -> impl Iterator<Item = &Label> {
        std::iter::once(&self.primary).chain(&self.standbys)
    }
}

/// The two promises.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Objectives {
    /// How long it may be down, from 1s.
    #[schemars(extend("x-minimum" = "1s"))]
    pub rto: Length,
    /// How much data it may lose, as time; "0s" for none.
    pub rpo: Length,
}

/// Whether lifeboat acts without a person.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum Mode {
    /// Acts when every condition holds.
    Automatic,
    /// Measures, then asks a person.
    Supervised,
}

/// Whether an old primary that returns is made a standby by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum Rejoin {
    /// As soon as it is back, once what only it has was salvaged.
    #[default]
    Automatic,
    /// When a person orders it.
    Ordered,
}

/// When to act without a person.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Failover {
    /// "automatic", or "supervised": a person is asked, always.
    pub mode: Mode,
    /// Accepts that one agent alone decides ("accepted"), in automatic mode with lease "embedded".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lone_vantage: Option<LoneVantage>,
    /// Vantages that must see the primary as lost. Default: more than half of the agents; 1 with lease "embedded".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 32))]
    pub quorum: Option<usize>,
    /// How many of these must be outside the primary region. Default: 1; 0 with lease "embedded".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 32))]
    pub outside: Option<usize>,
    /// More log than this that would be lost blocks the automatic path, besides the rpo. Default: only time counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rpo_bytes: Option<Size>,
    /// A sample of the primary older than this says nothing about the loss, from 100ms. Default: only the loss counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-minimum" = "100ms"))]
    pub sample_age: Option<Length>,
    /// No automatic failover within this of the last one.
    #[serde(default = "hour")]
    pub cooldown: Length,
    /// Automatic failovers allowed within `budget_window`.
    #[serde(default = "two")]
    #[schemars(range(min = 1, max = 1000))]
    pub budget: usize,
    /// The window of the budget, from 1s.
    #[serde(default = "day")]
    #[schemars(extend("x-minimum" = "1s"))]
    pub budget_window: Length,
    /// An open question to a person lapses after this, from 1s.
    #[serde(default = "hour")]
    #[schemars(extend("x-minimum" = "1s"))]
    pub approval_expires: Length,
    /// How many different persons must approve, 1 or 2.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 2))]
    pub approvals: usize,
    /// How long the home region must have followed before a failback.
    #[serde(default = "ten_minutes")]
    pub hold_down: Length,
    /// "automatic", or "ordered": whether an old primary that returns is made a standby without an order.
    #[serde(default)]
    pub rejoin: Rejoin,
    /// A sighting or a connectivity proof older than this is no evidence, from 100ms.
    #[serde(default = "half_minute")]
    #[schemars(extend("x-minimum" = "100ms"))]
    pub freshness: Length,
    /// Accept an expired write lease as a fence (needs a sentry in every region; not with lease "embedded").
    #[serde(default)]
    pub fence_expiry: bool,
    /// Accept as a fence that the only synchronous standby has stopped receiving.
    #[serde(default)]
    pub fence_cut_off: bool,
}

impl Failover {
    /// `quorum`, or more than half of so many agents; an agent that is alone counts as one.
    pub fn quorum_of(&self, agents: usize) -> usize {
        self.quorum.unwrap_or(agents / 2 + 1)
    }

    /// `outside`, or 1 when there are several agents.
    pub fn outside_of(&self, agents: usize) -> usize {
        self.outside.unwrap_or(usize::from(agents > 1))
    }
}

/// That one agent alone decides is accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum LoneVantage {
    /// A broken path between the agent and the primary that its witnesses do not share looks like a lost region.
    Accepted,
}

/// A command that powers the region off or isolates it, and exits 0 only when that is done.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Fence {
    /// Program and arguments, never a shell. {region} and {epoch} are replaced.
    #[schemars(length(min = 1, max = 100), inner(length(max = 4096)))]
    pub command: Vec<String>,
    /// How long it may take, 100ms to 1h.
    #[serde(default = "minute")]
    #[schemars(extend("x-minimum" = "100ms", "x-maximum" = "1h"))]
    pub timeout: Length,
}

/// A database of the workload: one member in each of its regions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Database {
    /// Its name, unlike any other in the workload.
    pub name: Label,
    /// "postgres": PostgreSQL 15 or newer, streaming replication.
    pub kind: DatabaseKind,
    /// The database to connect to.
    #[schemars(length(min = 1, max = 63))]
    pub dbname: String,
    /// The role to connect as: a superuser, or one with pg_monitor, pg_signal_backend and EXECUTE on pg_promote.
    #[schemars(length(min = 1, max = 63))]
    pub user: String,
    /// File with the password: one line; never the password itself. Default: none is sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_file: Option<FilePath>,
    /// "verify-full" or "off".
    #[serde(default)]
    pub tls: Tls,
    /// Trust anchors, PEM. Default: the system's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<FilePath>,
    /// The only cluster this may be. Default: learned when first seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system_identifier: Option<Cluster>,
    /// Whether each probe writes a heartbeat row; else it only reads.
    #[serde(default = "yes")]
    pub heartbeat: bool,
    /// How often and how patiently it is probed, in every region.
    #[serde(flatten)]
    pub watch: Watch,
    /// Where its member in each region listens.
    pub endpoint: ByRegion<HostPort>,
    /// How its members in the other regions reach the one in each region. Default: as `endpoint` says.
    #[serde(default, skip_serializing_if = "ByRegion::is_empty")]
    pub replication: ByRegion<HostPort>,
    /// How `lifeboat host` is run beside its member in each region, to salvage it and make it a standby again.
    #[serde(default, skip_serializing_if = "ByRegion::is_empty")]
    pub host: ByRegion<Host>,
    /// Its backups; none with `backup = []`. Default: nightly, with its log, to all archives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16))]
    pub backup: Option<Vec<Backup>>,
}

/// The kind of a database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum DatabaseKind {
    /// PostgreSQL 15 or newer, streaming replication.
    Postgres,
}

/// How a connection is protected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(inline)]
pub enum Tls {
    /// TLS; the certificate must be valid for the host.
    #[default]
    VerifyFull,
    /// In the clear.
    Off,
}

/// A real client: reached through DNS, it defines "recovered".
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Canary {
    /// What to ask for; its host is one of the workload's DNS names.
    pub url: HttpUrl,
    /// The resolver to ask. Default: the first resolver of the first DNS name, else its authoritative server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolver: Option<IpPort>,
    /// The status expected.
    #[serde(default = "ok")]
    #[schemars(range(min = 100, max = 599))]
    pub status: u16,
    /// Text that the body must contain, within its first 64 KiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub body: Option<String>,
    /// Trust anchors, PEM. Default: the system's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<FilePath>,
    /// How long one visit may take, 10ms to 10m.
    #[serde(default = "five_seconds")]
    #[schemars(extend("x-minimum" = "10ms", "x-maximum" = "10m"))]
    pub timeout: Length,
}

const fn yes() -> bool {
    true
}

const fn one() -> usize {
    1
}

const fn two() -> usize {
    2
}

const fn ok() -> u16 {
    200
}

fn five_seconds() -> Length {
    Length::seconds(5)
}

fn half_minute() -> Length {
    Length::seconds(30)
}

fn minute() -> Length {
    Length::seconds(60)
}

fn ten_minutes() -> Length {
    Length::seconds(600)
}

fn hour() -> Length {
    Length::seconds(3600)
}

fn day() -> Length {
    Length::seconds(86_400)
}
