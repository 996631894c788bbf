//! `report.html`: one file, nothing loaded from elsewhere, light and dark.
//!
//! **Invariant:** it shows the values of `report.json` and computes none of its own.

mod moves;
mod picture;
pub mod sight;

use std::fmt::Write;

use crate::report::{Report, Run};

/// A duration as people say it: "840 ms", "3.12 s", "2 min 5 s".
#[must_use]
pub fn spoken(ms: u64) -> String {
    match ms {
        0..1_000 => format!("{ms} ms"),
        1_000..60_000 if ms.is_multiple_of(1_000) => format!("{} s", ms / 1000),
        1_000..60_000 => format!("{}.{:02} s", ms / 1000, ms % 1000 / 10),
        _ if ms % 60_000 < 1_000 => format!("{} min", ms / 60_000),
        _ => format!("{} min {} s", ms / 60_000, ms % 60_000 / 1000),
    }
}

/// A count with its thousands set apart.
#[must_use]
pub fn counted(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Text that is not markup.
pub(crate) fn plain(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// The page.
#[must_use]
pub fn page(report: &Report) -> String {
    let failover = &report.failover;
    let run = &failover.shown;
    let (class, verdict) = match (failover.ok, run.rto_held_ms) {
        (true, Some(held)) => {
            ("good", format!("The region was lost. Clients were served again after {}.", spoken(held)))
        }
        (false, Some(held)) => {
            ("bad", format!("Served again after {}, and a promise was not held.", spoken(held)))
        }
        (_, None) => ("bad", "The region was lost, and clients were not served again.".to_owned()),
    };
    let how = if failover.sync { "synchronous standby" } else { "asynchronous standby" };
    let mut body = format!(
        "<header class=\"{class}\"><p class=\"eyebrow\">lifeboat &middot; failover in the lab &middot; {how}</p><h1>{verdict}</h1></header>"
    );
    if let Some(stuck) = &run.stuck {
        let _ = write!(body, "<p class=\"stuck\">{}</p>", plain(stuck));
    }
    body += &cards(run);
    let _ = write!(
        body,
        "<section><h2>What the client saw</h2>{}<p class=\"note\">Each bar is 100 ms of writes, one every 10 ms, over pooled \
         and fresh connections through DNS. East was lost at 0 s.</p></section>",
        picture::draw(run)
    );
    body += &sight::section(run);
    body += &phases(run);
    body += &moves::sections(report);
    if failover.runs.len() > 1 {
        body += &runs(&failover.runs, failover.sync);
    }
    format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <title>lifeboat: a lost region, survived</title><style>{STYLE}</style></head><body><main>{body}\
         <footer>Written by <code>chaos demo</code>. The same numbers are in <code>report.json</code>.</footer></main></body></html>\n"
    )
}

fn cards(run: &Run) -> String {
    let rto = run.rto_held_ms.map_or_else(|| "never".to_owned(), spoken);
    let share = |held: Option<u64>, objective: u64| {
        let held = held.unwrap_or(u64::MAX).min(objective);
        held.saturating_mul(100).checked_div(objective).unwrap_or(100).max(1)
    };
    let card = |title: &str, value: &str, below: &str, share: Option<u64>| {
        let meter = share.map_or_else(String::new, |share| {
            format!("<div class=\"meter\"><span style=\"width:{share}%\"></span></div>")
        });
        format!(
            "<div class=\"card\"><h3>{title}</h3><p class=\"value\">{value}</p>{meter}<p>{below}</p></div>"
        )
    };
    let lost = format!("of {} acknowledged", counted(run.acknowledged_writes));
    let promotion = run.promotion_ms.map_or_else(|| "none".to_owned(), spoken);
    [
        "<div class=\"cards\">".to_owned(),
        card(
            "Time without service (RTO)",
            &rto,
            &format!("objective {}", spoken(run.rto_objective_ms)),
            Some(share(run.rto_held_ms, run.rto_objective_ms)),
        ),
        card(
            "Data lost (RPO)",
            &spoken(run.rpo_held_ms),
            &format!("objective {}", spoken(run.rpo_objective_ms)),
            Some(share(Some(run.rpo_held_ms), run.rpo_objective_ms)),
        ),
        card("Writes lost", &counted(run.lost_writes), &lost, None),
        card("Promotion to first write", &promotion, "of the new primary", None),
        "</div>".to_owned(),
    ]
    .concat()
}

fn phases(run: &Run) -> String {
    let mut rows = String::new();
    let mut at = 0;
    let fenced = run.proof.as_deref().map_or_else(String::new, sight::proof);
    let fenced = format!("loss measured; {fenced}");
    for phase in &run.phases {
        at += phase.ms;
        let what = match phase.name {
            "detect" if run.sight.is_some() => {
                "enough agents see it as lost, each with its own network proven"
            }
            "detect" => "three failed looks, and the agent's own network proven",
            "fence" => &fenced,
            "promote" => "standby promoted and committing",
            "switch" => "the name says the new address",
            "verify" => "every name server and a real client agree",
            _ => "",
        };
        let _ = write!(
            rows,
            "<tr><td><i class=\"dot {0}\"></i>{0}</td><td class=\"n\">{1}</td><td class=\"n\">+{2}</td><td>{what}</td></tr>",
            phase.name,
            spoken(phase.ms),
            spoken(at)
        );
    }
    format!(
        "<section><h2>What lifeboat did</h2><table><thead><tr><th>phase</th><th class=\"n\">took</th>\
         <th class=\"n\">done at</th><th></th></tr></thead><tbody>{rows}</tbody></table></section>"
    )
}

fn runs(runs: &[Run], sync: bool) -> String {
    let mut rows = String::new();
    for (number, run) in runs.iter().enumerate() {
        let phases: Vec<String> =
            run.phases.iter().map(|phase| format!("{} {}", phase.name, spoken(phase.ms))).collect();
        let _ = write!(
            rows,
            "<tr><td>{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{} of {}</td><td>{}</td><td>{}</td></tr>",
            number + 1,
            run.rto_held_ms.map_or_else(|| "never".to_owned(), spoken),
            spoken(run.rpo_held_ms),
            counted(run.lost_writes),
            counted(run.acknowledged_writes),
            phases.join(", "),
            if run.ok(sync) { "held" } else { "missed" },
        );
    }
    format!(
        "<section><h2>Each run</h2><table><thead><tr><th>run</th><th class=\"n\">RTO held</th><th class=\"n\">RPO held</th>\
         <th class=\"n\">writes lost</th><th>phases</th><th></th></tr></thead><tbody>{rows}</tbody></table>\
         <p class=\"note\">The picture shows the run with the median time.</p></section>"
    )
}

const STYLE: &str = "\
:root{--paper:#f7f8fa;--card:#fff;--ink:#172033;--soft:#5b6478;--line:#e1e5ec;--east:#3b6fd4;--west:#12936b;--fail:#d9534f;\
--detect:#e0912f;--fence:#b5527a;--promote:#7a5cc9;--switch:#2a8fb8;--verify:#12936b}\
@media (prefers-color-scheme:dark){:root{--paper:#11151d;--card:#1a202b;--ink:#e8ecf3;--soft:#98a2b6;--line:#2b3342;\
--east:#6b9bf2;--west:#35c795;--fail:#ee7a75;--detect:#f0ab52;--fence:#dd7fa5;--promote:#a68bf0;--switch:#58b9de;--verify:#35c795}}\
*{box-sizing:border-box}body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.5 system-ui,sans-serif}\
main{max-width:1120px;margin:0 auto;padding:40px 24px}header{border-left:6px solid var(--west);padding-left:20px;margin-bottom:28px}\
header.bad{border-color:var(--fail)}.eyebrow{margin:0;color:var(--soft);font-size:14px}h1{margin:4px 0 0;font-size:30px;line-height:1.2}\
h2{font-size:18px;margin:0 0 14px}h3{margin:0;font-size:14px;font-weight:500;color:var(--soft)}\
.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(220px,1fr));gap:16px;margin-bottom:20px}\
.card,section{background:var(--card);border:1px solid var(--line);border-radius:12px;padding:20px}.card p{margin:0;color:var(--soft);font-size:14px}\
.card .value{color:var(--ink);font-size:30px;font-weight:650;line-height:1.3}section{margin-bottom:20px;overflow-x:auto}\
.meter{height:6px;border-radius:3px;background:var(--line);margin:4px 0 6px}.meter span{display:block;height:6px;border-radius:3px;background:var(--west)}\
svg{display:block;width:100%;min-width:720px;height:auto}svg text{fill:var(--ink);font:13px system-ui,sans-serif}svg .soft{fill:var(--soft)}\
svg .on{fill:#fff;font-weight:600}table{border-collapse:collapse;width:100%;font-size:15px}th{text-align:left;color:var(--soft);font-weight:500}\
td,th{padding:8px 12px 8px 0;border-bottom:1px solid var(--line)}tbody tr:last-child td{border-bottom:0}.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap;padding-right:24px}\
.dot{display:inline-block;width:10px;height:10px;border-radius:50%;margin-right:8px}.detect{background:var(--detect)}.fence{background:var(--fence)}\
.promote{background:var(--promote)}.switch{background:var(--switch)}.verify{background:var(--verify)}.note{color:var(--soft);font-size:14px;margin:10px 0 0}\
.stuck{background:var(--card);border:1px solid var(--fail);border-radius:12px;padding:12px 20px;overflow-wrap:anywhere}footer{color:var(--soft);font-size:14px}";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_counts_are_said_as_people_say_them() {
        let said = [0, 840, 3_129, 30_000, 60_000, 125_000].map(spoken);
        assert_eq!(said, ["0 ms", "840 ms", "3.12 s", "30 s", "1 min", "2 min 5 s"]);
        assert_eq!([7, 999, 1_000, 1_234_567].map(counted), ["7", "999", "1,000", "1,234,567"]);
    }

    #[test]
    fn words_of_others_are_text_and_not_markup() {
        assert_eq!(plain("<b a=\"1\">&"), "&lt;b a=&quot;1&quot;&gt;&amp;");
    }
}
