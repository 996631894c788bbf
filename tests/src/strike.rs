//! Runs whose agent is killed after a record of theirs, and what must be true of them afterwards.
//!
//! A series carries the same kind of run out again and again, each time with the agent killed after another commit,
//! until a kill has come after each record that ended a decision in the undisturbed run.
//!
//! **Invariant:** where a kill came is read from the journal afterwards, never assumed.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test that cannot look has failed; what it saw is said"
)]

use std::collections::BTreeMap;
use std::time::Duration;

use lifeboat_chaos::canary::now_ms;
use lifeboat_chaos::timeline::Timeline;
use lifeboat_chaos::{Lab, Region, process};
use serde_json::Value;

use crate::commits::Sniper;
use crate::scene::{agent_log, until};

/// A record in one word or two, without what differs from run to run.
#[must_use]
pub fn label(stamped: &Value) -> String {
    let record = &stamped["record"];
    let undo = if record["undo"] == true { " (undo)" } else { "" };
    let text =
        format!("{} {}", record["kind"].as_str().unwrap(), record["step"].as_str().unwrap_or_default());
    format!("{}{undo}", text.trim_end())
}

/// The last record of each decision, in order: those of one decision have one moment, and are committed together.
#[must_use]
pub fn decisions(records: &[Value]) -> Vec<String> {
    let pairs = records.iter().zip(records.iter().skip(1).map(Some).chain([None]));
    let last = pairs.filter(|(this, next)| next.is_none_or(|next| next["at"] != this["at"]));
    last.map(|(this, _)| label(this)).collect()
}

/// Whether a record is one of a run.
fn of_a_run(label: &str) -> bool {
    ["run-", "step-", "loss-", "primary-moved", "reopened", "unwinding"]
        .iter()
        .any(|word| label.starts_with(word))
}

/// The kills of one kind of run.
#[derive(Debug)]
pub struct Series {
    name: &'static str,
    /// What an undisturbed run commits, decision by decision; those of nobody's run, too.
    wanted: Vec<String>,
    /// After which records a kill came, and how long the run took from the restart on, in milliseconds.
    hit: BTreeMap<String, u64>,
    rounds: u64,
    /// Which of the wanted the last kill was for, and by how many commits the places have moved.
    aimed: i64,
    drift: i64,
}

impl Series {
    /// A series after the records of an undisturbed run.
    #[must_use]
    pub fn of(name: &'static str, undisturbed: &[Value]) -> Series {
        let wanted = decisions(undisturbed);
        println!("{name}: {wanted:?}");
        Series { name, wanted, hit: BTreeMap::new(), rounds: 0, aimed: 0, drift: 0 }
    }

    /// After which commit the next kill should come; none when the series is complete. What else was committed (a
    /// verdict more or less) moves the places: a kill that came elsewhere says by how much.
    pub fn next_kill(&mut self) -> Option<u64> {
        let place = self.wanted.iter().position(|label| self.missing(label))?;
        self.rounds += 1;
        let limit = 3 * self.wanted.len() as u64;
        assert!(self.rounds <= limit, "no kill came where it should: {self:?}");
        self.aimed = i64::try_from(place).unwrap();
        u64::try_from((self.aimed + 1 + self.drift).max(1)).ok()
    }

    fn missing(&self, label: &String) -> bool {
        of_a_run(label) && !self.hit.contains_key(label)
    }

    fn came(&mut self, label: String, recovered_ms: u64) {
        println!("{}: killed after \"{label}\", over {recovered_ms} ms after the restart", self.name);
        // A verdict may come anywhere, and more than once: it says nothing of the place.
        let place = self.wanted.iter().position(|wanted| *wanted == label && of_a_run(wanted));
        let came = place.map(|place| i64::try_from(place).unwrap());
        self.drift = match came {
            Some(came) if came != self.aimed => self.drift + (self.aimed - came).signum(),
            Some(_) => self.drift,
            None => self.drift + 1,
        };
        self.hit.insert(label, recovered_ms);
    }

    /// The run was over before the kill: there were fewer commits than in the undisturbed one.
    fn missed(&mut self) {
        self.drift -= 1;
    }

    /// The longest time from a restart to the end of the run, in milliseconds.
    #[must_use]
    pub fn slowest_ms(&self) -> u64 {
        self.hit.values().copied().max().unwrap_or(0)
    }

    /// How many different records a kill came after.
    #[must_use]
    pub fn covered(&self) -> usize {
        self.hit.len()
    }
}

/// What was before a run that is struck: counted again after it.
#[derive(Debug)]
pub struct Before {
    /// lifeboat's newest record.
    pub sequence: u64,
    promotions: BTreeMap<Region, usize>,
}

impl Before {
    /// Now.
    pub async fn of(lab: &Lab) -> Before {
        let promotions = Region::ALL.map(|region| (region, promotions(lab, region)));
        Before { sequence: lab.last_sequence().await, promotions: promotions.into() }
    }

    /// How often a region's server was told to become a primary since.
    #[must_use]
    pub fn promotions_since(&self, lab: &Lab, region: Region) -> usize {
        promotions(lab, region) - self.promotions[&region]
    }
}

