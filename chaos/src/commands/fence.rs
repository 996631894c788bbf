//! `chaos fence`: what an old primary does after a new one has taken over.

use std::path::PathBuf;
use std::time::Duration;

use lifeboat_chaos::holdout::{Holdout, Newcomer, now_us};
use lifeboat_chaos::html::{counted, spoken};
use lifeboat_chaos::postgres::Setup;
use lifeboat_chaos::report::fence::{Case, FenceRun, Summary, summaries};
use lifeboat_chaos::timeline::Timeline;
use lifeboat_chaos::{AgentOptions, Fault, Lab, LabOptions, Part, Region, Site};
use serde_json::json;
use tokio::time::Instant;

use super::demo::well;
use crate::ui::{self, Stage, Tone};

/// How long the client writes before the trouble.
const BEFORE: Duration = Duration::from_secs(2);
/// How long a takeover is waited for.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long an agent hangs, and how long what wakes is watched.
const WHILE: Duration = Duration::from_secs(8);

/// Counts what an old primary acknowledges after a new one has taken its first write.
///
/// In a lab of three sites a client keeps one session open with the primary and writes as fast as it can, while the
/// primary's site hangs and wakes later, or only its agent and its sentry do, or it is cut off from the other sites.
/// Each case is run with an asynchronous and with a synchronous standby, each run in a lab of its own.
///
/// Exits 0 when there was no such write, 7 when there was one or nothing took over, 1 when a lab could not be built.
#[derive(Debug, clap::Args)]
pub(crate) struct Fence {
    /// How many times each.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1000))]
    runs: u16,
    /// One case alone: host-frozen, agent-frozen, cut-off.
    #[arg(long, value_parser = case)]
    case: Option<Case>,
    /// With a synchronous standby alone.
    #[arg(long, conflicts_with = "asynchronous")]
    sync: bool,
    /// With an asynchronous standby alone.
    #[arg(long = "async")]
    asynchronous: bool,
    /// Leave out the command that powers a region off: then only what is seen from outside can prove a fence.
    #[arg(long)]
    no_stonith: bool,
    /// Print the result as JSON on standard output.
    #[arg(long)]
    json: bool,
    /// Keep the labs' folders with their data and logs, and say where they are.
    #[arg(long)]
    keep: bool,
    /// The lifeboat program [default: beside this one].
    #[arg(long, env = "LIFEBOAT_BIN")]
    lifeboat: Option<PathBuf>,
}

fn case(name: &str) -> Result<Case, String> {
    let names = || Case::ALL.map(Case::name).join(", ");
    Case::ALL.into_iter().find(|case| case.name() == name).ok_or_else(|| format!("not one of: {}", names()))
}

impl Fence {
    pub(crate) async fn run(self) -> anyhow::Result<u8> {
        let stage = Stage::new(self.json);
        let mut runs = Vec::new();
        for case in Case::ALL.into_iter().filter(|case| self.case.is_none_or(|only| only == *case)) {
            for sync in [false, true] {
                if sync && self.asynchronous || !sync && self.sync {
                    continue;
                }
                for _ in 0..self.runs {
                    let run = self.once(&stage, case, sync).await?;
                    tell(&stage, &run);
                    runs.push(run);
                }
            }
        }
        let all = summaries(&runs);
        stage.say("");
        all.iter().for_each(|summary| tell_all(&stage, summary));
        let ok = runs.iter().all(FenceRun::ok);
        if self.json {
            let text = json!({ "version": 1, "ok": ok, "cases": all, "runs": runs });
            ui::line(&serde_json::to_string_pretty(&text)?);
        }
        Ok(if ok { 0 } else { 7 })
    }

