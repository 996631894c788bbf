//! Giving an order that opens a run, and showing the run until it ends or needs a person.

use std::time::Duration;

use clap::Args;
use lifeboat_core::record::Ending;
use lifeboat_core::{Answer, Order, Record, RunId};

use crate::cli::Place;
use crate::client::Client;
use crate::commands::{answered, talk};
use crate::failure::{Exit, Failure};
use crate::ui;

/// Whether to stay.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct Waiting {
    /// Return as soon as the run is open, instead of showing it until it ends.
    #[arg(long)]
    no_wait: bool,
}

/// How often the record is looked at.
const AGAIN: Duration = Duration::from_millis(200);

/// Gives the order, and shows the run it opens or lets go on.
pub(crate) fn order(place: &Place, order: &Order, waiting: Waiting) -> Result<Exit, Failure> {
    let client = Client::of(place)?;
    talk(async {
        let seen = client.records(0).await?.last().map_or(0, |stamped| stamped.sequence);
        let answer = client.order(order).await?;
        let run = match &answer {
            Answer::Accepted { run, .. } => run.clone(),
            Answer::Refused { .. } => None,
        };
        let exit = answered(answer)?;
        match run.filter(|_| !waiting.no_wait) {
            Some(run) => follow(&client, &run, seen).await,
            None => Ok(exit),
        }
    })
}

/// Prints each record of a run until it ends or needs a person.
async fn follow(client: &Client, run: &RunId, mut seen: u64) -> Result<Exit, Failure> {
    loop {
        for stamped in client.records(seen).await? {
            seen = stamped.sequence;
            if stamped.record.run() != Some(run) {
                continue;
            }
            ui::answer(&format!("{}  {}", stamped.at, stamped.record));
            if let Some(exit) = exit(&stamped.record) {
                if exit == Exit::Stranded {
                    ui::note(&format!("a person is needed: lifeboat status; lifeboat explain {run}"));
                }
                return Ok(exit);
            }
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// What a record means for whoever waits; nothing while the run goes on.
fn exit(record: &Record) -> Option<Exit> {
    match record {
        Record::RunEnded { ending: Ending::Done, .. } => Some(Exit::Done),
        Record::RunEnded { ending: Ending::Undone, .. } => {
            ui::note("what was done was taken back: the workload lives where it did, and takes writes there");
            Some(Exit::Failed)
        }
        Record::RunEnded { .. } => Some(Exit::Failed),
        Record::Stranded { .. } | Record::Asked { .. } => Some(Exit::Stranded),
        _ => None,
    }
}
