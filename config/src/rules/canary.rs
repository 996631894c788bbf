//! The canary: it goes where clients go.

use super::{Review, looking};
use crate::document::workload::Workload;
use crate::form::shown;
use crate::place::Place;
use crate::rule::Rule;
use crate::wiring::canary_resolver;

pub(super) fn check(review: &mut Review<'_, '_>, workload: &Workload, at: &Place) {
    let Some(canary) = &workload.canary else {
        if !workload.names.is_empty() {
            let message = format!("nothing proves that clients of `{}` were moved", workload.name);
            let help = "add [workload.canary] with a URL under one of its DNS names";
            review.report(Rule::NoCanary, &at.key("name"), message, help);
        }
        return;
    };
    let here = at.key("canary");
    if workload.names.is_empty() {
        if canary_resolver(workload, review.document.authority.as_ref()).is_none() {
            let message =
                format!("`{}` has no DNS name, so the canary has no resolver to ask", workload.name);
            review.report(
                Rule::CanaryWithoutResolver,
                &here.key("url"),
                message,
                "set `resolver`, or add [[workload.dns]]",
            );
        }
    } else if !review.moving.contains(canary.url.host.as_str()) {
        let message =
            format!("`{}` is none of the DNS names of `{}`", shown(&canary.url.host), workload.name);
        let help = "the canary proves the switch only when it goes through a name that is switched";
        review.report(Rule::CanaryElsewhere, &here.key("url"), message, help);
    }
    if canary.ca_file.is_some() && !canary.url.secure {
        looking::needs_https(review, "ca_file", &here.key("ca_file"));
    }
}
