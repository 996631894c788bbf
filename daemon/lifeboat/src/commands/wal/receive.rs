//! `lifeboat wal receive`

use std::time::Duration;

use clap::Args;
use lifeboat_archive::Archive;
use lifeboat_config::document::archive::From;
use lifeboat_config::wiring::WalWiring;
use lifeboat_core::{Lsn, Moment};
use lifeboat_engine::clock::Clock;
use lifeboat_postgres::replication::{Endpoint, Replication};
use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::archives::{Chosen, Lock, Which, region, say, untethered, work};
use crate::cli::Place;
use crate::failure::{Exit, Failure};
use crate::ui::{self, Shown};
use crate::vault::stream::{Received, Reception, receive};
use crate::vault::{Trouble, servers};

/// How often is told how far it is, and the slot looked at.
const TELL: Duration = Duration::from_secs(1);

/// How often the slot is looked at.
const SLOT: Duration = Duration::from_secs(10);

/// How soon it is tried again, at first and at most.
const AGAIN: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

/// Receive a database's log all the time, until told to stop (SIGTERM, Ctrl-C).
///
/// The server keeps what is not durable in the archive yet, in a replication slot; when the slot holds back more than
/// `slot_limit`, it is given up, so that the server's disk does not fill, and a base backup is needed. What the server is told
/// is flushed is in the archive: named in synchronous_standby_names, a commit waits for it. What may pass is tried again;
/// refused while another process receives the same (exit 5).
#[derive(Debug, Args)]
pub(crate) struct Receive {
    /// The database.
    #[arg(value_name = "DATABASE")]
    database: String,
    #[command(flatten)]
    which: Which,
    /// Receive from the server in this region [default: the primary].
    #[arg(long, value_name = "REGION")]
    region: Option<String>,
    /// End when it fails, instead of trying again.
    #[arg(long)]
    once: bool,
    /// End when standard input does.
    #[arg(long, hide = true)]
    tethered: bool,
    #[command(flatten)]
    shown: Shown,
}

/// What the agent reads of it.
#[derive(Serialize)]
struct Said<'a> {
    at: Moment,
    region: String,
    slot: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    received: Option<&'a Received>,
    /// What the slot holds back at the server, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    held_back: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rpo_held_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    failed: Option<String>,
}

impl Receive {
    pub(crate) fn run(self, place: &Place) -> Result<Exit, Failure> {
        let chosen = Chosen::find(place, &self.database)?;
        let found = self.which.find(place, Some(chosen.wiring()))?;
        let Some(wal) = chosen.backup(&found.name).and_then(|backup| backup.wal.clone()) else {
            let text = format!("the log of {} is not received into {}", chosen.shown(), found.name);
            return Err(
                Failure::new(Exit::Config, text).hint("`wal = true` in its [[workload.database.backup]]")
            );
        };
        let Some(_lock) = Lock::take(&chosen.file("wal", &found.name, "lock"))? else {
            let text = format!("the log of {} is being received into {} already", chosen.shown(), found.name);
            return Err(Failure::new(Exit::Refused, text));
        };
        tracing_subscriber::fmt()
            .with_max_level(tracing::Level::INFO)
            .with_writer(std::io::stderr)
            .with_ansi(false)
            .log_internal_errors(false)
            .init();
        work(async {
            let archive = found.open().await?;
            let stop = CancellationToken::new();
            let (told, tethered) = (stop.clone(), self.tethered);
            let failed = |error| Failure::because(Exit::Failed, "signals cannot be listened to", &error);
            let mut ends = signal(SignalKind::terminate()).map_err(failed)?;
            let mut interrupts = signal(SignalKind::interrupt()).map_err(failed)?;
            tokio::spawn(async move {
                tokio::select! {
                    biased;
                    _ = ends.recv() => {}
                    _ = interrupts.recv() => {}
                    () = untethered(tethered) => {}
                }
                told.cancel();
            });
            self.keep_on(&chosen, &archive, &found.name, &wal, &stop).await
        })?;
        Ok(Exit::Done)
    }

