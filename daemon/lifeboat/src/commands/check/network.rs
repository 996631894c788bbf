//! The document against the network: who answers, as what, and what will be slow on the day it matters.
//!
//! **Invariant:** nothing is changed: databases are only read, name servers get an update that changes nothing.

mod coordinator;

use std::fmt;
use std::time::Duration;

use futures::future::join_all;
use lifeboat_config::Wiring;
use lifeboat_config::wiring::{NameWiring, Rfc2136Wiring, ViaWiring};
use lifeboat_core::sighting::{DatabaseState, Evidence};
use lifeboat_core::{AgentName, DnsName, Epoch};
use lifeboat_dns::{Rfc2136, identify};
use lifeboat_engine::clock::Clock;
use lifeboat_engine::ports::{Ask, Probe, Role, Witness};
use lifeboat_postgres::Member;
use lifeboat_probe::Kit;

use crate::failure::Failure;
use crate::plug;
use crate::ui::{Tone, paint};

/// How long each place may take.
const LIMIT: Duration = Duration::from_secs(5);

/// What was found out about one place.
#[derive(Debug)]
pub(super) enum Finding {
    /// As it should be.
    Good(String),
    /// It works, and will be slow or surprising.
    Warning(String),
    /// It would not work today.
    Failed(String),
}

impl Finding {
    pub(super) const fn failed(&self) -> bool {
        matches!(self, Self::Failed(_))
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Good(text) => write!(f, "{}  {text}", paint(Tone::Good, "ok     ")),
            Self::Warning(text) => write!(f, "{}  {text}", paint(Tone::Warn, "warning")),
            Self::Failed(text) => write!(f, "{}  {text}", paint(Tone::Bad, "failed ")),
        }
    }
}

/// Looks at everything that the wiring names, all at the same time.
pub(super) async fn look(wiring: &Wiring) -> Result<Vec<Finding>, Failure> {
    let clock = Clock::start();
    let agent = &wiring.agent.name;
    let witnesses = plug::witnesses(wiring, &Kit::new())?;
    let members = plug::members(wiring, clock);
    let witnesses = join_all(witnesses.iter().map(|witness| look_at_witness(witness.as_ref())));
    let databases = join_all(members.iter().map(|((workload, ..), member)| async move {
        let finding = look_at_member(member, agent, clock).await;
        format_of(workload.as_str(), finding)
    }));
    let names = wiring.workloads.values().flat_map(|workload| &workload.names);
    let updated = names.filter_map(|(name, written)| match &written.via {
        ViaWiring::Rfc2136(server) => Some(look_at_server(name, written, server)),
        ViaWiring::Authority => None,
    });
    let shared = coordinator::look(wiring);
    let (witnesses, databases, names, shared) = tokio::join!(witnesses, databases, join_all(updated), shared);
    let names = names.into_iter().flatten();
    Ok(witnesses.into_iter().chain(shared).chain(databases).chain(names).collect())
}

fn format_of(workload: &str, finding: Finding) -> Finding {
    match finding {
        Finding::Good(text) => Finding::Good(format!("{workload}: {text}")),
        Finding::Warning(text) => Finding::Warning(format!("{workload}: {text}")),
        Finding::Failed(text) => Finding::Failed(format!("{workload}: {text}")),
    }
}

async fn look_at_witness(witness: &dyn Witness) -> Finding {
    let name = witness.name();
    if witness.answers(LIMIT).await {
        Finding::Good(format!("witness {name} answers"))
    } else {
        Finding::Warning(format!("witness {name} does not answer; without a quorum this agent abstains"))
    }
}

async fn look_at_member(member: &Member, agent: &AgentName, clock: Clock) -> Finding {
    let options = member.options();
    let name = format!("{} in {}", options.database, options.region);
    // As a standby, so that nothing is written whatever it is.
    let ask = Ask {
        agent: agent.clone(),
        at: clock.now(),
        epoch: Epoch::default(),
        expect: Role::Standby,
        limit: LIMIT,
    };
    match member.look(&ask).await {
        Ok(Evidence::Database(sample)) => {
            let text = match &sample.state {
                DatabaseState::Primary { .. } => "primary".to_owned(),
                DatabaseState::Standby(position) if position.streaming => "standby, streaming".to_owned(),
                DatabaseState::Standby(_) => {
                    return Finding::Warning(format!("{name} is a standby that is not streaming"));
                }
            };
            let (timeline, system) = (sample.timeline, sample.system);
            Finding::Good(format!("{name} is a {text}, timeline {timeline}, cluster {system}"))
        }
        Ok(Evidence::Answered) => Finding::Good(format!("{name} answers")),
        Err(failure) => Finding::Failed(format!("{name}: {failure}")),
    }
}

async fn look_at_server(name: &DnsName, written: &NameWiring, server: &Rfc2136Wiring) -> Vec<Finding> {
    let updates = Rfc2136::new(plug::rfc2136(server, written));
    let (rehearsed, identity) = tokio::join!(updates.rehearse(name, LIMIT), identify(server.server, LIMIT));
    let mut findings = vec![match rehearsed {
        Ok(state) => {
            let values: Vec<&str> = state.values.iter().map(String::as_str).collect();
            Finding::Good(format!(
                "{} takes updates of {name}, which says {}",
                server.server,
                values.join(" ")
            ))
        }
        Err(error) => Finding::Failed(format!("{name}: {error}")),
    }];
    if !server.secondaries.is_empty() && identity.as_ref().is_some_and(|identity| identity.bind) {
        findings.push(Finding::Warning(format!(
            "{} is BIND, whose notify-delay is 5 s unless set: a switch reaches the secondaries up to 5 s late. \
             Set `notify-delay 0;` in its options",
            server.server
        )));
    }
    findings
}
