//! Telling people through the log: for now the only way.

use async_trait::async_trait;
use lifeboat_core::{Fault, Notice, Severity};
use lifeboat_engine::ports::Notify;
use tracing::{error, info, warn};

/// Notices become log lines, so that whatever reads the log can page someone.
pub(crate) struct LogNotify;

#[async_trait]
impl Notify for LogNotify {
    async fn notify(&self, notice: &Notice) -> Result<(), Fault> {
        let (workload, reason) = (&notice.workload, &notice.reason);
        let run = notice.run.as_ref().map(tracing::field::display);
        match notice.severity {
            Severity::Info => info!(target: "notice", %workload, run, "{reason}"),
            Severity::Warning => warn!(target: "notice", %workload, run, "{reason}"),
            Severity::Critical => error!(target: "notice", %workload, run, "{reason}"),
        }
        Ok(())
    }
}
