//! The coordinator: reached safely, not lost with one place, and called as it can be called there.

use std::collections::BTreeSet;

use super::{Review, moving};
use crate::document::lease::{EtcdLease, KubernetesLease, Lease};
use crate::place::Place;
use crate::rule::Rule;

pub(super) fn check(review: &mut Review<'_, '_>) {
    let at = Place::top().key("lease");
    match &review.document.lease {
        Lease::Embedded(_) => {}
        Lease::Etcd(etcd) => {
            check_endpoints(review, etcd, &at.key("endpoints"));
            check_credentials(review, etcd, &at);
        }
        Lease::Kubernetes(kubernetes) => check_names(review, kubernetes, &at),
    }
}

/// Objects and namespaces are called by labels of DNS (RFC 1123, section 2.1), and Kubernetes takes no capitals.
fn check_names(review: &mut Review<'_, '_>, kubernetes: &KubernetesLease, at: &Place) {
    for (key, name) in [("namespace", &kubernetes.namespace), ("name", &kubernetes.name)] {
        let lower = name.as_str().to_ascii_lowercase();
        if lower != name.as_str() {
            let message = format!("`{name}` cannot be a name in Kubernetes");
            let help = format!("lower-case letters, digits and \"-\": `{lower}`");
            review.report(Rule::BadName, &at.key(key), message, help);
        }
    }
}

fn check_endpoints(review: &mut Review<'_, '_>, etcd: &EtcdLease, at: &Place) {
    for (n, endpoint) in etcd.endpoints.iter().enumerate() {
        if !endpoint.secure && !endpoint.is_loopback() {
            let message = format!("the record and every lease go to `{endpoint}` in the clear");
            let help = "use https with `ca_file`: who can write there decides which region takes writes";
            review.report(Rule::TlsOff, &at.index(n), message, help);
        }
        if review.document.workloads.iter().flat_map(moving).any(|host| host == endpoint.host) {
            let message = format!("`{endpoint}` is a name that lifeboat itself switches");
            review.report(
                Rule::FollowsTheSwitch,
                &at.index(n),
                message,
                "name a place that stays where it is",
            );
        }
    }
    let hosts: BTreeSet<&str> = etcd.endpoints.iter().map(|e| e.host.as_str()).collect();
    // On loopback a host is not a machine: a lab has all of its places there.
    if hosts.len() < 3 && !etcd.endpoints.iter().all(crate::form::HttpUrl::is_loopback) {
        let message = format!(
            "etcd is on {}: what it shares is lost, or out of reach, with one of them",
            if hosts.len() == 1 { "one host".to_owned() } else { format!("{} hosts", hosts.len()) }
        );
        let help = "three members, each in a place that fails by itself, and all of them named here";
        review.report(Rule::CoordinatorInOnePlace, at, message, help);
    }
}

fn check_credentials(review: &mut Review<'_, '_>, etcd: &EtcdLease, at: &Place) {
    let secure = etcd.endpoints.iter().any(|e| e.secure);
    let files = [("ca_file", &etcd.ca_file), ("cert_file", &etcd.cert_file), ("key_file", &etcd.key_file)];
    for (key, _) in files.iter().filter(|(_, file)| file.is_some() && !secure) {
        let message = format!("`{key}` means nothing without https");
        review.report(
            Rule::NeedsHttps,
            &at.key(key).name(),
            message,
            "write the endpoints as https://, or remove it",
        );
    }
    if secure && etcd.ca_file.is_none() {
        let message = "nothing says whose certificates etcd may have";
        let help =
            "set `ca_file` to the authority that signed them; a public one would vouch for anybody's etcd";
        review.report(Rule::CaMissing, &at.key("endpoints"), message, help);
    }
    let halves = [
        ("cert_file", etcd.cert_file.is_some(), "key_file", etcd.key_file.is_some()),
        ("user", etcd.user.is_some(), "password_file", etcd.password_file.is_some()),
    ];
    for (one, has_one, other, has_other) in halves {
        let (there, missing) = if has_one { (one, other) } else { (other, one) };
        if has_one != has_other {
            let message = format!("`{there}` is there without `{missing}`");
            let help = format!("add `{missing}`, or remove `{there}`");
            review.report(Rule::CredentialIncomplete, &at.key(there).name(), message, help);
        }
    }
}
