//! `lifeboat history`, for a person.

use std::fmt::Write;

use lifeboat_core::time::length;

use crate::summary::{Election, RunSummary, Takeover};
use crate::ui::{Tone, paint};

/// The whole page.
pub(crate) fn page(runs: &[RunSummary]) -> String {
    if runs.is_empty() {
        return "no run is on record".to_owned();
    }
    let mut page = String::new();
    for run in runs {
        let tone = match run.state {
            "done" => Tone::Good,
            "running" | "asking" | "abandoned" => Tone::Warn,
            _ => Tone::Bad,
        };
        let took =
            run.ended.map_or_else(String::new, |ended| format!(" after {}", length(ended.since(run.opened))));
        let _ = writeln!(
            page,
            "{}  {:<14} {} from {} to {}  {}{took}",
            run.opened,
            run.run,
            run.runbook,
            run.from,
            run.to,
            paint(tone, run.state)
        );
        let _ = writeln!(page, "    {}", run.because);
        for Takeover { at, agent, epoch } in &run.takeovers {
            let agent = agent.as_ref().map_or("another agent", |agent| agent.as_str());
            let _ = writeln!(page, "    {at}  {agent} took it over, under epoch {epoch}");
        }
    }
    page
}

/// Who decided, since when.
pub(crate) fn elections(elections: &[Election]) -> String {
    if elections.is_empty() {
        return "no election is on record: this agent is alone, or none was elected yet".to_owned();
    }
    let mut page = String::new();
    for Election { at, agent, term, version } in elections {
        let _ = writeln!(page, "{at}  {agent} decides from here on (term {term}, lifeboat {version})");
    }
    page
}
