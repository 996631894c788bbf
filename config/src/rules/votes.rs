//! How many must agree, and where they are: an automatic failover is neither one agent's error nor out of reach.

use std::collections::BTreeSet;

use super::{Review, looking};
use crate::document::lease::Lease;
use crate::document::workload::{Mode, Workload};
use crate::length::Length;
use crate::place::Place;
use crate::rule::Rule;

/// Fewer places than this cannot tell which of two is cut off.
const DOMAINS: usize = 3;

pub(super) fn check(review: &mut Review<'_, '_>, workload: &Workload, at: &Place) {
    let here = at.key("failover");
    if matches!(review.document.lease, Lease::Embedded(_)) {
        check_lone(review, workload, at);
    } else if !review.document.agents.is_empty() {
        if workload.failover.lone_vantage.is_some() {
            let message = format!("`{}` is watched by more than one agent", workload.name);
            review.report(Rule::LoneVantageUnused, &here.key("lone_vantage").name(), message, "remove it");
        }
        // Agents that are not in enough places are told of once.
        if check_places(review, workload, &here) {
            check_quorum(review, workload, &here);
        }
        if matches!(review.document.lease, Lease::Kubernetes(_)) {
            check_no_sentry(review, workload, at);
        }
        check_expiry(review, workload, at);
    }
    check_sample_age(review, workload, at);
}

/// One agent, so one vantage, no sentry and no lease that could expire.
fn check_lone(review: &mut Review<'_, '_>, workload: &Workload, at: &Place) {
    let (failover, here) = (&workload.failover, at.key("failover"));
    for (key, count) in
        [("quorum", failover.quorum.filter(|q| *q > 1)), ("outside", failover.outside.filter(|o| *o > 1))]
    {
        if let Some(count) = count {
            let message = format!("{count} vantages must agree, but with lease \"embedded\" there is one");
            review.report(Rule::QuorumOverVantages, &here.key(key), message, format!("set `{key}` to 1"));
        }
    }
    if failover.fence_expiry {
        let message = "with lease \"embedded\" there is no write lease that could expire";
        let help = "remove `fence_expiry`; configure a fence command instead";
        review.report(Rule::FenceExpiryEmbedded, &here.key("fence_expiry"), message, help);
    }
    if let Some(region) = workload.sentry.keys().next() {
        let message = "with lease \"embedded\" there is no write lease that a sentry could hold";
        let help = "remove it; or share the record: [lease] kind = \"etcd\"";
        review.report(Rule::SentryEmbedded, &at.key("sentry").key(region), message, help);
    }
    if failover.mode == Mode::Automatic && failover.lone_vantage.is_none() {
        let agent = &review.document.agent;
        let message = format!(
            "one agent alone would decide for `{}`: when only the path between `{}` and `{}` breaks, and its witnesses \
             still answer, that looks to it like the loss of `{}`",
            workload.name, agent.region, workload.primary, workload.primary
        );
        let help = "run three agents in three places ([lease] kind = \"etcd\"), or let a person decide (`mode = \"supervised\"`); \
             `lone_vantage = \"accepted\"` accepts it";
        review.report(Rule::LoneVantage, &here.key("mode"), message, help);
    }
}

/// The Kubernetes API compares one object at a time: a write lease would need its head in the same transaction.
fn check_no_sentry(review: &mut Review<'_, '_>, workload: &Workload, at: &Place) {
    if workload.failover.fence_expiry {
        let message = "with lease \"kubernetes\" there is no write lease that could expire";
        let help = "remove `fence_expiry` and configure a fence command; or share the record in etcd: kind = \"etcd\"";
        review.report(Rule::FenceExpiryKubernetes, &at.key("failover").key("fence_expiry"), message, help);
    }
    if let Some(region) = workload.sentry.keys().next() {
        let message = "with lease \"kubernetes\" there is no write lease that a sentry could hold";
        let help = "remove it; or share the record in etcd: [lease] kind = \"etcd\"";
        review.report(Rule::SentryKubernetes, &at.key("sentry").key(region), message, help);
    }
}

fn check_quorum(review: &mut Review<'_, '_>, workload: &Workload, here: &Place) {
    let agents = &review.document.agents;
    let (count, failover) = (agents.len(), &workload.failover);
    let (quorum, outside) = (failover.quorum_of(count), failover.outside_of(count));
    let majority = count / 2 + 1;
    let at = here.key("quorum");
    if quorum > count {
        let message = format!("{quorum} vantages must agree, but there are {count} agents");
        return review.report(Rule::QuorumOverVantages, &at, message, format!("{majority} to {count}"));
    }
    if quorum < majority {
        let message = format!("{quorum} of {count} agents is no majority: the others may see it otherwise");
        return review.report(Rule::QuorumNotMajority, &at, message, format!("{majority} to {count}"));
    }
    if !review.regions_known(workload) {
        return;
    }
    let left = |region: &str| agents.iter().filter(|a| a.region.as_str() != region).count();
    let fewest = workload.regions().map(|r| (left(r.as_str()), r)).min_by_key(|(left, _)| *left);
    let Some((left, region)) = fewest else { return };
    if failover.mode == Mode::Automatic && left < quorum {
        let message = format!(
            "when `{region}` is lost, {left} of {count} agents are left, and {quorum} must agree: nothing would be done"
        );
        let help =
            "put the agents in as many places as there are agents, so that losing one leaves a majority";
        review.report(Rule::QuorumInRegion, &at, message, help);
    } else if outside > left.min(quorum) {
        let message = format!(
            "{outside} of those who agree must be outside, but when `{region}` is lost {left} are there and {quorum} must agree"
        );
        let help = format!("0 to {}", left.min(quorum));
        review.report(Rule::OutsideTooMany, &here.key("outside"), message, help);
    }
}

