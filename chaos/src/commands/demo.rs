//! `chaos demo`: the show.

pub(crate) mod aftermath;
mod archive;
mod watch;

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use anyhow::Context;
use lifeboat_chaos::agent::WORKLOAD;
use lifeboat_chaos::canary::ledger::Ledger;
use lifeboat_chaos::postgres::Setup;
use lifeboat_chaos::report::archive::Archive;
use lifeboat_chaos::report::moves::Aftermath;
use lifeboat_chaos::report::{Evidence, Report, Run};
use lifeboat_chaos::{AgentOptions, Canary, Lab, LabOptions, Region, html, process};
use serde_json::Value;

use crate::ui::{Stage, Tone};

/// The objectives of the demo, in milliseconds, as its lifeboat.toml says them (1m and 30s).
const OBJECTIVES: (u64, u64) = (60_000, 30_000);
/// How much is written before the loss.
const WARM_UP: (usize, Duration) = (300, Duration::from_secs(4));

/// Loses the primary region, shows how it is survived, and brings the workload home.
///
/// Starts three sites on this machine's loopback: two regions, with a PostgreSQL pair, a shop and a sentry in each, and a
/// place elsewhere. Each site has a lifeboat agent with its DNS authority, and a member of one etcd. A client writes an
/// order every 10 ms. Then every process of the site "east" is killed (kill -9), and the clock runs until the client's
/// first order is taken by "west".
///
/// All the while the database is backed up: a base backup, and its log as it is written. At the end the whole of it is restored
/// to the moment of the loss, from a copy of the archive and its key, and compared with what clients were told is stored.
///
/// Then east returns, with an old primary that still believes in itself and has orders that nobody else has: they are
/// salvaged, and it becomes a standby. Under a thousand writes a second the workload goes home, and away once more.
///
/// Exits 0 when the workload was recovered within its objectives (with --sync: and no acknowledged write was
/// lost), every order that only east had was salvaged, and the planned moves lost nothing; 7 when not, 1 when the lab could not be built. Needs PostgreSQL 15 or newer (Debian: postgresql)
/// and the lifeboat program beside this one. As root, PostgreSQL runs as the user postgres.
#[derive(Debug, clap::Args)]
pub(crate) struct Demo {
    /// Let commits wait for the standby: then nothing acknowledged may be lost.
    #[arg(long)]
    sync: bool,
    /// Stop the region's processes (SIGSTOP) and silence its network instead of kill -9: a machine that hangs.
    #[arg(long)]
    freeze: bool,
    /// One agent on a bastion instead of three that share etcd.
    #[arg(long)]
    single: bool,
    /// Leave out the command that powers a region off: then only what is seen from outside can prove the fence.
    #[arg(long, conflicts_with = "single")]
    no_stonith: bool,
    /// Leave the standby's wal_retrieve_retry_interval at PostgreSQL's default of 5 s instead of 100 ms.
    #[arg(long)]
    stall: bool,
    /// End after the failover: no return, no planned moves.
    #[arg(long)]
    failover_only: bool,
    /// Writes a second during the planned moves.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(10..=100_000))]
    rate: u32,
    /// Megabytes of rows beside the shop's.
    #[arg(long, default_value_t = 150, value_parser = clap::value_parser!(u32).range(0..=10_000))]
    ballast: u32,
    /// Leave out the archive: no backup, no restore at the end.
    #[arg(long)]
    no_archive: bool,
    /// How many times, each in a lab of its own.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1000))]
    runs: u16,
    /// Print report.json on standard output instead of the show.
    #[arg(long)]
    json: bool,
    /// Where report.json and report.html go.
    #[arg(long, default_value = "target/demo")]
    out: PathBuf,
    /// Keep the lab's folder with its data and logs, and say where it is.
    #[arg(long)]
    keep: bool,
    /// The lifeboat program [default: beside this one].
    #[arg(long, env = "LIFEBOAT_BIN")]
    lifeboat: Option<PathBuf>,
}

