//! `lifeboat approve`

use clap::Args;
use lifeboat_core::order::Acceptance;
use lifeboat_core::{Order, RunId};

use crate::cli::{Person, Place};
use crate::client::Client;
use crate::commands::{answered, talk};
use crate::failure::{Exit, Failure};

/// Answer the question that a run has asked.
///
/// Without --accept-loss or --accept-unfenced it shows the question, its numbers and the command that accepts, and
/// touches nothing (exit 5). What is accepted must be repeated exactly, so that nobody accepts a number unseen.
#[derive(Debug, Args)]
pub(crate) struct Approve {
    /// The run, as `lifeboat status` shows it.
    run: String,
    /// Accept losing this much: the number as asked, for example "3612s", or "unknown".
    #[arg(long, value_name = "NUMBER", conflicts_with = "accept_unfenced")]
    accept_loss: Option<String>,
    /// Accept that the old primary in this region may still be taking writes.
    #[arg(long, value_name = "REGION")]
    accept_unfenced: Option<String>,
    #[command(flatten)]
    person: Person,
}

impl Approve {
    pub(crate) fn run(self, place: &Place) -> Result<Exit, Failure> {
        let loss = self.accept_loss.map(Acceptance::Loss);
        let accept = loss.or(self.accept_unfenced.map(Acceptance::Unfenced));
        let order = Order::Approve { run: RunId::new(self.run), accept, by: self.person.by };
        let client = Client::of(place)?;
        answered(talk(client.order(&order))?)
    }
}
