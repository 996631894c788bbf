//! The page's part on what came after: the return, the move home, the move away.

use std::fmt::Write;

use super::{counted, plain, spoken};
use crate::report::Report;
use crate::report::moves::{Median, Move, Return};
use crate::timeline::Reached;

/// The sections; empty when nothing came after.
pub(super) fn sections(report: &Report) -> String {
    let mut body = String::new();
    if let Some(failback) = &report.failback {
        body += &returned(&failback.back);
        body += &moved("Failback: the workload goes home", &failback.shown, failback.median.as_ref());
    }
    if let Some(switchover) = &report.switchover {
        body += &moved("Switchover: away on purpose", &switchover.shown, switchover.median.as_ref());
    }
    body
}

fn returned(back: &Return) -> String {
    let way = back.rejoin.as_deref().unwrap_or("not at all");
    let after = back.rejoin_ms.map_or_else(|| "never".to_owned(), spoken);
    let text = format!(
        "Its old primary still believed in itself and took {} orders alone. It streamed from the new primary {after} after its \
         network was back, by {way}. lifeboat kept {} rows; among them {} of those orders and {} of the {} that the failover \
         had lost. {} of them are on the new primary.",
        counted(back.isolated_writes),
        counted(back.salvaged_rows),
        counted(back.isolated_salvaged),
        counted(back.lost_salvaged),
        counted(back.lost_before),
        counted(back.isolated_on_primary),
    );
    section("The lost region returns", &text, back.stuck.as_deref(), back.back_ms, &back.milestones)
}

fn moved(title: &str, moved: &Move, median: Option<&Median>) -> String {
    let gap = moved.write_gap_ms.map_or_else(
        || "It did not arrive".to_owned(),
        |ms| format!("For {} no client could write", spoken(ms)),
    );
    let mut text = format!(
        "{gap}. {} of {} acknowledged writes were lost, {} doubled, at {} a second.",
        counted(moved.lost_writes),
        counted(moved.acknowledged_writes),
        counted(moved.duplicated_writes),
        counted(moved.writes_a_second),
    );
    if let Some(median) = median.filter(|median| median.worst_write_gap_ms < u64::MAX) {
        let _ = write!(
            text,
            " Over all runs: median gap {}, longest {}, {} lost.",
            spoken(median.write_gap_ms),
            spoken(median.worst_write_gap_ms),
            counted(median.lost_writes)
        );
    }
    section(title, &text, moved.stuck.as_deref(), moved.began_ms, &moved.milestones)
}

fn section(title: &str, text: &str, stuck: Option<&str>, from_ms: u64, milestones: &[Reached]) -> String {
    let mut rows = String::new();
    for reached in milestones {
        let at = spoken(reached.at_ms.saturating_sub(from_ms));
        let _ = write!(rows, "<tr><td>{}</td><td class=\"n\">+{at}</td></tr>", reached.milestone.title());
    }
    let stuck = stuck.map_or_else(String::new, |stuck| format!("<p class=\"stuck\">{}</p>", plain(stuck)));
    format!(
        "<section><h2>{title}</h2><p>{text}</p>{stuck}<table><thead><tr><th>what</th><th class=\"n\">done at</th></tr></thead>\
         <tbody>{rows}</tbody></table></section>"
    )
}
