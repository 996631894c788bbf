//! `lifeboat failover`

use std::time::Duration;

use clap::Args;
use lifeboat_core::record::Ending;
use lifeboat_core::{Answer, Order, Record, RegionName, RunId, WorkloadName};

use crate::cli::{Person, Place};
use crate::client::Client;
use crate::commands::{answered, talk};
use crate::failure::{Exit, Failure};
use crate::ui;

/// Move a workload whose primary region is lost to a standby region.
///
/// Refused (exit 5) while the primary is healthy: moving a healthy workload is a switchover. The loss is measured and
/// the old primary fenced first; where the loss is above the RPO objective or the fence cannot be proven, the run asks
/// and waits (`lifeboat approve`). On a stranded run to the same region, lets it go on from the step that failed.
#[derive(Debug, Args)]
pub(crate) struct Failover {
    /// The workload.
    workload: String,
    /// Where to.
    #[arg(long, value_name = "REGION")]
    to: String,
    /// Return as soon as the run is open, instead of showing it until it ends.
    #[arg(long)]
    no_wait: bool,
    #[command(flatten)]
    person: Person,
}

impl Failover {
    pub(crate) fn run(self, place: &Place) -> Result<Exit, Failure> {
        let client = Client::of(place)?;
        let (workload, to) = (WorkloadName::new(self.workload), RegionName::new(self.to));
        let order = Order::Failover { workload, to, by: self.person.by };
        talk(async {
            let seen = client.records(0).await?.last().map_or(0, |stamped| stamped.sequence);
            let answer = client.order(&order).await?;
            let run = match &answer {
                Answer::Accepted { run, .. } => run.clone(),
                Answer::Refused { .. } => None,
            };
            let exit = answered(answer)?;
            match run.filter(|_| !self.no_wait) {
                Some(run) => follow(&client, &run, seen).await,
                None => Ok(exit),
            }
        })
    }
}

/// How often the record is looked at.
const AGAIN: Duration = Duration::from_millis(200);

/// Prints each record of a run until it ends or needs a person.
async fn follow(client: &Client, run: &RunId, mut seen: u64) -> Result<Exit, Failure> {
    loop {
        for stamped in client.records(seen).await? {
            seen = stamped.sequence;
            if stamped.record.run() != Some(run) {
                continue;
            }
            ui::answer(&format!("{}  {}", stamped.at, stamped.record));
            match stamped.record {
                Record::RunEnded { ending: Ending::Done, .. } => return Ok(Exit::Done),
                Record::RunEnded { .. } => return Ok(Exit::Failed),
                Record::Stranded { .. } | Record::Asked { .. } => return Ok(Exit::Stranded),
                _ => {}
            }
        }
        tokio::time::sleep(AGAIN).await;
    }
}
