//! The document as it is in effect: every key, with defaults filled in (`lifeboat config show`).
//!
//! **Invariant:** what is shown is a document that loads to the same policy and wiring.

use crate::archive::ArchivePlace;
use crate::config::Loaded;
use crate::document::Document;
use crate::form::FilePath;
use crate::wiring::{backups_of, canary_resolver};

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
        let archives = document.archives.clone();
        for archive in document.archives.iter_mut().filter(|a| matches!(a.place, ArchivePlace::S3(_))) {
            archive.path_style.get_or_insert_default();
        }
        for workload in &mut document.workloads {
            for database in workload.databases.iter_mut().filter(|_| !archives.is_empty()) {
                database.backup = Some(backups_of(database, &archives));
            }
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
