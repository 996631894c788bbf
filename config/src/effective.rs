//! The document as it is in effect: every key, with defaults filled in (`lifeboat config show`).
//!
//! **Invariant:** what is shown is a document that loads to the same policy and wiring.

use crate::config::Loaded;
use crate::document::Document;
use crate::form::FilePath;
use crate::wiring::canary_resolver;

impl Loaded {
    /// The document with all defaults written out, also those that depend on other keys.
    pub fn effective(&self) -> Document {
        let mut document = self.document.clone();
        let agent = &mut document.agent;
        agent.socket = FilePath::read(&agent.socket_path().to_string_lossy()).ok();
        agent.key_file = FilePath::read(&agent.key_path().to_string_lossy()).ok();
        agent.witness_quorum = Some(agent.quorum());
        let agents = document.agents.len();
        if let Some(authority) = &mut document.authority {
            authority.hostmaster = crate::form::Fqdn::read(&authority.rname()).ok();
        }
        for workload in &mut document.workloads {
            workload.failover.quorum = Some(workload.failover.quorum_of(agents));
            workload.failover.outside = Some(workload.failover.outside_of(agents));
            let resolver = canary_resolver(workload, document.authority.as_ref());
            if let Some(canary) = &mut workload.canary {
                canary.resolver = resolver;
            }
        }
        document
    }

    /// [`Loaded::effective`] as TOML. It holds no secrets, only the files they are in.
    ///
    /// # Errors
    ///
    /// None that a test knows of; the serializer's own.
    pub fn effective_toml(&self) -> Result<String, toml::ser::Error> {
        toml::to_string_pretty(&self.effective())
    }

    /// [`Loaded::effective`] as JSON.
    ///
    /// # Errors
    ///
    /// None that a test knows of; the serializer's own.
    pub fn effective_json(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string_pretty(&self.effective())
    }
}
