//! DNS names: served by someone, with a target of its own in every region.

use std::collections::{BTreeMap, BTreeSet};

use super::{Review, looking};
use crate::document::dns::{DnsName, NameCommon, Targets};
use crate::document::workload::Workload;
use crate::form::{Fqdn, Target};
use crate::place::Place;
use crate::rule::Rule;

pub(super) fn check(review: &mut Review<'_, '_>, workload: &Workload, at: &Place) {
    if workload.names.is_empty() {
        let message = format!("`{}` has no DNS name: nothing moves its clients", workload.name);
        review.report(Rule::NoDnsNames, &at.key("name"), message, "add [[workload.dns]]");
    }
    for (n, name) in workload.names.iter().enumerate() {
        let here = at.key("dns").index(n);
        check_zone(review, name, &here);
        check_targets(review, workload, name.common(), &here.key("target"));
    }
}

/// A name is switched in one place only.
pub(super) fn check_across(review: &mut Review<'_, '_>) {
    let workloads = review.document.workloads.iter().enumerate();
    let names = workloads.flat_map(|(w, workload)| {
        workload.names.iter().enumerate().map(move |(n, name)| {
            let place = Place::top().key("workload").index(w).key("dns").index(n).key("name");
            (name.common().name.as_str(), place)
        })
    });
    let names: Vec<_> = names.collect();
    review.unique("DNS names", names);
}

fn check_zone(review: &mut Review<'_, '_>, name: &DnsName, here: &Place) {
    let (common, zone, whose) = match name {
        DnsName::Rfc2136(updated) => (&updated.common, &updated.zone, "its zone"),
        DnsName::Authority(own) => {
            let Some(authority) = &review.document.authority else {
                let message = format!(
                    "`{}` is answered by lifeboat itself, but there is no [authority]",
                    own.common.name
                );
                let help =
                    "add [authority] with the zone that is delegated to this agent, or use via = \"rfc2136\"";
                return review.report(Rule::AuthorityMissing, &here.key("via"), message, help);
            };
            (&own.common, &authority.zone, "the authority's zone")
        }
    };
    if !common.name.within(zone) {
        let message = format!("`{}` is not in {whose}, `{zone}`", common.name);
        let help = format!("a name in it ends with \".{zone}\"");
        review.report(Rule::OutsideZone, &here.key("name"), message, help);
    } else if common.name == *zone && common.target.values().any(|t| t.0.iter().any(is_host)) {
        let message =
            format!("`{}` is the top of its zone and cannot be a CNAME (RFC 1912, section 2.4)", common.name);
        review.report(Rule::CnameBesideOthers, &here.key("target"), message, "use addresses there");
    }
}

const fn is_host(target: &Target) -> bool {
    matches!(target, Target::Host(_))
}

fn check_targets(review: &mut Review<'_, '_>, workload: &Workload, name: &NameCommon, here: &Place) {
    let known = review.regions_known(workload);
    for region in workload.regions().filter(|_| known) {
        if !name.target.contains_key(region.as_str()) {
            let message = format!("`{}` has no target in `{region}`", name.name);
            let help = format!("add {region} = [\"ADDRESS\"] to [workload.dns.target]");
            review.report(Rule::TargetMissing, here, message, help);
        }
    }
    let mut seen: BTreeMap<BTreeSet<&Target>, &str> = BTreeMap::new();
    for (region, targets) in &name.target {
        let place = here.key(region);
        if targets.0.len() > 1 && targets.0.iter().any(is_host) {
            let message =
                format!("a host name stands alone, but `{}` has {} values", name.name, targets.0.len());
            let help = "several addresses, or one host name (RFC 1034, section 3.6.2)";
            review.report(Rule::HostNameNotAlone, &place, message, help);
        }
        if let Some(other) = seen.insert(targets.0.iter().collect(), region) {
            let message = format!(
                "`{}` says the same in `{other}` and `{region}`: switching it changes nothing",
                name.name
            );
            review.report(Rule::SameTarget, &place, message, "each region has a target of its own");
        }
        for host in targets.0.iter().filter_map(host) {
            looking::stays(review, host.host(), &place);
        }
    }
    check_kinds(review, workload, name, here);
}

const fn host(target: &Target) -> Option<&Fqdn> {
    match target {
        Target::Host(host) => Some(host),
        Target::Address(_) => None,
    }
}

/// Clients that reach the primary over IPv4 or IPv6 must reach the standby the same way.
fn check_kinds(review: &mut Review<'_, '_>, workload: &Workload, name: &NameCommon, here: &Place) {
    let kinds = |targets: &Targets| -> BTreeSet<&str> {
        let kind = |target: &Target| match target {
            Target::Address(ip) if ip.is_ipv4() => "A",
            Target::Address(_) => "AAAA",
            Target::Host(_) => "CNAME",
        };
        targets.0.iter().map(kind).collect()
    };
    let list = |kinds: &BTreeSet<&str>| kinds.iter().copied().collect::<Vec<_>>().join(" and ");
    let primary = workload.primary.as_str();
    let Some(at_home) = name.target.get(primary).map(kinds) else { return };
    for (region, targets) in name.target.iter().filter(|(region, _)| *region != primary) {
        let there = kinds(targets);
        if there != at_home {
            let message = format!(
                "`{}` is {} in `{primary}`, but {} in `{region}`",
                name.name,
                list(&at_home),
                list(&there)
            );
            let help = "clients that know only one kind lose the name";
            review.report(Rule::TargetKindsDiffer, &here.key(region), message, help);
        }
    }
}
