//! `lifeboat runbook`

mod check;
pub(crate) mod list;
mod render;
mod show;

use clap::Subcommand;
use lifeboat_core::Stamped;

use crate::cli::Place;
use crate::client;
use crate::commands::talk;
use crate::failure::{Exit, Failure};
use crate::pages::Page;

#[derive(Debug, Subcommand)]
pub(crate) enum Runbook {
    List(list::List),
    Show(show::Show),
    Check(check::Check),
    Render(render::Render),
}

impl Runbook {
    pub(crate) fn run(self, place: &Place) -> Result<Exit, Failure> {
        match self {
            Self::List(list) => list.run(place),
            Self::Show(show) => show.run(place),
            Self::Check(check) => check.run(place),
            Self::Render(render) => render.run(place),
        }
    }
}

/// What is on record here; none when neither the agent nor its journal can be read.
fn records(place: &Place) -> Result<Option<Vec<Stamped>>, Failure> {
    match talk(client::records(place)) {
        Ok(records) => Ok(Some(records)),
        Err(failure) if failure.exit == Exit::Unreachable => Ok(None),
        Err(failure) => Err(failure),
    }
}

/// The page of a name.
fn named(pages: Vec<Page>, name: &str) -> Result<Page, Failure> {
    let known: Vec<&str> = pages.iter().map(|page| page.runbook.name.as_str()).collect();
    let hint = format!("there are: {}", known.join(", "));
    let found = pages.into_iter().find(|page| page.runbook.name == name);
    found.ok_or_else(|| Failure::new(Exit::Usage, format!("no runbook is named {name}")).hint(hint))
}
