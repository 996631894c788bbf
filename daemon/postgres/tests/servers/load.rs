//! Clients that write as fast as they are answered, and remember what they were told.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::task::JoinHandle;

use crate::pair::{Server, until};

/// Writers of one server; each ends with its session.
pub(crate) struct Load {
    acknowledged: Arc<AtomicU64>,
    writers: Vec<JoinHandle<BTreeSet<i64>>>,
}

impl Load {
    /// Starts `writers` of them, each with `settings` for its session, and waits until each might have written.
    pub(crate) async fn start(server: &Server, writers: usize, settings: &str) -> Self {
        let acknowledged = Arc::new(AtomicU64::new(0));
        let mut load = Self { acknowledged: Arc::clone(&acknowledged), writers: Vec::new() };
        for _ in 0..writers {
            let client = server.connect_with("app", settings).await.unwrap();
            let acknowledged = Arc::clone(&acknowledged);
            load.writers.push(tokio::spawn(async move {
                let mut told = BTreeSet::new();
                while let Ok(row) =
                    client.query_one("INSERT INTO orders DEFAULT VALUES RETURNING id", &[]).await
                {
                    told.insert(row.get(0));
                    acknowledged.fetch_add(1, Ordering::SeqCst);
                }
                told
            }));
        }
        let begun = load.acknowledged.load(Ordering::SeqCst);
        until("they write", async || load.acknowledged.load(Ordering::SeqCst) > begun + 300).await;
        load
    }

    /// How many rows were acknowledged so far.
    pub(crate) fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::SeqCst)
    }

    /// Waits until all have ended; the rows that were acknowledged.
    pub(crate) async fn end(self) -> BTreeSet<i64> {
        let mut told = BTreeSet::new();
        for writer in self.writers {
            told.append(&mut writer.await.unwrap());
        }
        told
    }
}

/// The rows that a server has.
pub(crate) async fn rows(server: &Server) -> BTreeSet<i64> {
    let rows = server.client().await.query("SELECT id FROM orders", &[]).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}
