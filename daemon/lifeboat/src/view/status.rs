//! `lifeboat status`, for a person.

use std::fmt::Write;

use lifeboat_core::plan::Kind;
use lifeboat_core::sighting::DatabaseState;
use lifeboat_core::status::{
    PhaseName, ProbeState, RegionStatus, RunStatus, Status, Verdict, WorkloadStatus,
};
use lifeboat_core::time::length;
use lifeboat_core::{RegionName, WorkloadName};

use crate::ui::{Tone, paint, tone};
use crate::view::council;

/// The whole page.
pub(crate) fn page(status: &Status) -> String {
    let mut page = String::new();
    let proven = &status.connectivity;
    let own = if proven.proven { paint(Tone::Good, "proven") } else { paint(Tone::Warn, "not proven") };
    let _ = writeln!(page, "agent {} at {}", paint(Tone::Bold, status.agent.as_str()), status.at);
    council::write_head(&mut page, status);
    let _ = writeln!(page, "own connectivity {own}: {}", proven.reason);
    for (name, workload) in &status.workloads {
        page.push('\n');
        write_workload(&mut page, name, workload, status);
    }
    page
}

fn write_workload(page: &mut String, name: &WorkloadName, workload: &WorkloadStatus, status: &Status) {
    let phase = match workload.phase {
        PhaseName::Guarding => Tone::Good,
        PhaseName::Doubting
        | PhaseName::Paused
        | PhaseName::SwitchingOver
        | PhaseName::FailingBack
        | PhaseName::Rejoining => Tone::Warn,
        PhaseName::FailingOver | PhaseName::Stranded => Tone::Bad,
    };
    let _ = writeln!(
        page,
        "{}  {}   lives in {}, epoch {}   objectives: RTO {}, RPO {}",
        paint(Tone::Bold, name.as_str()),
        paint(phase, &workload.phase.to_string()),
        workload.primary,
        workload.epoch,
        length(workload.rto),
        length(workload.rpo),
    );
    for (region, seen) in &workload.regions {
        write_region(page, region, seen);
    }
    council::write_sentries(page, workload);
    council::write_matrix(page, status, name);
    for held in [&workload.paused, &workload.maintenance].into_iter().flatten() {
        let _ = writeln!(page, "  {}", paint(Tone::Warn, &held.to_string()));
    }
    for region in &workload.kept_out {
        let text = format!("{region} returned, is fenced and kept out: lifeboat runbook render rejoin");
        let _ = writeln!(page, "  {}", paint(Tone::Bad, &text));
    }
    if let Some(run) = &workload.run {
        let step = run.step.as_ref().map_or_else(|| "at its end".to_owned(), |step| format!("at {step}"));
        let _ = writeln!(
            page,
            "  run {}: {} from {} to {}, {step}, since {}",
            run.run, run.kind, run.from, run.to, run.opened
        );
        if let Some(reason) = &run.back {
            let _ = writeln!(page, "    {} {reason}", paint(Tone::Warn, "what it did is taken back:"));
        }
        if let (Some(question), Some(answer)) = (&run.question, &run.answer) {
            let _ = writeln!(page, "    {} {question}", paint(Tone::Bad, "a person must decide:"));
            let _ = writeln!(page, "    to accept: {answer}");
            if !run.assents.is_empty() {
                let _ =
                    writeln!(page, "    accepted by {}; another person must, too", run.assents.join(", "));
            }
        }
        if let Some(reason) = &run.stranded {
            let _ = writeln!(page, "    {} {reason}", paint(Tone::Bad, "stranded:"));
            write_ways_out(page, name, run);
        }
    }
}

/// What a person can do about a stranded run.
fn write_ways_out(page: &mut String, workload: &WorkloadName, run: &RunStatus) {
    let again = match run.kind {
        Kind::Failover => format!("lifeboat failover {workload} --to {}", run.to),
        Kind::Switchover => format!("lifeboat switchover {workload} --to {}", run.to),
        Kind::Failback => format!("lifeboat failback {workload}"),
        Kind::Rejoin => format!("lifeboat rejoin {workload} --region {}", run.from),
    };
    let _ = writeln!(page, "    to let it go on:    {again}");
    if let Some(step) = &run.step {
        let _ = writeln!(page, "    … without the step: lifeboat skip {} {step} --reason …", run.run);
    }
    if !run.past_return {
        let _ = writeln!(page, "    to take it back:    lifeboat cancel {} --reason …", run.run);
    }
    let _ = writeln!(page, "    to give it up:      lifeboat abandon {} --reason …", run.run);
}

fn write_region(page: &mut String, region: &RegionName, seen: &RegionStatus) {
    let role = if seen.primary { "primary" } else { "standby" };
    let verdict = paint(tone(seen.verdict), &format!("{:<9}", seen.verdict.to_string()));
    let _ = writeln!(page, "  {region:<12} {role:<8} {verdict} {}", seen.reason);
    for (database, status) in &seen.databases {
        let age = length(status.age);
        let text = match &status.sample.state {
            DatabaseState::Primary { written, .. } => format!("primary, log ends at {written}"),
            DatabaseState::Standby(position) => {
                let stream = if position.streaming { "streaming" } else { "not streaming" };
                let bytes = status.lag_bytes.map_or_else(|| "unknown".to_owned(), |b| format!("{b} bytes"));
                let time = status.lag.map_or_else(|| "unknown".to_owned(), length);
                format!("standby, {stream}, lag {bytes}, {time}")
            }
        };
        let _ =
            writeln!(page, "    {database}: {text} (seen {age} ago, timeline {})", status.sample.timeline);
    }
    for (probe, status) in seen.probes.iter().filter(|(_, status)| status.state != ProbeState::Up) {
        let tone = if status.state == ProbeState::Down { Tone::Bad } else { Tone::Dim };
        let state = match status.state {
            ProbeState::Up => "up",
            ProbeState::Failing => "failing",
            ProbeState::Down => "down",
            ProbeState::Unseen => "no fresh sighting",
        };
        let why = status.failure.as_deref().unwrap_or("it has not looked yet");
        let _ = writeln!(page, "    {probe}: {}: {why}", paint(tone, state));
    }
    if seen.verdict == Verdict::Healthy && seen.probes.is_empty() {
        let _ = writeln!(page, "    {}", paint(Tone::Warn, "no probe looks at this region"));
    }
}
