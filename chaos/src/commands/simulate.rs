//! `chaos simulate`: the pretend world, a seed at a time.

use std::io::Write;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::Context;
use lifeboat_chaos::scenario;
use lifeboat_chaos::simulate::{Break, Kind, Life, Simulation, Summary, Worlds};

use crate::ui;

/// Lives through many seeds of a pretend world, and judges each.
///
/// Three agents with real guardians, a pretend coordinator, databases, sentries, names, persons and clocks; what is broken
/// when is drawn from the seed, or told by a scenario. Each seed is lived through twice and must come to the same. Exits 0
/// without violations, 1 with.
#[derive(Debug, clap::Args)]
pub(crate) struct Simulate {
    /// A scenario (`chaos list`), or the path of one; without it, everything is drawn from the seed.
    scenario: Option<String>,
    /// How many seeds.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..))]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 1, value_name = "SEED")]
    from: u64,
    /// Ten flaps and partitions with one bad vantage, and then a real loss, instead of a storm.
    #[arg(long, conflicts_with = "scenario")]
    flaps: bool,
    /// Whole agents instead of the core alone: the real loop, its journal and its tasks, under paused time.
    #[arg(long, conflicts_with_all = ["scenario", "flaps"])]
    whole_loop: bool,
    /// Break something on purpose: the oracles must notice.
    #[arg(long = "break", value_name = "WHAT")]
    broken: Option<Break>,
    /// Tell the story of one seed.
    #[arg(long)]
    trace: bool,
    /// How many threads; one per core when it is not said.
    #[arg(long)]
    threads: Option<usize>,
    /// Where failed seeds are written down.
    #[arg(long, default_value = "target/chaos/failed-seeds.txt", value_name = "FILE")]
    keep: PathBuf,
    /// Print the summary as JSON.
    #[arg(long)]
    json: bool,
}

impl Simulate {
    pub(crate) fn run(&self) -> anyhow::Result<u8> {
        let worlds = match &self.scenario {
            Some(name) => Worlds::Told(Box::new(named(name)?)),
            None if self.flaps => Worlds::Drawn(Kind::Flaps),
            None if self.whole_loop => Worlds::Whole,
            None => Worlds::Drawn(Kind::Storm),
        };
        let simulation = Simulation { worlds, broken: self.broken };
        if self.trace {
            let life = simulation.live(self.from, true);
            life.trace.iter().for_each(|line| ui::line(line));
            life.violations.iter().for_each(|what| ui::line(&format!("violation: {what}")));
            return Ok(u8::from(!life.violations.is_empty()));
        }
        let threads = self.threads.or_else(|| std::thread::available_parallelism().ok().map(Into::into));
        let begun = Instant::now();
        let summary = simulation.run(self.from, self.seeds, threads.unwrap_or(1));
        let took = begun.elapsed().as_secs_f64();
        for life in &summary.failed {
            self.show(life)?;
        }
        ui::line(&self.last_line(&summary, took));
        Ok(u8::from(summary.failures > 0))
    }

    /// A failed seed, and the command that tells its story.
    fn show(&self, life: &Life) -> anyhow::Result<()> {
        let command = self.command(life.seed);
        if !self.json {
            ui::line(&format!("seed {}:", life.seed));
            life.violations.iter().for_each(|what| ui::line(&format!("  {what}")));
            ui::line(&format!("  again: {command}"));
        }
        if self.broken.is_some() {
            return Ok(());
        }
        if let Some(folder) = self.keep.parent() {
            std::fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
        }
        let file = std::fs::OpenOptions::new().create(true).append(true).open(&self.keep);
        let mut file = file.with_context(|| format!("opening {}", self.keep.display()))?;
        let first = life.violations.first().map_or("", String::as_str);
        writeln!(file, "{command}  # {first}").with_context(|| format!("writing {}", self.keep.display()))
    }

    fn command(&self, seed: u64) -> String {
        let mut command = "chaos simulate".to_owned();
        if let Some(scenario) = &self.scenario {
            command.push_str(&format!(" {scenario}"));
        }
        if self.flaps {
            command.push_str(" --flaps");
        }
        if self.whole_loop {
            command.push_str(" --whole-loop");
        }
        if let Some(broken) = self.broken {
            command.push_str(&format!(" --break {}", broken.name()));
        }
        format!("{command} --from {seed} --seeds 1 --trace")
    }

    fn last_line(&self, summary: &Summary, took: f64) -> String {
        let tally = &summary.tally;
        let per_minute = tally.failovers as f64 * 60.0 / took.max(0.001);
        if self.json {
            let value = serde_json::json!({
                "seeds": summary.seeds,
                "failovers": tally.failovers,
                "planned": tally.planned,
                "runs": tally.runs,
                "decisions": tally.decisions,
                "takeovers": tally.takeovers,
                "asked": tally.asked,
                "stranded": tally.stranded,
                "detected": tally.detected,
                "violations": summary.failures,
                "failovers_per_minute": per_minute.round(),
                "simulated_seconds": summary.lived / 1000,
                "seconds": took,
            });
            return value.to_string();
        }
        format!(
            "{} seeds, {} failovers, {} decisions, {} violations, {per_minute:.0} failovers per minute \
             ({} planned moves, {} takeovers, {} losses found in time, {} h simulated in {took:.1} s)",
            summary.seeds,
            tally.failovers,
            tally.decisions,
            summary.failures,
            tally.planned,
            tally.takeovers,
            tally.detected,
            summary.lived / 3_600_000,
        )
    }
}

/// A shipped scenario, or one in a file.
pub(super) fn named(name: &str) -> anyhow::Result<scenario::Scenario> {
    if let Some(found) = scenario::find(name)? {
        return Ok(found);
    }
    let path = PathBuf::from(name);
    anyhow::ensure!(
        path.exists(),
        "no scenario is called \"{name}\", and there is no such file; see `chaos list`"
    );
    let text = std::fs::read_to_string(&path).with_context(|| format!("reading {name}"))?;
    Ok(scenario::parse(name, &text)?)
}
