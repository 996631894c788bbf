//! `lifeboat failover`

use clap::Args;
use lifeboat_core::{Order, RegionName, WorkloadName};

use crate::cli::{Person, Place};
use crate::commands::following::{self, Waiting};
use crate::failure::{Exit, Failure};

/// Move a workload whose primary region is lost to a standby region.
///
/// Refused (exit 5) while the primary is healthy: moving a healthy workload is `lifeboat switchover`. The loss is measured and
/// the old primary fenced first; where the loss is above the RPO objective or the fence cannot be proven, the run asks
/// and waits (`lifeboat approve`). On a stranded run to the same region, lets it go on from the step that failed.
#[derive(Debug, Args)]
pub(crate) struct Failover {
    /// The workload.
    workload: String,
    /// Where to.
    #[arg(long, value_name = "REGION")]
    to: String,
    #[command(flatten)]
    waiting: Waiting,
    #[command(flatten)]
    person: Person,
}

impl Failover {
    pub(crate) fn run(self, place: &Place) -> Result<Exit, Failure> {
        let (workload, to) = (WorkloadName::new(self.workload), RegionName::new(self.to));
        following::order(place, &Order::Failover { workload, to, by: self.person.by }, self.waiting)
    }
}
