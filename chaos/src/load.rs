//! The load: many sessions that write to the shop's database all the time, each as a service's pool would.
//!
//! The canary is a client of the shop; the load is what the shop's other services are: sessions with the database
//! itself, found by the shop's DNS name (looked up again once its TTL is over), opened again after an error. It
//! makes the thousand writes a second under which a move has to lose nothing.
//!
//! **Invariant:** a write is never sent twice, so each acknowledged one is one row, or one loss, or duplicated by
//! someone else.
//! **Invariant:** bounded: one write on the way per session, and [`ledger::LIMIT`] writes in the ledger, after
//! which the load ends.

pub mod ledger;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, NoTls, Statement};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use ledger::{Ledger, Tally, Write, WriteGap};

use crate::canary::now_ms;
use crate::region::Region;
use crate::resolver::Resolver;

/// The table it writes to. It has no key: a row that someone else writes again is then two rows.
pub const TABLE: &str = "entry";
/// How long a session waits before it is opened again. The sessions take turns, so that one of them tries every
/// few milliseconds and a server that is not ready is not stormed.
const RETRY: Duration = Duration::from_millis(200);

/// What a load does.
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// What its rows are marked with. Two loads of a lab have different names.
    pub name: String,
    /// The DNS name under which the database is found.
    pub host: String,
    /// The DNS servers asked, each when the one before it is silent.
    pub resolvers: Vec<SocketAddr>,
    /// Port, database, user and password; the host is what the name says.
    pub database: tokio_postgres::Config,
    /// Which region an address belongs to.
    pub regions: BTreeMap<Ipv4Addr, Region>,
    /// How many sessions.
    pub sessions: u32,
    /// Writes a second, all sessions together. What a session misses because a write took longer is not caught up.
    pub rate: u32,
    /// How long a connection or a write may take.
    pub timeout: Duration,
}

/// A running load. It stops when this value is dropped.
#[derive(Debug)]
pub struct Load {
    ledger: Arc<Mutex<Ledger>>,
    stop: CancellationToken,
    sessions: TaskTracker,
}

impl Load {
    /// Starts it. Must be called within a tokio runtime.
    #[must_use]
    pub fn start(options: LoadOptions) -> Load {
        let ledger = Arc::new(Mutex::new(Ledger::default()));
        let (stop, sessions) = (CancellationToken::new(), TaskTracker::new());
        let writer = Arc::new(Writer {
            resolver: Resolver::new(&options.resolvers, &options.host),
            ledger: Arc::clone(&ledger),
            options,
        });
        for number in 0..writer.options.sessions {
            let (writer, stop) = (Arc::clone(&writer), stop.clone());
            sessions.spawn(async move { writer.session(number, &stop).await });
        }
        sessions.close();
        Load { ledger, stop, sessions }
    }

    /// Looks into the ledger without stopping the load.
    pub fn look<T>(&self, look: impl FnOnce(&Ledger) -> T) -> T {
        look(&self.ledger.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Stops writing, waits for the writes on the way, and hands over the ledger.
    pub async fn stop(self) -> Ledger {
        self.stop.cancel();
        self.sessions.wait().await;
        std::mem::take(&mut *self.ledger.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

struct Writer {
    options: LoadOptions,
    resolver: Resolver,
    ledger: Arc<Mutex<Ledger>>,
}

struct Session {
    client: Client,
    insert: Statement,
    region: Region,
}

impl Writer {
    fn ledger(&self) -> std::sync::MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One session's turns: `number` in so many of a period.
    fn turns(&self, number: u32, every: Duration) -> Interval {
        let first = Instant::now() + every * number / self.options.sessions;
        let mut turns = interval_at(first, every);
        turns.set_missed_tick_behavior(MissedTickBehavior::Skip);
        turns
    }

    async fn session(&self, number: u32, stop: &CancellationToken) {
        let every = Duration::from_secs(1) * self.options.sessions / self.options.rate;
        let (mut beat, mut retry) = (self.turns(number, every), self.turns(number, RETRY));
        let mut session: Option<Session> = None;
        let mut id = u64::from(number);
        loop {
            let turn = if session.is_some() { &mut beat } else { &mut retry };
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                _ = turn.tick() => {}
            }
            let open = match session.take() {
                Some(open) => open,
                None => match self.open().await {
                    Some(open) => open,
                    None => {
                        self.ledger().not_connected += 1;
                        continue;
                    }
                },
            };
            if self.ledger().full() {
                return;
            }
            session = self.write(open, id).await;
            id += u64::from(self.options.sessions);
        }
    }

    /// One write; the session, unless it has to be opened again.
    async fn write(&self, session: Session, id: u64) -> Option<Session> {
        let sent_ms = now_ms();
        let (row, at) = (i64::try_from(id).unwrap_or(i64::MAX), i64::try_from(sent_ms).unwrap_or(i64::MAX));
        let (name, region) = (&self.options.name, session.region.name());
        let values: [&(dyn ToSql + Sync); 4] = [name, &row, &region, &at];
        let write = session.client.execute(&session.insert, &values);
        let written = tokio::time::timeout(self.options.timeout, write).await;
        let acknowledged_ms = now_ms();
        if written.is_err() {
            self.cancel(&session);
        }
        let mut ledger = self.ledger();
        if matches!(written, Ok(Ok(1))) {
            ledger.acknowledged.push(Write { id, sent_ms, acknowledged_ms, region: session.region });
            return Some(session);
        }
        // It may have become a row or not: neither counts against anyone.
        ledger.failed += 1;
        None
    }

    /// Has the server give up a write that was given up here, as drivers do. A commit that waits for a standby does
    /// not notice that its client is gone: without this such sessions would soon be all the server has.
    fn cancel(&self, session: &Session) {
        let (cancel, limit) = (session.client.cancel_token(), self.options.timeout);
        // A server that is silent is not reached by this either.
        tokio::spawn(async move { tokio::time::timeout(limit, cancel.cancel_query(NoTls)).await.ok() });
    }

    async fn open(&self) -> Option<Session> {
        tokio::time::timeout(self.options.timeout, async {
            let host = self.resolver.address().await?;
            let region = *self.options.regions.get(&host)?;
            let mut config = self.options.database.clone();
            config.host(host.to_string()).connect_timeout(self.options.timeout).application_name("load");
            let (client, connection) = config.connect(NoTls).await.ok()?;
            // The session's end is seen by the next write.
            tokio::spawn(async move { connection.await.ok() });
            let sql = format!("INSERT INTO {TABLE} (load, id, region, sent_ms) VALUES ($1, $2, $3, $4)");
            let insert = client.prepare(&sql).await.ok()?;
            Some(Session { client, insert, region })
        })
        .await
        .ok()?
    }
}
