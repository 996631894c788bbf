//! `lifeboat switchover`, `lifeboat failback` and `lifeboat rejoin`: moves that are planned.

use clap::Args;
use lifeboat_core::{Order, RegionName, WorkloadName};

use crate::cli::{Person, Place};
use crate::commands::following::{self, Waiting};
use crate::failure::{Exit, Failure};

/// Move a healthy workload to another region on purpose, losing nothing.
///
/// For maintenance of a region, or to practise. The primary is closed, the standby replays all of its log, and only
/// then it is promoted; clients cannot write in between. When the standby does not get there in time, the primary is
/// opened again and nothing has moved (exit 1). Refused (exit 5) while the standby could not take over.
///
/// The primary region is lost: `lifeboat failover`. Home again: `lifeboat failback`. What it would do, and how long
/// it would take: `lifeboat plan switchover`. On a stranded run to the same region, lets it go on.
#[derive(Debug, Args)]
pub(crate) struct Switchover {
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

impl Switchover {
    pub(crate) fn run(self, place: &Place) -> Result<Exit, Failure> {
        let (workload, to) = (WorkloadName::new(self.workload), RegionName::new(self.to));
        following::order(place, &Order::Switchover { workload, to, by: self.person.by }, self.waiting)
    }
}

/// Move a workload back to its home region, losing nothing.
///
/// A switchover to the region that the configuration calls primary. Refused (exit 5) until that region follows again,
/// and has done so for as long as `hold_down` says; the reason says what is missing, and for how long.
///
/// What it would do, and how long it would take: `lifeboat plan failback`. The home region does not follow yet:
/// `lifeboat rejoin`.
#[derive(Debug, Args)]
pub(crate) struct Failback {
    /// The workload.
    workload: String,
    #[command(flatten)]
    waiting: Waiting,
    #[command(flatten)]
    person: Person,
}

impl Failback {
    pub(crate) fn run(self, place: &Place) -> Result<Exit, Failure> {
        let workload = WorkloadName::new(self.workload);
        following::order(place, &Order::Failback { workload, by: self.person.by }, self.waiting)
    }
}

/// Make the databases of a region that returned standbys of the primary.
///
/// After a failover the old primary may hold writes that nobody else has. They are kept first (its log, and the rows
/// that can be read), then it is rewound, or copied anew where that cannot be done. It is needed when `rejoin =
/// "ordered"`, or when an automatic one failed. Refused (exit 5) without a command that reaches the region's hosts.
///
/// What it would do: `lifeboat plan rejoin WORKLOAD --to REGION`.
#[derive(Debug, Args)]
pub(crate) struct Rejoin {
    /// The workload.
    workload: String,
    /// The region that returned.
    #[arg(long, value_name = "REGION")]
    region: String,
    #[command(flatten)]
    waiting: Waiting,
    #[command(flatten)]
    person: Person,
}

impl Rejoin {
    pub(crate) fn run(self, place: &Place) -> Result<Exit, Failure> {
        let (workload, region) = (WorkloadName::new(self.workload), RegionName::new(self.region));
        following::order(place, &Order::Rejoin { workload, region, by: self.person.by }, self.waiting)
    }
}
