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
        // For whatever reads the log and must not decide on text.
        let value = serde_json::to_value(reason).unwrap_or_default();
        let (kind, question) = (value["kind"].as_str(), asked(&value));
        let run = notice.run.as_ref().map(tracing::field::display);
        match notice.severity {
            Severity::Info => info!(target: "notice", %workload, run, kind, question, "{reason}"),
            Severity::Warning => warn!(target: "notice", %workload, run, kind, question, "{reason}"),
            Severity::Critical => error!(target: "notice", %workload, run, kind, question, "{reason}"),
        }
        Ok(())
    }
}

/// The kind of the question that a reason asks.
fn asked(reason: &serde_json::Value) -> Option<&str> {
    reason["question"]["question"].as_str()
}
