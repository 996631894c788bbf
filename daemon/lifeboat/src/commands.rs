//! The verbs, one file each, and what several of them share.

pub(crate) mod approve;
pub(crate) mod archive;
pub(crate) mod backup;
pub(crate) mod check;
pub(crate) mod config;
pub(crate) mod explain;
pub(crate) mod failover;
pub(crate) mod following;
pub(crate) mod history;
pub(crate) mod host;
pub(crate) mod key;
pub(crate) mod moving;
pub(crate) mod pause;
pub(crate) mod plan;
pub(crate) mod restore;
pub(crate) mod run;
pub(crate) mod runbook;
pub(crate) mod sentry;
pub(crate) mod share;
pub(crate) mod status;
pub(crate) mod steering;
pub(crate) mod wal;

use std::future::Future;
use std::path::Path;

use lifeboat_config::{Config, Loaded, Problems, Severity};
use lifeboat_core::Answer;

use crate::failure::{Exit, Failure};
use crate::ui;

/// The name an order carries when none is given: who called `sudo`, or who is logged in.
pub(crate) fn who() -> String {
    let named = ["SUDO_USER", "USER", "LOGNAME"].iter().filter_map(|key| std::env::var(key).ok());
    named.into_iter().find(|name| !name.is_empty()).unwrap_or_else(|| "unknown".to_owned())
}

/// Reads the configuration, or says everything that is wrong with it.
pub(crate) fn load(path: &Path) -> Result<Loaded, Failure> {
    Config::load(path).map_err(|problems| {
        report(&problems);
        let errors = problems.count(Severity::Error);
        let plural = if errors == 1 { "error" } else { "errors" };
        Failure::new(Exit::Config, format!("{} cannot be used: {errors} {plural}", path.display()))
    })
}

/// Prints problems, one after the other.
pub(crate) fn report(problems: &Problems) {
    if !problems.is_empty() {
        ui::note(problems.to_string().trim_end());
    }
}

/// Runs a command's conversation with the agent.
pub(crate) fn talk<T>(conversation: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::because(Exit::Failed, "cannot start", &error))?;
    runtime.block_on(conversation)
}

/// Prints the answer to an order.
pub(crate) fn answered(answer: Answer) -> Result<Exit, Failure> {
    match answer {
        Answer::Accepted { text, .. } => {
            ui::answer(&text);
            Ok(Exit::Done)
        }
        Answer::Refused { reason } => Err(Failure {
            causes: vec![reason.to_string()],
            ..Failure::new(Exit::Refused, "refused, nothing was touched")
        }),
    }
}
