//! The time after the loss, as it happens.

use std::time::Duration;

use lifeboat_chaos::agent::SHOP_NAME;
use lifeboat_chaos::canary::now_ms;
use lifeboat_chaos::html::sight::proof;
use lifeboat_chaos::html::spoken;
use lifeboat_chaos::report::sight::Sight;
use lifeboat_chaos::timeline::{Milestone, Timeline};
use lifeboat_chaos::{Canary, Lab, Region};
use serde_json::Value;

use crate::ui::{Stage, Tone};

/// How often is looked: often enough for a live line, far below one core.
const LOOK: Duration = Duration::from_millis(40);
/// How long is written on after the first order on west, for the picture and to see that it stays.
const AFTERWARDS_MS: u64 = 1_500;

/// What was shown already.
#[derive(Default)]
struct Shown {
    milestones: usize,
    failure: bool,
    write: bool,
    stuck: Option<String>,
}

/// Shows what happens until clients were served for a while and the run is over, or until `patience_ms` after
/// the loss; then returns lifeboat's record of it.
pub(super) async fn until_served(
    stage: &mut Stage,
    lab: &Lab,
    canary: &Canary,
    lost_ms: u64,
    patience_ms: u64,
) -> (Timeline, Option<Sight>) {
    let mut shown = Shown::default();
    let mut records: Vec<Value> = Vec::new();
    let mut sight: Option<Option<Sight>> = None;
    stage.moment(0, Tone::Bad, "east is gone", "every process of it");
    stage.move_line("");
    loop {
        let after = records.last().and_then(|stamped| stamped["sequence"].as_u64()).unwrap_or(0);
        records.extend(lab.records_after(after).await);
        let timeline = Timeline::read(&records);
        if sight.is_none() && timeline.at(Milestone::Detected).is_some() {
            // Once, and only where there are several: it takes tens of milliseconds.
            let at_ms = now_ms().saturating_sub(lost_ms);
            // Only the one who decides knows which of them count.
            let decider = timeline.decided_by.as_deref().and_then(|agent| agent.parse().ok());
            let status = match decider {
                Some(site) => lab.status_of(site).await,
                None => None,
            };
            sight = Some(status.and_then(|status| Sight::read(&status, at_ms)));
        }
        shown.show(stage, lab, canary, lost_ms, &timeline);
        let since = now_ms().saturating_sub(lost_ms);
        let first =
            canary.look(|ledger| ledger.first_from(Region::West, lost_ms).map(|order| order.acknowledged_ms));
        stage.update(match first {
            None => format!("{}.{} s without service", since / 1000, since % 1000 / 100),
            Some(_) => "clients are served again".to_owned(),
        });
        if since > patience_ms || timeline.over() && first.is_some_and(|at| now_ms() > at + AFTERWARDS_MS) {
            return (on_record(lab, timeline).await, sight.flatten());
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// The run as `lifeboat explain` tells it to anyone; what was seen live if it does not.
async fn on_record(lab: &Lab, live: Timeline) -> Timeline {
    let Some(run) = live.run.clone() else { return live };
    let told = lab.lifeboat(&["explain", &run, "--json"]).await.json();
    match told.as_ref().and_then(|told| told["records"].as_array()) {
        // Who decides is not in a run's own records.
        Some(records) => Timeline { decided_by: live.decided_by.clone(), ..Timeline::read(records) },
        None => live,
    }
}

impl Shown {
    fn show(&mut self, stage: &Stage, lab: &Lab, canary: &Canary, lost_ms: u64, timeline: &Timeline) {
        // Between two looks several things may have happened: they are told in their own order.
        let mut news: Vec<(u64, Tone, &str, String)> = Vec::new();
        let failed =
            canary.look(|ledger| ledger.failed.iter().find(|order| order.ended_ms >= lost_ms).cloned());
        if let Some(order) = failed.filter(|_| !self.failure) {
            self.failure = true;
            news.push((order.ended_ms, Tone::Soft, "first order fails", "clients notice".to_owned()));
        }
        for reached in timeline.reached.iter().skip(self.milestones) {
            let detail = detail(reached.milestone, lab, Region::East, timeline);
            news.push((reached.at_ms, Tone::Deed, reached.milestone.title(), detail));
        }
        self.milestones = timeline.reached.len().max(self.milestones);
        let first = canary.look(|ledger| ledger.first_from(Region::West, lost_ms).cloned());
        if let Some(order) = first.filter(|_| !self.write) {
            self.write = true;
            let held = spoken(order.acknowledged_ms - lost_ms);
            news.push((
                order.acknowledged_ms,
                Tone::Good,
                "first client write",
                format!("on west: {held} without service"),
            ));
        }
        news.sort_by_key(|(at, ..)| *at);
        for (at, tone, title, detail) in news {
            stage.moment(at.saturating_sub(lost_ms), tone, title, &detail);
        }
        if timeline.stuck.is_some() && timeline.stuck != self.stuck {
            self.stuck.clone_from(&timeline.stuck);
            let since = now_ms().saturating_sub(lost_ms);
            stage.moment(since, Tone::Bad, "stuck", timeline.stuck.as_deref().unwrap_or_default());
        }
    }
}

/// What a milestone means when `old` is the region that was the primary.
pub(super) fn detail(milestone: Milestone, lab: &Lab, old: Region, timeline: &Timeline) -> String {
    let new = old.other();
    match milestone {
        Milestone::Detected => match &timeline.decided_by {
            Some(agent) => format!("enough agents see {old} as lost; the one in {agent} decides"),
            None => format!("lifeboat takes {old} as lost, and can prove its own network"),
        },
        Milestone::Measured => "how much the standby is behind is known before anything moves".to_owned(),
        Milestone::Fenced => {
            let proof = timeline.proof.as_deref().map_or_else(|| "proven".to_owned(), proof);
            format!("{old} takes no more writes: {proof}")
        }
        Milestone::CaughtUp => format!("{new} has replayed all that {old} ever wrote"),
        Milestone::Salvaged => format!("what only {old} has is kept in files"),
        Milestone::Promoted => format!("{new}'s database is the primary"),
        Milestone::Serving => format!("it commits, and {new}'s shop answers"),
        Milestone::Switched => format!("{SHOP_NAME} → {}", lab.network().host(new)),
        Milestone::Verified => "name servers and lifeboat's own client agree".to_owned(),
        Milestone::Rejoined => format!("{old}'s database is a standby of {new}"),
        Milestone::Replicating => "it replays what the primary commits".to_owned(),
        Milestone::Ended => "on record, with its report".to_owned(),
    }
}
