//! The agent: it outlives the primary, and can prove that its own network works.

use std::collections::BTreeMap;

use super::{Review, moving};
use crate::document::lease::Lease;
use crate::document::probe::Probe;
use crate::document::workload::{Mode, Workload};
use crate::form::Target;
use crate::place::Place;
use crate::rule::Rule;

/// The longest path of a unix socket on Linux, in bytes: `sun_path` less its final zero (unix(7)).
const SOCKET_PATH: usize = 107;

pub(super) fn check(review: &mut Review<'_, '_>) {
    let agent = &review.document.agent;
    let at = Place::top().key("agent");
    let in_primary: Vec<_> = review
        .document
        .workloads
        .iter()
        .filter(|w| w.primary == agent.region)
        .map(|w| w.name.as_str())
        .collect();
    let alone = matches!(review.document.lease, Lease::Embedded(_));
    if let [first, rest @ ..] = in_primary.as_slice()
        && alone
    {
        let others = if rest.is_empty() { String::new() } else { format!(" and {} more", rest.len()) };
        let message = format!(
            "the agent runs in `{}`, the primary of `{first}`{others}: it dies with it",
            agent.region
        );
        review.report(Rule::AgentInPrimary, &at.key("region"), message, "run it in a standby region");
    }
    check_files(review, &at);
    check_witnesses(review, &at);
}

fn check_files(review: &mut Review<'_, '_>, at: &Place) {
    let agent = &review.document.agent;
    let socket = agent.socket_path();
    let bytes = socket.as_os_str().len();
    if bytes > SOCKET_PATH {
        let place = if agent.socket.is_some() { at.key("socket") } else { at.key("state") };
        let message =
            format!("the control socket's path has {bytes} bytes, more than the {SOCKET_PATH} of a socket");
        review.report(Rule::SocketPathTooLong, &place, message, "set `socket` to a shorter path");
    }
    let state = agent.state.as_path();
    if ["/tmp", "/run", "/var/run", "/dev/shm"].iter().any(|folder| state.starts_with(folder)) {
        let message = "the journal is kept where a reboot may remove it";
        let help =
            "it is the record of what was decided; use a lasting folder, for example \"/var/lib/lifeboat\"";
        review.report(Rule::StateIsTemporary, &at.key("state"), message, help);
    }
}

fn check_witnesses(review: &mut Review<'_, '_>, at: &Place) {
    let document = review.document;
    let agent = &document.agent;
    let (count, quorum) = (agent.witnesses.len(), agent.quorum());
    let automatic = |w: &&Workload| w.failover.mode == Mode::Automatic;
    if count > 0 && quorum > count {
        let message = format!("`witness_quorum` is {quorum}, but there are {count} witnesses");
        review.report(
            Rule::WitnessQuorumTooLarge,
            &at.key("witness_quorum"),
            message,
            format!("1 to {count}"),
        );
    } else if count > 0 && quorum == count && document.workloads.iter().any(|w| automatic(&w)) {
        let message =
            format!("all witnesses ({count}) must answer: the agent abstains as soon as one is down");
        let help = "name three or more places that do not fail together";
        review.report(Rule::FewWitnesses, &at.key("witnesses"), message, help);
    }
    let watched = watched(document.workloads.iter());
    for (n, witness) in agent.witnesses.iter().enumerate() {
        let place = at.key("witnesses").index(n);
        // On loopback a host is not a machine: a lab has all of its places there.
        if let Some(what) = watched.get(witness.host.as_str()).filter(|_| !witness.is_loopback()) {
            let message = format!("the witness `{witness}` is {what}: both would be silent together");
            let help = "a witness proves this agent's own network; it must be none of what it watches";
            review.report(Rule::WitnessIsWatched, &place, message, help);
        }
        if document.workloads.iter().flat_map(moving).any(|host| host == witness.host) {
            let message = format!("the witness `{witness}` is a name that lifeboat itself switches");
            review.report(Rule::FollowsTheSwitch, &place, message, "name a place that stays where it is");
        }
    }
}

/// What is watched in the primary regions, by host.
fn watched<'d>(workloads: impl Iterator<Item = &'d Workload>) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    for workload in workloads {
        let primary = workload.primary.as_str();
        for database in &workload.databases {
            if let Some(endpoint) = database.endpoint.get(primary) {
                all.insert(
                    endpoint.host.clone(),
                    format!("the server of `{}` in `{primary}`", database.name),
                );
            }
        }
        for probe in workload.probes.iter().filter(|p| p.common().region == workload.primary) {
            let host = match probe {
                Probe::Http(http) => http.url.host.clone(),
                Probe::Tcp(tcp) => tcp.address.host.clone(),
                Probe::Dns(dns) => dns.server.0.ip().to_string(),
            };
            all.insert(host, format!("what the probe `{}` looks at", probe.common().name));
        }
        for name in workload.names.iter().map(|n| n.common()) {
            for target in name.target.get(primary).into_iter().flat_map(|t| &t.0) {
                let host = match target {
                    Target::Address(ip) => ip.to_string(),
                    Target::Host(host) => host.host().to_owned(),
                };
                all.insert(host, format!("the target of `{}` in `{primary}`", name.name));
            }
        }
    }
    all
}
