//! After the failover: the lost region returns, the workload goes home, and away once more.

use std::collections::HashSet;
use std::time::Instant;

use lifeboat_chaos::html::{counted, spoken};
use lifeboat_chaos::report::moves::{Aftermath, Move, Return};
use lifeboat_chaos::timeline::{Milestone, Reached, Timeline};
use lifeboat_chaos::{Lab, Planned, Region};

use super::watch::detail;
use crate::ui::{Stage, Tone};

/// How many orders only the isolated old primary has.
const ISOLATED: u32 = 25;

/// Shows all three, and says what each held.
pub(super) async fn show(
    stage: &mut Stage,
    lab: &Lab,
    lost: &HashSet<String>,
    rate: u32,
) -> anyhow::Result<Aftermath> {
    let since = Instant::now();
    stage.move_line("east is powered on; its old primary takes orders that nobody else has");
    let back = lab.come_back(Region::East, ISOLATED, lost).await?;
    stage.still();
    tell_return(stage, lab, &back);
    if back.rejoin_ms.is_none() {
        let none = || Move { stuck: Some("the lost region is no standby".to_owned()), ..Move::default() };
        return Ok(Aftermath { back, failback: none(), switchover: none() });
    }
    lab.synchronise(Region::West).await?;
    let title = format!("The workload goes home: a failback under {} writes a second.", counted(rate.into()));
    let failback = planned(stage, lab, Planned::Failback, rate, &title).await?;
    if failback.ok() {
        lab.synchronise(Region::East).await?;
    }
    let switchover = planned(
        stage,
        lab,
        Planned::Switchover(Region::West),
        rate,
        "And away once more: a switchover to west.",
    )
    .await?;
    stage.done("returned, went home, moved away again", since.elapsed());
    Ok(Aftermath { back, failback, switchover })
}

/// One planned move, told from its order on.
pub(crate) async fn planned(
    stage: &mut Stage,
    lab: &Lab,
    planned: Planned,
    rate: u32,
    title: &str,
) -> anyhow::Result<Move> {
    stage.say(&stage.paint(Tone::Strong, &format!("  {title}")));
    stage.say("");
    stage.move_line("writes go on until lifeboat closes the old primary");
    let moved = lab.move_under_load(planned, rate).await?;
    stage.still();
    let old = planned.to().other();
    moments(stage, lab, old, moved.began_ms, &moved.milestones);
    if let Some(stuck) = &moved.stuck {
        stage.say(&stage.paint(Tone::Bad, &format!("  lifeboat did not finish: {}", stuck.trim())));
    }
    stage.say("");
    let gap = moved.write_gap_ms.map_or_else(|| "no end".to_owned(), spoken);
    let text = format!(
        "  write gap   {gap:>9}  {} of {} acknowledged writes lost, {} doubled; {} a second before it",
        counted(moved.lost_writes),
        counted(moved.acknowledged_writes),
        counted(moved.duplicated_writes),
        counted(moved.writes_a_second),
    );
    stage.say(&stage.paint(if moved.ok() { Tone::Good } else { Tone::Bad }, &text));
    stage.say("");
    Ok(moved)
}

fn tell_return(stage: &Stage, lab: &Lab, back: &Return) {
    let isolated = counted(back.isolated_writes);
    let title = format!(
        "  East returns. Its old primary still believes in itself, and took {isolated} orders alone."
    );
    stage.say(&stage.paint(Tone::Strong, &title));
    stage.say("");
    moments(stage, lab, Region::East, back.back_ms, &back.milestones);
    if let Some(stuck) = &back.stuck {
        stage.say(&stage.paint(Tone::Bad, &format!("  lifeboat did not finish: {stuck}")));
    }
    stage.say("");
    let way = back.rejoin.as_deref().unwrap_or("not");
    let after = back.rejoin_ms.map_or_else(|| "never".to_owned(), spoken);
    let text = format!(
        "  rejoined    {after:>9}  by {way}; in the salvage: {} of {isolated} such orders, {} of {} that the failover lost; \
         {} on west",
        counted(back.isolated_salvaged),
        counted(back.lost_salvaged),
        counted(back.lost_before),
        counted(back.isolated_on_primary),
    );
    stage.say(&stage.paint(if back.ok() { Tone::Good } else { Tone::Bad }, &text));
    stage.say("");
}

fn moments(stage: &Stage, lab: &Lab, old: Region, began_ms: u64, milestones: &[Reached]) {
    for reached in milestones {
        let told = match reached.milestone {
            Milestone::Detected => "the run is on record".to_owned(),
            Milestone::Fenced => format!("{old} is closed, and proven to take no more writes"),
            other => detail(other, lab, old, &Timeline::default()),
        };
        let title =
            if reached.milestone == Milestone::Detected { "opened" } else { reached.milestone.title() };
        stage.moment(reached.at_ms.saturating_sub(began_ms), Tone::Deed, title, &told);
    }
}
