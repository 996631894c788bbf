//! A scenario acted out: the same description that the pretend world runs, on real servers, agents and sentries.
//!
//! **Invariant:** what is judged was seen from outside: by clients that write, by name servers, by `status`, by the agents'
//! logs. Nothing is taken from what lifeboat believes of itself but what it told people.
//! **Invariant:** a scenario that this lab cannot act out is an error, never a pass.

mod deeds;
mod judged;

use std::path::PathBuf;
use std::time::Duration;

pub use judged::Judged;
use serde_json::Value;
use tokio::time::Instant;

use crate::agent::{AgentOptions, WORKLOAD};
use crate::canary::{Canary, now_ms};
use crate::holdout::{Holdout, Newcomer};
use crate::lab::{Lab, LabError, LabOptions};
use crate::postgres::Setup;
use crate::region::{Region, Site};
use crate::scenario::{self, Scenario};

/// How long the agents may take until all is well before anything happens.
const SETTLE: Duration = Duration::from_secs(60);
/// How long clients write before anything happens.
const BEFORE: Duration = Duration::from_secs(2);
/// How long a world in which nothing may move is watched after the last happening: three times what it takes to see
/// and act on a loss.
const QUIET: Duration = Duration::from_secs(12);
/// How long everything that is expected may take after the last happening, at most.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often it is looked whether all that is expected has come.
const EVERY: Duration = Duration::from_millis(250);
/// With how long a write lease, and how long a silence, the lab runs unless the scenario says otherwise.
const LEASE: Duration = Duration::from_secs(3);
const SILENCE: Duration = Duration::from_secs(3);

/// How a scenario is acted out.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The `lifeboat` program; beside this one when it is not said.
    pub lifeboat: Option<PathBuf>,
    /// The `chaos` program; this one when it is not said.
    pub chaos: Option<PathBuf>,
    /// Whether the lab's folder is kept.
    pub keep: bool,
}

/// What is going on while a scenario is acted out.
pub(crate) struct Scene {
    pub(crate) lab: Lab,
    pub(crate) scale: f64,
}

/// The clients that see what comes of it.
struct Clients {
    /// Goes where the names say.
    canary: Canary,
    /// Never lets go of the primary's database.
    holdout: Holdout,
    /// Tries to write to the standby's.
    newcomer: Newcomer,
}

/// Acts a scenario out, and judges what came of it.
///
/// # Errors
/// When the lab cannot be built, or cannot do what the scenario asks for.
pub async fn enact(scenario: &Scenario, options: &Options, tell: impl Fn(&str)) -> Result<Judged, LabError> {
    let scale = scenario.real.scale;
    let setup = &scenario.setup;
    let agent = agent_options(scenario);
    let lab = Lab::start(LabOptions {
        setup: Setup { sync: setup.sync, stall: false },
        agent: Some(agent),
        sites: true,
        lifeboat: options.lifeboat.clone(),
        chaos: options.chaos.clone(),
        keep: options.keep,
        ballast_mb: 0,
    })
    .await?;
    let mut scene = Scene { lab, scale };
    if options.keep {
        tell(&format!("the lab is kept in {}", scene.lab.folder().display()));
    }
    let settled = |status: &Value| deeds::settled(status, setup.sentries);
    scene.lab.until_status("lifeboat does not say that all is well", SETTLE, settled).await?;
    tell("three agents, two regions, all is well");
    let clients = Clients::start(&scene.lab).await?;
    tokio::time::sleep(BEFORE).await;
    let first = scene.play(scenario, &tell).await?;
    let quiet = scenario.expect.moved.is_none() && !scenario.expect.stranded;
    let watched = scene.watch(scenario, &clients, first, quiet).await;
    judged::judge(scenario, &scene.lab, clients.put_down().await, first, watched).await
}

