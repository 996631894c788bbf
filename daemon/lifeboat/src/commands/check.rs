//! `lifeboat check`

mod network;

use clap::Args;
use lifeboat_config::Severity;

use crate::cli::Place;
use crate::commands::{load, report, talk};
use crate::failure::{Exit, Failure};
use crate::pages;
use crate::ui;

/// Say what is wrong with the configuration, all at once, each with its line, the rule it breaks and a hint.
///
/// Without --environment only the document and your own runbooks are read: no secret file needs to exist and nothing is contacted, so it can
/// run in CI. Exit 0 with warnings, 3 with errors.
#[derive(Debug, Args)]
pub(crate) struct Check {
    /// Also hold the document against this machine and the network: secret files, databases, name servers. Reads only.
    #[arg(long)]
    environment: bool,
}

impl Check {
    pub(crate) fn run(self, place: &Place) -> Result<Exit, Failure> {
        let loaded = load(&place.config)?;
        report(&loaded.warnings);
        pages::in_force(loaded.config.wiring.agent.runbooks.as_deref())?;
        let warnings = loaded.warnings.count(Severity::Warning);
        let plural = if warnings == 1 { "warning" } else { "warnings" };
        ui::answer(&format!("{}: no errors, {warnings} {plural}", place.config.display()));
        if !self.environment {
            return Ok(Exit::Done);
        }
        let local = lifeboat_config::environment(&loaded);
        report(&local);
        let findings = talk(network::look(&loaded.config.wiring))?;
        for finding in &findings {
            ui::answer(&finding.to_string());
        }
        let failed = local.count(Severity::Error) + findings.iter().filter(|f| f.failed()).count();
        match failed {
            0 => Ok(Exit::Done),
            1 => Err(Failure::new(Exit::Failed, "the environment is not ready: one finding")),
            _ => Err(Failure::new(Exit::Failed, format!("the environment is not ready: {failed} findings"))),
        }
    }
}
