//! `lifeboat cancel` and `lifeboat skip`: a person's hand on a run.

use clap::Args;
use lifeboat_core::{Order, RunId, StepName};

use crate::cli::{Person, Place};
use crate::client::Client;
use crate::commands::{answered, talk};
use crate::failure::{Exit, Failure};

/// Stop a run before its point of no return, and take back what it did.
///
/// Refused (exit 5) once a standby is being promoted: from there the only way is forward. A run that is stranded or
/// waits, and is to be left as it is: `lifeboat abandon`.
#[derive(Debug, Args)]
pub(crate) struct Cancel {
    /// The run, as `lifeboat status` shows it.
    run: String,
    /// Why, for the record.
    #[arg(long)]
    reason: String,
    #[command(flatten)]
    person: Person,
}

impl Cancel {
    pub(crate) fn run(self, place: &Place) -> Result<Exit, Failure> {
        let order = Order::Cancel { run: RunId::new(self.run), reason: self.reason, by: self.person.by };
        answered(talk(Client::of(place)?.order(&order))?)
    }
}

/// Let a stranded run go on without the step that failed.
///
/// For a step that you have done by hand, or can do without; it stands in the record under your name. Steps that
/// others rest on, a fence or a promotion, cannot be skipped (exit 5).
#[derive(Debug, Args)]
pub(crate) struct Skip {
    /// The run, as `lifeboat status` shows it.
    run: String,
    /// The step that failed.
    step: String,
    /// Why, for the record.
    #[arg(long)]
    reason: String,
    #[command(flatten)]
    person: Person,
}

impl Skip {
    pub(crate) fn run(self, place: &Place) -> Result<Exit, Failure> {
        let (run, step) = (RunId::new(self.run), StepName::new(self.step));
        let order = Order::Skip { run, step, reason: self.reason, by: self.person.by };
        answered(talk(Client::of(place)?.order(&order))?)
    }
}