/// With two places, each sees the other one silent and cannot tell which of them is cut off. Says whether there are enough.
fn check_places(review: &mut Review<'_, '_>, workload: &Workload, here: &Place) -> bool {
    let places: BTreeSet<&str> = review.document.agents.iter().map(|a| a.region.as_str()).collect();
    let few = workload.failover.mode == Mode::Automatic && places.len() < DOMAINS;
    if few {
        let found = match places.len() {
            1 => "all agents are in one place".to_owned(),
            n => format!("the agents are in {n} places"),
        };
        let message = format!("{found}: they cannot tell a lost region from a broken path between two");
        let help = "add an agent in a third place, a small machine is enough; or set `mode` to \"supervised\": a person is asked";
        review.report(Rule::FewFailureDomains, &here.key("mode"), message, help);
    }
    !few
}

/// An expiry needs a sentry wherever the workload may live, and must be over in time.
fn check_expiry(review: &mut Review<'_, '_>, workload: &Workload, at: &Place) {
    let Some(ttl) = review.document.lease.ttl() else { return };
    let (failover, rto) = (&workload.failover, workload.objectives.rto);
    let here = at.key("failover");
    let expires = failover.fence_expiry && !matches!(review.document.lease, Lease::Kubernetes(_));
    if expires && review.regions_known(workload) {
        let bare = workload.regions().filter(|r| !workload.sentry.contains_key(r.as_str()));
        let names: Vec<_> = bare.map(|r| format!("`{r}`")).collect();
        if !names.is_empty() {
            let message =
                format!("no sentry holds a write lease in {}: none can expire there", names.join(" and "));
            let help =
                "run `lifeboat sentry` beside the databases and add [workload.sentry.REGION] with its key";
            review.report(Rule::FenceExpiryWithoutSentry, &here.key("fence_expiry"), message, help);
        }
    }
    if let Some(region) = workload.sentry.keys().next().filter(|_| workload.databases.is_empty()) {
        let message = format!("`{}` has no database for a sentry to stop", workload.name);
        review.report(Rule::SentryWithoutDatabase, &at.key("sentry").key(region), message, "remove it");
    }
    let detection =
        looking::watches(workload, at).iter().filter(|w| w.vital).map(|w| w.watch.detection().1).max();
    let noticing = detection.unwrap_or_default();
    let place = Place::top().key("lease").key("ttl");
    if expires && noticing <= rto.0 && noticing + ttl.0 > rto.0 {
        let message = format!(
            "noticing a silent primary of `{}` ({}) and waiting for its lease to expire ({ttl} or more) take longer than \
             the rto of {rto}",
            workload.name,
            Length(noticing)
        );
        review.report(Rule::LeaseOverRto, &place, message, "lower `ttl` or `silence`, or promise less");
    } else if ttl > rto {
        let message = format!(
            "another agent takes over after {ttl}, longer than the rto of `{}`, {rto}",
            workload.name
        );
        review.report(Rule::LeaseOverRto, &place, message, "lower `ttl`, or promise less");
    }
    if ttl >= failover.freshness {
        let message = format!(
            "what the other agents say is heard anew within {ttl} (the ttl), but after {} it is too old",
            failover.freshness
        );
        let help = "raise `freshness` well above the ttl, or lower the ttl";
        review.report(Rule::FreshnessTooShort, &here.key("freshness"), message, help);
    }
}

/// When the primary is gone, its newest sample is as old as it takes to notice that.
fn check_sample_age(review: &mut Review<'_, '_>, workload: &Workload, at: &Place) {
    let Some(allowed) = workload.failover.sample_age else { return };
    let slowest = workload.databases.iter().map(|d| d.watch.detection().1 + d.watch.interval.0).max();
    if let Some(least) = slowest.filter(|least| *least >= allowed.0) {
        let message = format!(
            "when a silent primary counts as lost, its newest sample is {} old already, but {allowed} is too old",
            Length(least)
        );
        let help = "raise `sample_age`, or shorten `silence`; else nothing is ever done without a person";
        review.report(Rule::SampleAgeTooShort, &at.key("failover").key("sample_age"), message, help);
    }
}
