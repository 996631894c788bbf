//! `lifeboat history`

use clap::Args;

use crate::cli::{Format, Place};
use crate::client;
use crate::commands::talk;
use crate::failure::{Exit, Failure};
use crate::{summary, ui, view};

/// List the runs on record, newest last. Works without the agent, from its journal.
#[derive(Debug, Args)]
pub(crate) struct History {
    /// Only this workload.
    workload: Option<String>,
    /// List who was elected to decide, and when, instead of the runs.
    #[arg(long, conflicts_with = "workload")]
    elections: bool,
    #[command(flatten)]
    format: Format,
}

impl History {
    pub(crate) fn run(self, place: &Place) -> Result<Exit, Failure> {
        let records = talk(client::records(place))?;
        if self.elections {
            let elections = summary::elections(&records);
            if self.format.json {
                ui::json(&elections);
            } else {
                ui::answer(view::history::elections(&elections).trim_end());
            }
            return Ok(Exit::Done);
        }
        let mut runs = summary::runs(&records);
        runs.retain(|run| self.workload.as_ref().is_none_or(|wanted| run.workload.as_str() == wanted));
        if self.format.json {
            ui::json(&runs);
        } else {
            ui::answer(view::history::page(&runs).trim_end());
        }
        Ok(Exit::Done)
    }
}
