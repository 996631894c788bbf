//! The newest epoch that this host has obeyed for a database.
//!
//! **Invariant:** an older epoch, or the same from another agent, is refused before anything is touched; a newer one
//! is on disk before anything is touched.

use std::path::Path;

use lifeboat_core::{AgentName, Epoch, Fault, FaultKind};
use serde::{Deserialize, Serialize};

use crate::host::durable;

/// Whom the host obeys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Obeyed {
    pub(super) epoch: Epoch,
    pub(super) agent: AgentName,
}

/// What the file says; none when nobody was obeyed yet.
pub(super) fn newest(path: &Path) -> Result<Option<Obeyed>, Fault> {
    durable::read(path)
}

/// Obeys `agent` in `epoch` from now on. A repeat changes nothing.
///
/// # Errors
/// `Stale` when the host has obeyed a newer epoch, or the same of another agent.
pub(super) fn obey(path: &Path, epoch: Epoch, agent: &AgentName) -> Result<(), Fault> {
    let asked = Obeyed { epoch, agent: agent.clone() };
    match newest(path)? {
        Some(obeyed) if obeyed == asked => return Ok(()),
        Some(obeyed) if obeyed.epoch >= epoch => {
            let detail = format!(
                "this host obeys epoch {} of agent {}, and was asked under epoch {epoch} by {agent}",
                obeyed.epoch, obeyed.agent
            );
            return Err(Fault::new(FaultKind::Stale, detail));
        }
        Some(_) | None => {}
    }
    durable::record(path, &asked)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_newer_epoch_or_the_same_agent_is_obeyed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("orders.epoch");
        let obey = |epoch, agent: &str| obey(&path, Epoch::new(epoch), &AgentName::new(agent));
        obey(7, "bastion").unwrap();
        obey(7, "bastion").unwrap();
        assert_eq!(obey(7, "other").unwrap_err().kind, FaultKind::Stale);
        assert_eq!(obey(6, "bastion").unwrap_err().kind, FaultKind::Stale);
        obey(8, "other").unwrap();
        assert_eq!(newest(&path).unwrap().unwrap().epoch, Epoch::new(8));
        std::fs::write(&path, "{\"epo").unwrap();
        assert_eq!(obey(9, "other").unwrap_err().kind, FaultKind::Refused);
    }
}
