//! `lifeboat share`

use std::collections::BTreeMap;
use std::time::Duration;

use clap::Args;
use lifeboat_config::Config;
use lifeboat_core::testimony::Beat;
use lifeboat_core::{Guardian, Stamped};
use lifeboat_engine::clock::Clock;
use lifeboat_engine::open_state;
use lifeboat_engine::ports::{Coordination, CoordinationError, Tenure};

use crate::cli::Place;
use crate::commands::{load, report, talk};
use crate::failure::{Exit, Failure};
use crate::{pages, sharing, ui};

/// The most records in one append; what a coordinator takes at once is far more.
const MOST: usize = 64;

/// How long everything may take; a record of a hundred thousand entries takes seconds.
const LIMIT: Duration = Duration::from_secs(300);

/// How soon the tenure is asked for again.
const ASK_AGAIN: Duration = Duration::from_millis(200);

/// Put this agent's own record where all agents share it: when an agent that was alone gets company, or when what they
/// share was lost or restored from an old backup.
///
/// Run it as the agent's user, with no agent running, on the agent that was alone; after a loss, on the one with the
/// longest record. Only what is missing there is added: a shared record that went another way is left as it is. Repeating it
/// does nothing. Then start all agents.
#[derive(Debug, Args)]
pub(crate) struct Share;

impl Share {
    #[expect(clippy::unused_self, reason = "all verbs are run alike")]
    pub(crate) fn run(self, place: &Place) -> Result<Exit, Failure> {
        let loaded = load(&place.config)?;
        report(&loaded.warnings);
        talk(share(loaded.config))?;
        Ok(Exit::Done)
    }
}

async fn share(config: Config) -> Result<(), Failure> {
    let Config { policy, wiring } = config;
    let state = &wiring.agent.state;
    // Held until the end: no agent of this journal runs meanwhile.
    let (_journal, records) = open_state(state).map_err(|error| {
        let text = format!("the record in {} cannot be used", state.display());
        Failure::because(Exit::Failed, text, &error).hint("is the agent still running?  Stop it first")
    })?;
    let Some(shared) = sharing::shared(&wiring, Clock::start()).await? else {
        let text = "this agent shares nothing: its [lease] is \"embedded\"";
        return Err(Failure::new(Exit::Config, text)
            .hint("add [lease] with kind = \"etcd\" and [[agents]] first: lifeboat check"));
    };
    let runbooks = pages::in_force(wiring.agent.runbooks.as_deref())?;
    let guardian = Guardian::restore(policy, runbooks, env!("CARGO_PKG_VERSION"), &records);
    let coordination = shared.coordination.as_ref();
    let tenure = tenure(coordination).await?;
    let added = tokio::time::timeout(LIMIT, add(coordination, tenure, &guardian, &records)).await;
    coordination.resign(tenure).await;
    let added =
        added.unwrap_or_else(|_| Err(Failure::new(Exit::Failed, format!("not done within {LIMIT:?}"))))?;
    ui::answer(&match (added, records.len()) {
        (0, all) => format!("the shared record has all {all} records of this agent already"),
        (added, all) => {
            format!("{added} records were added to the shared record, which has {all} now; start all agents")
        }
    });
    Ok(())
}

/// The right to write there. One that was left behind by an agent that was killed ends by itself, within its length.
async fn tenure(coordination: &dyn Coordination) -> Result<Tenure, Failure> {
    let clock = Clock::start();
    let enough = clock.now() + coordination.tenure_ttl() * 2;
    loop {
        if let Some(tenure) = coordination.campaign().await.map_err(|error| failed(&error))? {
            return Ok(tenure);
        }
        if clock.now() > enough {
            return Err(Failure::new(
                Exit::Refused,
                "another agent decides: the record can only be shared when none runs",
            )
            .hint("stop it; which one is it?  On its machine: lifeboat status"));
        }
        clock.sleep_until(clock.now() + ASK_AGAIN).await;
    }
}

/// Adds what is missing behind what is there; says how many records.
async fn add(
    coordination: &dyn Coordination,
    tenure: Tenure,
    guardian: &Guardian,
    records: &[Stamped],
) -> Result<usize, Failure> {
    let there = coordination.records(0).await.map_err(|error| failed(&error))?;
    if let Some((other, _)) = there.iter().zip(records).find(|(there, own)| there != own) {
        let text = format!(
            "the shared record went another way than this agent's, from record {} on",
            other.sequence
        );
        let hint = "which one is true?  To go on with this agent's, give `lease.cluster` another name on every agent; \
                    to go on with the shared one, move this agent's journal.db away";
        return Err(Failure::new(Exit::Refused, text).hint(hint));
    }
    let missing = records.get(there.len()..).unwrap_or_default();
    let mut beat = Beat { term: tenure.term, count: 0 };
    for part in missing.chunks(MOST) {
        let last = part.last() == missing.last();
        let heads = if last { guardian.heads() } else { BTreeMap::new() };
        beat.count += 1;
        coordination.renew(tenure, beat).await.map_err(|error| failed(&error))?;
        coordination.append(tenure, part, &heads).await.map_err(|error| failed(&error))?;
    }
    Ok(missing.len())
}

fn failed(error: &CoordinationError) -> Failure {
    Failure::because(Exit::Failed, "the record could not be shared", error)
        .hint("`lifeboat check --environment` looks at the coordinator; what was added stays, giving this again goes on from there")
}