impl Demo {
    pub(crate) async fn run(self) -> anyhow::Result<u8> {
        let mut stage = Stage::new(self.json);
        let (mut runs, mut after, mut archives) = (Vec::new(), Vec::new(), Vec::new());
        for number in 1..=self.runs {
            if self.runs > 1 {
                stage.say(&stage.paint(Tone::Strong, &format!("run {number} of {}", self.runs)));
            }
            let Acts { run, aftermath, archive } = self.once(&mut stage).await?;
            runs.push(run);
            after.extend(aftermath);
            archives.extend(archive);
        }
        let report = Report::of(runs, self.sync).context("there was no run")?;
        let report = report.with(&after).restored(&archives);
        stage.runs(&report);
        let text = write(&self.out, &report)?;
        let place = self.out.display();
        stage.say(&stage.paint(Tone::Soft, &format!("  {place}/report.json  {place}/report.html")));
        if self.json {
            crate::ui::line(&text);
        }
        Ok(if report.ok() { 0 } else { 7 })
    }

    async fn once(&self, stage: &mut Stage) -> anyhow::Result<Acts> {
        let lab = self.build(stage).await?;
        let canary = lab.canary("order");
        let source = if self.no_archive { None } else { Some(archive::fill(stage, &lab).await?) };
        let result = self.acts(stage, &lab, canary, source).await;
        stage.still();
        if self.keep {
            stage.say(&format!("  the lab is kept in {}", lab.folder().display()));
        }
        result
    }

    /// The loss, and what comes after it; nothing does when nobody was served again. At last, what the archive had of it:
    /// `source` bytes were backed up.
    async fn acts(
        &self,
        stage: &mut Stage,
        lab: &Lab,
        canary: Canary,
        source: Option<u64>,
    ) -> anyhow::Result<Acts> {
        let Lost { run, orders, ledger, reference } = self.lose(stage, lab, canary).await?;
        stage.sight(&run);
        stage.verdict(&run, run.ok(self.sync));
        stage.say("");
        let over = self.failover_only || run.rto_held_ms.is_none() || run.stuck.is_some();
        let aftermath =
            if over { None } else { Some(aftermath::show(stage, lab, &orders, self.rate).await?) };
        let archive = match source {
            Some(source) => {
                Some(archive::show(stage, lab, &ledger, &reference, (OBJECTIVES.1, source)).await)
            }
            None => None,
        };
        Ok(Acts { run, aftermath, archive })
    }

    async fn build(&self, stage: &mut Stage) -> anyhow::Result<Lab> {
        let options = LabOptions {
            setup: Setup { sync: self.sync, stall: self.stall },
            agent: Some(AgentOptions {
                power: !self.no_stonith,
                archive: !self.no_archive,
                ..AgentOptions::default()
            }),
            sites: !self.single,
            lifeboat: self.lifeboat.clone(),
            chaos: None,
            keep: self.keep,
            ballast_mb: self.ballast,
        };
        // What was told last is what is going on now; it is done when the next is told.
        let now = std::cell::RefCell::new((String::from("laying out addresses and folders"), Instant::now()));
        stage.move_line("building two regions and what is between them on loopback");
        let next = |what: &str| {
            let (before, since) = now.replace((what.to_owned(), Instant::now()));
            stage.done(&before, since.elapsed());
            stage.update(what.to_owned());
        };
        let lab = Lab::start_telling(options, next).await?;
        next("writing orders until lifeboat says all is well");
        Ok(lab)
    }