    async fn once(&self, stage: &Stage, case: Case, sync: bool) -> anyhow::Result<FenceRun> {
        let agent = AgentOptions { power: !self.no_stonith, ..AgentOptions::default() };
        let options = LabOptions {
            setup: Setup { sync, stall: false },
            agent: Some(agent),
            sites: true,
            lifeboat: self.lifeboat.clone(),
            chaos: None,
            keep: self.keep,
            ballast_mb: 0,
        };
        let lab = Lab::start(options).await?;
        if self.keep {
            stage.say(&format!("  the lab is kept in {}", lab.folder().display()));
        }
        lab.until_status("lifeboat does not say that all is well", PATIENCE, well).await?;
        let holdout = Holdout::start(&lab.login_at(Region::East), "holdout", Region::East).await?;
        let newcomer = Newcomer::start(&lab.login_at(Region::West), "newcomer", Region::West);
        tokio::time::sleep(BEFORE).await;
        let before = holdout.look(|told| told.acknowledged.len()) as u64;
        let trouble = now_us();
        make(&lab, case).await?;
        let since = Instant::now();
        let limit = if case == Case::AgentFrozen { WHILE } else { PATIENCE };
        while newcomer.first().is_none() && since.elapsed() < limit {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        wake(&lab, case)?;
        let since = Instant::now();
        while holdout.look(|told| told.ended.is_none()) && since.elapsed() < WHILE {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let timeline = Timeline::read(&lab.records_after(0).await);
        let first = newcomer.first();
        let told = holdout.look(Clone::clone);
        let last = told.acknowledged.last().copied().unwrap_or(0);
        let millis = |later: u64, earlier: u64| later.saturating_sub(earlier) / 1000;
        let after = first.map_or(0, |first| told.after(first)) as u64;
        Ok(FenceRun {
            case,
            sync,
            stonith: !self.no_stonith,
            writes_a_second: before / BEFORE.as_secs(),
            taken_over_ms: first.map(|first| millis(first, trouble)),
            proof: timeline.proof,
            decided_by: timeline.decided_by,
            writes_after_fence: after,
            for_ms: first.filter(|_| after > 0).map(|first| millis(last, first)),
            session_ended_ms: told.ended.map(|(at, _)| millis(at, trouble)),
            stuck: timeline.stuck,
        })
    }
}

async fn make(lab: &Lab, case: Case) -> anyhow::Result<()> {
    match case {
        Case::HostFrozen => {
            lab.freeze_site(Site::East)?;
        }
        Case::AgentFrozen => {
            lab.suspend(Site::East, Part::Agent)?;
            lab.suspend(Site::East, Part::Sentry)?;
        }
        Case::CutOff => lab.isolate(Site::East, Fault::Blackhole),
    }
    Ok(())
}

/// What is cut off stays cut off: its client is near it.
fn wake(lab: &Lab, case: Case) -> anyhow::Result<()> {
    match case {
        Case::HostFrozen => {
            lab.thaw_site(Site::East)?;
        }
        Case::AgentFrozen => {
            lab.resume(Site::East, Part::Agent)?;
            lab.resume(Site::East, Part::Sentry)?;
        }
        Case::CutOff => {}
    }
    Ok(())
}

fn tell(stage: &Stage, run: &FenceRun) {
    let taken =
        run.taken_over_ms.map_or_else(|| "nothing moved".to_owned(), |ms| format!("{:>9}", spoken(ms)));
    let text = format!(
        "  {:<13} {:<6} taken over {taken}  proof {:<14} by {:<8} {} writes after it{}",
        run.case.name(),
        if run.sync { "sync" } else { "async" },
        run.proof.as_deref().unwrap_or("none"),
        run.decided_by.as_deref().unwrap_or("nobody"),
        counted(run.writes_after_fence),
        run.for_ms.map_or_else(String::new, |ms| format!(", for {}", spoken(ms))),
    );
    stage.say(&stage.paint(if run.ok() { Tone::Good } else { Tone::Bad }, &text));
    if let Some(stuck) = &run.stuck {
        stage.say(&stage.paint(Tone::Soft, &format!("    lifeboat did not finish: {stuck}")));
    }
}

fn tell_all(stage: &Stage, summary: &Summary) {
    let proofs: Vec<String> =
        summary.proofs.iter().map(|(proof, times)| format!("{proof} {times}")).collect();
    stage.say(&format!(
        "  {} {}: writes after the fence in {} of {} runs, {} at most; taken over in {}{}{}",
        summary.case.name(),
        if summary.sync { "sync" } else { "async" },
        summary.with_writes_after_fence,
        summary.runs,
        counted(summary.worst_writes_after_fence),
        summary.taken_over,
        summary.median_taken_over_ms.map_or_else(String::new, |ms| format!(", median {}", spoken(ms))),
        if proofs.is_empty() { String::new() } else { format!("; proven by {}", proofs.join(", ")) },
    ));
}
