//! Floor four: rules across keys. What no single key can be blamed for, found before the disaster.
//!
//! **Invariant:** every rule here looks at the document alone; what it says of this machine is in
//! `environment.rs`.

use std::collections::{BTreeMap, BTreeSet};

use toml::de::DeTable;

use crate::document::Document;
use crate::document::workload::Workload;
use crate::place::Place;
use crate::problem::{Found, Problem};
use crate::rule::Rule;

mod agent;
mod agents;
mod archive;
mod authority;
mod canary;
mod database;
mod dns;
mod failover;
mod lease;
mod looking;
mod objectives;
mod regions;
mod votes;

/// Holds `document`, which was read from `root`, against all rules.
pub(crate) fn check(document: &Document, root: &DeTable<'_>, found: &mut Found) {
    let mut review = Review { document, root, found, moving: BTreeSet::new() };
    regions::check(&mut review);
    agent::check(&mut review);
    agents::check(&mut review);
    lease::check(&mut review);
    authority::check(&mut review);
    database::check_across(&mut review);
    dns::check_across(&mut review);
    archive::check(&mut review);
    for (n, workload) in document.workloads.iter().enumerate() {
        let at = Place::top().key("workload").index(n);
        review.moving = moving(workload).collect();
        objectives::check(&mut review, workload, &at);
        failover::check(&mut review, workload, &at);
        votes::check(&mut review, workload, &at);
        looking::check(&mut review, workload, &at);
        database::check(&mut review, workload, &at);
        dns::check(&mut review, workload, &at);
        canary::check(&mut review, workload, &at);
    }
}

/// A document under review.
struct Review<'a, 'i> {
    document: &'a Document,
    root: &'a DeTable<'i>,
    found: &'a mut Found,
    /// The host names that move with the workload under review, without the final dot.
    moving: BTreeSet<&'a str>,
}

impl Review<'_, '_> {
    /// Whether all regions of `workload` are declared. If not, what is said of the unknown one would be repeated for
    /// each place where a region is expected.
    fn regions_known(&self, workload: &Workload) -> bool {
        workload.regions().all(|region| self.document.regions.iter().any(|r| r.name == *region))
    }

    fn report(&mut self, rule: Rule, at: &Place, message: impl Into<String>, help: impl Into<String>) {
        let span = at.span(self.root);
        self.found.add(Problem { rule, message: message.into(), help: help.into(), span });
    }

    /// Whether the operator wrote this key, rather than its default being meant.
    fn written(&self, at: &Place) -> bool {
        at.is_written(self.root)
    }

    /// Reports each of `names` that was there before; `what` names the kind of thing.
    fn unique<'n>(&mut self, what: &str, names: impl IntoIterator<Item = (&'n str, Place)>) {
        let mut seen = BTreeMap::new();
        for (name, at) in names {
            if seen.insert(name, ()).is_some() {
                let message = format!("two {what} are called `{name}`");
                self.report(Rule::DuplicateName, &at, message, "give each its own name, or remove one");
            }
        }
    }
}

/// The host names that move with a workload, without the final dot.
fn moving(workload: &Workload) -> impl Iterator<Item = &str> {
    workload.names.iter().map(|n| n.common().name.host())
}