/// What the agents are told to do in this scenario. Nobody can power a region off: the fence is what is tried here.
fn agent_options(scenario: &Scenario) -> AgentOptions {
    let (setup, scale) = (&scenario.setup, scenario.real.scale);
    let own = scenario::Setup::default();
    let length = |wanted: Duration, usual: Duration, here: Duration| {
        let length = if wanted == usual { here } else { wanted.mul_f64(scale).max(here) };
        format!("{}ms", length.as_millis())
    };
    let stale = deeds::any(scenario, |fault| matches!(fault, scenario::Fault::StaleResolver {}));
    AgentOptions {
        supervised: !setup.automatic,
        rpo: format!("{}ms", setup.rpo.mul_f64(scale).as_millis()),
        rto: "15m".to_owned(),
        power: false,
        sentries: setup.sentries,
        silence: length(setup.silence, own.silence, SILENCE),
        lease: length(setup.lease, own.lease, LEASE),
        resolver: stale,
        // What never comes is waited for this long, twice: a name server that agrees, a word from a silent region.
        limits: match (stale, setup.sentries) {
            (true, _) => vec![("verify", "10s")],
            (false, false) => vec![("fence", "10s")],
            (false, true) => Vec::new(),
        },
        dead_name_server: deeds::any(scenario, |fault| matches!(fault, scenario::Fault::FailNames {})),
        ..AgentOptions::default()
    }
}

impl Clients {
    async fn start(lab: &Lab) -> Result<Self, LabError> {
        let login = lab.login_at(Region::East);
        let opened = Holdout::start(&login, "holdout", Region::East).await;
        let holdout = opened.map_err(|error| LabError::Late {
            what: "no session with east's database was to be had".to_owned(),
            limit: BEFORE,
            hint: format!(": {error}"),
        })?;
        let newcomer = Newcomer::start(&lab.login_at(Region::West), "newcomer", Region::West);
        Ok(Self { canary: lab.canary("client"), holdout, newcomer })
    }

    /// What they wrote down.
    async fn put_down(self) -> judged::Written {
        let told = self.holdout.look(Clone::clone);
        judged::Written { ledger: self.canary.stop().await, told, newcomer: self.newcomer.first() }
    }
}

impl Scene {
    /// Does what happens, at its time; says when the first of it did, in milliseconds since the Unix epoch.
    async fn play(&mut self, scenario: &Scenario, tell: &impl Fn(&str)) -> Result<u64, LabError> {
        let script = deeds::script(scenario, self.scale);
        let begun = Instant::now();
        // An agent's order or a lag before the first fault is not what is timed.
        let mut first = None;
        for cue in script {
            tokio::time::sleep_until(begun + cue.at).await;
            tell(&format!("{:>7.1} s  {}", begun.elapsed().as_secs_f64(), cue.words()));
            if cue.counts() {
                first.get_or_insert_with(now_ms);
            }
            self.perform(&cue).await?;
        }
        Ok(first.unwrap_or_else(now_ms))
    }

    /// Waits until all that is expected has come, or it is too late for it; gives the newest status that was had.
    async fn watch(&self, scenario: &Scenario, clients: &Clients, first: u64, quiet: bool) -> Option<Value> {
        let watch = scenario.setup.watch.mul_f64(self.scale).max(QUIET);
        let (least, most) =
            if quiet { (QUIET, watch.max(PATIENCE)) } else { (Duration::ZERO, watch.max(PATIENCE)) };
        let begun = Instant::now();
        let mut newest = None;
        loop {
            tokio::time::sleep(EVERY).await;
            let status = self.status().await;
            newest = status.or(newest);
            let arrived =
                judged::arrived(scenario, &self.lab, clients_see(clients, first), newest.as_ref()).await;
            let elapsed = begun.elapsed();
            if (arrived && elapsed >= least) || elapsed >= most {
                return newest;
            }
        }
    }

    /// What the first agent says that answers, the one outside both regions before the others.
    async fn status(&self) -> Option<Value> {
        for site in [Site::Witness, Site::West, Site::East] {
            if let Some(status) =
                self.lab.status_of(site).await.filter(|s| s["workloads"][WORKLOAD].is_object())
            {
                return Some(status);
            }
        }
        None
    }
}

/// Whether a client that goes where the names say was served by the standby's region since.
fn clients_see(clients: &Clients, first: u64) -> bool {
    clients.canary.look(|ledger| ledger.first_from(Region::West, first).is_some())
}
