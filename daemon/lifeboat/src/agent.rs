//! The agent's life: configure, bind, start, drain.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use lifeboat_config::Config;
use lifeboat_core::guardian::Guardian;
use lifeboat_core::{AgentName, Record, Stamped};
use lifeboat_dns::Authority;
use lifeboat_engine::clock::Clock;
use lifeboat_engine::{Guard, Inbox, Parts, open_state};
use lifeboat_sentry::failsafe::Outlook;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::api;
use crate::failure::{Exit, Failure};
use crate::keeping::Keeping;
use crate::pages;
use crate::plug::{self, Plugged};
use crate::sharing::{self, Follower};

/// How long the control API may take to finish what it is asked when the agent stops.
const DRAIN_LIMIT: Duration = Duration::from_secs(2);

/// Runs the agent until it is told to stop.
pub(crate) async fn live(config: Config, path: &Path) -> Result<(), Failure> {
    allow_many_files();
    // Journal, reports and socket are for this user alone.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    let Config { policy, wiring } = config;
    let state = &wiring.agent.state;
    let (journal, records) = open_state(state).map_err(|error| held(state, &error))?;
    let runbooks = pages::in_force(wiring.agent.runbooks.as_deref())?;
    let clock = clock(&records);
    let guardian = Guardian::restore(policy.clone(), runbooks, env!("CARGO_PKG_VERSION"), &records);
    if let Some(reason) = guardian.misplaced().first() {
        return Err(Failure::new(Exit::Config, reason.to_string()).hint(
            "put the region back into lifeboat.toml under the name that is on record: lifeboat history",
        ));
    }
    let shared = sharing::shared(&wiring, clock).await?;
    if shared.is_none() {
        warn_of_other_agent(&records, &policy.agent);
    }

    let Plugged { world, authority } = plug::plug(&wiring, &policy, &guardian, clock).await?;
    let stop = CancellationToken::new();
    let coordination = shared.as_ref().map(|shared| Arc::clone(&shared.coordination));
    let known = guardian.clone();
    let guard = Guard::new(Parts {
        guardian,
        journal: journal.clone(),
        clock,
        world,
        coordination,
        stop: stop.clone(),
    });
    let door = api::Door::bind(&wiring.agent.socket)?;
    if let Some((shared, reached)) = shared.as_ref().zip(guard.reached()) {
        let (outlook, known) = watch::channel(Outlook { reachable: true, ..Outlook::default() });
        if let Some(listener) = sharing::listener(shared, &wiring, known, clock).await? {
            tokio::spawn(listener.serve(stop.clone()));
        }
        tokio::spawn(sharing::look_out(outlook, reached, guard.heads(), stop.clone()));
    }

    let follower = shared.as_ref().zip(authority.as_ref()).map(|(shared, authority)| Follower {
        names: authority.names(Vec::new()),
        says: guard.names_say(),
        inbox: guard.inbox(),
        coordination: Arc::clone(&shared.coordination),
        wiring: wiring.clone(),
        policy: policy.clone(),
    });
    let authority = tokio::spawn(answer_names(authority, follower, (known, records), stop.clone()));
    let (shown, backups) = watch::channel(Vec::new());
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let keeping = Keeping::new(&wiring, path, clock).run(guard.inbox(), shown, stop.clone());
    let keeping = tokio::spawn(keeping);
    let api = tokio::spawn(door.serve(guard.inbox(), journal, backups, stop.clone()));
    let signals = tokio::spawn(until_signalled(stop.clone()));
    tokio::spawn(keep_watchdog_quiet(guard.inbox(), stop.clone()));
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    info!(agent = %policy.agent, socket = %wiring.agent.socket.display(), "lifeboat is on guard");

    let ended = guard.run().await;
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
    stop.cancel();
    // A client that holds its connection must not keep a stopping agent alive.
    let _ = tokio::time::timeout(DRAIN_LIMIT, api).await;
    let _ = tokio::time::timeout(DRAIN_LIMIT, keeping).await;
    let lost = authority.await;
    signals.abort();
    let _ = std::fs::remove_file(&wiring.agent.socket);
    let again = "start it again: what was under way goes on from the record";
    ended.map_err(|error| Failure::because(Exit::Failed, "the agent had to stop", &error).hint(again))?;
    match lost {
        Ok(None) => Ok(()),
        Ok(Some(listener)) => {
            Err(Failure::new(Exit::Failed, format!("the name server ended: {listener}")).hint(again))
        }
        Err(error) => Err(Failure::because(Exit::Failed, "the name server ended", &error).hint(again)),
    }
}

