//! The page's part on who decided: what each agent saw, and what proved that the old primary was out.

use std::fmt::Write;

use super::{plain, spoken};
use crate::report::Run;

/// What proved a fence, for people. Unknown proofs are said by their name.
#[must_use]
pub fn proof(kind: &str) -> String {
    match kind {
        "write-refused" => "it refused a write over a session opened before".to_owned(),
        "isolated" => "it was powered off, and the session opened before is gone".to_owned(),
        "stopped" => "its host says that it is stopped".to_owned(),
        "closed" => "it was closed on purpose while it worked".to_owned(),
        "expired" => "its write lease ran out, and its sentry has stopped it by its own clock".to_owned(),
        "cut-off" => "its only synchronous standby stopped receiving".to_owned(),
        other => other.to_owned(),
    }
}

/// The section; empty for one agent alone.
pub(super) fn section(run: &Run) -> String {
    let Some(sight) = &run.sight else { return String::new() };
    let regions = sight.regions();
    let mut head = String::new();
    regions.iter().for_each(|region| head += &format!("<th>{}</th>", plain(region)));
    let mut rows = String::new();
    for (name, vantage) in &sight.vantages {
        let heard = vantage.heard_ms.map_or_else(|| "never".to_owned(), spoken);
        let _ = write!(rows, "<tr><td>{}</td><td class=\"n\">{heard}</td>", plain(name));
        for region in &regions {
            let _ = write!(rows, "<td>{}</td>", plain(&sight.cell(name, region)));
        }
        rows += "</tr>";
    }
    let decided = run.decided_by.as_deref().unwrap_or("nobody");
    let fenced = run.proof.as_deref().map_or_else(|| "nothing".to_owned(), proof);
    format!(
        "<section><h2>Who decided</h2><p>The agent in {}. That the old primary takes no more writes was proven: {}.</p>\
         <table><thead><tr><th>agent</th><th class=\"n\">heard</th>{head}</tr></thead><tbody>{rows}</tbody></table>\
         <p class=\"note\">What the agents said of the regions {} after the loss, as {} told it.</p></section>",
        plain(decided),
        plain(&fenced),
        spoken(sight.at_ms),
        plain(&sight.told_by),
    )
}
