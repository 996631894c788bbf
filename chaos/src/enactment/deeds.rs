//! What happens in a scenario, done to a lab.
//!
//! **Invariant:** each fault is made on the real thing (a signal, a path, a setting, a file), never in lifeboat.

use std::time::Duration;

use serde_json::Value;

use super::Scene;
use crate::Part as Piece;
use crate::agent::WORKLOAD;
use crate::lab::{Lab, LabError};
use crate::proxy::Fault as Network;
use crate::region::{From, Place, Region, Site, To};
use crate::scenario::{Fault, Part, Scenario, Site as There, Wish};

/// One thing that is done at a time.
pub(super) struct Cue {
    /// When, after the beginning.
    pub(super) at: Duration,
    fault: Fault,
    /// Whether it begins, or ends.
    begins: bool,
}

impl Cue {
    /// What it is, for a person.
    pub(super) fn words(&self) -> String {
        format!("{} {:?}", if self.begins { "begins" } else { "ends" }, self.fault)
    }

    /// Whether the time that something takes counts from here.
    pub(super) fn counts(&self) -> bool {
        self.begins
            && !matches!(
                self.fault,
                Fault::Lag { .. }
                    | Fault::StopReplication {}
                    | Fault::Order { .. }
                    | Fault::Clock { .. }
                    | Fault::FailPromotion { .. }
                    | Fault::FailNames {}
                    | Fault::StaleResolver {}
                    | Fault::Twin { .. }
            )
    }
}

/// Whether a scenario has a fault of some kind.
pub(super) fn any(scenario: &Scenario, wanted: impl Fn(&Fault) -> bool) -> bool {
    scenario.happenings.iter().any(|happening| wanted(&happening.fault))
}

/// All that is done, in the order of time.
pub(super) fn script(scenario: &Scenario, scale: f64) -> Vec<Cue> {
    let mut cues = Vec::new();
    for happening in &scenario.happenings {
        for (begins, ends) in happening.occasions() {
            let cue =
                |at: Duration, begins| Cue { at: at.mul_f64(scale), fault: happening.fault.clone(), begins };
            cues.push(cue(begins, true));
            cues.extend(ends.map(|ends| cue(ends, false)));
        }
    }
    cues.sort_by_key(|cue| cue.at);
    let lag = scenario.setup.lag.mul_f64(scale);
    let first = cues.first().map_or(Duration::ZERO, |cue| cue.at);
    if lag > Duration::ZERO {
        // What the standby lacks when the first thing happens is what was written since the log stopped coming.
        let late = lag.saturating_sub(first);
        cues.iter_mut().for_each(|cue| cue.at += late);
        let at = (first + late).saturating_sub(lag);
        cues.insert(0, Cue { at, fault: Fault::StopReplication {}, begins: true });
    }
    cues
}

/// Whether all is well before anything happens, the vantages, the sentries and the decider included.
pub(super) fn settled(status: &Value, sentries: bool) -> bool {
    let shop = &status["workloads"][WORKLOAD];
    let vantages = status["vantages"].as_object().into_iter().flatten();
    let seen =
        vantages.filter(|(_, vantage)| vantage["sees"][WORKLOAD]["east"]["verdict"] == "healthy").count();
    shop["phase"] == "guarding"
        && shop["regions"]["east"]["verdict"] == "healthy"
        && shop["regions"]["west"]["databases"]["orders"].is_object()
        && status["decider"].is_object()
        && seen == Site::ALL.len()
        && (!sentries || shop["sentries"]["east"]["says"] == "writing")
}

fn here(site: There) -> Site {
    match site {
        There::East => Site::East,
        There::West => Site::West,
        There::Witness => Site::Witness,
    }
}

fn place(site: There) -> Place {
    Place::Site(here(site))
}

/// The region of a place; a scenario that asks for a database elsewhere cannot be acted out.
fn region(site: There) -> Result<Region, LabError> {
    here(site).region().ok_or_else(|| cannot(&format!("there is no database at {site}")))
}

fn cannot(what: &str) -> LabError {
    LabError::Late {
        what: format!("this cannot be acted out with real processes: {what}"),
        limit: Duration::ZERO,
        hint: String::new(),
    }
}

impl Scene {
    /// Does one thing.
    pub(super) async fn perform(&mut self, cue: &Cue) -> Result<(), LabError> {
        let (lab, begins) = (&self.lab, cue.begins);
        let network = if begins { Network::Blackhole } else { Network::None };
        match &cue.fault {
            Fault::Kill { what } => kill(lab, *what, begins).await,
            Fault::Freeze { what } => freeze(lab, *what, begins),
            Fault::Cut { from, to } => {
                lab.rule(place(*from), place(*to), network);
                Ok(())
            }
            Fault::Part { between, and } => {
                lab.between(place(*between), place(*and), network);
                Ok(())
            }
            Fault::Isolate { site } => {
                lab.isolate(here(*site), network);
                Ok(())
            }
            Fault::StopReplication {} => {
                if begins {
                    lab.cut_replication(Region::West)
                } else {
                    lab.mend_replication(Region::West)
                }
                Ok(())
            }
            Fault::HangWrites { site } => {
                let region = region(*site)?;
                if begins { lab.break_commits(region).await } else { lab.mend_commits(region).await }
            }
            Fault::FailPromotion { site } => {
                let region = region(*site)?;
                if begins { lab.crash_on_promotion(region).await } else { lab.survive_promotion(region) }
            }
            // It is dead from the beginning: there is nothing behind the address in the configuration.
            Fault::FailNames {} => Ok(()),
            Fault::StaleResolver {} => {
                lab.keep_answers(begins).await;
                Ok(())
            }
            Fault::Clock { agent, step } => {
                lab.restart_with_clock(here(*agent), (*step as f64 * self.scale / 1000.0) as i64).await
            }
            Fault::Lie { agent, about } => {
                lie(lab, here(*agent), region(*about)?, if begins { Network::Refuse } else { Network::None });
                Ok(())
            }
            Fault::Twin { agent } => lab.start_twin_of(here(*agent)).await,
            Fault::Order { give } => {
                order(lab, *give).await;
                Ok(())
            }
            Fault::Lose { .. } | Fault::Lag { .. } | Fault::Drift { .. } | Fault::FailDisk { .. } => {
                Err(cannot(&format!("{:?}", cue.fault)))
            }
        }
    }
}

