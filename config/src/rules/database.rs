//! Databases: each member is one server, in one region, reached in a way that stays.

use std::collections::BTreeMap;

use super::{Review, looking};
use crate::document::workload::{Database, Tls, Workload};
use crate::form::HostPort;
use crate::place::Place;
use crate::rule::Rule;

/// PgBouncer's port.
const POOLER: u16 = 6432;

pub(super) fn check(review: &mut Review<'_, '_>, workload: &Workload, at: &Place) {
    for (n, database) in workload.databases.iter().enumerate() {
        let here = at.key("database").index(n);
        check_endpoints(review, workload, database, &here);
        if database.tls == Tls::Off {
            check_clear(review, database, &here);
        }
        if !database.heartbeat {
            let message = format!(
                "without heartbeats, `{}` looks healthy when it answers but cannot commit",
                database.name
            );
            let help = "set `heartbeat = true`; it writes one row, and measures what would be lost";
            review.report(Rule::HeartbeatOff, &here.key("heartbeat"), message, help);
        }
    }
}

fn check_clear(review: &mut Review<'_, '_>, database: &Database, here: &Place) {
    if let Some(far) = database.endpoint.values().find(|e| !e.is_loopback()) {
        let message = format!("password and data go to `{far}` in the clear");
        let help = "set `tls = \"verify-full\"`, with `ca_file` for a private authority";
        review.report(Rule::TlsOff, &here.key("tls"), message, help);
    }
    if database.ca_file.is_some() {
        let message = "`ca_file` means nothing with `tls = \"off\"`";
        review.report(Rule::CaFileUnused, &here.key("ca_file").name(), message, "turn TLS on, or remove it");
    }
}

fn check_endpoints(review: &mut Review<'_, '_>, workload: &Workload, database: &Database, here: &Place) {
    let endpoints = here.key("endpoint");
    let known = review.regions_known(workload);
    for region in workload.regions().filter(|_| known) {
        if !database.endpoint.contains_key(region.as_str()) {
            let message = format!("`{}` has no endpoint in `{region}`", database.name);
            let help = format!("add {region} = \"HOST:5432\" to [workload.database.endpoint]");
            review.report(Rule::EndpointMissing, &endpoints, message, help);
        }
    }
    let mut seen: BTreeMap<&HostPort, &str> = BTreeMap::new();
    for (region, endpoint) in &database.endpoint {
        let place = endpoints.key(region);
        if let Some(other) = seen.insert(endpoint, region) {
            let message = format!("`{}` has the same server in `{other}` and `{region}`", database.name);
            review.report(Rule::SharedEndpoint, &place, message, "each region has a server of its own");
        }
        if endpoint.port == POOLER {
            let message = format!("port {POOLER} is that of a connection pooler (PgBouncer)");
            let help = "fence and promotion need the server itself, usually port 5432";
            review.report(Rule::PooledEndpoint, &place, message, help);
        }
        looking::stays(review, &endpoint.host, &place);
    }
}

/// One server is failed over once.
pub(super) fn check_across(review: &mut Review<'_, '_>) {
    let document = review.document;
    let mut seen: BTreeMap<&HostPort, (usize, &Database)> = BTreeMap::new();
    for (w, workload) in document.workloads.iter().enumerate() {
        for (d, database) in workload.databases.iter().enumerate() {
            for (region, endpoint) in &database.endpoint {
                let place = Place::top()
                    .key("workload")
                    .index(w)
                    .key("database")
                    .index(d)
                    .key("endpoint")
                    .key(region);
                let Some(&(other, before)) = seen.get(endpoint) else {
                    seen.insert(endpoint, (w, database));
                    continue;
                };
                if other != w {
                    let first = &document.workloads[other].name;
                    let message = format!("`{endpoint}` belongs to `{first}` and to `{}`", workload.name);
                    let help = "one server fails over once: put its databases into one workload";
                    review.report(Rule::ServerInTwoWorkloads, &place, message, help);
                } else if before.name != database.name {
                    let message =
                        format!("`{endpoint}` is listed for `{}` and for `{}`", before.name, database.name);
                    let help =
                        "a server is promoted as a whole: one [[workload.database]] for each is enough";
                    review.report(Rule::ServerListedTwice, &place, message, help);
                }
            }
        }
    }
}
