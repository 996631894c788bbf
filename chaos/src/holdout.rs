//! A client that never lets go: one session with one region's database, opened before the trouble, writing as fast as it
//! can; and one that tries to be the first who writes elsewhere.
//!
//! Between them they measure the one thing a fence is for: how many writes an old primary acknowledged after a new one
//! had taken its first.
//!
//! **Invariant:** the session is never opened again, and it knows no DNS: nothing but a fence ends it.
//! **Invariant:** what is counted errs against the fence: the new primary counts from the moment its first accepted write
//! was *sent*.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::task::AbortHandle;
use tokio_postgres::{Client, Config, NoTls, ToStatement};

use crate::load::TABLE;
use crate::region::Region;

/// How often the newcomer tries: the error of its moment is as large.
const EVERY: Duration = Duration::from_millis(2);

/// Microseconds since the Unix epoch.
#[must_use]
pub fn now_us() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

/// What a holdout was told.
#[derive(Clone, Debug, Default)]
pub struct Told {
    /// When each write was acknowledged, in microseconds since the Unix epoch, oldest first.
    pub acknowledged: Vec<u64>,
    /// When its session ended, and with which words; none while it lasts.
    pub ended: Option<(u64, String)>,
}

impl Told {
    /// How many were acknowledged after that moment.
    #[must_use]
    pub fn after(&self, moment: u64) -> usize {
        self.acknowledged.len() - self.acknowledged.partition_point(|at| *at <= moment)
    }
}

/// A client with one session. It lets go when this value is dropped.
#[derive(Debug)]
pub struct Holdout {
    told: Arc<Mutex<Told>>,
    task: AbortHandle,
}

impl Holdout {
    /// Opens the session, and writes from then on.
    ///
    /// # Errors
    /// When there is no session to be had.
    pub async fn start(
        database: &Config,
        name: &str,
        region: Region,
    ) -> Result<Holdout, tokio_postgres::Error> {
        let client = connect(database).await?;
        let statement = client.prepare(&sql()).await?;
        let told = Arc::new(Mutex::new(Told::default()));
        let (ledger, name) = (Arc::clone(&told), name.to_owned());
        let task = tokio::spawn(async move {
            let ended = loop {
                let id = i64::try_from(held(&ledger).acknowledged.len()).unwrap_or(i64::MAX);
                match insert(&client, &statement, &name, id, region).await {
                    Ok(()) => held(&ledger).acknowledged.push(now_us()),
                    Err(error) => break error.to_string(),
                }
            };
            held(&ledger).ended = Some((now_us(), ended));
        });
        Ok(Holdout { told, task: task.abort_handle() })
    }

    /// What it was told until now.
    pub fn look<T>(&self, look: impl FnOnce(&Told) -> T) -> T {
        look(&held(&self.told))
    }
}

impl Drop for Holdout {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A client that tries to write to a region's database until it once can. It stops when this value is dropped.
#[derive(Debug)]
pub struct Newcomer {
    first: Arc<Mutex<Option<u64>>>,
    task: AbortHandle,
}

impl Newcomer {
    /// Starts trying.
    #[must_use]
    pub fn start(database: &Config, name: &str, region: Region) -> Newcomer {
        let first = Arc::new(Mutex::new(None));
        let (place, database, name) = (Arc::clone(&first), database.clone(), name.to_owned());
        let task = tokio::spawn(async move {
            let mut session: Option<Client> = None;
            loop {
                let client = match session.take() {
                    Some(client) if !client.is_closed() => Some(client),
                    _ => connect(&database).await.ok(),
                };
                if let Some(client) = client {
                    let sent = now_us();
                    if insert(&client, sql().as_str(), &name, 0, region).await.is_ok() {
                        *held(&place) = Some(sent);
                        return;
                    }
                    session = Some(client);
                }
                tokio::time::sleep(EVERY).await;
            }
        });
        Newcomer { first, task: task.abort_handle() }
    }

    /// When its first accepted write was sent, in microseconds since the Unix epoch; none until there is one.
    #[must_use]
    pub fn first(&self) -> Option<u64> {
        *held(&self.first)
    }
}

impl Drop for Newcomer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn held<T>(value: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    value.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn connect(database: &Config) -> Result<Client, tokio_postgres::Error> {
    let (client, connection) = database.connect(NoTls).await?;
    // The session's end is seen by the next write.
    tokio::spawn(async move { connection.await.ok() });
    Ok(client)
}

fn sql() -> String {
    format!("INSERT INTO {TABLE} (load, id, region, sent_ms) VALUES ($1, $2, $3, $4)")
}

async fn insert(
    client: &Client,
    statement: &(impl ToStatement + ?Sized + Sync),
    name: &str,
    id: i64,
    region: Region,
) -> Result<(), tokio_postgres::Error> {
    let sent = i64::try_from(now_us() / 1000).unwrap_or(i64::MAX);
    client.execute(statement, &[&name, &id, &region.name(), &sent]).await.map(drop)
}
