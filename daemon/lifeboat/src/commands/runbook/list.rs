//! `lifeboat runbook list`

use std::path::PathBuf;

use clap::Args;
use lifeboat_core::plan::Kind;
use serde::Serialize;

use crate::cli::{Format, Place};
use crate::commands::load;
use crate::failure::{Exit, Failure};
use crate::pages::{self, Page};
use crate::summary::{self, RunSummary};
use crate::{ui, view};

/// List the pages in force.
///
/// The shipped ones, and yours in their place; with when each last ran here, how it ended and how long it took, from the
/// agent or its journal.
#[derive(Debug, Args)]
pub(crate) struct List {
    #[command(flatten)]
    format: Format,
}

/// What is listed.
#[derive(Serialize)]
pub(crate) struct Listed {
    /// Whether the agent or its journal was read; otherwise nothing is known of runs.
    pub(crate) record_read: bool,
    pub(crate) pages: Vec<ListedPage>,
}

/// One page.
#[derive(Serialize)]
pub(crate) struct ListedPage {
    pub(crate) name: String,
    pub(crate) kind: Kind,
    pub(crate) title: String,
    /// The operator's file; none: the page is shipped.
    pub(crate) file: Option<PathBuf>,
    pub(crate) last_run: Option<RunSummary>,
}

impl List {
    pub(crate) fn run(self, place: &Place) -> Result<Exit, Failure> {
        let folder = load(&place.config)?.config.wiring.agent.runbooks;
        let pages = pages::all(folder.as_deref())?;
        let records = super::records(place)?;
        let mut runs = records.as_deref().map(summary::runs).unwrap_or_default();
        let listed = |page: Page| {
            // A page's name is its kind's, so a run knows its page for ever.
            let last = runs.iter().rposition(|run| run.runbook == page.runbook.name);
            ListedPage {
                name: page.runbook.name,
                kind: page.runbook.kind,
                title: page.runbook.title,
                file: page.file,
                last_run: last.map(|place| runs.remove(place)),
            }
        };
        let pages: Vec<ListedPage> = pages.into_iter().map(listed).collect();
        let listed = Listed { record_read: records.is_some(), pages };
        let _taken = if self.format.json {
            ui::json(&listed)
        } else {
            ui::answer(view::runbook::list(&listed).trim_end())
        };
        Ok(Exit::Done)
    }
}
