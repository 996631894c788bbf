//! The room's promises against real servers: BIND 9, Knot DNS, PowerDNS, unbound, with dig as the judge.
//!
//! **Invariant:** nothing here is skipped: a missing server fails the test and names what to install.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on ends")]

mod authority;
mod census;
mod servers;
mod updates;

use std::collections::BTreeSet;
use std::time::Duration;

use lifeboat_core::{AgentName, Epoch, RunId};
use lifeboat_engine::ports::{Call, NameChange};

/// A call under an epoch, with more time than a test needs.
pub(crate) fn call(epoch: u64) -> Call {
    let epoch = Epoch::new(epoch);
    Call {
        run: RunId::of(&"shop".into(), epoch),
        agent: AgentName::new("test"),
        epoch,
        limit: Duration::from_secs(10),
    }
}

/// A set of texts.
pub(crate) fn set(values: &[&str]) -> BTreeSet<String> {
    values.iter().map(|value| (*value).to_owned()).collect()
}

/// A change of `name` from some values to others.
pub(crate) fn change(name: &str, from: &[&str], to: &[&str]) -> NameChange {
    NameChange { name: name.into(), from: set(from), to: set(to), ttl: Duration::from_secs(10) }
}
