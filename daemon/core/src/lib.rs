//! What should happen now: the pure decisions of lifeboat.
//!
//! A [`Guardian`] is given the moment and an [`Event`], and answers with a [`Decision`]: what to write
//! down, what to start, what to tell people, and when to be asked again. Everything it knows came in as
//! an argument, so a recorded run decides the same way when it is replayed.
//!
//! **Invariant:** nothing here is async, reads a clock, draws a random number, or touches the
//! environment, the log, the network or a file. Maps are ordered.
//! **Invariant:** durable state changes only by [`Record`]s, through one function, live and in replay.

mod alarm;
pub mod condition;
mod council;
pub mod decision;
pub mod event;
pub mod forecast;
mod gates;
pub mod guardian;
pub mod head;
pub mod health;
pub mod ledger;
pub mod loss;
pub mod machine;
pub mod names;
pub mod order;
mod orders;
pub mod outcome;
pub mod overview;
pub mod plan;
pub mod policy;
pub mod reason;
pub mod record;
pub mod run;
mod runs;
pub mod sighting;
pub mod status;
mod survey;
mod telling;
pub mod testimony;
pub mod time;

pub use condition::Condition;
pub use decision::{Command, Decision, Notice, Severity};
pub use event::Event;
pub use guardian::Guardian;
pub use names::{
    AgentName, DatabaseName, DnsName, Epoch, Lsn, ProbeName, RegionName, RunId, StepName, SystemIdentifier,
    Timeline, WorkloadName,
};
pub use order::{Answer, Order};
pub use outcome::{Fault, FaultKind, Outcome, Output, Source};
pub use plan::Plan;
pub use policy::Policy;
pub use reason::Reason;
pub use record::{Record, Stamped};
pub use sighting::{Evidence, Failure, Look, Sighting};
pub use time::Moment;
