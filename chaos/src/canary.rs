//! The canary: a real client of the shop, which notices everything.
//!
//! It resolves the shop's name through DNS and keeps the answer as long as its TTL says, not longer and not
//! shorter; sends one order every 10 ms, alternately over a pooled and over a fresh connection; and writes
//! down every order that was acknowledged.
//!
//! **Invariant:** the cadence never waits for an order: slow orders overlap, up to a bound, and beyond it the
//! missed beats are counted.
//! **Invariant:** an order is never sent twice, so every acknowledged id is one row or one loss.

pub mod ledger;
mod pool;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use ledger::{Acknowledged, Failed, Failure, Ledger, Way};
use pool::Pool;

use crate::resolver::Resolver;

/// Milliseconds since the Unix epoch, by the wall clock that lifeboat's records use too.
#[must_use]
pub fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// What a canary does.
#[derive(Clone, Debug)]
pub struct CanaryOptions {
    /// Begins every order's id, so that two canaries never share one.
    pub name: String,
    /// The DNS name of the shop.
    pub host: String,
    /// The shop's port.
    pub port: u16,
    /// The DNS servers asked, each when the one before it is silent.
    pub resolvers: Vec<SocketAddr>,
    /// Time between two orders.
    pub every: Duration,
    /// How long one order may take, lookup and connection included.
    pub timeout: Duration,
    /// How many orders may be on the way at once.
    pub in_flight: usize,
}

impl CanaryOptions {
    /// The cadence of the demo: one order every 10 ms, given up after 1 s, so about 100 are on the way at most.
    #[must_use]
    pub fn new(
        name: impl Into<String>,
        host: impl Into<String>,
        port: u16,
        resolvers: impl Into<Vec<SocketAddr>>,
    ) -> Self {
        CanaryOptions {
            name: name.into(),
            host: host.into(),
            port,
            resolvers: resolvers.into(),
            every: Duration::from_millis(10),
            timeout: Duration::from_secs(1),
            in_flight: 128,
        }
    }
}

/// A running canary. It stops when this value is dropped.
#[derive(Debug)]
pub struct Canary {
    ledger: Arc<Mutex<Ledger>>,
    stop: CancellationToken,
    beat: Option<JoinHandle<()>>,
    orders: TaskTracker,
}

impl Canary {
    /// Starts it. Must be called within a tokio runtime.
    #[must_use]
    pub fn start(options: CanaryOptions) -> Canary {
        let ledger = Arc::new(Mutex::new(Ledger::default()));
        let (stop, orders) = (CancellationToken::new(), TaskTracker::new());
        let client = Arc::new(Client {
            resolver: Resolver::new(&options.resolvers, &options.host),
            pool: Pool::new(&options.host),
            ledger: Arc::clone(&ledger),
            options,
        });
        let beat = tokio::spawn(beat(client, stop.clone(), orders.clone()));
        Canary { ledger, stop, beat: Some(beat), orders }
    }

    /// Looks into the ledger without stopping the canary.
    pub fn look<T>(&self, look: impl FnOnce(&Ledger) -> T) -> T {
        look(&self.ledger.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Stops sending, waits for the orders on the way, and hands over the ledger.
    pub async fn stop(mut self) -> Ledger {
        self.stop.cancel();
        if let Some(beat) = self.beat.take() {
            // It only ends by the stop above.
            let _ = beat.await;
        }
        self.orders.close();
        self.orders.wait().await;
        self.look(Ledger::clone)
    }
}

impl Drop for Canary {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

struct Client {
    options: CanaryOptions,
    resolver: Resolver,
    pool: Pool,
    ledger: Arc<Mutex<Ledger>>,
}

async fn beat(client: Arc<Client>, stop: CancellationToken, orders: TaskTracker) {
    let places = Arc::new(Semaphore::new(client.options.in_flight));
    let mut ticks = tokio::time::interval(client.options.every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut number = 0u64;
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        number += 1;
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            client.ledger.lock().unwrap_or_else(PoisonError::into_inner).missed_beats += 1;
            continue;
        };
        let client = Arc::clone(&client);
        orders.spawn(async move {
            client.order(number).await;
            drop(place);
        });
    }
}

impl Client {
    async fn order(&self, number: u64) {
        let id = format!("{}-{number}", self.options.name);
        let way = if number.is_multiple_of(2) { Way::Pooled } else { Way::Fresh };
        let sent_ms = now_ms();
        let result = tokio::time::timeout(self.options.timeout, self.send(&id, way)).await;
        let ended_ms = now_ms();
        let mut ledger = self.ledger.lock().unwrap_or_else(PoisonError::into_inner);
        let failure = match result {
            Ok(Ok(region)) => {
                ledger.acknowledged.push(Acknowledged {
                    id,
                    sent_ms,
                    acknowledged_ms: ended_ms,
                    region,
                    way,
                });
                return;
            }
            Ok(Err(failure)) => failure,
            Err(_) => Failure::Silent,
        };
        ledger.failed.push(Failed { id, sent_ms, ended_ms, failure, way });
    }

    async fn send(&self, id: &str, way: Way) -> Result<crate::region::Region, Failure> {
        let host = self.resolver.address().await.ok_or(Failure::Name)?;
        self.pool.order((host, self.options.port).into(), id, way).await
    }
}

#[cfg(test)]
#[path = "canary/tests.rs"]
mod tests;
