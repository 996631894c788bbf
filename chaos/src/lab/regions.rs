//! The regions of a lab: lost, frozen, promoted by hand, counted.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use super::{Lab, LabError, UP_WITHIN};
use crate::canary::now_ms;
use crate::load::TABLE as ENTRIES;
use crate::postgres::{AGENT_USER, Postgres, PostgresError, SHOP_USER};
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
        process::freeze_within(&region.folder(self.folder()))?;
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
        self.to_site(region.into(), fault);
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
        orders_of(self.server(region)).await
    }

    /// How many rows each write of a load has in a region's database, for [`crate::load::Ledger::tally`].
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn entries(&self, region: Region, load: &str) -> Result<HashMap<u64, u64>, LabError> {
        let server = self.server(region).connect(AGENT_USER).await?;
        let sql = format!("SELECT id, count(*) FROM {ENTRIES} WHERE load = $1 GROUP BY id");
        let rows = server.query(&sql, &[&load]).await;
        let rows =
            rows.map_err(|source| PostgresError::Sql { region, act: "reading the entries", source })?;
        let number =
            |row: &tokio_postgres::Row, column| u64::try_from(row.get::<_, i64>(column)).unwrap_or(0);
        Ok(rows.iter().map(|row| (number(row, 0), number(row, 1))).collect())
    }

    /// Commits `count` orders in a region's database and returns their ids: what a client that is still connected
    /// to an isolated old primary does. It waits for that server alone, also where commits wait for a standby.
    ///
    /// # Errors
    /// When the server does not answer or refuses the write, as a fenced one does; some may be committed then.
    pub async fn write_isolated(&self, region: Region, count: u32) -> Result<Vec<String>, LabError> {
        let act = "writing as an isolated client";
        let sql = move |source| PostgresError::Sql { region, act, source };
        let client = self.server(region).connect(SHOP_USER).await?;
        client.batch_execute("SET synchronous_commit = local").await.map_err(sql)?;
        let insert = "INSERT INTO orders (id, sent_ms, region) VALUES ($1, $2, $3)";
        let (began, mut ids) = (now_ms(), Vec::new());
        for number in 0..count {
            let id = format!("isolated-{region}-{began}-{number}");
            let sent = i64::try_from(now_ms()).unwrap_or(i64::MAX);
            client.execute(insert, &[&id, &sent, &region.name()]).await.map_err(sql)?;
            ids.push(id);
        }
        Ok(ids)
    }

    /// In a lab with a synchronous standby, lets commits in `primary` wait for the other region, once that streams;
    /// and those of the other region, should it be promoted, wait for nobody. Does nothing in other labs.
    ///
    /// PostgreSQL would wait for ever for a standby that is gone, so a region that was promoted commits alone until
    /// this is called for it: after a failover once the old primary follows, after each switchover again.
    ///
    /// # Errors
    /// When the other region does not stream within 30 s, or a server does not answer.
    pub async fn synchronise(&self, primary: Region) -> Result<(), LabError> {
        if !self.options.setup.sync {
            return Ok(());
        }
        let standby = primary.other();
        let sql = format!(
            "SELECT EXISTS (SELECT FROM pg_stat_replication WHERE application_name = '{standby}' AND state = 'streaming')"
        );
        self.wait(format!("{standby} did not stream from {primary}"), UP_WITHIN, async || {
            self.ask(primary, &sql, "reading the replication state").await.unwrap_or(false)
        })
        .await?;
        for (region, waits_for) in [(standby, None), (primary, Some(standby))] {
            self.server(region).configure(waits_for)?;
            self.ask::<bool>(region, "SELECT pg_reload_conf()", "reloading the settings").await?;
        }
        let name = waits(standby);
        self.wait(format!("{primary} does not wait for {standby}"), UP_WITHIN, async || {
            self.ask(primary, &name, "reading the replication state").await.unwrap_or(false)
        })
        .await
    }

    /// A digest of the reference table and the ballast, which no failover may change.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn reference(&self, region: Region) -> Result<String, LabError> {
        reference_of(self.server(region)).await
    }

    pub(crate) async fn ask<T>(&self, region: Region, sql: &str, act: &'static str) -> Result<T, LabError>
    where
        T: for<'a> tokio_postgres::types::FromSql<'a>,
    {
        ask(self.server(region), sql, act).await
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

/// Asks a primary whether it takes a standby for its synchronous one.
fn waits(standby: Region) -> String {
    format!(
        "SELECT EXISTS (SELECT FROM pg_stat_replication WHERE application_name = '{standby}' AND sync_state = 'sync')"
    )
}

/// The ids of all orders that a server has.
pub(super) async fn orders_of(server: &Postgres) -> Result<HashSet<String>, LabError> {
    let rows = server.connect(AGENT_USER).await?.query("SELECT id FROM orders", &[]).await;
    let sql = |source| PostgresError::Sql { region: server.region, act: "reading the orders", source };
    Ok(rows.map_err(sql)?.into_iter().map(|row| row.get(0)).collect())
}

/// The digest of a server's reference table and ballast.
pub(super) async fn reference_of(server: &Postgres) -> Result<String, LabError> {
    let sql = "SELECT md5(string_agg(product::text, ',' ORDER BY sku)) || \
               coalesce((SELECT sum(hashtextextended(ballast::text, 0)) FROM ballast)::text, '') FROM product";
    ask(server, sql, "reading the reference table").await
}

async fn ask<T>(server: &Postgres, sql: &str, act: &'static str) -> Result<T, LabError>
where
    T: for<'a> tokio_postgres::types::FromSql<'a>,
{
    let row = server.connect(AGENT_USER).await?.query_one(sql, &[]).await;
    let sql = |source| PostgresError::Sql { region: server.region, act, source };
    Ok(row.and_then(|row| row.try_get(0)).map_err(sql)?)
}