/// Answers for the zone until told to stop. An agent that cannot answer for its names must not look alive:
/// when a listener ends, so does the agent, and its name is given back.
///
/// One of several may have been away for long: it answers once it has read what the others did meanwhile.
async fn answer_names(
    authority: Option<Authority>,
    follower: Option<Follower>,
    (known, records): (Guardian, Vec<Stamped>),
    stop: CancellationToken,
) -> Option<String> {
    let Some(authority) = authority else {
        stop.cancelled().await;
        return None;
    };
    if let Some(follower) = follower {
        tokio::select! {
            biased;
            () = stop.cancelled() => return None,
            () = follower.catch_up(known, records) => {}
        }
        tokio::spawn(follower.follow(stop.clone()));
    }
    let mut serving = authority.start();
    let lost = tokio::select! {
        biased;
        () = stop.cancelled() => None,
        listener = serving.ended() => Some(listener),
    };
    stop.cancel();
    serving.drain().await;
    lost
}

/// A thousand silent targets are a thousand open sockets; the usual soft limit is just that.
fn allow_many_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }) {
        warn!(%error, "the limit of open files cannot be raised; many silent targets may blind this agent");
    }
}

fn held(state: &Path, error: &dyn std::error::Error) -> Failure {
    Failure::because(Exit::Failed, format!("the record in {} cannot be used", state.display()), error)
}

/// A journal that another agent wrote was perhaps copied by mistake.
fn warn_of_other_agent(records: &[Stamped], agent: &AgentName) {
    let newest = records.iter().rev().find_map(|stamped| match &stamped.record {
        Record::AgentStarted { agent, .. } => Some(agent),
        _ => None,
    });
    if let Some(other) = newest.filter(|newest| *newest != agent) {
        warn!(%other, %agent, "this record was written by an agent of another name; two agents must never share one");
    }
}

/// Tells the service manager that the loop still turns, as often as it wants to know.
async fn keep_watchdog_quiet(inbox: Inbox, stop: CancellationToken) {
    let Some(every) = sd_notify::watchdog_enabled() else { return };
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = tokio::time::sleep(every / 3) => {}
        }
        // Answered by the loop itself: silence here is what the watchdog is for.
        if inbox.status().await.is_ok() {
            let _ = sd_notify::notify(&[sd_notify::NotifyState::Watchdog]);
        }
    }
}

/// The clock goes on from the newest record, even when the wall clock was set back behind it.
fn clock(records: &[Stamped]) -> Clock {
    let newest = records.last().map(|stamped| stamped.at).unwrap_or_default();
    let wall = Clock::start().now();
    if wall < newest {
        warn!(%newest, %wall, "the wall clock is behind the newest record; check the time service. Going on from the record");
    }
    Clock::start_after(newest)
}

async fn until_signalled(stop: CancellationToken) {
    let (Ok(mut term), Ok(mut int)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        warn!("signals cannot be listened to; the agent stops only when it is killed");
        return;
    };
    tokio::select! {
        biased;
        _ = term.recv() => info!("told to stop (SIGTERM)"),
        _ = int.recv() => info!("told to stop (SIGINT)"),
        () = stop.cancelled() => {}
    }
    stop.cancel();
}