    /// Receives, and begins again when something that may pass has ended it.
    async fn keep_on(
        &self,
        chosen: &Chosen,
        archive: &Archive,
        name: &str,
        wal: &WalWiring,
        stop: &CancellationToken,
    ) -> Result<(), Failure> {
        let clock = Clock::start();
        let region = self.region.as_deref().map(|named| region(chosen, named)).transpose()?;
        let file = chosen.file("wal", name, "json");
        let mut wait = AGAIN.0;
        loop {
            let begun = clock.now();
            let ended = match servers::choose(chosen, From::Primary, region.as_ref(), clock).await {
                Ok(server) => {
                    let place = server.region.to_string();
                    let (told, heard) = watch::channel(None);
                    let reception = Reception {
                        endpoint: server.endpoint.clone(),
                        slot: Some(wal.slot.clone()),
                        piece_every: wal.piece_interval,
                    };
                    let report = |received: Option<&Received>, held_back, failed| {
                        let rpo = received.map(|received| received.rpo_held(clock.now()));
                        let rpo_held_ms = rpo.map(|rpo| u64::try_from(rpo.as_millis()).unwrap_or(u64::MAX));
                        let (at, region) = (clock.now(), place.clone());
                        let said =
                            Said { at, region, slot: &wal.slot, received, held_back, rpo_held_ms, failed };
                        say(&file, &said);
                        if self.shown.as_events() {
                            ui::event(&said);
                        }
                    };
                    let ended = tokio::select! {
                        biased;
                        ended = receive(archive, &reception, &told, stop) => ended,
                        over = watch_slot(&server.endpoint, wal, &heard, &report) => Err(over),
                    };
                    let last = heard.borrow().clone();
                    report(last.as_ref(), None, ended.as_ref().err().map(ToString::to_string));
                    match ended {
                        Ok(()) => return Ok(()),
                        Err(trouble) => {
                            let again = trouble.passing() || trouble.wants_base_backup();
                            (failed(chosen, &trouble), again)
                        }
                    }
                }
                // A database that fails over has no primary for a while.
                Err(failure) => (failure, true),
            };
            let (failure, again) = ended;
            if self.once || !again || stop.is_cancelled() {
                return if stop.is_cancelled() { Ok(()) } else { Err(failure) };
            }
            tracing::warn!(causes = ?failure.causes, again_in = ?wait, "{}", failure.message);
            // What went well for a while begins anew.
            if clock.now().since(begun) > AGAIN.1 {
                wait = AGAIN.0;
            }
            tokio::select! { biased; () = stop.cancelled() => return Ok(()), () = tokio::time::sleep(wait) => {} }
            wait = (wait * 2).min(AGAIN.1);
        }
    }
}

/// Tells how far it is, and gives the slot up before it fills the server's disk.
async fn watch_slot(
    endpoint: &Endpoint,
    wal: &WalWiring,
    heard: &watch::Receiver<Option<Received>>,
    report: &impl Fn(Option<&Received>, Option<u64>, Option<String>),
) -> Trouble {
    let (mut held_back, mut looked) = (None, None::<Moment>);
    loop {
        tokio::time::sleep(TELL).await;
        let now = endpoint.clock.now();
        if looked.is_none_or(|looked| now.since(looked) >= SLOT) {
            looked = Some(now);
            if let Ok(held) = hold(endpoint, &wal.slot).await {
                held_back = held;
            }
            if let Some(held) = held_back.filter(|held| *held > wal.slot_limit) {
                tracing::error!(
                    slot = wal.slot,
                    held,
                    limit = wal.slot_limit,
                    "the slot is given up: a base backup is needed"
                );
                return give_up(endpoint.clone(), wal, held).await;
            }
            if held_back.is_some_and(|held| held > wal.slot_alert) {
                tracing::warn!(slot = wal.slot, held_back, "the slot holds back much log at the server");
            }
        }
        let last = heard.borrow().clone();
        report(last.as_ref(), held_back, None);
    }
}

/// How much log the slot holds back at the server.
async fn hold(endpoint: &Endpoint, slot: &str) -> Result<Option<u64>, lifeboat_postgres::replication::Error> {
    let mut server = Replication::connect(endpoint.clone()).await?;
    let flushed: Lsn = server.identify().await?.flushed;
    let kept = server.slot(slot).await?.and_then(|slot| slot.kept_from);
    Ok(kept.map(|kept| flushed.ahead_of(kept)))
}

async fn give_up(endpoint: Endpoint, wal: &WalWiring, held: u64) -> Trouble {
    let text = format!(
        "the slot {} held back {held} bytes, more than {}: it was given up",
        wal.slot, wal.slot_limit
    );
    let slot = wal.slot.clone();
    // The stream that uses it ends with this answer; then it can be dropped.
    tokio::spawn(async move {
        for _ in 0..50 {
            tokio::time::sleep(Duration::from_millis(100)).await;
            let Ok(mut server) = Replication::connect(endpoint.clone()).await else { continue };
            if server.drop_slot(&slot).await.is_ok() {
                return;
            }
        }
    });
    Trouble::Odd(text)
}

fn failed(chosen: &Chosen, trouble: &Trouble) -> Failure {
    let text = format!("the log of {} is not received", chosen.shown());
    let failure = Failure::because(Exit::Failed, text, trouble);
    match trouble.hint() {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}
