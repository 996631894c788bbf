//! `lifeboat runbook show`

use clap::Args;

use crate::cli::Place;
use crate::commands::load;
use crate::failure::{Exit, Failure};
use crate::{pages, ui};

/// Show the text of a page in force, yours or the shipped one: something to begin your own from.
#[derive(Debug, Args)]
pub(crate) struct Show {
    /// Which: failover, switchover, failback or rejoin.
    name: String,
}

impl Show {
    pub(crate) fn run(self, place: &Place) -> Result<Exit, Failure> {
        let folder = load(&place.config)?.config.wiring.agent.runbooks;
        let page = super::named(pages::all(folder.as_deref())?, &self.name)?;
        ui::answer(page.text.trim_end());
        Ok(Exit::Done)
    }
}
