//! Names: unique where they must be, and regions that exist.

use std::collections::{BTreeMap, BTreeSet};

use super::Review;
use crate::document::lease::Lease;
use crate::document::workload::Workload;
use crate::form::shown;
use crate::place::Place;
use crate::rule::Rule;
use crate::shape::nearest;

pub(super) fn check(review: &mut Review<'_, '_>) {
    let document = review.document;
    let top = Place::top();
    let names = |n: usize, list: &str| top.key(list).index(n).key("name");
    review.unique(
        "regions",
        document.regions.iter().enumerate().map(|(n, r)| (r.name.as_str(), names(n, "region"))),
    );
    let workloads = document.workloads.iter().enumerate();
    review.unique("workloads", workloads.map(|(n, w)| (w.name.as_str(), names(n, "workload"))));

    let known: BTreeSet<&str> = document.regions.iter().map(|r| r.name.as_str()).collect();
    let mut used: BTreeSet<&str> = BTreeSet::new();
    used.insert(document.agent.region.as_str());
    // One of several agents may be in a place of its own.
    if matches!(document.lease, Lease::Embedded(_)) {
        exists(review, &known, document.agent.region.as_str(), &top.key("agent").key("region"));
    }
    used.extend(document.agents.iter().map(|a| a.region.as_str()));
    for (n, workload) in document.workloads.iter().enumerate() {
        let at = top.key("workload").index(n);
        used.extend(workload.regions().map(|r| r.as_str()));
        check_workload(review, workload, &known, &at);
    }
    let known_everywhere = document.workloads.iter().all(|w| review.regions_known(w));
    for (n, region) in document.regions.iter().enumerate() {
        if known_everywhere && !used.contains(region.name.as_str()) {
            let message = format!("no workload lives in `{}` or may move there", region.name);
            review.report(
                Rule::UnusedRegion,
                &names(n, "region"),
                message,
                "name it in a workload, or remove it",
            );
        }
    }
}

/// Says whether `region` is declared, and reports it if it is not.
fn exists(review: &mut Review<'_, '_>, known: &BTreeSet<&str>, region: &str, at: &Place) -> bool {
    if known.contains(region) {
        return true;
    }
    let help = match nearest(region, known.iter().copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => "declare it: [[region]] with its name".to_owned(),
    };
    review.report(Rule::UnknownRegion, at, format!("there is no region `{}`", shown(region)), help);
    false
}

fn check_workload(review: &mut Review<'_, '_>, workload: &Workload, known: &BTreeSet<&str>, at: &Place) {
    let databases = workload.databases.iter().enumerate();
    review.unique(
        "databases",
        databases.map(|(n, d)| (d.name.as_str(), at.key("database").index(n).key("name"))),
    );
    let probes = workload.probes.iter().enumerate();
    review.unique(
        "probes",
        probes.map(|(n, p)| (p.common().name.as_str(), at.key("probe").index(n).key("name"))),
    );

    exists(review, known, workload.primary.as_str(), &at.key("primary"));
    for (n, standby) in workload.standbys.iter().enumerate() {
        let place = at.key("standbys").index(n);
        if *standby == workload.primary {
            let message =
                format!("`{standby}` is the primary of `{}` and one of its standbys", workload.name);
            review.report(Rule::PrimaryAmongStandbys, &place, message, "a standby is another region");
        } else {
            exists(review, known, standby.as_str(), &place);
        }
    }
    let own: BTreeSet<&str> = workload.regions().map(|r| r.as_str()).collect();
    for (region, place) in mentioned(workload, at) {
        if exists(review, known, region, &place) && review.regions_known(workload) && !own.contains(region) {
            let message = format!("`{}` never lives in `{region}`", workload.name);
            let all: Vec<_> = own.iter().map(|r| format!("`{r}`")).collect();
            let help = format!("its regions are {}; add it to `standbys`, or remove this", all.join(" and "));
            review.report(Rule::ForeignRegion, &place, message, help);
        }
    }
}

/// The regions that parts of a workload name, each with its place.
fn mentioned<'w>(workload: &'w Workload, at: &Place) -> Vec<(&'w str, Place)> {
    fn keys<'w, T>(map: &'w BTreeMap<String, T>, at: &Place) -> Vec<(&'w str, Place)> {
        map.keys().map(|region| (region.as_str(), at.key(region).name())).collect()
    }
    let mut all = keys(&workload.fence, &at.key("fence"));
    all.extend(keys(&workload.sentry, &at.key("sentry")));
    for (n, database) in workload.databases.iter().enumerate() {
        all.extend(keys(&database.endpoint, &at.key("database").index(n).key("endpoint")));
        all.extend(keys(&database.replication, &at.key("database").index(n).key("replication")));
        all.extend(keys(&database.host, &at.key("database").index(n).key("host")));
    }
    for (n, name) in workload.names.iter().enumerate() {
        all.extend(keys(&name.common().target, &at.key("dns").index(n).key("target")));
    }
    for (n, probe) in workload.probes.iter().enumerate() {
        all.push((probe.common().region.as_str(), at.key("probe").index(n).key("region")));
    }
    all
}
