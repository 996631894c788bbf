//! The regions of a lab: lost, frozen, promoted by hand, counted.

use std::collections::HashSet;
use std::time::Duration;

use super::{Lab, LabError, UP_WITHIN};
use crate::canary::now_ms;
use crate::postgres::{AGENT_USER, PostgresError};
use crate::process::{self, Signal};
use crate::proxy::Fault;
use crate::region::Region;

impl Lab {
    /// Loses a region: kill -9 of every process of it, and every path to it refuses. Returns the moment just
    /// before the first kill, in milliseconds since the Unix epoch.
    ///
    /// # Errors
    /// When processes survive.
    pub fn lose(&self, region: Region) -> Result<u64, LabError> {
        let at = now_ms();
        process::kill_within(&region.folder(self.folder()))?;
        self.to_region(region, Fault::Refuse);
        Ok(at)
    }

    /// Freezes a region: every process of it is stopped (SIGSTOP) and every path to it is a black hole. This is
    /// the silent death of a machine: nothing is reset. Returns the moment, as [`Lab::lose`].
    ///
    /// # Errors
    /// When a signal is refused.
    pub fn freeze(&self, region: Region) -> Result<u64, LabError> {
        let at = now_ms();
        process::signal(&process::within(&region.folder(self.folder()))?, Signal::STOP)?;
        self.to_region(region, Fault::Blackhole);
        Ok(at)
    }

    /// Wakes a frozen region, with all that it was about to do.
    ///
    /// # Errors
    /// When a signal is refused.
    pub fn thaw(&self, region: Region) -> Result<(), LabError> {
        self.to_region(region, Fault::None);
        Ok(process::signal(&process::within(&region.folder(self.folder()))?, Signal::CONT)?)
    }

    /// Gives every path to a region the same fault.
    pub fn to_region(&self, region: Region, fault: Fault) {
        let paths = self.proxies.iter().filter(|((_, to), _)| to.region() == Some(region));
        paths.for_each(|(_, proxy)| proxy.set(fault));
    }

    /// Promotes a region's database by hand, as an operator without lifeboat would.
    ///
    /// # Errors
    /// When it refuses or takes longer than 30 s.
    pub async fn promote(&self, region: Region) -> Result<(), LabError> {
        let promoted: bool = self.ask(region, "SELECT pg_promote(true, 30)", "promoting").await?;
        if promoted {
            return Ok(());
        }
        let limit = Duration::from_secs(30);
        Err(LabError::Late { what: format!("{region} was not promoted"), limit, hint: String::new() })
    }

    /// The ids of all orders a region's database has.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn orders(&self, region: Region) -> Result<HashSet<String>, LabError> {
        let server = self.server(region).connect(AGENT_USER).await?;
        let rows = server.query("SELECT id FROM orders", &[]).await;
        let sql = |source| PostgresError::Sql { region, act: "reading the orders", source };
        Ok(rows.map_err(sql)?.into_iter().map(|row| row.get(0)).collect())
    }

    /// A digest of the reference table, which no failover may change.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn reference(&self, region: Region) -> Result<String, LabError> {
        let sql = "SELECT md5(string_agg(product::text, ',' ORDER BY sku)) FROM product";
        self.ask(region, sql, "reading the reference table").await
    }

    pub(crate) async fn ask<T>(&self, region: Region, sql: &str, act: &'static str) -> Result<T, LabError>
    where
        T: for<'a> tokio_postgres::types::FromSql<'a>,
    {
        let server = self.server(region).connect(AGENT_USER).await?;
        let row = server.query_one(sql, &[]).await;
        Ok(row.and_then(|row| row.try_get(0)).map_err(|source| PostgresError::Sql { region, act, source })?)
    }

    /// Returns once west has replayed all that east has written until now.
    ///
    /// # Errors
    /// When it has not after 30 s.
    pub async fn replicated(&self) -> Result<(), LabError> {
        let sql = "SELECT pg_current_wal_lsn()::text";
        let written: String = self.ask(Region::East, sql, "reading the WAL position").await?;
        let sql = format!("SELECT coalesce(pg_last_wal_replay_lsn() >= '{written}'::pg_lsn, false)");
        self.wait("west did not catch up with east".to_owned(), UP_WITHIN, async || {
            self.ask(Region::West, &sql, "reading the replay position").await.unwrap_or(false)
        })
        .await
    }
}
