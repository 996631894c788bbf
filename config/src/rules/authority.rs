//! The own zone: its name servers can be found, its records do not contradict each other.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use super::Review;
use crate::document::authority::{Authority, FixedKind, Record};
use crate::document::dns::DnsName;
use crate::form::{Fqdn, shown};
use crate::place::Place;
use crate::rule::Rule;

pub(super) fn check(review: &mut Review<'_, '_>) {
    let document = review.document;
    let Some(authority) = &document.authority else { return };
    let at = Place::top().key("authority");
    let names = document.workloads.iter().flat_map(|w| &w.names);
    let served: BTreeSet<&Fqdn> =
        names.filter(|n| matches!(n, DnsName::Authority(_))).map(|n| &n.common().name).collect();
    if served.is_empty() {
        let message = format!("no workload has a name in `{}`", authority.zone);
        let help = "add [[workload.dns]] with via = \"authority\", or remove [authority]";
        review.report(Rule::AuthorityUnused, &at.key("zone"), message, help);
    }
    check_listen(review, authority, &at.key("listen"));
    check_nameservers(review, authority, &at.key("nameservers"));
    check_records(review, authority, &served, &at.key("record"));
}

fn check_listen(review: &mut Review<'_, '_>, authority: &Authority, at: &Place) {
    for (n, listen) in authority.listen.iter().enumerate() {
        let covers = |other: &SocketAddr| {
            let same_kind = other.is_ipv4() == listen.0.is_ipv4() && other.port() == listen.0.port();
            same_kind && listen.0.ip().is_unspecified() && !other.ip().is_unspecified()
        };
        if let Some((other, address)) =
            authority.listen.iter().enumerate().find(|(_, other)| covers(&other.0))
        {
            let message = format!("`{listen}` already takes in `{address}`");
            review.report(Rule::OverlappingListen, &at.index(other), message, "remove one of them");
        }
        if listen.0.port() != 53 && !listen.0.ip().is_loopback() {
            let message = format!("resolvers never ask port {}", listen.0.port());
            let help = "listen on port 53, or make sure that something forwards to this port";
            review.report(Rule::ListenPort, &at.index(n), message, help);
        }
    }
}

fn check_nameservers(review: &mut Review<'_, '_>, authority: &Authority, at: &Place) {
    let has_address = |name: &Fqdn| {
        let address = |r: &&Record| matches!(r.kind, FixedKind::A | FixedKind::Aaaa) && r.name == *name;
        authority.records.iter().find(address).is_some()
    };
    for (n, nameserver) in authority.nameservers.iter().enumerate() {
        if nameserver.within(&authority.zone) && !has_address(nameserver) {
            let message = format!("`{nameserver}` is in the zone itself but has no address there");
            let help = "add [[authority.record]] of kind A or AAAA for it, and the same glue at the parent";
            review.report(Rule::NameserverWithoutAddress, &at.index(n), message, help);
        }
    }
}

fn check_records(review: &mut Review<'_, '_>, authority: &Authority, served: &BTreeSet<&Fqdn>, at: &Place) {
    let mut kinds: BTreeMap<&Fqdn, BTreeSet<FixedKind>> = BTreeMap::new();
    for (n, record) in authority.records.iter().enumerate() {
        let (here, name) = (at.index(n), &record.name);
        check_values(review, record, &here.key("values"));
        if !name.within(&authority.zone) {
            let message = format!("`{name}` is not in the authority's zone, `{}`", authority.zone);
            review.report(
                Rule::OutsideZone,
                &here.key("name"),
                message,
                format!("a name in it ends with \".{}\"", authority.zone),
            );
        }
        if served.contains(name) {
            let message = format!("`{name}` is a fixed record and a name that moves");
            review.report(
                Rule::DuplicateName,
                &here.key("name"),
                message,
                "remove the record: the workload's name is served",
            );
        }
        let others = kinds.entry(name).or_default();
        let alone = record.kind == FixedKind::Cname || others.contains(&FixedKind::Cname);
        let repeated = !others.insert(record.kind);
        if repeated {
            let message = format!("two records of one kind are called `{name}`");
            review.report(Rule::DuplicateName, &here.key("name"), message, "put all values into one record");
        } else if alone && (others.len() > 1 || *name == authority.zone) {
            let message = format!("`{name}` is a CNAME and something else");
            let help = "a CNAME stands alone (RFC 1034, section 3.6.2); the top of a zone holds SOA and NS";
            review.report(Rule::CnameBesideOthers, &here.key("name"), message, help);
        }
    }
}

fn check_values(review: &mut Review<'_, '_>, record: &Record, at: &Place) {
    for (n, value) in record.values.iter().enumerate() {
        let wrong = match record.kind {
            FixedKind::A => value.parse::<std::net::Ipv4Addr>().is_err().then_some("an IPv4 address"),
            FixedKind::Aaaa => value.parse::<std::net::Ipv6Addr>().is_err().then_some("an IPv6 address"),
            FixedKind::Cname if record.values.len() > 1 => Some("alone, as the host name of a CNAME must be"),
            FixedKind::Cname => Fqdn::read(value).is_err().then_some("a DNS name with its final dot"),
            FixedKind::Txt => None,
        };
        if let Some(wanted) = wrong {
            let message = format!("`{}` is not {wanted}", shown(value));
            review.report(Rule::BadRecordValue, &at.index(n), message, "`kind` says what the values must be");
        }
    }
}