async fn kill(lab: &Lab, what: Part, begins: bool) -> Result<(), LabError> {
    match (what, begins) {
        (Part::Site(site), true) => lab.power_off(here(site)).map(drop),
        (Part::Site(site), false) => {
            let site = here(site);
            if let Some(region) = site.region() {
                lab.power_cycle(region).await?;
            }
            lab.to_site(site, Network::None);
            lab.boot_site(site).await
        }
        (Part::Database(site), true) => lab.kill(here(site), Piece::Database).map(drop),
        (Part::Database(site), false) => lab.start_postgres(region(site)?).await,
        (Part::Agent(site), true) => lab.kill(here(site), Piece::Agent).map(drop),
        (Part::Sentry(site), true) => lab.kill_keeper(here(site)),
        (Part::Member(site), true) => lab.kill(here(site), Piece::Etcd).map(drop),
        (Part::Coordinator, true) => {
            Site::ALL.into_iter().try_for_each(|site| lab.kill(site, Piece::Etcd).map(drop))
        }
        (Part::Agent(site) | Part::Sentry(site) | Part::Member(site), false) => {
            lab.boot_site(here(site)).await
        }
        (Part::Coordinator, false) => {
            // A member alone is not ready: all are started, then all are waited for.
            let [east, west, witness] = Site::ALL.map(|site| lab.boot_site(site));
            tokio::try_join!(east, west, witness).map(drop)
        }
    }
}

fn freeze(lab: &Lab, what: Part, begins: bool) -> Result<(), LabError> {
    let one = |site: There, piece: Piece| {
        if begins { lab.suspend(here(site), piece).map(drop) } else { lab.resume(here(site), piece) }
    };
    match what {
        Part::Site(site) if begins => lab.freeze_site(here(site)).map(drop),
        Part::Site(site) => lab.thaw_site(here(site)).map(drop),
        Part::Database(site) => one(site, Piece::Database),
        Part::Agent(site) => one(site, Piece::Agent),
        Part::Sentry(site) => one(site, Piece::Sentry),
        Part::Member(site) => one(site, Piece::Etcd),
        Part::Coordinator => There::ALL.into_iter().try_for_each(|site| one(site, Piece::Etcd)),
    }
}

/// Lets one agent see a region as lost that is not: its own way there refuses, while its witnesses answer.
fn lie(lab: &Lab, agent: Site, about: Region, fault: Network) {
    for to in [To::Postgres(about), To::Shop(about)] {
        lab.proxy(From::Site(agent), to).set(fault);
    }
}

/// Gives an order as a person would, to an agent outside both regions. One that is refused is no fault of the lab: what
/// is expected in the end says whether it mattered.
async fn order(lab: &Lab, wish: Wish) {
    let config = lab.config_of(Site::Witness);
    let status = lab.status_of(Site::Witness).await.unwrap_or_default();
    let shop = &status["workloads"][WORKLOAD];
    let run = shop["run"]["run"].as_str().unwrap_or_default().to_owned();
    let primary = shop["primary"].as_str().unwrap_or("east");
    let other = if primary == "east" { "west" } else { "east" };
    let asked = shop["run"]["answer"].as_str().unwrap_or_default();
    // `lifeboat approve RUN --accept-… "…"`: what is asked, accepted word for word.
    let approve: Vec<String> =
        asked.split_whitespace().skip(1).map(|word| word.trim_matches('"').to_owned()).collect();
    let words: Vec<&str> = match wish {
        Wish::Approve => approve.iter().map(String::as_str).collect(),
        Wish::Failover => vec!["failover", WORKLOAD, "--to", other],
        Wish::Switchover => vec!["switchover", WORKLOAD, "--to", other],
        Wish::Rejoin => vec!["rejoin", WORKLOAD, "--region", other],
        Wish::Pause => vec!["pause", WORKLOAD, "--for", "30s", "--reason", "a scenario"],
        Wish::Abandon => vec!["abandon", &run, "--reason", "a scenario"],
        Wish::Cancel => vec!["cancel", &run, "--reason", "a scenario"],
    };
    if !words.is_empty() {
        let said = lab.lifeboat_of(&config, &words).await;
        tracing::info!(?words, code = said.code, "an order was given");
    }
}
