//! When to act without a person, and how a region is fenced.

use super::Review;
use crate::document::workload::{Failover, Mode, Rejoin, Workload};
use crate::form::shown;
use crate::length::Length;
use crate::place::Place;
use crate::rule::Rule;
use crate::rules::looking;
use crate::shape::nearest;

/// What is replaced in a fence's command.
const PLACEHOLDERS: [&str; 2] = ["region", "epoch"];

pub(super) fn check(review: &mut Review<'_, '_>, workload: &Workload, at: &Place) {
    let failover = &workload.failover;
    let here = at.key("failover");
    if failover.mode == Mode::Automatic {
        check_automatic(review, workload, &here);
    }
    check_freshness(review, workload, at);
    check_persons(review, failover, &here);
    check_rejoin(review, workload, at);
    check_fences(review, workload, at);
}

/// Two persons must be found and woken, one after the other.
fn check_persons(review: &mut Review<'_, '_>, failover: &Failover, here: &Place) {
    const LEAST: Length = Length::seconds(120);
    let expires = failover.approval_expires;
    if failover.approvals > 1 && expires < LEAST {
        let message = format!("a question that two persons must answer lapses after {expires}");
        let help = format!("raise `approval_expires` to {LEAST} or more");
        review.report(Rule::ApprovalHurried, &here.key("approval_expires"), message, help);
    }
}

/// Only said when the operator counts on it: a rejoin is written, or some hosts can be reached.
fn check_rejoin(review: &mut Review<'_, '_>, workload: &Workload, at: &Place) {
    let rejoin = at.key("failover").key("rejoin");
    let wanted = workload.failover.rejoin == Rejoin::Automatic && review.written(&rejoin);
    let partly = workload.databases.iter().any(|d| !d.host.is_empty());
    if !(wanted || partly) || !review.regions_known(workload) {
        return;
    }
    for (n, database) in workload.databases.iter().enumerate() {
        // A command for a region that is not the workload's is told of as that: it was meant for one of these.
        if database.host.keys().any(|region| workload.regions().all(|r| r.as_str() != region)) {
            continue;
        }
        let bare = workload.regions().filter(|r| !database.host.contains_key(r.as_str()));
        let names: Vec<_> = bare.map(|r| format!("`{r}`")).collect();
        if !names.is_empty() {
            let message = format!(
                "`{}` cannot be made a standby in {}: no command reaches its host there",
                database.name,
                names.join(" and ")
            );
            let help = "an old primary that returns is kept out, and left to a person. Add [workload.database.host.REGION]";
            review.report(Rule::RejoinWithoutHost, &at.key("database").index(n), message, help);
        }
    }
}

fn check_automatic(review: &mut Review<'_, '_>, workload: &Workload, here: &Place) {
    let failover = &workload.failover;
    if review.document.agent.witnesses.is_empty() {
        let message =
            format!("`{}` would never fail over: without witnesses the agent always abstains", workload.name);
        let help = "name three or more places in `agent.witnesses`, or set `mode` to \"supervised\"";
        review.report(Rule::AutomaticWithoutWitnesses, &here.key("mode"), message, help);
    }
    let (cooldown, window) = (failover.cooldown.0, failover.budget_window);
    if cooldown.is_zero() {
        let message = "without a cooldown a workload can move to and fro until the budget is used up";
        review.report(Rule::NoCooldown, &here.key("cooldown"), message, "an hour is usual");
    } else {
        let fitting = window.0.as_millis() / cooldown.as_millis() + 1;
        if fitting <= failover.budget as u128 {
            let message = format!(
                "a budget of {} in {window} is never used up: the cooldown of {} allows {fitting}",
                failover.budget,
                Length(cooldown)
            );
            review.report(
                Rule::BudgetWithoutEffect,
                &here.key("budget"),
                message,
                "lower it, or widen `budget_window`",
            );
        }
    }
}

/// Two looks follow each other after an interval, and the second one may take its whole timeout.
fn check_freshness(review: &mut Review<'_, '_>, workload: &Workload, at: &Place) {
    let agent = &review.document.agent;
    let freshness = workload.failover.freshness;
    let witnesses = (!agent.witnesses.is_empty())
        .then(|| ("the witnesses".to_owned(), agent.witness_interval.0 + agent.witness_timeout.0));
    let watches = looking::watches(workload, at);
    let probes = watches.iter().map(|w| (format!("`{}`", w.name), w.watch.interval.0 + w.watch.timeout.0));
    let slowest = probes.chain(witnesses).max_by_key(|(_, gap)| *gap);
    if let Some((what, gap)) = slowest.filter(|(_, gap)| *gap >= freshness.0) {
        let message = format!(
            "{what} may be seen only every {} (interval and timeout), but after {freshness} a sighting is too old",
            Length(gap)
        );
        let help = "raise `freshness`, or look more often; else the agent abstains between two looks";
        review.report(Rule::FreshnessTooShort, &at.key("failover").key("freshness"), message, help);
    }
}

fn check_fences(review: &mut Review<'_, '_>, workload: &Workload, at: &Place) {
    if workload.failover.mode == Mode::Automatic && review.regions_known(workload) {
        // A lease that expires needs no word from the region.
        let expires = |r: &str| workload.failover.fence_expiry && workload.sentry.contains_key(r);
        let fenced = |r: &str| workload.fence.contains_key(r) || expires(r);
        let bare: Vec<_> = workload.regions().filter(|r| !fenced(r.as_str())).collect();
        let names: Vec<_> = bare.iter().map(|r| format!("`{r}`")).collect();
        if !bare.is_empty() {
            let message = format!(
                "nothing can fence {} of `{}` when it does not answer",
                names.join(", "),
                workload.name
            );
            let help = "only a server that still answers can be fenced; otherwise a person is asked. Add [workload.fence.REGION]";
            review.report(Rule::NoFence, &at.key("failover").key("mode"), message, help);
        }
    }
    for (region, fence) in &workload.fence {
        check_command(review, &fence.command, &at.key("fence").key(region).key("command"));
    }
    for (n, database) in workload.databases.iter().enumerate() {
        for (region, host) in &database.host {
            let here = at.key("database").index(n).key("host").key(region).key("command");
            check_command(review, &host.command, &here);
        }
    }
}

/// A command that the agent runs: only what it knows is replaced, and its program is found wherever it runs.
fn check_command(review: &mut Review<'_, '_>, command: &[String], here: &Place) {
    for (n, argument) in command.iter().enumerate() {
        for unknown in placeholders(argument).filter(|p| !PLACEHOLDERS.contains(p)) {
            let help = match nearest(unknown, PLACEHOLDERS.into_iter()) {
                Some(near) => format!("did you mean {{{near}}}?"),
                None => "{region} and {epoch} are replaced".to_owned(),
            };
            let message = format!("`{{{}}}` is not replaced", shown(unknown));
            review.report(Rule::UnknownPlaceholder, &here.index(n), message, help);
        }
    }
    let program = command.first().map_or("", String::as_str);
    if !program.starts_with('/') {
        let message =
            format!("`{}` is looked up in PATH, which differs between a shell and a service", shown(program));
        review.report(
            Rule::ProgramWithoutPath,
            &here.index(0),
            message,
            "write the full path of the program",
        );
    }
}

/// The words in braces.
fn placeholders(text: &str) -> impl Iterator<Item = &str> {
    let word = |w: &&str| !w.is_empty() && w.bytes().all(|b| b.is_ascii_alphabetic() || b == b'_');
    text.split('{').skip(1).filter_map(|after| after.split_once('}')).map(|(inside, _)| inside).filter(word)
}
