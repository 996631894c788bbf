//! `lifeboat plan`

use clap::{Args, Subcommand};
use lifeboat_core::plan::Kind;
use lifeboat_core::{RegionName, WorkloadName};

use crate::api::Planned;
use crate::cli::{Format, Place};
use crate::client::Client;
use crate::commands::talk;
use crate::failure::{Exit, Failure};
use crate::{ui, view};

#[derive(Debug, Subcommand)]
pub(crate) enum Plan {
    /// Show what a failover would do, step by step, bound to names, and how long it would take.
    Failover(Wanted),
    /// Show what a planned move would do.
    Switchover(Wanted),
    /// Show what a move home would do.
    Failback(Wanted),
    /// Show how the databases of a region would be made standbys.
    Rejoin(Wanted),
}

#[derive(Debug, Args)]
pub(crate) struct Wanted {
    /// The workload.
    workload: String,
    /// Where to; of a rejoin, which region [default: the first standby region that answers].
    #[arg(long, value_name = "REGION")]
    to: Option<String>,
    #[command(flatten)]
    format: Format,
}

impl Plan {
    pub(crate) fn run(self, place: &Place) -> Result<Exit, Failure> {
        let (kind, wanted) = match self {
            Self::Failover(wanted) => (Kind::Failover, wanted),
            Self::Switchover(wanted) => (Kind::Switchover, wanted),
            Self::Failback(wanted) => (Kind::Failback, wanted),
            Self::Rejoin(wanted) => (Kind::Rejoin, wanted),
        };
        let (workload, to) = (WorkloadName::new(wanted.workload), wanted.to.map(RegionName::new));
        let client = Client::of(place)?;
        let _taken = match talk(client.plan(kind, &workload, to.as_ref()))? {
            planned @ Planned::Plan { .. } if wanted.format.json => ui::json(&planned),
            Planned::Plan { plan, forecast } => ui::answer(view::plan::page(&plan, &forecast).trim_end()),
            Planned::Refused { reason } => {
                let failure = Failure::new(Exit::Refused, format!("there is no plan for {workload}"));
                return Err(Failure { causes: vec![reason.to_string()], ..failure });
            }
        };
        Ok(Exit::Done)
    }
}
