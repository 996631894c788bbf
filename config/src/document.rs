//! The document: every key of `lifeboat.toml`, once. The JSON Schema, the checks of floor three and
//! `lifeboat config show` are all made from these types.
//!
//! **Invariant:** every key has a doc comment, which is its description in the schema; ranges that one value
//! can break on its own stand here as schema keywords, not in the rules.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::form::{FilePath, HostPort, IpPort, Label};
use crate::length::Length;

pub mod archive;
pub mod authority;
pub mod dns;
pub mod lease;
pub mod probe;
pub mod upkeep;
pub mod workload;

use archive::Archive;
use authority::Authority;
use lease::{Lease, ListedAgent};
use workload::Workload;

/// lifeboat.toml: what is protected, where it may move, and when to act.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Document {
    /// This process.
    pub agent: Agent,
    /// Who may decide.
    #[serde(default)]
    pub lease: Lease,
    /// All agents that share the record, this one too. None with lease "embedded".
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub agents: Vec<ListedAgent>,
    /// Where alerts go. Default: the log.
    #[serde(default = "log_only", skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub notify: Vec<Notify>,
    /// The places that fail as one.
    #[schemars(length(min = 2, max = 64))]
    #[serde(rename = "region")]
    pub regions: Vec<Region>,
    /// Where backups are kept. Every database is backed up to all of them, unless it says otherwise.
    #[schemars(length(max = 16))]
    #[serde(rename = "archive", default, skip_serializing_if = "Vec::is_empty")]
    pub archives: Vec<Archive>,
    /// The DNS zone that lifeboat answers for itself. Leave it out when all names use "rfc2136".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authority: Option<Authority>,
    /// What is protected as one: databases, DNS names, compute.
    #[schemars(length(min = 1, max = 1000))]
    #[serde(rename = "workload")]
    pub workloads: Vec<Workload>,
}

/// This process.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Agent {
    /// How this agent signs what it does.
    pub name: Label,
    /// The region the agent runs in. One that is alone should not be in the primary; of several, one may be in a place of
    /// its own, with any other word for a name.
    pub region: Label,
    /// Folder of the journal; created with mode 0700.
    pub state: FilePath,
    /// Unix socket of the control API. Default: "lifeboat.sock" in the state folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub socket: Option<FilePath>,
    /// Where this agent listens to the other agents and to the sentries, over TCP. Default: nowhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listen: Option<IpPort>,
    /// File with the key that this agent signs with; made when it is missing. Default: "agent.key" in the state folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_file: Option<FilePath>,
    /// Folder of your own runbooks: each *.toml in it replaces the shipped page of its kind. Default: the shipped ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runbooks: Option<FilePath>,
    /// Places that answer whenever this agent's own network works, over TCP. When fewer than `witness_quorum` of
    /// them answer, this agent abstains: what it cannot see proves nothing about the primary.
    #[serde(default)]
    #[schemars(length(max = 32), extend("uniqueItems" = true))]
    pub witnesses: Vec<HostPort>,
    /// How many witnesses must answer. Default: more than half of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 32))]
    pub witness_quorum: Option<usize>,
    /// Time between two looks at the witnesses, 100ms to 1h.
    #[serde(default = "five_seconds")]
    #[schemars(extend("x-minimum" = "100ms", "x-maximum" = "1h"))]
    pub witness_interval: Length,
    /// How long one look at a witness may take, 10ms to 10m.
    #[serde(default = "three_seconds")]
    #[schemars(extend("x-minimum" = "10ms", "x-maximum" = "10m"))]
    pub witness_timeout: Length,
}

impl Agent {
    /// `witness_quorum`, or more than half of the witnesses.
    pub fn quorum(&self) -> usize {
        self.witness_quorum.unwrap_or(self.witnesses.len() / 2 + 1)
    }

    /// `socket`, or "lifeboat.sock" in the state folder.
    pub fn socket_path(&self) -> std::path::PathBuf {
        let own = self.socket.as_ref().map(|s| s.as_path().to_owned());
        own.unwrap_or_else(|| self.state.as_path().join("lifeboat.sock"))
    }

    /// `key_file`, or "agent.key" in the state folder.
    pub fn key_path(&self) -> std::path::PathBuf {
        lease::key_file(self.key_file.as_ref(), &self.state)
    }
}

/// One place alerts go to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Notify {
    /// "log": alerts go to the log.
    pub kind: NotifyKind,
}

/// How an alert is delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum NotifyKind {
    /// A line in the log.
    Log,
}

/// A place that fails as one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Region {
    /// Its name, by which all other keys refer to it.
    pub name: Label,
}

fn log_only() -> Vec<Notify> {
    vec![Notify { kind: NotifyKind::Log }]
}

fn three_seconds() -> Length {
    Length::seconds(3)
}

fn five_seconds() -> Length {
    Length::seconds(5)
}

/// Values by region.
pub type ByRegion<T> = BTreeMap<String, T>;
