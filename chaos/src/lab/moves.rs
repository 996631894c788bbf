//! Planned moves under load, and regions that return: ordered as an operator would, judged by what clients and
//! databases say.
//!
//! **Invariant:** nothing here is measured by lifeboat: gaps are between acknowledgements that clients read, losses
//! between their ledger and the rows, and a returned region streams when the new primary says so.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use super::{Lab, LabError};
use crate::agent::{self, Said, WORKLOAD};
use crate::canary::now_ms;
use crate::load::Load;
use crate::proxy::Fault;
use crate::region::Region;
use crate::report::moves::{Move, Return};
use crate::timeline::Timeline;

/// How long anything here may take on a slow machine before it is given up.
const PATIENCE: Duration = Duration::from_secs(120);
/// What lifeboat answers when it refuses and has touched nothing.
const REFUSED: i32 = 5;

/// A planned move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Planned {
    /// To another region.
    Switchover(Region),
    /// Home, to east.
    Failback,
}

impl Planned {
    /// Where it leads.
    #[must_use]
    pub const fn to(self) -> Region {
        match self {
            Planned::Switchover(region) => region,
            Planned::Failback => Region::East,
        }
    }

    /// The command that orders it.
    #[must_use]
    pub const fn command(self) -> &'static [&'static str] {
        match self {
            Planned::Switchover(Region::East) => &["switchover", WORKLOAD, "--to", "east"],
            Planned::Switchover(Region::West) => &["switchover", WORKLOAD, "--to", "west"],
            Planned::Failback => &["failback", WORKLOAD],
        }
    }
}

impl Lab {
    /// Orders a planned move while `rate` writes a second are made, waits until it is over and `to` takes them, and
    /// counts. An order that is refused (the hold-down, a standby that does not follow yet) is given again.
    ///
    /// # Errors
    /// When the load cannot write before the move, or a database cannot be read after it. A move that fails is no
    /// error: the [`Move`] says so.
    pub async fn move_under_load(&self, planned: Planned, rate: u32) -> Result<Move, LabError> {
        let (to, from) = (planned.to(), planned.to().other());
        let name = format!("{}-{}", planned.command()[0], now_ms());
        let mut options = self.load_options(&name);
        options.rate = rate;
        let load = Load::start(options);
        let half_a_second = usize::try_from(rate / 2).unwrap_or(usize::MAX);
        self.wait(format!("{from} takes no writes before the move"), PATIENCE, async || {
            load.look(|ledger| ledger.taken_by(from)) >= half_a_second
        })
        .await?;
        let before = self.last_sequence().await;
        // At any moment of the second for which clients keep the name's answer, not always at the same one.
        tokio::time::sleep(arbitrary()).await;
        let (began, said) = self.insist(planned.command()).await;
        if said.code == Some(0) {
            // What the clients do is counted anyway: a load that never arrives is a gap without end.
            let arrived = async || load.look(|ledger| ledger.taken_by(to)) >= half_a_second;
            self.wait(String::new(), Duration::from_secs(30), arrived).await.ok();
        }
        let over = now_ms();
        let ledger = load.stop().await;
        let lives = if said.code == Some(0) { to } else { from };
        let tally = ledger.tally(&self.entries(lives, &name).await?);
        let records = self.records_after(before).await;
        let timeline = Timeline::read(&records);
        let stuck = timeline.stuck.clone().or_else(|| (said.code != Some(0)).then(|| said.stderr.clone()));
        Ok(Move {
            write_gap_ms: ledger.gap(from, to, &(began..=over)).and_then(crate::load::WriteGap::ms),
            lost_writes: tally.lost,
            duplicated_writes: tally.duplicated,
            acknowledged_writes: tally.acknowledged,
            writes_a_second: ledger.taken_in(&(began - 500..=began)) as u64 * 2,
            run: timeline.run.clone(),
            began_ms: began,
            milestones: timeline.reached,
            stuck,
        })
    }

