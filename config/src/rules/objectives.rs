//! Objectives: what must happen first fits into them.

use std::time::Duration;

use super::{Review, looking};
use crate::document::workload::Workload;
use crate::length::Length;
use crate::place::Place;
use crate::rule::Rule;

pub(super) fn check(review: &mut Review<'_, '_>, workload: &Workload, at: &Place) {
    let rto = workload.objectives.rto;
    let mut slowest = Duration::ZERO;
    for watched in looking::watches(workload, at).into_iter().filter(|w| w.vital) {
        let (refused, silent) = watched.watch.detection();
        if silent > rto.0 {
            let (key, how) =
                if refused > rto.0 { ("interval", "failures in a row") } else { ("silence", "silence") };
            let after = Length(if refused > rto.0 { refused } else { silent });
            let message =
                format!("`{}` counts as down after {after} of {how}, but the rto is {rto}", watched.name);
            let help = "shorten `interval`, `failures` or `silence`, or promise less";
            review.report(Rule::DetectionOverRto, &watched.at.key(key), message, help);
        } else {
            slowest = slowest.max(silent);
        }
    }
    check_ttl(review, workload, at, slowest);
    check_rpo(review, workload, at);
    for (region, fence) in &workload.fence {
        if fence.timeout > rto {
            let message =
                format!("fencing `{region}` may take {}, longer than the rto of {rto}", fence.timeout);
            let place = at.key("fence").key(region).key("timeout");
            review.report(Rule::FenceOverRto, &place, message, "nothing is promoted before the fence holds");
        }
    }
}

/// Resolvers may keep the old answer for a whole time to live.
fn check_ttl(review: &mut Review<'_, '_>, workload: &Workload, at: &Place, detection: Duration) {
    let rto = workload.objectives.rto;
    for (n, name) in workload.names.iter().enumerate() {
        let (name, place) = (name.common(), at.key("dns").index(n).key("ttl"));
        let ttl = name.ttl;
        if ttl > rto {
            let message = format!("resolvers keep `{}` for {ttl}, longer than the rto of {rto}", name.name);
            review.report(Rule::TtlOverRto, &place, message, "lower `ttl`, or promise less");
        } else if ttl.0 + detection > rto.0 {
            let message = format!(
                "noticing a silent primary ({}) and the ttl of `{}` ({ttl}) take longer than the rto of {rto}",
                Length(detection),
                name.name
            );
            review.report(
                Rule::DetectionAndTtlOverRto,
                &place,
                message,
                "lower `ttl` or `silence`, or promise less",
            );
        } else if ttl.0 > rto.0 / 4 {
            let message =
                format!("the ttl of `{}`, {ttl}, is more than a quarter of the rto of {rto}", name.name);
            review.report(Rule::TtlSlow, &place, message, "5s to 30s are usual for a name that moves");
        }
    }
}

fn check_rpo(review: &mut Review<'_, '_>, workload: &Workload, at: &Place) {
    let rpo = workload.objectives.rpo;
    if rpo.0.is_zero() {
        let message = format!(
            "`{}` may lose nothing: any standby that lags blocks the automatic failover",
            workload.name
        );
        let help =
            "this needs synchronous replication (synchronous_standby_names) to the standby that is promoted";
        review.report(Rule::RpoZero, &at.key("objectives").key("rpo"), message, help);
        return;
    }
    for (n, database) in workload.databases.iter().enumerate() {
        let interval = database.watch.interval;
        if database.heartbeat && interval > rpo {
            let message =
                format!("`{}` gets a heartbeat every {interval}, but the rpo is {rpo}", database.name);
            let help = "loss is measured by the newest heartbeat; probe more often than the rpo";
            review.report(
                Rule::HeartbeatOverRpo,
                &at.key("database").index(n).key("interval"),
                message,
                help,
            );
        }
    }
}