    /// The failover, and the acknowledged orders that it lost.
    async fn lose(&self, stage: &mut Stage, lab: &Lab, canary: Canary) -> anyhow::Result<Lost> {
        let began = Instant::now();
        let reference = lab.reference(Region::East).await?;
        lab.until_status("lifeboat does not say that all is well", Duration::from_secs(60), well).await?;
        while canary.look(|ledger| ledger.taken_by(Region::East)) < WARM_UP.0 || began.elapsed() < WARM_UP.1 {
            if began.elapsed() > Duration::from_secs(60) {
                let failed = canary.look(|ledger| ledger.failed.last().cloned());
                anyhow::bail!("the client's orders are not taken before the loss; the last: {failed:?}");
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        // At any moment of the second in which probes look and cached answers expire, not always at the same.
        tokio::time::sleep(part_of_a_second()).await;
        stage.still();
        let taken = canary.look(|ledger| ledger.taken_by(Region::East));
        stage.done(&format!("{taken} orders written; lifeboat says: healthy"), began.elapsed());
        let doomed = process::within(&Region::East.folder(lab.folder()))?.len();
        let (lost_ms, how) = if self.freeze {
            (lab.freeze(Region::East)?, "fall silent (SIGSTOP)")
        } else {
            (lab.lose(Region::East)?, "are killed with -9")
        };
        stage.say("");
        let headline = format!("  East is lost: its {doomed} processes {how}.");
        stage.say(&stage.paint(Tone::Bad, &headline));
        stage.say("");
        let (timeline, sight) = watch::until_served(stage, lab, &canary, lost_ms, OBJECTIVES.0).await;
        stage.still();
        let ledger = canary.stop().await;
        let survived = lab.orders(Region::West).await.unwrap_or_default();
        let reference_intact = lab.reference(Region::West).await.is_ok_and(|digest| digest == reference);
        let of_east = ledger.acknowledged.iter().filter(|order| order.region == Region::East);
        let orders = of_east.map(|order| order.id.clone()).filter(|id| !survived.contains(id)).collect();
        let run = Run::judge(&Evidence {
            lost_ms,
            lost: Region::East,
            ledger: &ledger,
            survived: &survived,
            timeline: &timeline,
            sight,
            reference_intact,
            objectives: OBJECTIVES,
        });
        Ok(Lost { run, orders, ledger, reference })
    }
}

/// What one lab showed.
struct Acts {
    run: Run,
    aftermath: Option<Aftermath>,
    archive: Option<Archive>,
}

/// The loss of the region.
struct Lost {
    run: Run,
    /// The acknowledged orders that the failover lost.
    orders: HashSet<String>,
    /// All orders until then.
    ledger: Ledger,
    /// The digest of the reference tables before it.
    reference: String,
}

/// An arbitrary part of a second: building a lab takes seconds that vary by far more than that.
fn part_of_a_second() -> Duration {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Duration::from_nanos(since.subsec_nanos().into())
}

/// Whether lifeboat sees all as it should be: guarding, connected, east healthy, west's database streaming; with several
/// agents, one of them decides, all say so, and the sentries are at their posts.
pub(crate) fn well(status: &Value) -> bool {
    let shop = &status["workloads"][WORKLOAD];
    shop["phase"] == "guarding"
        && status["connectivity"]["proven"] == true
        && shop["regions"]["east"]["verdict"] == "healthy"
        && shop["regions"]["west"]["databases"]["orders"].is_object()
        && agreed(status, shop)
}

fn agreed(status: &Value, shop: &Value) -> bool {
    let Some(vantages) = status["vantages"].as_object().filter(|vantages| !vantages.is_empty()) else {
        return true;
    };
    let mut sees = vantages.values().map(|vantage| &vantage["sees"][WORKLOAD]["east"]["verdict"]);
    let mut sentries = shop["sentries"].as_object().into_iter().flatten();
    status["decider"].is_object()
        && status["coordination"]["reached"] == true
        && sees.all(|verdict| verdict == "healthy")
        && sentries
            .all(|(region, sentry)| sentry["says"] == if region == "east" { "writing" } else { "following" })
}

/// Writes both files and returns the text of the first.
fn write(out: &Path, report: &Report) -> anyhow::Result<String> {
    let text = serde_json::to_string_pretty(report)?;
    std::fs::create_dir_all(out).with_context(|| format!("cannot make {}", out.display()))?;
    for (name, content) in [("report.json", &text), ("report.html", &html::page(report))] {
        let path = out.join(name);
        std::fs::write(&path, content).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(text)
}
