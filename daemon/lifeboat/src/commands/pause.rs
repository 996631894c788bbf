//! `lifeboat pause` and `lifeboat resume`

use clap::Args;
use lifeboat_config::Length;
use lifeboat_core::{Order, WorkloadName};
use lifeboat_engine::clock::Clock;

use crate::cli::{Person, Place};
use crate::client::Client;
use crate::commands::{answered, talk};
use crate::failure::{Exit, Failure};

/// Take no automatic action for a while: for maintenance, or to think.
///
/// The workload is still watched and people are still told. A run that is open goes on. The pause ends by itself.
#[derive(Debug, Args)]
pub(crate) struct Pause {
    /// The workload.
    workload: String,
    /// Why, for whoever looks next.
    #[arg(long)]
    reason: String,
    /// For how long: "30m", "2h", "1d".
    #[arg(long = "for", value_name = "DURATION", value_parser = length)]
    length: Length,
    #[command(flatten)]
    person: Person,
}

/// Act automatically again.
#[derive(Debug, Args)]
pub(crate) struct Resume {
    /// The workload.
    workload: String,
    #[command(flatten)]
    person: Person,
}

/// A duration as lifeboat.toml writes it.
fn length(text: &str) -> Result<Length, String> {
    serde_json::from_value(serde_json::Value::from(text)).map_err(|error| error.to_string())
}

impl Pause {
    pub(crate) fn run(self, place: &Place) -> Result<Exit, Failure> {
        let until = Clock::start().now() + self.length.0;
        let (workload, by) = (WorkloadName::new(self.workload), self.person.by);
        let client = Client::of(place)?;
        answered(talk(client.order(&Order::Pause { workload, reason: self.reason, until, by }))?)
    }
}

impl Resume {
    pub(crate) fn run(self, place: &Place) -> Result<Exit, Failure> {
        let (workload, by) = (WorkloadName::new(self.workload), self.person.by);
        let client = Client::of(place)?;
        answered(talk(client.order(&Order::Resume { workload, by }))?)
    }
}
