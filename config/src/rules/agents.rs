//! The agents that share a record: each is known by one name, one place, one address and one key.

use std::collections::BTreeMap;

use super::{Review, moving};
use crate::document::lease::Lease;
use crate::place::Place;
use crate::rule::Rule;
use crate::shape::nearest;

pub(super) fn check(review: &mut Review<'_, '_>) {
    let document = review.document;
    let top = Place::top();
    let shared = !matches!(document.lease, Lease::Embedded(_));
    match (shared, document.agents.is_empty()) {
        (false, true) => {}
        (false, false) => {
            let message = "with lease \"embedded\" an agent is alone, but other agents are listed";
            let help = "remove [[agents]], or share the record: [lease] kind = \"etcd\"";
            review.report(Rule::AgentsWithoutLease, &top.key("agents").index(0), message, help);
        }
        (true, true) => {
            let message = format!("with lease \"{}\" every agent must be listed", document.lease.kind());
            let help =
                "add [[agents]] with name, region, address and public_key for each of them, this one too";
            review.report(Rule::AgentsMissing, &top.key("lease").key("kind"), message, help);
        }
        (true, false) => check_list(review, &top),
    }
}

fn check_list(review: &mut Review<'_, '_>, top: &Place) {
    let document = review.document;
    let place = |n: usize, key: &str| top.key("agents").index(n).key(key);
    let listed = || document.agents.iter().enumerate();
    review.unique("agents", listed().map(|(n, a)| (a.name.as_str(), place(n, "name"))));
    check_self(review, top);
    check_keys(review, top);
    let mut addresses = BTreeMap::new();
    for (n, agent) in listed() {
        if let Some(other) = addresses.insert(&agent.address, &agent.name) {
            let message =
                format!("`{}` and `{other}` are reached at the same address, {}", agent.name, agent.address);
            let help = "each agent is a process of its own, on a machine of its own";
            review.report(Rule::RepeatedAgent, &place(n, "address"), message, help);
        }
        if document.workloads.iter().flat_map(moving).any(|host| host == agent.address.host) {
            let message = format!("`{}` is reached by a name that lifeboat itself switches", agent.name);
            review.report(
                Rule::FollowsTheSwitch,
                &place(n, "address"),
                message,
                "name a place that stays where it is",
            );
        }
        let regions = || document.regions.iter().map(|r| r.name.as_str());
        if let Some(near) = nearest(agent.region.as_str(), regions())
            && regions().all(|r| r != agent.region.as_str())
        {
            let message = format!("`{}` counts as in a place of its own, `{}`", agent.name, agent.region);
            let help = format!("did you mean the region `{near}`?");
            review.report(Rule::SiteNearRegion, &place(n, "region"), message, help);
        }
    }
}

/// This agent is one of them, and in the place that the others think it is in.
fn check_self(review: &mut Review<'_, '_>, top: &Place) {
    let (agent, all) = (&review.document.agent, &review.document.agents);
    let at = top.key("agent");
    let Some(own) = all.iter().find(|a| a.name == agent.name) else {
        let message = format!("this agent, `{}`, is none of those listed", agent.name);
        let help = match nearest(agent.name.as_str(), all.iter().map(|a| a.name.as_str())) {
            Some(near) => format!("did you mean `{near}`?"),
            None => "add it: [[agents]] with its name, region, address and public_key".to_owned(),
        };
        return review.report(Rule::AgentUnlisted, &at.key("name"), message, help);
    };
    if own.region != agent.region {
        let message = format!(
            "this agent is in `{}` here, and in `{}` in the list of agents",
            agent.region, own.region
        );
        let help = "the place says what fails together: it must be the same for every agent";
        review.report(Rule::AgentUnlisted, &at.key("region"), message, help);
    }
    let sentries = review.document.workloads.iter().any(|w| !w.sentry.is_empty());
    if agent.listen.is_none() && sentries {
        let message = "no sentry can reach this agent when the coordinator is lost";
        let help = "set `listen`, for example \"0.0.0.0:7400\", as its address in [[agents]] says";
        review.report(Rule::ListenMissing, &at.key("listen"), message, help);
    }
}

/// A key is one agent's or one sentry's.
fn check_keys(review: &mut Review<'_, '_>, top: &Place) {
    let document = review.document;
    let agents = document.agents.iter().enumerate().map(|(n, a)| {
        (a.public_key, format!("the agent `{}`", a.name), top.key("agents").index(n).key("public_key"))
    });
    let sentries = document.workloads.iter().enumerate().flat_map(|(n, workload)| {
        let at = top.key("workload").index(n).key("sentry");
        workload.sentry.iter().map(move |(region, sentry)| {
            (sentry.key, format!("the sentry in `{region}`"), at.key(region).key("key"))
        })
    });
    let mut keys: BTreeMap<_, String> = BTreeMap::new();
    let all: Vec<_> = agents.chain(sentries).collect();
    for (key, whose, at) in all {
        match keys.get(&key) {
            // One sentry may stand beside the databases of several workloads.
            Some(other) if *other != whose => {
                let message = format!("{whose} has the same key as {other}: one could speak for the other");
                let help = "each makes its own: `lifeboat key` on the agent, `lifeboat sentry --key` beside the database";
                review.report(Rule::RepeatedAgent, &at, message, help);
            }
            Some(_) => {}
            None => {
                keys.insert(key, whose);
            }
        }
    }
}
