//! `chaos list`: the scenarios, a line each.

use lifeboat_chaos::scenario;

use crate::ui;

/// Lists the scenarios: a name and a sentence each.
#[derive(Debug, clap::Args)]
pub(crate) struct List {}

impl List {
    pub(crate) fn run(&self) -> anyhow::Result<u8> {
        let all = scenario::shipped()?;
        let width = all.iter().map(|scenario| scenario.name.len()).max().unwrap_or_default();
        for scenario in all {
            ui::line(&format!("{:<width$}  {}", scenario.name, scenario.about));
        }
        Ok(0)
    }
}
