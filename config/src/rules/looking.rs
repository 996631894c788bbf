//! Looking: something can be lost, and what is looked at stays where it is.

use std::collections::BTreeSet;

use super::Review;
use crate::document::probe::{AskedKind, DnsProbe, Probe, Watch};
use crate::document::workload::Workload;
use crate::form::{Fqdn, shown};
use crate::place::Place;
use crate::rule::Rule;

/// Something that is looked at regularly.
pub(super) struct Watched<'w> {
    pub(super) name: &'w str,
    pub(super) vital: bool,
    pub(super) watch: &'w Watch,
    pub(super) at: Place,
}

/// All that a workload looks at; a database once, for all its regions.
pub(super) fn watches<'w>(workload: &'w Workload, at: &Place) -> Vec<Watched<'w>> {
    let databases = workload.databases.iter().enumerate().map(|(n, d)| Watched {
        name: d.name.as_str(),
        vital: true,
        watch: &d.watch,
        at: at.key("database").index(n),
    });
    let probes = workload.probes.iter().enumerate().map(|(n, p)| Watched {
        name: p.common().name.as_str(),
        vital: p.common().vital,
        watch: p.watch(),
        at: at.key("probe").index(n),
    });
    databases.chain(probes).collect()
}

pub(super) fn check(review: &mut Review<'_, '_>, workload: &Workload, at: &Place) {
    check_vital(review, workload, at);
    for watched in watches(workload, at) {
        let watch = watched.watch;
        if watch.silence < watch.timeout {
            let message = format!(
                "`{}` counts as silent after {}, before one look ({}) has ended",
                watched.name, watch.silence, watch.timeout
            );
            let help = "slow is not dead: make `silence` several times the timeout";
            review.report(Rule::SilenceTooShort, &watched.at.key("silence"), message, help);
        }
    }
    for (n, probe) in workload.probes.iter().enumerate() {
        let here = at.key("probe").index(n);
        match probe {
            Probe::Http(http) => {
                stays(review, &http.url.host, &here.key("url"));
                for key in ["certificate_days", "ca_file"].into_iter().filter(|_| !http.url.secure) {
                    let place = here.key(key);
                    if review.written(&place) {
                        needs_https(review, key, &place);
                    }
                }
            }
            Probe::Tcp(tcp) => stays(review, &tcp.address.host, &here.key("address")),
            Probe::Dns(dns) => check_expected(review, dns, &here),
        }
    }
}

pub(super) fn needs_https(review: &mut Review<'_, '_>, key: &str, at: &Place) {
    let message = format!("`{key}` means nothing without TLS");
    review.report(Rule::NeedsHttps, &at.clone().name(), message, "use an https:// URL, or remove the key");
}

/// A database probe is vital in each region of the workload; without one, something else must be.
fn check_vital(review: &mut Review<'_, '_>, workload: &Workload, at: &Place) {
    if !workload.databases.is_empty() || !review.regions_known(workload) {
        return;
    }
    let vital: BTreeSet<_> =
        workload.probes.iter().map(Probe::common).filter(|p| p.vital).map(|p| &p.region).collect();
    let places = std::iter::once(at.key("primary"))
        .chain((0..workload.standbys.len()).map(|n| at.key("standbys").index(n)));
    for (region, place) in workload.regions().zip(places) {
        if !vital.contains(region) {
            let message = format!(
                "`{}` has no vital probe in `{region}`: that region can never count as lost",
                workload.name
            );
            let help = "add a [[workload.database]], or set `vital = true` on a probe of that region";
            review.report(Rule::NoVitalProbe, &place, message, help);
        }
    }
}

/// Reports what belongs to one region but is reached by a name that moves to another.
pub(super) fn stays(review: &mut Review<'_, '_>, host: &str, at: &Place) {
    if review.moving.contains(host) {
        let message =
            format!("`{}` moves with the failover: this would look at the other region", shown(host));
        review.report(
            Rule::FollowsTheSwitch,
            at,
            message,
            "use a name or an address that stays in its region",
        );
    }
}

fn check_expected(review: &mut Review<'_, '_>, probe: &DnsProbe, at: &Place) {
    for (n, value) in probe.expect.iter().enumerate() {
        let wrong = match probe.record {
            AskedKind::A => value.parse::<std::net::Ipv4Addr>().is_err().then_some("an IPv4 address"),
            AskedKind::Aaaa => value.parse::<std::net::Ipv6Addr>().is_err().then_some("an IPv6 address"),
            AskedKind::Cname | AskedKind::Ns => {
                Fqdn::read(value).is_err().then_some("a DNS name with its final dot")
            }
            AskedKind::Txt | AskedKind::Soa => None,
        };
        if let Some(wanted) = wrong {
            let message = format!("`{}` is not {wanted}", shown(value));
            review.report(
                Rule::BadRecordValue,
                &at.key("expect").index(n),
                message,
                "`record` says what is asked for",
            );
        }
    }
}
