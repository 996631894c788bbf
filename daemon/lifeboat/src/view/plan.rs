//! `lifeboat plan`, for a person.

use std::fmt::Write;

use lifeboat_core::Plan;
use lifeboat_core::forecast::Forecast;
use lifeboat_core::plan::Action;
use lifeboat_core::time::length;

/// The whole page.
pub(crate) fn page(plan: &Plan, forecast: &Forecast) -> String {
    let mut page = String::new();
    let _ = writeln!(
        page,
        "{} of {} from {} to {}, as run {} under epoch {}. Nothing was touched.\n",
        plan.runbook, plan.workload, plan.from, plan.to, plan.run, plan.epoch
    );
    for (number, step) in (1..).zip(&plan.steps) {
        let known = forecast.steps.iter().find(|f| f.step == step.name);
        let expected = match known.and_then(|f| f.median.map(|m| (m, f.runs))) {
            Some((median, 1)) => format!("took {} in its last run", length(median)),
            Some((median, runs)) => format!("took {} in the median of its last {runs} runs", length(median)),
            None => "never measured here".to_owned(),
        };
        let final_ = if step.point_of_no_return { "  ── point of no return ──" } else { "" };
        let _ = writeln!(page, "{number}. {}{final_}", step.title);
        let _ = writeln!(page, "     {}", subject(&step.action));
        let (limit, attempts) = (length(step.limit), step.attempts);
        let _ = writeln!(page, "     {expected}; at most {limit} an attempt, {attempts} attempts");
    }
    let steps: Option<std::time::Duration> = forecast.steps.iter().map(|step| step.median).sum();
    let total = steps.map_or_else(
        || "not all steps were measured here yet".to_owned(),
        |steps| {
            let (refusing, silent) = (forecast.detect_refusing + steps, forecast.detect_silent + steps);
            format!(
                "about {} when the region refuses, {} when it is silent",
                length(refusing),
                length(silent)
            )
        },
    );
    let _ = writeln!(
        page,
        "\nforecast: the loss is detected within {} when the region refuses, {} when it is silent; in all: {total}",
        length(forecast.detect_refusing),
        length(forecast.detect_silent),
    );
    page
}

fn subject(action: &Action) -> String {
    match action {
        Action::MeasureLoss { region, databases }
        | Action::Fence { region, databases, .. }
        | Action::Drain { region, databases }
        | Action::Lift { region, databases } => format!("{} in {region}", list(databases)),
        Action::CheckStandby { standby, databases, .. } => {
            format!("{} in {standby}, and what the names say", list(databases.keys()))
        }
        Action::CatchUp { region, .. } => format!("all databases in {region}"),
        Action::Salvage { region, databases, .. } => format!("{} in {region}", list(databases.keys())),
        Action::Rejoin { region, source, databases } => {
            format!("{} in {region}, following {source}", list(databases.keys()))
        }
        Action::AwaitReplication { primary, standby, databases } => {
            format!("{} in {standby}, following {primary}", list(databases))
        }
        Action::Run { argv, .. } => argv.join(" "),
        Action::Http { method, url, .. } => format!("{method} {url}"),
        Action::Sql { region, database, statement, .. } => format!("{database} in {region}: {statement}"),
        Action::Wait { length: pause } => length(*pause),
        Action::Notify { text } => text.clone(),
        Action::Approve => "a person is asked".to_owned(),
        Action::Promote { region, databases } => {
            let each = databases.iter().map(|(name, system)| format!("{name} (cluster {system})"));
            format!("{} in {region}", each.collect::<Vec<_>>().join(", "))
        }
        Action::AwaitServing { region, databases, probes } => {
            let probes =
                if probes.is_empty() { String::new() } else { format!(", and its probes {}", list(probes)) };
            format!("{} in {region}{probes}", list(databases))
        }
        Action::SwitchDns { changes } | Action::Verify { changes, .. } => {
            let each = changes.iter().map(|change| {
                let (from, to) = (list(&change.from), list(&change.to));
                format!("{}: {from} becomes {to}, TTL {}", change.name, length(change.ttl))
            });
            each.collect::<Vec<_>>().join("; ")
        }
        Action::Report => "reports/RUN.json in the state folder".to_owned(),
    }
}

fn list<'a, T: std::fmt::Display + 'a>(items: impl IntoIterator<Item = &'a T>) -> String {
    let items: Vec<String> = items.into_iter().map(ToString::to_string).collect();
    if items.is_empty() { "nothing".to_owned() } else { items.join(", ") }
}
