//! `lifeboat approve` and `lifeboat abandon`: the two answers to a run that waits.

use clap::Args;
use lifeboat_core::order::Acceptance;
use lifeboat_core::{Order, RunId};

use crate::cli::{Person, Place};
use crate::client::Client;
use crate::commands::{answered, talk};
use crate::failure::{Exit, Failure};

/// Answer the question that a run has asked.
///
/// Without an --accept option it shows the question, its numbers and the command that accepts, and
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
    /// Accept that this step is done, where the runbook asks before it.
    #[arg(long, value_name = "STEP", conflicts_with_all = ["accept_loss", "accept_unfenced"])]
    accept_step: Option<String>,
    #[command(flatten)]
    person: Person,
}

impl Approve {
    pub(crate) fn run(self, place: &Place) -> Result<Exit, Failure> {
        let loss = self.accept_loss.map(Acceptance::Loss);
        let accept = loss.or(self.accept_unfenced.map(Acceptance::Unfenced));
        let accept = accept.or(self.accept_step.map(Acceptance::Step));
        let order = Order::Approve { run: RunId::new(self.run), accept, by: self.person.by };
        let client = Client::of(place)?;
        answered(talk(client.order(&order))?)
    }
}

/// Give up a run that waits for a person, or is stranded.
///
/// What it did stays done: a fenced primary stays fenced, a promoted standby stays promoted, names are not moved back.
/// Look first (`lifeboat explain RUN`). Afterwards the workload is guarded again where it lives on record, and may take
/// writes there: once a promotion was begun it is refused (exit 5) until the standby is seen to be one still.
#[derive(Debug, Args)]
pub(crate) struct Abandon {
    /// The run, as `lifeboat status` shows it.
    run: String,
    /// Why, for the record.
    #[arg(long)]
    reason: String,
    /// Say that this region, which was to take over and cannot be looked at, is no primary and never will be.
    #[arg(long, value_name = "REGION")]
    accept_unfenced: Option<String>,
    #[command(flatten)]
    person: Person,
}

impl Abandon {
    pub(crate) fn run(self, place: &Place) -> Result<Exit, Failure> {
        let accept = self.accept_unfenced.map(Acceptance::Unfenced);
        let order =
            Order::Abandon { run: RunId::new(self.run), reason: self.reason, accept, by: self.person.by };
        let client = Client::of(place)?;
        answered(talk(client.order(&order))?)
    }
}
