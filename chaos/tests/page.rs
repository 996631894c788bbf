//! The page of a made-up run: whole, self-contained, and saying its numbers. It is left in cargo's folder for
//! temporary files, to be looked at in a browser.

use lifeboat_chaos::Region;
use lifeboat_chaos::canary::{Acknowledged, Failed, Failure, Ledger, Way};
use lifeboat_chaos::html;
use lifeboat_chaos::report::moves::{Aftermath, Move, Return};
use lifeboat_chaos::report::sight::Sight;
use lifeboat_chaos::report::{Evidence, Report, Run};
use lifeboat_chaos::timeline::{Milestone, Reached, Timeline};

const LOST: u64 = 1_000_000;

fn sight() -> Option<Sight> {
    let lost = serde_json::json!({ "shop": { "east": { "verdict": "lost", "abstains": null } } });
    let vantage = |heard: u64, sees| serde_json::json!({ "place": "p", "heard": heard, "sees": sees });
    let none = serde_json::json!({});
    let vantages = serde_json::json!({ "east": vantage(4200, none), "west": vantage(80, lost) });
    Sight::read(&serde_json::json!({ "agent": "witness", "vantages": vantages }), 2_300)
}

fn run(shift: u64) -> Run {
    let order = |at_ms: u64, region| Acknowledged {
        id: format!("o-{at_ms}"),
        sent_ms: at_ms - 4,
        acknowledged_ms: at_ms,
        region,
        way: Way::Pooled,
    };
    let failed = |at_ms: u64| Failed {
        id: format!("o-{at_ms}"),
        sent_ms: at_ms,
        ended_ms: at_ms + 1,
        failure: Failure::Connection,
        way: Way::Fresh,
    };
    let served = LOST + 3_127 + shift;
    let east = (LOST - 5_000..LOST).step_by(10).map(|at| order(at, Region::East));
    let west = (served..served + 1_900).step_by(10).map(|at| order(at, Region::West));
    let ledger = Ledger {
        acknowledged: east.chain(west).collect(),
        failed: (LOST..served).step_by(10).map(failed).collect(),
        missed_beats: 0,
    };
    let survived = ledger.acknowledged.iter().map(|order| order.id.clone()).collect();
    let reached = [
        (Milestone::Detected, 2_311),
        (Milestone::Measured, 2_340),
        (Milestone::Fenced, 2_420),
        (Milestone::Promoted, 2_560),
        (Milestone::Serving, 2_590),
        (Milestone::Switched, 2_600),
        (Milestone::Verified, 3_650),
        (Milestone::Ended, 3_655),
    ];
    let at = |(milestone, ms): (Milestone, u64)| Reached { milestone, at_ms: LOST + ms + shift };
    let stuck = (shift == 0).then(|| "it asks <why> & waits".to_owned());
    let timeline = Timeline {
        run: Some("r".to_owned()),
        decided_by: Some("witness".to_owned()),
        proof: Some("expired".to_owned()),
        reached: reached.map(at).to_vec(),
        stuck,
        ..Timeline::default()
    };
    Run::judge(&Evidence {
        lost_ms: LOST,
        lost: Region::East,
        ledger: &ledger,
        survived: &survived,
        timeline: &timeline,
        sight: sight(),
        reference_intact: true,
        objectives: (60_000, 30_000),
    })
}

fn after(gap: u64) -> Aftermath {
    let reached = |milestone, ms| Reached { milestone, at_ms: LOST + ms };
    let back = Return {
        rejoin: Some("rewind".to_owned()),
        rejoin_ms: Some(2_900),
        salvaged_rows: 36,
        isolated_writes: 25,
        isolated_salvaged: 25,
        lost_before: 11,
        lost_salvaged: 11,
        back_ms: LOST,
        milestones: vec![reached(Milestone::Salvaged, 800), reached(Milestone::Rejoined, 2_800)],
        ..Return::default()
    };
    let moved = Move {
        write_gap_ms: Some(gap),
        acknowledged_writes: 2_100,
        writes_a_second: 998,
        began_ms: LOST,
        milestones: vec![reached(Milestone::Fenced, 90), reached(Milestone::CaughtUp, 95)],
        ..Move::default()
    };
    Aftermath { back, failback: moved.clone(), switchover: moved }
}

#[test]
fn the_page_is_one_file_and_says_the_numbers() {
    let report = Report::of(vec![run(100), run(0), run(300)], false).expect("there are runs");
    let report = report.with(&[after(640), after(720), after(810)]);
    let page = html::page(&report);
    std::fs::write(concat!(env!("CARGO_TARGET_TMPDIR"), "/report.html"), &page)
        .expect("the folder is cargo's");
    // Nothing is loaded from anywhere.
    for loaded in ["http://", "https://", "src=", "<link", "@import", "url("] {
        assert!(!page.contains(loaded), "{loaded}");
    }
    for said in [
        "3.22 s",
        "of 690 acknowledged",
        "objective 1 min",
        "first write on west",
        "DNS moved",
        "Each run",
        "2.90 s after its network was back, by rewind",
        "25 of those orders and 11 of the 11",
        "median gap 720 ms, longest 810 ms, 0 lost",
    ] {
        assert!(page.contains(said), "{said}");
    }
    for element in ["svg", "table", "section", "main", "header", "text", "div"] {
        let count = |what: String| page.matches(&what).count();
        assert_eq!(
            count(format!("<{element}>")) + count(format!("<{element} ")),
            count(format!("</{element}>")),
            "{element}"
        );
    }
    assert!(!page.contains("NaN") && !page.contains("inf\""));
}

#[test]
fn words_of_lifeboat_are_shown_as_text() {
    let page = html::page(&Report::of(vec![run(0)], false).expect("there is a run"));
    assert!(page.contains("it asks &lt;why&gt; &amp; waits"));
}
