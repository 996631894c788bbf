//! `lifeboat plan`, for a person.

use std::fmt::Write;
use std::time::Duration;

use lifeboat_core::Plan;
use lifeboat_core::forecast::Forecast;
use lifeboat_core::plan::{Action, Kind};
use lifeboat_core::time::length;

/// The whole page.
pub(crate) fn page(plan: &Plan, forecast: &Forecast) -> String {
    let mut page = String::new();
    let _ = writeln!(
        page,
        "{} of {} from {} to {}, as run {} under epoch {}. Nothing was touched.\n",
        plan.runbook, plan.workload, plan.from, plan.to, plan.run, plan.epoch
    );
    for (number, index) in (1..).zip(0..plan.steps.len()) {
        write_step(&mut page, number, plan, index, forecast);
    }
    let total = total(plan, forecast);
    let _ = match (plan.kind, total) {
        (_, None) => writeln!(page, "\nforecast: not all steps were measured here yet"),
        (Kind::Failover, Some(steps)) => writeln!(
            page,
            "\nforecast: about {} when the region refuses, {} when it is silent",
            length(forecast.detect_refusing + steps),
            length(forecast.detect_silent + steps)
        ),
        (_, Some(steps)) => writeln!(page, "\nforecast: about {}", length(steps)),
    };
    if plan.kind == Kind::Failover {
        let _ = writeln!(
            page,
            "the loss is detected within {} when the region refuses, {} when it is silent",
            length(forecast.detect_refusing),
            length(forecast.detect_silent),
        );
    }
    page
}

fn write_step(page: &mut String, number: usize, plan: &Plan, index: usize, forecast: &Forecast) {
    let step = &plan.steps[index];
    let known = forecast.steps.iter().find(|f| f.step == step.name);
    let expected = match known.and_then(|f| Some((f.median?, f.p95?, f.runs))) {
        Some((median, _, 1)) => format!("took {} in its last run", length(median)),
        Some((median, p95, runs)) => {
            format!(
                "took {} in the median of its last {runs} runs, {} in the slowest of 20",
                length(median),
                length(p95)
            )
        }
        None => "never measured here".to_owned(),
    };
    let beside: Vec<&str> = plan.steps[..index]
        .iter()
        .filter(|other| other.after.is_some() && other.after == step.after)
        .map(|other| other.name.as_str())
        .collect();
    let beside = if beside.is_empty() { String::new() } else { format!("  (beside {})", beside.join(", ")) };
    let final_ = if step.point_of_no_return { "  ── point of no return ──" } else { "" };
    let _ = writeln!(page, "{number}. {}{beside}{final_}", step.title);
    let _ = writeln!(page, "     {}", subject(&step.action));
    let (limit, attempts) = (length(step.limit), step.attempts);
    let times = if attempts == 1 { "1 attempt".to_owned() } else { format!("{attempts} attempts") };
    let _ = writeln!(page, "     {expected}; at most {limit} an attempt, {times}");
    if let Some(question) = &step.approve {
        let _ = writeln!(page, "     a person is asked before: {question}");
    }
    if step.undo.is_some() {
        let _ = writeln!(page, "     taken back when the run is given up before its point of no return");
    }
}

/// How long the slowest way through the steps takes, in medians; none when one was never measured.
fn total(plan: &Plan, forecast: &Forecast) -> Option<Duration> {
    let mut ends: Vec<Duration> = Vec::with_capacity(plan.steps.len());
    for (index, step) in plan.steps.iter().enumerate() {
        let median = forecast.steps.iter().find(|f| f.step == step.name)?.median?;
        let before = match &step.after {
            Some(after) => after.iter().filter_map(|place| ends.get(*place)).max().copied(),
            None => index.checked_sub(1).and_then(|place| ends.get(place)).copied(),
        };
        ends.push(before.unwrap_or_default() + median);
    }
    ends.into_iter().max()
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
