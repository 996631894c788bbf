//! `chaos switchover`: planned moves alone, for their figures.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use lifeboat_chaos::postgres::Setup;
use lifeboat_chaos::report::moves::{Move, Switchover as Moves};
use lifeboat_chaos::{AgentOptions, Lab, LabOptions, Planned, Region};
use serde_json::json;

use super::demo::{aftermath, well};
use crate::ui::{self, Stage};

/// Moves a healthy workload to its standby region and home again, under load.
///
/// Both ways as often as told, on one lab: a switchover to west, a failback to east. For each the write gap is
/// measured as clients see it, and every acknowledged write is looked for on the new primary.
///
/// Exits 0 when nothing was lost or doubled, 7 when something was or a move did not arrive, 1 when the lab could not
/// be built.
#[derive(Debug, clap::Args)]
pub(crate) struct Switchover {
    /// How many times, there and back.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1000))]
    runs: u16,
    /// Writes a second.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(10..=100_000))]
    rate: u32,
    /// Let commits wait for the standby.
    #[arg(long)]
    sync: bool,
    /// Megabytes of rows beside the shop's.
    #[arg(long, default_value_t = 150, value_parser = clap::value_parser!(u32).range(0..=10_000))]
    ballast: u32,
    /// Print the result as JSON on standard output instead of the show.
    #[arg(long)]
    json: bool,
    /// Keep the lab's folder with its data and logs, and say where it is.
    #[arg(long)]
    keep: bool,
    /// The lifeboat program [default: beside this one].
    #[arg(long, env = "LIFEBOAT_BIN")]
    lifeboat: Option<PathBuf>,
}

impl Switchover {
    pub(crate) async fn run(self) -> anyhow::Result<u8> {
        let mut stage = Stage::new(self.json);
        let options = LabOptions {
            setup: Setup { sync: self.sync, stall: false },
            agent: Some(AgentOptions::default()),
            sites: false,
            lifeboat: self.lifeboat.clone(),
            chaos: None,
            keep: self.keep,
            ballast_mb: self.ballast,
        };
        let lab = Lab::start_telling(options, |what| stage.say(&format!("  {what}"))).await?;
        lab.until_status("lifeboat does not say that all is well", Duration::from_secs(60), well).await?;
        if self.keep {
            stage.say(&format!("  the lab is kept in {}", lab.folder().display()));
        }
        let (mut away, mut home) = (Vec::new(), Vec::new());
        for number in 1..=self.runs {
            for planned in [Planned::Switchover(Region::West), Planned::Failback] {
                let title =
                    format!("{number} of {}: {} to {}", self.runs, planned.command()[0], planned.to());
                let moved = aftermath::planned(&mut stage, &lab, planned, self.rate, &title).await?;
                let arrived = moved.stuck.is_none();
                if planned == Planned::Failback { &mut home } else { &mut away }.push(moved);
                if !arrived {
                    return self.result(&stage, &away, &home);
                }
                lab.synchronise(planned.to()).await?;
            }
        }
        self.result(&stage, &away, &home)
    }

    fn result(&self, stage: &Stage, away: &[Move], home: &[Move]) -> anyhow::Result<u8> {
        let of = |moves: &[Move]| Moves::of(&moves.iter().collect::<Vec<_>>());
        let away = of(away).context("there was no move")?;
        let home = of(home);
        stage.median("switchover", away.median.as_ref());
        stage.median("failback", home.as_ref().and_then(|home| home.median.as_ref()));
        let ok = away.ok && home.as_ref().is_some_and(|home| home.ok);
        if self.json {
            let text = json!({ "version": 1, "ok": ok, "switchover": away, "failback": home });
            ui::line(&serde_json::to_string_pretty(&text)?);
        }
        Ok(if ok { 0 } else { 7 })
    }
}