fn promotions(lab: &Lab, region: Region) -> usize {
    let log = std::fs::read_to_string(lab.server(region).log()).unwrap_or_default();
    log.matches("received promote request").count()
}

/// What became of a run.
#[derive(Debug)]
pub struct Struck {
    /// Every record since before it began.
    pub all: Vec<Value>,
    /// Those since it was opened.
    pub run: Vec<Value>,
}

/// Has the agent killed after the `nth` commit from now on, while `begin` begins a run of that kind; starts it again
/// and returns once the run is over. `nth` none: nobody is killed.
pub async fn struck(
    lab: &Lab,
    kind: &str,
    nth: Option<u64>,
    mut series: Option<&mut Series>,
    begin: impl AsyncFn(),
) -> Struck {
    let before = lab.last_sequence().await;
    let pid = lab.agent_pid().unwrap();
    let sniper = nth.map(|nth| Sniper::wait_for(&lab.journal(), nth, pid).unwrap());
    begin().await;
    let mut restarted = None;
    if let Some(sniper) = sniper {
        until("the run is over, or its agent dead", async || sniper.fired() || over(lab, kind, before).await)
            .await;
        if sniper.call_off().unwrap() {
            until("the agent is gone", async || !process::alive(pid)).await;
            let since = now_ms();
            lab.start_agent().await.unwrap();
            restarted = Some(since);
        }
    }
    if ["switchover", "failback"].contains(&kind)
        && of_kind(&lab.records_after(before).await, kind).is_empty()
    {
        // Killed before it was on record: the person who ordered it sees that, and orders it again.
        begin().await;
    }
    until("the run is over", async || over(lab, kind, before).await).await;
    let over_ms = now_ms();
    let records = lab.records_after(before).await;
    let opened = records.iter().filter(|r| r["record"]["plan"]["kind"] == kind).count();
    assert_eq!(opened, 1, "the same run, not another");
    if let (None, Some(_), Some(series)) = (restarted, nth, series.as_deref_mut()) {
        series.missed();
    }
    if let (Some(since), Some(series)) = (restarted, series) {
        let place = records.iter().position(|r| r["record"]["kind"] == "agent-started").unwrap();
        if let Some(last) = place.checked_sub(1) {
            series.came(label(&records[last]), over_ms - since);
        }
    }
    Struck { run: of_kind(&records, kind), all: records }
}

/// The records from the opening of the last run of that kind on.
fn of_kind(records: &[Value], kind: &str) -> Vec<Value> {
    let opened = |r: &Value| r["record"]["kind"] == "run-opened" && r["record"]["plan"]["kind"] == kind;
    let from = records.iter().rposition(opened);
    from.map(|from| records[from..].to_vec()).unwrap_or_default()
}

async fn over(lab: &Lab, kind: &str, before: u64) -> bool {
    Timeline::read(&of_kind(&lab.records_after(before).await, kind)).over()
}

/// What must be true of a run that is over, wherever its agent died: it ended well, each step did, the workload moved
/// once (a rejoin: not at all), and nothing was promoted more than once.
pub async fn judge(lab: &Lab, run: &[Value], before: &Before, moved_to: Option<Region>) {
    let timeline = Timeline::read(run);
    assert!(timeline.stuck.is_none() && !run.is_empty(), "{timeline:#?}\n{run:#?}\n{}", agent_log(lab));
    let count = |kind: &str| run.iter().filter(|r| r["record"]["kind"] == kind).count();
    assert_eq!(count("run-opened"), 1);
    assert_eq!(count("run-ended"), 1);
    assert_eq!(count("primary-moved"), usize::from(moved_to.is_some()), "{run:#?}");
    for region in Region::ALL {
        let told = before.promotions_since(lab, region);
        assert_eq!(
            told,
            usize::from(moved_to == Some(region)),
            "{region} was promoted {told} times\n{run:#?}"
        );
    }
    let steps = run[0]["record"]["plan"]["steps"].as_array().unwrap();
    for step in steps {
        let name = step["name"].as_str().unwrap();
        let succeeded = run
            .iter()
            .filter(|r| r["record"]["step"] == name && !r["record"]["outcome"]["succeeded"].is_null());
        assert!(succeeded.count() >= 1, "{name} did not succeed\n{run:#?}");
    }
}

/// Watches what the name server says until the answer is no longer wanted.
#[derive(Debug)]
pub struct NameWatch {
    stop: tokio::sync::oneshot::Sender<()>,
    watch: tokio::task::JoinHandle<Vec<Region>>,
}

impl NameWatch {
    /// From now on. An agent that is dead says nothing, which is no change.
    #[must_use]
    pub fn start(lab: &Lab) -> NameWatch {
        let (stop, mut stopped) = tokio::sync::oneshot::channel();
        let names = lab.names();
        let watch = tokio::spawn(async move {
            let mut said: Vec<Region> = Vec::new();
            while stopped.try_recv().is_err() {
                if let Some(region) = names.shop_is_in().await
                    && said.last() != Some(&region)
                {
                    said.push(region);
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            said
        });
        NameWatch { stop, watch }
    }

    /// Every different answer, in order.
    pub async fn answers(self) -> Vec<Region> {
        let _ = self.stop.send(());
        self.watch.await.unwrap()
    }
}
