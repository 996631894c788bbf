//! `lifeboat runbook`, for a person.

mod names;
pub(crate) mod page;
mod returned;
mod shell;
mod step;

use std::fmt::Write;

use lifeboat_core::time::length;

use crate::commands::runbook::list::Listed;
use crate::ui::{Tone, paint};

/// The pages in force.
pub(crate) fn list(listed: &Listed) -> String {
    let mut text = String::new();
    for page in &listed.pages {
        let from = page.file.as_ref().map_or("shipped".to_owned(), |file| file.display().to_string());
        let _ = writeln!(text, "{:<12} {}", paint(Tone::Bold, &page.name), page.title);
        let kind =
            if page.name == page.kind.to_string() { String::new() } else { format!("{}, ", page.kind) };
        let _ = writeln!(text, "    {kind}{from}");
        let _ = match &page.last_run {
            Some(run) => {
                let took = run.ended.map_or("not ended".to_owned(), |ended| length(ended.since(run.opened)));
                writeln!(text, "    last run {} as {}: {}, {took}", run.opened, run.run, run.state)
            }
            None if listed.record_read => writeln!(text, "    never ran here"),
            None => Ok(()),
        };
    }
    if !listed.record_read {
        text.push_str(
            "\nNo agent answers and there is no journal to read: when each last ran is not known.\n",
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use lifeboat_core::Stamped;
    use lifeboat_core::plan::Kind;

    use super::*;
    use crate::commands::runbook::list::ListedPage;
    use crate::summary;

    #[test]
    fn a_page_says_how_its_last_run_ended() {
        let records = include_str!("../../../core/tests/golden/records-v1.jsonl").lines();
        let records: Vec<Stamped> = records.map(|line| serde_json::from_str(line).unwrap()).collect();
        let run = summary::runs(&records).into_iter().find(|run| run.ended.is_some()).unwrap();
        let wanted = format!("    last run {} as {}: {}, ", run.opened, run.run, run.state);
        let page = |kind: Kind, last_run| ListedPage {
            name: kind.to_string(),
            kind,
            title: "A title".to_owned(),
            file: None,
            last_run,
        };
        let pages = vec![page(Kind::Failover, Some(run)), page(Kind::Rejoin, None)];
        let text = list(&Listed { record_read: true, pages });
        assert!(text.contains(&wanted) && !text.contains("not ended"), "{text}");
        assert!(text.contains("never ran here") && !text.contains("not known"), "{text}");
    }
}
