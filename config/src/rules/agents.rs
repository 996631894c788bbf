//! The agents that share a record: each is known by one name, one place, one address and one key.

use std::collections::BTreeMap;

use super::{Review, moving};
use crate::document::lease::Lease;
use crate::key::PublicKey;
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
    for (n, agent) in listed().filter(|(_, a)| a.name.as_str().starts_with("sentry-")) {
        let message =
            format!("the agent `{}` has the name of a sentry: they sign as sentry-REGION", agent.name);
        review.report(Rule::RepeatedAgent, &place(n, "name"), message, "give the agent another name");
    }
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

/// A key is one agent's or one sentry's, and a sentry has one key: it signs with one name, whatever the workload.
fn check_keys(review: &mut Review<'_, '_>, top: &Place) {
    let document = review.document;
    let (mut owners, mut sentries) = (BTreeMap::new(), BTreeMap::new());
    for (n, agent) in document.agents.iter().enumerate() {
        let at = top.key("agents").index(n).key("public_key");
        check_owner(review, &mut owners, agent.public_key, format!("the agent `{}`", agent.name), &at);
    }
    for (n, workload) in document.workloads.iter().enumerate() {
        for (region, sentry) in &workload.sentry {
            let at = top.key("workload").index(n).key("sentry").key(region).key("key");
            if *sentries.entry(region).or_insert(sentry.key) == sentry.key {
                check_owner(review, &mut owners, sentry.key, format!("the sentry in `{region}`"), &at);
            } else {
                let message = format!("the sentry in `{region}` has another key in another workload");
                let help = "the sentries of a region sign with one name, and so with one key: copy its file";
                review.report(Rule::RepeatedAgent, &at, message, help);
            }
        }
    }
}

/// Reports a key that somebody else has; one sentry may stand beside the databases of several workloads.
fn check_owner(
    review: &mut Review<'_, '_>,
    owners: &mut BTreeMap<PublicKey, String>,
    key: PublicKey,
    whose: String,
    at: &Place,
) {
    let owner = owners.entry(key).or_insert_with(|| whose.clone());
    if *owner != whose {
        let message = format!("{whose} has the same key as {owner}: one could speak for the other");
        let help =
            "each makes its own: `lifeboat key` on the agent, `lifeboat sentry --key` beside the database";
        review.report(Rule::RepeatedAgent, at, message, help);
    }
}
