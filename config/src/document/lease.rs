//! `[lease]` and `[[agents]]`: who may decide, where the shared record is, and who takes part.
//!
//! **Invariant:** every agent's document names the same agents with the same keys: what one says is believed by its key.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::form::{FilePath, HostPort, HttpUrl, Label};
use crate::key::PublicKey;
use crate::length::Length;

/// Who may decide.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Lease {
    /// One agent decides; its record is the journal in `state`.
    Embedded(EmbeddedLease),
    /// Several agents share etcd: one of them decides, and another one when it is gone.
    Etcd(EtcdLease),
    /// Replicas of a Deployment share the Kubernetes API.
    Kubernetes(KubernetesLease),
}

impl Default for Lease {
    fn default() -> Self {
        Self::Embedded(EmbeddedLease {})
    }
}

impl Lease {
    /// How long the right to decide lasts without being renewed; none for an agent that is alone.
    pub const fn ttl(&self) -> Option<Length> {
        match self {
            Self::Embedded(_) => None,
            Self::Etcd(etcd) => Some(etcd.ttl),
            Self::Kubernetes(kubernetes) => Some(kubernetes.ttl),
        }
    }

    /// The word that says which it is.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Embedded(_) => "embedded",
            Self::Etcd(_) => "etcd",
            Self::Kubernetes(_) => "kubernetes",
        }
    }
}

/// One agent decides; its record is the journal in `state`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline, deny_unknown_fields)]
pub struct EmbeddedLease {}

/// Several agents share etcd: one of them decides, and another one when it is gone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline, deny_unknown_fields)]
pub struct EtcdLease {
    /// What these agents are together: the same for all of them, and unlike others in the same etcd.
    #[serde(default = "lifeboat")]
    pub cluster: Label,
    /// Where the members of etcd listen to clients; each in a place that fails by itself.
    #[schemars(length(min = 1, max = 16), extend("uniqueItems" = true))]
    pub endpoints: Vec<HttpUrl>,
    /// Trust anchors for etcd's certificates, PEM. Needed for https.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<FilePath>,
    /// This agent's own certificate, PEM, where etcd asks for one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cert_file: Option<FilePath>,
    /// File with the key of that certificate, PEM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_file: Option<FilePath>,
    /// The user of etcd, where it asks for one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub user: Option<String>,
    /// File with that user's password: one line; never the password itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_file: Option<FilePath>,
    /// How long the right to decide lasts without being renewed, whole seconds from 2s to 1m.
    #[serde(default = "ttl")]
    #[schemars(extend("x-minimum" = "2s", "x-maximum" = "1m", "x-whole-seconds" = "etcd"))]
    pub ttl: Length,
}

/// Replicas of a Deployment share the Kubernetes API.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline, deny_unknown_fields)]
pub struct KubernetesLease {
    /// The namespace of the Lease and of the record.
    pub namespace: Label,
    /// What the Lease and the record are called: the same for all of these agents.
    #[serde(default = "lifeboat")]
    pub name: Label,
    /// How an agent outside of the cluster reaches the API; default: the service account of its pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kubeconfig: Option<FilePath>,
    /// How long the right to decide lasts without being renewed, whole seconds from 2s to 1m.
    #[serde(default = "ttl")]
    #[schemars(extend("x-minimum" = "2s", "x-maximum" = "1m", "x-whole-seconds" = "Kubernetes"))]
    pub ttl: Length,
}

/// One of the agents that share the record, this one too.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct ListedAgent {
    /// Its name, as its own `agent.name` says.
    pub name: Label,
    /// The place it fails with: a region, or any other word for a place of its own.
    pub region: Label,
    /// Where the other agents and the sentries reach it.
    pub address: HostPort,
    /// Its public key, as `lifeboat key` prints it there.
    pub public_key: PublicKey,
}

/// A sentry beside the databases of a region.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Sentry {
    /// Its public key, as `lifeboat sentry --key` prints it there.
    pub key: PublicKey,
}

/// The agent's key file when none is named.
pub(crate) fn key_file(own: Option<&FilePath>, state: &FilePath) -> PathBuf {
    own.map_or_else(|| state.as_path().join("agent.key"), |file| file.as_path().to_owned())
}

fn lifeboat() -> Label {
    Label::known("lifeboat")
}

fn ttl() -> Length {
    Length::seconds(5)
}