    /// Gives an order until it is not refused; when it was given last, and what was said.
    async fn insist(&self, order: &[&str]) -> (u64, Said) {
        let since = Instant::now();
        loop {
            let began = now_ms();
            let said = self.lifeboat(order).await;
            if said.code != Some(REFUSED) || since.elapsed() > PATIENCE {
                return (began, said);
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// lifeboat's records after a place, oldest first; empty while it does not answer.
    pub async fn records_after(&self, sequence: u64) -> Vec<Value> {
        agent::records(&self.agent_folder(), sequence).await.unwrap_or_default()
    }

    /// The place of lifeboat's newest record; 0 while it does not answer.
    pub async fn last_sequence(&self) -> u64 {
        self.records_after(0).await.last().and_then(|stamped| stamped["sequence"].as_u64()).unwrap_or(0)
    }

    /// Brings a lost region back with `isolated` orders that only its old primary has, waits until lifeboat has made
    /// it a standby, and counts. `lost` are orders that the failover lost: they should be in the salvage, too.
    ///
    /// # Errors
    /// When the region does not come up, or a database cannot be read. A region that is not made a standby is no
    /// error: the [`Return`] says so.
    pub async fn come_back(
        &self,
        region: Region,
        isolated: u32,
        lost: &HashSet<String>,
    ) -> Result<Return, LabError> {
        self.power_cycle(region).await?;
        let isolated = self.write_isolated(region, isolated).await?;
        if self.options.sites {
            // A member of etcd is up once it is heard; the agent and the sentry start without a network, as the database did.
            self.boot_etcd(region.into()).await?;
            self.isolate(region.into(), Fault::Refuse);
            self.boot_site(region.into()).await?;
        }
        let before = self.last_sequence().await;
        self.isolate(region.into(), Fault::None);
        self.to_region(region, Fault::None);
        let back_ms = now_ms();
        let streams_ms = self.streams_within(region, PATIENCE).await;
        let over = async || Timeline::read(&self.records_after(before).await).over();
        self.wait(String::new(), PATIENCE, over).await.ok();
        let records = self.records_after(before).await;
        let timeline = Timeline::read(&records);
        let salvage = self.salvaged(region);
        let in_salvage = |id: &&String| salvage.contains(id.as_str());
        let primary = self.orders(region.other()).await?;
        Ok(Return {
            rejoin: gave(&records, "rejoins").find_map(|rejoin| rejoin["way"].as_str().map(str::to_owned)),
            rejoin_ms: streams_ms.map(|at| at.saturating_sub(back_ms)),
            salvaged_rows: gave(&records, "salvages").filter_map(|salvage| salvage["rows"].as_u64()).sum(),
            isolated_writes: isolated.len() as u64,
            isolated_salvaged: isolated.iter().filter(in_salvage).count() as u64,
            isolated_on_primary: isolated.iter().filter(|id| primary.contains(*id)).count() as u64,
            lost_before: lost.len() as u64,
            lost_salvaged: lost.iter().filter(in_salvage).count() as u64,
            run: timeline.run.clone(),
            back_ms,
            milestones: timeline.reached,
            stuck: timeline.stuck,
        })
    }

    /// Waits until `standby` streams from the other region, and says when it did; none when it does not.
    pub async fn streams_within(&self, standby: Region, limit: Duration) -> Option<u64> {
        let sql = format!(
            "SELECT EXISTS (SELECT FROM pg_stat_replication WHERE application_name = '{standby}' AND state = 'streaming')"
        );
        let streams =
            async || self.ask(standby.other(), &sql, "reading the replication state").await.unwrap_or(false);
        let waited = self.wait(String::new(), limit, streams).await;
        waited.ok().map(|()| now_ms())
    }

    /// All that was salvaged in a region, as text: the rows' files, one after the other.
    #[must_use]
    pub fn salvaged(&self, region: Region) -> String {
        let files = files_in(&region.folder(self.folder()).join("salvage"));
        let rows = files.iter().filter(|path| path.extension().is_some_and(|ending| ending == "csv"));
        rows.filter_map(|path| std::fs::read_to_string(path).ok()).collect()
    }
}

/// An arbitrary part of a second.
fn arbitrary() -> Duration {
    let mut bytes = [0; 2];
    // Without the kernel's random numbers it is always the same moment, which is no harm to a lab.
    let _ = std::fs::File::open("/dev/urandom")
        .and_then(|mut file| std::io::Read::read_exact(&mut file, &mut bytes));
    Duration::from_secs(1) * u32::from(u16::from_be_bytes(bytes)) / u32::from(u16::MAX)
}

/// What the steps gave under that key, for each database.
fn gave<'r>(records: &'r [Value], key: &'r str) -> impl Iterator<Item = &'r Value> {
    let outputs = records.iter().filter_map(move |stamped| {
        stamped["record"]["outcome"]["succeeded"].get(key).and_then(Value::as_object)
    });
    outputs.flat_map(serde_json::Map::values)
}

/// The files below a folder; none when it cannot be read.
fn files_in(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    entries.flat_map(|path| if path.is_dir() { files_in(&path) } else { vec![path] }).collect()
}
