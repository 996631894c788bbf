//! `lifeboat history`, for a person.

use std::fmt::Write;

use lifeboat_core::time::length;

use crate::summary::RunSummary;
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
    }
    page
}
