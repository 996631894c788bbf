//! `lifeboat status`, for a person.

use std::fmt::Write;

use lifeboat_core::sighting::DatabaseState;
use lifeboat_core::status::{PhaseName, ProbeState, RegionStatus, Status, Verdict, WorkloadStatus};
use lifeboat_core::time::length;
use lifeboat_core::{RegionName, WorkloadName};

use crate::ui::{Tone, paint, tone};

/// The whole page.
pub(crate) fn page(status: &Status) -> String {
    let mut page = String::new();
    let proven = &status.connectivity;
    let own = if proven.proven { paint(Tone::Good, "proven") } else { paint(Tone::Warn, "not proven") };
    let _ = writeln!(page, "agent {} at {}", paint(Tone::Bold, status.agent.as_str()), status.at);
    let _ = writeln!(page, "own connectivity {own}: {}", proven.reason);
    for (name, workload) in &status.workloads {
        page.push('\n');
        write_workload(&mut page, name, workload);
    }
    page
}

fn write_workload(page: &mut String, name: &WorkloadName, workload: &WorkloadStatus) {
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
    if let Some(paused) = &workload.paused {
        let _ = writeln!(page, "  {}", paint(Tone::Warn, &paused.to_string()));
    }
    if let Some(run) = &workload.run {
        let step = run.step.as_ref().map_or_else(|| "at its end".to_owned(), |step| format!("at {step}"));
        let _ =
            writeln!(page, "  run {} from {} to {}, {step}, since {}", run.run, run.from, run.to, run.opened);
        if let (Some(question), Some(answer)) = (&run.question, &run.answer) {
            let _ = writeln!(page, "    {} {question}", paint(Tone::Bad, "a person must decide:"));
            let _ = writeln!(page, "    to accept: {answer}");
        }
        if let Some(reason) = &run.stranded {
            let _ = writeln!(page, "    {} {reason}", paint(Tone::Bad, "stranded:"));
            let _ = writeln!(page, "    to let it go on: lifeboat failover {name} --to {}", run.to);
            let _ = writeln!(page, "    to give it up:   lifeboat abandon {} --reason …", run.run);
        }
    }
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
