//! `lifeboat runbook render`

use std::path::PathBuf;

use clap::Args;
use lifeboat_config::Config;
use lifeboat_core::guardian::Guardian;
use lifeboat_core::plan::NameChange;
use lifeboat_core::{RegionName, WorkloadName};

use crate::cli::Place;
use crate::commands::load;
use crate::failure::{Exit, Failure};
use crate::view::runbook::page::Sheet;
use crate::{pages, plug, ui};

/// Write a procedure down as Markdown that a person can follow by hand when lifeboat itself is gone.
///
/// Made from the configuration alone: each step with its real commands, what they must show, and what to do when they do
/// not. With an agent or its journal, also from where to where, and how long each step took. No secret is in it.
#[derive(Debug, Args)]
pub(crate) struct Render {
    /// Which: failover, switchover, failback or rejoin.
    name: String,
    /// The workload.
    #[arg(long, value_name = "NAME")]
    workload: String,
    /// Where to; of a rejoin, which region returns [default: the first standby; of a failback or rejoin, home].
    #[arg(long, value_name = "REGION")]
    to: Option<String>,
    /// Write it to this file, and not to standard output.
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

impl Render {
    pub(crate) fn run(self, place: &Place) -> Result<Exit, Failure> {
        let text = self.text(place)?;
        match &self.output {
            None => {
                ui::answer(&text);
            }
            Some(path) => {
                let failed = |error: std::io::Error| {
                    Failure::because(Exit::Failed, format!("{} cannot be written", path.display()), &error)
                };
                std::fs::write(path, text + "\n").map_err(failed)?;
                ui::note(&format!("written to {}", path.display()));
            }
        }
        Ok(Exit::Done)
    }

    fn text(&self, place: &Place) -> Result<String, Failure> {
        let Config { policy, wiring } = load(&place.config)?.config;
        let folder = wiring.agent.runbooks.as_deref();
        let page = super::named(pages::all(folder)?, &self.name)?;
        let runbooks = pages::in_force(folder)?;
        let records = super::records(place)?;
        let guardian = Guardian::restore(
            policy.clone(),
            runbooks,
            env!("CARGO_PKG_VERSION"),
            records.as_deref().unwrap_or_default(),
        );
        let name = WorkloadName::new(&self.workload);
        let region = self.to.as_ref().map(RegionName::new);
        let bound = guardian.by_hand(page.runbook.kind, &name, region.as_ref()).map_err(|reason| {
            let text = format!("{} of {name} cannot be written down", self.name);
            Failure { causes: vec![reason.to_string()], ..Failure::new(Exit::Usage, text) }
        })?;
        let (Some(own_policy), Some(own_wiring)) = (policy.workloads.get(&name), wiring.workloads.get(&name))
        else {
            return Err(Failure::new(Exit::Usage, format!("no workload {name} in the configuration")));
        };
        let says: Vec<NameChange> = own_policy
            .names
            .iter()
            .map(|(dns, written)| NameChange {
                name: dns.clone(),
                from: written.targets.get(&bound.plan.from).cloned().unwrap_or_default(),
                to: written.targets.get(&bound.plan.to).cloned().unwrap_or_default(),
                ttl: written.ttl,
            })
            .collect();
        let zone = plug::zone_file(&wiring, &policy, &guardian, &says)?;
        let lives = guardian.beliefs().remove(&name).map(|(region, _)| region);
        let lives = lives.unwrap_or_else(|| own_policy.home.clone());
        let sheet = Sheet::new(
            (&page.runbook, &bound),
            (&wiring, own_wiring, own_policy),
            zone,
            (lives, records.is_some()),
        );
        Ok(sheet.render())
    }
}
